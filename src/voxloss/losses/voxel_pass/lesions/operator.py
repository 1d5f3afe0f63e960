"""The maps of lesions and the sums over regions as operators of torch's dispatcher, like the pass over the voxels.

`torch.compile` takes them as they are: how many lesions there are depends on the labels, which only they look at.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from voxloss.losses.voxel_pass.lesions import maps
from voxloss.losses.voxel_pass.lesions import sums as passes
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.plain import empty_gradient, total_type

_READING = "str activation, bool dense, int? ignore_index, bool by_channel, bool checked"


def regions(target: Tensor, classes: int, how: Reading) -> Tensor:
    """Return the regions (B, F, *spatial) of a target."""
    return torch.ops.voxloss.lesion_regions(target, classes, *_arguments(how))


def places(regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of the first region of each sample and class, (B, F), and whose each region is, b·F + f.

    Raises:
        ValueError: A region has a negative number, or one above that of the voxels.
    """
    return torch.ops.voxloss.lesion_places(regions)


def sums(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    owner: Tensor,
    weight: Tensor | None,
    how: Reading,
) -> tuple[Tensor, Tensor]:
    """Return the sums (ROWS, 2·regions) of `lesions.sums`, differentiable, and the counted voxels (2·regions,)."""
    if not torch.compiler.is_compiling() and _transformed(logits):
        with torch.autocast(logits.device.type, enabled=False):
            return passes.composite(logits, target, regions, offsets, weight, len(owner), how)
    return torch.ops.voxloss.lesion_sums(logits, target, regions, offsets, owner, weight, *_arguments(how))


def _arguments(how: Reading) -> tuple[Any, ...]:
    return how.activation, how.dense, how.ignore_index, how.by_channel, how.checked


def _transformed(logits: Tensor) -> bool:
    """Whether torch.func transforms the call, or logits have a tangent of forward mode."""
    if torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(logits).tangent is not None


def _regions(target: Tensor, classes: int, *how: Any) -> Tensor:
    return maps.find_regions(target, classes, Reading(*how))


def _places(regions: Tensor) -> tuple[Tensor, Tensor]:
    flat = regions.flatten(2)
    if flat.numel() == 0:
        counts = torch.ones(flat.shape[:2], dtype=torch.int64, device=flat.device)
    else:
        counts = flat.amax(2).to(torch.int64) + 1
        for number in (int(flat.amin()), int(counts.max()) - 1):
            if not 0 <= number <= flat.shape[2]:
                raise ValueError(
                    f"regions has the number {number} for {flat.shape[2]} voxels: number those of each sample from 1"
                )
    ends = counts.flatten().cumsum(0)
    owner = torch.repeat_interleave(torch.arange(counts.numel(), device=flat.device), counts.flatten())
    return (ends - counts.flatten()).view(counts.shape), owner


def _sums(
    logits: Tensor, target: Tensor, regions: Tensor, offsets: Tensor, owner: Tensor, weight: Tensor | None, *how: Any
) -> tuple[Tensor, Tensor]:
    with torch.autocast(logits.device.type, enabled=False):
        return passes.sums(logits, target, regions, offsets, weight, len(owner), Reading(*how))


def _gradient(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    *how: Any,
) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return passes.gradient(upstream, logits, target, regions, offsets, weight, Reading(*how))


def _shape_of_regions(target: Tensor, classes: int, *how: Any) -> Tensor:
    spatial = target.shape[2:] if how[1] else target.shape[1:]
    return target.new_empty((target.shape[0], classes - Reading(*how).first, *spatial), dtype=torch.int32)


def _shape_of_places(regions: Tensor) -> tuple[Tensor, Tensor]:
    number = torch.library.get_ctx().new_dynamic_size()
    return regions.new_empty(regions.shape[:2], dtype=torch.int64), regions.new_empty(number, dtype=torch.int64)


def _shape_of_sums(
    logits: Tensor, target: Tensor, regions: Tensor, offsets: Tensor, owner: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    kind, number = total_type(logits), 2 * owner.shape[0]
    return logits.new_empty((passes.ROWS, number), dtype=kind), logits.new_empty(number, dtype=kind)


def _shape_of_gradient(upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return empty_gradient(logits)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    logits, target, regions, offsets, _, weight, *ctx.how = inputs
    ctx.save_for_backward(logits, target, regions, offsets, weight)


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
    logits, target, regions, offsets, weight = ctx.saved_tensors
    none = (None,) * (5 + len(ctx.how))
    if torch._C._are_functorch_transforms_active():  # a batch of upstream gradients
        others = (target, regions, offsets, weight, upstream.shape[-1] // 2, Reading(*ctx.how))
        return passes.composite_gradient(upstream, logits, *others), *none
    return torch.ops.voxloss.lesion_gradient(upstream, logits, target, regions, offsets, weight, *ctx.how), *none


def _save_gradient(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    upstream, logits, target, regions, offsets, weight, *ctx.how = inputs
    ctx.save_for_backward(upstream, logits, target, regions, offsets, weight)


def _second_backward(ctx: Any, above: Tensor) -> Any:
    upstream, logits, *rest = ctx.saved_tensors
    others = (*rest, upstream.shape[1] // 2, Reading(*ctx.how))

    def gradient(upstream: Tensor, logits: Tensor) -> Tensor:
        return passes.composite_gradient(upstream, logits, *others)

    with torch.autocast(logits.device.type, enabled=False):
        of_upstream, of_logits = torch.func.vjp(gradient, upstream, logits)[1](above)
    return of_upstream, of_logits, *(None,) * (len(rest) + len(ctx.how))


def _register() -> torch.library.Library | None:
    """Register the operators; None where an earlier import of this package in the same process did."""
    if hasattr(torch.ops.voxloss, "lesion_sums"):
        return None
    library = torch.library.Library("voxloss", "FRAGMENT")
    labelled = f"Tensor target, Tensor regions, Tensor offsets, %sTensor? weight, {_READING}"
    operators: dict[str, tuple[str, str, Callable[..., Any], Callable[..., Any]]] = {
        "lesion_regions": (f"Tensor target, int classes, {_READING}", "Tensor", _regions, _shape_of_regions),
        "lesion_places": ("Tensor regions", "(Tensor, Tensor)", _places, _shape_of_places),
        "lesion_sums": (
            f"Tensor logits, {labelled % 'Tensor owner, '}", "(Tensor, Tensor)", _sums, _shape_of_sums,
        ),
        "lesion_gradient": (
            f"Tensor upstream, Tensor logits, {labelled % ''}", "Tensor", _gradient, _shape_of_gradient,
        ),
    }  # fmt: skip
    for name, (given, returned, run, shape) in operators.items():
        library.define(f"{name}({given}) -> {returned}")
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"voxloss::{name}", shape, lib=library)
    torch.library.register_autograd("voxloss::lesion_sums", _backward, setup_context=_save, lib=library)
    torch.library.register_autograd(
        "voxloss::lesion_gradient", _second_backward, setup_context=_save_gradient, lib=library
    )
    return library


# The registration lasts as long as this object; see `voxel_pass.operator`.
_LIBRARY = _register()
if _LIBRARY is not None:
    vars(torch.ops.voxloss)["library of lesions"] = _LIBRARY
