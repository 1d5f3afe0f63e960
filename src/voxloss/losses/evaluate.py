"""From logits and labels to a loss: one pass over the voxels, then the formula."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.formulas import Formula
from voxloss.losses.options import Options, split
from voxloss.losses.statistics import voxel_statistics


def evaluate(
    formula: Formula,
    logits: Tensor,
    labels: Tensor,
    *,
    activation: str = "softmax",
    ignore_index: int | None = None,
    voxel_weight: Tensor | None = None,
    validate: bool | None = None,
) -> Tensor:
    """One pass over the voxels, and the formula over its sums, in the logits' type or float32 if that is more."""
    statistics = voxel_statistics(
        logits,
        labels,
        focal_exponents=formula.exponents,
        activation=activation,
        ignore_index=ignore_index,
        voxel_weight=voxel_weight,
        validate=validate,
    )
    return formula(statistics).to(torch.promote_types(logits.dtype, torch.float32))


def evaluate_named(
    build: Callable[..., Formula],
    logits: Tensor,
    labels: Tensor,
    voxel_weight: Tensor | None,
    options: Options,
    **parameters: Any,
) -> Tensor:
    """`evaluate` of the formula that `build` makes of a loss's own parameters and the shared options."""
    of_formula, of_pass = split(options)
    return evaluate(build(**parameters, **of_formula), logits, labels, voxel_weight=voxel_weight, **of_pass)
