"""The verdict: which losses differ, by a model of case, fold and run, with simultaneous intervals and tiers."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.scores import worst_filled
from voxloss.utilities.arrays import Float64s, Integers

CONFIDENCE = 0.95
MARGIN = 0.01  # differences below it do not matter in practice
OWN_FOLDS_LEVEL = 0.02  # of the test that a pair's own folds must pass too; 0.05 with two losses or below four folds
POWER = 0.8  # with which a difference of `detectable` is named


@dataclass(frozen=True)
class Verdict:
    """The verdict of a study on one class and metric.

    Args:
        losses: The losses, from the highest mean to the lowest.
        means: Their means over the folds' means over their cases, seeds averaged; undefined and failed scores as in
            `worst_filled`.
        pairs: A row per two losses, the one with the higher mean first (`better`, `worse`): difference, half_width of
            its simultaneous 95 % interval, differ (the interval excludes 0) and same (it lies within ± margin).
        tiers: The losses in tiers. Every loss of a tier is clearly worse than the first loss of the tier before, and no
            loss is clearly worse than the first loss of its own tier.
        detectable: The difference that such a study detects with a probability of 80 %.
        case_sd: Standard deviation of a loss's scores of cases, beyond the effects of its fold and of the case.
        run_sd: Standard deviation of a loss's fold means beyond the variation of its cases: run, seed, training set.
        n_cases: Number of cases. Cases without a value for some loss are excluded.
        n_folds: Number of folds.
        n_seeds: Number of seeds.
        margin: Differences below it do not matter in practice.
    """

    losses: tuple[str, ...]
    means: tuple[float, ...]
    pairs: pd.DataFrame
    tiers: tuple[tuple[str, ...], ...]
    detectable: float
    case_sd: float
    run_sd: float
    n_cases: int
    n_folds: int
    n_seeds: int
    margin: float = MARGIN


def verdict(scores: pd.DataFrame, class_name: str, metric: str, margin: float = MARGIN) -> Verdict | None:
    """Judge the losses of a long table of scores by one class and metric.

    Args:
        scores: A table as of `read_scores`, with the same cases and seeds for every loss (`common_scores`).
        class_name: The class.
        metric: The metric.
        margin: Differences below it do not matter in practice.

    Returns:
        The verdict (`judge` has the model), or None if there are fewer than two losses or no case has a value.
    """
    chosen = scores[(scores["class"] == class_name) & (scores["metric"].isin({metric, "dice", "recall"}))]
    chosen = worst_filled(chosen)
    chosen = chosen[chosen["metric"] == metric]
    losses = list(dict.fromkeys(chosen["loss"]))
    means = chosen.groupby(["dataset", "case", "fold", "loss"], sort=False)["value"].mean().unstack("loss")
    means = means.dropna()
    if len(losses) < 2 or means.empty:
        return None
    folds = pd.factorize(means.index.get_level_values("fold"))[0]
    return judge(means[losses].to_numpy(dtype=float), folds, losses, chosen["seed"].nunique(), margin)


def judge(values: Float64s, folds: Integers, losses: list[str], n_seeds: int, margin: float = MARGIN) -> Verdict:
    """Judge losses by their case scores.

    The model: score of loss l, case c in fold f = loss + case + loss×case + run(l, f). Every fold of a loss is a
    separate training, so the cases of a fold share the chance of that training, which tests over cases do not account
    for. For the difference of two losses' means,

        V = s² / n + 2 e / F,    half_width = max(q · √V, t · s_F / √F),

    where s² is the variance of the cases' paired differences within folds, e the variance of a loss's fold means
    beyond the variation of its cases (a robust mean over the losses, at least 0), F the number of folds and n the
    number of cases. q is the 95 % point of the studentised range divided by √2 (Tukey), which bounds the chance of one
    or more false differences by 5 % where the losses vary alike (`benchmarks/verdict.py` measures it). The second part
    of the maximum widens the interval where the pair's own F fold differences (standard deviation s_F) vary more than
    the model says, for example after a failed training: t is Student's two-sided 2 % point (5 % with two losses or
    below four folds) with F - 1 degrees of freedom. With one fold no difference can be judged.

    Args:
        values: Scores, of shape (cases, losses), averaged over seeds, without NaN.
        folds: The fold of each case, from 0 to F - 1, of shape (cases,).
        losses: The names of the columns of `values`.
        n_seeds: The number of seeds that were averaged.
        margin: Differences below it do not matter in practice.

    Returns:
        The verdict.
    """
    n, count = values.shape
    sizes = np.bincount(folds)
    fold_means = np.stack([np.bincount(folds, column) / sizes for column in values.T])  # (losses, folds)
    within = values - fold_means[:, folds].T
    n_folds = len(sizes)
    noise = within - within.mean(axis=1, keepdims=True)
    case_variance = float((noise**2).sum()) / ((n - n_folds) * (count - 1)) if n > n_folds else math.nan
    extra = _run_variance(fold_means, case_variance * (1 / sizes).mean())
    covariance = within.T @ within / (n - n_folds) if n > n_folds else np.full((count, count), math.nan)
    means = fold_means.mean(axis=1)
    per_case = (1 / sizes).mean() / n_folds  # 1 / n where the folds are of one size
    order = sorted(range(count), key=lambda index: -means[index])
    q = _critical(count, max(1, (count - 1) * (n_folds - 1))) if n_folds > 1 else math.inf
    level = OWN_FOLDS_LEVEL if count > 2 and n_folds > 3 else 1 - CONFIDENCE
    t = _student(n_folds - 1, level) if n_folds > 1 else math.inf
    rows, errors = [], []
    for first, second in itertools.combinations(order, 2):
        spread = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
        error = math.sqrt(max(spread, 0.0) * per_case + 2 * extra / n_folds)
        own = (fold_means[first] - fold_means[second]).std(ddof=1) / math.sqrt(n_folds) if n_folds > 1 else 0.0
        half_width = max(q * error, t * own) if n_folds > 1 else math.inf
        difference = float(means[first] - means[second])
        errors.append(error)
        differ, same = abs(difference) > half_width, abs(difference) + half_width <= margin
        rows.append((losses[first], losses[second], difference, half_width, differ, same))
    pairs = pd.DataFrame(rows, columns=["better", "worse", "difference", "half_width", "differ", "same"])
    names = [losses[index] for index in order]
    return Verdict(
        losses=tuple(names),
        means=tuple(float(means[index]) for index in order),
        pairs=pairs,
        tiers=_tiers(names, pairs),
        detectable=float(pairs["half_width"].median()) + _normal(POWER) * float(np.median(errors)),
        case_sd=math.sqrt(case_variance),
        run_sd=math.sqrt(extra),
        n_cases=n,
        n_folds=n_folds,
        n_seeds=n_seeds,
        margin=margin,
    )


def _run_variance(fold_means: Float64s, by_cases: float) -> float:
    """The variance of a loss's fold means about loss and fold, less what the cases give (`by_cases`).

    The median over the losses, scaled to a mean, so that one loss whose training failed does not hide the others.
    """
    count, n_folds = fold_means.shape
    if n_folds < 2:
        return 0.0
    residual = fold_means - fold_means.mean(axis=1, keepdims=True)
    residual -= np.median(residual, axis=0) if count > 2 else residual.mean(axis=0)
    degrees = n_folds - 1
    squares = (residual**2).sum(axis=1) / degrees * (count / (count - 1) if count == 2 else 1.0)
    middle = float(np.median(squares)) / _median_of_chi_square(degrees)
    return max(0.0, middle - by_cases)


def _tiers(names: list[str], pairs: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    lower = {(row.better, row.worse) for row in pairs.itertuples() if row.differ}
    tiers: list[list[str]] = []
    remaining = list(names)
    while remaining:
        head = remaining[0]
        tiers.append([head] + [name for name in remaining[1:] if (head, name) not in lower])
        remaining = [name for name in remaining if name not in tiers[-1]]
    return tuple(map(tuple, tiers))


@lru_cache
def _critical(count: int, degrees: int) -> float:
    return float(stats.studentized_range.ppf(CONFIDENCE, count, degrees)) / math.sqrt(2)


@lru_cache
def _student(degrees: int, level: float) -> float:
    return float(stats.t.ppf(1 - level / 2, degrees))


@lru_cache
def _median_of_chi_square(degrees: int) -> float:
    return float(stats.chi2.ppf(0.5, degrees)) / degrees


@lru_cache
def _normal(probability: float) -> float:
    return float(stats.norm.ppf(probability))
