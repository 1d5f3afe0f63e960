"""Repetitions of a study, drawn from the fitted model: detectable differences, ranks, the best mean's overstatement."""

import numpy as np
from scipy import stats

from voxloss.evaluation.fold_model import model_pairs
from voxloss.utilities.arrays import Float64s

POWER = 0.8  # with which a difference of `detectable_difference` is named
STUDIES = 600  # drawn for a detectable difference: its power is then within 2 % of the one stated


def detectable_difference(
    variances: Float64s,
    standard_errors: Float64s,
    n_folds: int,
    power: float = POWER,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """Return the true difference that a study names with a given probability: the median over pairs.

    Studies of equal losses are drawn from the fitted model and judged (`model_pairs`). Adding a difference δ to one
    loss changes no interval, so that a pair's δ is the quantile of half_width - noise at `power`.

    Args:
        variances: The variance of every loss's fold means, of shape (K,).
        standard_errors: Of the differences of all pairs i < j, of shape (pairs,); larger than what `variances` give
            where the variation of cases does.
        n_folds: Number of folds, at least 2.
        power: The probability, between 0 and 1.
        studies: Number of studies drawn.
        seed: Of the random numbers.
    """
    generator = np.random.default_rng(seed)
    count = len(variances)
    first, second = np.triu_indices(count, 1)
    noise = generator.standard_normal((studies, count, n_folds)) * np.sqrt(variances)[:, None]
    of_runs = (variances[first] + variances[second]) / n_folds
    by_cases = np.where(np.square(standard_errors) > of_runs * (1 + 1e-9), np.square(standard_errors), 0.0)
    widths = model_pairs(noise, by_cases).half_width
    means = noise.mean(axis=-1)
    scale = np.divide(standard_errors, np.sqrt(of_runs), out=np.ones_like(of_runs), where=of_runs > 0)
    chance = (means[:, first] - means[:, second]) * scale
    needed = np.quantile(np.concatenate([widths - chance, widths + chance]), power, axis=0)
    return float(np.median(needed))


def rank_shares(
    means: Float64s, variances: Float64s, higher_is_better: bool = True, studies: int = 10_000, seed: int = 0
) -> Float64s:
    """Return how often every loss has every rank in repetitions of the study.

    The means of a repetition are normal about the study's means, with the variance that the fitted model gives them.

    Args:
        means: The losses' means, of shape (K,).
        variances: The variances of these means, of shape (K,).
        higher_is_better: Whether larger means are better.
        studies: Number of repetitions.
        seed: Of the random numbers.

    Returns:
        Shares, of shape (K losses, K ranks), the first rank the best; equal means share the better rank.
    """
    generator = np.random.default_rng(seed)
    drawn = means + generator.standard_normal((studies, len(means))) * np.sqrt(variances)
    ranks = stats.rankdata(np.round(-drawn if higher_is_better else drawn, 12), method="min", axis=1)
    return np.stack([(ranks == place + 1).mean(axis=0) for place in range(len(means))], axis=1)


def overstatement(
    means: Float64s, variances: Float64s, higher_is_better: bool = True, studies: int = 4000, seed: int = 0
) -> float:
    """Return by how much the best of several means overstates its loss, on average.

    True means are taken as the study's, shrunk towards their average as far as chance explains their spread
    (B = τ² / (τ² + v), with v the means' average variance and τ² = max(0, variance of the means - v)). Repetitions of
    the study then give the average excess of the best mean over the true mean of its loss.

    Args:
        means: The losses' means, of shape (K,).
        variances: The variances of these means, of shape (K,).
        higher_is_better: Whether larger means are better.
        studies: Number of repetitions.
        seed: Of the random numbers.
    """
    sign = 1.0 if higher_is_better else -1.0
    spread, chance = float(means.var(ddof=1)), float(variances.mean())
    share = max(0.0, spread - chance) / spread if spread > 0 else 0.0
    true = sign * (means.mean() + share * (means - means.mean()))
    generator = np.random.default_rng(seed)
    drawn = true + generator.standard_normal((studies, len(means))) * np.sqrt(variances)
    best = drawn.argmax(axis=1)
    return float((drawn[np.arange(studies), best] - true[best]).mean())
