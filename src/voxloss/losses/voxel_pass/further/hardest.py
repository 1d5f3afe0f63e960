"""The voxels with the largest cross entropy, found without sorting: digit by digit, from counts of their values."""

import torch
from torch import Tensor
from torch import distributed as dist

from voxloss.losses.voxel_pass.further.reading import TargetReading
from voxloss.losses.voxel_pass.plain import working_type
from voxloss.losses.voxel_pass.settings import PassSettings

DIGIT = 16  # bits of a number that are counted at once


def selection(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reading: TargetReading,
    label_smoothing: float,
    share: float,
    pool: str,
) -> Tensor:
    """Return 1 for the voxels with the largest cross entropy, 0 for the others, (B, *spatial).

    They are `share` per cent of the counted voxels, rounded down, one at least: of each sample, of the batch, or of the
    batches of all ranks, as `pool` says. Voxels with equal values at the border share what is left.
    """
    bits = torch.stack([
        _bits(logits[b : b + 1], target[b : b + 1], None if weight is None else weight[b], reading, label_smoothing)
        for b in range(len(logits))
    ]) if len(logits) else logits.new_zeros(logits[:, 0].shape, dtype=torch.int32)  # fmt: skip
    kind = working_type(logits)
    groups = bits.unbind() if pool == "sample" else [bits]
    chosen = [_largest(group, share, world=pool == "world").to(kind) for group in groups]
    return torch.stack(chosen) if pool == "sample" and chosen else chosen[0] if chosen else bits.to(kind)


def _bits(
    logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, label_smoothing: float
) -> Tensor:
    """The cross entropy of a sample's voxels as whole numbers of the same order, -1 where a voxel does not count."""
    classes = logits.shape[1]
    counted = reading.counted(target, classes)
    x = torch.where(counted, logits, 0).to(working_type(logits))
    values = _cross_entropy(x, target, counted, reading, label_smoothing)
    if weight is not None:
        values = values * torch.where(counted[0, 0], weight, 0)
    bits = values.abs().view(torch.int64 if values.dtype == torch.float64 else torch.int32)  # NaN is the largest
    return bits.masked_fill(~counted[0, 0], -1)


def _cross_entropy(
    x: Tensor, target: Tensor, counted: Tensor, reading: TargetReading, label_smoothing: float
) -> Tensor:
    """The cross entropy of every voxel of one sample, summed over channels under sigmoid."""
    limit = torch.finfo(x.dtype).max / 2  # a channel masked by a logit of -inf must not make inf·0
    if reading.activation == "softmax" and not reading.dense and label_smoothing == 0:
        labels = torch.where(counted, target[:, None], 0).to(torch.int64)
        chosen: Tensor = torch.logsumexp(x, 1) - x.gather(1, labels)[:, 0]
        return chosen[0].clamp(0, limit)
    t = target if reading.dense else reading.members(target, x.shape[1])
    t = torch.where(counted, t, 0).to(x.dtype)
    settings = PassSettings(reading.activation, reading.dense, (), None, False, label_smoothing=label_smoothing)
    factor, addend = settings.smoothed(x.shape[1])
    t = factor * t + addend
    if reading.activation == "softmax":
        return (t * -torch.log_softmax(x, 1).clamp_min(-limit))[0].sum(0)
    inside, outside = (-torch.nn.functional.logsigmoid(side).clamp_min(-limit) for side in (x, -x))
    return (t * inside + (1 - t) * outside)[0].sum(0)


def _largest(bits: Tensor, share: float, world: bool) -> Tensor:
    """Return the shares in which voxels are among the largest."""
    device = bits.device
    number = _over_ranks((bits >= 0).sum()[None], world)
    count = int(number)
    if count == 0:
        return torch.zeros(bits.shape, device=device)
    left = max(1, int(count * share / 100))
    candidates = bits[bits >= 0]
    border = 0
    ties = count
    width = 64 if bits.dtype == torch.int64 else 32
    for start in range(width - DIGIT, -1, -DIGIT):
        digits = (candidates >> start) & (2**DIGIT - 1)
        histogram = _over_ranks(torch.bincount(digits.to(torch.int64), minlength=2**DIGIT), world)
        above = histogram.flip(0).cumsum(0)
        place = int((above < left).sum())  # how many digits from the top lie wholly above the border
        digit = 2**DIGIT - 1 - place
        ties = int(histogram[digit])
        left -= int(above[place]) - ties
        border += digit << start
        candidates = candidates[digits == digit]
    chosen = (bits > border).to(torch.float64 if width == 64 else torch.float32)
    return chosen.masked_fill_(bits == border, left / ties)


def _over_ranks(counts: Tensor, world: bool) -> Tensor:
    if world and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts
