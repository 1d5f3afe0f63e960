"""Sums of errors times given factors: 1-p of the voxels of a class and p of the others, or p of all.

Factors may be of the last classes alone; the sums of the others are 0.
Like the pass over the voxels it works in chunks, keeps nothing but its inputs, and computes p again for the gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.plain import CPU_CHUNK, DEVICE_CHUNK, empty_gradient, total_type, working_type

_BUFFERS = 6  # numbers for each voxel and class that a chunk holds at once, about


def sums(logits: Tensor, factors: Tensor, members: Tensor | None, activation: str) -> Tensor:
    """Return Σ factor·error, (B, C); `members` are the voxels of each class; None: p of all."""
    total = torch.zeros(logits.shape[:2], dtype=total_type(logits), device=logits.device)
    for b, _, x, factor, own in _chunks(logits, factors, members):
        total[b, -len(factor) :] += _errors(x, own, activation)[-len(factor) :].mul_(factor).sum(1)
    return total


def gradient(upstream: Tensor, logits: Tensor, factors: Tensor, members: Tensor | None, activation: str) -> Tensor:
    """Return d(Σ upstream·sums)/d(logits) for `upstream` (B, C)."""
    result = empty_gradient(logits)
    flat = result.view(*logits.shape[:2], -1) if logits.numel() else result.flatten(2)
    above = upstream.to(working_type(logits))
    for b, span, x, factor, own in _chunks(logits, factors, members):
        first = len(x) - len(factor)
        slope = factor * above[b, first:, None]
        if own is not None:
            slope = torch.where(own, -slope, slope)
        p = torch.sigmoid(x) if activation == "sigmoid" else torch.softmax(x, 0)
        if activation == "sigmoid":
            flat[b, :first, span] = 0
            flat[b, first:, span] = slope.mul_(p[first:]).mul_(torch.sigmoid(-x[first:]))
        else:
            slope.mul_(p[first:])
            mean = slope.sum(0)
            flat[b, :, span] = p.mul_(mean).neg_()
            flat[b, first:, span] += slope
    return result


def composite(logits: Tensor, factors: Tensor, members: Tensor | None, activation: str) -> Tensor:
    """Return the same as `sums`, in operations that torch differentiates by itself."""
    x = logits.to(working_type(logits)).flatten(2).movedim(1, 0)
    own = None if members is None else members.flatten(2).movedim(1, 0)
    factors = factors.flatten(2).movedim(1, 0)
    products = _errors(x, own, activation)[-len(factors) :] * factors
    total = products.sum(2, dtype=total_type(logits)).T
    return torch.cat([total.new_zeros(len(total), len(x) - len(factors)), total], 1)


def composite_gradient(
    upstream: Tensor, logits: Tensor, factors: Tensor, members: Tensor | None, activation: str
) -> Tensor:
    """Return the same as `gradient`, differentiable with respect to `upstream` and `logits`."""

    def total(logits: Tensor) -> Tensor:
        return (upstream * composite(logits, factors, members, activation)).sum()

    result: Tensor = torch.func.grad(total)(logits)
    return result


def _errors(x: Tensor, members: Tensor | None, activation: str) -> Tensor:
    """The errors of logits (C, ...), exact where they are small."""
    if activation == "sigmoid":
        return torch.sigmoid(x if members is None else torch.where(members, -x, x))
    if members is None:
        return torch.softmax(x, 0)
    if len(x) == 2:
        p = torch.softmax(x, 0)
        return torch.where(members, p.flip(0), p)
    log_p = torch.log_softmax(x, 0)
    return torch.where(members, -torch.expm1(log_p), log_p.exp())


def _chunks(
    logits: Tensor, factors: Tensor, members: Tensor | None
) -> Iterator[tuple[int, slice, Tensor, Tensor, Tensor | None]]:
    """Pieces of one sample each: its number, its span of voxels, logits, factors and members (C, n)."""
    flat, flat_factors = logits.flatten(2), factors.flatten(2)
    flat_members = None if members is None else members.flatten(2)
    batch, classes, voxels = flat.shape
    kind = working_type(logits)
    room = CPU_CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK
    size = max(1, min(voxels, room // (_BUFFERS * classes)))
    for b in range(batch):
        for start in range(0, voxels, size):
            span = slice(start, start + size)
            own = None if flat_members is None else flat_members[b, :, span]
            yield b, span, flat[b, :, span].to(kind), flat_factors[b, :, span].to(kind), own
