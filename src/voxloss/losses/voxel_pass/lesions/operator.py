"""The maps of lesions and the sums over regions as operators of torch's dispatcher, like the pass over the voxels.

`torch.compile` takes them as they are: how many lesions there are depends on the labels, which only they look at.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import compiled, composite
from voxloss.losses.voxel_pass import operator as plain_pass
from voxloss.losses.voxel_pass.lesions import maps
from voxloss.losses.voxel_pass.lesions import sums as passes
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.operator import transformed
from voxloss.losses.voxel_pass.plain import empty_gradient, total_type
from voxloss.losses.voxel_pass.settings import PassSettings

_READING = "str activation, bool dense, int? ignore_index, bool by_channel, bool checked"
_HOW = f"bool by_channel, bool together, {plain_pass.SETTINGS}"


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
    settings: PassSettings,
    *,
    by_channel: bool,
    together: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sums over lesions, and if `together` also those of the pass over the voxels, read at the same time.

    Returns:
        The sums (ROWS, 2·regions) of `lesions.sums`, differentiable, and the counted voxels (2·regions,); the sums
        (B, S, C) of `settings`, differentiable, and the counted voxels (B,), both empty unless `together`.
    """
    if not torch.compiler.is_compiling() and transformed(logits):
        if together and settings.check:
            plain_pass.check_if_seen(target, weight, logits.shape[1], settings)
        with torch.autocast(logits.device.type, enabled=False):
            return _composite(logits, target, regions, offsets, weight, len(owner), by_channel, together, settings)
    rest = plain_pass.arguments(settings, logits.shape[1])
    return torch.ops.voxloss.lesion_sums(logits, target, regions, offsets, owner, weight, by_channel, together, *rest)


def _arguments(how: Reading) -> tuple[Any, ...]:
    return how.activation, how.dense, how.ignore_index, how.by_channel, how.checked


def _reading(settings: PassSettings, by_channel: bool) -> Reading:
    return Reading(settings.activation, settings.dense, settings.ignore_index, by_channel, settings.check)


def _composite(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    places: int,
    by_channel: bool,
    together: bool,
    settings: PassSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same as `sums`, in operations that torch differentiates by itself."""
    how = _reading(settings, by_channel)
    of_lesions = passes.composite(logits, target, regions, offsets, weight, places, how)
    nothing = logits.new_empty(0)
    return *of_lesions, *(composite.sums(logits, target, weight, settings) if together else (nothing, nothing))


def _composite_gradient(of_lesions: Tensor, upstream: Tensor, logits: Tensor, *others: Any) -> Tensor:
    """Return the gradient for the arguments of `_composite`, differentiable with respect to all three tensors."""

    def total(logits: Tensor) -> Tensor:
        lesions, _, sums, _ = _composite(logits, *others)
        return (of_lesions * lesions).sum() + (upstream * sums).sum()

    return torch.func.grad(total)(logits)


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
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    owner: Tensor,
    weight: Tensor | None,
    by_channel: bool,
    together: bool,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings, places = plain_pass.read_arguments(logits.shape[1], rest), len(owner)
    with torch.autocast(logits.device.type, enabled=False):
        if _at_once(logits, target, regions, weight, places, together, settings):
            return compiled.lesions(logits, target, regions, offsets, weight, places, settings, alone=False)
        found = passes.sums(logits, target, regions, offsets, weight, places, _reading(settings, by_channel))
    nothing = found[0].new_empty(0)
    return *found, *(
        plain_pass.run_sums(logits, target, weight, None, None, *rest) if together else (nothing, nothing.clone())
    )


def _gradient(
    of_lesions: Tensor,
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    by_channel: bool,
    together: bool,
    *rest: Any,
) -> Tensor:
    settings = plain_pass.read_arguments(logits.shape[1], rest)
    given = (target, regions, offsets, weight)
    with torch.autocast(logits.device.type, enabled=False):
        if _at_once(logits, target, regions, weight, of_lesions.shape[1] // 2, together, settings):
            return compiled.lesions_gradient(of_lesions, logits, *given, upstream, settings)
        result = passes.gradient(of_lesions, logits, *given, _reading(settings, by_channel))
    if together:
        result += plain_pass.run_gradient(upstream, logits, target, weight, None, None, *rest)
    return result


def _at_once(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    weight: Tensor | None,
    places: int,
    together: bool,
    settings: PassSettings,
) -> bool:
    """Whether one reading gives both kinds of sums."""
    return together and not settings.watch and compiled.takes_lesions(logits, target, regions, weight, places, settings)


def _shape_of_regions(target: Tensor, classes: int, *how: Any) -> Tensor:
    spatial = target.shape[2:] if how[1] else target.shape[1:]
    return target.new_empty((target.shape[0], classes - Reading(*how).first, *spatial), dtype=torch.int32)


def _shape_of_places(regions: Tensor) -> tuple[Tensor, Tensor]:
    number = torch.library.get_ctx().new_dynamic_size()
    return regions.new_empty(regions.shape[:2], dtype=torch.int64), regions.new_empty(number, dtype=torch.int64)


def _shape_of_sums(
    logits: Tensor, target: Tensor, regions: Tensor, offsets: Tensor, owner: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, _, together, *rest = others
    (batch, classes), kind, number = logits.shape[:2], total_type(logits), 2 * owner.shape[0]
    rows = plain_pass.read_arguments(classes, rest).rows
    of_pass = ((batch, rows, classes), (batch,)) if together else ((0,), (0,))
    return (
        logits.new_empty((passes.ROWS, number), dtype=kind),
        logits.new_empty(number, dtype=kind),
        logits.new_empty(of_pass[0], dtype=kind),
        logits.new_empty(of_pass[1], dtype=kind),
    )


def _shape_of_gradient(of_lesions: Tensor, upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return empty_gradient(logits)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    logits, target, regions, offsets, _, weight, *ctx.rest = inputs
    ctx.save_for_backward(logits, target, regions, offsets, weight)


def _backward(ctx: Any, of_lesions: Tensor, _: Tensor, upstream: Tensor, __: Tensor) -> Any:
    logits, *given = ctx.saved_tensors
    none = (None,) * (5 + len(ctx.rest))
    if torch._C._are_functorch_transforms_active():  # a batch of upstream gradients
        others = _of_composite(ctx.rest, given, of_lesions, logits)
        return _composite_gradient(of_lesions, upstream, logits, *others), *none
    return torch.ops.voxloss.lesion_gradient(of_lesions, upstream, logits, *given, *ctx.rest), *none


def _of_composite(rest: Sequence[Any], given: Sequence[Any], of_lesions: Tensor, logits: Tensor) -> tuple[Any, ...]:
    """Return what `_composite` takes after the logits."""
    by_channel, together, *settings = rest
    places = of_lesions.shape[-1] // 2
    return *given, places, by_channel, together, plain_pass.read_arguments(logits.shape[1], settings)


def _save_gradient(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.rest = inputs[7:]


def _second_backward(ctx: Any, above: Tensor) -> Any:
    of_lesions, upstream, logits, *given = ctx.saved_tensors
    others = _of_composite(ctx.rest, given, of_lesions, logits)

    def gradient(of_lesions: Tensor, upstream: Tensor, logits: Tensor) -> Tensor:
        return _composite_gradient(of_lesions, upstream, logits, *others)

    with torch.autocast(logits.device.type, enabled=False):
        slopes = torch.func.vjp(gradient, of_lesions, upstream, logits)[1](above)
    return *slopes, *(None,) * (len(given) + len(ctx.rest))


def _register() -> torch.library.Library | None:
    """Register the operators; None where an earlier import of this package in the same process did."""
    if hasattr(torch.ops.voxloss, "lesion_sums"):
        return None
    library = torch.library.Library("voxloss", "FRAGMENT")
    given = f"Tensor target, Tensor regions, Tensor offsets, %sTensor? weight, {_HOW}"
    operators: dict[str, tuple[str, str, Callable[..., Any], Callable[..., Any]]] = {
        "lesion_regions": (f"Tensor target, int classes, {_READING}", "Tensor", _regions, _shape_of_regions),
        "lesion_places": ("Tensor regions", "(Tensor, Tensor)", _places, _shape_of_places),
        "lesion_sums": (
            f"Tensor logits, {given % 'Tensor owner, '}", "(Tensor, Tensor, Tensor, Tensor)", _sums, _shape_of_sums,
        ),
        "lesion_gradient": (
            f"Tensor of_lesions, Tensor upstream, Tensor logits, {given % ''}", "Tensor", _gradient,
            _shape_of_gradient,
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
