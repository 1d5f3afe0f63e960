"""Confidence intervals and pairwise tests over the long table of scores."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.scores import seed_means, worst_filled
from voxloss.utilities.arrays import Float64s

# Below this no test is made: with two pairs the signed-rank test cannot give less than p = 0.5.
MINIMUM_SCORES = 3

CONFIDENCE = 0.95

RESAMPLES = 9999  # of the bootstrap

# Pairs up to which the signed-rank test's p is exact; beyond, its distribution is normal for all purposes.
EXACT_PAIRS = 500

INTERVAL_COLUMNS = (
    "loss", "class", "metric", "mean", "half_width", "low", "high",
    "n", "n_cases", "n_undefined", "n_failed", "ranking_mean",
)  # fmt: skip
PAIR_COLUMNS = ("class", "metric", "row", "column", "statistic", "p", "p_holm", "n")


def intervals(scores: pd.DataFrame, over: Literal["fold", "case"] = "fold") -> pd.DataFrame:
    """Compute mean and 95 % confidence interval of every loss, class and metric.

    A case's value is first averaged over the seeds. With `over="fold"`, x being the n fold means,

        mean = x̄,    half_width = t(0.975, n - 1) · s / √n,    low, high = mean ∓ half_width,

    s being the standard deviation with n - 1. With `over="case"`, x being the n cases, low and high are those of the
    bias-corrected and accelerated bootstrap (Efron 1987) of their mean, which follows the scores' skewness; half_width
    is NaN. Over folds, the interval describes how the mean varies between models trained on different cases; over
    cases, how it varies between patients for the models of this study. Undefined and failed scores have no value: they
    are counted, and are not in the mean. An interval ends where the metric's range does (0 and 1 for shares): a mean
    cannot lie beyond.

    Args:
        scores: The long table.
        over: The units of the interval, "fold" or "case".

    Returns:
        A row per loss, class and metric in order of first appearance: mean, half_width (before the range ends it), low
        and high (NaN where n is 0, or below 2), n (folds or cases), n_cases (cases with a value), n_undefined and
        n_failed (scores, counted per seed), and ranking_mean, the mean over the same units after `worst_filled`, which
        is what losses are ranked by.
    """
    unit = ["loss", "class", "metric"]
    shown, ranked = seed_means(scores), seed_means(worst_filled(scores))
    statuses = scores.groupby(unit, sort=False)["status"]
    ranked_groups = dict(list(ranked.groupby(unit, sort=False)))
    status_groups = dict(list(statuses))
    rows = []
    for key, group in shown.groupby(unit, sort=False):
        values = _unit_values(group, over)
        n = len(values)
        mean, half_width = values.mean() if n else np.nan, np.nan
        if over == "case":
            low, high = _bootstrap_interval(values)
        else:
            half_width = _student_half_width(values)
            low, high = mean - half_width, mean + half_width
        least, largest = metric_of(key[2]).range
        low, high = np.clip((low, high), least, largest)
        ranking = _unit_values(ranked_groups[key], over)
        rows.append(
            (
                *key,
                mean,
                half_width,
                low,
                high,
                n,
                int(group["value"].notna().sum()),
                int((status_groups[key] == "undefined").sum()),
                int((status_groups[key] == "failed").sum()),
                ranking.mean() if len(ranking) else np.nan,
            )
        )
    return pd.DataFrame(rows, columns=list(INTERVAL_COLUMNS))


def _student_half_width(values: Float64s) -> float:
    n = len(values)
    return stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n) if n >= 2 else np.nan


def _bootstrap_interval(values: Float64s) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=1000, confidence_level=CONFIDENCE, method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def _unit_values(group: pd.DataFrame, over: str) -> Float64s:
    values = group["value"] if over == "case" else group.groupby("fold", sort=False)["value"].mean()
    numbers: Float64s = values.dropna().to_numpy(dtype=float)
    return numbers


def case_values(scores: pd.DataFrame, class_name: str, metric: str) -> pd.DataFrame:
    """Return values for ranking (`worst_filled`), averaged over the seeds: a row per case, a column per loss.

    NaN remains only where no prediction could be right or wrong: see `worst_filled`.
    """
    chosen = scores[(scores["class"] == class_name) & (scores["metric"].isin({metric, "dice", "recall"}))]
    means = seed_means(worst_filled(chosen))
    means = means[means["metric"] == metric]
    wide = means.pivot(index=["dataset", "case"], columns="loss", values="value")
    return wide[list(dict.fromkeys(scores["loss"]))] if len(wide) else wide


def pairwise_rank_sum(
    scores: pd.DataFrame, metrics: Sequence[str] = ("dice",), losses: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare every two losses with the paper's test: two-sided Wilcoxon rank-sum, Holm-adjusted.

    The statistic is scipy's `ranksums` z (normal approximation, no correction for ties), positive if the row's scores
    are larger. It treats the scores of two losses as independent although they are of the same cases;
    `pairwise_signed_rank` does not.

    Args:
        scores: The long table.
        metrics: The metrics to test.
        losses: The order of the losses; None: as they appear. A row's loss comes later in it than the column's.

    Returns:
        Columns class, metric, row, column, statistic, p, p_holm, n (cases with a value for both). Holm's family is
        all pairs of one class and metric. Statistic and p are NaN with fewer than 3 cases; such a
        pair still counts in its family, which was fixed beforehand.
    """
    return _pairwise(scores, _rank_sum, metrics, losses)


def pairwise_signed_rank(
    scores: pd.DataFrame, metrics: Sequence[str] = ("dice",), losses: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare the paired case scores of every two losses: two-sided Wilcoxon signed-rank test, Holm-adjusted.

    The statistic is W⁺ - W⁻, the rank sums of the positive and negative differences row - column, without those that
    are 0. p is exact, ties included, up to 500 unequal pairs, and scipy's normal approximation beyond. If all
    differences are 0, the statistic is 0 and p is 1. Arguments and columns are those of `pairwise_rank_sum`.
    """
    return _pairwise(scores, _signed_rank, metrics, losses)


def _rank_sum(row: Float64s, column: Float64s) -> tuple[float, float]:
    result = stats.ranksums(row, column)
    return float(result.statistic), float(result.pvalue)


def _signed_rank(row: Float64s, column: Float64s) -> tuple[float, float]:

    # Rounded, so that 0.3 - 0.2 and 0.2 - 0.1 are a tie, as they are in exact arithmetic.
    difference = np.round(row - column, 12)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 0.0, 1.0
    ranks = stats.rankdata(np.abs(difference))
    statistic = float(np.sum(np.sign(difference) * ranks))
    if len(difference) > EXACT_PAIRS:
        return statistic, float(stats.wilcoxon(difference, method="asymptotic").pvalue)
    return statistic, _exact_signed_rank_p(ranks, statistic)


def _exact_signed_rank_p(ranks: Float64s, statistic: float) -> float:
    """P(|W⁺ - W⁻| ≥ |statistic|) when every difference is as likely positive as negative.

    The distribution of W⁺ is computed rank by rank. With ties, scipy enumerates all sign patterns, which takes seconds
    for a dozen pairs.
    """
    doubled = np.rint(2 * ranks).astype(int)  # tied ranks are halves
    probability = np.zeros(doubled.sum() + 1)
    probability[0] = 1.0
    for rank in doubled:
        probability *= 0.5
        probability[rank:] += probability[:-rank].copy()
    signed = np.arange(len(probability)) - doubled.sum() / 2  # W⁺ - W⁻ of every doubled W⁺
    return min(1.0, float(probability[np.abs(signed) >= abs(statistic) - 1e-6].sum()))


def _pairwise(
    scores: pd.DataFrame,
    test: Callable[[Float64s, Float64s], tuple[float, float]],
    metrics: Sequence[str],
    losses: Sequence[str] | None,
) -> pd.DataFrame:
    order = list(losses) if losses is not None else list(dict.fromkeys(scores["loss"]))
    rows = []
    for class_name, metric in itertools.product(dict.fromkeys(scores["class"]), metrics):
        wide = case_values(scores, class_name, metric)
        family = []
        for column, row in itertools.combinations(order, 2):
            both = wide[[row, column]].dropna().to_numpy(dtype=float)
            result = (np.nan, np.nan)
            if len(both) >= MINIMUM_SCORES:
                result = test(both[:, 0], both[:, 1])
            family.append((class_name, metric, row, column, *result, len(both)))
        adjusted = _holm([entry[5] for entry in family])
        rows += [(*entry[:6], p_holm, entry[6]) for entry, p_holm in zip(family, adjusted, strict=True)]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _holm(p_values: Sequence[float]) -> Float64s:
    """Adjust p-values by Holm's step-down method; NaN counts in the family as the least significant and stays NaN."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)  # NaN last
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
