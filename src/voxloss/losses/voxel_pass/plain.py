"""The pass over the voxels in plain PyTorch, chunk by chunk, so that intermediate values stay in cache."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import kernels, targets
from voxloss.losses.voxel_pass.settings import PassSettings

# Numbers in the buffers of a chunk: on a CPU, chosen so that a chunk roughly fits in cache and calling the operations
# costs little beside running them (42,504 voxels of three classes, no multiple of a page), on other devices so many
# that starting the kernels costs little.
CPU_CHUNK = 15 * 42_504
SMALLEST_CHUNK = 200_000
DEVICE_CHUNK = 24_000_000


def sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums (B, S, C) in the order of `kernels`, and counted voxels (B,).

    `shares` (K, B, *spatial) are those in which voxels belong to each of `settings.hardest` selections.
    """
    batch, classes = logits.shape[:2]
    # Each chunk's partial sums are in the working type, their total is not.
    totals = logits.new_zeros((batch, settings.rows, classes), dtype=total_type(logits))
    voxels = logits.new_zeros(batch, dtype=total_type(logits))
    for chunk in _chunks(logits, target, weight, shares, settings, check=settings.check):
        totals[chunk.sample] += chunk.kernel.sums(chunk.weight, chunk.exponents, chunk.shares)
        voxels[chunk.sample] += chunk.voxels
        del chunk
    return totals, voxels


def gradient(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    upstream: Tensor,
    settings: PassSettings,
    shares: Tensor | None = None,
) -> Tensor:
    """d(Σ upstream·sums)/d(logits) for `upstream` (B, S, C)."""
    # To the type of the work, not of the logits: a grad scaler's factor is in `upstream`, so that small float16
    # gradients are multiplied before they are rounded.
    upstream = upstream.to(working_type(logits))
    result = empty_gradient(logits)
    flat = result.view(*logits.shape[:2], math.prod(logits.shape[2:]))
    for chunk in _chunks(logits, target, weight, shares, settings, check=False):
        out = flat[chunk.sample, :, chunk.span]
        chunk.kernel.gradient(upstream[chunk.sample], chunk.weight, chunk.exponents, chunk.shares, out)
        del chunk
    return result


def working_type(logits: Tensor) -> torch.dtype:
    """Return the type of computations on voxels: float64 for float64 logits, else float32."""
    return torch.promote_types(logits.dtype, torch.float32)


def total_type(logits: Tensor) -> torch.dtype:
    """Return the type of the sums: float64, except on devices without it (MPS)."""
    return torch.float32 if logits.device.type == "mps" else torch.float64


def empty_gradient(logits: Tensor) -> Tensor:
    """Return memory in the layout of the logits if its voxels can be viewed as one axis, else contiguous memory."""
    gradient = torch.empty_like(logits)
    try:
        gradient.view(*logits.shape[:2], math.prod(logits.shape[2:]))
    except RuntimeError:
        return torch.empty_like(logits, memory_format=torch.contiguous_format)
    return gradient


@dataclass(frozen=True)
class _Chunk:
    sample: int
    span: slice
    kernel: kernels.LabelSoftmax | kernels.Dense
    weight: Tensor | None
    voxels: int | Tensor
    exponents: tuple[kernels.Exponent, ...]
    shares: tuple[Tensor, ...]


def _chunks(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    shares: Tensor | None,
    settings: PassSettings,
    *,
    check: bool,
) -> Iterator[_Chunk]:
    """Pieces of one sample each, in a fixed order; every piece overwrites the buffers of the one before."""
    flat = logits.flatten(2)  # a view wherever the strides allow one
    batch, classes, voxels = flat.shape
    flat_target = target.flatten(2 if settings.dense else 1)
    flat_weight = None if weight is None else weight.flatten(1)
    flat_shares = None if shares is None else shares.flatten(2)
    per_voxel = 3 * classes + kernels.Buffers.ROWS
    numbers = DEVICE_CHUNK
    if logits.device.type == "cpu":  # an eighth of the logits costs a tenth more time than a chunk that fills the cache
        numbers = min(CPU_CHUNK, max(SMALLEST_CHUNK, logits.numel() // 8))
    size = max(1, min(voxels, numbers // per_voxel))
    working = working_type(logits)
    memory = logits.new_empty((per_voxel, size), dtype=working)
    exponents = tuple(
        logits.new_tensor(value, dtype=working) if isinstance(value, tuple) else value for value in settings.exponents
    )
    for sample in range(batch):
        for start in range(0, voxels, size):
            span = slice(start, min(start + size, voxels))
            widths = [classes, classes, classes, kernels.Buffers.ROWS]
            x, mask, scratch, rows = torch.split(memory[:, : span.stop - start], widths)
            buffers = kernels.Buffers(x, mask, scratch, rows.unbind())
            x.copy_(flat[sample, :, span])
            raw_weight = None if flat_weight is None else flat_weight[sample, span]
            kernel, factor, counted = _read(buffers, flat_target[sample, ..., span], raw_weight, settings, check)
            selected = () if flat_shares is None else flat_shares[:, sample, span].to(working).unbind()
            yield _Chunk(sample, span, kernel, factor, counted, exponents, selected)
            del kernel, factor, counted  # else they stay beside those of the next chunk


def _read(
    buffers: kernels.Buffers, raw: Tensor, raw_weight: Tensor | None, settings: PassSettings, check: bool
) -> tuple[kernels.LabelSoftmax | kernels.Dense, Tensor | None, int | Tensor]:
    """The kernel of one chunk, the weight of its voxels (None: 1 for all), and how many of them count."""
    x = buffers.x
    classes, length = x.shape
    if settings.dense:
        if check:
            targets.check_targets(raw, settings.ignore_index)
        chosen, counted = targets.dense_chunk(raw, settings.ignore_index, buffers.scratch)
    else:
        if check:
            targets.check_labels(raw, classes, settings.ignore_index)
        chosen, counted = targets.label_chunk(raw, classes, settings.ignore_index, settings.check)
    factor = None if raw_weight is None else raw_weight.to(x.dtype)
    if check and factor is not None and not settings.tube:  # whose weights have a sign, and were checked before
        targets.check_weight(factor)
    if counted is not None:
        x.masked_fill_(~counted, 0)  # whatever is in ignored voxels, NaN included, must not get out
        factor = counted.to(x.dtype) if factor is None else factor.masked_fill(~counted, 0)
    number = length if counted is None else counted.sum()
    if settings.by_label:
        return kernels.LabelSoftmax(buffers, chosen, settings), factor, number
    if not settings.dense:
        channels = torch.arange(classes, device=x.device)[:, None]
        chosen = torch.eq(channels, chosen, out=buffers.scratch)
    return kernels.Dense(x, chosen, settings), factor, number
