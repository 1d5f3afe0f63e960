"""Sums over every region, inside and outside its lesion, and what the losses per lesion take from them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import targets
from voxloss.losses.voxel_pass.lesions import operator
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.settings import PassSettings


@dataclass(frozen=True)
class LesionStatistics:
    """Sums over the regions of every sample and class; differentiable.

    Of T regions, those of all samples and classes one behind the other: `sums` (4, T, 2) are Σ p·t, Σ p·(1-t),
    Σ (1-p)·t and Σ (t·(-log p) + (1-t)·(-log(1-p))) of the class against the rest, outside and inside the lesion, with
    the voxel weight, and `voxels` (T, 2) how many counted. `owner` (T,) is b·F + f for class f (of those that can have
    lesions) of sample b; its first region, at `offsets` (B, F), has the voxels of no region. `counted` (B,) are the
    counted voxels of each sample. `sample` is the only sample that is asked for; `world` says that means are over all
    ranks.
    """

    sums: Tensor
    voxels: Tensor
    owner: Tensor
    offsets: Tensor
    counted: Tensor
    sample_weight: Tensor | None = None
    sample: int | None = None
    world: bool = False

    @property
    def present(self) -> Tensor:
        """(T,): whether the region has a counted voxel of its lesion, of a weight above 0."""
        inside = self.sums[0, :, 1] + self.sums[2, :, 1]
        of_none = torch.zeros_like(self.owner, dtype=torch.bool).index_fill(0, self.offsets.flatten(), True)
        return (inside.detach() != 0) & ~of_none  # NaN counts as there, and stays seen

    def regions(self) -> tuple[Tensor, Tensor]:
        """Return the sums (4, T) and the voxels (T,) of every region."""
        return self.sums.sum(2), self.voxels.sum(1)

    def domains(self) -> tuple[Tensor, Tensor]:
        """Return the sums (4, T) and the voxels (T,) of every lesion together with all voxels of no lesion."""
        around, voxels = self.of_owner(self.sums[:, :, 0])[:, self.owner], self.of_owner(self.voxels[:, 0])[self.owner]
        return self.sums[:, :, 1] + around, self.voxels[:, 1] + voxels

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return the sums (4, B·F) and the voxels (B·F,) of every sample and class."""
        sums, voxels = self.regions()
        return self.of_owner(sums), self.of_owner(voxels)

    def of_owner(self, values: Tensor) -> Tensor:
        """Add up values (..., T) for every sample and class, (..., B·F)."""
        total = values.new_zeros(*values.shape[:-1], self.offsets.numel())
        return total.index_add(-1, self.owner, values)


def lesion_statistics(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    regions: Any,
    how: Reading,
    settings: PassSettings,
    counted: Tensor | None,
    sample_weight: Tensor | None,
) -> tuple[LesionStatistics, Tensor, Tensor]:
    """Return the sums over regions; `regions` as they are given, or None to make them from the target.

    Without `counted`, the counted voxels of each sample, the pass over the voxels is made at the same time.

    Returns:
        The sums over regions; the sums of the pass over the voxels, if it was made, else empty; the counted voxels.

    Raises:
        ValueError: The regions do not fit, or torch.vmap hides the labels.
    """
    classes = logits.shape[1]
    shape = (logits.shape[0], classes - how.first)
    if not torch.compiler.is_compiling() and targets.is_hidden(target):
        raise ValueError(
            "the losses per lesion look at the values of the labels, which torch.vmap hides: map over the logits "
            "alone, or call the loss for each sample"
        )
    if regions is None:
        maps = operator.regions(target, classes, how)
    else:
        regions = targets.as_tensor("regions", regions, logits)
        maps = _read_regions(logits, regions, shape)
    offsets, owner = operator.places(maps)
    sums, voxels, *of_pass = operator.sums(
        logits, target, maps, offsets, owner, weight, settings, by_channel=how.by_channel, together=counted is None
    )
    counted = of_pass[1].detach() if counted is None else counted
    found = LesionStatistics(
        sums.unflatten(-1, (-1, 2)), voxels.unflatten(-1, (-1, 2)).detach(), owner, offsets, counted, sample_weight
    )
    if regions is not None and settings.check and not torch.compiler.is_compiling():
        _check_regions(regions, found)
    return found, of_pass[0], counted


def _read_regions(logits: Tensor, regions: Tensor, shape: tuple[int, int]) -> Tensor:
    spatial = logits.shape[2:]
    if regions.device != logits.device:
        raise ValueError(f"regions on {regions.device} but logits on {logits.device}")
    if regions.shape == (shape[0], *spatial) and shape[1] == 1:
        regions = regions[:, None]
    if regions.shape != (*shape, *spatial):
        raise ValueError(
            f"regions of shape {tuple(regions.shape)} do not fit logits of shape {tuple(logits.shape)}: expected "
            f"{(*shape, *spatial)}, one map for each class that can have lesions; voxloss.lesion_regions makes them"
        )
    return regions if regions.dtype in (torch.int32, torch.int64) else regions.to(torch.int64)


def _check_regions(regions: Tensor, found: LesionStatistics) -> None:
    """Raise ValueError unless regions are whole numbers, and voxels are in no region only where there is no lesion."""
    of_none = found.voxels[found.offsets.flatten()]
    several = found.of_owner(torch.ones_like(found.voxels[:, 0])) > 1
    try:
        fractional = regions.is_floating_point() and bool((regions != regions.trunc()).any())
        lost = bool((of_none[:, 1] > 0).any())
        bare = bool((several & (of_none[:, 0] > 0)).any())
    except RuntimeError:  # a transform such as vmap hides the values
        return
    if fractional:
        raise ValueError("regions must be whole numbers, received fractions: resample them by nearest neighbour")
    if lost:
        raise ValueError(
            "regions has 0 at a voxel of a lesion, so it is not of these labels; voxloss.lesion_regions makes it"
        )
    if bare:
        raise ValueError(
            "regions has 0 around the lesions, as a map of components has: every voxel needs the number of the lesion "
            "that is nearest to it; voxloss.lesion_regions makes it"
        )
