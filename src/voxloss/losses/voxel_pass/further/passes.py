"""The further passes over the same voxels: each has another target or weight, or other sums."""

from dataclasses import dataclass

import torch
from torch import Tensor

from voxloss.losses.parameters import Pool
from voxloss.losses.voxel_pass.further import operator
from voxloss.losses.voxel_pass.further.distances import check_spacing
from voxloss.losses.voxel_pass.plain import total_type, working_type
from voxloss.losses.voxel_pass.reading import TargetReading, errors, probabilities
from voxloss.losses.voxel_pass.settings import PassSettings
from voxloss.losses.voxel_pass.statistics import Selection, Voxels, VoxelStatistics


@dataclass(frozen=True)
class DistancePass:
    """Sums of the probabilities times the signed distances: the only row is Σ φ_c·p_c, linear in p.

    The distances φ are those that are given, or are made of the labels with the `spacing` of the voxels. Without the
    `background` those of channel 0 are 0.
    """

    spacing: tuple[float, ...] | None = None
    background: bool = True

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        how = _reading(voxels)
        if voxels.distances is None:
            spacing = check_spacing(self.spacing, voxels.logits.ndim - 2)
            kind = working_type(voxels.logits)
            maps = operator.distances(voxels.target, voxels.classes, int(not self.background), spacing, kind, how)
        else:
            maps = _given(voxels, how)
            if maps.shape[1] < voxels.classes and self.background:
                raise ValueError(
                    "distances leave out the background, which include_background=True needs: give "
                    "voxloss.distance_maps background=True"
                )
        if voxels.weight is not None:
            maps = maps * voxels.weight[:, None]
        return _weighted(voxels, maps, how)


@dataclass(frozen=True)
class HausdorffPass:
    """Sums of the squared errors times the distances to both borders: the only row is Σ (p-t)²·(d_t^α + d_p^α).

    d_t is the distance to the border of the labels, d_p to that of the prediction, where p is above 1/2; neither has a
    gradient. Without the `background` the sums of channel 0 are 0.
    """

    alpha: float = 2.0
    spacing: tuple[float, ...] | None = None
    background: bool = True

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        how, classes = _reading(voxels), voxels.classes
        spacing, first = check_spacing(self.spacing, voxels.logits.ndim - 2), int(not self.background)
        counted = how.counted(voxels.target, classes)
        counted = counted[:, first:] if counted.shape[1] == classes > 1 else counted
        members = how.members(voxels.target, classes)
        x = voxels.logits.to(working_type(voxels.logits))
        if how.ignore_index is not None:
            x = torch.where(how.counted(voxels.target, classes), x, 0)
        each = errors(x, members, how.activation)[:, first:]
        members = members[:, first:]
        predicted = torch.where(members, each < 0.5, each > 0.5).detach()
        factors = sum(
            operator.border_distances(mask, counted, spacing, x.dtype).detach() ** self.alpha
            for mask in (members, predicted)
        )
        if voxels.weight is not None:
            factors = factors * voxels.weight[:, None]
        costs = torch.where(counted, each.square() * factors, 0).flatten(2)
        return _rows(voxels, costs.sum(2, dtype=total_type(voxels.logits))[:, None], first)


@dataclass(frozen=True)
class HardestVoxels(Selection):
    """The hardest voxels: `share` per cent, of each sample, the batch or the world."""

    share: float
    pool: Pool

    def select(self, logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> Tensor:
        """Return the shares (B, *spatial) in which voxels are among them."""
        how = TargetReading.of(settings)
        return operator.selection(logits, target, weight, how, settings.label_smoothing, self.share, self.pool).detach()


@dataclass(frozen=True)
class JaccardPass:
    """Sums of the errors times their slopes in the Lovász extension of the Jaccard loss, in the only row.

    The errors are ordered in each sample, or in the batch.
    """

    by_sample: bool

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        how, logits = _reading(voxels), voxels.logits
        if how.ignore_index is not None:  # what is in ignored voxels, NaN included, must not get out
            logits = torch.where(how.counted(voxels.target, voxels.classes), logits, 0)
        sums = operator.jaccard(logits, voxels.target, voxels.weight, how, self.by_sample)
        return _rows(voxels, sums[:, None], 0)


@dataclass(frozen=True)
class CentreLines:
    """Sums over soft skeletons S: rows Σ S(p)·t, Σ S(p)·(1-t), Σ S(t)·p and Σ S(t)·(1-p), see `soft_skeleton`.

    Without the `background` those of channel 0 are 0.
    """

    iterations: int
    background: bool = True

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        first = int(not self.background)
        p, q, t, counted = probabilities(voxels.logits, voxels.target, _reading(voxels), first)
        if voxels.check and voxels.settings.ignore_index is None:  # labels were checked, and all of them count
            counted = None
        with torch.no_grad():
            of_target = operator.soft_skeleton(t, counted, self.iterations)
        of_prediction = operator.soft_skeleton(p, counted, self.iterations)
        factor = _factor(voxels, counted, p.dtype)
        if factor is not None:
            of_target, of_prediction = of_target * factor, of_prediction * factor
        parts = (of_prediction * t, of_prediction * (1 - t), of_target * p, of_target * q)
        kind = total_type(voxels.logits)
        return _rows(voxels, torch.stack([part.flatten(2).sum(2, dtype=kind) for part in parts], 1), first)


def _reading(voxels: Voxels) -> TargetReading:
    return TargetReading.of(voxels.settings, apart=voxels.apart)


def _weighted(voxels: Voxels, factors: Tensor, how: TargetReading) -> VoxelStatistics:
    """Statistics whose only row is the sum of p times `factors` (B, C, *spatial) over the counted voxels."""
    logits = voxels.logits
    if how.ignore_index is not None or not (how.dense or voxels.check):  # unchecked labels may be out of range
        counted = how.counted(voxels.target, voxels.classes)
        apart = counted.shape[1] == voxels.classes > 1
        factors = torch.where(counted[:, -factors.shape[1] :] if apart else counted, factors, 0)
        if how.ignore_index is not None:
            logits = torch.where(counted, logits, 0)  # what is in ignored voxels, NaN included, must not get out
    sums = operator.weighted(logits, factors, how.activation)
    return _rows(voxels, sums[:, None], 0)


def _rows(voxels: Voxels, sums: Tensor, first: int) -> VoxelStatistics:
    """Statistics of sums (B, R, C - first) of the channels from `first` on; those of the others are 0."""
    if first:
        sums = torch.cat([sums.new_zeros(*sums.shape[:2], first), sums], 2)
    return VoxelStatistics(sums, voxels.voxels, voxels.settings, voxels.sample_weight, voxels.channel_voxels)


def _factor(voxels: Voxels, counted: Tensor | None, kind: torch.dtype) -> Tensor | None:
    """What multiplies every voxel's part of a sum: its weight, and 0 where it does not count; None: 1."""
    if voxels.weight is None:
        return None if counted is None else counted.to(kind)
    weight = voxels.weight[:, None].to(kind)
    return weight if counted is None else torch.where(counted, weight, 0)


def _given(voxels: Voxels, how: TargetReading) -> Tensor:
    """Return given distances (B, F, *spatial), checked."""
    maps, classes, spatial = voxels.distances, voxels.classes, voxels.logits.shape[2:]
    assert maps is not None
    batch = voxels.logits.shape[0]
    foreground = classes - (how.activation == "softmax")
    if maps.device != voxels.logits.device:
        raise ValueError(f"distances on {maps.device} but logits on {voxels.logits.device}")
    if maps.shape == (batch, *spatial) and foreground == 1:
        maps = maps[:, None]
    if maps.shape not in ((batch, foreground, *spatial), (batch, classes, *spatial)):
        raise ValueError(
            f"distances of shape {tuple(maps.shape)} do not fit logits of shape {tuple(voxels.logits.shape)}: expected "
            f"{(batch, foreground, *spatial)}, one map for each foreground class, or {(batch, classes, *spatial)}; "
            "voxloss.distance_maps makes them"
        )
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    if voxels.check and not torch.compiler.is_compiling():
        _check(maps, voxels, how)
    return maps


def _check(maps: Tensor, voxels: Voxels, how: TargetReading) -> None:
    """Raise ValueError unless distances are finite, not above 0 in their class, and not below it elsewhere."""
    if maps.numel() == 0:
        return
    first = voxels.classes - maps.shape[1]
    members = how.members(voxels.target, voxels.classes, first)
    try:
        finite = all(bool(value.isfinite()) for value in maps.aminmax())
        wrong = torch.where(members, maps, -maps)
        if how.ignore_index is not None:
            counted = how.counted(voxels.target, voxels.classes)
            wrong = torch.where(counted if counted.shape[1] == 1 else counted[:, first:], wrong, 0)
        differs = bool(wrong.amax() > 0)
    except RuntimeError:  # a transform such as vmap hides the values
        return
    if not finite:
        raise ValueError("distances must be finite; voxloss.distance_maps makes them")
    if differs:
        raise ValueError(
            "distances must not be above 0 inside their class nor below 0 outside it, so these are unsigned or not of "
            "these labels; voxloss.distance_maps makes them"
        )
