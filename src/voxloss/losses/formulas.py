"""A loss as a pure function of the sums: a pixelwise term, a region term, or both.

One kernel each: the weighted mean of (1-p)^γ (-log p), and a curve over the region index. Every named loss is a choice
of their numbers. As the formulas take `VoxelStatistics`, several of them can share one pass over the voxels:

    formulas = [formula_a, formula_b]
    exponents = [exponent for formula in formulas for exponent in formula.exponents]
    statistics = voxel_statistics(logits, labels, focal_exponents=exponents)
    values = [formula(statistics) for formula in formulas]
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from voxloss.losses.parameters import PerClass, check_fraction, check_positive, per_class
from voxloss.losses.statistics import VoxelStatistics

# Twice a denominator below this is lifted to it, as in nnU-Net; it matters only where smooth < 1e-8.
SMALLEST_DENOMINATOR = 1e-8
# Below this error x a power x^e with e < 1 is continued by its chord, see `_power`.
SMALLEST_ERROR = 1e-30

Curve = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Pixelwise:
    """scale · (1/N) Σ α_y w_y (1-p_y)^γ (-log p_y), N the counted voxels of the batch.

    w is 1-β for the background (channel 0) and β for the other classes; with sigmoid β for the positive and 1-β for
    the negative side of every channel, while α_c goes with both sides of channel c. β = None: w = 1.
    """

    gamma: PerClass = 0.0
    alpha: PerClass = 1.0
    beta: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta, optional=True)

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        positive, negative = statistics.focal_sums(self.gamma)
        classes = positive.shape[1]
        if isinstance(self.alpha, tuple) and len(self.alpha) != classes:
            raise ValueError(f"alpha has {len(self.alpha)} values {self.alpha} for {classes} classes")
        if self.beta is None:
            total = positive if negative is None else positive + negative
        elif negative is None:
            weights = [1 - self.beta] + [self.beta] * (classes - 1)
            total = positive * positive.new_tensor(weights)
        else:
            total = self.beta * positive + (1 - self.beta) * negative
        alpha = positive.new_tensor(self.alpha)
        return self.scale * (alpha * total).sum() / statistics.voxels.sum().clamp_min(1)


@dataclass(frozen=True)
class Region:
    """scale · mean_b reduce_c curve(1 - index_c, index_c), index(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s).

    A sample without any counted voxel, and with absent_class="skip" one without any of the classes, adds 0.
    include_background = None drops channel 0 under softmax only; with sigmoid no channel need be the background.
    """

    delta: float
    curve: Curve
    exponent: float = 1.0
    scale: float = 1.0
    smooth: float = 1e-6
    include_background: bool | None = True
    class_reduction: Literal["sum", "mean"] = "sum"
    pool: Literal["sample", "batch"] = "sample"
    absent_class: Literal["keep", "skip"] = "keep"

    def __post_init__(self) -> None:
        check_fraction("delta", self.delta)

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        sums = torch.stack([statistics.true_positive, statistics.false_positive, statistics.false_negative])
        present, counted = statistics.present, statistics.voxels[:, None] > 0
        background = statistics.activation == "sigmoid" if self.include_background is None else self.include_background
        if not background:
            if sums.shape[2] == 1:
                raise ValueError("include_background=False leaves nothing of logits with a single channel")
            sums, present = sums[:, :, 1:], present[:, 1:]
        if self.pool == "batch":
            sums, present, counted = sums.sum(1, keepdim=True), present.any(0, keepdim=True), counted.any(0)[None]
        values = self.curve(*region_error(sums, self.delta, self.smooth), self.exponent)
        kept = counted & present if self.absent_class == "skip" else counted.expand_as(present)
        values = torch.where(kept, values, 0)
        per_sample = values.sum(1)
        if self.class_reduction == "mean":
            per_sample = per_sample / kept.sum(1).clamp_min(1)
        return self.scale * per_sample.sum() / max(1, len(per_sample))


@dataclass(frozen=True)
class Formula:
    """The sum of its terms. `exponents` are the focal exponents that its statistics must have."""

    pixelwise: Pixelwise | None = None
    region: Region | None = None

    @property
    def exponents(self) -> tuple[PerClass, ...]:
        return () if self.pixelwise is None else (self.pixelwise.gamma,)

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """Each term's part of the loss by name, "pixelwise" or "region", scaled as it enters the sum."""
        terms = {"pixelwise": self.pixelwise, "region": self.region}
        return {name: term(statistics) for name, term in terms.items() if term is not None}

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        return torch.stack(list(self.terms(statistics).values())).sum()


def region_error(sums: Tensor, delta: float, smooth: float) -> tuple[Tensor, Tensor]:
    """(1 - index, index) of Eq. 9, δ on the false negatives; the first from the errors, so exact where it is small."""
    true_positive, false_positive, false_negative = sums
    errors = delta * false_negative + (1 - delta) * false_positive
    denominator = (true_positive + errors + smooth).clamp_min(SMALLEST_DENOMINATOR / 2)
    return errors / denominator, (true_positive + smooth) / denominator


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^e for x ≥ 0 with a finite gradient at 0.

    For e < 1 the derivative e·x^(e-1) is infinite at 0 (a perfect prediction), and infinity times the zero that
    follows in the softmax is NaN. Below SMALLEST_ERROR the power is therefore continued by the chord to 0, whose
    slope is finite; the value is off by less than SMALLEST_ERROR^e there, and x = 0 still gives 0.
    """
    chord = x * SMALLEST_ERROR ** (exponent - 1)
    return torch.where(x < SMALLEST_ERROR, chord, x.clamp_min(SMALLEST_ERROR) ** exponent)


def error_power(error: Tensor, index: Tensor, exponent: float) -> Tensor:
    """(1 - index)^e: Dice, Tversky (e = 1) and focal Tversky (e = 1/γ)."""
    return _power(error, exponent)


def cosine_power(error: Tensor, index: Tensor, exponent: float) -> Tensor:
    """cos^e(π/2 · index), as the sine of the complement, which is exact where the cosine is small."""
    return _power(torch.sin(math.pi / 2 * error), exponent)


def negative_index(error: Tensor, index: Tensor, exponent: float) -> Tensor:
    """-index: what Combo subtracts."""
    return -index


# One formula per loss of the catalogue, by its name there. `region` are the options of `Region`.


def cross_entropy(*, beta: float | None, **region: Any) -> Formula:
    return Formula(Pixelwise(beta=beta))


def focal(
    *, alpha: float | Sequence[float], gamma: float | Sequence[float], beta: float | None, **region: Any
) -> Formula:
    return Formula(Pixelwise(per_class("gamma", gamma), per_class("alpha", alpha), beta))


def dice(**region: Any) -> Formula:
    return tversky(delta=0.5, **region)


def tversky(*, delta: float, **region: Any) -> Formula:
    return Formula(region=Region(delta, error_power, **region))


def focal_tversky(*, delta: float, gamma: float, **region: Any) -> Formula:
    check_positive("gamma", gamma)
    return Formula(region=Region(delta, error_power, 1 / gamma, **region))


def cosine_tversky(*, delta: float, gamma: float, **region: Any) -> Formula:
    check_positive("gamma", gamma)
    return Formula(region=Region(delta, cosine_power, gamma, **region))


def combo(
    *, alpha: float | None, beta: float | None, class_reduction: Literal["sum", "mean"] = "mean", **region: Any
) -> Formula:
    check_fraction("alpha", alpha, optional=True)
    entropy, overlap = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    index = Region(0.5, negative_index, scale=overlap, class_reduction=class_reduction, **region)
    return Formula(Pixelwise(beta=beta, scale=entropy), index)


def modified_combo(*, alpha: float, beta: float | None, delta: float, **region: Any) -> Formula:
    check_fraction("alpha", alpha)
    return Formula(Pixelwise(beta=beta, scale=alpha), Region(delta, error_power, scale=1 - alpha, **region))


def mixed_focal(
    *,
    weight: float | None,
    alpha: float | Sequence[float],
    beta: float | None,
    delta: float,
    gamma_focal: float | Sequence[float],
    gamma_tversky: float,
    **region: Any,
) -> Formula:
    check_fraction("weight", weight, optional=True)
    check_positive("gamma_tversky", gamma_tversky)
    pixelwise, overlap = (1.0, 1.0) if weight is None else (weight, 1 - weight)
    return Formula(
        Pixelwise(per_class("gamma_focal", gamma_focal), per_class("alpha", alpha), beta, pixelwise),
        Region(delta, error_power, 1 / gamma_tversky, overlap, **region),
    )


def dice_cross_entropy(
    *,
    include_background: bool | None = None,
    class_reduction: Literal["sum", "mean"] = "mean",
    pool: Literal["sample", "batch"] = "batch",
    smooth: float = 1e-5,
    **region: Any,
) -> Formula:
    # nnU-Net adds its smoothing to 2·TP and to 2·TP + FP + FN, which are twice the parts of the index.
    index = Region(
        0.5,
        negative_index,
        smooth=smooth / 2,
        include_background=include_background,
        class_reduction=class_reduction,
        pool=pool,
        **region,
    )
    return Formula(Pixelwise(), index)
