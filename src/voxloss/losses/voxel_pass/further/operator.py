"""What the further passes make of labels and logits as operators of torch's dispatcher, without a gradient.

`torch.compile` takes them as they are, although they look at values; under torch.func they see plain tensors.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.further import distances as maps
from voxloss.losses.voxel_pass.further import hardest, jaccard
from voxloss.losses.voxel_pass.further.reading import TargetReading
from voxloss.losses.voxel_pass.plain import working_type

_READING = "str activation, bool dense, int? ignore_index, bool apart"


def distances(
    target: Tensor, classes: int, first: int, spacing: Sequence[float], kind: torch.dtype, how: TargetReading
) -> Tensor:
    """Return the signed distances of `distance_maps`, (B, C - first, *spatial), in type `kind`."""
    return torch.ops.voxloss.signed_distances(target, classes, first, list(spacing), kind, *_arguments(how))


def selection(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    how: TargetReading,
    label_smoothing: float,
    share: float,
    pool: str,
) -> Tensor:
    """Return 1 for the hardest voxels, see `hardest.selection`."""
    return torch.ops.voxloss.hardest_voxels(
        logits.detach(), target, weight, label_smoothing, share, pool, *_arguments(how)
    )


def slopes(logits: Tensor, target: Tensor, weight: Tensor | None, how: TargetReading, by_sample: bool) -> Tensor:
    """Return the slope of every voxel's error, see `jaccard.slopes`."""
    return torch.ops.voxloss.jaccard_slopes(logits.detach(), target, weight, by_sample, *_arguments(how))


def _arguments(how: TargetReading) -> tuple[Any, ...]:
    return how.activation, how.dense, how.ignore_index, how.apart


def _distances(target: Tensor, classes: int, first: int, spacing: list[float], kind: torch.dtype, *how: Any) -> Tensor:
    measure = functools.partial(maps.signed_distances, kind=kind)
    return maps.find_distances(target, classes, first, spacing, TargetReading(*how), measure, kind)


def _selection(
    logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, share: float, pool: str, *how: Any
) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return hardest.selection(logits, target, weight, TargetReading(*how), smoothing, share, pool)


def _slopes(logits: Tensor, target: Tensor, weight: Tensor | None, by_sample: bool, *how: Any) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return jaccard.slopes(logits, target, weight, TargetReading(*how), by_sample)


def _shape_of_distances(
    target: Tensor, classes: int, first: int, spacing: list[float], kind: torch.dtype, *_: Any
) -> Tensor:
    return target.new_empty((target.shape[0], classes - first, *target.shape[-len(spacing) :]), dtype=kind)


def _shape_of_selection(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty((logits.shape[0], *logits.shape[2:]), dtype=working_type(logits))


def _shape_of_slopes(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape, dtype=working_type(logits))


def _register() -> torch.library.Library | None:
    """Register the operators; None where an earlier import of this package in the same process did."""
    if hasattr(torch.ops.voxloss, "signed_distances"):
        return None
    library = torch.library.Library("voxloss", "FRAGMENT")
    operators: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
        "signed_distances": (
            "Tensor target, int classes, int first, float[] spacing, ScalarType kind",
            _distances,
            _shape_of_distances,
        ),
        "hardest_voxels": (
            "Tensor logits, Tensor target, Tensor? weight, float smoothing, float share, str pool",
            _selection,
            _shape_of_selection,
        ),
        "jaccard_slopes": (
            "Tensor logits, Tensor target, Tensor? weight, bool by_sample",
            _slopes,
            _shape_of_slopes,
        ),
    }
    for name, (given, run, shape) in operators.items():
        library.define(f"{name}({given}, {_READING}) -> Tensor")
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"voxloss::{name}", shape, lib=library)
    return library


# The registration lasts as long as this object; see `voxel_pass.operator`.
_LIBRARY = _register()
if _LIBRARY is not None:
    vars(torch.ops.voxloss)["library of further passes"] = _LIBRARY
