"""Differences joined over data sets: a random-effects meta-analysis with Hartung and Knapp's interval."""

import math
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

    or 0 if Q(0) ≤ k - 1. Q falls and is convex, so Newton's method from 0 rises to the root. The standard error is
    Hartung and Knapp's (2001), √(q / Σ w_i) with q = Q(τ²) / (k - 1), and q at least 1 (Knapp and Hartung 2003): where
    the differences agree better than their standard errors say, that is chance.

    Args:
        differences: y, of shape (..., k), k at least 2.
        standard_errors: s, of the same shape, positive.
    """
    y, variances = np.asarray(differences, dtype=float), np.square(np.asarray(standard_errors, dtype=float))
    k = y.shape[-1]
    tau_squared = np.zeros(y.shape[:-1])

    def at(tau_squared: Float64s) -> tuple[Float64s, Float64s, Float64s, Float64s]:
        weights = 1 / (variances + tau_squared[..., None])
        total = weights.sum(axis=-1)
        mean = (weights * y).sum(axis=-1) / total
        squared = np.square(y - mean[..., None])
        return mean, total, (weights * squared).sum(axis=-1), (np.square(weights) * squared).sum(axis=-1)

    heterogeneity = at(tau_squared)[2]
    for _ in range(MOST_STEPS):
        _, _, q, slope = at(tau_squared)
        step = np.where(q > k - 1, (q - (k - 1)) / np.where(slope > 0, slope, 1.0), 0.0)
        tau_squared = tau_squared + step
        if (step <= 1e-14 * np.maximum(tau_squared, 1e-300)).all():
            break
    mean, total, q, _ = at(tau_squared)
    error = np.sqrt(np.maximum(q / (k - 1), 1.0) / total)
    return Pooled(mean, error, np.sqrt(tau_squared), heterogeneity)


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


def join(differences: Sequence[float], standard_errors: Sequence[float], comparisons: int = 1) -> Joined:
    """Join the differences of independent data sets; `pool` has the model.

    The interval of the mean has Student's point with k - 1 degrees of freedom. The interval of a new data set's true
    difference is μ ± t √(τ² + SE²) with k - 2 (Higgins et al. 2009).

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
        width = float(stats.t.ppf((1 + CONFIDENCE) / 2, k - 2)) * math.sqrt(tau**2 + error**2)
        predicted = mean - width, mean + width
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
