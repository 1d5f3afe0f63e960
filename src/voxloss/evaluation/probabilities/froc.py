"""Lesions by threshold: how many are detected, and how many false positives there are per case (FROC)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import find_lesions, match_found
from voxloss.geometry.components import bounding_box
from voxloss.utilities.arrays import ClassIndices, Float64s, Integers, Mask

# A component tree would have all thresholds at once; these few show the curve and cost a matching each.
LESION_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)

STEPS = 255  # of probabilities in bytes: an error of at most 1/510

# False positives per case at which LUNA16 averages the sensitivity.
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def lesions_by_threshold(
    reference: Mask, probability: ClassIndices, voxel_ml: float, rules: LesionRules | None = None
) -> NDArray[np.int64]:
    """Match the lesions of one class at every threshold of `LESION_THRESHOLDS`.

    Args:
        reference: The class's mask.
        probability: Its probability in steps of 1/255, of the same shape.
        voxel_ml: The volume of a voxel, ml.
        rules: What a lesion is and when two match.

    Returns:
        int64 (thresholds, 3): lesions of the reference that are counted, those detected, false positives.
    """
    levels = [math.ceil(threshold * STEPS - 1e-9) for threshold in LESION_THRESHOLDS]
    box = bounding_box((probability >= levels[0]) | reference)
    if box is None:
        return np.zeros((len(levels), 3), dtype=np.int64)
    rules = rules or LesionRules()
    lesions, rows = find_lesions(reference[box], rules), []
    for level in levels:
        match = match_found(lesions, probability[box] >= level, voxel_ml, rules)
        rows.append((len(match.volumes_ml), int(match.detected.sum()), match.false_predictions))
    return np.array(rows, dtype=np.int64)


def froc(lesions: Integers) -> tuple[Float64s, Float64s]:
    """Return false positives per case and the share of all lesions that are detected, at every threshold.

    Args:
        lesions: The cases' `lesions_by_threshold`, (cases, thresholds, 3).
    """
    total, detected, false = np.moveaxis(lesions.sum(axis=0), -1, 0)
    with np.errstate(invalid="ignore"):
        return false / max(1, len(lesions)), detected / total


def sensitivity_at(lesions: Integers, rates: Sequence[float] = RATES) -> Float64s:
    """Return the highest share of detected lesions with at most each number of false positives per case.

    0 where every threshold has more; NaN without a lesion.
    """
    false, sensitivity = froc(lesions)
    if np.isnan(sensitivity).any():
        return np.full(len(rates), math.nan)
    return np.array([sensitivity[false <= rate].max(initial=0.0) for rate in rates])
