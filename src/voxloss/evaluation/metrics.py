"""Dice, precision and recall of one case on its original voxel grid."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from voxloss.errors import InputError

METRICS = ("dice", "precision", "recall")

Status = Literal["ok", "undefined", "failed"]

# Voxels looked at in one step: bincount widens its input to 8 bytes a voxel, so that a volume of 278 million voxels
# would need 2.2 GB at once and needs 8 MB this way.
SLAB_VOXELS = 1 << 20


class Score(NamedTuple):
    """One value of the long table, before it is known which loss, fold and case it belongs to."""

    class_name: str
    metric: str
    value: float
    status: Status


def confusion_counts(reference: np.ndarray, prediction: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Count the voxels of every pair (reference class, predicted class).

    Args:
        reference: class indices, of any shape and memory order and any integer type or bool; may be memory-mapped.
        prediction: likewise, on the same grid.
        classes: the name of every class index, background first.

    Returns:
        int64 array (n_classes, n_classes): rows are reference classes, columns are predicted ones.

    Raises:
        InputError: the shapes disagree, an array holds something other than integers, or a value is no class index.
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


def _check_values(slab: np.ndarray, role: str, classes: Sequence[str]) -> None:
    for value in (int(slab.min()), int(slab.max())):
        if not 0 <= value < len(classes):
            names = ", ".join(classes)
            raise InputError(
                f"the {role} holds the value {value}, but the classes are 0 to {len(classes) - 1}: {names}"
            )


def case_scores(reference: np.ndarray, prediction: np.ndarray, classes: Sequence[str]) -> list[Score]:
    """Score every foreground class of one case, from one joint histogram.

    With TP, FP, FN the voxels of a class that are rightly found, wrongly found and missed:

        dice      = 2 TP / (2 TP + FP + FN)    (Eq. 8)
        precision = TP / (TP + FP)             (Eq. 26)
        recall    = TP / (TP + FN)             (Eq. 25)

    A formula that is 0/0 gives NaN with status "undefined", never 0 or 1:

        | class is in            | dice      | precision | recall    |
        |------------------------|-----------|-----------|-----------|
        | both                   | formula   | formula   | formula   |
        | the reference only     | 0         | undefined | 0         |
        | the prediction only    | 0         | 0         | undefined |
        | neither                | undefined | undefined | undefined |

    Args:
        reference: class indices on the original grid, any integer type.
        prediction: class indices on the same grid.
        classes: the name of every class index; the first, the background, is not scored.

    Returns:
        One score per foreground class and metric, in the order of `classes` and `METRICS`.

    Raises:
        InputError: see `confusion_counts`.

    Source: Yeung et al. 2021 (arXiv 2102.04525v1), section III.E.
    """
    counts = confusion_counts(reference, prediction, classes)
    scores = []
    for index, name in enumerate(classes):
        if index == 0:
            continue
        true_positive = int(counts[index, index])
        in_reference = int(counts[index, :].sum())
        in_prediction = int(counts[:, index].sum())
        scores += [
            _ratio(name, "dice", 2 * true_positive, in_reference + in_prediction),
            _ratio(name, "precision", true_positive, in_prediction),
            _ratio(name, "recall", true_positive, in_reference),
        ]
    return scores


def _ratio(class_name: str, metric: str, numerator: int, denominator: int) -> Score:
    if denominator == 0:
        return Score(class_name, metric, float("nan"), "undefined")
    return Score(class_name, metric, numerator / denominator, "ok")
