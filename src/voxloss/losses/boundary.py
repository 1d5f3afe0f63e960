"""Losses of distances to the border of a structure."""

from voxloss.losses.conventions import KERVADEC
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import OptionalSwitch, Reduction, Spacing
from voxloss.losses.terms import Boundary
from voxloss.losses.voxel_pass.further.passes import DistancePass


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

    @property
    def _background(self) -> bool:
        """Whether channel 0 has a map."""
        return self.activation == "sigmoid" if self.include_background is None else self.include_background

    def terms(self) -> Boundary:
        if isinstance(self.class_weight, str):
            raise ValueError(f"class_weight must be numbers in the boundary loss, received {self.class_weight!r}")
        return Boundary(
            DistancePass(self.spacing, self._background),  # type: ignore[arg-type]  # stored as a tuple
            1.0,
            self.include_background,
            self.class_reduction,
            self.absent_class,
            self.ignored_samples,
            self.class_weight,  # type: ignore[arg-type]  # stored as a tuple
        )
