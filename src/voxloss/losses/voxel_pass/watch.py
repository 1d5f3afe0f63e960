"""Check labels on a device without waiting for it: a later pass finds what an earlier one has seen.

A check that waits would stop the CPU in every step until the device has caught up. Here the extremes of labels and
weights are computed on the device and copied to the host beside the work; each pass first reads the copies that have
arrived.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import targets
from voxloss.losses.voxel_pass.settings import PassSettings

MOST_WAITING = 64  # looks; with more of them under way, a pass is not looked at


@dataclass(frozen=True)
class _Look:
    """Extremes on their way to the host: lowest and highest label, a fractional label, lowest and highest weight."""

    values: Tensor
    arrived: "torch.cuda.Event | None"  # None: they are there
    classes: int
    settings: PassSettings


_waiting: deque[_Look] = deque()


def look(target: Tensor, weight: Tensor | None, classes: int, settings: PassSettings) -> None:
    """Begin to find the extremes of labels and weights, without waiting."""
    if target.numel() == 0 or len(_waiting) >= MOST_WAITING or _capturing():
        return
    values = target.to(torch.float64 if target.dtype == torch.float64 else torch.float32)
    if settings.ignore_index is not None:
        values = values.masked_fill(values == settings.ignore_index, 0)
    zero = values.new_zeros(())
    fractional = zero
    if not settings.dense and target.is_floating_point():
        fractional = (values - values.trunc()).abs().amax()
    weights = (zero, zero) if weight is None else weight.to(values.dtype).aminmax()
    found = torch.stack([*values.aminmax(), fractional, *weights])
    if not found.is_cuda:
        _waiting.append(_Look(found.cpu(), None, classes, settings))
        return
    host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    host.copy_(found, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    _waiting.append(_Look(host, arrived, classes, settings))


def report() -> None:
    """Read what has arrived.

    Raises:
        ValueError: An earlier pass had a label or a weight that is not allowed.
    """
    while _waiting and not _capturing() and (_waiting[0].arrived is None or _waiting[0].arrived.query()):
        seen = _waiting.popleft()
        lowest, highest, fractional, least, most = seen.values.tolist()
        if seen.settings.dense:
            message = targets.targets_message(lowest, highest, seen.settings.ignore_index)
        elif fractional != 0:
            message = "labels must be whole numbers, received fractions"
        else:
            message = targets.labels_message(lowest, highest, seen.classes, seen.settings.ignore_index)
        message = message or targets.weight_message(least, most)
        if message:
            _waiting.clear()
            raise ValueError(
                f"{message}. This was in an earlier step: on a device, labels are checked without waiting for it; "
                "validate=True checks them at once"
            )


def _capturing() -> bool:
    """Whether the calls are recorded for a CUDA graph, which repeats kernels alone and allows no question."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
