"""Sums over the voxels that the pass does not have: a class for each kind, which a formula asks for.

They are added up over samples, and over the ranks of torch.distributed, like those of the pass.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, max_pool1d, max_pool2d, max_pool3d, relu

from voxloss.losses.voxel_pass.plain import total_type, working_type
from voxloss.losses.voxel_pass.targets import Target, counted


@dataclass(frozen=True)
class Volume:
    """Logits (B, C, *spatial), their target, and the weights of the voxels, as the pass reads them."""

    logits: Tensor
    target: Target
    weight: Tensor | None
    activation: str
    ignore_index: int | None
    apart: bool  # whether an ignored value takes its voxel out of its own channel alone

    def read(self, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return p, 1-p and t of the channels from `first` on, (B, C - first, *spatial), and which voxels count.

        What is in voxels that do not count, NaN too, does not get out: t is 0 there. None: all count.
        """
        x, values = self.logits.to(working_type(self.logits)), self.target.values
        classes = x.shape[1]
        counts = counted(self.target, self.ignore_index, self.apart)
        if self.target.dense:
            t = values
        else:
            labels = values.to(torch.int64).unsqueeze(1)
            shape = (-1, *(1,) * (x.ndim - 2))
            t = labels == torch.arange(classes, device=x.device).view(shape)
            inside = (labels >= 0) & (labels < classes)  # a label that is not checked counts as ignored
            counts = inside if counts is None else counts & inside
        if counts is not None:
            x, t = torch.where(counts, x, 0), torch.where(counts, t, 0)
        log_p = logsigmoid(x) if self.activation == "sigmoid" else torch.log_softmax(x, 1)
        p = log_p[:, first:].exp()
        q = torch.sigmoid(-x[:, first:]) if self.activation == "sigmoid" else -torch.expm1(log_p[:, first:])
        if counts is not None and counts.shape[1] > 1:
            counts = counts[:, first:]
        return p, q, t[:, first:].to(p.dtype), counts

    def factor(self, counts: Tensor | None, like: Tensor) -> Tensor | None:
        """Return what multiplies every voxel's part of a sum: its weight, and 0 where it does not count; None: 1."""
        if self.weight is None:
            return None if counts is None else counts.to(like.dtype)
        weight = self.weight.unsqueeze(1).to(like.dtype)
        return weight if counts is None else torch.where(counts, weight, 0)


class Further(Protocol):
    """A kind of further sums. Two that are equal are summed once."""

    def __call__(self, volume: Volume, /) -> Tensor:
        """Return the sums (B, R, C), differentiable, float64 where there is."""


@dataclass(frozen=True)
class CentreLines:
    """Sums over soft skeletons: Σ S(p)·t, Σ S(p)·(1-t), Σ S(t)·p and Σ S(t)·(1-p), S as in `soft_skeleton`.

    Those of the channels before `first` are 0.
    """

    iterations: int
    first: int

    def __call__(self, volume: Volume, /) -> Tensor:
        """Return the sums (B, 4, C)."""
        p, q, t, counts = volume.read(self.first)
        with torch.no_grad():
            of_target = soft_skeleton(t, counts, self.iterations)
        of_prediction = soft_skeleton(p, counts, self.iterations)
        factor = volume.factor(counts, p)
        if factor is not None:
            of_target, of_prediction = of_target * factor, of_prediction * factor
        parts = (of_prediction * t, of_prediction * (1 - t), of_target * p, of_target * q)
        kind = total_type(volume.logits)
        sums = torch.stack([part.flatten(2).sum(2, dtype=kind) for part in parts], 1)
        return _with_first(sums, self.first)


@dataclass(frozen=True)
class Bins:
    """Sums over the voxels whose p lies in each of equal bins, (k/bins, (k+1)/bins]: Σ (p-t) of all bins, then Σ 1.

    Those of the channels before `first` are 0. The place of a p has no gradient.
    """

    bins: int
    first: int

    def __call__(self, volume: Volume, /) -> Tensor:
        """Return the sums (B, 2·bins, C)."""
        p, q, t, counts = volume.read(self.first)
        batch, classes = p.shape[:2]
        place = (p.detach() * self.bins).ceil().to(torch.int64).sub(1).clamp(0, self.bins - 1)
        starts = torch.arange(batch * classes, device=p.device) * self.bins
        index = (place + starts.view(batch, classes, *(1,) * (p.ndim - 2))).flatten()
        factor = volume.factor(counts, p)
        number = torch.ones_like(p) if factor is None else factor.expand_as(p)
        rows = [(p * (1 - t) - q * t) * number, number]  # the difference keeps its digits where p is close to 1
        empty = torch.zeros(batch * classes * self.bins, dtype=total_type(volume.logits), device=p.device)
        sums = torch.stack([empty.scatter_add(0, index, row.flatten().to(empty.dtype)) for row in rows])
        sums = sums.view(2, batch, classes, self.bins).permute(1, 0, 3, 2).reshape(batch, 2 * self.bins, classes)
        return _with_first(sums, self.first)


def _with_first(sums: Tensor, first: int) -> Tensor:
    """Put zeros before the sums for the channels that they are not of."""
    return torch.cat([sums.new_zeros(*sums.shape[:2], first), sums], 2) if first else sums


def soft_skeleton(values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the soft skeleton of values (B, C, *spatial) in [0, 1], by Shit et al.'s algorithm 1.

    What an opening (a minimum over each voxel and its neighbours by faces, and then a maximum over its neighbours by
    corners) takes off the values, and off their minima, `iterations` times. Voxels that do not count are as beyond the
    border: neither a minimum nor a maximum sees them.
    """
    outside = None if counts is None else ~counts
    skeleton = None
    for _ in range(iterations + 1):
        eroded = _minimum(values if outside is None else values.masked_fill(outside, 1))
        opened = _maximum(eroded if outside is None else eroded.masked_fill(outside, 0))
        difference = relu(values - opened)
        skeleton = difference if skeleton is None else skeleton + relu(difference - skeleton * difference)
        values = eroded
    assert skeleton is not None
    return skeleton


_POOLS = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


def _minimum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    least, negative = None, -values
    for axis in range(axes):
        size = tuple(3 if other == axis else 1 for other in range(axes))
        found = -_POOLS[axes](negative, size, 1, tuple(length // 2 for length in size))
        least = found if least is None else torch.minimum(least, found)
    assert least is not None
    return least


def _maximum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    largest: Tensor = _POOLS[axes](values, (3,) * axes, 1, (1,) * axes)
    return largest
