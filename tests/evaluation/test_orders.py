"""Whether the order of losses changes between networks: against a paired t test, invariances, and made-up studies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxloss.evaluation.orders import judge_orders, orders
from voxloss.evaluation.scores import score_table

NAMES = ("a", "b", "c", "d")


def made_up(
    random: np.random.Generator,
    networks: int = 2,
    losses: int = 3,
    folds: int = 5,
    cases: int = 60,
    runs: float | np.ndarray = 0.03,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores without any interaction: effects of case, loss, network, fold and of every two of them but one.

    The runs of every network and loss vary from fold to fold with a standard deviation of their own.
    """
    of = np.arange(cases) % folds
    values = 0.6 + random.normal(0, 0.15, (cases, 1, 1)) + random.normal(0, 0.05, (1, 1, losses))
    values = values + random.normal(0, 0.05, (1, networks, 1))
    for shape in ((cases, 1, losses), (cases, networks, 1), (cases, networks, losses)):
        values = values + random.normal(0, 0.07, shape)
    for shape in ((folds, 1, losses), (folds, networks, 1)):
        values = values + random.normal(0, 0.03, shape)[of]
    return values + (random.normal(0, 1, (folds, networks, losses)) * runs)[of], of


def table(values: np.ndarray, folds: np.ndarray, losses: tuple[str, ...], metric: str = "dice") -> pd.DataFrame:
    rows = [
        {
            "dataset": "made up", "fold": int(fold), "seed": 0, "loss": loss, "case": f"case {place}",
            "class": "tumour", "metric": metric, "value": float(np.clip(value, 0, 1)), "status": "ok",
        }
        for place, (of_case, fold) in enumerate(zip(values, folds, strict=True))
        for loss, value in zip(losses, of_case, strict=True)
    ]  # fmt: skip
    return score_table(rows)


def test_of_two_losses_and_networks_the_change_is_a_paired_t_test_of_the_folds_differences():
    values, folds = made_up(np.random.default_rng(1), losses=2, runs=0.3)
    found = judge_orders(values, folds, ["unet", "other"], ["a", "b"], 1)
    means = np.stack([values[folds == fold].mean(axis=0) for fold in range(5)])  # (folds, networks, losses)
    changes = (means[:, 0, 0] - means[:, 0, 1]) - (means[:, 1, 0] - means[:, 1, 1])
    row = found.changes.iloc[0]
    sign = 1 if row["loss"] == "a" else -1
    interval = stats.ttest_1samp(sign * changes, 0).confidence_interval(0.95)
    assert row["change"] == pytest.approx(sign * changes.mean())
    assert row["change"] == pytest.approx(row["difference"] - row["other_difference"])
    assert (row["change"] - row["half_width"], row["change"] + row["half_width"]) == pytest.approx(
        tuple(interval), rel=1e-3
    )


def test_what_cases_losses_and_networks_have_in_common_changes_no_interval():
    random = np.random.default_rng(2)
    values, folds = made_up(random)
    common = random.normal(0, 1, (60, 1, 3)) + random.normal(0, 1, (60, 2, 1)) + random.normal(0, 1, (1, 2, 1))
    plain, shifted = (judge_orders(each, folds, ["u", "v"], NAMES[:3], 1) for each in (values, values + common))
    by_pair = [
        {frozenset((row.loss, row.other)): row.half_width for row in found.changes.itertuples()}
        for found in (plain, shifted)
    ]
    assert by_pair[0] == pytest.approx(by_pair[1])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_reversed_pair_changes_and_a_pair_of_equal_distance_stays_the_same(higher_is_better):
    values, folds = made_up(np.random.default_rng(3), cases=40, runs=0.005)
    values[:] = 0.5 + 0.02 * (values - values.mean(axis=(0, 1)))
    values += np.array([[0.0, 0.2, 0.4], [0.2, 0.0, 0.4]])  # a and b change places, c is above both
    found = judge_orders(values, folds, ["u", "v"], NAMES[:3], 1, higher_is_better=higher_is_better)
    kinds = {frozenset((pair.loss, pair.other)): pair.order for pair in found.pairs}
    assert kinds == {
        frozenset("ab"): "changes",
        frozenset("ac"): "same",  # from 0.4 to 0.2
        frozenset("bc"): "same",
    }
    assert found.losses[0 if higher_is_better else -1] == "c"
    reversed_pair = next(pair for pair in found.pairs if pair.order == "changes")
    better = {"a": -1, "b": 1}[reversed_pair.loss] * (1 if higher_is_better else -1)
    assert np.sign(reversed_pair.differences).tolist() == [better, -better]
    assert found.correlations == {("u", "v"): pytest.approx(1 / 3)}  # two pairs of three in the same order


def test_a_change_of_size_alone_is_no_change_of_order_and_little_data_tell_nothing():
    values, folds = made_up(np.random.default_rng(4), losses=2, cases=40, runs=0.002)
    values[:] = 0.5 + 0.02 * (values - values.mean(axis=(0, 1))) + np.array([[0.0, 0.2], [0.0, 0.0]])
    sized = judge_orders(values, folds, ["u", "v"], ["a", "b"], 1)
    assert [pair.order for pair in sized.pairs] == ["size changes"]
    noisy, folds = made_up(np.random.default_rng(5), cases=10, runs=0.2)
    assert {pair.order for pair in judge_orders(noisy, folds, ["u", "v"], NAMES[:3], 1).pairs} == {"open"}


def test_one_fold_shows_nothing():
    values, _ = made_up(np.random.default_rng(6), cases=10)
    found = judge_orders(values, np.zeros(10, dtype=int), ["u", "v"], NAMES[:3], 1)
    assert {pair.order for pair in found.pairs} == {"open"}
    assert not np.isfinite(found.changes["half_width"]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "losses", "folds", "runs"),
    [
        (2, 4, 5, 0.03),
        (2, 4, 5, np.array([[0.01, 0.01, 0.05, 0.05], [0.01, 0.05, 0.01, 0.05]])),  # benchmarks/orders.py has more
    ],
)
def test_without_an_interaction_few_studies_show_a_change(networks, losses, folds, runs):
    random, studies = np.random.default_rng(7), 40
    wrong = 0
    for _ in range(studies):
        values, of = made_up(random, networks, losses, folds, runs=runs)
        found = judge_orders(values, of, NAMES[:networks], NAMES[:losses], 1)
        wrong += bool(found.changes["differ"].any())
        assert all(pair.order != "changes" for pair in found.pairs)
    assert wrong <= stats.binom.ppf(0.999, studies, 0.05)


def test_tables_of_scores_are_compared_on_what_all_networks_have():
    values, folds = made_up(np.random.default_rng(8))
    first, second = table(values[:, 0], folds, NAMES[:3]), table(values[:, 1], folds, NAMES[:3])
    lacking = second[(second["loss"] != "c") & (second["case"] != "case 7")]
    found = orders({"u": first, "v": lacking}, "tumour", "dice")
    assert found is not None
    assert set(found.losses) == {"a", "b"}
    assert found.n_cases == 59
    kept = np.arange(60) != 7
    by_hand = judge_orders(np.clip(values, 0, 1)[kept][:, :, :2], folds[kept], ["u", "v"], ["a", "b"], 1)
    pd.testing.assert_frame_equal(found.changes, by_hand.changes)
    assert orders({"u": first}, "tumour", "dice") is None
    assert orders({"u": first, "v": second[second["loss"] == "a"]}, "tumour", "dice") is None
    assert orders({}, "tumour", "dice") is None


def test_three_networks_are_compared_by_pairs_with_wider_intervals():
    values, folds = made_up(np.random.default_rng(9), networks=3, losses=2, runs=0.3)
    found = judge_orders(values, folds, ["u", "v", "w"], ["a", "b"], 1)
    assert found.changes[["network", "other_network"]].to_numpy().tolist() == [["u", "v"], ["u", "w"], ["v", "w"]]
    alone = judge_orders(values[:, :2], folds, ["u", "v"], ["a", "b"], 1)
    ratio = found.changes["half_width"][0] / alone.changes["half_width"][0]
    assert ratio == pytest.approx(stats.t.isf(0.025 / 3, 4) / stats.t.isf(0.025, 4), rel=2e-3)
