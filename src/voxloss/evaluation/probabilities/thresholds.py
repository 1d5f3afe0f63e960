"""Overlap with the reference at every threshold, the best threshold, and precision against recall."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxloss.evaluation.metrics import Score
from voxloss.evaluation.probabilities.counts import THRESHOLDS, ProbabilityCounts, threshold_place
from voxloss.utilities.arrays import Float64s, Integers

EQUAL = 1e-12  # mean Dice coefficients that differ by less are equal


@dataclass(frozen=True)
class Overlaps:
    """Numbers of voxels of one class at each of `THRESHOLDS`: true positive, false positive and missed."""

    true_positive: Integers
    false_positive: Integers
    false_negative: Integers

    def dice(self) -> Float64s:
        """Return 2 TP / (2 TP + FP + FN); NaN where it is 0/0."""
        both = 2 * self.true_positive
        return _ratio(both, both + self.false_positive + self.false_negative)

    def precision(self) -> Float64s:
        """Return TP / (TP + FP); NaN where it is 0/0."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    def recall(self) -> Float64s:
        """Return TP / (TP + FN); NaN where it is 0/0."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)


def _ratio(numerator: Integers, denominator: Integers) -> Float64s:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Float64s = np.true_divide(numerator, denominator)
    return ratio


def overlaps(counts: ProbabilityCounts) -> Overlaps:
    """Return the overlap of one class (counts of shape (2, BINS)) where voxels of at least a threshold are predicted.

    Exact for probabilities that are rounded to multiples of 1/65535.
    """
    others, own = counts.voxels[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return Overlaps(own, others, own[..., :1] - own)


def best_threshold(cases: Sequence[ProbabilityCounts]) -> float | None:
    """Return the threshold with the highest mean Dice over cases; of equal ones that nearest to 0.5, by log odds.

    The mean is that of the tables: a case without the class counts as 0 where something is predicted, and does not
    count where nothing is. (If it counted as 1, the best for a class of few cases would be to predict nothing at all.)

    Args:
        cases: The counts of one class in every case, of shape (2, BINS).

    Returns:
        One of `THRESHOLDS`, never 0; None if no case has the class.
    """
    if not any(counts.voxels[1].any() for counts in cases):
        return None
    dice = np.nanmean([overlaps(counts).dice() for counts in cases], axis=0)[1:]
    thresholds = THRESHOLDS[1:]
    best = thresholds[dice >= dice.max() - EQUAL]
    return float(best[np.argmin(np.abs(np.log(best) - np.log1p(-best)))])


def scores_at(counts: ProbabilityCounts, threshold: float, class_name: str) -> list[Score]:
    """Return Dice, precision and recall of a class in one case where voxels of at least a threshold are predicted.

    Taken is the nearest of `THRESHOLDS`. The scores are undefined as in `case_scores`.
    """
    place, found = threshold_place(threshold), overlaps(counts)
    values = {"dice": found.dice(), "precision": found.precision(), "recall": found.recall()}
    scores = []
    for metric, by_threshold in values.items():
        value = float(by_threshold[place])
        scores.append(Score(class_name, metric, value, "undefined" if math.isnan(value) else "ok"))
    return scores


def average_precision(counts: ProbabilityCounts) -> float:
    """Return Σ (R_j - R_{j+1}) P_j over falling recall R_j, the area under the curve of precision P against recall.

    Args:
        counts: Of one class, of shape (2, BINS): of a case, or of several cases pooled.

    Returns:
        NaN if the class is not in the reference.
    """
    found = overlaps(counts)
    recall, precision = found.recall(), np.nan_to_num(found.precision(), nan=1.0)
    return float(-np.diff(recall, append=0.0) @ precision)


def precision_at(counts: ProbabilityCounts, recalls: Float64s) -> Float64s:
    """Return the precision at the highest threshold that reaches each recall; NaN without the class."""
    found = overlaps(counts)
    recall, precision = found.recall()[::-1], np.nan_to_num(found.precision(), nan=1.0)[::-1]  # rising recall
    if math.isnan(recall[-1]):
        return np.full(len(recalls), math.nan)
    reached = np.searchsorted(recall, recalls * (1 - 1e-12), side="left")
    at: Float64s = precision[np.minimum(reached, len(recall) - 1)]
    return at
