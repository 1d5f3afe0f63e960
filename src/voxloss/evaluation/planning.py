"""The difference that a study will detect, before it is run: from stated noise or from a pilot study."""

import math
from dataclasses import dataclass

import numpy as np

from voxloss.evaluation.repeats import detectable_difference
from voxloss.evaluation.verdict import Verdict

LASTING = 0.5  # of a run's variance: what stays if only the seed changes, where a single seed cannot tell


@dataclass(frozen=True)
class Noise:
    """The noise of a study's scores.

    Args:
        name: Whose noise it is.
        pair_sd: Standard deviation over cases of the difference of two losses' scores, within folds.
        run_sd: Standard deviation of a run's mean beyond its cases: training, initial weights and batches.
        lasting: The share of the run's variance that stays if only the seed changes, between 0 and 1.
    """

    name: str
    pair_sd: float
    run_sd: float
    lasting: float = LASTING


# Typical of Dice in published and simulated studies; a pilot on your own data is better.
TYPICAL = (
    Noise("small lesions, often missed", 0.26, 0.020),
    Noise("tumours, rarely missed", 0.10, 0.010),
    Noise("organs", 0.03, 0.004),
)


def noise_of(verdict: Verdict, name: str) -> Noise:
    """Return the noise that a finished or partial study shows.

    Args:
        verdict: Its verdict, from at least two folds and more cases than folds.
        name: Of the noise.

    Raises:
        ValueError: The study has one fold, or one case per fold.
    """
    pair_sd = float(verdict.pairs["case_sd"].median())
    if verdict.n_folds < 2 or math.isnan(pair_sd):
        raise ValueError("a pilot needs at least two folds, and more cases than folds")
    of_cases = pair_sd**2 / 2 * verdict.n_folds / verdict.n_cases
    of_run = max(0.0, float(np.median(np.square(verdict.fold_sds))) - of_cases)
    return Noise(name, pair_sd, math.sqrt(of_run / (LASTING + (1 - LASTING) / verdict.n_seeds)))


def expected_detectable(noise: Noise, losses: int, folds: int, seeds: int, cases: int) -> float:
    """Return the true difference that a study will name with a probability of 80 %.

    A loss's fold means have the variance

        E = pair_sd² / 2 · F / n + run_sd² (lasting + (1 - lasting) / S)

    beyond effects of loss and fold, with F folds, n cases and S seeds; studies of it are drawn and judged.

    Args:
        noise: The noise of the scores.
        losses: Number of losses, at least 2.
        folds: F, at least 2.
        seeds: S, at least 1.
        cases: n, at least F.

    Returns:
        The difference; infinite with one fold or one loss.
    """
    if losses < 2 or folds < 2:
        return math.inf
    variance = noise.pair_sd**2 / 2 * folds / cases + noise.run_sd**2 * (noise.lasting + (1 - noise.lasting) / seeds)
    error = math.sqrt(2 * variance / folds)
    pairs = losses * (losses - 1) // 2
    # The intervals are at least as wide as the cases make them, which no interval below is.
    return detectable_difference(np.full(losses, variance), np.full(pairs, error), folds)
