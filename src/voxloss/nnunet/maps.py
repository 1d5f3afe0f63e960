"""Maps of the labels in nnU-Net: made in its loaders, and taken through its training as further channels of the target.

nnU-Net's loaders return images and targets alone, and resize targets to the outputs of deep supervision by nearest
neighbour, as the maps need it too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxloss.losses import Loss, lesion_regions, skeleton_tubes

# Marks ignored voxels in multi-hot targets, whose own values are 0 and 1.
IGNORED = -1


@dataclass(frozen=True)
class Maps:
    """Which maps a loss needs, and of what labels.

    Args:
        lesions: Whether it needs `lesion_regions`.
        skeletons: Whether it needs `skeleton_tubes`.
        classes: The channels of the network's output.
        regions: Whether these are regions, each with a sigmoid; the target then has a channel for each.
        ignore_label: Of voxels that do not count; with regions the last channel of the target marks them.
    """

    lesions: bool
    skeletons: bool
    classes: int
    regions: bool
    ignore_label: int | None

    @classmethod
    def of(cls, loss: Loss, classes: int, regions: bool, ignore_label: int | None) -> "Maps | None":
        """Return the maps that a loss needs; None if it needs none."""
        formula = loss.formula
        maps = cls(formula.lesions, formula.tubes, classes, regions, ignore_label)
        return maps if maps.lesions or maps.skeletons else None

    @property
    def channels(self) -> int:
        """The channels of nnU-Net's own target."""
        return self.classes + (self.ignore_label is not None) if self.regions else 1

    def add(self, target: Tensor) -> Tensor:
        """Return a target (C, *spatial) of one sample with the maps as further channels, of whole numbers."""
        reading: dict[str, Any] = {"activation": "sigmoid" if self.regions else "softmax", "multi_hot": self.regions}
        labels, reading["ignore_index"] = target[None], self.ignore_label
        if self.regions and self.ignore_label is not None:
            labels, reading["ignore_index"] = ignored_in_all(labels), IGNORED
        parts = [target]
        if self.lesions:
            parts.append(lesion_regions(labels, self.classes, **reading)[0])
        if self.skeletons:
            parts.append(skeleton_tubes(labels, self.classes, **reading).view(-1, *target.shape[1:]))
        # One type whatever the sample: the loader puts the samples of a batch into memory of the first one's.
        return torch.cat([part.to(torch.int32) for part in parts])

    def split(self, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return nnU-Net's own target of a batch, and the maps by the names that a loss takes; none in validation."""
        own, rest = target[:, : self.channels], target[:, self.channels :]
        if rest.shape[1] == 0:
            return own, {}
        numbers = self.classes - (not self.regions) if self.lesions else 0
        given = {"regions": rest[:, :numbers]} if self.lesions else {}
        return own, given | ({"skeletons": rest[:, numbers:]} if self.skeletons else {})


class WithMaps(nn.Module):
    """A loss with the maps that are further channels of the target, where it has them."""

    def __init__(self, loss: nn.Module, maps: Maps) -> None:
        super().__init__()
        self.loss, self.maps = loss, maps

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss as a scalar."""
        own, given = self.maps.split(target)
        loss: Tensor = self.loss(logits, own, **given)
        return loss

    def extra_repr(self) -> str:
        """Return which maps they are."""
        return repr(self.maps)


def ignored_in_all(target: Tensor) -> Tensor:
    """Return regions (B, C, *spatial) with `IGNORED` where the last channel of a target (B, C + 1, *spatial) is set."""
    return target[:, :-1].to(torch.int8).masked_fill(target[:, -1:] > 0, IGNORED)
