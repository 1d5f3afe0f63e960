"""Calibration of a class's probabilities: reliability, expected calibration error, Brier and log score, temperature."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from voxloss.evaluation.probabilities.counts import BINS, FIRST_LEVELS, LEVELS, ProbabilityCounts, threshold_place
from voxloss.utilities.arrays import Float64s, Integers

RELIABILITY_BINS = 15  # of equal width, as in Guo et al. 2017
CONSIDERED = 0.01  # from this probability on, a voxel takes part in the calibration error of the foreground

# A voxel whose probability is rounded to 0 or 1 counts as half a level away, so that its log score is finite: 11.8.
LEAST = 0.5 / (LEVELS - 1)

TEMPERATURES = (0.05, 20.0)  # searched


@dataclass(frozen=True)
class Reliability:
    """Voxels of one class by probability, in `RELIABILITY_BINS` bins of equal width.

    Args:
        voxels: Number of voxels in each bin.
        predicted: Their mean probability; NaN in an empty bin.
        observed: The share of them that has the class in the reference; NaN in an empty bin.
    """

    voxels: Integers
    predicted: Float64s
    observed: Float64s

    def error(self) -> float:
        """Return the expected calibration error Σ (n_b / n) |observed_b - predicted_b|; NaN without voxels."""
        total = int(self.voxels.sum())
        gaps = np.nan_to_num(np.abs(self.observed - self.predicted))
        return float(self.voxels @ gaps) / total if total else math.nan


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a class are from its frequencies, as means over voxels.

    Every class is judged by itself against all others.

    Args:
        ece: Expected calibration error over all voxels.
        ece_foreground: The same over the voxels to which the network gives the class a probability of at least
            `CONSIDERED`. They are chosen by the prediction alone: among voxels chosen by the reference, calibrated
            probabilities are not calibrated.
        brier: Mean of (p - y)².
        log_score: Mean of -log p where the voxel has the class and of -log(1 - p) elsewhere, in nats.
    """

    ece: float
    ece_foreground: float
    brier: float
    log_score: float


def bin_probabilities(counts: ProbabilityCounts, temperature: float = 1.0) -> Float64s:
    """Return the mean probability of every bin and reference, (2, BINS), after the scaling by a temperature.

    Scaled are the log odds of the class against all others: p' = p^(1/T) / (p^(1/T) + (1 - p)^(1/T)). With two classes
    this is the usual temperature of the softmax.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        means = counts.sums / counts.voxels
    means = np.where(counts.voxels > 0, means, FIRST_LEVELS / (LEVELS - 1))
    if temperature == 1:
        return means
    clamped = np.clip(means, LEAST, 1 - LEAST)
    scaled: Float64s = 1 / (1 + np.exp(-(np.log(clamped) - np.log1p(-clamped)) / temperature))
    return scaled


def reliability(counts: ProbabilityCounts, temperature: float = 1.0, least: float = 0.0) -> Reliability:
    """Return the reliability of a class.

    Args:
        counts: Of the class, of shape (2, BINS): of a case, or of several pooled.
        temperature: Of the scaling.
        least: Voxels with a lower probability (before the scaling) are left out.
    """
    means = bin_probabilities(counts, temperature)
    voxels = np.where(np.arange(BINS) >= threshold_place(least), counts.voxels, 0)
    # A bin lies within one bin of equal width, unless it was scaled.
    places = np.minimum((_middles(counts, temperature) * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)

    def gathered(values: Float64s | Integers) -> Float64s:
        totals = np.bincount(places.ravel(), values.ravel(), minlength=RELIABILITY_BINS)
        return totals.astype(np.float64)

    total = gathered(voxels)
    own = np.bincount(places[1], voxels[1], minlength=RELIABILITY_BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(total.astype(np.int64), gathered(voxels * means) / total, own / total)


def _middles(counts: ProbabilityCounts, temperature: float) -> Float64s:
    """Return a probability within every bin, equal for both references unless it was scaled."""
    if temperature != 1:
        return bin_probabilities(counts, temperature)
    ends = np.append(FIRST_LEVELS[1:], LEVELS)
    middles: Float64s = np.broadcast_to((FIRST_LEVELS + ends - 1) / 2 / (LEVELS - 1), counts.voxels.shape)
    return middles


def calibration(counts: ProbabilityCounts, temperature: float = 1.0) -> Calibration:
    """Return the calibration of a class; all NaN without voxels.

    Args:
        counts: Of the class, of shape (2, BINS): of a case, or of several pooled.
        temperature: Of the scaling; 1: none.
    """
    total = int(counts.voxels.sum())
    if not total:
        return Calibration(*(math.nan,) * 4)
    means = bin_probabilities(counts, temperature)
    others, own = means
    squares = counts.voxels[0] @ np.square(others) + counts.voxels[1] @ np.square(1 - own)
    return Calibration(
        reliability(counts, temperature).error(),
        reliability(counts, temperature, CONSIDERED).error(),
        float(squares) / total,
        log_score(counts, temperature),
    )


def log_score(counts: ProbabilityCounts, temperature: float = 1.0) -> float:
    """Return the mean log score of a class, in nats; probabilities are held within `LEAST` of 0 and 1."""
    others, own = np.clip(bin_probabilities(counts, temperature), LEAST, 1 - LEAST)
    total = counts.voxels[0] @ -np.log1p(-others) + counts.voxels[1] @ -np.log(own)
    return float(total) / int(counts.voxels.sum())


def best_temperature(counts: ProbabilityCounts) -> float | None:
    """Return the temperature with the lowest log score; None if the voxels are all of the class, or none is."""
    if not counts.voxels.any(axis=1).all():
        return None
    low, high = map(math.log, TEMPERATURES)
    found = optimize.minimize_scalar(
        lambda power: log_score(counts, math.exp(power)), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    return math.exp(float(found.x))
