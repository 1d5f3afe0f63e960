"""Intervals and tests against numbers worked out by hand, scipy, and slow twins."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from score_helpers import dice_table, row
from statsmodels.stats.multitest import multipletests

from voxloss.evaluation import significance
from voxloss.evaluation.scores import failed_rows, score_table
from voxloss.evaluation.significance import (
    INTERVAL_COLUMNS,
    PAIR_COLUMNS,
    intervals,
    pairwise_rank_sum,
    pairwise_signed_rank,
)

BOTH_TESTS = pytest.mark.parametrize("test", [pairwise_rank_sum, pairwise_signed_rank])


def only(table):
    assert len(table) == 1
    return table.iloc[0]


def pair(table, row, column):
    return only(table[(table["row"] == row) & (table["column"] == column)])


def test_interval_over_cases_is_a_bootstrap():
    # Of many scores without skewness it is the mean ∓ 1.96 standard errors.
    values = np.linspace(0.2, 0.8, 500)
    result = only(intervals(dice_table({"dice": values.tolist()}), over="case"))
    error = 1.96 * values.std() / math.sqrt(500)
    assert (result["low"], result["high"]) == pytest.approx((0.5 - error, 0.5 + error), abs=0.001)
    assert math.isnan(result["half_width"])
    assert (result["n"], result["n_cases"], result["n_undefined"], result["n_failed"]) == (500, 500, 0, 0)


def test_a_bootstrap_of_all_resamples_by_hand():
    # Three scores 0, 0, 0.9 have 27 resamples, with means 0 (8 of them), 0.3 (12), 0.6 (6) and 0.9 (1): the lower end
    # is a resample's mean, and the bias correction and acceleration for a skewed sample lift the upper one to 0.9.
    result = only(intervals(dice_table({"dice": [0.0, 0.0, 0.9]}), over="case"))
    assert (result["low"], result["high"]) == pytest.approx((0.0, 0.9))


def test_intervals_of_equal_scores_and_of_one():
    assert only(intervals(dice_table({"dice": [0.5] * 4}), over="case"))[["low", "high"]].tolist() == [0.5, 0.5]
    assert only(intervals(dice_table({"dice": [0.5]}), over="case"))[["low", "high"]].isna().all()
    folds = only(intervals(dice_table({"dice": [0.5] * 4}, fold_of=lambda index: index % 2)))
    assert (folds["half_width"], folds["low"], folds["high"]) == (0, 0.5, 0.5)


def test_interval_over_folds_by_hand():
    # Fold means 0.3 (two cases) and 0.7 (one): mean 0.5 though the cases' mean is 0.4333; s = 0.28284, n = 2,
    # t(0.975, 1) = 12.7062: 12.7062 * 0.28284 / sqrt(2) = 2.54124
    table = dice_table({"dice": [0.2, 0.4, 0.7]}, fold_of=lambda index: index // 2)
    result = only(intervals(table, over="fold"))
    assert (result["mean"], result["half_width"]) == pytest.approx((0.5, 2.541241), abs=1e-5)
    assert (result["low"], result["high"]) == (0, 1)  # where the metric's range ends
    assert (result["n"], result["n_cases"]) == (2, 3)


@pytest.mark.parametrize("over", ["fold", "case"])
def test_a_case_counts_once_whatever_the_seeds(over):
    values = [0.31, 0.42, 0.55, 0.58, 0.6, 0.63, 0.71, 0.74, 0.8, 0.83]
    one = dice_table({"dice": values}, fold_of=lambda index: index)
    three = score_table(
        row(case=f"case-{i}", value=v + shift, seed=s, fold=i)
        for s, shift in enumerate((-0.125, 0.0, 0.125))
        for i, v in enumerate(values)
    )
    a, b = only(intervals(one, over=over)), only(intervals(three, over=over))
    assert (b["mean"], b["low"], b["high"], b["n"]) == pytest.approx((a["mean"], a["low"], a["high"], 10))


def test_undefined_and_failed_are_counted_and_left_out_of_the_mean():
    table = score_table(
        [
            row(case="a", value=0.5),
            row(case="b", value=None),
            row(case="c", value=0.7),
            row(case="d", value=None, status="failed"),
        ]
    )
    result = only(intervals(table, over="case"))
    assert (result["mean"], result["n_undefined"], result["n_failed"]) == pytest.approx((0.6, 1, 1))
    assert result["ranking_mean"] == pytest.approx(0.4)  # the failed case counts as 0, the undefined one not at all


def test_a_loss_that_failed_everywhere_has_a_row():
    failed = failed_rows(dataset="toy", fold=0, seed=0, loss="x", cases=["a"], classes=("background", "tumour"))
    result = intervals(score_table(failed))
    assert result["mean"].isna().all() and (result["n"] == 0).all()
    ranking = dict(zip(result["metric"], result["ranking_mean"], strict=True))
    assert ranking["dice"] == 0 and ranking["hd95"] == math.inf and math.isnan(ranking["reference_volume"])


def test_one_fold_has_no_interval():
    assert math.isnan(only(intervals(dice_table({"dice": [0.1, 0.2]}), over="fold"))["half_width"])


@pytest.mark.slow
@pytest.mark.parametrize("over", ["fold", "case"])
def test_interval_covers_as_often_as_it_says(over):
    random = np.random.default_rng(0)
    n, hits = 6 if over == "fold" else 40, 0
    for _ in range(100):
        values = np.clip(random.normal(0.5, 0.1, n), 0, 1)
        result = only(intervals(dice_table({"dice": values.tolist()}, fold_of=lambda index: index), over=over))
        hits += result["low"] <= 0.5 <= result["high"]
    assert 0.90 <= hits / 100 <= 0.99


def test_rank_sum_by_hand():
    # Row ranks 4, 5, 6: sum 15; expected 3 * 7 / 2 = 10.5; sd = sqrt(3 * 3 * 7 / 12) = 2.29129; z = 1.96396, p = 0.0495
    table = dice_table({"low": [0.1, 0.2, 0.3], "high": [0.4, 0.5, 0.6]})
    result = only(pairwise_rank_sum(table))
    assert (result["row"], result["column"], result["n"]) == ("high", "low", 3)
    assert (result["statistic"], result["p"]) == pytest.approx((1.963961, 0.049535), abs=1e-6)
    assert result["p_holm"] == result["p"]


def test_rank_sum_with_ties_by_hand():
    # 1 1 2 against 1 2 2, ranks of the ones 2, of the twos 5: row sum 2 + 5 + 5 = 12, z = 1.5 / 2.29129
    table = dice_table({"low": [0.1, 0.1, 0.2], "high": [0.1, 0.2, 0.2]})
    assert only(pairwise_rank_sum(table))["statistic"] == pytest.approx(0.654654, abs=1e-6)


def test_signed_rank_by_hand():
    # Differences 1, -2, 3, 4, 5 hundredths: W+ = 13, W- = 2. Of 32 sign patterns 3 have a W- of 2 or less
    # ({}, {1}, {2}), so p = 2 * 3 / 32.
    base = [0.5] * 5
    table = dice_table({"base": base, "other": [0.51, 0.48, 0.53, 0.54, 0.55]})
    result = only(pairwise_signed_rank(table))
    assert (result["statistic"], result["p"]) == pytest.approx((11, 6 / 32))


def signed_rank_by_counting(difference):
    """Exact two-sided p by going through all signs, ties at their mean rank, zeros left out."""
    size = sorted(abs(d) for d in difference if d)
    rank = {s: np.mean([i + 1 for i, t in enumerate(size) if t == s]) for s in size}
    ranks = [rank[abs(d)] for d in difference if d]
    observed = sum(r if d > 0 else -r for r, d in zip(ranks, [d for d in difference if d], strict=True))
    all_sums = [
        sum(s * r for s, r in zip(signs, ranks, strict=True)) for signs in itertools.product((1, -1), repeat=len(ranks))
    ]
    return observed, np.mean([abs(s) >= abs(observed) - 1e-9 for s in all_sums])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=3, max_size=7).filter(any))
def test_signed_rank_agrees_with_counting(difference):
    table = dice_table({"base": [0.5] * len(difference), "other": [0.5 + d / 100 for d in difference]})
    result = only(pairwise_signed_rank(table))
    statistic, p = signed_rank_by_counting(difference)
    assert (result["statistic"], result["p"]) == pytest.approx((statistic, p))


@pytest.mark.parametrize("n", [5, 20, 45])
def test_signed_rank_agrees_with_scipy_without_ties(n):
    random = np.random.default_rng(n)
    a, b = random.random((2, n))
    result = only(pairwise_signed_rank(dice_table({"a": a.tolist(), "b": b.tolist()})))
    assert result["p"] == pytest.approx(stats.wilcoxon(b, a, method="exact").pvalue, rel=1e-9)


def test_signed_rank_of_many_pairs_is_close_to_the_normal_one(monkeypatch):
    random = np.random.default_rng(1)
    base = random.random(80) * 0.5
    table = dice_table({"a": base.tolist(), "b": (base + random.normal(0.03, 0.1, 80)).clip(0, 1).tolist()})
    exact = only(pairwise_signed_rank(table))["p"]
    monkeypatch.setattr(significance, "EXACT_PAIRS", 10)
    assert only(pairwise_signed_rank(table))["p"] == pytest.approx(exact, rel=0.05)


@BOTH_TESTS
def test_the_sign_is_row_minus_column_in_the_order_asked_for(test):
    table = dice_table({"bad": [0.1, 0.2, 0.3, 0.4], "good": [0.6, 0.7, 0.8, 0.85]})
    assert pair(test(table), "good", "bad")["statistic"] > 0
    assert pair(test(table, losses=["good", "bad"]), "bad", "good")["statistic"] < 0


@BOTH_TESTS
def test_equal_scores_are_no_difference(test):
    result = only(test(dice_table({"a": [0.5] * 4, "b": [0.5] * 4})))
    assert (result["statistic"], result["p"], result["p_holm"]) == (0, 1, 1)


@BOTH_TESTS
@pytest.mark.parametrize("n", [1, 2])
def test_too_few_scores_give_no_p(test, n):
    result = only(test(dice_table({"a": [0.1] * n, "b": [0.9] * n})))
    assert math.isnan(result["p"]) and math.isnan(result["p_holm"]) and result["n"] == n


@BOTH_TESTS
def test_one_loss_has_no_pairs(test):
    result = test(dice_table({"a": [0.1, 0.2, 0.3]}))
    assert len(result) == 0 and tuple(result.columns) == PAIR_COLUMNS


@BOTH_TESTS
def test_holm_by_hand_one_family_per_class(test):
    random = np.random.default_rng(4)
    values = {name: (random.random(12) * 0.5 + 0.1 * i).tolist() for i, name in enumerate("abc")}
    kidney = dice_table(values, class_name="kidney")
    tumour = dice_table(values, class_name="tumour")
    result = test(score_table([*kidney.to_dict("records"), *tumour.to_dict("records")]))
    assert len(result) == 6
    for _, family in result.groupby("class"):
        smallest, middle, largest = np.sort(family["p"])
        first = min(1, 3 * smallest)
        second = max(first, min(1, 2 * middle))
        assert np.sort(family["p_holm"]) == pytest.approx([first, second, max(second, largest)])


@BOTH_TESTS
def test_holm_agrees_with_statsmodels(test):
    random = np.random.default_rng(5)
    values = {name: (random.random(10) * 0.5 + 0.08 * i).tolist() for i, name in enumerate("abcde")}
    result = test(dice_table(values | {"f": [0.5, 0.5] + [None] * 8}))  # too few for a test
    assert result["p"].isna().sum() == 5
    expected = multipletests(result["p"].fillna(1), method="holm")[1]
    assert result["p_holm"].tolist() == pytest.approx(np.where(result["p"].isna(), np.nan, expected), nan_ok=True)


@BOTH_TESTS
def test_untestable_pairs_stay_in_the_family(test):
    table = dice_table({"a": [0.1] * 6, "b": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "c": [None] * 4 + [0.5, 0.5]})
    result = test(table)
    assert pair(result, "b", "a")["p_holm"] == pytest.approx(min(1, 3 * pair(result, "b", "a")["p"]))
    assert math.isnan(pair(result, "c", "a")["p_holm"]) and pair(result, "c", "a")["n"] == 2


@BOTH_TESTS
def test_a_failed_loss_is_the_worst_and_not_absent(test):
    good = dice_table({"good": [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}).to_dict("records")
    cases = [f"case-{i}" for i in range(6)]
    failed = failed_rows(dataset="toy", fold=0, seed=0, loss="x", cases=cases, classes=("background", "tumour"))
    result = only(test(score_table([*good, *[r for r in failed if r["metric"] == "dice"]])))
    assert (result["row"], result["n"]) == ("x", 6)
    assert result["statistic"] < 0 and result["p"] < 0.05


@BOTH_TESTS
def test_pairs_are_matched_by_case_and_not_by_place(test):
    values = {"a": [0.1, 0.5, 0.9, 0.3], "b": [0.2, 0.7, 0.8, 0.5]}
    table = dice_table(values)
    shuffled = table.sample(frac=1, random_state=1).sort_values("loss", kind="stable").reset_index(drop=True)
    assert only(test(table))["p"] == only(test(shuffled))["p"]
    assert only(test(table))["statistic"] == only(test(shuffled))["statistic"]


def test_interval_columns():
    assert tuple(intervals(dice_table({"a": [0.1]})).columns) == INTERVAL_COLUMNS
