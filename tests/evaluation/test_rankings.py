"""The order of the losses: its stability, ways of ranking, and the size of structures."""

import math

import numpy as np
import pandas as pd
import pytest
from score_helpers import dice_table, row

from voxloss.evaluation.rankings import by_dataset, by_size, rank_stability, ways_of_ranking
from voxloss.evaluation.scores import score_table
from voxloss.evaluation.verdict import judge


def test_the_spread_of_repetitions_is_that_of_new_studies():
    """The variance of a difference in the drawn repetitions over its variance in new studies, by the shares of ranks.

    Two losses with equal true means: in repetitions about the seen difference δ, b is first with probability Φ(δ / s),
    s² being the true variance of the difference, on average over studies.
    """
    generator = np.random.default_rng(0)
    fold = np.arange(200) % 5
    truth = math.sqrt(2 * (0.03**2 / 5 + 0.07**2 / 200))
    expected, seen = [], []
    from scipy import stats

    for _ in range(60):
        values = 0.6 + generator.normal(0, 0.2, (200, 1)) + generator.normal(0, 0.07, (200, 6))
        values += (generator.normal(size=(5, 6)) * 0.03)[fold]
        result = judge(values, fold, list("abcdef"), 1)
        two = judge(values[:, :2], fold, ["a", "b"], 1)
        shares = rank_stability(result).set_index("loss")
        assert shares[[str(place) for place in range(1, 7)]].sum(axis=1).tolist() == pytest.approx([1] * 6)
        seen.append(np.square(result.fold_sds).mean() * 2 / 5)
        expected.append(stats.norm.cdf(two.pairs["difference"].iloc[0] / truth))
    assert np.mean(seen) == pytest.approx(truth**2, rel=0.15)


def test_a_loss_that_is_always_best_is_always_first():
    values = np.random.default_rng(0).random((30, 1)) * 0.5 + np.array([0, 0.3, 0])
    result = rank_stability(judge(values, np.arange(30) % 5, ["low", "best", "same"], 1))
    assert result["loss"].tolist()[0] == "best"
    assert result.loc[0, "1"] == 1 and result.loc[0, "mean_rank"] == 1
    assert (result.loc[1:, "2"] == 1).all()  # equal ones share the better rank
    assert rank_stability(judge(values, np.zeros(30, int), ["low", "best", "same"], 1)).empty


def test_ways_of_ranking_by_hand():
    """b is better on most cases and fails on one; without that case, and by the median, b is first."""
    table = dice_table({"a": [0.5, 0.5, 0.5, 0.6], "b": [0.55, 0.55, 0.55, 0.0]})
    ways = ways_of_ranking(table, "tumour", "dice").set_index("loss")
    assert ways["mean"].to_dict() == pytest.approx({"a": 0.525, "b": 0.4125})
    assert ways["median"].to_dict() == pytest.approx({"a": 0.5, "b": 0.55})
    assert ways["within_cases"].to_dict() == pytest.approx({"a": 1.75, "b": 1.25})
    ranks = ways[["mean_rank", "median_rank", "within_cases_rank"]]
    assert ranks.loc["a"].tolist() == [1, 2, 2] and ranks.loc["b"].tolist() == [2, 1, 1]
    assert ways_of_ranking(table, "kidney", "dice").empty


def test_the_best_by_ranks_within_cases_can_be_another_loss_than_by_means():
    """b is a little better on every case but those of a sixth of the structures, which it misses."""
    generator = np.random.default_rng(0)
    easy = 0.5 + 0.3 * generator.random(120)
    values = {"a": easy.tolist(), "b": np.where(np.arange(120) // 5 % 6 == 0, 0.0, easy + 0.02).tolist()}
    ways = ways_of_ranking(dice_table(values, fold_of=lambda index: index % 5), "tumour", "dice").set_index("loss")
    assert ways["mean_rank"].to_dict() == {"a": 1, "b": 2}
    assert ways["within_cases_may_be_best"].to_dict() == {"a": False, "b": True}


def test_sizes_and_missed_structures():
    rows = []
    for case in range(12):
        volume = float(1 + case)
        for loss in ("a", "b"):
            value = 0.5 + 0.02 * case + (0.001 * case if loss == "b" else 0)
            value = 0.0 if loss == "b" and case < 3 else value
            rows.append(row(loss, f"case-{case}", value=value, fold=case % 2))
            rows.append(row(loss, f"case-{case}", metric="reference_volume", value=volume, fold=case % 2))
    sizes = by_size(score_table(rows), "tumour", "dice").set_index("loss")
    assert sizes.loc["a", "small"] == pytest.approx(np.mean([0.5, 0.52, 0.54, 0.56]))
    assert sizes.loc["b", "small"] == pytest.approx(0.563 / 4)
    assert sizes["missed"].to_dict() == {"a": 0, "b": 0.25}
    assert (sizes["n"] == 12).all()
    assert by_size(score_table(rows[:4]), "tumour", "dice").empty
    without = pd.DataFrame(rows)
    assert by_size(score_table(without[without["metric"] == "dice"]), "tumour", "dice").empty


def test_by_dataset_by_hand():
    """a is better in one place and b in the other; one data set needs no table."""
    random = np.random.default_rng(0)
    first = random.normal(0, 0.002, (2, 20))
    one = dice_table({"a": 0.8 + first[0], "b": 0.7 + first[1]}).assign(dataset="here")
    two = dice_table({"a": 0.5 + first[1], "b": 0.6 + first[0]}).assign(dataset="there")
    for table in (one, two):
        table["fold"] = table["case"].astype("category").cat.codes % 5
    found = by_dataset(pd.concat([one, two], ignore_index=True), "tumour", "dice").set_index(["dataset", "loss"])
    assert found["rank"].to_dict() == {("here", "a"): 1, ("here", "b"): 2, ("there", "b"): 1, ("there", "a"): 2}
    assert found.loc[("here", "a"), "mean"] == pytest.approx(0.8 + first[0].mean(), abs=1e-9)
    assert found["may_be_best"].to_dict() == {
        ("here", "a"): True, ("here", "b"): False, ("there", "b"): True, ("there", "a"): False,
    }  # fmt: skip
    assert (found["cases"] == 20).all()
    assert by_dataset(one, "tumour", "dice").empty
