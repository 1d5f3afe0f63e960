"""What one chunk of voxels adds to the sums, and the gradient of the sums with respect to its logits.

Shapes: logits `x` (C, n), probabilities p (C, n), targets t (C, n), labels (n,), weight (n,) or None. The sums are
(S, C): rows 0, 1, 2 are Σ p·t, Σ p·(1-t), Σ (1-p)·t, then one row per focal exponent Σ t (1-p)^γ (-log p), then, with
sigmoid, one per exponent Σ (1-t) p^γ (-log(1-p)). `x` is a buffer that may be overwritten.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Exponent = float | Tensor  # one for all classes, or one per class

TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, FOCAL = range(4)


def rows(activation: str, exponents: int) -> int:
    """S, the number of sums, for this number of focal exponents."""
    return FOCAL + exponents * (2 if activation == "sigmoid" else 1)


def _focal(surprise: Tensor, miss: Tensor, exponent: Exponent) -> Tensor:
    """(1-p)^γ (-log p) from `surprise` = -log p and `miss` = 1-p."""
    if isinstance(exponent, float) and exponent == 0:
        return surprise
    return torch.pow(miss, exponent).mul_(surprise)


def _focal_slope(surprise: Tensor, miss: Tensor, hit: Tensor, exponent: Exponent) -> Tensor:
    """-p · d/dp [(1-p)^γ (-log p)] = (1-p)^γ (γ p (-log p)/(1-p) + 1), with `hit` = p.

    The quotient (-log p)/(1-p) tends to 1 as p tends to 1, where d/dp (1-p)^γ alone is infinite for γ < 1. At p = 1
    it is computed as 0/tiny = 0 instead of 1, which changes nothing: for γ > 0 the factor (1-p)^γ is 0 there.
    """
    if isinstance(exponent, float) and exponent == 0:
        return torch.ones_like(miss)
    quotient = miss.clamp_min(torch.finfo(miss.dtype).tiny).reciprocal_().mul_(surprise).mul_(hit)
    power = torch.pow(miss, exponent)
    if isinstance(exponent, float):
        return power.addcmul_(power, quotient, value=exponent)
    return power.addcmul_(power, quotient.mul_(exponent))


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


class LabelSoftmax:
    """Softmax against hard labels: per voxel only the label's channel is looked at.

    `others` are the probabilities with those of the labels set to 0. Both Σ p·(1-t) and 1-p of the label are plain sums
    of it, which keeps all their digits where they are tiny; a difference, and log Σ exp, have none left there.
    Multiplying by a mask of ones and zeros is several times faster on a CPU than scattering to the labels' places, and
    sums along rows are pairwise and in a fixed order, which adding up by index is not.
    """

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        self.labels = labels
        x.sub_(x.amax(0))
        chosen = x.gather(0, labels[None])[0]
        own = _exp_(chosen.clone())
        self.mask = torch.empty_like(x)
        channels = torch.arange(len(x), device=x.device, dtype=x.dtype)
        torch.eq(channels[:, None], labels.to(x.dtype), out=self.mask)
        rest = _exp_(x).addcmul_(x, self.mask, value=-1).sum(0)
        # -log p = log(Σ exp without the largest term, which is 1, plus 1) minus the label's logit less the largest:
        # exact where p is close to 1, as the label is then the largest and `own` is 1.
        self.surprise = (own - 1).add_(rest).log1p_().sub_(chosen).clamp_max_(_most_surprise(x))
        scale = (rest + own).reciprocal_()
        self.others, self.miss, self.hit = x.mul_(scale), rest.mul_(scale), own.mul_(scale)

    def sums(self, weight: Tensor | None, exponents: Sequence[Exponent], scratch: Tensor) -> Tensor:
        """The sums (S, C) over this chunk; `scratch` (C, n) is overwritten."""
        if weight is not None:
            self.others.mul_(weight)
            self.mask.mul_(weight)

        def by_label(values: Tensor) -> Tensor:
            return torch.mul(self.mask, values, out=scratch).sum(1)

        rows = [by_label(self.hit), self.others.sum(1), by_label(self.miss)]
        rows += [by_label(_focal(self.surprise, self.miss, _take(exponent, self.labels))) for exponent in exponents]
        return torch.stack(rows)

    def gradient(
        self, upstream: Tensor, weight: Tensor | None, exponents: Sequence[Exponent], scratch: Tensor, out: Tensor
    ) -> None:
        """Write d(Σ upstream·sums)/d(logits) to `out`.

        With a = dL/dp of the other classes, b that of the label's, h the focal slope p·dL/dp and R = Σ_{c≠y} p_c a_c,
        the softmax gives p_c (a_c - R - p_y b - h) for c ≠ y and p_y ((1-p_y) b - R) + (1-p_y) h for c = y.
        """
        other = upstream[FALSE_POSITIVE]
        own = (upstream[TRUE_POSITIVE] - upstream[FALSE_NEGATIVE]).index_select(0, self.labels).mul_(self.hit)
        for row, exponent in zip(upstream[FOCAL:], exponents, strict=True):
            slope = _focal_slope(self.surprise, self.miss, self.hit, _take(exponent, self.labels))
            own.addcmul_(slope, row.index_select(0, self.labels), value=-1)  # now p_y b + h
        mean_other = other @ self.others
        mean = own + mean_other
        at_label = own.mul_(self.miss).addcmul_(self.hit, mean_other, value=-1)
        if out.dtype == scratch.dtype:
            scratch = out
        torch.sub(other[:, None], mean, out=scratch).mul_(self.others)
        if weight is not None:
            at_label.mul_(weight)
            scratch.mul_(weight)
        scratch.addcmul_(self.mask, at_label)
        if out is not scratch:
            out.copy_(scratch)


class Dense:
    """Softmax or sigmoid against a target in [0, 1] for every channel."""

    def __init__(self, x: Tensor, target: Tensor, activation: str) -> None:
        self.target, self.sigmoid = target, activation == "sigmoid"
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

    def sums(self, weight: Tensor | None, exponents: Sequence[Exponent], scratch: Tensor) -> Tensor:
        """The sums (S, C) over this chunk; `scratch` is not used."""
        inside, outside = self.target, 1 - self.target
        if weight is not None:
            inside, outside = inside * weight, outside.mul_(weight)
        columns = [_column(exponent) for exponent in exponents]
        rows = [(self.hit * inside).sum(1), (self.hit * outside).sum(1), (self.miss * inside).sum(1)]
        rows += [(_focal(self.surprise, self.miss, column) * inside).sum(1) for column in columns]
        if self.sigmoid:
            rows += [(_focal(self.other_surprise, self.hit, column) * outside).sum(1) for column in columns]
        return torch.stack(rows)

    def gradient(
        self, upstream: Tensor, weight: Tensor | None, exponents: Sequence[Exponent], scratch: Tensor, out: Tensor
    ) -> None:
        """Write d(Σ upstream·sums)/d(logits) to `out`, with dL/dp = t·gTP + (1-t)·gFP - t·gFN."""
        inside, outside = self.target, 1 - self.target
        columns = [_column(exponent) for exponent in exponents]
        own, other = upstream[TRUE_POSITIVE] - upstream[FALSE_NEGATIVE], upstream[FALSE_POSITIVE]
        slope = torch.zeros_like(self.hit)
        for row, column in zip(upstream[FOCAL:], columns, strict=False):
            slope -= _focal_slope(self.surprise, self.miss, self.hit, column) * row[:, None]
        region = (inside * own[:, None]).add_(outside * other[:, None])  # dL/dp of the region sums
        slope *= inside  # p · dL/dp of the focal sums
        if self.sigmoid:
            gradient = region.mul_(self.hit).mul_(self.miss).add_(slope.mul_(self.miss))
            for row, column in zip(upstream[FOCAL + len(columns) :], columns, strict=True):
                other_slope = _focal_slope(self.other_surprise, self.hit, self.miss, column)
                gradient += other_slope.mul_(outside).mul_(self.hit) * row[:, None]
        else:
            mean = (self.hit * region).add_(slope).sum(0)
            gradient = region.sub_(mean).mul_(self.hit).add_(slope)
        out.copy_(gradient if weight is None else gradient.mul_(weight))
