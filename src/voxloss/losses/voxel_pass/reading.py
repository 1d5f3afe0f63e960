"""Structures and values of voxels as the further passes read them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from voxloss.losses.voxel_pass.plain import working_type
from voxloss.losses.voxel_pass.settings import INSIDE, PassSettings


@dataclass(frozen=True)
class TargetReading:
    """How targets are read.

    Args:
        activation: "softmax" or "sigmoid".
        dense: Whether the target is (B, C, *spatial) in [0, 1]; else it is labels (B, *spatial).
        ignore_index: The label whose voxels do not count.
        apart: Whether an ignored value of a dense target takes its voxel out of its own channel alone.
    """

    activation: str
    dense: bool
    ignore_index: int | None
    apart: bool = False

    @classmethod
    def of(cls, settings: PassSettings, *, apart: bool = False) -> "TargetReading":
        """Return how a pass with these settings reads them."""
        return cls(settings.activation, settings.dense, settings.ignore_index, apart)

    def counted(self, target: Tensor, classes: int) -> Tensor:
        """Return which voxels count, (B, 1, *spatial), or where channels are read apart (B, C, *spatial)."""
        target = _signed(target)
        if not self.dense:
            labels = target[:, None]
            counted = (labels >= 0) & (labels < classes)
            return counted if self.ignore_index is None else counted & (labels != self.ignore_index)
        if self.ignore_index is None:
            return torch.ones_like(target[:, :1], dtype=torch.bool)
        counted = target != self.ignore_index
        return counted if self.apart else counted.all(1, keepdim=True)

    def members(self, target: Tensor, classes: int, first: int = 0) -> Tensor:
        """Return which counted voxels are of each class from `first` on, (B, C - first, *spatial).

        They are those whose target is 1/2 or more.
        """
        target = _signed(target)
        if self.dense:
            counted = self.counted(target, classes)
            return (target[:, first:] >= INSIDE) & (counted if counted.shape[1] == 1 else counted[:, first:])
        shape = (classes - first, *(1,) * (target.ndim - 1))
        own = target[:, None] == torch.arange(first, classes, device=target.device).view(shape)
        return own if self.ignore_index is None else own & (target != self.ignore_index)[:, None]


def _signed(target: Tensor) -> Tensor:
    """Return the target in a type that torch compares."""
    return target.to(torch.int64) if target.dtype in (torch.uint16, torch.uint32, torch.uint64) else target


def errors(logits: Tensor, members: Tensor, activation: str) -> Tensor:
    """Return |1 - p| of members and p of the others, exact where they are small."""
    x = logits.to(working_type(logits))
    if activation == "sigmoid":
        return torch.sigmoid(torch.where(members, -x, x))
    log_p = torch.log_softmax(x, 1)
    return torch.where(members, -torch.expm1(log_p), log_p.exp())


def probabilities(
    logits: Tensor, target: Tensor, how: TargetReading, first: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return p, 1-p and t of the classes from `first` on, (B, C - first, *spatial), and which voxels count (None: all).

    What is in voxels that do not count, NaN too, does not get out: t is 0 there.
    """
    x, classes = logits.to(working_type(logits)), logits.shape[1]
    counted = None if how.dense and how.ignore_index is None else how.counted(target, classes)
    t = _signed(target) if how.dense else how.members(target, classes)
    if counted is not None:
        x, t = torch.where(counted, x, 0), torch.where(counted, t, 0)
    log_p = logsigmoid(x) if how.activation == "sigmoid" else torch.log_softmax(x, 1)
    p = log_p[:, first:].exp()
    q = torch.sigmoid(-x[:, first:]) if how.activation == "sigmoid" else -torch.expm1(log_p[:, first:])
    if counted is not None and counted.shape[1] > 1:
        counted = counted[:, first:]
    return p, q, t[:, first:].to(p.dtype), counted
