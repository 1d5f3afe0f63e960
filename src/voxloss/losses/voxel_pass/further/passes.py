"""The further passes: each is a pass over the same voxels with another target or weight."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxloss.losses.parameters import Pool
from voxloss.losses.voxel_pass.further import operator
from voxloss.losses.voxel_pass.further.distances import check_spacing
from voxloss.losses.voxel_pass.further.reading import TargetReading
from voxloss.losses.voxel_pass.plain import working_type
from voxloss.losses.voxel_pass.settings import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from voxloss.losses.voxel_pass.statistics import Voxels, VoxelStatistics
from voxloss.losses.voxel_pass.targets import MASKED


@dataclass(frozen=True)
class DistancePass:
    """Sums of the probabilities times the signed distances: `true_positive` is Σ φ_c·p_c, linear in p.

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
        if maps.shape[1] < voxels.classes:
            maps = torch.cat([torch.zeros_like(maps[:, :1]), maps], 1)
        return _linear(voxels, maps, how)


@dataclass(frozen=True)
class HardestPass:
    """The sums over the hardest voxels alone: `share` per cent, of each sample, the batch or the world.

    `focal` is the sum of their cross entropy, and `voxels` counts them.
    """

    share: float
    pool: Pool

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        how = _reading(voxels)
        smoothing = voxels.settings.label_smoothing
        chosen = operator.selection(
            voxels.logits, voxels.target, voxels.weight, how, smoothing, self.share, self.pool
        ).detach()
        settings = replace(voxels.settings, exponents=(0.0,), squared=False, minimum=False)
        weight = chosen if voxels.weight is None else chosen * voxels.weight
        found = voxels.sums(voxels.target, weight, settings)
        return replace(found, voxels=chosen.flatten(1).sum(1, dtype=found.sums.dtype))


@dataclass(frozen=True)
class JaccardPass:
    """Sums of the errors times their slopes in the Lovász extension of the Jaccard loss.

    `false_positive` is the sum over the voxels that are not of the class, `false_negative` over those that are. The
    errors are ordered in each sample, or in the batch.
    """

    by_sample: bool

    def __call__(self, voxels: Voxels) -> VoxelStatistics:
        """Return the sums."""
        how = _reading(voxels)
        slopes = operator.slopes(voxels.logits, voxels.target, voxels.weight, how, self.by_sample).detach()
        members = how.members(voxels.target, voxels.classes)
        unweighted = replace(voxels, weight=None)  # the weights are in the slopes
        missed = _linear(unweighted, slopes * members, how)
        excess = _linear(unweighted, slopes * ~members, how)
        rows = [torch.zeros_like(missed.true_positive), excess.true_positive, missed.false_negative]
        assert (TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE) == (0, 1, 2)
        return replace(missed, sums=torch.stack(rows, 1))


def _reading(voxels: Voxels) -> TargetReading:
    settings = voxels.settings
    return TargetReading(settings.activation, settings.dense, settings.ignore_index, voxels.apart)


def _linear(voxels: Voxels, factors: Tensor, how: TargetReading) -> VoxelStatistics:
    """Sums of p and of 1-p times `factors` (B, C, *spatial), which take the place of the target."""
    ignored = ~how.counted(voxels.target, voxels.classes)
    factors = torch.where(ignored, MASKED, factors.to(torch.promote_types(factors.dtype, torch.float32)))
    settings = replace(
        voxels.settings, dense=True, exponents=(), ignore_index=MASKED, check=False, watch=False,
        label_smoothing=0.0, squared=False, minimum=False,
    )  # fmt: skip
    return voxels.sums(factors, voxels.weight, settings)


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
        first = classes - maps.shape[1]
        counted = how.counted(voxels.target, classes).expand(-1, classes, *spatial)[:, first:]
        _check(maps, how.members(voxels.target, classes)[:, first:], counted)
    return maps


def _check(maps: Tensor, members: Tensor, counted: Tensor) -> None:
    """Raise ValueError unless distances are finite, not above 0 in their class, and not below it elsewhere."""
    try:
        finite = bool(maps.isfinite().all())
        wrong = bool((counted & torch.where(members, maps > 0, maps < 0)).any())
    except RuntimeError:  # a transform such as vmap hides the values
        return
    if not finite:
        raise ValueError("distances must be finite; voxloss.distance_maps makes them")
    if wrong:
        raise ValueError(
            "distances must not be above 0 inside their class nor below 0 outside it, so these are unsigned or not of "
            "these labels; voxloss.distance_maps makes them"
        )
