"""Differences joined over data sets: a random-effects meta-analysis with Hartung and Knapp's interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from voxloss.utilities.arrays import Float64s

CONFIDENCE = 0.95
POWER = 0.8  # with which a difference of `Joined.detectable` is named
LEAST_TO_PREDICT = 5  # data sets, from which a prediction interval is given
MOST_STEPS = 200  # of Newton's method, which needs a dozen
NODES = 100  # of the confidence distribution of τ²
BISECTIONS = 50  # halve a bracket to rounding


class Pooled(NamedTuple):
    """A random-effects mean, each of shape (...): that of the stack.

    Args:
        mean: μ.
        standard_error: Of μ, after Hartung and Knapp.
        tau: τ, the standard deviation of the true differences of data sets.
        heterogeneity: Cochran's Q.
    """

    mean: Float64s
    standard_error: Float64s
    tau: Float64s
    heterogeneity: Float64s


def pool(differences: Float64s, standard_errors: Float64s) -> Pooled:
    """Join k differences by the random-effects model y_i ~ N(μ, τ² + s_i²).

    τ² is Paule and Mandel's (1982), the root of

        Q(τ²) = Σ w_i (y_i - μ)² = k - 1,  w_i = 1 / (τ² + s_i²),  μ = Σ w_i y_i / Σ w_i,

    or 0 if Q(0) ≤ k - 1. The standard error is Hartung and Knapp's (2001), √(q / Σ w_i) with q = Q(τ²) / (k - 1), and q
    at least 1 (Knapp and Hartung 2003): where the differences agree better than their standard errors say, that is
    chance.

    Args:
        differences: y, of shape (..., k), k at least 2.
        standard_errors: s, of the same shape, positive.
    """
    y, variances = np.asarray(differences, dtype=float), np.square(np.asarray(standard_errors, dtype=float))
    k = y.shape[-1]
    tau_squared = _root(y, variances, k - 1)
    at = _weighted(y, variances, tau_squared)
    error = np.sqrt(np.maximum(at.q / (k - 1), 1.0) / at.total)
    return Pooled(at.mean, error, np.sqrt(tau_squared), _weighted(y, variances, np.zeros_like(tau_squared)).q)


def spread_points(differences: Float64s, standard_errors: Float64s, levels: Float64s) -> Float64s:
    """Return points of the confidence distribution of τ²: the roots of Q(τ²) = c, or 0 where Q(0) ≤ c.

    At the true τ², Q has the χ² distribution with k - 1 degrees of freedom, of which c is the point at a level, so that
    two of these points are the Q profile interval of τ² (Viechtbauer 2007).

    Args:
        differences: y, of shape (..., k), k at least 2.
        standard_errors: s, of the same shape, positive.
        levels: Probabilities, of shape (levels,).

    Returns:
        τ², of shape (..., levels), falling with rising levels.
    """
    y, variances = np.asarray(differences, dtype=float), np.square(np.asarray(standard_errors, dtype=float))
    return _root(y[..., None, :], variances[..., None, :], stats.chi2.ppf(levels, y.shape[-1] - 1))


def predict(differences: Float64s, standard_errors: Float64s) -> tuple[Float64s, Float64s]:
    """Return the 95 % interval of the true difference of a new data set.

    The 2.5 and 97.5 % points of N(μ(τ²), τ² + 1 / Σ w_i), averaged over the confidence distribution of τ²
    (`spread_points`; after Nagashima et al. 2019). An interval at the one best τ² is too narrow, above all where that
    is 0, as it often is with few data sets.

    Args:
        differences: y, of shape (..., k), k at least 2.
        standard_errors: s, of the same shape, positive.

    Returns:
        Lower and upper end, of shape (...).
    """
    y, variances = np.asarray(differences, dtype=float), np.square(np.asarray(standard_errors, dtype=float))
    tau_squared = spread_points(y, standard_errors, (np.arange(NODES) + 0.5) / NODES)
    at = _weighted(y[..., None, :], variances[..., None, :], tau_squared)
    sd = np.sqrt(tau_squared + 1 / at.total)
    ends = []
    for level in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        quantiles = at.mean + stats.norm.ppf(level) * sd
        low, high = quantiles.min(axis=-1), quantiles.max(axis=-1)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = stats.norm.cdf((middle[..., None] - at.mean) / sd).mean(axis=-1) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]


class _Weighted(NamedTuple):
    """At one τ²: μ, Σ w_i, Q and the negative slope of Q."""

    mean: Float64s
    total: Float64s
    q: Float64s
    slope: Float64s


def _weighted(y: Float64s, variances: Float64s, tau_squared: Float64s) -> _Weighted:
    weights = 1 / (variances + tau_squared[..., None])
    total = weights.sum(axis=-1)
    mean = (weights * y).sum(axis=-1) / total
    squared = np.square(y - mean[..., None])
    return _Weighted(mean, total, (weights * squared).sum(axis=-1), (np.square(weights) * squared).sum(axis=-1))


def _root(y: Float64s, variances: Float64s, target: Float64s | float) -> Float64s:
    """Solve Q(τ²) = target; 0 where Q(0) is less. Q falls and is convex, so Newton's steps from 0 rise to the root."""
    tau_squared = np.zeros(np.broadcast_shapes(y.shape[:-1], np.shape(target)))
    for _ in range(MOST_STEPS):
        at = _weighted(y, variances, tau_squared)
        step = np.where(at.q > target, (at.q - target) / np.where(at.slope > 0, at.slope, 1.0), 0.0)
        tau_squared = tau_squared + step
        if (step <= 1e-14 * np.maximum(tau_squared, 1e-300)).all():
            break
    return tau_squared


@dataclass(frozen=True)
class Joined:
    """A difference joined over data sets.

    Args:
        mean: The mean difference over data sets.
        low: Lower end of its 95 % interval.
        high: Upper end.
        standard_error: Of the mean.
        tau: The standard deviation of the true differences of data sets.
        heterogeneity: Cochran's Q.
        p_heterogeneity: Its p value: the true differences of all data sets are equal.
        predicted: The 95 % interval of the true difference of a new data set; None below five data sets.
        detectable: The true mean difference that an interval of this width excludes from 0 with a probability of 80 %.
        weights: The share of each data set in the mean.
        n: The number of data sets.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    tau: float
    heterogeneity: float
    p_heterogeneity: float
    predicted: tuple[float, float] | None
    detectable: float
    weights: tuple[float, ...]
    n: int

    def clear(self, comparisons: int) -> bool:
        """Whether the interval of the mean excludes 0 as one of this many that hold together with 95 % (Bonferroni)."""
        return (
            abs(self.mean)
            > float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / comparisons, self.n - 1)) * self.standard_error
        )


def join(differences: Sequence[float], standard_errors: Sequence[float], comparisons: int = 1) -> Joined:
    """Join the differences of independent data sets; `pool` has the model.

    The interval of the mean has Student's point with k - 1 degrees of freedom; `predict` has that of a new data set.

    Args:
        differences: One per data set, at least two.
        standard_errors: Of the differences, positive.
        comparisons: The interval of the mean is one of this many that hold together with 95 % (Bonferroni).

    Raises:
        ValueError: There are fewer than two differences, or a number is not finite or not positive.
    """
    y, errors = np.asarray(differences, dtype=float), np.asarray(standard_errors, dtype=float)
    if y.ndim != 1 or y.shape != errors.shape or len(y) < 2:
        raise ValueError(
            "two or more differences and as many standard errors can be joined, got "
            f"{y.size} differences and {errors.size} standard errors"
        )
    if not (np.isfinite(y).all() and np.isfinite(errors).all() and (errors > 0).all()):
        raise ValueError(f"differences must be finite and standard errors positive, got {y} and {errors}")
    found = pool(y, errors)
    mean, error, tau, k = float(found.mean), float(found.standard_error), float(found.tau), len(y)
    point = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / comparisons, k - 1))
    predicted = None
    if k >= LEAST_TO_PREDICT:
        low, high = predict(y, errors)
        predicted = float(low), float(high)
    weights = 1 / (tau**2 + errors**2)
    heterogeneity = float(found.heterogeneity)
    return Joined(
        mean=mean,
        low=mean - point * error,
        high=mean + point * error,
        standard_error=error,
        tau=tau,
        heterogeneity=heterogeneity,
        p_heterogeneity=float(stats.chi2.sf(heterogeneity, k - 1)),
        predicted=predicted,
        detectable=(point + float(stats.t.ppf(POWER, k - 1))) * error,
        weights=tuple(map(float, weights / weights.sum())),
        n=k,
    )
