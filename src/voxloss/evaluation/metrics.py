"""Scores of one case on its original voxel grid: overlap, surface distances, volume and lesions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxloss.evaluation.lesion_rules import LesionRules, SizeLimits
from voxloss.evaluation.lesions import ROUNDING, LesionMatch, match_lesions
from voxloss.evaluation.surface import surface_distances
from voxloss.geometry.components import class_boxes
from voxloss.geometry.units import element_size
from voxloss.utilities.arrays import Integers, Labels, Mask
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Metric:
    """Properties of a metric's values.

    Args:
        unit: "" for a share between 0 and 1; else "mm", "ml" (of images mm²) or "lesions" (a number of them), without
            an upper limit. That of a user's own metric may be any.
        worst: The worst possible value, assigned to failed runs: 0 if higher is better, infinite if lower is better.
            None for a measure of the case, which does not depend on the prediction.
        needs_prediction: Whether it is 0/0 for an empty prediction, which then counts as the worst.
        needs_reference: Whether it is 0/0 if the reference is empty, whatever is predicted.
        needs_absence: Whether it is only defined if the reference is empty.
        limits: The least and the largest value of a user's own metric; None: as the unit says.
    """

    unit: str = ""
    worst: float | None = 0.0
    needs_prediction: bool = False
    needs_reference: bool = False
    needs_absence: bool = False
    limits: tuple[float, float] | None = None

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values are better."""
        return self.worst == self.range[0]

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest possible value, which the interval of a mean does not leave either."""
        return self.limits or (0.0, math.inf if self.unit else 1.0)

    @property
    def largest_difference(self) -> float:
        """The largest possible difference of two values."""
        low, high = self.range
        return high - low


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
    "lesion_f1": Metric(),
    "lesion_dice": Metric(),
    "panoptic_quality": Metric(),
    "segmentation_quality": Metric(needs_prediction=True),
    "recognition_quality": Metric(),
    "false_positive_lesions": Metric("lesions", math.inf),
    "false_positive_lesions_negative": Metric("lesions", math.inf, needs_absence=True),
    "case_sensitivity": Metric(needs_reference=True),
    "case_specificity": Metric(needs_absence=True),
    "lesion_recall_small": Metric(needs_reference=True),
    "lesion_recall_middle": Metric(needs_reference=True),
    "lesion_recall_large": Metric(needs_reference=True),
    "reference_volume": Metric("ml", None),
}

# Metrics of the user's own by import path, as the studies that this process opened describe them.
_OWN: dict[str, Metric] = {}


def register_metric(name: str, limits: tuple[float, float], higher_is_better: bool, unit: str) -> None:
    """Make a user's own metric known to tables of scores, by its import path."""
    worst = limits[0] if higher_is_better else limits[1]
    _OWN[name] = Metric(unit, worst, needs_prediction=True, limits=limits)


def metric_of(name: str) -> Metric:
    """Return the properties of a metric. Raises KeyError for an unknown one."""
    return METRICS[name] if name in METRICS else _OWN[name]


def is_metric(name: str) -> bool:
    """Whether a metric is known."""
    return name in METRICS or name in _OWN


# Metrics that need no spacing; without a spacing, only these are computed.
OVERLAP_METRICS = ("dice", "precision", "recall")

# Recall of the lesions of one size; not computed for a class without size limits.
SIZE_METRICS = ("lesion_recall_small", "lesion_recall_middle", "lesion_recall_large")

LESION_METRICS = (
    "lesion_recall", "lesion_precision", "lesion_f1", "lesion_dice",
    "panoptic_quality", "segmentation_quality", "recognition_quality",
    "false_positive_lesions", "false_positive_lesions_negative", "case_sensitivity", "case_specificity",
)  # fmt: skip

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
    lesions: LesionRules | None = None,
    ignore_index: int | None = None,
    matched: Callable[[str, LesionMatch], None] | None = None,
) -> list[Score]:
    """Score every foreground class of one case.

    With TP, FP and FN the numbers of true positive, false positive and missed voxels of a class,

        dice      = 2 TP / (2 TP + FP + FN)    (Eq. 8)
        precision = TP / (TP + FP)             (Eq. 26)
        recall    = TP / (TP + FN)             (Eq. 25)

    and, if a spacing is given, from `surface_distances` (mm), `match_lesions` and the volumes (of images areas, mm²):

        hd95              the larger of the two directed 95 % points of the surface distances, by area
        assd              their average over both surfaces, by area (average symmetric surface distance)
        nsd               the share of both surfaces within tolerance_mm of the other (normalised surface Dice)
        volume_difference |prediction - reference|, ml
        reference_volume  volume of the reference, ml: not a score, but the axis of some figures

    and, with the lesions found and matched by `lesions` (`LesionRules`), TP, FP and FN now being numbers of lesions,

        lesion_recall         lesions of the reference that match a predicted one / lesions of the reference
        lesion_precision      predicted lesions that match one of the reference / predicted lesions
        lesion_f1             their harmonic mean; 0 if nothing matches (higher is better)
        lesion_dice           sum of the Dice coefficients of the reference's lesions, each with the predicted lesions
                              that it matches / (lesions of the reference + false positives) (higher is better)
        segmentation_quality  mean intersection over union of the pairs of the panoptic matching (higher is better)
        recognition_quality   TP / (TP + FP/2 + FN/2) of the panoptic matching (higher is better)
        panoptic_quality      their product, sum of intersections over union / (TP + FP/2 + FN/2) (higher is better)
        false_positive_lesions           predicted lesions that match none of the reference (lower is better)
        false_positive_lesions_negative  the same, of cases without a lesion only (lower is better)
        case_sensitivity      of a case with lesions: 1 if one of them is detected, else 0 (higher is better)
        case_specificity      of a case without: 1 if no lesion is predicted, else 0 (higher is better)
        lesion_recall_small, _middle, _large   lesion_recall of the lesions of this size (`size_limits_ml`)

    A formula that is 0/0, or a distance to nothing, gives NaN with status "undefined", never 0 or 1:

        | class is in                     | both    | the reference only | the prediction only | neither   |
        |---------------------------------|---------|--------------------|---------------------|-----------|
        | dice, nsd                       | formula | 0                  | 0                   | undefined |
        | precision, of lesions           | formula | undefined          | 0                   | undefined |
        | recall, of lesions, by size     | formula | 0                  | undefined           | undefined |
        | hd95, assd                      | formula | undefined          | undefined           | undefined |
        | volume_difference               | formula | formula            | formula             | 0         |
        | lesion_f1, lesion_dice          | formula | 0                  | 0                   | undefined |
        | panoptic_, recognition_quality  | formula | 0                  | 0                   | undefined |
        | segmentation_quality            | formula | undefined          | undefined           | undefined |
        | false_positive_lesions          | formula | 0                  | formula             | 0         |
        | false_positive_lesions_negative | undefined | undefined        | formula             | 0         |
        | case_sensitivity                | formula | 0                  | undefined           | undefined |
        | case_specificity                | undefined | undefined        | 0                   | 1         |

    A volume of one slice has no surface across it: its distances are those in its plane.

    Also undefined: segmentation_quality without a pair, and the recall of a size of which there is no lesion. A case
    whose lesions are all too small to be counted has no lesion, for these scores.

    Args:
        reference: Class indices on the original grid, any integer type.
        prediction: Class indices on the same grid.
        classes: The name of every class index; the first, the background, is not scored.
        spacing_mm: Voxel sizes along the stored axes: three of volumes, two of images, whose lesions are found by the
            keys of areas in `lesions`. None: only `OVERLAP_METRICS`.
        tolerance_mm: Tolerance of the normalised surface Dice.
        lesions: What a lesion is and when two match; None: the defaults, and no recall by size.
        ignore_index: The value in `reference` of voxels that do not count; None: all count. These voxels are background
            in both masks before anything is computed, so that volumes and lesions are those of the counted part, and
            a surface also runs where a structure meets ignored voxels. If no voxel counts, every score is undefined,
            and the volume is 0.
        matched: Called with every class and its lesions, if a spacing is given.

    Returns:
        One score per foreground class and metric, in the order of `classes` and `METRICS`.

    Raises:
        InputError: As `confusion_counts`, or the spacing is not one positive number for each of three axes or two.

    Source: Yeung et al. 2021 (arXiv 2102.04525v1), section III.E; Nikolov et al. 2021 (surface distances); for lesions
    see `match_lesions`.
    """
    nothing_counts = False
    if ignore_index is not None and reference.shape == prediction.shape:
        ignored = reference == ignore_index
        nothing_counts = bool(ignored.all())
        reference, prediction = (np.where(ignored, mask.dtype.type(0), mask) for mask in (reference, prediction))
    counts = confusion_counts(reference, prediction, classes)
    if spacing_mm is not None:
        needed = {2: "an image must be two", 3: "a volume must be three"}.get(reference.ndim)
        if needed is None:
            raise InputError(f"distances and lesions are those of images and volumes, got shape {reference.shape}")
        if len(spacing_mm) != reference.ndim or not all(0 < value < math.inf for value in spacing_mm):
            raise InputError(f"the spacing of {needed} positive numbers, got {tuple(spacing_mm)}")
        boxes = class_boxes([reference, prediction], len(classes))
        across = next((axis for axis in (2, 1, 0) if reference.ndim == 3 and reference.shape[axis] == 1), None)
    rules = lesions or LesionRules()
    if reference.ndim == 2:
        rules = rules.of_areas()
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
            size = element_size(spacing_mm)
            masks = (reference[boxes[index]] == index, prediction[boxes[index]] == index)
            values |= _of_surfaces(*masks, spacing_mm, tolerance_mm, across)
            match = match_lesions(*masks, size, rules)
            if matched is not None:
                matched(name, match.moved([part.start for part in boxes[index]]))
            values |= _of_lesions(match, rules.limits_of(name))
            values["volume_difference"] = abs(in_prediction - in_reference) * size
            values["reference_volume"] = in_reference * size
        if nothing_counts:
            values |= {metric: math.nan for metric in values if METRICS[metric].worst is not None}
        for metric in METRICS:
            if metric in values:
                undefined = math.isnan(values[metric])
                scores.append(Score(name, metric, values[metric], "undefined" if undefined else "ok"))
    return scores


def own_scores(
    reference: Labels,
    prediction: Labels,
    classes: Sequence[str],
    spacing_mm: Sequence[float],
    functions: Mapping[str, Callable[..., Any]],
    ignore_index: int | None = None,
) -> list[Score]:
    """Score every foreground class of one case by metrics of the user's own.

    Args:
        reference: Class indices.
        prediction: Class indices on the same grid.
        classes: The name of every class index, background first.
        spacing_mm: Voxel sizes along the axes.
        functions: Registered metrics (`register_metric`) by name, called as `function(reference, prediction,
            spacing_mm)` with boolean masks of one class; NaN is an undefined score.
        ignore_index: As in `case_scores`: these voxels are background in both masks.

    Raises:
        InputError: A function raises an error, or returns no number or one out of its range.
    """
    if ignore_index is not None:
        ignored = reference == ignore_index
        reference, prediction = (np.where(ignored, mask.dtype.type(0), mask) for mask in (reference, prediction))
    spacing = tuple(map(float, spacing_mm))
    return [
        _own_score(name, function, class_name, reference == index, prediction == index, spacing)
        for index, class_name in enumerate(classes)
        if index > 0
        for name, function in functions.items()
    ]


def _own_score(
    name: str, function: Callable[..., Any], class_name: str, reference: Mask, prediction: Mask, spacing: Any
) -> Score:
    try:
        value = float(function(reference, prediction, spacing))
    except Exception as error:  # of a user's function, which may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"the metric {name} fails on {class_name}: {reason}") from error
    if math.isnan(value):
        return Score(class_name, name, value, "undefined")
    low, high = metric_of(name).range
    if not (low <= value <= high and math.isfinite(value)):
        raise InputError(
            f"the metric {name} is {value:g} on {class_name}, out of its range of {low:g} to {high:g}; set its range, "
            "or let it return NaN where it is undefined"
        )
    return Score(class_name, name, value, "ok")


def _of_surfaces(
    reference: Mask, prediction: Mask, spacing_mm: Sequence[float], tolerance_mm: float, across: int | None
) -> dict[str, float]:
    """Return the scores of surfaces; of a volume of one slice, which lies across an axis, those in its plane."""
    in_reference, in_prediction = bool(reference.any()), bool(prediction.any())
    if in_reference and in_prediction:
        if across is not None:
            reference, prediction = reference.squeeze(across), prediction.squeeze(across)
            spacing_mm = [side for axis, side in enumerate(spacing_mm) if axis != across]
        distances = surface_distances(reference, prediction, spacing_mm)
        return {
            "hd95": distances.hausdorff(0.95), "assd": distances.average(), "nsd": distances.within(tolerance_mm)
        }  # fmt: skip
    nsd = 0.0 if in_reference or in_prediction else math.nan
    return {"hd95": math.nan, "assd": math.nan, "nsd": nsd}


def _of_lesions(match: LesionMatch, limits: SizeLimits | None) -> dict[str, float]:
    lesions, detected, false = len(match.volumes_ml), int(match.detected.sum()), match.false_predictions
    recall = _ratio(detected, lesions)
    precision = _ratio(match.true_predictions, match.true_predictions + false)
    pairs = len(match.panoptic_ious)
    # TP + FP/2 + FN/2, in which FN = lesions - TP
    panoptic = (lesions + pairs + match.panoptic_false_predictions) / 2
    values = {
        "lesion_recall": recall,
        "lesion_precision": precision,
        "lesion_f1": 2 * recall * precision / (recall + precision) if detected else _ratio(0, lesions + false),
        "lesion_dice": _ratio(float(match.dice.sum()), lesions + false),
        "panoptic_quality": _ratio(float(match.panoptic_ious.sum()), panoptic),
        "segmentation_quality": _ratio(float(match.panoptic_ious.sum()), pairs),
        "recognition_quality": _ratio(pairs, panoptic),
        "false_positive_lesions": float(false),
        "false_positive_lesions_negative": math.nan if lesions else float(false),
        "case_sensitivity": float(detected > 0) if lesions else math.nan,
        "case_specificity": math.nan if lesions else float(false == 0),
    }
    if limits is not None:
        small, middle = (match.volumes_ml <= limit * (1 + ROUNDING) for limit in limits)
        for metric, of_size in zip(SIZE_METRICS, (small, middle & ~small, ~middle), strict=True):
            values[metric] = _ratio(int(match.detected[of_size].sum()), int(of_size.sum()))
    return values


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
