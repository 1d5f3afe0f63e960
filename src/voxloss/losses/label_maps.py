"""The maps of the labels that a loss needs, made in a loader and not in every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from voxloss.losses.loss import Loss
from voxloss.losses.voxel_pass.further.distances import measure_labels, quick_measure
from voxloss.losses.voxel_pass.further.passes import DistancePass
from voxloss.losses.voxel_pass.lesions.maps import lesion_regions
from voxloss.losses.voxel_pass.skeletons import skeleton_tubes


@dataclass(frozen=True)
class LabelMaps:
    """Make all the maps of the labels that a loss needs, whichever these are.

        maps = voxloss.LabelMaps.of(loss, classes=3)
        loss(logits, labels, **maps(labels))

    It belongs in the loader, after all that moves or cuts voxels; a loss makes what it is not given in every step.
    `voxloss.transforms` has a transform for each of the maps.

    Args:
        classes: C, the channels of the network's output.
        activation: That of the loss.
        ignore_index: That of the loss.
        ignore_scope: That of the loss.
        lesions: Whether the loss needs the regions of the lesions.
        distances: Whether it needs the signed distances to the borders.
        skeletons: Whether it needs the tubes around the skeletons.
        spacing: That with which it measures distances.
        background: Whether it needs the distances to the border of class 0 under "softmax" too.
    """

    classes: int
    activation: str = "softmax"
    ignore_index: int | None = None
    ignore_scope: str = "voxel"
    lesions: bool = False
    distances: bool = False
    skeletons: bool = False
    spacing: Sequence[float] | None = None
    background: bool = False

    @classmethod
    def of(cls, loss: Loss, classes: int) -> Self:
        """Return the maps that a loss needs, as its parameters are now.

        Where parts of a `Compound` measure distances with several spacings, each goes on measuring its own in every
        step, as a call takes one map.
        """
        formula, reading = loss.formula, loss.reading
        measured = [one for one in formula.further if isinstance(one, DistancePass)]
        spacings = list(dict.fromkeys(one.spacing for one in measured))
        return cls(
            classes,
            reading["activation"],
            reading["ignore_index"],
            reading["ignore_scope"],
            formula.lesions,
            len(spacings) == 1,
            formula.tubes,
            spacings[0] if len(spacings) == 1 else None,
            any(one.background for one in measured),
        )

    def __call__(self, labels: Tensor, *, multi_hot: bool = False) -> dict[str, Tensor]:
        """Return the maps of labels, by the names that the call of a loss has for them.

        Args:
            labels: (B, *spatial) or (B, 1, *spatial), whole numbers.
            multi_hot: Whether they are multi-hot or soft targets (B, C, *spatial) instead; with "sigmoid" each class
                then has tubes of its own, (B, C, *spatial).
        """
        reading: dict[str, Any] = {
            "activation": self.activation,
            "ignore_index": self.ignore_index,
            "ignore_scope": self.ignore_scope,
            "multi_hot": multi_hot,
        }
        maps: dict[str, Tensor] = {}
        if self.lesions:
            maps["regions"] = lesion_regions(labels, self.classes, **reading)
        if self.distances:
            maps["distances"] = measure_labels(
                labels, self.classes, quick_measure(), self.spacing, background=self.background, **reading
            )
        if self.skeletons:
            maps["skeletons"] = skeleton_tubes(labels, self.classes, **reading)
        return maps
