"""The further passes as operators of torch's dispatcher, like the pass over the voxels.

What is made of labels and logits has no gradient; the sums have. `torch.compile` takes the operators as they are,
although they look at values.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.further import distances as maps
from voxloss.losses.voxel_pass.further import hardest, linear, soft_skeletons
from voxloss.losses.voxel_pass.further.jaccard import slopes
from voxloss.losses.voxel_pass.operator import transformed
from voxloss.losses.voxel_pass.plain import empty_gradient, total_type, working_type
from voxloss.losses.voxel_pass.reading import TargetReading

_READING = "str activation, bool dense, int? ignore_index, bool apart"


def distances(
    target: Tensor, classes: int, first: int, spacing: Sequence[float], kind: torch.dtype, how: TargetReading
) -> Tensor:
    """Return the signed distances of `distance_maps`, (B, C - first, *spatial), in type `kind`."""
    return torch.ops.voxloss.signed_distances(target, classes, first, list(spacing), kind, *_arguments(how))


def border_distances(mask: Tensor, counted: Tensor, spacing: Sequence[float], kind: torch.dtype) -> Tensor:
    """Return the distances to the other side of the border of masks, see `distances.border_distances`."""
    return torch.ops.voxloss.border_distances(mask, counted, list(spacing), kind)


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


def jaccard(logits: Tensor, target: Tensor, weight: Tensor | None, how: TargetReading, by_sample: bool) -> Tensor:
    """Return the errors times their slopes of every sample and class, (B, C), differentiable, see `jaccard.slopes`.

    The slopes themselves have no gradient.
    """
    given = target, weight, by_sample, *_arguments(how)
    if not torch.compiler.is_compiling() and transformed(logits):
        sums, slopes = torch.ops.voxloss.jaccard(logits.detach(), *given)
        with torch.autocast(logits.device.type, enabled=False):
            linear_part = linear.composite(logits, slopes.detach(), how.activation)
        return sums.detach() + (linear_part - linear_part.detach())
    return torch.ops.voxloss.jaccard(logits, *given)[0]


def weighted(logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    """Return Σ factor·p of every sample and class, (B, C), differentiable, see `linear.sums`."""
    if not torch.compiler.is_compiling() and transformed(logits):
        with torch.autocast(logits.device.type, enabled=False):
            return linear.composite(logits, factors, activation)
    return torch.ops.voxloss.weighted(logits, factors, activation)


def soft_skeleton(values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the soft skeleton of values, differentiable, see `soft_skeletons.soft_skeleton`."""
    if values.device.type != "cpu" or (not torch.compiler.is_compiling() and transformed(values)):
        return soft_skeletons.composite(values, counts, iterations)
    return torch.ops.voxloss.soft_skeleton(values, counts, iterations)


def _arguments(how: TargetReading) -> tuple[Any, ...]:
    return how.activation, how.dense, how.ignore_index, how.apart


def _distances(target: Tensor, classes: int, first: int, spacing: list[float], kind: torch.dtype, *how: Any) -> Tensor:
    measure = functools.partial(maps.signed_distances, kind=kind)
    return maps.find_distances(target, classes, first, spacing, TargetReading(*how), measure, kind)


def _border_distances(mask: Tensor, counted: Tensor, spacing: list[float], kind: torch.dtype) -> Tensor:
    return maps.border_distances(mask, counted, spacing, kind)


def _selection(
    logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, share: float, pool: str, *how: Any
) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return hardest.selection(logits, target, weight, TargetReading(*how), smoothing, share, pool)


def _jaccard(
    logits: Tensor, target: Tensor, weight: Tensor | None, by_sample: bool, *how: Any
) -> tuple[Tensor, Tensor]:
    with torch.autocast(logits.device.type, enabled=False):
        return slopes(logits, target, weight, TargetReading(*how), by_sample)


def _save_jaccard(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.activation = inputs[4]
    ctx.others = (None,) * (len(inputs) - 1)


def _jaccard_backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
    logits, slopes = ctx.saved_tensors
    return _gradient(upstream, logits, slopes.detach(), ctx.activation), *ctx.others


def _weighted(logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return linear.sums(logits, factors, activation)


def _weighted_gradient(upstream: Tensor, logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return linear.gradient(upstream, logits, factors, activation)


def _gradient(upstream: Tensor, logits: Tensor, factors: Tensor, activation: str) -> Tensor:
    if torch._C._are_functorch_transforms_active():  # a batch of upstream gradients
        return linear.composite_gradient(upstream, logits, factors, activation)
    return torch.ops.voxloss.weighted_gradient(upstream, logits, factors, activation)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, upstream: Tensor) -> Any:
    logits, factors = ctx.saved_tensors
    return _gradient(upstream, logits, factors, ctx.activation), None, None


def _second_backward(ctx: Any, above: Tensor) -> Any:
    upstream, logits, factors = ctx.saved_tensors

    def gradient(upstream: Tensor, logits: Tensor) -> Tensor:
        return linear.composite_gradient(upstream, logits, factors, ctx.activation)

    with torch.autocast(logits.device.type, enabled=False):
        of_upstream, of_logits = torch.func.vjp(gradient, upstream, logits)[1](above)
    return of_upstream, of_logits, None, None


def _save_skeleton(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    *tensors, ctx.iterations = inputs
    ctx.save_for_backward(*tensors)


def _skeleton_backward(ctx: Any, upstream: Tensor) -> Any:
    given = (*ctx.saved_tensors, ctx.iterations)
    if torch._C._are_functorch_transforms_active():  # a batch of upstream gradients
        return soft_skeletons.composite_gradient(upstream, *given), None, None
    return torch.ops.voxloss.soft_skeleton_gradient(upstream, *given), None, None


def _skeleton_second_backward(ctx: Any, above: Tensor) -> Any:
    upstream, values, counts = ctx.saved_tensors

    def gradient(upstream: Tensor, values: Tensor) -> Tensor:
        return soft_skeletons.composite_gradient(upstream, values, counts, ctx.iterations)

    return *torch.func.vjp(gradient, upstream, values)[1](above), None, None


def _shape_of_sums(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape[:2], dtype=total_type(logits))


def _shape_of_gradient(upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return empty_gradient(logits)


def _shape_of_distances(
    target: Tensor, classes: int, first: int, spacing: list[float], kind: torch.dtype, *_: Any
) -> Tensor:
    return target.new_empty((target.shape[0], classes - first, *target.shape[-len(spacing) :]), dtype=kind)


def _shape_of_border(mask: Tensor, counted: Tensor, spacing: list[float], kind: torch.dtype) -> Tensor:
    return mask.new_empty(mask.shape, dtype=kind)


def _shape_of_selection(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty((logits.shape[0], *logits.shape[2:]), dtype=working_type(logits))


def _shape_of_jaccard(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _shape_of_sums(logits), logits.new_empty(logits.shape, dtype=working_type(logits))


def _shape_of_skeleton(values: Tensor, *_: Any) -> Tensor:
    return values.new_empty(values.shape)


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
        "jaccard": (
            "Tensor logits, Tensor target, Tensor? weight, bool by_sample",
            _jaccard,
            _shape_of_jaccard,
        ),
    }
    weighted = "Tensor logits, Tensor factors, str activation"
    operators = {name: (f"{given}, {_READING}", run, shape) for name, (given, run, shape) in operators.items()} | {
        "border_distances": (
            "Tensor mask, Tensor counted, float[] spacing, ScalarType kind",
            _border_distances,
            _shape_of_border,
        ),
        "weighted": (weighted, _weighted, _shape_of_sums),
        "weighted_gradient": (f"Tensor upstream, {weighted}", _weighted_gradient, _shape_of_gradient),
    }
    skeleton = "Tensor values, Tensor? counts, int iterations"
    operators |= {
        "soft_skeleton": (skeleton, soft_skeletons.soft_skeleton, _shape_of_skeleton),
        "soft_skeleton_gradient": (f"Tensor upstream, {skeleton}", soft_skeletons.gradient, _shape_of_skeleton),
    }
    for name, (given, run, shape) in operators.items():
        returned = "(Tensor, Tensor)" if name == "jaccard" else "Tensor"
        library.define(f"{name}({given}) -> {returned}")
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"voxloss::{name}", shape, lib=library)
    torch.library.register_autograd("voxloss::jaccard", _jaccard_backward, setup_context=_save_jaccard, lib=library)
    torch.library.register_autograd("voxloss::weighted", _backward, setup_context=_save, lib=library)
    torch.library.register_autograd(
        "voxloss::soft_skeleton", _skeleton_backward, setup_context=_save_skeleton, lib=library
    )
    torch.library.register_autograd(
        "voxloss::soft_skeleton_gradient", _skeleton_second_backward, setup_context=_save_skeleton, lib=library
    )
    torch.library.register_autograd("voxloss::weighted_gradient", _second_backward, setup_context=_save, lib=library)
    return library


# The registration lasts as long as this object; see `voxel_pass.operator`.
_LIBRARY = _register()
if _LIBRARY is not None:
    vars(torch.ops.voxloss)["library of further passes"] = _LIBRARY
