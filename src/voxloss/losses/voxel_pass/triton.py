"""The pass over the voxels on CUDA, fused: forward reads logits and labels once, backward reads them once more.

Of softmax against labels a program works on BLOCK voxels of one sample and on GROUP channels at a time: lanes of a warp
lie along the voxels, so that what is summed over channels stays in a lane. It reads the logits of its voxels twice, the
second time from the cache: for the largest and the sum of the exponentials, and for what every channel adds. For all
other sums it works on tiles of all channels, padded to a power of two. A padded channel has a logit of -inf and no
target. Shapes, rows and symbols are those of `kernels`, and the formulas too, where they are explained. No atomic
operations: every program writes sums of its own, so that results are repeatable.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call, type-arg"
# Kernels are compiled by Triton: their arguments are pointers and blocks, for which it has no types.

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from voxloss.losses.voxel_pass.plain import empty_gradient, working_type
from voxloss.losses.voxel_pass.settings import PassSettings

TILE = 1024  # elements of a tile; more where that is fewer than 32 voxels, so that its reads are whole lines of memory
LARGEST_TILE = 4096
PER_WARP = 256  # elements of a tile for each warp: with twice as many few warps fit the registers, with four times none
GROUP = 4  # channels at a time, of softmax against labels
LINE = 512  # bytes of logits that a warp reads of a channel at once, 16 for each lane
HALF = 256  # the same of types of two bytes, of which more voxels would not fit the registers
WARPS = 1
STAGES = 2  # groups whose logits are on their way
PROGRAMS = 32  # for each multiprocessor, over the batch


def sums(logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> tuple[Tensor, Tensor]:
    """Sums (B, S, C) in the order of `kernels`, and counted voxels (B,); as `plain.sums`, without its checks."""
    launch = _Launch(logits, target, weight, settings)
    batch, classes, voxels = launch.logits.shape
    tiles = triton.cdiv(voxels, launch.block)
    programs = max(1, min(tiles, triton.cdiv(_programs(logits.device), max(batch, 1))))
    partial = logits.new_empty((batch, programs, settings.rows, classes), dtype=torch.float64)
    counted = logits.new_empty((batch, programs), dtype=torch.float64)
    if batch:
        kernel = _label_sums_kernel if settings.by_label else _sums_kernel
        with torch.cuda.device_of(logits):
            kernel[programs, batch](*launch.inputs, partial, counted, tiles, programs, **launch.constants)
    return partial.sum(1), counted.sum(1)


def gradient(logits: Tensor, target: Tensor, weight: Tensor | None, upstream: Tensor, settings: PassSettings) -> Tensor:
    """d(Σ upstream·sums)/d(logits) for `upstream` (B, S, C); as `plain.gradient`."""
    launch = _Launch(logits, target, weight, settings)
    result = empty_gradient(logits)
    batch, classes, voxels = launch.logits.shape
    flat = result.view(batch, classes, voxels)
    upstream = upstream.to(working_type(logits)).contiguous()
    if flat.numel():
        kernel = _label_gradient_kernel if settings.by_label else _gradient_kernel
        with torch.cuda.device_of(logits):
            kernel[triton.cdiv(voxels, launch.block), batch](
                *launch.inputs, upstream, flat, *flat.stride(), **launch.constants
            )
    return result


class _Launch:
    """The arguments that both kernels share."""

    def __init__(self, logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> None:
        self.logits = logits.flatten(2)  # a view wherever the strides allow one
        classes = self.logits.shape[1]
        channels = triton.next_power_of_2(classes)
        if settings.by_label:
            line = HALF if logits.element_size() == 2 else LINE
            self.block = max(1, line * WARPS // logits.element_size())
        else:
            self.block = max(TILE // channels, min(32, LARGEST_TILE // channels), 1)
        target = target.flatten(2 if settings.dense else 1)
        if target.dtype == torch.bool:
            target = target.view(torch.uint8)
        target_strides = target.stride() if settings.dense else (target.stride(0), 0, target.stride(1))
        flat_weight = self.logits if weight is None else weight.flatten(1)
        weight_strides = (0, 0) if weight is None else flat_weight.stride()
        working = working_type(logits)
        scale, addend = settings.smoothed(classes)
        self.inputs = (
            self.logits, *self.logits.stride(), target, *target_strides, flat_weight, *weight_strides,
            _table(settings.exponents, classes, working, logits.device), settings.ignore_index or 0,
            self.logits.shape[2], classes,
        )  # fmt: skip
        self.constants = {
            "WEIGHTED": weight is not None,
            "IGNORES": settings.ignore_index is not None,
            "EXPONENTS": len(settings.exponents),
            "TUBE": settings.tube,
            "BLOCK": self.block,
            "WORK": tl.float64 if working == torch.float64 else tl.float32,
            "LARGEST": torch.finfo(working).max / 2,
            "TINY": torch.finfo(working).tiny,
        }
        if settings.by_label:
            group = min(GROUP, channels)
            self.constants |= {"GROUP": group, "GROUPS": channels // group, "STAGES": STAGES, "num_warps": WARPS}
        else:
            self.constants |= {
                "SIGMOID": settings.activation == "sigmoid",
                "DENSE": settings.dense,
                "SQUARED": settings.squared,
                "MINIMUM": settings.minimum,
                "SCALE": scale,
                "ADDEND": addend,
                "CHANNELS": channels,
                "num_warps": max(1, min(16, channels * self.block // PER_WARP)),
            }


@functools.lru_cache(maxsize=64)
def _table(exponents: tuple, classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Exponents (E, C) on the device; kept, as copying them there would wait for the device at every call."""
    rows = [exponent if isinstance(exponent, tuple) else (exponent,) * classes for exponent in exponents]
    return torch.tensor(rows or [(0.0,) * classes], dtype=dtype, device=device)


@functools.cache
def _programs(device: torch.device) -> int:
    """Programs that fill the device; few in Triton's interpreter, which runs them one after the other."""
    if device.type != "cuda":
        return 3
    return PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count


@triton.jit
def _log1p(x):
    """log(1 + x) for x ≥ 0: the rounding of 1 + x is undone by the quotient."""
    y = 1 + x
    return tl.where(y == 1, x, tl.log(y) * (x / tl.where(y == 1, 1, y - 1)))


@triton.jit
def _power(x, exponent):
    """x^exponent for x ≥ 0 and exponent ≥ 0, with 0^0 = 1 and the common exponents exact."""
    general = tl.exp2(exponent * tl.log2(x))
    return tl.where(exponent == 0, 1, tl.where(exponent == 1, x, tl.where(exponent == 2, x * x, general)))


@triton.jit
def _slope(surprise, miss, hit, exponent, TINY: tl.constexpr):
    """(1-p)^γ (γ p (-log p)/(1-p) + 1), as `kernels._focal_slope`."""
    quotient = surprise / tl.maximum(miss, TINY, propagate_nan=tl.PropagateNan.ALL) * hit
    return _power(miss, exponent) * (exponent * quotient + 1)


@triton.jit
def _cap(surprise, LARGEST: tl.constexpr):
    return tl.minimum(surprise, LARGEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _read(
    tile, sample,
    logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v, weight, weight_b, weight_v,
    ignore_index, voxels, classes,
    SIGMOID: tl.constexpr, DENSE: tl.constexpr, WEIGHTED: tl.constexpr, IGNORES: tl.constexpr,
    TUBE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Of a tile: logits and targets (CHANNELS, BLOCK), each voxel's factor, 1 in the tube, and which count."""
    c = tl.arange(0, CHANNELS).to(tl.int64)
    v = tl.full((1,), BLOCK, tl.int64) * tile + tl.arange(0, BLOCK)  # 64 bits, as volumes may be that large
    real = (c < classes)[:, None]
    inside = v < voxels
    mask = real & inside[None, :]
    x = tl.load(
        logits + sample * logits_b + c[:, None] * logits_c + v[None, :] * logits_v, mask=mask, other=0
    ).to(WORK)  # fmt: skip
    if DENSE:
        t = tl.load(
            target + sample * target_b + c[:, None] * target_c + v[None, :] * target_v, mask=mask, other=0
        ).to(WORK)  # fmt: skip
        counted = inside
        if IGNORES:
            ignored = tl.sum(((t == ignore_index) & mask).to(tl.int32), 0) > 0
            counted = inside & (ignored == 0)
            t = tl.where(counted[None, :], t, 0)
    else:
        label = tl.load(target + sample * target_b + v * target_v, mask=inside, other=0).to(tl.int64)
        counted = inside & (label >= 0) & (label < classes)
        if IGNORES:
            counted = counted & (label != ignore_index)
        t = ((c[:, None] == label[None, :]) & counted[None, :]).to(WORK)
    factor = counted.to(WORK)
    tube = factor
    if WEIGHTED:
        w = tl.load(weight + sample * weight_b + v * weight_v, mask=inside, other=0).to(WORK)
        tube = (w < 0).to(WORK)  # whose weights have a minus
        factor = tl.where(counted, tl.abs(w) if TUBE else w, 0)
    # Whatever is in ignored voxels, NaN included, must not get out.
    x = tl.where(counted[None, :], x, 0)
    if not SIGMOID:
        x = tl.where(real, x, -float("inf"))
    return x, t, factor, tube, counted, v, c, mask


@triton.jit
def _read_labels(
    tile, sample, target, target_b, target_v, weight, weight_b, weight_v, ignore_index, voxels, classes,
    WEIGHTED: tl.constexpr, IGNORES: tl.constexpr, TUBE: tl.constexpr, BLOCK: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Of BLOCK voxels: labels, -1 where one does not count; which count, factors, 1 in the tube, places, which exist.

    Loops over the channels compare labels anew: with which count, Triton 3.6 does not compile some types of labels.
    """
    v = tl.full((1,), BLOCK, tl.int64) * tile + tl.arange(0, BLOCK)  # 64 bits, as volumes may be that large
    inside = v < voxels
    raw = tl.load(target + sample * target_b + v * target_v, mask=inside, other=0).to(tl.int64)
    counted = inside & (raw >= 0) & (raw < classes)
    if IGNORES:
        counted = counted & (raw != ignore_index)
    label = tl.where(counted, raw, -1).to(tl.int32)
    factor = counted.to(WORK)
    tube = factor
    if WEIGHTED:
        w = tl.load(weight + sample * weight_b + v * weight_v, mask=inside, other=0).to(WORK)
        tube = (w < 0).to(WORK)  # whose weights have a minus
        factor = tl.where(counted, tl.abs(w) if TUBE else w, 0)
    return label, counted, factor, tube, v, inside


@triton.jit
def _read_group(
    g, base, logits_c, label, inside, classes, GROUP: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """The channels of a group and their logits (GROUP, BLOCK), 0 where a voxel does not count, and whose label it is.

    Whatever is in ignored voxels, NaN included, must not get out.
    """
    c = g * GROUP + tl.arange(0, GROUP)
    real = (c < classes)[:, None]
    # A mask by voxel would keep a lane from reading several at once.
    x = tl.load(base[None, :] + c.to(tl.int64)[:, None] * logits_c, mask=real & inside[None, :], other=0).to(WORK)
    own = label[None, :]
    x = tl.where(own >= 0, x, 0)
    return c, tl.where(real, x, -float("inf")), c[:, None] == own


@triton.jit
def _exponentials(x, top):
    """exp(x - top), 0 for masked channels also where all so far are."""
    return tl.exp(x - tl.where(top == -float("inf"), 0, top)[None, :])


@triton.jit
def _add_group(x, mine, factors, top, rest, mean):
    """Go on with the largest logit, Σ exp of the other classes than the label's, and the same times `factors`."""
    higher = tl.maximum(top, tl.max(x, 0))
    others = tl.where(mine, 0, _exponentials(x, higher))
    shrink = tl.where(top == higher, 1, tl.exp(top - tl.where(higher == -float("inf"), 0, higher)))
    rest = rest * shrink + tl.sum(others, 0)
    mean = mean * shrink + tl.sum(others * factors[:, None], 0)
    return higher, rest, mean


@triton.jit
def _of_label(base, logits_c, label, counted, top, rest, LARGEST: tl.constexpr, WORK: tl.constexpr):
    """p, 1-p and -log p of the label, and what the exponentials are to be multiplied by; as `kernels.LabelSoftmax`."""
    chosen = tl.load(base + label.to(tl.int64) * logits_c, mask=counted, other=0).to(WORK)
    chosen = tl.where(counted, chosen - top, 0)
    own = tl.where(counted, tl.exp(chosen), 0)
    surprise = _cap(_log1p(rest + (own - 1)) - chosen, LARGEST)
    scale = 1 / (rest + own)
    return own * scale, rest * scale, surprise, scale


@triton.jit
def _softmax(x, CHANNELS: tl.constexpr, LARGEST: tl.constexpr):
    """p, 1-p and -log p of every channel; the sum of all but the largest keeps the digits of 1-p where p is near 1."""
    d = x - tl.max(x, 0)[None, :]
    e = tl.exp(d)
    top = tl.arange(0, CHANNELS)[:, None] == tl.argmax(x, 0)[None, :]
    rest = tl.sum(tl.where(top, 0, e), 0)
    total = tl.sum(e, 0)
    scale = (1 / total)[None, :]
    miss = tl.where(top, rest[None, :], total[None, :] - e) * scale
    return e * scale, miss, _cap(_log1p(rest)[None, :] - d, LARGEST)


@triton.jit
def _sigmoid(x, LARGEST: tl.constexpr):
    """p, 1-p, -log p and -log(1-p), each to its last digit."""
    small = tl.exp(-tl.abs(x))
    log = _log1p(small)
    scale = 1 / (1 + small)
    hit = tl.where(x >= 0, scale, small * scale)
    miss = tl.where(x >= 0, small * scale, scale)
    return (
        hit, miss, _cap(tl.where(x >= 0, log, log - x), LARGEST), _cap(tl.where(x >= 0, log + x, log), LARGEST)
    )  # fmt: skip


@triton.jit
def _label_sums_kernel(
    logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v, weight, weight_b, weight_v,
    exponents, ignore_index, voxels, classes, partial, counted_voxels, tiles, programs,
    WEIGHTED: tl.constexpr, IGNORES: tl.constexpr, EXPONENTS: tl.constexpr, TUBE: tl.constexpr, BLOCK: tl.constexpr,
    WORK: tl.constexpr, LARGEST: tl.constexpr, TINY: tl.constexpr,
    GROUP: tl.constexpr, GROUPS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    rows: tl.constexpr = 3 + EXPONENTS + (2 if TUBE else 0)
    row = tl.arange(0, triton.next_power_of_2(rows))[:, None]
    group = tl.arange(0, GROUPS)
    total = tl.zeros((triton.next_power_of_2(rows), GROUPS, GROUP), tl.float64)
    number = tl.zeros((BLOCK,), tl.int32)
    nothing = tl.zeros((GROUP,), WORK)
    for tile in range(program, tiles, programs):
        label, counted, factor, tube, v, inside = _read_labels(
            tile, sample, target, target_b, target_v, weight, weight_b, weight_v, ignore_index, voxels, classes,
            WEIGHTED, IGNORES, TUBE, BLOCK, WORK,
        )  # fmt: skip
        number += counted.to(tl.int32)
        base = logits + sample * logits_b + v * logits_v
        top = tl.full((BLOCK,), -float("inf"), WORK)
        rest = tl.zeros((BLOCK,), WORK)
        mean = tl.zeros((BLOCK,), WORK)
        for g in tl.range(0, GROUPS, num_stages=STAGES):
            _, x, mine = _read_group(g, base, logits_c, label, inside, classes, GROUP, WORK)
            top, rest, mean = _add_group(x, mine, nothing, top, rest, mean)
        hit, miss, surprise, scale = _of_label(base, logits_c, label, counted, top, rest, LARGEST, WORK)
        scale *= factor
        for g in tl.range(0, GROUPS, num_stages=STAGES):
            _, x, mine = _read_group(g, base, logits_c, label, inside, classes, GROUP, WORK)
            others = tl.where(mine, 0, _exponentials(x, top)) * scale[None, :]
            within = tl.where(mine, factor[None, :], 0)
            found = tl.where(row == 0, tl.sum(within * hit[None, :], 1)[None, :], 0)
            found += tl.where(row == 1, tl.sum(others, 1)[None, :], 0)
            found += tl.where(row == 2, tl.sum(within * miss[None, :], 1)[None, :], 0)
            for k in tl.static_range(EXPONENTS):
                exponent = tl.load(exponents + k * classes + label, mask=counted, other=0)
                focal = _power(miss, exponent) * surprise
                found += tl.where(row == 3 + k, tl.sum(within * focal[None, :], 1)[None, :], 0)
            if TUBE:
                within *= tube[None, :]
                found += tl.where(row == 3 + EXPONENTS, tl.sum(within * hit[None, :], 1)[None, :], 0)
                found += tl.where(row == 4 + EXPONENTS, tl.sum(within * miss[None, :], 1)[None, :], 0)
            total += tl.where((group == g)[None, :, None], found[:, None, :], 0).to(tl.float64)
    at = sample * programs + program
    channel = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    place = partial + (at * rows + row[:, :, None]) * classes + channel[None, :, :]
    tl.store(place, total, mask=(row < rows)[:, :, None] & (channel < classes)[None, :, :])
    tl.store(counted_voxels + at, tl.sum(number.to(tl.float64), 0))


@triton.jit
def _label_gradient_kernel(
    logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v, weight, weight_b, weight_v,
    exponents, ignore_index, voxels, classes, upstream, gradient, gradient_b, gradient_c, gradient_v,
    WEIGHTED: tl.constexpr, IGNORES: tl.constexpr, EXPONENTS: tl.constexpr, TUBE: tl.constexpr, BLOCK: tl.constexpr,
    WORK: tl.constexpr, LARGEST: tl.constexpr, TINY: tl.constexpr,
    GROUP: tl.constexpr, GROUPS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    rows: tl.constexpr = 3 + EXPONENTS + (2 if TUBE else 0)
    label, counted, factor, tube, v, inside = _read_labels(
        tl.program_id(0), sample, target, target_b, target_v, weight, weight_b, weight_v, ignore_index, voxels, classes,
        WEIGHTED, IGNORES, TUBE, BLOCK, WORK,
    )  # fmt: skip
    base = logits + sample * logits_b + v * logits_v
    up = upstream + sample * rows * classes
    top = tl.full((BLOCK,), -float("inf"), WORK)
    rest = tl.zeros((BLOCK,), WORK)
    mean_other = tl.zeros((BLOCK,), WORK)
    for g in tl.range(0, GROUPS, num_stages=STAGES):
        c, x, mine = _read_group(g, base, logits_c, label, inside, classes, GROUP, WORK)
        other = tl.load(up + classes + c, mask=c < classes, other=0)
        top, rest, mean_other = _add_group(x, mine, other, top, rest, mean_other)
    hit, miss, surprise, scale = _of_label(base, logits_c, label, counted, top, rest, LARGEST, WORK)
    own = tl.load(up + label, mask=counted, other=0) - tl.load(up + 2 * classes + label, mask=counted, other=0)
    if TUBE:
        in_tube = up + (3 + EXPONENTS) * classes + label
        own += tube * (tl.load(in_tube, mask=counted, other=0) - tl.load(in_tube + classes, mask=counted, other=0))
    at_label = own * hit
    for k in tl.static_range(EXPONENTS):
        exponent = tl.load(exponents + k * classes + label, mask=counted, other=0)
        focal = tl.load(up + (3 + k) * classes + label, mask=counted, other=0)
        at_label -= _slope(surprise, miss, hit, exponent, TINY) * focal
    mean_other *= scale
    mean = at_label + mean_other
    at_label = (at_label * miss - hit * mean_other) * factor
    scale *= factor
    place = gradient + sample * gradient_b + v * gradient_v
    for g in tl.range(0, GROUPS, num_stages=STAGES):
        c, x, mine = _read_group(g, base, logits_c, label, inside, classes, GROUP, WORK)
        other = tl.load(up + classes + c, mask=c < classes, other=0)
        others = _exponentials(x, top) * scale[None, :] * (other[:, None] - mean[None, :])
        result = tl.where(mine, at_label[None, :], others)
        tl.store(
            place[None, :] + c.to(tl.int64)[:, None] * gradient_c,
            result.to(gradient.dtype.element_ty),
            mask=(c < classes)[:, None] & inside[None, :],
        )


@triton.jit
def _sums_kernel(
    logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v, weight, weight_b, weight_v,
    exponents, ignore_index, voxels, classes, partial, counted_voxels, tiles, programs,
    SIGMOID: tl.constexpr, DENSE: tl.constexpr, WEIGHTED: tl.constexpr, IGNORES: tl.constexpr,
    EXPONENTS: tl.constexpr, SQUARED: tl.constexpr, MINIMUM: tl.constexpr,
    TUBE: tl.constexpr,
    SCALE: tl.constexpr, ADDEND: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, WORK: tl.constexpr,
    LARGEST: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    after_focal: tl.constexpr = 3 + (2 * EXPONENTS if SIGMOID else EXPONENTS)
    minima: tl.constexpr = after_focal + (1 if SQUARED else 0)
    in_tube: tl.constexpr = minima + (3 if MINIMUM else 0)
    rows: tl.constexpr = in_tube + (2 if TUBE else 0)
    row_channels = tl.arange(0, CHANNELS)
    row = tl.arange(0, triton.next_power_of_2(rows))[:, None]
    total = tl.zeros((triton.next_power_of_2(rows), CHANNELS), tl.float64)
    number = tl.zeros((BLOCK,), tl.int32)
    for tile in range(program, tiles, programs):
        x, t, factor, tube, counted, _, _, mask = _read(
            tile, sample, logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v,
            weight, weight_b, weight_v, ignore_index, voxels, classes,
            SIGMOID, DENSE, WEIGHTED, IGNORES, TUBE, CHANNELS, BLOCK, WORK,
        )  # fmt: skip
        number += counted.to(tl.int32)
        if SIGMOID:
            p, q, surprise, other_surprise = _sigmoid(x, LARGEST)
        else:
            p, q, surprise = _softmax(x, CHANNELS, LARGEST)
        factors = tl.where(mask, factor[None, :], 0)
        inside = t * factors
        outside = (1 - t) * factors
        true_positive = tl.sum(p * inside, 1)
        false_positive = tl.sum(p * outside, 1)
        false_negative = tl.sum(q * inside, 1)
        if TUBE:
            within = inside * tube[None, :]
            total += tl.where(row == in_tube, tl.sum(within * p, 1)[None, :], 0).to(tl.float64)
            total += tl.where(row == in_tube + 1, tl.sum(within * q, 1)[None, :], 0).to(tl.float64)
        smoothed = SCALE * t + ADDEND
        for k in tl.static_range(EXPONENTS):
            by_class = tl.load(exponents + k * classes + row_channels, mask=row_channels < classes, other=0)
            focal = tl.sum(_power(q, by_class[:, None]) * surprise * smoothed * factors, 1)
            total += tl.where(row == 3 + k, focal[None, :], 0).to(tl.float64)
            if SIGMOID:
                focal = tl.sum(_power(p, by_class[:, None]) * other_surprise * (1 - smoothed) * factors, 1)
                total += tl.where(row == 3 + EXPONENTS + k, focal[None, :], 0).to(tl.float64)
        difference = p * (1 - t) - q * t
        if SQUARED:
            half = tl.sum(difference * difference * factors, 1) / 2
            total += tl.where(row == after_focal, half[None, :], 0).to(tl.float64)
        if MINIMUM:
            covered = tl.sum(tl.where(difference < 0, p, t) * factors, 1)
            excess = tl.sum(tl.where(difference > 0, difference, 0) * factors, 1)
            shortfall = tl.sum(tl.where(difference < 0, -difference, 0) * factors, 1)
            total += tl.where(row == minima, covered[None, :], 0).to(tl.float64)
            total += tl.where(row == minima + 1, excess[None, :], 0).to(tl.float64)
            total += tl.where(row == minima + 2, shortfall[None, :], 0).to(tl.float64)
        total += tl.where(row == 0, true_positive[None, :], 0).to(tl.float64)
        total += tl.where(row == 1, false_positive[None, :], 0).to(tl.float64)
        total += tl.where(row == 2, false_negative[None, :], 0).to(tl.float64)
    at = sample * programs + program
    place = partial + (at * rows + row) * classes + row_channels[None, :]
    tl.store(place, total, mask=(row < rows) & (row_channels < classes)[None, :])
    tl.store(counted_voxels + at, tl.sum(number.to(tl.float64), 0))


@triton.jit
def _gradient_kernel(
    logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v, weight, weight_b, weight_v,
    exponents, ignore_index, voxels, classes, upstream, gradient, gradient_b, gradient_c, gradient_v,
    SIGMOID: tl.constexpr, DENSE: tl.constexpr, WEIGHTED: tl.constexpr, IGNORES: tl.constexpr,
    EXPONENTS: tl.constexpr, SQUARED: tl.constexpr, MINIMUM: tl.constexpr,
    TUBE: tl.constexpr,
    SCALE: tl.constexpr, ADDEND: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, WORK: tl.constexpr,
    LARGEST: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    x, t, factor, tube, _, v, c, mask = _read(
        tl.program_id(0), sample, logits, logits_b, logits_c, logits_v, target, target_b, target_c, target_v,
        weight, weight_b, weight_v, ignore_index, voxels, classes,
        SIGMOID, DENSE, WEIGHTED, IGNORES, TUBE, CHANNELS, BLOCK, WORK,
    )  # fmt: skip
    after_focal: tl.constexpr = 3 + (2 * EXPONENTS if SIGMOID else EXPONENTS)
    minima: tl.constexpr = after_focal + (1 if SQUARED else 0)
    in_tube: tl.constexpr = minima + (3 if MINIMUM else 0)
    rows: tl.constexpr = in_tube + (2 if TUBE else 0)
    channel = tl.arange(0, CHANNELS)
    real = channel < classes
    up = upstream + sample * rows * classes + channel
    other = tl.load(up + classes, mask=real, other=0)
    own = tl.load(up, mask=real, other=0) - tl.load(up + 2 * classes, mask=real, other=0)
    own_in_tube = own
    if TUBE:
        own_in_tube = tl.load(up + in_tube * classes, mask=real, other=0)
        own_in_tube -= tl.load(up + (in_tube + 1) * classes, mask=real, other=0)
    if SIGMOID:
        p, q, surprise, other_surprise = _sigmoid(x, LARGEST)
    else:
        p, q, surprise = _softmax(x, CHANNELS, LARGEST)
    region = t * own[:, None] + (1 - t) * other[:, None]
    if TUBE:
        region += t * own_in_tube[:, None] * tube[None, :]
    difference = p * (1 - t) - q * t
    if SQUARED:
        region += difference * tl.load(up + after_focal * classes, mask=real, other=0)[:, None]
    if MINIMUM:
        covered = tl.load(up + minima * classes, mask=real, other=0)
        excess = tl.load(up + (minima + 1) * classes, mask=real, other=0)
        shortfall = tl.load(up + (minima + 2) * classes, mask=real, other=0)
        region += tl.where(difference > 0, excess[:, None], 0)
        region += tl.where(difference < 0, (covered - shortfall)[:, None], 0)
    positive = tl.zeros((CHANNELS, BLOCK), WORK)
    negative = tl.zeros((CHANNELS, BLOCK), WORK)
    for k in tl.static_range(EXPONENTS):
        by_class = tl.load(exponents + k * classes + channel, mask=real, other=0)[:, None]
        focal = tl.load(up + (3 + k) * classes, mask=real, other=0)[:, None]
        positive -= _slope(surprise, q, p, by_class, TINY) * focal
        if SIGMOID:
            focal = tl.load(up + (3 + EXPONENTS + k) * classes, mask=real, other=0)[:, None]
            negative += _slope(other_surprise, p, q, by_class, TINY) * focal
    smoothed = SCALE * t + ADDEND
    positive *= smoothed
    if SIGMOID:
        result = region * p * q + positive * q + negative * (1 - smoothed) * p
    else:
        mean = tl.sum(p * region + positive, 0)
        result = (region - mean[None, :]) * p + positive
    place = gradient + sample * gradient_b + c[:, None] * gradient_c + v[None, :] * gradient_v
    tl.store(place, (result * factor[None, :]).to(gradient.dtype.element_ty), mask=mask)
