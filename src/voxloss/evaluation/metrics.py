"""Scores of one case on its original voxel grid: overlap, surface distances, volume and lesions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxloss.evaluation.lesions import match_lesions
from voxloss.evaluation.surface import surface_distances
from voxloss.geometry.components import class_boxes
from voxloss.utilities.arrays import Integers, Labels, Mask
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Metric:
    """Properties of a metric's values.

    Args:
        unit: "" for a share between 0 and 1; else "mm" or "ml", without an upper limit.
        worst: The worst possible value, assigned to failed runs: 0 if higher is better, infinite if lower is better.
            None for a measure of the case, which does not depend on the prediction.
        needs_prediction: Whether it is 0/0 for an empty prediction, which then counts as the worst.
        needs_reference: Whether it is 0/0 if the reference is empty, whatever is predicted.
    """

    unit: Literal["", "mm", "ml"] = ""
    worst: float | None = 0.0
    needs_prediction: bool = False
    needs_reference: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values are better."""
        return self.worst == 0


METRICS = {
    "dice": Metric(),
    "precision": Metric(needs_prediction=True),
    "recall": Metric(needs_reference=True),
    "hd95": Metric("mm", math.inf, needs_prediction=True),
    "assd": Metric("mm", math.inf, needs_prediction=True),
    "nsd": Metric(),
    "volume_difference": Metric("ml", math.inf),
    "lesion_recall": Metric(needs_reference=True),
    "lesion_precision": Metric(needs_prediction=True),
    "reference_volume": Metric("ml", None),
}

# Metrics that need no spacing; without a spacing, only these are computed.
OVERLAP_METRICS = ("dice", "precision", "recall")

TOLERANCE_MM = 1.0  # of the normalised surface Dice

Status = Literal["ok", "undefined", "failed"]

# Voxels counted in one step: bincount widens its input to 8 bytes a voxel, so that a volume of 278 million voxels
# would need 2.2 GB at once and needs 8 MB this way.
SLAB_VOXELS = 1 << 20


class Score(NamedTuple):
    """One value of the long table, without loss, fold and case."""

    class_name: str
    metric: str
    value: float
    status: Status


def confusion_counts(reference: Labels, prediction: Labels, classes: Sequence[str]) -> NDArray[np.int64]:
    """Count the voxels of every pair (reference class, predicted class).

    Args:
        reference: Class indices, of any shape and memory order and any integer type or bool; may be memory-mapped.
        prediction: Class indices on the same grid.
        classes: The name of every class index, background first.

    Returns:
        int64 array (n_classes, n_classes): rows are reference classes, columns are predicted classes.

    Raises:
        InputError: The shapes differ, an array does not hold integers, or a value is not a class index.
    """
    if reference.shape != prediction.shape:
        raise InputError(f"reference and prediction must have one shape, got {reference.shape} and {prediction.shape}")
    for role, array in (("reference", reference), ("prediction", prediction)):
        if array.dtype.kind not in "uib":
            raise InputError(f"the {role} must hold integer class indices, got values of type {array.dtype}")
    n_classes = len(classes)
    counts = np.zeros(n_classes * n_classes, dtype=np.int64)
    if reference.size == 0:
        return counts.reshape(n_classes, n_classes)
    # Order "K" walks both arrays in the first one's memory order, whatever that is, without copying either as a whole.
    slabs = np.nditer([reference, prediction], flags=["external_loop", "buffered"], order="K", buffersize=SLAB_VOXELS)
    for reference_slab, prediction_slab in slabs:
        _check_values(reference_slab, "reference", classes)
        _check_values(prediction_slab, "prediction", classes)
        pair = reference_slab.astype(np.intp) * n_classes + prediction_slab
        counts += np.bincount(pair, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def _check_values(slab: Integers, role: str, classes: Sequence[str]) -> None:
    for value in (int(slab.min()), int(slab.max())):
        if not 0 <= value < len(classes):
            names = ", ".join(classes)
            raise InputError(
                f"the {role} holds the value {value}, but the classes are 0 to {len(classes) - 1}: {names}"
            )


def case_scores(
    reference: Labels,
    prediction: Labels,
    classes: Sequence[str],
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    ignore_index: int | None = None,
) -> list[Score]:
    """Score every foreground class of one case.

    With TP, FP and FN the numbers of true positive, false positive and missed voxels of a class,

        dice      = 2 TP / (2 TP + FP + FN)    (Eq. 8)
        precision = TP / (TP + FP)             (Eq. 26)
        recall    = TP / (TP + FN)             (Eq. 25)

    and, if a spacing is given, from `surface_distances` (mm), `match_lesions` and the volumes:

        hd95              the larger of the two directed 95 % points of the surface distances, by area
        assd              their average over both surfaces, by area (average symmetric surface distance)
        nsd               the share of both surfaces within tolerance_mm of the other (normalised surface Dice)
        volume_difference |prediction - reference|, ml
        lesion_recall     lesions of the reference that the prediction touches / lesions of the reference
        lesion_precision  lesions of the prediction that touch the reference / lesions of the prediction
        reference_volume  volume of the reference, ml: not a score, but the axis of some figures

    A formula that is 0/0, or a distance to nothing, gives NaN with status "undefined", never 0 or 1:

        | class is in            | both    | the reference only | the prediction only | neither   |
        |------------------------|---------|--------------------|---------------------|-----------|
        | dice, nsd              | formula | 0                  | 0                   | undefined |
        | precision, of lesions  | formula | undefined          | 0                   | undefined |
        | recall, of lesions     | formula | 0                  | undefined           | undefined |
        | hd95, assd             | formula | undefined          | undefined           | undefined |
        | volume_difference      | formula | formula            | formula             | 0         |

    Args:
        reference: Class indices on the original grid, any integer type.
        prediction: Class indices on the same grid.
        classes: The name of every class index; the first, the background, is not scored.
        spacing_mm: Voxel sizes along the stored axes of three-dimensional arrays; None: only `OVERLAP_METRICS`.
        tolerance_mm: Tolerance of the normalised surface Dice.
        ignore_index: The value in `reference` of voxels that do not count; None: all count. These voxels are background
            in both masks before anything is computed, so that volumes and lesions are those of the counted part, and
            a surface also runs where a structure meets ignored voxels.

    Returns:
        One score per foreground class and metric, in the order of `classes` and `METRICS`.

    Raises:
        InputError: As `confusion_counts`, or the spacing is not three positive numbers.

    Source: Yeung et al. 2021 (arXiv 2102.04525v1), section III.E; Nikolov et al. 2021 (surface distances).
    """
    if ignore_index is not None and reference.shape == prediction.shape:
        ignored = reference == ignore_index
        reference, prediction = (np.where(ignored, mask.dtype.type(0), mask) for mask in (reference, prediction))
    counts = confusion_counts(reference, prediction, classes)
    if spacing_mm is not None:
        if reference.ndim != 3 or len(spacing_mm) != 3 or not all(0 < value < math.inf for value in spacing_mm):
            raise InputError(f"the spacing of a volume must be three positive numbers, got {tuple(spacing_mm)}")
        boxes = class_boxes([reference, prediction], len(classes))
    scores = []
    for index, name in enumerate(classes):
        if index == 0:
            continue
        true_positive = int(counts[index, index])
        in_reference = int(counts[index, :].sum())
        in_prediction = int(counts[:, index].sum())
        values = {
            "dice": _ratio(2 * true_positive, in_reference + in_prediction),
            "precision": _ratio(true_positive, in_prediction),
            "recall": _ratio(true_positive, in_reference),
        }
        if spacing_mm is not None:
            voxel_ml = math.prod(spacing_mm) / 1000
            values |= _of_masks(
                reference[boxes[index]] == index, prediction[boxes[index]] == index, spacing_mm, tolerance_mm
            )
            values["volume_difference"] = abs(in_prediction - in_reference) * voxel_ml
            values["reference_volume"] = in_reference * voxel_ml
        for metric in METRICS:
            if metric in values:
                undefined = math.isnan(values[metric])
                scores.append(Score(name, metric, values[metric], "undefined" if undefined else "ok"))
    return scores


def _of_masks(reference: Mask, prediction: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> dict[str, float]:
    lesions = match_lesions(reference, prediction)
    values = {
        "lesion_recall": _ratio(lesions.detected, lesions.in_reference),
        "lesion_precision": _ratio(lesions.matching, lesions.in_prediction),
    }
    if lesions.in_reference and lesions.in_prediction:
        distances = surface_distances(reference, prediction, spacing_mm)
        values["hd95"] = distances.hausdorff(0.95)
        values["assd"] = distances.average()
        values["nsd"] = distances.within(tolerance_mm)
    else:
        values["hd95"] = values["assd"] = math.nan
        values["nsd"] = 0.0 if lesions.in_reference or lesions.in_prediction else math.nan
    return values


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
