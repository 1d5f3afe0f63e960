"""The slopes of the Lovász extension of the Jaccard loss: how much each error counts, by the order of the errors."""

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.further.reading import TargetReading, errors
from voxloss.losses.voxel_pass.plain import total_type


def slopes(logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, by_sample: bool) -> Tensor:
    """Return the slope of every voxel and class, (B, C, *spatial); 0 where a voxel does not count.

    Errors are 1-p of the voxels of the class and p of the others. They are ordered in each sample, or in the batch.
    """
    classes = logits.shape[1]
    members = reading.members(target, classes).flatten(2)
    counted = reading.counted(target, classes).expand(-1, classes, *target.shape[-(logits.ndim - 2) :]).flatten(2)
    ordered = errors(torch.where(counted, logits.flatten(2), 0), members, reading.activation)
    weights = None if weight is None else weight.flatten(1).to(ordered.dtype)
    found = torch.zeros_like(ordered)
    samples = [slice(b, b + 1) for b in range(len(logits))] if by_sample else [slice(None)]
    for group in samples:
        for c in range(classes):
            counts = counted[group, c]
            own = None if weights is None else weights[group][counts]
            found[group, c].masked_scatter_(counts, _slopes(ordered[group, c][counts], members[group, c][counts], own))
    return found.view(logits.shape)


def _slopes(errors: Tensor, members: Tensor, weight: Tensor | None) -> Tensor:
    """Return the slope of each error, (n,).

    With the errors in falling order, the k-th slope is J_k - J_(k-1), where J_k is the Jaccard loss of a prediction
    that is wrong in the first k voxels and right in the others. Of equal errors those of members come first, and equal
    errors of members, or of others, share their slopes, so that the order of the voxels has no effect.
    """
    kind = total_type(errors)
    order = torch.cat([members.nonzero(), (~members).nonzero()]).squeeze(1)
    falling, places = errors[order].sort(descending=True, stable=True)
    order = order[places]
    own = members[order]
    each = torch.ones_like(falling, dtype=kind) if weight is None else weight[order].to(kind)
    hit, excess = (each * own).cumsum(0), (each * ~own).cumsum(0)
    volume = hit[-1:]
    union = volume + excess
    lost = torch.where(union > 0, 1 - (volume - hit) / torch.where(union > 0, union, 1), 0)
    ends = torch.ones_like(own)
    ends[:-1] = (falling[1:] != falling[:-1]) | (own[1:] != own[:-1])
    last = ends.nonzero().squeeze(1)
    total, heft = (torch.diff(sums[last], prepend=sums.new_zeros(1)) for sums in (lost, hit + excess))
    sizes = torch.diff(last, prepend=last.new_full((1,), -1))
    share = torch.repeat_interleave(torch.where(heft > 0, total / torch.where(heft > 0, heft, 1), 0), sizes)
    return torch.empty_like(errors).index_copy_(0, order, (share * each).to(errors.dtype))
