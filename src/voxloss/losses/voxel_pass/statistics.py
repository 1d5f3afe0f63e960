"""From logits and labels to the sums that every loss is computed from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from voxloss.losses.parameters import PER_CLASS, IgnoreScope, Inputs, Overlap, PerClass
from voxloss.losses.voxel_pass import distributed, operator, targets
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.lesions.statistics import LesionStatistics, lesion_statistics
from voxloss.losses.voxel_pass.plain import total_type
from voxloss.losses.voxel_pass.settings import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    FOCAL,
    MINIMA,
    TRUE_POSITIVE,
    PassSettings,
)
from voxloss.losses.voxel_pass.skeletons import read_tubes


@dataclass(frozen=True)
class VoxelStatistics:
    """Sums over the counted voxels of each sample b and class c; differentiable, each (B, C), float64 where there is.

    true_positive Σ p·t, false_positive Σ p·(1-t), false_negative Σ (1-p)·t, `focal[k]` Σ t (1-p)^γ_k (-log p) for
    γ_k = `focal_exponents[k]`, and with sigmoid `focal_negative[k]` Σ (1-t) p^γ_k (-log(1-p)) (else empty), both with
    the smoothed t where labels are smoothed. A voxel weight multiplies every voxel's part of these sums. `voxels` (B,)
    is the number of counted voxels, without weights and without gradient; where they differ among channels,
    `channel_voxels` (B, C) is that of each, and `voxels` the largest of a sample. `sums` (B, S, C) holds the sums in
    the order of `settings`. `sample_weight` (B,), where given, multiplies the values that are computed from each
    sample; the sums are without it. `lesions` has the sums over each lesion and its region, where they were asked for,
    and `further` the statistics of each further pass that was asked for. `weights` (B, 1 or C) is the sum of the voxel
    weights, without gradient; None where the target is labels, of which the other sums say it.
    """

    sums: Tensor
    voxels: Tensor
    settings: PassSettings
    sample_weight: Tensor | None = None
    channel_voxels: Tensor | None = None
    lesions: LesionStatistics | None = None
    further: "Mapping[Further, VoxelStatistics]" = field(default_factory=dict)
    weights: Tensor | None = None

    @property
    def activation(self) -> str:
        """Whether it is "softmax" or "sigmoid"."""
        return self.settings.activation

    @property
    def focal_exponents(self) -> tuple[PerClass, ...]:
        """The exponents of the focal sums."""
        return self.settings.exponents

    @property
    def true_positive(self) -> Tensor:
        """Σ p·t, (B, C)."""
        return self.sums[:, TRUE_POSITIVE]

    @property
    def false_positive(self) -> Tensor:
        """Σ p·(1-t), (B, C)."""
        return self.sums[:, FALSE_POSITIVE]

    @property
    def false_negative(self) -> Tensor:
        """Σ (1-p)·t, (B, C)."""
        return self.sums[:, FALSE_NEGATIVE]

    @property
    def true_negative(self) -> Tensor:
        """Σ (1-p)·(1-t), (B, C)."""
        inside = (self.true_positive + self.false_negative).detach()
        total = inside.sum(1, keepdim=True) if self.weights is None else self.weights  # of labels each voxel has one
        return (total - inside - self.false_positive).clamp_min(0)  # sums in float32 may leave less than nothing

    @property
    def focal(self) -> tuple[Tensor, ...]:
        """Focal sums of the positive side, one (B, C) per exponent."""
        return self.sums[:, FOCAL : FOCAL + len(self.focal_exponents)].unbind(1)

    @property
    def focal_negative(self) -> tuple[Tensor, ...]:
        """Focal sums of the negative side with sigmoid, one (B, C) per exponent; empty with softmax."""
        return self.sums[:, FOCAL + len(self.focal_exponents) : self.settings.after_focal].unbind(1)

    def overlap(self, kind: Overlap) -> Tensor:
        """Return what p and t have in common, the excess of p and its shortfall, (B, 3, C).

        "product": Σ p·t, Σ p·(1-t), Σ (1-p)·t. "minimum": Σ min(p, t), Σ max(p-t, 0), Σ max(t-p, 0), the same where t
        is 0 or 1. "squared": Σ p·t, and twice Σ (p-t)²/2.
        """
        first = self.settings.after_focal
        if kind == "squared" and self.settings.squared:
            half = self.sums[:, first]
            return torch.stack([self.true_positive, half, half], 1)
        if kind == "minimum" and self.settings.minimum:
            return self.sums[:, first + self.settings.squared :][:, :MINIMA]
        if kind == "product" or (kind == "minimum" and not self.settings.dense):
            return self.sums[:, :FOCAL]
        raise ValueError(f"the sums of overlap={kind!r} were not asked for")

    @property
    def in_tube(self) -> Tensor:
        """Σ p·t and Σ (1-p)·t over the tubes around the skeletons, (B, 2, C)."""
        if not self.settings.tube:
            raise ValueError("the sums in tubes were not asked for")
        return self.sums[:, self.settings.before_tube : self.settings.before_hardest]

    @property
    def present(self) -> Tensor:
        """(B, C): whether the target has the class at all. Exact, since p and 1-p are never both 0."""
        return (self.true_positive + self.false_negative).detach() != 0  # NaN counts as there, and stays seen

    @property
    def counted(self) -> Tensor:
        """(B, C): whether the channel has a counted voxel."""
        if self.channel_voxels is not None:
            return self.channel_voxels > 0
        return (self.voxels > 0)[:, None].expand(-1, self.sums.shape[2])

    def focal_sums(self, exponent: float | Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """Return the focal sums of an exponent: the positive side, and with sigmoid the negative side."""
        for k, summed in enumerate(self.focal_exponents):
            if summed == exponent:
                return self.focal[k], self.focal_negative[k] if self.focal_negative else None
        raise ValueError(f"focal exponent {exponent} is not among those summed: {self.focal_exponents}")

    def pooled(self, *, world: bool = False) -> "VoxelStatistics":
        """Return the statistics pooled over the batch, as if it were one sample, (1, C).

        Lesions stay those of each sample. With `world` the sums are pooled over the batches of all ranks of
        torch.distributed. Where the ranks' gradients are then averaged, as DistributedDataParallel does, the result is
        the gradient of a loss of the sums of all ranks. Every rank must call this.
        """
        weighted = self.sums if self.sample_weight is None else self.sums * self.sample_weight[:, None, None]
        counts = self.voxels[:, None]
        if self.channel_voxels is not None:
            counts = torch.cat([counts, self.channel_voxels], 1)
        numbers = counts.shape[1]
        if self.weights is not None:
            of_samples = 1 if self.sample_weight is None else self.sample_weight[:, None]
            counts = torch.cat([counts, self.weights * of_samples], 1)
        sums, counts = weighted.sum(0, keepdim=True), counts.sum(0)
        if world:
            sums, counts = distributed.sum_over_ranks(sums, counts)
        channel_voxels = None if self.channel_voxels is None else counts[None, 1:numbers]
        weights = None if self.weights is None else counts[None, numbers:]
        lesions = replace(self.lesions, world=world) if self.lesions is not None else None
        further = {one: statistics.pooled(world=world) for one, statistics in self.further.items()}
        return VoxelStatistics(sums, counts[:1], self.settings, None, channel_voxels, lesions, further, weights)

    def samples(self) -> "list[VoxelStatistics]":
        """Return the statistics of each sample by itself."""
        if len(self.sums) == 0:  # which split takes for one piece
            return []

        def split(tensor: Tensor | None) -> Sequence[Tensor | None]:
            return [None] * len(self.sums) if tensor is None else tensor.split(1)

        parts = zip(
            self.sums.split(1),
            self.voxels.split(1),
            split(self.sample_weight),
            split(self.channel_voxels),
            split(self.weights),
            strict=True,
        )
        further = {one: statistics.samples() for one, statistics in self.further.items()}
        return [
            VoxelStatistics(
                sums,
                voxels,
                self.settings,
                weight,
                channel_voxels,
                None if self.lesions is None else replace(self.lesions, sample=b),
                {one: each[b] for one, each in further.items()},
                weights,
            )
            for b, (sums, voxels, weight, channel_voxels, weights) in enumerate(parts)
        ]


@dataclass(frozen=True)
class Voxels:
    """What a pass over the voxels reads, as `voxel_statistics` takes it.

    Args:
        logits: (B, C, *spatial).
        target: (B, *spatial) labels, or if `settings.dense` targets (B, C, *spatial).
        weight: The voxel weight, (B, *spatial).
        settings: Of the first pass.
        apart: Whether channels are ignored apart.
        check: Whether the values of what is given are checked.
        sample_weight: (B,), kept for what is computed from the sums.
        voxels: The number of counted voxels, (B,).
        channel_voxels: That of each channel where they differ, (B, C).
        distances: As they are given.
    """

    logits: Tensor
    target: Tensor
    weight: Tensor | None
    settings: PassSettings
    apart: bool
    check: bool
    sample_weight: Tensor | None
    voxels: Tensor
    channel_voxels: Tensor | None
    distances: Tensor | None = None

    @property
    def classes(self) -> int:
        """C, the channels of the logits."""
        return self.logits.shape[1]


class FurtherPass(Protocol):
    """A pass over the same voxels with a target, a weight or sums of its own; it can be a key of a dictionary."""

    def __call__(self, voxels: Voxels, /) -> VoxelStatistics:
        """Return the sums."""


class Selection:
    """The sums over selected voxels alone, which the first pass adds up beside its own.

    `focal` is the sum of their cross entropy, and `voxels` counts them.
    """

    def select(self, logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> Tensor:
        """Return the shares (B, *spatial) in which voxels are selected."""
        raise NotImplementedError

    def part(self, statistics: VoxelStatistics, k: int, shares: Tensor) -> VoxelStatistics:
        """Return the sums of selection `k` of those of a pass."""
        settings, begin = statistics.settings, statistics.settings.before_hardest + k * statistics.settings.sides
        rows = statistics.sums[:, begin : begin + settings.sides]
        sums = torch.cat([rows.new_zeros(len(rows), FOCAL, rows.shape[2]), rows], 1)
        own = PassSettings(settings.activation, settings.dense, (0.0,), settings.ignore_index, settings.check)
        voxels = shares.flatten(1).sum(1).to(rows.dtype)
        return VoxelStatistics(sums, voxels, own, statistics.sample_weight)


@dataclass(frozen=True)
class Bins:
    """The sums over the voxels whose p lies in each of equal bins, which the first pass adds up beside its own.

    Bins are (k/bins, (k+1)/bins]; rows are Σ (p-t) of all, then Σ 1. The place of a p has no gradient.
    """

    bins: int

    def part(self, statistics: VoxelStatistics) -> VoxelStatistics:
        """Return these sums of those of a pass."""
        settings = statistics.settings
        begin = settings.before_bins(settings.bins.index(self.bins))
        rows = statistics.sums[:, begin : begin + 2 * self.bins]
        return VoxelStatistics(rows, statistics.voxels, settings, statistics.sample_weight, statistics.channel_voxels)


Further = FurtherPass | Selection | Bins


def voxel_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    focal_exponents: Sequence[float | Sequence[float]] = (),
    overlaps: Collection[Overlap] = (),
    activation: str = "softmax",
    inputs: Inputs = "logits",
    ignore_index: int | None = None,
    ignore_scope: IgnoreScope = "voxel",
    label_smoothing: float = 0.0,
    voxel_weight: Tensor | None = None,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    lesions: bool = False,
    regions: Tensor | None = None,
    tubes: bool = False,
    skeletons: Tensor | None = None,
    further: Collection[Further] = (),
    distances: Tensor | None = None,
    validate: bool | Literal["later"] | None = None,
) -> VoxelStatistics:
    """Compute the sums of `VoxelStatistics` in one differentiable pass over the voxels.

    Args:
        logits: (B, C, *spatial), any floating type. Work is done in float32, for float64 logits in float64.
        labels: A tensor, array or nested lists: (B, *spatial) or (B, 1, *spatial) class indices of any integer type, or
            floating with whole values; or soft or multi-hot targets (B, C, *spatial) in [0, 1]. With a single channel
            always such a target.
        focal_exponents: γ ≥ 0 of each focal sum asked for, each a number or one per class.
        overlaps: Which sums of `VoxelStatistics.overlap` are asked for beside "product", which is always there.
        activation: "softmax" over the channels, or "sigmoid": every channel its own two-class problem, of which a hard
            label c is the positive side in channel c and the negative side in all others.
        inputs: "probabilities" takes `logits` as probabilities: with softmax p / Σ p is used, with sigmoid p.
        ignore_index: Voxels with this label are left out and not counted. In soft or multi-hot targets it takes out
            the voxels that have it in any channel.
        ignore_scope: "channel" takes such a voxel out of the channels that have the value alone; sigmoid only.
        label_smoothing: ε of the focal sums, whose targets are (1-ε)·t + ε/C, with sigmoid (1-ε)·t + ε/2.
        voxel_weight: (B, *spatial) or (B, 1, *spatial), not negative; multiplies every voxel's part of the sums.
        mask: (B, *spatial) or (B, 1, *spatial); voxels where it is 0 or False are left out and not counted.
        sample_weight: (B,), not negative; kept for what is computed from the sums.
        lesions: Whether the sums over each lesion and its region are asked for.
        regions: The regions of the lesions, see `lesion_regions`; made from the labels where they are not given.
        tubes: Whether the sums in the tubes around the skeletons are asked for.
        skeletons: These tubes, see `skeleton_tubes`; made from the labels where they are not given.
        further: Further passes over the same voxels that are asked for, selections of voxels, and bins.
        distances: The signed distances to the border of every class, see `distance_maps`; made from the labels where
            they are not given and asked for.
        validate: Whether the values of labels and weights are checked. "later" does not wait for the device: a later
            call raises the error. None: at once on the CPU, later on CUDA, not on other devices. Where not checked, a
            label out of range counts as ignored.

    Extra memory is a few chunks forward, and the gradient backward. Second derivatives, forward mode and torch.func
    take a slower pass with more memory.

    Raises:
        ValueError: Shapes or types that do not fit, softmax with one channel, labels out of range or not whole.
    """
    logits = targets.plain_logits(logits)
    targets.check_logits(logits, activation, labels)
    check = logits.device.type == "cpu" if validate is None else validate is True
    target = targets.read_target(logits, targets.as_tensor("labels", labels, logits), ignore_index)
    if mask is not None:
        within = targets.read_companion("mask", logits, targets.as_tensor("mask", mask, logits))
        target, ignore_index = targets.masked(target, within, ignore_index)
    if inputs == "probabilities":
        if check and not torch.compiler.is_compiling():
            apart = ignore_scope == "channel"
            targets.check_probabilities(logits.detach(), activation, targets.counted(target, ignore_index, apart))
        logits = targets.logits_of(logits, activation)
    if lesions or further:  # several passes, whose gradients are added up before they are rounded to the logits' type
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weight = None
    if voxel_weight is not None:
        weight = targets.read_companion("voxel_weight", logits, targets.as_tensor("voxel_weight", voxel_weight, logits))
    exponents = tuple(PER_CLASS("a focal exponent", exponent) for exponent in focal_exponents)
    for exponent in exponents:
        if isinstance(exponent, tuple) and len(exponent) != logits.shape[1]:
            raise ValueError(f"{len(exponent)} focal exponents {exponent} for {logits.shape[1]} classes")
    settings = PassSettings(
        activation,
        target.dense,
        exponents,
        ignore_index,
        check,
        watch=logits.is_cuda if validate is None else validate == "later",
        label_smoothing=label_smoothing,
        squared="squared" in overlaps,
        minimum="minimum" in overlaps and target.dense,
        tube=tubes,
        bins=tuple(one.bins for one in further if isinstance(one, Bins)),
    )
    apart = ignore_scope == "channel" and target.dense and ignore_index is not None
    how = Reading(activation, target.dense, ignore_index, apart, check)
    tube = read_tubes(skeletons, logits, target.values, how) if tubes else None
    of_samples = None
    if sample_weight is not None:
        of_samples = targets.read_sample_weight(logits, targets.as_tensor("sample_weight", sample_weight, logits))
        of_samples = of_samples.to(total_type(logits))
    selections = [one for one in further if isinstance(one, Selection)]
    shares = None
    if selections:
        chosen = [one.select(logits, target.values, weight, settings) for one in selections]
        shares = torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]
        settings = replace(settings, hardest=len(selections))
    channel_voxels = of_lesions = None
    if apart or (tube is not None and tube.ndim == logits.ndim):
        values, counted = target.values, targets.counted(target, ignore_index, apart)
        if counted is not None and ignore_index is not None:
            values = torch.where(counted, values, ignore_index)  # what takes a voxel out of all channels is in all
        sums, channel_voxels = _each_channel(logits, values, weight, settings, tube, shares)
        voxels = channel_voxels.amax(1)
        channel_voxels = channel_voxels if apart else None
    elif lesions and tube is None and shares is None:
        of_lesions, sums, voxels = lesion_statistics(
            logits, target.values, weight, regions, how, settings, None, of_samples
        )
    else:
        sums, voxels = operator.sums(logits, target.values, weight, settings, tube, shares)
    if lesions and of_lesions is None:
        of_lesions, *_ = lesion_statistics(
            logits, target.values, weight, regions, how, settings, voxels.detach(), of_samples
        )
    weights = None
    if target.dense:
        each = voxels.detach()[:, None] if channel_voxels is None else channel_voxels
        weights = each if weight is None else _weights(target, weight, ignore_index, channel_voxels is not None, each)
    if distances is not None:
        distances = targets.as_tensor("distances", distances, logits)
    read = Voxels(
        logits, target.values, weight, settings, apart, check, of_samples, voxels.detach(), channel_voxels, distances
    )
    with torch.autocast(logits.device.type, enabled=False):
        passes: dict[Further, VoxelStatistics] = {
            one: one(read) for one in further if not isinstance(one, (Selection, Bins))
        }
    statistics = VoxelStatistics(
        sums, voxels.detach(), settings, of_samples, channel_voxels, of_lesions, passes, weights
    )
    for k, selection in enumerate(selections):
        assert shares is not None
        passes[selection] = selection.part(statistics, k, shares[k])
    return replace(
        statistics, further=passes | {bins: bins.part(statistics) for bins in further if isinstance(bins, Bins)}
    )


def _weights(target: targets.Target, weight: Tensor, ignore_index: int | None, apart: bool, voxels: Tensor) -> Tensor:
    """The sum of the weights of the counted voxels, (B, 1), or (B, C) where the channels are ignored apart."""
    values, counted = weight[:, None].to(voxels.dtype), targets.counted(target, ignore_index, apart)
    if counted is not None:
        values = torch.where(counted, values, 0)
    return values.flatten(2).sum(2)


def _each_channel(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    settings: PassSettings,
    tube: Tensor | None,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Sums (B, S, C) and counted voxels (B, C) of channels that are samples of a single channel for the pass."""
    if settings.activation != "sigmoid":
        raise ValueError(targets.TIED)
    batch, channels = logits.shape[:2]
    apart = any(isinstance(exponent, tuple) for exponent in settings.exponents)  # each with exponents of its own
    groups = [slice(c, c + 1) for c in range(channels)] if apart else [slice(0, channels)]
    sums, voxels = [], []
    for group in groups:
        own = settings
        if apart:
            exponents = tuple(e[group.start] if isinstance(e, tuple) else e for e in settings.exponents)
            own = replace(settings, exponents=exponents)
        width, own_weight, own_shares = group.stop - group.start, weight, shares
        if weight is not None:
            own_weight = weight[:, None].expand(-1, width, *weight.shape[1:]).flatten(0, 1)
        if shares is not None:
            own_shares = shares[:, :, None].expand(-1, -1, width, *shares.shape[2:]).flatten(1, 2)
        own_tube = None if tube is None else tube[:, group].flatten(0, 1)
        parts = [tensor[:, group].flatten(0, 1)[:, None] for tensor in (logits, target)]
        found, counted = operator.sums(parts[0], parts[1], own_weight, own, own_tube, own_shares)
        shape = (batch, width)
        sums.append(found.unflatten(0, shape).squeeze(3).movedim(1, 2))
        voxels.append(counted.detach().view(shape))
    return torch.cat(sums, 2), torch.cat(voxels, 1)
