"""The voxels with the largest cross entropy, found without sorting: digit by digit, from counts of their values."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import cross_entropy, logsigmoid

from voxloss.losses.voxel_pass import compiled
from voxloss.losses.voxel_pass.plain import CPU_CHUNK, DEVICE_CHUNK, working_type
from voxloss.losses.voxel_pass.reading import TargetReading
from voxloss.losses.voxel_pass.settings import PassSettings

DIGIT = 16  # bits of a number that are counted at once
_BUFFERS = 4  # numbers for each voxel and class that a chunk holds at once, about


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
    kind = working_type(logits)
    shape = (logits.shape[0], *logits.shape[2:])
    bits = _all_bits(logits, target, weight, reading, label_smoothing)
    groups = bits.split(1) if pool == "sample" and len(bits) else [bits]
    shares = [_largest(group, share, pool == "world") for group in groups]
    return (torch.cat(shares) if len(shares) > 1 else shares[0]).to(kind).view(shape)


def _all_bits(
    logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, label_smoothing: float
) -> Tensor:
    """The cross entropy of all voxels (B, n) as `_bits` has it."""
    settings = PassSettings(
        reading.activation, reading.dense, (), reading.ignore_index, False, label_smoothing=label_smoothing
    )
    if compiled.takes(logits, target, weight, settings):
        return compiled.surprise_bits(logits, target, weight, settings)
    kind = working_type(logits)
    shape = (logits.shape[0], *logits.shape[2:])
    bits = torch.empty(shape, dtype=torch.int64 if kind == torch.float64 else torch.int32, device=logits.device)
    bits = bits.flatten(1)
    flat, flat_target = logits.flatten(2), target.flatten(2 if reading.dense else 1)
    flat_weight = None if weight is None else weight.flatten(1)
    for b, span in _spans(flat):
        sample = slice(b, b + 1)
        own = None if flat_weight is None else flat_weight[b, span]
        bits[b, span] = _bits(flat[sample, :, span], flat_target[sample, ..., span], own, reading, label_smoothing)
    return bits


def _spans(flat: Tensor) -> Iterator[tuple[int, slice]]:
    """Pieces of one sample each."""
    batch, classes, voxels = flat.shape
    room = CPU_CHUNK if flat.device.type == "cpu" else DEVICE_CHUNK
    size = max(1, min(voxels, room // (_BUFFERS * classes)))
    for b in range(batch):
        for start in range(0, voxels, size):
            yield b, slice(start, start + size)


def _bits(
    logits: Tensor, target: Tensor, weight: Tensor | None, reading: TargetReading, label_smoothing: float
) -> Tensor:
    """The cross entropy of voxels (1, C, n) as whole numbers of the same order, -1 where a voxel does not count."""
    counted = reading.counted(target, logits.shape[1])
    x = logits.to(working_type(logits))
    if reading.ignore_index is not None:
        x = torch.where(counted, x, 0)  # whatever is in ignored voxels, NaN included, must not get out
    values = _cross_entropy(x, target, counted, reading, label_smoothing)[0]
    if weight is not None:
        values = values * torch.where(counted[0, 0], weight, 0)
    bits = values.abs().view(torch.int64 if values.dtype == torch.float64 else torch.int32)  # NaN is the largest
    return bits.masked_fill(~counted[0, 0], -1)


def _cross_entropy(
    x: Tensor, target: Tensor, counted: Tensor, reading: TargetReading, label_smoothing: float
) -> Tensor:
    """The cross entropy of every voxel, (1, n), summed over channels under sigmoid."""
    limit = torch.finfo(x.dtype).max / 2  # a channel masked by a logit of -inf must not make inf·0
    if reading.activation == "softmax" and not reading.dense and label_smoothing == 0:
        labels = torch.where(counted[:, 0], target.to(torch.int64), 0)
        each: Tensor = cross_entropy(x, labels, reduction="none")
        return each.clamp_max(limit)
    t = target if reading.dense else reading.members(target, x.shape[1])
    t = torch.where(counted, t, 0).to(x.dtype)
    settings = PassSettings(reading.activation, reading.dense, (), None, False, label_smoothing=label_smoothing)
    factor, addend = settings.smoothed(x.shape[1])
    t = factor * t + addend
    if reading.activation == "softmax":
        return (t * -torch.log_softmax(x, 1).clamp_min(-limit)).sum(1)
    inside, outside = (-logsigmoid(side).clamp_min(-limit) for side in (x, -x))
    return (t * inside + (1 - t) * outside).sum(1)


def _largest(bits: Tensor, share: float, world: bool) -> Tensor:
    """Return the shares in which voxels are among the largest."""
    width = 64 if bits.dtype == torch.int64 else 32
    kind = torch.float64 if width == 64 else torch.float32
    shift = width - DIGIT
    histogram, candidates = _count(bits, shift, 0)
    histogram = _over_ranks(histogram, world)
    count = int(histogram.sum())
    if count == 0:
        return torch.zeros_like(bits, dtype=kind)
    left, border, ties = max(1, int(count * share / 100)), 0, 0
    while True:
        above = histogram.flip(0).cumsum(0)
        place = int((above < left).sum())  # how many digits from the top lie wholly above the border
        digit = 2**DIGIT - 1 - place
        ties = int(histogram[digit])
        left -= int(above[place]) - ties
        border += digit << shift
        if shift == 0:
            break
        shift -= DIGIT
        histogram, candidates = _count(candidates, shift, border)
        histogram = _over_ranks(histogram, world)
    if compiled.takes_bits(bits):
        return compiled.shares(bits, border, left / ties)
    chosen: Tensor = (bits > border).to(kind)
    return chosen.masked_fill_(bits == border, left / ties)


def _count(bits: Tensor, shift: int, border: int) -> tuple[Tensor, Tensor]:
    """Return how often each value of a digit occurs in numbers that are not negative and above it are as the border.

    And numbers among which these all are, to count the next digit of.
    """
    if compiled.takes_bits(bits):
        return compiled.count_digits(bits, shift, border), bits
    total = torch.zeros(2**DIGIT + 1, dtype=torch.int64, device=bits.device)
    top = shift + DIGIT == 8 * bits.element_size()  # where a negative number keeps its sign
    if not top:
        bits = bits[(bits >> (shift + DIGIT)) == (border >> (shift + DIGIT))]
    for part in bits.flatten().split(CPU_CHUNK if bits.device.type == "cpu" else DEVICE_CHUNK):
        digits = part >> shift
        if not top:
            digits = digits & (2**DIGIT - 1)
        total += torch.bincount(digits.clamp_min(-1).add_(1), minlength=len(total))
    return total[1:], bits


def _over_ranks(counts: Tensor, world: bool) -> Tensor:
    if world and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts
