"""A loss as a pure function of the sums: a pixelwise term, a region term, or both.

Every named loss is a choice of their numbers (`builders`). As the formulas take `VoxelStatistics`, several of them can
share one pass over the voxels; `Compound` does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from voxloss.losses import kernels
from voxloss.losses.parameters import PerClass, check_fraction
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
    Where `foreground_gamma` is given it is the exponent of all but the background, with sigmoid of the positive sides.
    With sigmoid the channels are summed, or with `channel_mean` averaged.
    """

    gamma: PerClass = 0.0
    alpha: PerClass = 1.0
    beta: float | None = None
    scale: float = 1.0
    foreground_gamma: PerClass | None = None
    channel_mean: bool = False

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta, optional=True)

    @property
    def exponents(self) -> tuple[PerClass, ...]:
        """The focal exponents that the statistics must have."""
        return (self.gamma,) if self.foreground_gamma is None else (self.gamma, self.foreground_gamma)

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        positive, negative = statistics.focal_sums(self.gamma)
        if self.foreground_gamma is not None:
            foreground, _ = statistics.focal_sums(self.foreground_gamma)
            positive = foreground if negative is not None else torch.cat([positive[:, :1], foreground[:, 1:]], 1)
        classes = positive.shape[1]
        if isinstance(self.alpha, tuple) and len(self.alpha) != classes:
            raise ValueError(f"alpha has {len(self.alpha)} values {self.alpha} for {classes} classes")
        if self.beta is None:
            total = positive if negative is None else positive + negative
        elif negative is None:
            total = torch.cat([(1 - self.beta) * positive[:, :1], self.beta * positive[:, 1:]], 1)
        else:
            total = self.beta * positive + (1 - self.beta) * negative
        # A number stays a number: making a tensor of it would copy to the device, and wait there.
        alpha = positive.new_tensor(self.alpha) if isinstance(self.alpha, tuple) else self.alpha
        scale = self.scale / classes if self.channel_mean and negative is not None else self.scale
        return scale * (alpha * total).sum() / statistics.voxels.sum().clamp_min(1)


@dataclass(frozen=True)
class Region:
    """scale · mean_b reduce_c curve(1 - index_c, index_c), index(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s).

    `background_exponent`, where given, is the curve's exponent for channel 0 under softmax.
    A sample without any counted voxel, and with absent_class="skip" one without any of the classes, adds 0.
    include_background = None drops channel 0 under softmax only; with sigmoid no channel need be the background.
    """

    delta: float
    curve: Curve
    exponent: float = 1.0
    scale: float = 1.0
    background_exponent: float | None = None
    smooth: float = 1e-6
    include_background: bool | None = True
    class_reduction: Literal["sum", "mean"] = "sum"
    absent_class: Literal["keep", "skip"] = "keep"

    def __post_init__(self) -> None:
        check_fraction("delta", self.delta)

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        first = _first_channel(statistics, self.include_background)
        sums, present = statistics.sums[:, : kernels.FOCAL, first:], statistics.present[:, first:]
        error, index = region_error(sums, self.delta, self.smooth)
        values = self.curve(error, index, self.exponent)
        if self.background_exponent is not None and first == 0 and statistics.activation == "softmax":
            background = self.curve(error[:, :1], index[:, :1], self.background_exponent)
            values = torch.cat([background, values[:, 1:]], 1)
        counted = statistics.voxels[:, None] > 0
        kept = counted & present if self.absent_class == "skip" else counted.expand_as(present)
        values = torch.where(kept, values, 0)
        per_sample = values.sum(1)
        if self.class_reduction == "mean":
            per_sample = per_sample / kept.sum(1).clamp_min(1)
        return self.scale * per_sample.sum() / max(1, len(per_sample))


@dataclass(frozen=True)
class GeneralisedDice:
    """mean_b (1 - index), one index of all classes: Σ w TP + s over Σ w (TP + (FN + FP) / 2) + s.

    w_c = (V_min / V_c)^power with V_c = TP_c + FN_c, the volume of class c in the target, and V_min the smallest of
    them that is not 0: Sudre's 1 / V² up to a factor, which makes the weighted sums voxels of the rarest class, so that
    s is as small beside them as in the other losses. An absent class has the largest weight, 1, or is skipped.
    """

    power: float
    smooth: float = 1e-6
    include_background: bool | None = True
    absent_class: Literal["keep", "skip"] = "keep"

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        first = _first_channel(statistics, self.include_background)
        sums, present = statistics.sums[:, : kernels.FOCAL, first:], statistics.present[:, first:]
        volume = (sums[:, kernels.TRUE_POSITIVE] + sums[:, kernels.FALSE_NEGATIVE]).detach()
        smallest = torch.where(present, volume, torch.inf).amin(1, keepdim=True)
        weight = torch.where(present, (smallest / volume) ** self.power, 0.0 if self.absent_class == "skip" else 1.0)
        error, _ = region_error((sums * weight[:, None]).sum(2), 0.5, self.smooth)
        kept = statistics.voxels > 0
        if self.absent_class == "skip":
            kept = kept & present.any(1)
        return torch.where(kept, error, 0).sum() / max(1, len(error))


class Formula(Protocol):
    """A loss of `VoxelStatistics`; `exponents` are the focal exponents that these must have."""

    @property
    def exponents(self) -> tuple[PerClass, ...]: ...

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """The parts of the loss by name, scaled as they enter its sum."""

    def __call__(self, statistics: VoxelStatistics) -> Tensor: ...


@dataclass(frozen=True)
class Sum:
    """A pixelwise term, a region term, or both added, of the sums pooled as `pool` says.

    Pixelwise terms are a mean over all counted voxels in any case, those of all ranks with "world".
    """

    pixelwise: Pixelwise | None = None
    region: Region | GeneralisedDice | None = None
    pool: Literal["sample", "batch", "world"] = "sample"

    @property
    def exponents(self) -> tuple[PerClass, ...]:
        return () if self.pixelwise is None else self.pixelwise.exponents

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """Each term's part of the loss by name, "pixelwise" or "region"."""
        if self.pool != "sample":
            statistics = statistics.pooled(world=self.pool == "world")
        terms = {"pixelwise": self.pixelwise, "region": self.region}
        return {name: term(statistics) for name, term in terms.items() if term is not None}

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        return torch.stack(list(self.terms(statistics).values())).sum()


def _first_channel(statistics: VoxelStatistics, include_background: bool | None) -> int:
    """0, or 1 where the background is left out."""
    if include_background is None:
        include_background = statistics.activation == "sigmoid"
    if not include_background and statistics.sums.shape[2] == 1:
        raise ValueError("include_background=False leaves nothing of logits with a single channel")
    return 0 if include_background else 1


def region_error(sums: Tensor, delta: float, smooth: float) -> tuple[Tensor, Tensor]:
    """(1 - index, index) of Eq. 9 for `sums` (B, 3, ...), δ on the false negatives.

    The first is computed from the errors, so that it is exact where it is small.
    """
    true_positive, false_positive, false_negative = sums.unbind(1)
    errors = delta * false_negative + (1 - delta) * false_positive
    denominator = (true_positive + errors + smooth).clamp_min(SMALLEST_DENOMINATOR / 2)
    return errors / denominator, (true_positive + smooth) / denominator


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^e for x ≥ 0 with a finite gradient at 0.

    For e < 1 the derivative e·x^(e-1) is infinite at 0 (a perfect prediction), and infinity times the zero that
    follows in the softmax is NaN. Below SMALLEST_ERROR the power is therefore continued by the chord to 0, whose
    slope is finite; the value is off by less than SMALLEST_ERROR^e there, and x = 0 still gives 0.
    """
    chord = x * torch.pow(SMALLEST_ERROR, x.new_full((), exponent - 1))  # a tensor's power is also a symbol's
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


def log_cosh(error: Tensor, index: Tensor, exponent: float) -> Tensor:
    """log cosh(1 - index), as log1p(2 sinh²(x/2)), which is exact where it is small."""
    return torch.log1p(2 * torch.sinh(error / 2) ** 2)
