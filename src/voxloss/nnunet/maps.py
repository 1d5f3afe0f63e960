"""Maps of the labels in nnU-Net: made in its loaders, and taken through its training as further channels of the target.

nnU-Net's loaders return images and targets alone, and resize targets to the outputs of deep supervision by nearest
neighbour, as the maps need it too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxloss.losses import LabelMaps, Loss

# Marks ignored voxels in multi-hot targets, whose own values are 0 and 1.
IGNORED = -1


@dataclass(frozen=True)
class TargetMaps:
    """The maps that a loss needs, as further channels of nnU-Net's target.

    Args:
        maps: Which they are; they read the labels as the loss does.
        regions: Whether the labels are regions, each with a sigmoid; the target then has a channel for each.
        ignored: With regions, whether the last channel of the target marks voxels that do not count.
    """

    maps: LabelMaps
    regions: bool
    ignored: bool

    @classmethod
    def of(cls, loss: Loss, classes: int, regions: bool, ignored: bool) -> "TargetMaps | None":
        """Return the maps that a loss needs; None if it needs none."""
        found = cls(LabelMaps.of(loss, classes), regions, ignored)
        return found if found.widths else None

    @property
    def channels(self) -> int:
        """The channels of nnU-Net's own target."""
        return self.maps.classes + self.ignored if self.regions else 1

    @property
    def widths(self) -> dict[str, int]:
        """The number of channels of each map by its name, in the order in which they follow."""
        maps = self.maps
        structures = maps.classes - (not self.regions)
        widths = {
            "regions": structures if maps.lesions else 0,
            "distances": (maps.classes if maps.background else structures) if maps.distances else 0,
            "skeletons": (maps.classes if self.regions else 1) if maps.skeletons else 0,
        }
        return {name: width for name, width in widths.items() if width}

    def add(self, target: Tensor) -> Tensor:
        """Return a target (C, *spatial) of one sample with the maps as further channels."""
        labels = ignored_in_all(target[None]) if self.regions and self.ignored else target[None]
        found = self.maps(labels, multi_hot=self.regions)
        parts = [target, *(found[name].view(-1, *target.shape[1:]) for name in self.widths)]
        # One type whatever the sample: the loader puts the samples of a batch into memory of the first one's.
        kind = torch.float32 if self.maps.distances else torch.int32
        return torch.cat([part.to(kind) for part in parts])

    def split(self, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return nnU-Net's own target of a batch, and the maps by the names that a loss takes, if it has them."""
        if target.shape[1] == self.channels:  # in validation
            return target, {}
        own, *maps = target.split([self.channels, *self.widths.values()], 1)
        given = dict(zip(self.widths, maps, strict=True))
        return own.int(), {name: each if name == "distances" else each.int() for name, each in given.items()}


class WithMaps(nn.Module):
    """A loss with the maps that are further channels of the target, where it has them."""

    def __init__(self, loss: nn.Module, maps: TargetMaps) -> None:
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
