"""The sums over one chunk of voxels, and their gradient with respect to its logits.

Shapes: logits `x` (C, n), probabilities p (C, n), targets t (C, n), labels (n,), weight (n,) or None. The sums are
(S, C): rows 0, 1, 2 are Σ p·t, Σ p·(1-t), Σ (1-p)·t, then one row per focal exponent Σ t (1-p)^γ (-log p), then, with
sigmoid, one per exponent Σ (1-t) p^γ (-log(1-p)); then those that the settings ask for, Σ (p-t)²/2, and Σ min(p, t),
Σ max(p-t, 0), Σ max(t-p, 0), and Σ p·t, Σ (1-p)·t in a tube, whose voxels have a weight below 0; and for each of the
`shares` (n,) of selected voxels that of the exponent 0, with sigmoid both. `x` is a buffer that may be overwritten.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from voxloss.losses.voxel_pass.settings import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    FOCAL,
    MINIMA,
    TRUE_POSITIVE,
    TUBE,
    PassSettings,
)

Exponent = float | Tensor  # one for all classes, or one per class


def _focal(surprise: Tensor, miss: Tensor, exponent: Exponent, out: Tensor) -> Tensor:
    """(1-p)^γ (-log p) from `surprise` = -log p and `miss` = 1-p, in `out` unless γ is 0."""
    if isinstance(exponent, float) and exponent == 0:
        return surprise
    return torch.pow(miss, exponent, out=out).mul_(surprise)


def _focal_slope(
    surprise: Tensor, miss: Tensor, hit: Tensor, exponent: Exponent, quotient: Tensor, out: Tensor
) -> Tensor:
    """-p · d/dp [(1-p)^γ (-log p)] = (1-p)^γ (γ p (-log p)/(1-p) + 1), with `hit` = p, in `out`.

    The quotient (-log p)/(1-p) tends to 1 as p tends to 1, where d/dp (1-p)^γ alone is infinite for γ < 1. At p = 1
    it is computed as 0/tiny = 0 instead of 1, which changes nothing: for γ > 0 the factor (1-p)^γ is 0 there.
    `quotient` is a buffer.
    """
    if isinstance(exponent, float) and exponent == 0:
        return out.fill_(1)
    tiny = torch.finfo(miss.dtype).tiny
    torch.clamp_min(miss, tiny, out=quotient).reciprocal_().mul_(surprise).mul_(hit)
    torch.pow(miss, exponent, out=out)
    if isinstance(exponent, float):
        return out.addcmul_(out, quotient, value=exponent)
    return out.addcmul_(out, quotient.mul_(exponent))


def _tube(weight: Tensor | None, settings: PassSettings) -> tuple[Tensor | None, Tensor | None]:
    """Where the tube is, 1 and 0, and the weights without their sign; (None, weight) where there is none."""
    if not settings.tube:
        return None, weight
    assert weight is not None, "the sign of the weight tells the tube"
    return (weight < 0).to(weight.dtype), weight.abs()


def _take(exponent: Exponent, labels: Tensor) -> Exponent:
    return exponent if isinstance(exponent, float) else exponent.index_select(0, labels)


def _column(exponent: Exponent) -> Exponent:
    return exponent if isinstance(exponent, float) else exponent[:, None]


def _exp_(x: Tensor) -> Tensor:
    """exp(x) in place, as a power of two: four times faster on a CPU, and as exact as the rounding of x allows."""
    return x.mul_(1 / math.log(2)).exp2_()


def _most_surprise(x: Tensor) -> float:
    """A bound of -log p that keeps a channel masked by a logit of -inf from making inf·0 in the slope or the sums."""
    return torch.finfo(x.dtype).max / 2


@dataclass(frozen=True)
class Buffers:
    """Memory for one chunk, reused for the next: allocating it again costs as much as the computation.

    `x` holds the logits, `mask` and `scratch` are like it, (C, n); `rows` are vectors (n,).
    """

    x: Tensor
    mask: Tensor
    scratch: Tensor
    rows: tuple[Tensor, ...]

    ROWS: ClassVar[int] = 6


class LabelSoftmax:
    """Softmax against hard labels: per voxel only the label's channel is looked at.

    `others` are the probabilities with those of the labels set to 0. Both Σ p·(1-t) and 1-p of the label are plain sums
    of it, which keeps all their digits where they are tiny; a difference, and log Σ exp, have none left there.
    Multiplying by a mask of ones and zeros is several times faster on a CPU than scattering to the labels' places, and
    sums along rows are pairwise and in a fixed order, which adding up by index is not.
    """

    def __init__(self, buffers: Buffers, labels: Tensor, settings: PassSettings) -> None:
        self.settings = settings
        self.labels, self.mask, self.scratch = labels, buffers.mask, buffers.scratch
        self.surprise, self.miss, self.hit, self.first, self.second, self.third = buffers.rows
        x, chosen, rest, own = buffers.x, self.first, self.miss, self.hit
        x.sub_(torch.amax(x, 0, out=self.second))
        torch.gather(x, 0, labels[None], out=chosen[None])
        _exp_(own.copy_(chosen))
        channels = torch.arange(len(x), device=x.device, dtype=x.dtype)
        torch.eq(channels[:, None], self.second.copy_(labels), out=self.mask)
        torch.sum(_exp_(x).addcmul_(x, self.mask, value=-1), 0, out=rest)
        # -log p = log(Σ exp without the largest term, which is 1, plus 1) minus the label's logit less the largest:
        # exact where p is close to 1, as the label is then the largest and `own` is 1.
        torch.sub(own, 1, out=self.surprise).add_(rest).log1p_().sub_(chosen).clamp_max_(_most_surprise(x))
        scale = torch.add(rest, own, out=self.second).reciprocal_()
        self.others = x.mul_(scale)
        rest.mul_(scale)
        own.mul_(scale)

    def sums(self, weight: Tensor | None, exponents: Sequence[Exponent], shares: Sequence[Tensor]) -> Tensor:
        """The sums (S, C) over this chunk."""
        tube, weight = _tube(weight, self.settings)
        if weight is not None:
            self.others.mul_(weight)
            self.mask.mul_(weight)

        def by_label(values: Tensor) -> Tensor:
            return torch.mul(self.mask, values, out=self.scratch).sum(1)

        rows = [by_label(self.hit), self.others.sum(1), by_label(self.miss)]
        for exponent in exponents:
            rows.append(by_label(_focal(self.surprise, self.miss, _take(exponent, self.labels), self.first)))
        if tube is not None:
            rows += [by_label(self.hit.mul_(tube)), by_label(self.miss.mul_(tube))]
        rows += [by_label(torch.mul(self.surprise, share, out=self.first)) for share in shares]
        return torch.stack(rows)

    def gradient(
        self,
        upstream: Tensor,
        weight: Tensor | None,
        exponents: Sequence[Exponent],
        shares: Sequence[Tensor],
        out: Tensor,
    ) -> None:
        """Write d(Σ upstream·sums)/d(logits) to `out`.

        With a = dL/dp of the other classes, b that of the label's, h = p·dL/dp of the focal sums and
        R = Σ_{c≠y} p_c a_c, the softmax gives p_c (a_c - R - p_y b - h) for c ≠ y and
        p_y ((1-p_y) b - R) + (1-p_y) h for c = y.
        """
        other, labels = upstream[FALSE_POSITIVE], self.labels
        tube, weight = _tube(weight, self.settings)
        own = torch.index_select(upstream[TRUE_POSITIVE] - upstream[FALSE_NEGATIVE], 0, labels, out=self.first)
        if tube is not None:
            found, missed = upstream[self.settings.before_tube :][:TUBE]
            own.addcmul_(torch.index_select(found - missed, 0, labels, out=self.second), tube)
        own.mul_(self.hit)
        for row, exponent in zip(upstream[FOCAL:], exponents, strict=False):
            taken = _take(exponent, labels)
            slope = _focal_slope(self.surprise, self.miss, self.hit, taken, self.second, self.third)
            own.addcmul_(slope, torch.index_select(row, 0, labels, out=self.second), value=-1)  # now p_y b + h
        for row, share in zip(upstream[self.settings.before_hardest :], shares, strict=True):
            own.addcmul_(share, torch.index_select(row, 0, labels, out=self.second), value=-1)
        mean_other = torch.mv(self.others.T, other, out=self.second)
        mean = torch.add(own, mean_other, out=self.third)
        at_label = own.mul_(self.miss).addcmul_(self.hit, mean_other, value=-1)
        result = out if out.dtype == self.scratch.dtype else self.scratch
        torch.sub(other[:, None], mean, out=result).mul_(self.others)
        if weight is not None:
            at_label.mul_(weight)
            result.mul_(weight)
        result.addcmul_(self.mask, at_label)
        if result is not out:
            out.copy_(result)


class Dense:
    """Softmax or sigmoid against a target in [0, 1] for every channel."""

    def __init__(self, x: Tensor, target: Tensor, settings: PassSettings) -> None:
        self.target, self.settings, self.sigmoid = target, settings, settings.activation == "sigmoid"
        largest = _most_surprise(x)
        if self.sigmoid:
            # From both sides separately: 1-p computed from p has no digits left where p is close to 1.
            self.surprise = logsigmoid(x).neg_().clamp_max_(largest)
            self.other_surprise = logsigmoid(-x).neg_().clamp_max_(largest)
            self.hit, self.miss = (-self.surprise).exp_(), (-self.other_surprise).exp_()
        else:
            # log Σ exp as log1p of the sum without its largest term, which is 1: exact where one p is close to 1.
            largest_logit, index = x.max(0, keepdim=True)
            x.sub_(largest_logit)
            rest = x.exp().scatter_(0, index, x.new_zeros(1, 1).expand_as(index)).sum(0)
            self.surprise = rest.log1p_().sub(x).clamp_max_(largest)
            minus = -self.surprise
            self.hit, self.miss = minus.exp(), minus.expm1().neg_()

    def _focal_targets(self) -> tuple[Tensor, Tensor]:
        """The targets of the two sides in the focal sums."""
        if self.settings.label_smoothing == 0:
            return self.target, 1 - self.target
        factor, addend = self.settings.smoothed(len(self.target))
        smoothed = self.target * factor + addend
        return smoothed, 1 - smoothed

    def _difference(self) -> Tensor:
        """P - t, exact where t is 1 and p close to it."""
        return (self.hit * (1 - self.target)).addcmul_(self.miss, self.target, value=-1)

    def sums(self, weight: Tensor | None, exponents: Sequence[Exponent], shares: Sequence[Tensor]) -> Tensor:
        """The sums (S, C) over this chunk."""
        columns = [_column(exponent) for exponent in exponents]
        tube, weight = _tube(weight, self.settings)
        sides = [(self.target, 1 - self.target), self._focal_targets()]
        if weight is not None:
            sides = [(inside * weight, outside.mul_(weight)) for inside, outside in sides]
        (inside, outside), (focal, other_focal) = sides
        rows = [(self.hit * inside).sum(1), (self.hit * outside).sum(1), (self.miss * inside).sum(1)]
        buffer = torch.empty_like(self.hit)
        rows += [(_focal(self.surprise, self.miss, column, buffer) * focal).sum(1) for column in columns]
        if self.sigmoid:
            rows += [(_focal(self.other_surprise, self.hit, column, buffer) * other_focal).sum(1) for column in columns]
        if self.settings.squared or self.settings.minimum:
            rows += self._differences(1 if weight is None else weight)
        if tube is not None:
            rows += [(self.hit * inside).mul_(tube).sum(1), (self.miss * inside).mul_(tube).sum(1)]
        for share in shares:
            rows.append((self.surprise * focal).mul_(share).sum(1))
            if self.sigmoid:
                rows.append((self.other_surprise * other_focal).mul_(share).sum(1))
        return torch.stack(rows)

    def _differences(self, weight: Tensor | int) -> list[Tensor]:
        difference, rows = self._difference(), []
        if self.settings.squared:
            rows.append((difference.square() * weight).sum(1) / 2)
        if self.settings.minimum:
            rows.append((torch.where(difference < 0, self.hit, self.target) * weight).sum(1))
            rows += [(difference.clamp_min(0) * weight).sum(1), (difference.clamp_max(0) * weight).sum(1).neg()]
        return rows

    def gradient(
        self,
        upstream: Tensor,
        weight: Tensor | None,
        exponents: Sequence[Exponent],
        shares: Sequence[Tensor],
        out: Tensor,
    ) -> None:
        """Write d(Σ upstream·sums)/d(logits) to `out`, with dL/dp = t·gTP + (1-t)·gFP - t·gFN of the first sums.

        Where p = t the minimum has the slope 0, which is that of its loss there.
        """
        (inside, outside), (focal, other_focal) = (self.target, 1 - self.target), self._focal_targets()
        columns = [_column(exponent) for exponent in exponents]
        tube, weight = _tube(weight, self.settings)
        own, other = upstream[TRUE_POSITIVE] - upstream[FALSE_NEGATIVE], upstream[FALSE_POSITIVE]
        slope, *buffers = torch.zeros_like(self.hit), torch.empty_like(self.hit), torch.empty_like(self.hit)
        for row, column in zip(upstream[FOCAL:], columns, strict=False):
            slope.addcmul_(_focal_slope(self.surprise, self.miss, self.hit, column, *buffers), row[:, None], value=-1)
        region = (inside * own[:, None]).add_(outside * other[:, None])  # dL/dp of the region sums
        if tube is not None:
            found, missed = upstream[self.settings.before_tube :, :, None][:TUBE]
            region.addcmul_(inside * tube, found - missed)
        if self.settings.squared or self.settings.minimum:
            self._add_differences(region, upstream[self.settings.after_focal :, :, None])
        shape = (self.settings.hardest, self.settings.sides)
        hardest = upstream[self.settings.before_hardest :, :, None].unflatten(0, shape)
        for rows, share in zip(hardest, shares, strict=True):
            slope.addcmul_(rows[0], share, value=-1)
        slope *= focal  # p · dL/dp of the focal sums
        if self.sigmoid:
            gradient = region.mul_(self.hit).mul_(self.miss).add_(slope.mul_(self.miss))
            for row, column in zip(upstream[FOCAL + len(columns) :], columns, strict=False):
                other_slope = _focal_slope(self.other_surprise, self.hit, self.miss, column, *buffers)
                gradient += other_slope.mul_(other_focal).mul_(self.hit) * row[:, None]
            for rows, share in zip(hardest, shares, strict=True):
                gradient += (other_focal * self.hit).mul_(share).mul_(rows[1])
        else:
            mean = (self.hit * region).add_(slope).sum(0)
            gradient = region.sub_(mean).mul_(self.hit).add_(slope)
        out.copy_(gradient if weight is None else gradient.mul_(weight))

    def _add_differences(self, region: Tensor, upstream: Tensor) -> None:
        """Add to `region` dL/dp of the squared differences and of the minima, whose rows `upstream` has."""
        difference = self._difference()
        if self.settings.squared:
            region.addcmul_(difference, upstream[0])
        if self.settings.minimum:
            covered, excess, shortfall = upstream[int(self.settings.squared) :][:MINIMA]
            region.addcmul_(difference > 0, excess).addcmul_(difference < 0, covered - shortfall)
