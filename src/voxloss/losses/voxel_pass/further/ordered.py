"""The slopes of the Lovász extension in C, on a CPU with a compiler: `order.c` sorts the errors."""

import ctypes

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import compiled, library
from voxloss.losses.voxel_pass.plain import CPU_CHUNK
from voxloss.losses.voxel_pass.reading import TargetReading, errors
from voxloss.losses.voxel_pass.settings import PassSettings

_BUFFERS = 6  # numbers for each voxel and class that a chunk holds at once, about
_MOST_VOXELS = 2**32 - 1  # that are ordered together: their numbers have 32 bits


def takes(logits: Tensor, weight: Tensor | None) -> bool:
    """Whether `slopes` is compiled on this machine for such errors."""
    return (
        logits.device.type == "cpu"
        and logits.dtype == torch.float32
        and (weight is None or weight.dtype == torch.float32)
        and logits.shape[0] * logits.shape[2:].numel() <= _MOST_VOXELS
        and library.is_there()
    )


def slopes(
    logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, by_sample: bool
) -> tuple[Tensor, Tensor]:
    """Return what `jaccard.slopes` does."""
    settings = PassSettings(reading.activation, reading.dense, (), reading.ignore_index, False)
    if compiled.takes(logits, target, weight, settings):
        return from_keys(compiled.error_keys(logits, target, settings), weight, logits.shape, by_sample)
    return from_keys(keys(logits, target, reading), weight, logits.shape, by_sample)


def from_keys(keys: Tensor, weight: Tensor | None, shape: torch.Size, by_sample: bool) -> tuple[Tensor, Tensor]:
    """Return the slopes and sums of the errors that have these keys, (B, K, n).

    K is the number of classes, or 1 of two classes: those of class 1, where class 0 has the same errors.
    """
    own = keys.shape[1]
    weights = None if weight is None else weight.flatten(1).contiguous()
    result = torch.empty(shape, dtype=torch.float32)
    sums = torch.empty(shape[:2], dtype=torch.float64)
    memory = [keys, result, sums] if weights is None else [keys, result, sums, weights]
    order = _Order(
        keys=keys.data_ptr(),
        weight=None if weights is None else weights.data_ptr(),
        slopes=result.data_ptr(),
        sums=sums.data_ptr(),
        samples=shape[0],
        classes=shape[1],
        voxels=keys.shape[2],
        by_sample=by_sample,
        both=own < shape[1],
    )
    library.run("voxloss_order", order, own * (shape[0] if by_sample else 1), memory)
    return sums, result


def keys(logits: Tensor, target: Tensor, reading: TargetReading) -> Tensor:
    """Return keys of the errors, (B, C, n): twice the error's bits, and one more for a member; -1: not counted."""
    flat, flat_target = logits.flatten(2), target.flatten(2 if reading.dense else 1)
    batch, classes, voxels = flat.shape
    result = torch.empty((batch, classes, voxels), dtype=torch.int32)
    size = max(1, CPU_CHUNK // (_BUFFERS * classes))
    for b in range(batch):
        for start in range(0, voxels, size):
            sample, span = slice(b, b + 1), slice(start, start + size)
            own = flat_target[sample, ..., span]
            members = reading.members(own, classes)
            bits = errors(flat[sample, :, span], members, reading.activation).view(torch.int32)
            out = result[sample, :, span]
            torch.bitwise_left_shift(bits, 1, out=out).bitwise_or_(members)
            out.masked_fill_(~reading.counted(own, classes), -1)
    return result


class _Order(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "weight", "slopes", "sums")),
        *((name, ctypes.c_int64) for name in ("samples", "classes", "voxels", "by_sample", "both")),
    ]
