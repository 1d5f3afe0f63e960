"""The pass over the voxels in operations that torch differentiates by itself.

It takes several times the time and memory of the fused pass, and stands in for it where that has no rule: under the
transforms of torch.func, in forward mode, and for the gradient of a gradient.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from voxloss.losses.parameters import PerClass
from voxloss.losses.voxel_pass import binned
from voxloss.losses.voxel_pass.plain import total_type, working_type
from voxloss.losses.voxel_pass.reading import TargetReading
from voxloss.losses.voxel_pass.settings import PassSettings


def sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums (B, S, C) in the order of `kernels`, and counted voxels (B,)."""
    x = logits.to(working_type(logits)).flatten(2)
    classes = x.shape[1]
    if settings.dense:
        t = target.flatten(2).to(x.dtype)
        counted = torch.ones_like(t[:, 0], dtype=torch.bool)
        if settings.ignore_index is not None:
            counted = (t != settings.ignore_index).all(1)
    else:
        labels = target.flatten(1).to(torch.int64)
        counted = (labels >= 0) & (labels < classes)
        if settings.ignore_index is not None:
            counted = counted & (labels != settings.ignore_index)
        t = (labels[:, None] == torch.arange(classes, device=x.device)[:, None]).to(x.dtype)
    factor = counted.to(x.dtype)
    if weight is not None:
        factor = torch.where(counted, weight.flatten(1).to(x.dtype), 0)
    tube = (-factor).clamp_min(0)[:, None]
    factor = factor.abs()
    # Whatever is in voxels that do not count, NaN included, must not get out.
    x, t = torch.where(counted[:, None], x, 0), torch.where(counted[:, None], t, 0)
    inside, outside = t * factor[:, None], (1 - t) * factor[:, None]
    if settings.activation == "sigmoid":
        surprise, other_surprise = -logsigmoid(x), -logsigmoid(-x)
        hit, miss = torch.exp(-surprise), torch.exp(-other_surprise)
    else:
        surprise = -torch.log_softmax(x, 1)
        other_surprise, hit, miss = surprise, torch.exp(-surprise), -torch.expm1(-surprise)
    # A channel masked by a logit of -inf must not make inf·0.
    largest = torch.finfo(x.dtype).max / 2
    surprise, other_surprise = surprise.clamp_max(largest), other_surprise.clamp_max(largest)
    parts = [hit * inside, hit * outside, miss * inside]
    scale, addend = settings.smoothed(classes)
    target_inside, target_outside = (scale * t + addend) * factor[:, None], (1 - addend - scale * t) * factor[:, None]
    parts += [_focal(surprise, miss, exponent) * target_inside for exponent in settings.exponents]
    if settings.activation == "sigmoid":
        parts += [_focal(other_surprise, hit, exponent) * target_outside for exponent in settings.exponents]
    difference = hit * (1 - t) - miss * t
    if settings.squared:
        parts.append(difference.square() / 2 * factor[:, None])
    if settings.minimum:
        lower = difference < 0
        minima = (torch.where(lower, hit, t), torch.where(lower, 0, difference), torch.where(lower, -difference, 0))
        parts += [part * factor[:, None] for part in minima]
    if settings.tube:
        parts += [hit * t * tube, miss * t * tube]
    if shares is not None:
        for share in shares.flatten(2).to(x.dtype).unsqueeze(2):
            parts.append(surprise * target_inside * share)
            if settings.activation == "sigmoid":
                parts.append(other_surprise * target_outside * share)
    kind = total_type(logits)
    rows = torch.stack([part.sum(2, dtype=kind) for part in parts], 1)
    if settings.bins:
        unsigned = None if weight is None else weight.abs()
        given, how = (logits, target, unsigned), TargetReading.of(settings)
        rows = torch.cat([rows, *(binned.composite(*given, bins, how) for bins in settings.bins)], 1)
    return rows, counted.sum(1).to(kind)


def gradient(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    settings: PassSettings,
    shares: Tensor | None = None,
) -> Tensor:
    """d(Σ upstream·sums)/d(logits) for `upstream` (B, S, C), differentiable with respect to both."""

    def total(logits: Tensor) -> Tensor:
        return (upstream * sums(logits, target, weight, settings, shares)[0]).sum()

    result: Tensor = torch.func.grad(total)(logits)
    return result


def _focal(surprise: Tensor, miss: Tensor, exponent: PerClass) -> Tensor:
    if exponent == 0:
        return surprise
    power: float | Tensor = exponent if isinstance(exponent, float) else torch.tensor(exponent).to(miss)[:, None]
    # At p = 1 the slope of (1-p)^γ is infinite for γ < 1; below the smallest number the power is constant.
    return miss.clamp_min(torch.finfo(miss.dtype).tiny) ** power * surprise
