"""Schedules of a loss's weight in a `Compound`: the weight as a function of the epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxloss.losses.parameters import NOT_NEGATIVE, POSITIVE


@dataclass(frozen=True)
class Schedule:
    """A weight that goes from `start` to `end` within `epochs` and stays there.

    What is counted is what `Compound.set_epoch` is given: epochs or, where it is called in every step, steps.

    Args:
        start: The weight in epoch 0, not negative.
        end: The weight from epoch `epochs` on, not negative.
        epochs: How many epochs it takes, above 0.

    Raises:
        ValueError: A value that is not allowed.
    """

    start: float
    end: float
    epochs: float

    shape: ClassVar[str]

    def __post_init__(self) -> None:
        checks = {"start": NOT_NEGATIVE, "end": NOT_NEGATIVE, "epochs": POSITIVE}
        for name, check in checks.items():
            object.__setattr__(self, name, check(f"{name} of a schedule", getattr(self, name)))

    def at(self, epoch: Tensor) -> Tensor:
        """Return the weight in an epoch, both tensors without axes: compiled code need not be compiled again."""
        share = (epoch.to(torch.float32 if epoch.device.type == "mps" else torch.float64) / self.epochs).clamp(0, 1)
        return self.start + (self.end - self.start) * self._course(share)

    def _course(self, share: Tensor) -> Tensor:
        """Return how much of the way is done when a share of the epochs is over."""
        raise NotImplementedError


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """start + (end - start)·e/epochs in epoch e, and `end` after that."""

    shape = "linear"

    def _course(self, share: Tensor) -> Tensor:
        return share


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """start + (end - start)·(1 - cos(π·e/epochs))/2 in epoch e, and `end` after that."""

    shape = "cosine"

    def _course(self, share: Tensor) -> Tensor:
        return (1 - torch.cos(math.pi * share)) / 2


_SHAPES: dict[str, type[Schedule]] = {kind.shape: kind for kind in (LinearSchedule, CosineSchedule)}


def read_schedule(value: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a mapping such as {shape: linear, start: 0, end: 1, epochs: 100}.

    Raises:
        ValueError: An unknown shape, or a key that is missing, unknown or has a value that it cannot have.
    """
    values = dict(value)
    shape = values.pop("shape", None)
    if shape not in _SHAPES:
        raise ValueError(f"the shape of a schedule must be {' or '.join(map(repr, _SHAPES))}, received {shape!r}")
    names = [field.name for field in fields(Schedule)]
    if sorted(values) != sorted(names):
        raise ValueError(f"a schedule has shape, {', '.join(names)}; received {', '.join(map(repr, value))}")
    return _SHAPES[shape](**values)
