"""Losses of distances to the border of a structure."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from voxloss.losses.conventions import KARIMI, KERVADEC
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import OptionalSwitch, Positive, Reduction, Spacing
from voxloss.losses.terms import Boundary, Hausdorff
from voxloss.losses.voxel_pass.further.passes import DistancePass, HausdorffPass


class BoundaryLoss(Loss):
    """Boundary loss.

        mean_{c>0} (1/N)·Σ_v φ_c·p_c

    Linear in p: false positives cost their distance to the structure, and missed voxels their depth in it. It is
    negative where the prediction is good. Alone it may end in an empty prediction: it is meant beside a region term, as
    a part of `Compound`, where its weight can follow a schedule.

    Where:
        φ_c: signed distance of the voxel to the border of class c: above 0 outside, below 0 inside, 0 in voxels at the
            border and everywhere where the labels do not have the class; see `distance_maps`
        Σ_v: sum over the counted voxels of a sample
        N: number of these voxels
        mean_{c>0}: mean over the foreground classes (see `include_background`); the mean over the samples follows

    Args:
        spacing: Of the voxels along each axis, in mm, for distances that the loss measures itself. None counts voxels.

    Example:
        >>> loss = voxloss.BoundaryLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.2845
    """

    spacing: Spacing = None
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"

    source = KERVADEC
    equations = "its L_B and released code"
    value_range = "(-∞, ∞)"
    conventions = (
        "The paper prints a sum over the voxels. The mean over voxels and classes is that of the released code; with "
        "it the loss does not grow with the patch.",
        "The released code takes 1 off the distances inside, whatever the spacing; here it is the smallest spacing. "
        "They are the same for a spacing of 1 along each axis.",
        "A class that a sample does not have costs 0 there, as in the released code, since the other classes have the "
        'voxel. absent_class="skip" leaves it out of the mean too. A class that fills the sample also costs 0: there '
        "is no border in it.",
        "Distances are those in the patch: a border outside of it is not seen. They can also be cut from maps of the "
        "whole volume.",
        "The schedules of the released code: the weight grows by 0.01 in every epoch from 0.01 on, over E epochs "
        "`LinearSchedule(0.01, 0.01 + 0.01·E, E)`, while that of the region term stays 1 or falls, `LinearSchedule(1, "
        "0.1, 90)`; or the weight is a constant 0.1.",
    )

    def terms(self) -> Boundary:
        _refuse_volumes(self)
        spacing: Any = self.spacing  # stored as a tuple
        distances = DistancePass(spacing, self.includes_background())
        return Boundary(distances=distances, **self.of_classes())


class HausdorffLoss(Loss):
    """Hausdorff loss by distance transform.

        mean_{c>0} (1/N)·Σ_v (p_c - t_c)²·(d_t^α + d_p^α)

    Every error counts by its distance to the border of the structure and to that of the prediction: false positives and
    missed voxels far from a border cost most, those at it least. Alone it may end in an empty prediction: it is meant
    beside a region term, as a part of `Compound`.

    Where:
        d_t: distance of the voxel to the nearest voxel on the other side of the border of class c in the labels
        d_p: the same in the prediction, where p_c is above 1/2; without a gradient
        Σ_v: sum over the counted voxels of a sample
        N: number of these voxels
        t_c: 1 where the label is c, else 0; with soft targets 1 where the target is 1/2 or more
        mean_{c>0}: mean over the foreground classes (see `include_background`); the mean over the samples follows

    Args:
        alpha: α, the exponent of the distances. A larger one makes the farthest errors cost more.
        spacing: Of the voxels along each axis, in mm. None counts voxels.

    Example:
        >>> loss = voxloss.HausdorffLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.2222
    """

    alpha: Positive = 2.0
    spacing: Spacing = None
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"

    source = KARIMI
    equations = "Loss_DT, its Eq. 8"
    value_range = "[0, ∞)"
    conventions = (
        "The paper has one structure. For several classes each is taken against the rest, as in MONAI.",
        "Where labels or prediction have no voxel of a class in a sample, or nothing else, their distances are 0.",
        "Both distances are measured in every step, with torch alone and on the device, which takes twice the time of "
        "`distance_maps`. `distances=` at the call has no use here.",
        "The other losses of the paper, by erosion and by convolution, are approximations of this one and left out.",
    )

    def terms(self) -> Hausdorff:
        _refuse_volumes(self)
        spacing: Any = self.spacing  # stored as a tuple
        distances = HausdorffPass(self.alpha, spacing, self.includes_background())
        return Hausdorff(distances=distances, **self.of_classes())


def set_spacing(module: nn.Module, spacing: Sequence[float]) -> None:
    """Set the spacing of every loss of distances within a module that has none yet."""
    for part in module.modules():
        if isinstance(part, BoundaryLoss | HausdorffLoss) and part.spacing is None:
            part.spacing = tuple(spacing)


def _refuse_volumes(loss: BoundaryLoss | HausdorffLoss) -> None:
    if isinstance(loss.class_weight, str):
        raise ValueError(f"class_weight must be numbers in a loss of distances, received {loss.class_weight!r}")
