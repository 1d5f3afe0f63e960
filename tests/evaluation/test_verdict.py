"""The verdict: against a hand-computed table and known theory, and honest where there is little to go by."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxloss.evaluation.scores import score_table
from voxloss.evaluation.verdict import judge, rank_verdict, verdict, within_case_ranks

NAMES = list("abcdefg")


def made_up(seed: int, losses: int = 7, folds: int = 5, cases: int = 200, run_sd: float = 0.01, effect: float = 0.0):
    generator = np.random.default_rng(seed)
    fold = np.arange(cases) % folds
    values = 0.6 + generator.normal(0, 0.2, cases)[:, None] + generator.normal(0, 0.07, (cases, losses))
    values += (generator.normal(size=(folds, losses)) * run_sd)[fold]
    values[:, 0] += effect
    return values, fold


def test_two_losses_are_a_paired_t_test_over_folds_or_wider():
    """With two losses the variance is the pair's own: Student's t on the fold differences, 4 degrees."""
    values, fold = made_up(0, losses=2, run_sd=0.05)
    row = judge(values, fold, ["a", "b"], 1).pairs.iloc[0]
    differences = [(values[fold == f, 0] - values[fold == f, 1]).mean() for f in range(5)]
    expected = stats.t.ppf(0.975, 4) * np.std(differences, ddof=1) / math.sqrt(5)
    assert row.half_width == pytest.approx(expected, rel=1e-3)
    assert abs(row.difference) == pytest.approx(abs(np.mean(differences)))
    assert row.p_order_wrong == pytest.approx(stats.ttest_1samp(differences, 0).pvalue / 2, rel=1e-3)


def test_where_folds_do_not_vary_the_cases_set_the_width():
    """Two folds of two cases, three losses; c is a + 0.3 everywhere, b wavers by ±0.1 about a within folds."""
    a = np.array([0.1, 0.3, 0.2, 0.4])
    values = np.stack([a, a + np.array([0.1, -0.1, 0.1, -0.1]), a + 0.3], axis=1)
    result = judge(values, np.array([0, 0, 1, 1]), ["a", "b", "c"], 1, margin=0.01)
    assert result.losses[0] == "c"
    assert result.means == pytest.approx((0.55, 0.25, 0.25))
    assert result.fold_sds == pytest.approx((0, 0, 0), abs=1e-9)  # all losses have the same fold means about their own
    # Within folds b - a has variance (4 · 0.1²) / (4 - 2) = 0.02, and there are 4 cases.
    pairs = result.pairs.set_index(["better", "worse"])
    assert pairs["standard_error"].loc[("c", "b")] == pytest.approx(math.sqrt(0.02 / 4))
    assert pairs["half_width"].loc[("c", "a")] == pytest.approx(0, abs=1e-9)
    assert pairs["differ"].loc[("c", "a")]


def test_runs_that_vary_widen_what_tests_over_cases_find_significant():
    """One loss's runs differ by fold: over cases it looks better, over folds it is chance."""
    values, fold = made_up(1, run_sd=0.0)
    values += np.outer(np.array([0.10, -0.06, 0.09, -0.05, 0.05])[fold], [1, 0, 0, 0, 0, 0, 0])
    assert stats.wilcoxon(values[:, 0], values[:, 3]).pvalue < 0.001
    result = judge(values, fold, NAMES, 1)
    assert not result.pairs["differ"].any()
    assert "a" in result.may_be_best


def test_a_noisy_loss_widens_its_own_intervals_and_hardly_the_others():
    calm, fold = made_up(8, run_sd=0.01)
    noisy = calm.copy()
    noisy[:, 0] += np.array([0.12, -0.10, 0.08, -0.13, 0.03])[fold]

    def widths(values):
        pairs = judge(values, fold, NAMES, 1).pairs
        with_a = (pairs["better"] == "a") | (pairs["worse"] == "a")
        return pairs.loc[with_a, "half_width"].median(), pairs.loc[~with_a, "half_width"].median()

    (own, others), (own_noisy, others_noisy) = widths(calm), widths(noisy)
    assert own_noisy > 3 * own
    assert others_noisy < 1.5 * others


def test_dead_losses_do_not_hide_the_variation_of_the_others():
    """Four of seven losses are 0 everywhere; the standard deviation of the living is still theirs."""
    values, fold = made_up(9, run_sd=0.03)
    values[:, :4] = 0.0
    result = judge(values, fold, NAMES, 1)
    sds = dict(zip(result.losses, result.fold_sds, strict=True))
    assert [sds[name] for name in "abcd"] == [0, 0, 0, 0]
    truth = math.sqrt(0.03**2 + 0.07**2 / 40)
    assert all(0.4 * truth < sds[name] < 2.5 * truth for name in "efg")
    assert result.detectable == pytest.approx(judge(values[:, 4:], fold, list("efg"), 1).detectable, rel=0.3)
    pairs = result.pairs
    dead = pairs["better"].isin(list("abcd")) & pairs["worse"].isin(list("abcd"))
    assert not pairs.loc[dead, "differ"].any() and pairs.loc[dead, "same"].all()


def test_a_clear_difference_leaves_one_loss():
    values, fold = made_up(2, effect=0.10)
    result = judge(values, fold, NAMES, 3)
    assert result.losses[0] == "a" and result.may_be_best == ("a",) and result.most_lost == 0
    first = result.pairs[result.pairs["better"] == "a"]
    assert first["differ"].all() and (first["p_order_wrong"] < 0.01).all()
    assert 0.01 < result.detectable < 0.10
    assert result.n_seeds == 3


def test_the_most_that_taking_the_first_loss_can_cost():
    """With two losses: the upper end of Student's one-sided interval of the other's advantage."""
    values, fold = made_up(3, losses=2, run_sd=0.05)
    result = judge(values, fold, ["a", "b"], 1)
    row = result.pairs.iloc[0]
    expected = stats.t.ppf(0.95, 4) * row.standard_error - row.difference
    assert result.may_be_best == result.losses
    assert result.most_lost == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("noisy", [0.01, 0.05])
def test_false_differences_are_about_one_study_in_twenty(noisy):
    """80 studies without a difference, half of the losses with noisier runs; benchmarks/verdict.py has 2,000."""
    generator = np.random.default_rng(0)
    fold = np.arange(200) % 5
    sds = np.r_[np.full(3, noisy), np.full(4, 0.01)]
    wrong = dropped = 0
    for _ in range(80):
        values = 0.6 + generator.normal(0, 0.2, (200, 1)) + generator.normal(0, 0.07, (200, 7))
        result = judge(values + (generator.normal(size=(5, 7)) * sds)[fold], fold, NAMES, 1)
        wrong += bool(result.pairs["differ"].any())
        dropped += "a" not in result.may_be_best
    assert wrong <= 10 and dropped <= 10  # 4 expected at most; P(more than 10) < 1 %


@pytest.mark.slow
@pytest.mark.parametrize(("losses", "folds", "cases"), [(7, 5, 204), (3, 5, 60), (7, 10, 204)])
def test_the_detectable_difference_is_named_in_four_of_five_studies(losses, folds, cases):
    named = total = 0
    for seed in range(60):
        values, fold = made_up(1000 + seed, losses=losses, folds=folds, cases=cases)
        names = NAMES[:losses]
        values[:, 0] += judge(values, fold, names, 1).detectable
        pairs = judge(values, fold, names, 1).pairs
        named += int((pairs["differ"] & (pairs["better"] == "a")).sum())
        total += losses - 1
    assert 0.70 < named / total < 0.92  # the pairs of a study hang together: about 60 independent ones


def test_one_failed_training_does_not_hide_the_other_losses_and_is_not_evidence_by_itself():
    values, fold = made_up(3, effect=0.08)
    before = judge(values, fold, NAMES, 1).detectable
    values[fold == 2, 6] = 0.0
    result = judge(values, fold, NAMES, 1)
    differ = result.pairs.set_index(["better", "worse"])["differ"]
    assert all(differ.loc[("a", name)] for name in "bcdef")
    assert not differ.loc[("a", "g")]
    assert result.losses[-1] == "g"
    assert result.detectable < 1.5 * before


def test_where_lower_is_better_the_smallest_mean_is_first():
    values, fold = made_up(2, effect=0.10)
    result = judge(1 - values, fold, NAMES, 1, higher_is_better=False)
    expected = judge(values, fold, NAMES, 1)
    assert result.losses == expected.losses and result.may_be_best == expected.may_be_best
    assert result.means == pytest.approx([1 - mean for mean in expected.means])
    columns = ["difference", "half_width", "p_order_wrong"]
    assert np.allclose(result.pairs[columns], expected.pairs[columns], rtol=1e-6)
    assert result.overstated == pytest.approx(expected.overstated, rel=1e-6)


def test_the_best_mean_of_equal_losses_is_too_good():
    """The expected largest of K normal means is known: 1.42 standard errors for eight."""
    excess = []
    for seed in range(40):
        values, fold = made_up(500 + seed, losses=7, run_sd=0.03)
        result = judge(values, fold, NAMES, 1)
        excess.append((result.overstated, result.means[0] - np.mean(result.means)))
    claimed, seen = np.mean(excess, axis=0)
    assert claimed == pytest.approx(seen, rel=0.3)


def test_what_cannot_be_judged_is_not():
    values, _ = made_up(4, effect=0.3)
    one_fold = judge(values, np.zeros(200, int), NAMES, 1)
    assert not one_fold.pairs["differ"].any() and one_fold.may_be_best == one_fold.losses
    assert math.isinf(one_fold.detectable) and math.isinf(one_fold.most_lost)
    few, fold = made_up(5, cases=5)
    alone = judge(few, fold, NAMES, 1)  # a case a fold: nothing to tell cases from runs
    assert not alone.pairs["differ"].any() and all(map(math.isnan, alone.case_sds))
    equal = judge(np.repeat(values[:, :1], 3, axis=1), np.arange(200) % 5, NAMES[:3], 1)
    assert not equal.pairs["differ"].any()
    assert equal.pairs["same"].all()
    nearly = np.repeat(values[:, :1], 2, axis=1) + np.array([0, 1e-9])
    assert not judge(nearly, np.arange(200) % 5, NAMES[:2], 1).pairs["differ"].any()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v, f: (np.where(np.arange(200)[:, None] == 7, np.nan, v), f), "the value of case 7 for a is nan"),
        (lambda v, f: (np.where(np.arange(200)[:, None] == 7, np.inf, v), f), "is inf"),
        (lambda v, f: (v, f[:-1]), "got values of shape"),
        (lambda v, f: (v, f * 2), "every fold with a case"),
        (lambda v, f: (v, f - 1), "every fold with a case"),
        (lambda v, f: (v, f + 0.5), "every fold with a case"),
        (lambda v, f: (v[:, :1], f), "7 names"),
    ],
)
def test_wrong_values_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        judge(*change(*made_up(0)), NAMES, 1)


def test_one_loss_or_two_of_a_name_are_refused():
    values, fold = made_up(0)
    for names in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="at least two losses with different names"):
            judge(values[:, : len(names)], fold, names, 1)


def table(values: np.ndarray, fold: np.ndarray, seeds: int = 1) -> pd.DataFrame:
    rows = [
        {"dataset": "d", "fold": int(fold[case]), "seed": seed, "loss": name, "case": f"c{case}", "class": "tumour",
         "metric": "dice", "value": float(np.clip(values[case, number] + 0.001 * seed, 0, 1)), "status": "ok"}
        for case in range(len(values)) for number, name in enumerate(NAMES[: values.shape[1]]) for seed in range(seeds)
    ]  # fmt: skip
    return score_table(rows)


def test_from_the_long_table_the_seeds_are_averaged_and_failed_runs_count_as_the_worst():
    values, fold = made_up(6, losses=3, cases=40, folds=4)
    values = np.clip(values, 0.01, 0.99)
    scores = table(values, fold, seeds=2)
    result = verdict(scores, "tumour", "dice")
    assert result is not None
    expected = judge(np.clip(values + 0.0005, 0, 1), fold, NAMES[:3], 2)
    assert result.losses == expected.losses
    assert result.means == pytest.approx(expected.means)
    pd.testing.assert_frame_equal(result.pairs, expected.pairs)
    assert (result.n_cases, result.n_folds, result.n_seeds) == (40, 4, 2)
    lost = (scores["loss"] == "a") & (scores["fold"] == 0)
    scores.loc[lost, "value"], scores.loc[lost, "status"] = math.nan, "failed"
    worst = verdict(scores, "tumour", "dice")
    assert worst is not None
    assert worst.losses[-1] == "a"
    assert verdict(scores, "kidney", "dice") is None
    assert verdict(scores[scores["loss"] == "b"], "tumour", "dice") is None


def test_cases_without_a_value_for_some_loss_are_left_out():
    values, fold = made_up(7, losses=2, cases=20, folds=4)
    scores = table(np.clip(values, 0, 1), fold)
    undefined = (scores["loss"] == "b") & (scores["case"] == "c3")
    scores.loc[undefined, "value"], scores.loc[undefined, "status"] = math.nan, "undefined"
    result = verdict(scores, "tumour", "dice")
    assert result is not None
    assert result.n_cases == 19


def test_folds_of_two_data_sets_are_different_trainings():
    values, fold = made_up(11, losses=3, cases=40, folds=4)
    first = table(np.clip(values, 0, 1), fold)
    second = first.copy()
    second["dataset"] = "another"
    second["value"] = (second["value"] * 0.9).clip(0, 1)
    both = verdict(pd.concat([first, second], ignore_index=True), "tumour", "dice")
    assert both is not None
    assert both.n_folds == 8 and both.n_cases == 80


def test_folds_with_further_seeds_are_judged_on_the_seeds_of_all_folds():
    values, fold = made_up(12, losses=3, cases=40, folds=4)
    scores = table(np.clip(values, 0, 0.9), fold, seeds=2)
    late = (scores["seed"] == 1) & (scores["fold"] == 3)
    result, expected = (verdict(t, "tumour", "dice") for t in (scores[~late], scores[scores["seed"] == 0]))
    assert result is not None and expected is not None
    assert result.n_seeds == 1
    pd.testing.assert_frame_equal(result.pairs, expected.pairs)


def test_distances():
    values, fold = made_up(13, losses=2, cases=40, folds=4)
    scores = table(np.clip(values, 0.1, 1), fold)
    millimetres = scores.copy()
    millimetres["metric"] = "hd95"
    millimetres["value"] *= 10
    result = verdict(millimetres, "tumour", "hd95")
    assert result is not None and result.means[0] < result.means[1]
    empty = (millimetres["case"] == "c3") & (millimetres["loss"] == "b")
    millimetres.loc[empty, "value"], millimetres.loc[empty, "status"] = math.nan, "undefined"
    dice = table(np.clip(values, 0.1, 1), fold)
    dice.loc[(dice["case"] == "c3") & (dice["loss"] == "b"), "value"] = 0.0
    both = pd.concat([dice, millimetres], ignore_index=True)
    with pytest.raises(ValueError, match="infinite where a prediction is empty"):
        verdict(both, "tumour", "hd95")
    ranks = rank_verdict(both, "tumour", "hd95")
    assert ranks is not None and not ranks.higher_is_better
    assert sum(ranks.means) == pytest.approx(1.5)  # ranks 1 and 2 of every case, halved


def test_ranks_within_cases_share_ties():
    values = np.array([[0.3, 0.1 + 0.2, 0.5], [0.0, 0.2, 0.0]])
    assert within_case_ranks(values).tolist() == [[2.5, 2.5, 1], [2.5, 1, 2.5]]
    assert within_case_ranks(np.array([[np.inf, 3.0]]), higher_is_better=False).tolist() == [[2, 1]]


def test_the_verdict_on_an_array_is_found_where_the_documentation_says():
    import voxloss.evaluation

    assert voxloss.evaluation.judge is judge
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        voxloss.evaluation.nothing  # noqa: B018
