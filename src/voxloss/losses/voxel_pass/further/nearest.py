"""Squared distances to the nearest set voxel in C, on a CPU with a compiler: see `distances.c`."""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import library

_WIDTH = 64  # as in the source
_NUMBERS = 1 << 18  # of a part, which one thread works on; with fewer, starting a part costs more of the time


def takes(mask: Tensor, kind: torch.dtype) -> bool:
    """Whether `squares` is compiled on this machine for such a mask."""
    return mask.device.type == "cpu" and kind == torch.float32 and mask.numel() > 0 and library.is_there()


def squares(mask: Tensor, steps: Sequence[float]) -> Tensor:
    """Return every voxel's squared distance to the nearest set voxel, float32; `steps` are the voxels' sizes."""
    shape, own = mask.shape, mask.contiguous()
    result = torch.empty(shape, dtype=torch.float32)
    for axis, length in enumerate(shape):
        columns = max(1, _NUMBERS // (length * _WIDTH)) * _WIDTH
        search = _Axis(
            mask=None if axis else own.data_ptr(),
            squares=result.data_ptr(),
            outer=math.prod(shape[:axis]),
            length=length,
            inner=math.prod(shape[axis + 1 :]),
            columns=columns,
            step=steps[axis],
        )
        parts = -(-mask.numel() // (length * columns))
        library.run("voxloss_nearest", search, parts, [own, result])
    return result


class _Axis(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mask", "squares")),
        *((name, ctypes.c_int64) for name in ("outer", "length", "inner", "columns")),
        ("step", ctypes.c_double),
    ]
