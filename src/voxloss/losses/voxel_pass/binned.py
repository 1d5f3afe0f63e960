"""Sums over the voxels whose p lies in each of equal bins, (k/bins, (k+1)/bins]: of p-t, and their number.

Like the pass over the voxels it works in chunks, keeps nothing but its inputs, and computes p again for the gradient.
The number of a bin has no gradient. Rows of sums (B, 2·bins, C) are those of p-t of all bins, then the numbers, both
with the voxel weight. The pass in C adds them up beside its own sums; beside the others this is a second pass.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.plain import CPU_CHUNK, DEVICE_CHUNK, empty_gradient, total_type, working_type
from voxloss.losses.voxel_pass.reading import TargetReading, probabilities
from voxloss.losses.voxel_pass.scatter import add_by_index

_BUFFERS = 10  # numbers for each voxel and class that a chunk holds at once, about


def sums(logits: Tensor, target: Tensor, weight: Tensor | None, bins: int, how: TargetReading) -> Tensor:
    """Return the sums."""
    shape = (logits.shape[0], 2 * bins, logits.shape[1])
    totals = torch.zeros(shape, dtype=total_type(logits), device=logits.device)
    for chunk in _chunks(logits, target, weight, bins, how):
        totals[chunk.sample] += _by_bin(chunk, bins, totals.dtype)
    return totals


def gradient(
    upstream: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, bins: int, how: TargetReading
) -> Tensor:
    """Return d(Σ upstream·sums)/d(logits); `upstream` of the numbers has no effect."""
    result = empty_gradient(logits)
    flat = result.view(*logits.shape[:2], math.prod(logits.shape[2:]))
    slopes = upstream[:, :bins].movedim(1, 2).to(working_type(logits))
    for chunk in _chunks(logits, target, weight, bins, how):
        slope = slopes[chunk.sample].gather(2, chunk.place)[0]
        if chunk.factor is not None:
            slope = slope * chunk.factor[0]
        p = chunk.p[0]
        slope *= p
        out = flat[chunk.sample.start, :, chunk.span]
        if how.activation == "sigmoid":
            out[:] = slope * chunk.q[0]
        else:
            out[:] = slope.addcmul_(p, slope.sum(0), value=-1)
    return result


def composite(logits: Tensor, target: Tensor, weight: Tensor | None, bins: int, how: TargetReading) -> Tensor:
    """Return the same as `sums`, in operations that torch differentiates by itself."""
    flat = None if weight is None else weight.flatten(1)
    chunk = _read(logits.flatten(2), target.flatten(2 if how.dense else 1), flat, bins, how)
    return _by_bin(chunk, bins, total_type(logits))


@dataclass(frozen=True)
class _Chunk:
    """A piece of one sample, or whole tensors: p, 1-p, t and the number of the bin, (B, C, n).

    `factor` (B, 1 or C, n) is the weight, and 0 where a voxel does not count; None: 1.
    """

    p: Tensor
    q: Tensor
    t: Tensor
    place: Tensor
    factor: Tensor | None
    sample: slice
    span: slice


def _by_bin(chunk: _Chunk, bins: int, kind: torch.dtype) -> Tensor:
    """The sums of a chunk."""
    batch, classes = chunk.p.shape[:2]
    starts = torch.arange(batch * classes, device=chunk.p.device) * bins
    index = (chunk.place + starts.view(batch, classes, 1)).flatten()
    factor = chunk.factor
    number = torch.ones_like(chunk.p) if factor is None else factor.expand_as(chunk.p)
    # The difference keeps its digits where p is close to 1.
    rows = [(chunk.p * (1 - chunk.t) - chunk.q * chunk.t) * number, number]
    found = torch.stack([add_by_index(row.flatten(), index, batch * classes * bins, kind) for row in rows])
    return found.view(2, batch, classes, bins).permute(1, 0, 3, 2).reshape(batch, 2 * bins, classes)


def _chunks(logits: Tensor, target: Tensor, weight: Tensor | None, bins: int, how: TargetReading) -> Iterator[_Chunk]:
    """Pieces of one sample each."""
    flat, flat_target = logits.flatten(2), target.flatten(2 if how.dense else 1)
    flat_weight = None if weight is None else weight.flatten(1)
    batch, classes, voxels = flat.shape
    room = CPU_CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK
    size = max(1, min(voxels, room // (_BUFFERS * classes)))
    for b in range(batch):
        sample = slice(b, b + 1)
        for start in range(0, voxels, size):
            span = slice(start, start + size)
            own = None if flat_weight is None else flat_weight[sample, span]
            yield _read(flat[sample, :, span], flat_target[sample, ..., span], own, bins, how, sample, span)


def _read(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    bins: int,
    how: TargetReading,
    sample: slice = slice(None),
    span: slice = slice(None),
) -> _Chunk:
    p, q, t, counted = probabilities(logits, target, how, 0)
    factor = None if counted is None else counted.to(p.dtype)
    if weight is not None:
        factor = weight[:, None].to(p.dtype)
        factor = factor if counted is None else torch.where(counted, factor, 0)
    place = (p.detach() * bins).ceil().to(torch.int64).sub(1).clamp(0, bins - 1)
    return _Chunk(p, q, t, place, factor, sample, span)
