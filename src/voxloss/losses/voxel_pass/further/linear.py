"""Sums of probabilities times given factors.

Factors may be of the last classes alone; the sums of the others are 0.
Like the pass over the voxels it works in chunks, keeps nothing but its inputs, and computes p again for the gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import compiled
from voxloss.losses.voxel_pass.plain import CPU_CHUNK, DEVICE_CHUNK, empty_gradient, total_type, working_type

_BUFFERS = 6  # numbers for each voxel and class that a chunk holds at once, about


def sums(logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    """Return Σ factor·p, (B, C)."""
    total = torch.zeros(logits.shape[:2], dtype=total_type(logits), device=logits.device)
    for b, _, x, factor in _chunks(logits, factors):
        total[b, -len(factor) :] += _probabilities(x, activation)[-len(factor) :].mul_(factor).sum(1)
    return total


def gradient(upstream: Tensor, logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    """Return d(Σ upstream·sums)/d(logits) for `upstream` (B, C)."""
    if activation == "softmax" and compiled.takes_shares(logits, factors):
        return compiled.gradient_of_shares(upstream, logits, factors)
    result = empty_gradient(logits)
    flat = result.view(*logits.shape[:2], -1) if logits.numel() else result.flatten(2)
    above = upstream.to(working_type(logits))
    for b, span, x, factor in _chunks(logits, factors):
        first = len(x) - len(factor)
        slope = factor * above[b, first:, None]
        p = _probabilities(x, activation)
        if activation == "sigmoid":
            flat[b, :first, span] = 0
            flat[b, first:, span] = slope.mul_(p[first:]).mul_(torch.sigmoid(-x[first:]))
        else:
            slope.mul_(p[first:])
            mean = slope.sum(0)
            flat[b, :, span] = p.mul_(mean).neg_()
            flat[b, first:, span] += slope
    return result


def composite(logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    """Return the same as `sums`, in operations that torch differentiates by itself."""
    x = logits.to(working_type(logits)).flatten(2).movedim(1, 0)
    factors = factors.flatten(2).movedim(1, 0)
    products = _probabilities(x, activation)[-len(factors) :] * factors
    total = products.sum(2, dtype=total_type(logits)).T
    return torch.cat([total.new_zeros(len(total), len(x) - len(factors)), total], 1)


def composite_gradient(upstream: Tensor, logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    """Return the same as `gradient`, differentiable with respect to `upstream` and `logits`."""

    def total(logits: Tensor) -> Tensor:
        return (upstream * composite(logits, factors, activation)).sum()

    result: Tensor = torch.func.grad(total)(logits)
    return result


def _probabilities(x: Tensor, activation: str) -> Tensor:
    """P of logits (C, ...)."""
    return torch.sigmoid(x) if activation == "sigmoid" else torch.softmax(x, 0)


def _chunks(logits: Tensor, factors: Tensor) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """Pieces of one sample each: its number, its span of voxels, logits and factors (C, n)."""
    flat, flat_factors = logits.flatten(2), factors.flatten(2)
    batch, classes, voxels = flat.shape
    kind = working_type(logits)
    room = CPU_CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK
    size = max(1, min(voxels, room // (_BUFFERS * classes)))
    for b in range(batch):
        for start in range(0, voxels, size):
            span = slice(start, start + size)
            yield b, span, flat[b, :, span].to(kind), flat_factors[b, :, span].to(kind)
