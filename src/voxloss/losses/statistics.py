"""Logits and labels to the sums that every loss is made of: the only code that touches voxels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from voxloss.losses import kernels, targets
from voxloss.losses.parameters import PerClass, per_class

# Logits worked on at a time: on a CPU so many that the buffers stay in cache (65,536 voxels of three classes; twice as
# many are hardly faster and need twice the memory), on other devices so many that starting the kernels costs little
# beside running them.
CPU_CHUNK = 3 * 65_536
DEVICE_CHUNK = 4_194_304


@dataclass(frozen=True)
class VoxelStatistics:
    """Sums over the counted voxels of each sample b and class c; differentiable, each (B, C), float64 where there is.

    true_positive Σ p·t, false_positive Σ p·(1-t), false_negative Σ (1-p)·t, `focal[k]` Σ t (1-p)^γ_k (-log p) for
    γ_k = `focal_exponents[k]`, and with sigmoid `focal_negative[k]` Σ (1-t) p^γ_k (-log(1-p)) (else empty).
    A voxel weight multiplies every voxel's part of these sums. `voxels` (B,) is the number of counted voxels, without
    weights and without gradient.
    """

    true_positive: Tensor
    false_positive: Tensor
    false_negative: Tensor
    focal: tuple[Tensor, ...]
    focal_negative: tuple[Tensor, ...]
    focal_exponents: tuple[PerClass, ...]
    voxels: Tensor
    activation: str

    @property
    def present(self) -> Tensor:
        """(B, C): whether the target has the class at all. Exact, since p and 1-p are never both 0."""
        return (self.true_positive + self.false_negative).detach() != 0  # NaN counts as there, and stays seen

    def focal_sums(self, exponent: PerClass) -> tuple[Tensor, Tensor | None]:
        """The focal sums of this exponent: positive side, and with sigmoid the negative side."""
        if exponent not in self.focal_exponents:
            raise ValueError(f"focal exponent {exponent} is not among those summed: {self.focal_exponents}")
        k = self.focal_exponents.index(exponent)
        return self.focal[k], self.focal_negative[k] if self.focal_negative else None


@dataclass(frozen=True)
class _Settings:
    """What the pass needs besides tensors; `check` is whether forward checks values, which backward then relies on."""

    activation: str
    dense: bool
    exponents: tuple[PerClass, ...]
    ignore_index: int | None
    check: bool


def voxel_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    focal_exponents: Sequence[float | Sequence[float]] = (),
    activation: str = "softmax",
    ignore_index: int | None = None,
    voxel_weight: Tensor | None = None,
    validate: bool | None = None,
) -> VoxelStatistics:
    """The sums of `VoxelStatistics` in one differentiable pass over the voxels.

    Args:
        logits: (B, C, *spatial), any floating type. Work is done in float32, for float64 logits in float64.
        labels: (B, *spatial) or (B, 1, *spatial) class indices of any integer type, or floating with whole values; or
            soft or multi-hot targets (B, C, *spatial) in [0, 1]. With a single channel always such a target.
        focal_exponents: γ ≥ 0 of each focal sum asked for, each a number or one per class.
        activation: "softmax" over the channels, or "sigmoid": every channel its own two-class problem, of which a hard
            label c is the positive side in channel c and the negative side in all others.
        ignore_index: voxels with this label are left out and not counted. In soft or multi-hot targets it takes out
            the voxels that have it in any channel.
        voxel_weight: (B, *spatial) or (B, 1, *spatial), not negative; multiplies every voxel's part of the sums.
        validate: whether the values of labels and weights are checked. None: on the CPU only, as elsewhere it waits
            for the device. Where not checked, a label out of range counts as ignored.

    Extra memory is a few chunks forward, and the gradient backward. It can be differentiated once.

    Raises:
        ValueError: shapes or types that do not fit, softmax with one channel, labels out of range or not whole.
    """
    logits, labels = targets.plain(logits), targets.plain(labels)
    targets.check_logits(logits, activation)
    target = targets.read_target(logits, labels, ignore_index)
    weight = None if voxel_weight is None else targets.read_weight(logits, targets.plain(voxel_weight))
    exponents = tuple(per_class("a focal exponent", exponent) for exponent in focal_exponents)
    for exponent in exponents:
        if isinstance(exponent, tuple) and len(exponent) != logits.shape[1]:
            raise ValueError(f"{len(exponent)} focal exponents {exponent} for {logits.shape[1]} classes")
    check = logits.device.type == "cpu" if validate is None else validate
    settings = _Settings(activation, target.dense, exponents, ignore_index, check)
    sums, voxels = _Sums.apply(logits, target.values, weight, settings)
    rows = sums.unbind(1)
    after = kernels.FOCAL + len(exponents)
    return VoxelStatistics(
        true_positive=rows[kernels.TRUE_POSITIVE],
        false_positive=rows[kernels.FALSE_POSITIVE],
        false_negative=rows[kernels.FALSE_NEGATIVE],
        focal=rows[kernels.FOCAL : after],
        focal_negative=rows[after:],
        focal_exponents=exponents,
        voxels=voxels,
        activation=activation,
    )


class _Sums(torch.autograd.Function):
    """(logits, target, weight) -> sums (B, S, C) in the order of `kernels`, counted voxels (B,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, settings: _Settings) -> Any:
        batch, classes = logits.shape[:2]
        rows = kernels.FOCAL + len(settings.exponents) * (2 if settings.activation == "sigmoid" else 1)
        # Each chunk's partial sums are in the working type, their total is not (MPS has no float64).
        total_type = torch.float32 if logits.device.type == "mps" else torch.float64
        sums = logits.new_zeros((batch, rows, classes), dtype=total_type)
        voxels = logits.new_zeros(batch, dtype=total_type)
        with torch.autocast(logits.device.type, enabled=False):
            for chunk in _chunks(logits, target, weight, settings, check=settings.check):
                sums[chunk.sample] += chunk.kernel.sums(chunk.weight, chunk.exponents, chunk.scratch)
                voxels[chunk.sample] += chunk.voxels
                del chunk
        ctx.save_for_backward(logits, target, weight)
        ctx.settings = settings
        ctx.mark_non_differentiable(voxels)
        return sums, voxels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
        logits, target, weight = ctx.saved_tensors
        # To the type of the work, not of the logits: a grad scaler's factor is in `upstream`, so that small float16
        # gradients are multiplied before they are rounded.
        upstream = upstream.to(_working_type(logits))
        gradient = _empty_gradient(logits)
        flat = gradient.view(*logits.shape[:2], math.prod(logits.shape[2:]))
        with torch.autocast(logits.device.type, enabled=False):
            for chunk in _chunks(logits, target, weight, ctx.settings, check=False):
                out = flat[chunk.sample, :, chunk.span]
                chunk.kernel.gradient(upstream[chunk.sample], chunk.weight, chunk.exponents, chunk.scratch, out)
                del chunk
        return gradient, None, None, None


def _working_type(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _empty_gradient(logits: Tensor) -> Tensor:
    """Memory like that of the logits (channels last stays so) if its voxels can be viewed as one axis, else plain."""
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
    scratch: Tensor


def _chunks(
    logits: Tensor, target: Tensor, weight: Tensor | None, settings: _Settings, *, check: bool
) -> Iterator[_Chunk]:
    """Pieces of one sample each, in a fixed order; every piece overwrites the buffers of the one before."""
    flat = logits.flatten(2)  # a view wherever the strides allow one
    batch, classes, voxels = flat.shape
    flat_target = target.flatten(2 if settings.dense else 1)
    flat_weight = None if weight is None else weight.flatten(1)
    size = max(1, (CPU_CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK) // classes)
    working = _working_type(logits)
    x_buffer, scratch_buffer = (logits.new_empty((classes, min(size, voxels)), dtype=working) for _ in range(2))
    exponents = tuple(
        logits.new_tensor(value, dtype=working) if isinstance(value, tuple) else value for value in settings.exponents
    )
    for sample in range(batch):
        for start in range(0, voxels, size):
            span = slice(start, min(start + size, voxels))
            x, scratch = (buffer[:, : span.stop - start] for buffer in (x_buffer, scratch_buffer))
            x.copy_(flat[sample, :, span])
            raw_weight = None if flat_weight is None else flat_weight[sample, span]
            kernel, factor, counted = _read(x, flat_target[sample, ..., span], raw_weight, scratch, settings, check)
            yield _Chunk(sample, span, kernel, factor, counted, exponents, scratch)
            del kernel, factor, counted  # else they stay beside those of the next chunk


def _read(
    x: Tensor, raw: Tensor, raw_weight: Tensor | None, scratch: Tensor, settings: _Settings, check: bool
) -> tuple[kernels.LabelSoftmax | kernels.Dense, Tensor | None, int | Tensor]:
    """The kernel of one chunk, the weight of its voxels (None: 1 for all), and how many of them count."""
    classes, length = x.shape
    if settings.dense:
        if check:
            targets.check_targets(raw, settings.ignore_index)
        chosen, counted = targets.dense_chunk(raw, settings.ignore_index, scratch)
    else:
        if check:
            targets.check_labels(raw, classes, settings.ignore_index)
        chosen, counted = targets.label_chunk(raw, classes, settings.ignore_index, settings.check)
    factor = None if raw_weight is None else raw_weight.to(x.dtype)
    if check and factor is not None:
        targets.check_weight(factor)
    if counted is not None:
        x.masked_fill_(~counted, 0)  # whatever is in ignored voxels, NaN included, must not get out
        factor = counted.to(x.dtype) if factor is None else factor.masked_fill(~counted, 0)
    number = length if counted is None else counted.sum()
    if not settings.dense and settings.activation == "softmax":
        return kernels.LabelSoftmax(x, chosen), factor, number
    if not settings.dense:
        channels = torch.arange(classes, device=x.device)[:, None]
        chosen = torch.eq(channels, chosen, out=scratch)
    return kernels.Dense(x, chosen, settings.activation), factor, number
