"""Effect sizes and rank stability, against scipy, hand-computed tables and plain cases."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxloss.evaluation.effects import friedman, paired_effects, variance_parts
from voxloss.evaluation.scores import score_table


def table(values: dict[str, list[float]], folds: int = 2) -> pd.DataFrame:
    """Dice of the class tumour: loss -> value per case, cases dealt to folds in turn."""
    rows = [
        {"dataset": "d", "fold": number % folds, "seed": 0, "loss": loss, "case": f"c{number}", "class": "tumour",
         "metric": "dice", "value": value, "status": "undefined" if math.isnan(value) else "ok"}
        for loss, column in values.items() for number, value in enumerate(column)
    ]  # fmt: skip
    return score_table(rows)


def test_by_hand():
    """Differences b - a: 0.1, -0.1, 0.2, 0, 0.3, 0.4, 0.1: sorted -0.1, 0, 0.1, 0.1, 0.2, 0.3, 0.4."""
    a = [0.1, 0.5, 0.3, 0.2, 0.4, 0.2, 0.6]
    b = [0.2, 0.4, 0.5, 0.2, 0.7, 0.6, 0.7]
    row = paired_effects(table({"a": a, "b": b})).iloc[0]
    assert (row["row"], row["column"], row["n"]) == ("b", "a", 7)
    assert row["median"] == pytest.approx(0.1)
    assert row["superiority"] == pytest.approx(5.5 / 7)
    assert (row["low"], row["high"]) == pytest.approx((-0.1, 0.4))  # k = 1: 2 · (1/2)^7 = 1.6 %


@pytest.mark.parametrize("n", [6, 9, 20, 57])
def test_the_interval_of_the_median_is_scipys(n):
    generator = np.random.default_rng(n)
    a, b = generator.random(n), generator.random(n)
    row = paired_effects(table({"a": a.tolist(), "b": b.tolist()})).iloc[0]
    expected = stats.quantile_test(b - a, q=0, p=0.5).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_few_cases_have_no_interval_and_undefined_ones_are_left_out():
    row = paired_effects(table({"a": [0.1] * 5, "b": [0.2] * 5})).iloc[0]
    assert math.isnan(row["low"]) and row["median"] == pytest.approx(0.1) and row["superiority"] == 1
    assert paired_effects(table({"a": [0.1, math.nan, 0.3], "b": [0.2, 0.2, 0.3]})).iloc[0]["n"] == 2
    equal = paired_effects(table({"a": [0.5] * 8, "b": [0.5] * 8})).iloc[0]
    assert (equal["median"], equal["low"], equal["high"], equal["superiority"]) == (0, 0, 0, 0.5)


def test_friedman_is_scipys_and_hand_computed():
    """Three losses that every one of four cases ranks alike: χ² = 12 · Σ R² / (n k (k+1)) - 3 n (k+1) = 8, W = 1."""
    result = friedman(table({"a": [0.1] * 4, "b": [0.2] * 4, "c": [0.3] * 4}), "tumour", "dice")
    assert (result.statistic, result.kendall_w, result.n) == pytest.approx((8, 1, 4))
    assert result.p == pytest.approx(math.exp(-4))
    generator = np.random.default_rng(0)
    values = generator.integers(0, 5, (3, 12)) / 10
    result = friedman(table(dict(zip("abc", values.tolist(), strict=True))), "tumour", "dice")
    expected = stats.friedmanchisquare(*values)
    assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    equal = friedman(table({name: [0.5] * 6 for name in "abc"}), "tumour", "dice")
    assert (equal.statistic, equal.p, equal.kendall_w) == (0, 1, 0)
    assert math.isnan(friedman(table({"a": [0.1] * 4, "b": [0.2] * 4}), "tumour", "dice").p)
    assert math.isnan(friedman(table({"a": [0.1] * 4}), "kidney", "dice").p)


def runs(means: np.ndarray) -> pd.DataFrame:
    """Two cases a run that lie 0.02 about its mean (losses, folds, seeds)."""
    rows = [
        {"dataset": "d", "fold": fold, "seed": seed, "loss": f"l{loss}", "case": f"c{fold}-{side}", "class": "tumour",
         "metric": "dice", "value": float(means[loss, fold, seed] + side), "status": "ok"}
        for loss, fold, seed in np.ndindex(means.shape) for side in (-0.02, 0.02)
    ]  # fmt: skip
    return score_table(rows)


def test_variance_parts_are_those_of_the_analysis_of_variance():
    """The mean squares are statsmodels'; the parts are computed from them by hand."""
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    generator = np.random.default_rng(0)
    means = 0.5 + generator.normal(0, 0.05, (4, 1, 1)) + generator.normal(0, 0.04, (1, 5, 1))
    means = means + generator.normal(0, 0.02, (4, 5, 1)) + generator.normal(0, 0.01, (4, 5, 3))
    long = pd.DataFrame(
        [(loss, fold, means[loss, fold, seed]) for loss, fold, seed in np.ndindex(means.shape)],
        columns=["loss", "fold", "value"],
    )
    anova = sm.stats.anova_lm(ols("value ~ C(loss) * C(fold)", long).fit())
    square = (anova["sum_sq"] / anova["df"]).to_dict()
    parts = variance_parts(runs(means), "tumour", "dice")
    assert parts is not None
    assert parts["seed"] ** 2 == pytest.approx(square["Residual"])
    assert parts["loss × fold"] ** 2 == pytest.approx((square["C(loss):C(fold)"] - square["Residual"]) / 3)
    assert parts["fold"] ** 2 == pytest.approx((square["C(fold)"] - square["C(loss):C(fold)"]) / 12)
    assert parts["loss"] ** 2 == pytest.approx((square["C(loss)"] - square["C(loss):C(fold)"]) / 15)


def test_variance_parts_need_several_seeds_and_all_runs():
    means = np.full((2, 3, 2), 0.5)
    means[1] += 0.2
    parts = variance_parts(runs(means), "tumour", "dice")
    assert parts == pytest.approx({"loss": 0.2 / math.sqrt(2), "fold": 0, "loss × fold": 0, "seed": 0})
    assert variance_parts(runs(means[:, :, :1]), "tumour", "dice") is None
    table = runs(means)
    assert variance_parts(table[(table["loss"] != "l1") | (table["seed"] != 1)], "tumour", "dice") is None
    assert variance_parts(table, "kidney", "dice") is None
