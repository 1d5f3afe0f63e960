"""The options that all losses share: their types, defaults and description, in one place."""

import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, TypedDict, TypeVar

from voxloss.losses.parameters import check_choice, check_positive


class Options(TypedDict, total=False):
    """Keyword arguments of every loss, beside its own; `DESCRIPTION` says what they do."""

    activation: Literal["softmax", "sigmoid"]
    include_background: bool | None
    ignore_index: int | None
    class_reduction: Literal["sum", "mean"]
    pool: Literal["sample", "batch", "world"]
    absent_class: Literal["keep", "skip"]
    smooth: float
    validate: bool | None


DEFAULTS: Options = {
    "activation": "softmax",
    "include_background": True,
    "ignore_index": None,
    "class_reduction": "sum",
    "pool": "sample",
    "absent_class": "keep",
    "smooth": 1e-6,
    "validate": None,
}
_PASS_OPTIONS = ("activation", "ignore_index", "validate")

DESCRIPTION = """
Shared options:
    activation: "softmax" over the channels, or "sigmoid": every channel its own two-class problem.
    include_background: False drops channel 0 from the region terms; pixelwise terms keep every voxel. None drops it
        under softmax only.
    ignore_index: a label whose voxels are left out of everything and not counted.
    class_reduction: "sum" or "mean" over the classes of the region terms.
    pool: region sums per "sample", then averaged, over the "batch", or over the "world": the batches of all ranks of
        torch.distributed as one, pixelwise terms too. Every rank must then call the loss; the value is the same on all,
        and the gradients averaged over the ranks (DistributedDataParallel does it) are those of the whole batch.
    absent_class: "keep", or "skip" the region terms of classes that the target does not have (per sample, or in the
        batch, as pooled); the mean is then over the others.
    smooth: added to numerator and denominator of the index.
    validate: whether the values of labels are checked; None: on the CPU only, where it does not wait for a device.
"""

Shown = TypeVar("Shown", bound=Callable[..., Any])


def split(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the options given and part them into those of the formula and those of the pass over the voxels.

    Raises:
        TypeError: an option that does not exist.
        ValueError: a value that an option cannot have.
    """
    given = dict(options)
    unknown = ", ".join(sorted(given.keys() - DEFAULTS.keys()))
    if unknown:
        raise TypeError(f"unknown argument {unknown}; the shared options are {', '.join(DEFAULTS)}")
    merged: dict[str, Any] = {**DEFAULTS, **options}
    check_choice("activation", merged["activation"], ("softmax", "sigmoid"))
    check_choice("include_background", merged["include_background"], (True, False, None))
    check_choice("class_reduction", merged["class_reduction"], ("sum", "mean"))
    check_choice("pool", merged["pool"], ("sample", "batch", "world"))
    check_choice("absent_class", merged["absent_class"], ("keep", "skip"))
    check_choice("validate", merged["validate"], (True, False, None))
    check_positive("smooth", merged["smooth"], or_zero=True)
    index = merged["ignore_index"]
    if index is not None and (isinstance(index, bool) or not isinstance(index, Integral)):
        raise ValueError(f"ignore_index must be a whole number or None, received {index!r}")
    in_pass = {name: merged[name] for name in _PASS_OPTIONS}
    return {name: value for name, value in given.items() if name not in _PASS_OPTIONS}, in_pass


def show_options(formula: Callable[..., Any]) -> Callable[[Shown], Shown]:
    """Spell out `**options` in the signature and docstring that help() shows, with the defaults of this formula."""

    def show(shown: Shown) -> Shown:
        own = inspect.signature(shown)
        defaults = {**DEFAULTS, **{p.name: p.default for p in inspect.signature(formula).parameters.values()}}
        kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=Options.__annotations__[name]
            )
            for name in DEFAULTS
        ]
        shown.__signature__ = own.replace(parameters=kept + added)  # type: ignore[attr-defined]
        if shown.__doc__ is not None:
            shown.__doc__ = inspect.cleandoc(shown.__doc__) + "\n" + DESCRIPTION
        return shown

    return show
