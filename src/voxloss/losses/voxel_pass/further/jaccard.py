"""The slopes of the Lovász extension of the Jaccard loss: how much each error counts, by the order of the errors."""

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.further import ordered
from voxloss.losses.voxel_pass.plain import total_type
from voxloss.losses.voxel_pass.reading import TargetReading, errors


def slopes(
    logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, by_sample: bool
) -> tuple[Tensor, Tensor]:
    """Return the sums of errors times slopes, (B, C), and their slopes with respect to p, (B, C, *spatial).

    Errors are 1-p of the voxels of the class, for which the slope with respect to p has a minus, and p of the others.
    They are ordered in each sample, or in the batch. Voxels that do not count have the slope 0.
    """
    if ordered.takes(logits, weight):
        return ordered.slopes(logits, target, weight, reading, by_sample)
    classes = logits.shape[1]
    members = reading.members(target, classes).flatten(2)
    counted = reading.counted(target, classes).flatten(2).expand(-1, classes, -1)
    found = errors(logits.flatten(2), members, reading.activation)
    weights = None if weight is None else weight.flatten(1)
    result = torch.zeros_like(found)
    for group in [slice(b, b + 1) for b in range(len(logits))] if by_sample else [slice(None)]:
        own = None if weights is None else weights[group].to(total_type(logits))
        for c in range(classes):
            inside = members[group, c]
            outside = counted[group, c] & ~inside
            of_members, of_others = (None if own is None else own[mask] for mask in (inside, outside))
            missed, excess = _slopes(found[group, c][inside], found[group, c][outside], of_members, of_others)
            for mask, values in ((inside, -missed), (outside, excess)):
                result[group, c].masked_scatter_(mask, values.to(found.dtype))
    sums = (torch.where(counted, found, 0) * result.abs()).sum(2, dtype=total_type(logits))
    return sums, result.view(logits.shape)


def _slopes(
    members: Tensor, others: Tensor, weight: Tensor | None, weight_of_others: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the slopes of the errors of a class's voxels, and those of the other voxels.

    The Jaccard loss of a prediction that misses m voxels of V and has f false positives is 1 - (V - m) / (V + f). With
    the errors in falling order, that of a member is 1 / (V + f), f the others with larger errors, and that of another
    voxel (V - m)·(1 / (V + f) - 1 / (V + f + 1)). Of equal errors those of members come first, and equal errors of
    others share their slopes, so that the order of the voxels has no effect. Others with errors that no member's is
    below have the slope 0; only the rest is sorted.
    """
    kind = total_type(members)
    volume = torch.tensor(len(members), dtype=kind) if weight is None else weight.sum()
    if volume == 0:  # the loss is 1 as soon as there is a false positive
        heft = torch.ones_like(others, dtype=kind) if weight_of_others is None else weight_of_others
        there = torch.where(heft > 0, others, -1)
        heft = torch.where(there == there.amax(), heft, 0) if len(there) else heft
        return torch.zeros_like(members), heft / heft.sum().clamp_min(torch.finfo(kind).tiny)
    before = (others > members.amin()).nonzero().squeeze(1)
    rising, order = _sorted(others[before])
    order = before[order]
    del before
    of_members, places = _sorted(members)  # searched in order, which a CPU's cache takes best
    smaller = torch.searchsorted(rising, of_members, right=True)
    own = None if weight is None else weight[places]
    counts = torch.bincount(smaller, own, minlength=len(rising) + 1)
    begins = torch.ones_like(rising, dtype=torch.bool)
    torch.ne(rising[1:], rising[:-1], out=begins[1:])  # of groups of equal errors
    starts = begins.nonzero().squeeze(1)
    ends = torch.cat([starts[1:], starts.new_full((1,), len(rising))])[: len(starts)]
    of_others = None if weight_of_others is None else weight_of_others[order]
    reach = None if of_others is None else _from_the_end(of_others)

    def above(places: Tensor) -> Tensor:
        """The weight of the errors from a place on, without weights their number."""
        return len(rising) - places if reach is None else reach[places]

    missed = 1 / (volume + above(smaller))
    missed = torch.empty_like(missed).index_copy_(0, places, missed if own is None else missed * own)
    left = (volume - _from_the_end(counts)[ends]).to(kind)  # V - m
    share = left / ((volume + above(ends)) * (volume + above(starts)))
    share = torch.repeat_interleave(share.to(others.dtype), ends - starts)
    share = share if of_others is None else (share * of_others).to(others.dtype)
    excess = torch.zeros_like(others).index_copy_(0, order, share)
    return missed, excess


def _sorted(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Return errors in rising order, and their places.

    The bits of numbers that are not below 0 have their order, and torch sorts integers in an eighth of the time on a
    CPU.
    """
    bits, places = errors.view(torch.int32 if errors.dtype == torch.float32 else torch.int64).sort()
    return bits.view(errors.dtype), places


def _from_the_end(values: Tensor) -> Tensor:
    """Return the sums of every value and those after it, and a 0 at the end."""
    sums = values.flip(0).cumsum(0).flip(0)
    return torch.cat([sums, sums.new_zeros(1)])
