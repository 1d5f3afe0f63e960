"""Maps of the labels that a loss needs, made of each augmented patch by the processes that read ahead."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from voxloss.losses import Loss, lesion_regions
from voxloss.losses.voxel_pass.further.passes import DistancePass
from voxloss.transforms import DistanceMaps


@dataclass(frozen=True)
class LabelMaps:
    """Which maps a loss needs, and how it reads the labels.

    Args:
        classes: Channels of the network's output.
        activation: That of the loss.
        ignore_index: That of the loss.
        lesions: Whether it needs the regions of the lesions.
        distances: How it measures distances; None: not at all.
    """

    classes: int
    activation: str
    ignore_index: int | None
    lesions: bool
    distances: DistancePass | None

    @classmethod
    def of(cls, loss: Loss, classes: int) -> Self | None:
        """Return the maps of a loss; None if it needs none."""
        formula, reading = loss.formula, loss.reading
        passes = [one for one in formula.further if isinstance(one, DistancePass)]
        if not passes and not formula.lesions:
            return None
        several = len({one.spacing for one in passes}) > 1  # each then measures its own
        background = any(one.background for one in passes)
        measured = None if several or not passes else DistancePass(passes[0].spacing, background)
        return cls(classes, reading["activation"], reading["ignore_index"], formula.lesions, measured)

    def __call__(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the maps of labels (B, *spatial) on the CPU, by the name that the call of a loss has for them."""
        reading = {"activation": self.activation, "ignore_index": self.ignore_index}
        maps = {}
        if self.lesions:
            maps["regions"] = lesion_regions(labels, self.classes, **reading)  # type: ignore[arg-type]  # by name
        if self.distances is not None:
            measure = DistanceMaps(
                classes=self.classes,
                spacing=self.distances.spacing,
                activation=self.activation,
                ignore_index=self.ignore_index,
                background=self.distances.background,
            )
            maps["distances"] = torch.stack([measure({"label": label})["distances"] for label in labels])
        return maps
