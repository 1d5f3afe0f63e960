"""The pass over the voxels as one differentiable operator, with an implementation chosen by device.

An operator of torch's dispatcher, not an autograd Function: `torch.compile` takes it into its graph as it is, and the
checks of label values run inside it, where they may look at the data.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.parameters import PerClass
from voxloss.losses.voxel_pass import kernels, plain, targets
from voxloss.losses.voxel_pass.settings import PassSettings

_SETTINGS = "str activation, bool dense, float[] exponents, int? ignore_index, bool check"
_LIBRARY = torch.library.Library("voxloss", "FRAGMENT")
_LIBRARY.define(f"sums(Tensor logits, Tensor target, Tensor? weight, {_SETTINGS}) -> (Tensor, Tensor)")
_LIBRARY.define(f"sums_gradient(Tensor upstream, Tensor logits, Tensor target, Tensor? weight, {_SETTINGS}) -> Tensor")


def sums(logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> tuple[Tensor, Tensor]:
    """(B, S, C) sums in the order of `kernels`, differentiable once, and the counted voxels (B,)."""
    classes = logits.shape[1]
    exponents = [
        number
        for exponent in settings.exponents
        for number in (exponent if isinstance(exponent, tuple) else (exponent,) * classes)
    ]
    return torch.ops.voxloss.sums(
        logits, target, weight, settings.activation, settings.dense, exponents, settings.ignore_index, settings.check
    )


def _settings(classes: int, rest: Sequence[Any]) -> PassSettings:
    activation, dense, numbers, ignore_index, check = rest
    exponents: list[PerClass] = []
    for start in range(0, len(numbers), classes):
        row = tuple(numbers[start : start + classes])
        exponents.append(row[0] if len(set(row)) == 1 else row)  # one number for all classes is quicker
    return PassSettings(activation, dense, tuple(exponents), ignore_index, check)


def _implementation(logits: Tensor) -> ModuleType:
    if not logits.is_cuda or not _has_triton():
        return plain
    from voxloss.losses.voxel_pass import triton

    return triton


@functools.cache
def _has_triton() -> bool:
    if importlib.util.find_spec("triton") is None:
        warnings.warn("Triton is not installed: the losses take the slower path on CUDA", stacklevel=2)
        return False
    return True


def _sums(logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    settings = _settings(logits.shape[1], rest)
    implementation = _implementation(logits)
    with torch.autocast(logits.device.type, enabled=False):
        if settings.check and implementation is not plain:  # which checks chunk by chunk, while they are in cache
            targets.check_values(target, weight, logits.shape[1], settings)
        return implementation.sums(logits, target, weight, settings)


def _sums_gradient(upstream: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> Tensor:
    settings = _settings(logits.shape[1], rest)
    with torch.autocast(logits.device.type, enabled=False):
        return _implementation(logits).gradient(logits, target, weight, upstream, settings)


def _shape_of_sums(logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, classes = logits.shape[:2]
    activation, _, exponents, _, _ = rest
    kind = plain.total_type(logits)
    rows = kernels.rows(activation, len(exponents) // classes)
    return logits.new_empty((batch, rows, classes), dtype=kind), logits.new_empty(batch, dtype=kind)


def _shape_of_gradient(upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return plain.empty_gradient(logits)


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    logits, target, weight, *ctx.rest = inputs
    ctx.save_for_backward(logits, target, weight)


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
    logits, target, weight = ctx.saved_tensors
    gradient = torch.ops.voxloss.sums_gradient(upstream, logits, target, weight, *ctx.rest)
    return gradient, None, None, *(None for _ in ctx.rest)


def _no_second_backward(ctx: Any, _: Tensor) -> Any:
    raise RuntimeError("the losses of voxloss can be differentiated once: there is no gradient of their gradient")


for _name, _run, _shape in (("sums", _sums, _shape_of_sums), ("sums_gradient", _sums_gradient, _shape_of_gradient)):
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"voxloss::{_name}", _shape, lib=_LIBRARY)
torch.library.register_autograd("voxloss::sums", _backward, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd("voxloss::sums_gradient", _no_second_backward, lib=_LIBRARY)
