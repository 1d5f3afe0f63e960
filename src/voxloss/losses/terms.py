"""The terms of a loss, pure functions of `VoxelStatistics`: pixelwise terms, region terms, and their sum.

As they take the statistics, several losses can share one pass over the voxels; `Compound` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from voxloss.losses.curves import Curve, Index
from voxloss.losses.parameters import AbsentClass, IgnoredSamples, Overlap, Pool, Reduction
from voxloss.losses.voxel_pass import distributed
from voxloss.losses.voxel_pass.further.passes import (
    CentreLines,
    DistancePass,
    HardestVoxels,
    HausdorffPass,
    JaccardPass,
)
from voxloss.losses.voxel_pass.lesions.statistics import LesionStatistics
from voxloss.losses.voxel_pass.settings import FALSE_NEGATIVE, TRUE_POSITIVE
from voxloss.losses.voxel_pass.statistics import Bins, Further, VoxelStatistics

# The doubled denominator of an index is clamped to at least this value, as in nnU-Net; matters where smooth < 1e-8.
SMALLEST_DENOMINATOR = 1e-8
# The same of the product under the root of Matthews's correlation.
SMALLEST_PRODUCT = 1e-30

# What a term is of; records of training name terms by it.
Kind = Literal["pixelwise", "region", "lesion", "skeleton", "calibration", "boundary", "order"]


class Term(Protocol):
    """A part of a loss. `kind` names it in records of training."""

    @property
    def kind(self) -> Kind:
        """Whether it is a pixelwise or region term, or one of lesions, skeletons, calibration, borders or the order."""

    @property
    def exponents(self) -> tuple[float | Sequence[float], ...]:
        """The focal exponents that the statistics must have."""

    @property
    def overlap(self) -> Overlap:
        """The kind of overlap that the statistics must have."""

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""


@dataclass(frozen=True)
class Pixelwise:
    """scale · (1/N) Σ α_y w_y (1-p_y)^γ (-log p_y), N the counted voxels of the batch.

    w is 1-β for the background (channel 0) and β for the other classes; with sigmoid β for the positive and 1-β for
    the negative side of every channel, while α_c goes with both sides of channel c. β = None: w = 1.
    Where `foreground_gamma` is set it is the exponent of all but the background, with sigmoid of the positive sides.
    With sigmoid the channels are summed, or with `channel_mean` averaged. α and γ are a number or a tuple.
    Where the counted voxels differ among channels, N is that of each, and an average is over those that have any.
    `by_class`: the parts of the channels, (C,), instead of their sum.
    `hardest`: sum and N are over these voxels alone, of the cross entropy (γ = 0).
    """

    gamma: float | Sequence[float] = 0.0
    alpha: float | Sequence[float] = 1.0
    beta: float | None = None
    scale: float = 1.0
    foreground_gamma: float | Sequence[float] | None = None
    channel_mean: bool = False
    by_class: bool = False
    hardest: HardestVoxels | None = None

    kind: ClassVar[Literal["pixelwise"]] = "pixelwise"
    overlap: ClassVar[Overlap] = "product"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return () if self.hardest is None else (self.hardest,)

    @property
    def exponents(self) -> tuple[float | Sequence[float], ...]:
        """The focal exponents that the statistics must have."""
        if self.hardest is not None:
            return ()
        return (self.gamma,) if self.foreground_gamma is None else (self.gamma, self.foreground_gamma)

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""
        if self.hardest is not None:
            statistics = statistics.further[self.hardest]
        positive, negative = statistics.focal_sums(self.gamma)
        if self.foreground_gamma is not None:
            foreground, _ = statistics.focal_sums(self.foreground_gamma)
            positive = foreground if negative is not None else torch.cat([positive[:, :1], foreground[:, 1:]], 1)
        classes = positive.shape[1]
        # A number stays a number: making a tensor of it would copy to the device, and wait there.
        alpha: float | Tensor
        if isinstance(self.alpha, Sequence):
            if len(self.alpha) != classes:
                raise ValueError(f"alpha has {len(self.alpha)} values {self.alpha} for {classes} classes")
            alpha = positive.new_tensor(self.alpha)
        else:
            alpha = self.alpha
        if self.beta is None:
            total = positive if negative is None else positive + negative
        elif negative is None:
            total = torch.cat([(1 - self.beta) * positive[:, :1], self.beta * positive[:, 1:]], 1)
        else:
            total = self.beta * positive + (1 - self.beta) * negative
        if statistics.sample_weight is not None:
            total = total * statistics.sample_weight[:, None]
        scale: float | Tensor = self.scale
        channels: int | Tensor = classes
        if statistics.channel_voxels is None:
            voxels = statistics.voxels.sum().clamp_min(1)
        else:
            counts = statistics.channel_voxels.sum(0)
            total, voxels = total / counts.clamp_min(1), counts.new_ones(())
            channels = (counts > 0).to(counts.dtype).sum().clamp_min(1)
        if self.channel_mean and negative is not None:
            scale = scale / channels
        parts = (alpha * total).sum(0) if self.by_class else (alpha * total).sum()
        return scale * parts / voxels


@dataclass(frozen=True, kw_only=True)
class OfClasses:
    """scale · mean_b reduce_c cost_c, a cost of each class; `costs` says which.

    A sample without any counted voxel is left out of the mean, or with ignored_samples="keep" adds 0; with
    absent_class="skip" one without any of the classes adds 0.
    include_background = None drops channel 0 under softmax only; with sigmoid no channel need be the background.
    `class_weight` w, one per channel, multiplies each class's cost; a mean over classes is then Σ w cost / Σ w.
    "inverse_volume": w_c = V_min / V_c with V_c = TP_c + FN_c, the volume of class c in the target of a sample (or of
    the pool), V_min the smallest that is not 0, and 1 for an absent class.
    """

    scale: float = 1.0
    smooth: float = 1e-6
    include_background: bool | None = True
    class_reduction: Reduction = "sum"
    absent_class: AbsentClass = "keep"
    ignored_samples: IgnoredSamples = "skip"
    class_weight: tuple[float, ...] | str | None = None
    overlap: Overlap = "product"

    kind: ClassVar[Kind] = "region"
    exponents: ClassVar[tuple[float, ...]] = ()

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        raise NotImplementedError

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""
        first = _first_channel(statistics, self.include_background)
        present = statistics.present[:, first:]
        values = self.costs(statistics, first)
        counted = statistics.counted[:, first:]
        kept = counted & present if self.absent_class == "skip" else counted
        weight = self._weight(statistics, present, first)
        per_sample = _of_classes(values, kept, weight, first, self.class_reduction)
        return self.scale * _mean_of_samples(per_sample, statistics, self.ignored_samples)

    def _weight(self, statistics: VoxelStatistics, present: Tensor, first: int) -> Tensor | None:
        if self.class_weight is None:
            return None
        if isinstance(self.class_weight, str):
            return _inverse_volume(statistics.sums[:, :, first:], present, 1.0)
        weight = _one_each("class_weight", self.class_weight, statistics.sums.shape[2])
        return statistics.sums.new_tensor(weight[first:])


@dataclass(frozen=True, kw_only=True)
class Region(OfClasses):
    """scale · mean_b reduce_c curve(index_c), index(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s).

    TP, FP and FN are the sums of `VoxelStatistics.overlap`.
    `background_curve`, where set, is the curve of channel 0 under softmax.
    """

    delta: float
    curve: Curve
    background_curve: Curve | None = None

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        index = tversky_index(statistics.overlap(self.overlap)[:, :, first:], self.delta, self.smooth)
        values = self.curve(index)
        if self.background_curve is not None and first == 0 and statistics.activation == "softmax":
            background = self.background_curve(Index(index.value[:, :1], index.error[:, :1]))
            values = torch.cat([background, values[:, 1:]], 1)
        return values


@dataclass(frozen=True, kw_only=True)
class Matthews(OfClasses):
    """scale · mean_b reduce_c (1 - MCC_c), the correlation of p and t.

    MCC = (TP·TN - FP·FN) / √((TP + FP)·(TP + FN)·(TN + FP)·(TN + FN) + s), and 1 where FP and FN are 0.
    """

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        tp, fp, fn = statistics.sums[:, : FALSE_NEGATIVE + 1, first:].unbind(1)
        tn = statistics.true_negative[:, first:]
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        root = (product + self.smooth).clamp_min(SMALLEST_PRODUCT).sqrt()
        above = tp * tn - fp * fn
        # 1 - MCC has no digits left where the prediction is nearly perfect. There it is (root² - above²) divided by
        # root·(root + above), where the difference of the squares is a sum without a minus.
        errors, right = fp + fn, tp * tn
        crossed = fp * fn * (tp * (tp + errors) + tn * (tn + errors) + 2 * right)
        squares = right * errors * (tp + tn + errors) + crossed + self.smooth
        cost = torch.where(above > 0, squares / (root * (root + above.clamp_min(0))), 1 - above / root)
        return torch.where((fp == 0) & (fn == 0), 0, cost)


@dataclass(frozen=True, kw_only=True)
class Recall(OfClasses):
    """scale · mean_b reduce_c -(TP + s) / (TP + FN + s), the sums over the tubes around the skeletons."""

    kind: ClassVar[Kind] = "skeleton"

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        found, missed = statistics.in_tube[:, :, first:].unbind(1)
        return -(found + self.smooth) / (found + missed + self.smooth).clamp_min(SMALLEST_DENOMINATOR)


@dataclass(frozen=True, kw_only=True)
class CentreLine(OfClasses):
    """scale · mean_b reduce_c (1 - 2ab / (a + b)), the clDice of soft skeletons S.

    a = (Σ S(p)·t + s) / (Σ S(p) + s), b = (Σ S(t)·p + s) / (Σ S(t) + s).
    """

    skeletons: CentreLines

    kind: ClassVar[Kind] = "skeleton"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return (self.skeletons,)

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        sums = statistics.further[self.skeletons].sums[:, :, first:]
        covered, excess, found, missed = sums.unbind(1)
        of_prediction = (covered + excess + self.smooth).clamp_min(SMALLEST_DENOMINATOR)
        of_target = (found + missed + self.smooth).clamp_min(SMALLEST_DENOMINATOR)
        precision, sensitivity = (covered + self.smooth) / of_prediction, (found + self.smooth) / of_target
        # 1 - 2ab / (a + b) from 1 - a and 1 - b, which have digits left where the prediction is nearly perfect.
        errors = precision * (missed / of_target) + sensitivity * (excess / of_prediction)
        nothing = precision + sensitivity == 0
        return torch.where(nothing, 1, errors / torch.where(nothing, 1, precision + sensitivity))


@dataclass(frozen=True, kw_only=True)
class Calibration(OfClasses):
    """scale · mean_b reduce_c ACE_c, the mean over the bins of p with a voxel of |Σ (p-t)| / Σ 1."""

    bins: Bins

    kind: ClassVar[Kind] = "calibration"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return (self.bins,)

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        errors, numbers = statistics.further[self.bins].sums[:, :, first:].chunk(2, 1)
        numbers = numbers.detach()
        filled = numbers > 0
        each = torch.where(filled, errors.abs() / torch.where(filled, numbers, 1), 0)
        return each.sum(1) / filled.sum(1).clamp_min(1)


@dataclass(frozen=True, kw_only=True)
class Boundary(OfClasses):
    """scale · mean_b reduce_c (1/N) Σ φ_c p_c over the N counted voxels, φ_c the signed distance to the class's border.

    A class that the target does not have costs 0, whatever distances are given.
    """

    distances: DistancePass

    kind: ClassVar[Kind] = "boundary"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return (self.distances,)

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        return torch.where(statistics.present, _mean_of_voxels(statistics.further[self.distances]), 0)[:, first:]


@dataclass(frozen=True, kw_only=True)
class Hausdorff(OfClasses):
    """scale · mean_b reduce_c (1/N) Σ (p_c - t_c)² (d_t^α + d_p^α) over the N counted voxels.

    d_t and d_p are the distances to the border of class c in the labels and in the prediction.
    """

    distances: HausdorffPass

    kind: ClassVar[Kind] = "boundary"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return (self.distances,)

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        return _mean_of_voxels(statistics.further[self.distances])[:, first:]


@dataclass(frozen=True, kw_only=True)
class Lovasz(OfClasses):
    """scale · mean_b reduce_c of the Lovász extension of the Jaccard loss of class c at the errors of its voxels.

    Σ_k e_k (J_k - J_(k-1)) over the errors e in falling order, 1-p of a voxel of the class and p of another; J_k is the
    Jaccard loss of a prediction that is wrong in the first k voxels alone.
    """

    order: JaccardPass

    kind: ClassVar[Kind] = "order"

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""
        return (self.order,)

    def costs(self, statistics: VoxelStatistics, first: int) -> Tensor:
        """Return the costs (B, C - first) of the classes from channel `first` on."""
        return statistics.further[self.order].sums[:, 0, first:]


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
    absent_class: AbsentClass = "keep"
    ignored_samples: IgnoredSamples = "skip"
    overlap: Overlap = "product"

    kind: ClassVar[Literal["region"]] = "region"
    exponents: ClassVar[tuple[float, ...]] = ()

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""
        first = _first_channel(statistics, self.include_background)
        sums, present = statistics.overlap(self.overlap)[:, :, first:], statistics.present[:, first:]
        absent = 0.0 if self.absent_class == "skip" else 1.0
        weight = _inverse_volume(statistics.sums[:, :, first:], present, self.power, absent)
        error = tversky_index((sums * weight[:, None]).sum(2), 0.5, self.smooth).error
        kept = statistics.voxels > 0
        if self.absent_class == "skip":
            kept = kept & present.any(1)
        return _mean_of_samples(torch.where(kept, error, 0), statistics, self.ignored_samples)


@dataclass(frozen=True)
class PerLesion:
    """scale · mean_b reduce_c mean_k cost_ck of the lesions k of class c in sample b.

    cost = 1 - (TP + s) / (TP + (FN + FP) / 2 + s) + entropy · (1/N) Σ (t·(-log p) + (1-t)·(-log(1-p))), the class
    against the rest, over the N counted voxels of the lesion's `domain`: its "region", nearer to it than to the other
    lesions of the class, or "blob", all voxels but those of the other lesions.

    Where a sample has no lesion of a class, the cost is that of all its voxels, or with absent_class="skip" the class
    is left out. Channel 0 has no lesions under softmax. Lesions are averaged in each sample, however region sums are
    pooled. The other parameters are those of `Region`.
    """

    domain: Literal["region", "blob"]
    entropy: float = 1.0
    scale: float = 1.0
    smooth: float = 0.0
    include_background: bool | None = None
    class_reduction: Reduction = "mean"
    absent_class: AbsentClass = "keep"
    ignored_samples: IgnoredSamples = "skip"
    class_weight: tuple[float, ...] | None = None

    kind: ClassVar[Literal["lesion"]] = "lesion"
    exponents: ClassVar[tuple[float, ...]] = ()
    overlap: ClassVar[Overlap] = "product"

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""
        lesions = statistics.lesions
        if lesions is None:
            raise ValueError("the sums of lesions were not asked for")
        values, there = self._of_each_class(lesions)
        classes = statistics.sums.shape[2]
        having = classes - values.shape[1]  # the first channel that can have lesions
        first = max(having, _first_channel(statistics, self.include_background))
        values, there = values[:, first - having :], there[:, first - having :]
        weight = None
        if self.class_weight is not None:
            weight = values.new_tensor(_one_each("class_weight", self.class_weight, classes)[first:])
        per_sample = _of_classes(values, there, weight, first, self.class_reduction)
        return self.scale * self._mean(per_sample, there, lesions)

    def _of_each_class(self, lesions: LesionStatistics) -> tuple[Tensor, Tensor]:
        """The mean cost of the lesions, (B, F), and which classes count in it."""
        present = lesions.present
        costs = self._cost(*(lesions.regions() if self.domain == "region" else lesions.domains()))
        number = lesions.of_owner(present.to(costs.dtype))
        mean = lesions.of_owner(torch.where(present, costs, 0)) / number.clamp_min(1)
        sums, voxels = lesions.whole()
        values = torch.where(number > 0, mean, self._cost(sums, voxels))
        there = number > 0 if self.absent_class == "skip" else voxels > 0
        return values.view_as(lesions.offsets), there.view_as(lesions.offsets)

    def _mean(self, per_sample: Tensor, there: Tensor, lesions: LesionStatistics) -> Tensor:
        """The mean over the samples that count: with absent_class="skip" not those without a class that does."""
        counted = lesions.counted > 0
        if self.absent_class == "skip":
            counted = counted & there.any(1)
        if self.ignored_samples == "keep":
            counted = counted | (lesions.counted == 0)
        if lesions.sample_weight is not None:
            factor = lesions.sample_weight
            per_sample = per_sample * (factor if per_sample.ndim == 1 else factor[:, None])
        if lesions.sample is not None:
            per_sample, counted = per_sample[lesions.sample, None], counted[lesions.sample, None]
        total, number = per_sample.sum(0), counted.sum().to(per_sample.dtype)
        if lesions.world:
            total, of_all = distributed.sum_over_ranks(total, number[None])
            number = of_all[0]
        return total / number.clamp_min(1)

    def _cost(self, sums: Tensor, voxels: Tensor) -> Tensor:
        cost = tversky_index(sums[:3].unsqueeze(0), 0.5, self.smooth).error.squeeze(0)
        return cost + self.entropy * sums[3] / voxels.clamp_min(1) if self.entropy else cost


class Formula(Protocol):
    """A loss of `VoxelStatistics`; its properties say which sums these must have."""

    @property
    def exponents(self) -> tuple[float | Sequence[float], ...]:
        """The focal exponents that the statistics must have."""

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The kinds of overlap that the statistics must have."""

    @property
    def lesions(self) -> bool:
        """Whether the statistics must have the sums over lesions."""

    @property
    def tubes(self) -> bool:
        """Whether the statistics must have the sums in the tubes around skeletons."""

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have."""

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """The parts of the loss by name, scaled as they enter its sum."""

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""


@dataclass(frozen=True)
class Sum:
    """The sum of `parts`, of the statistics pooled as `pool` says.

    Pixelwise terms are a mean over all counted voxels in any case, those of all ranks with "world".
    """

    parts: tuple[Term, ...]
    pool: Pool = "sample"

    @property
    def exponents(self) -> tuple[float | Sequence[float], ...]:
        """The focal exponents that the statistics must have."""
        return tuple(exponent for part in self.parts for exponent in part.exponents)

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The kinds of overlap that the statistics must have."""
        return tuple(part.overlap for part in self.parts)

    @property
    def lesions(self) -> bool:
        """Whether the statistics must have the sums over lesions."""
        return any(isinstance(part, PerLesion) for part in self.parts)

    @property
    def tubes(self) -> bool:
        """Whether the statistics must have the sums in the tubes around skeletons."""
        return any(isinstance(part, Recall) for part in self.parts)

    @property
    def further(self) -> tuple[Further, ...]:
        """The further passes that the statistics must have, each once."""
        return tuple(dict.fromkeys(one for part in self.parts for one in getattr(part, "further", ())))

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """Each part's value by its kind, numbered where two parts are of one kind."""
        names = numbered([part.kind for part in self.parts])
        return dict(zip(names, self._values(statistics), strict=True))

    def _values(self, statistics: VoxelStatistics) -> list[Tensor]:
        if self.pool != "sample":
            statistics = statistics.pooled(world=self.pool == "world")
        return [part(statistics) for part in self.parts]

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the value."""
        return torch.stack(self._values(statistics)).sum(0)


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names; those that occur more than once get their place, counted from 1."""
    return [f"{name} {k + 1}" if sum(name == other for other in names) > 1 else name for k, name in enumerate(names)]


def tversky_index(sums: Tensor, delta: float, smooth: float) -> Index:
    """Return (TP + s) / (TP + δ·FN + (1-δ)·FP + s) of `sums` (B, 3, ...), which are TP, FP and FN."""
    true_positive, false_positive, false_negative = sums.unbind(1)
    errors = delta * false_negative + (1 - delta) * false_positive
    denominator = (true_positive + errors + smooth).clamp_min(SMALLEST_DENOMINATOR / 2)
    return Index((true_positive + smooth) / denominator, errors / denominator)


def _one_each(name: str, values: tuple[float, ...], classes: int) -> tuple[float, ...]:
    if len(values) != classes:
        raise ValueError(f"{name} has {len(values)} values {values} for {classes} classes")
    return values


def _mean_of_voxels(statistics: VoxelStatistics) -> Tensor:
    """Return the first sum of each class divided by the number of its counted voxels, (B, C)."""
    voxels = statistics.voxels[:, None] if statistics.channel_voxels is None else statistics.channel_voxels
    return statistics.sums[:, 0] / voxels.clamp_min(1)


def _of_classes(values: Tensor, kept: Tensor, weight: Tensor | None, first: int, reduction: Reduction) -> Tensor:
    """Reduce the costs (B, C - first) of the classes `kept` to (B,), or with "none" to (B, C)."""
    values = torch.where(kept, values, 0)
    if weight is not None:
        values = values * weight
    if reduction == "none":
        return torch.cat([values.new_zeros(values.shape[0], first), values], 1)  # 0 of a class that is left out
    per_sample = values.sum(1)
    if reduction == "mean":
        counts = kept.sum(1).clamp_min(1) if weight is None else _not_zero((kept * weight).sum(1))
        per_sample = per_sample / counts
    return per_sample


def _mean_of_samples(values: Tensor, statistics: VoxelStatistics, ignored_samples: IgnoredSamples) -> Tensor:
    """Average values (B, ...) over the samples, by default over those with a counted voxel."""
    if statistics.sample_weight is not None:
        weight = statistics.sample_weight
        values = values * (weight if values.ndim == 1 else weight[:, None])
    total = values.sum() if values.ndim == 1 else values.sum(0)
    if ignored_samples == "keep":
        return total / max(1, len(values))
    return total / (statistics.voxels > 0).sum().clamp_min(1)


def _inverse_volume(sums: Tensor, present: Tensor, power: float, absent: float = 1.0) -> Tensor:
    """(V_min / V_c)^power of every sample and class, without gradient."""
    volume = (sums[:, TRUE_POSITIVE] + sums[:, FALSE_NEGATIVE]).detach()
    smallest = torch.where(present, volume, torch.inf).amin(1, keepdim=True)
    return torch.where(present, (smallest / volume) ** power, absent)


def _not_zero(values: Tensor) -> Tensor:
    return torch.where(values == 0, 1, values)


def _first_channel(statistics: VoxelStatistics, include_background: bool | None) -> int:
    """Return 1 if the background is excluded, else 0."""
    if include_background is None:
        include_background = statistics.activation == "sigmoid"
    if not include_background and statistics.sums.shape[2] == 1:
        raise ValueError("include_background=False leaves nothing of logits with a single channel")
    return 0 if include_background else 1


def needs(formula: Formula) -> dict[str, Any]:
    """Return which sums a formula needs, keyword arguments of `voxel_statistics`."""
    return {
        "focal_exponents": formula.exponents,
        "overlaps": formula.overlaps,
        "lesions": formula.lesions,
        "tubes": formula.tubes,
        "further": formula.further,
    }
