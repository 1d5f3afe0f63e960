"""The pass over the voxels as one differentiable operator, with an implementation chosen by device.

An operator of torch's dispatcher, not an autograd Function: `torch.compile` takes it into its graph as it is, and the
checks of label values run inside it, where they may look at the data. Under the transforms of torch.func, in forward
mode and for the gradient of a gradient, the pass in plain operations takes its place (`composite`).
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

import functools
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from voxloss.losses.parameters import PerClass
from voxloss.losses.voxel_pass import binned, compiled, composite, plain, targets, watch
from voxloss.losses.voxel_pass.reading import TargetReading
from voxloss.losses.voxel_pass.settings import FOCAL, PassSettings

MOST_SAMPLES = 65_535  # of a launch on CUDA, whose grid has the samples on its second axis

SETTINGS = (
    "str activation, bool dense, float[] exponents, int? ignore_index, bool check, bool watch, "
    "float label_smoothing, bool squared, bool minimum, int[] bins"
)


def sums(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    settings: PassSettings,
    tube: Tensor | None = None,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, S, C) sums in the order of `kernels`, differentiable, and the counted voxels (B,).

    `tube` (B, *spatial), where `settings` have one, is not 0 at its voxels. `shares` (K, B, *spatial) are those in
    which voxels belong to each of `settings.hardest` selections.
    """
    if not torch.compiler.is_compiling() and transformed(logits):
        if settings.check:
            check_if_seen(target, weight, logits.shape[1], settings)
        with torch.autocast(logits.device.type, enabled=False):
            return composite.sums(logits, target, _signed(weight, tube, logits), settings, shares)
    return torch.ops.voxloss.sums(logits, target, weight, tube, shares, *arguments(settings, logits.shape[1]))


def arguments(settings: PassSettings, classes: int) -> tuple[Any, ...]:
    """Return settings as an operator takes them, see `SETTINGS`; `read_arguments` is the way back."""
    exponents = [
        number
        for exponent in settings.exponents
        for number in (exponent if isinstance(exponent, tuple) else (exponent,) * classes)
    ]
    return (
        settings.activation,
        settings.dense,
        exponents,
        settings.ignore_index,
        settings.check,
        settings.watch,
        settings.label_smoothing,
        settings.squared,
        settings.minimum,
        list(settings.bins),
    )


def transformed(logits: Tensor) -> bool:
    """Whether torch.func transforms the call, or logits have a tangent of forward mode."""
    if torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(logits).tangent is not None


def check_if_seen(target: Tensor, weight: Tensor | None, classes: int, settings: PassSettings) -> None:
    """Check values unless vmap hides them."""
    try:
        targets.check_values(target, weight, classes, settings)
    except RuntimeError:  # "vmap: ... .item()" or data-dependent control flow
        return


def _signed(weight: Tensor | None, tube: Tensor | None, logits: Tensor) -> Tensor | None:
    """Return the weights with a minus in the tube, which is one tensor to read where two would be."""
    if tube is None:
        return weight
    if weight is None:
        return torch.where(tube != 0, -1.0, 1.0).to(plain.working_type(logits))
    wide = weight.to(plain.working_type(logits))
    return torch.where(tube != 0, -wide, wide)


def read_arguments(
    classes: int, rest: Sequence[Any], tube: Tensor | None = None, shares: Tensor | None = None
) -> PassSettings:
    """Return the settings that an operator was given."""
    activation, dense, numbers, *others, bins = rest
    exponents: list[PerClass] = []
    for start in range(0, len(numbers), classes):
        row = tuple(numbers[start : start + classes])
        exponents.append(row[0] if len(set(row)) == 1 else row)  # one number for all classes is quicker
    hardest = 0 if shares is None else len(shares)
    return PassSettings(activation, dense, tuple(exponents), *(*others, tube is not None, hardest, tuple(bins)))


def _implementation(logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> ModuleType:
    if not logits.is_cuda:
        return compiled if compiled.takes(logits, target, weight, settings) else plain
    if not _has_triton():
        return plain
    from voxloss.losses.voxel_pass import triton

    return triton


@functools.cache
def _has_triton() -> bool:
    if importlib.util.find_spec("triton") is None:
        warnings.warn("Triton is not installed: the losses take the slower path on CUDA", stacklevel=2)
        return False
    return True


def run_sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, tube: Tensor | None, shares: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Return the sums and the counted voxels, without a gradient."""
    settings = read_arguments(logits.shape[1], rest, tube, shares)
    given, weight = weight, _signed(weight, tube, logits)
    implementation = _implementation(logits, target, weight, settings)
    with torch.autocast(logits.device.type, enabled=False):
        if settings.watch:
            watch.report()
            watch.look(target, given, logits.shape[1], settings)
        if settings.check and given is not None and tube is not None:
            targets.check_weight(given)
        if implementation is compiled:  # which checks values as it reads them, like the plain one
            return compiled.sums(logits, target, weight, settings, shares)
        of_pass = replace(settings, bins=())
        if implementation is plain:
            sums, voxels = plain.sums(logits, target, weight, of_pass, shares)
            rows = [sums]
        else:
            if settings.check:
                targets.check_values(target, given, logits.shape[1], settings)
            found = []
            for factor, own in _passes(weight, shares, given, of_pass):
                parts = [implementation.sums(*part, own) for part in _launches(logits, target, factor)]
                found.append([torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True)])
            (sums, voxels), *of_hardest = found
            rows = [sums, *(each[:, FOCAL:] for each, _ in of_hardest)]
        rows += [binned.sums(logits, target, given, bins, TargetReading.of(settings)) for bins in settings.bins]
        return torch.cat(rows, 1) if len(rows) > 1 else sums, voxels


def run_gradient(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    tube: Tensor | None,
    shares: Tensor | None,
    *rest: Any,
) -> Tensor:
    """Return d(Σ upstream·sums)/d(logits)."""
    settings = read_arguments(logits.shape[1], rest, tube, shares)
    given, weight = weight, _signed(weight, tube, logits)
    implementation = _implementation(logits, target, weight, settings)
    with torch.autocast(logits.device.type, enabled=False):
        if implementation is compiled:
            return compiled.gradient(logits, target, weight, upstream, settings, shares)
        of_pass = replace(settings, bins=())
        if implementation is plain:
            slopes = [plain.gradient(logits, target, weight, upstream[:, : of_pass.rows], of_pass, shares)]
        else:
            slopes, above = [], upstream[:, : settings.before_hardest]
            for k, (factor, own) in enumerate(_passes(weight, shares, given, of_pass)):
                if k:
                    row = settings.before_hardest + (k - 1) * settings.sides
                    of_side = upstream[:, row : row + settings.sides]
                    above = torch.cat([torch.zeros_like(upstream[:, :FOCAL]), of_side], 1)
                launches = zip(_launches(logits, target, factor), above.split(MOST_SAMPLES), strict=True)
                parts = [implementation.gradient(*part, above, own) for part, above in launches]
                slopes.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        for k, bins in enumerate(settings.bins):
            above = upstream[:, settings.before_bins(k) :][:, : 2 * bins]
            slopes.append(binned.gradient(above, logits, target, given, bins, TargetReading.of(settings)))
        return functools.reduce(Tensor.add_, slopes)


def _passes(
    weight: Tensor | None, shares: Tensor | None, given: Tensor | None, settings: PassSettings
) -> Iterator[tuple[Tensor | None, PassSettings]]:
    """Weights and settings of the pass, and of one over each selection of the hardest voxels by itself."""
    yield weight, replace(settings, hardest=0)
    own = replace(settings, exponents=(0.0,), squared=False, minimum=False, tube=False, hardest=0)
    for share in () if shares is None else shares:
        yield share if given is None else share * given, own


def _launches(logits: Tensor, target: Tensor, weight: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Split a batch into parts of a size that one launch takes."""
    for start in range(0, max(1, len(logits)), MOST_SAMPLES):
        part = slice(start, start + MOST_SAMPLES)
        yield logits[part], target[part], None if weight is None else weight[part]


def _shape_of_sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, tube: Tensor | None, shares: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    batch, classes = logits.shape[:2]
    kind, rows = plain.total_type(logits), read_arguments(classes, rest, tube, shares).rows
    return logits.new_empty((batch, rows, classes), dtype=kind), logits.new_empty(batch, dtype=kind)


def _shape_of_gradient(upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return plain.empty_gradient(logits)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    logits, target, weight, tube, shares, *ctx.rest = inputs
    ctx.save_for_backward(logits, target, weight, tube, shares)


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
    logits, target, weight, tube, shares = ctx.saved_tensors
    none = (None,) * (4 + len(ctx.rest))
    if torch._C._are_functorch_transforms_active():  # a batch of upstream gradients
        settings = read_arguments(logits.shape[1], ctx.rest, tube, shares)
        return composite.gradient(upstream, logits, target, _signed(weight, tube, logits), settings, shares), *none
    return torch.ops.voxloss.sums_gradient(upstream, logits, target, weight, tube, shares, *ctx.rest), *none


def _save_gradient(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    upstream, logits, target, weight, tube, shares, *ctx.rest = inputs
    ctx.save_for_backward(upstream, logits, target, weight, tube, shares)


def _second_backward(ctx: Any, above: Tensor) -> Any:
    upstream, logits, target, weight, tube, shares = ctx.saved_tensors
    settings, weight = read_arguments(logits.shape[1], ctx.rest, tube, shares), _signed(weight, tube, logits)

    def gradient(upstream: Tensor, logits: Tensor) -> Tensor:
        return composite.gradient(upstream, logits, target, weight, settings, shares)

    with torch.autocast(logits.device.type, enabled=False):
        of_upstream, of_logits = torch.func.vjp(gradient, upstream, logits)[1](above)
    return of_upstream, of_logits, *(None,) * (4 + len(ctx.rest))


def _register() -> torch.library.Library | None:
    """Register the operators; None where an earlier import of this package in the same process did."""
    if hasattr(torch.ops.voxloss, "sums"):
        return None
    library = torch.library.Library("voxloss", "FRAGMENT")
    inputs = f"Tensor logits, Tensor target, Tensor? weight, Tensor? tube, Tensor? shares, {SETTINGS}"
    library.define(f"sums({inputs}) -> (Tensor, Tensor)")
    library.define(f"sums_gradient(Tensor upstream, {inputs}) -> Tensor")
    for name, run, shape in (("sums", run_sums, _shape_of_sums), ("sums_gradient", run_gradient, _shape_of_gradient)):
        library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"voxloss::{name}", shape, lib=library)
    torch.library.register_autograd("voxloss::sums", _backward, setup_context=_save, lib=library)
    torch.library.register_autograd(
        "voxloss::sums_gradient", _second_backward, setup_context=_save_gradient, lib=library
    )
    return library


# The registration lasts as long as this object, so torch holds on to it too: a module that is imported a second time
# finds the operators of the first, whose functions are still there.
_LIBRARY = _register()
if _LIBRARY is not None:
    vars(torch.ops.voxloss)["library"] = _LIBRARY
