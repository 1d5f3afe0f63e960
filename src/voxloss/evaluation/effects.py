"""The sizes of differences between losses by case, and the parts of the variation between runs."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.scores import worst_filled
from voxloss.evaluation.significance import CONFIDENCE, case_values
from voxloss.utilities.arrays import Float64s

EFFECT_COLUMNS = ("class", "metric", "row", "column", "median", "low", "high", "superiority", "n")


def paired_effects(
    scores: pd.DataFrame, metrics: Sequence[str] = ("dice",), losses: Sequence[str] | None = None
) -> pd.DataFrame:
    """Measure the differences between every two losses over the same cases (seeds averaged, as in `case_values`).

    With d the n differences row - column, `median` is their median, and low and high its distribution-free 95 %
    interval

        [d_(k), d_(n+1-k)],  k the largest with 2 · P(Binomial(n, 1/2) < k) ≤ 0.05,

    NaN if there is none (n below 6). `superiority` is P(d > 0) + P(d = 0) / 2, the probability that the row's loss is
    better on a case.

    Args:
        scores: The long table.
        metrics: The metrics to compare.
        losses: The order of the losses; None: as they appear. A row's loss comes later in it than the column's.

    Returns:
        Columns class, metric, row, column, median, low, high, superiority, n.
    """
    order = list(losses) if losses is not None else list(dict.fromkeys(scores["loss"]))
    rows = []
    for class_name, metric in itertools.product(dict.fromkeys(scores["class"]), metrics):
        wide = case_values(scores, class_name, metric)
        for column, row in itertools.combinations(order, 2):
            both = wide[[row, column]].dropna().to_numpy(dtype=float)
            # Rounded, so that 0.3 - 0.2 and 0.2 - 0.1 are a tie, as they are in exact arithmetic.
            difference = np.sort(np.round(both[:, 0] - both[:, 1], 12))
            n = len(difference)
            low, high = _median_interval(difference)
            superiority = float(((difference > 0) + 0.5 * (difference == 0)).mean()) if n else math.nan
            median = float(np.median(difference)) if n else math.nan
            rows.append((class_name, metric, row, column, median, low, high, superiority, n))
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def _median_interval(ordered: Float64s) -> tuple[float, float]:
    n = len(ordered)
    k = int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) if n else 0  # the first with P(X ≤ k) ≥ 2.5 %
    if k < 1:
        return math.nan, math.nan
    return float(ordered[k - 1]), float(ordered[n - k])


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over the cases: statistic χ² with k - 1 degrees of freedom, p, Kendall's W, number of cases."""

    statistic: float
    p: float
    kendall_w: float
    n: int


def friedman(scores: pd.DataFrame, class_name: str, metric: str) -> Friedman:
    """Test whether any of three or more losses ranks differently over the cases (seeds averaged, ties corrected).

    NaN with fewer than three losses or two cases; statistic 0 and p = 1 where all losses are equal on every case.
    Kendall's W = χ² / (n (k - 1)) is 0 where ranks are random and 1 where every case ranks the losses alike.
    """
    values = case_values(scores, class_name, metric).dropna().to_numpy(dtype=float)
    n, count = values.shape if values.ndim == 2 else (0, 0)
    if count < 3 or n < 2:
        return Friedman(math.nan, math.nan, math.nan, n)
    if (values == values[:, :1]).all():
        return Friedman(0.0, 1.0, 0.0, n)
    result = stats.friedmanchisquare(*values.T)
    return Friedman(float(result.statistic), float(result.pvalue), float(result.statistic) / (n * (count - 1)), n)


def variance_parts(scores: pd.DataFrame, class_name: str, metric: str) -> dict[str, float] | None:
    """Split the variation of the runs' means into the parts "loss", "fold", "loss × fold" and "seed".

    A run's mean is over its cases (`worst_filled`). The mean squares of a two-way analysis of variance with random
    effects (losses × folds × seeds) give variances, each at least 0,

        seed² = MS(within),  (loss × fold)² = (MS(loss × fold) - MS(within)) / S,
        fold² = (MS(fold) - MS(loss × fold)) / (S L),  loss² = (MS(loss) - MS(loss × fold)) / (S F).

    Returns:
        The standard deviation of each part; None without at least two losses, folds and seeds, or if a run is missing.
    """
    chosen = scores[(scores["class"] == class_name) & (scores["metric"].isin({metric, "dice", "recall"}))]
    chosen = worst_filled(chosen)
    chosen = chosen[chosen["metric"] == metric]
    means = chosen.groupby(["loss", "fold", "seed"])["value"].mean()
    sizes = [len(means.index.unique(level)) for level in ("loss", "fold", "seed")]
    if min(sizes, default=0) < 2 or len(means.dropna()) != math.prod(sizes):
        return None
    losses, folds, seeds = sizes
    table = means.to_numpy(dtype=float).reshape(sizes)  # groupby sorts its keys
    cells = table.mean(axis=2)
    total, by_loss, by_fold = cells.mean(), cells.mean(axis=1), cells.mean(axis=0)
    interplay = cells - by_loss[:, None] - by_fold + total
    within = ((table - cells[:, :, None]) ** 2).sum() / (losses * folds * (seeds - 1))
    crossed = seeds * (interplay**2).sum() / ((losses - 1) * (folds - 1))
    of_fold = seeds * losses * ((by_fold - total) ** 2).sum() / (folds - 1)
    of_loss = seeds * folds * ((by_loss - total) ** 2).sum() / (losses - 1)
    parts = {
        "loss": (of_loss - crossed) / (seeds * folds),
        "fold": (of_fold - crossed) / (seeds * losses),
        "loss × fold": (crossed - within) / seeds,
        "seed": within,
    }
    return {name: math.sqrt(max(0.0, float(part))) for name, part in parts.items()}
