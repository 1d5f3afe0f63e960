"""Logits and targets as the losses per lesion read them: each class that can have lesions against the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """How logits and targets are read.

    Args:
        activation: "softmax", where channel 0 is the background and has no lesions, or "sigmoid".
        dense: Whether the target is (B, C, *spatial) in [0, 1]; else it is labels (B, *spatial).
        ignore_index: The label whose voxels do not count.
        by_channel: Whether an ignored value of a dense target takes its voxel out of its own channel alone.
        checked: Whether labels are known to be in range. Without it one that is not counts as ignored.
    """

    activation: str
    dense: bool
    ignore_index: int | None
    by_channel: bool
    checked: bool

    @property
    def first(self) -> int:
        """The first channel that can have lesions."""
        return 1 if self.activation == "softmax" else 0

    def targets(self, target: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
        """Return (B, F, n) targets, 0 where a voxel does not count, and (B, 1 or F, n) which count (None: all).

        Args:
            target: (B, n) labels or (B, C, n) targets.
            classes: C; F of them can have lesions.
        """
        if self.dense:
            if target.dtype in (torch.uint16, torch.uint32, torch.uint64):  # of which torch finds no places
                target = target.to(torch.int64)
            if self.ignore_index is None:
                return target[:, self.first :], None
            counted = target != self.ignore_index
            counted = counted[:, self.first :] if self.by_channel else counted.all(1, keepdim=True)
            return torch.where(counted, target[:, self.first :], 0), counted
        labels = target[:, None].to(torch.int64)
        targets = labels == torch.arange(self.first, classes, device=target.device)[:, None]
        if self.checked and self.ignore_index is None:
            return targets, None
        counted = (labels >= 0) & (labels < classes)
        if self.ignore_index is not None:
            counted = counted & (labels != self.ignore_index)
        return targets & counted, counted


def log_odds(x: Tensor, activation: str) -> Tensor:
    """Return log p_c - log(1-p_c), (B, F, n), of logits (B, C, n), for the classes that can have lesions.

    With these a softmax is a sigmoid for every class. That of the largest logit is taken from the other logits, as
    1 - p has no digits left where p is almost 1.
    """
    if activation == "sigmoid":
        odds = x
    elif x.shape[1] == 2:
        odds = x[:, 1:] - x[:, :1]
    else:
        largest = _largest(x)
        log_p = torch.log_softmax(x, 1)
        others = torch.logsumexp(x.masked_fill(largest, -torch.inf), 1, keepdim=True)
        rest = torch.log1p(-log_p.exp().masked_fill(largest, 0))
        odds = torch.where(largest, x - others, log_p - rest)[:, 1:]
    limit = torch.finfo(x.dtype).max / 4  # a channel masked by a logit of -inf must not make inf·0
    return odds.clamp(-limit, limit)


def through_log_odds(slope: Tensor, x: Tensor, activation: str) -> Tensor:
    """Return d/d(logits), (B, C, n), for `slope` (B, F, n), the derivative with respect to the log odds."""
    if activation == "sigmoid":
        return slope
    if x.shape[1] == 2:
        return torch.cat([-slope, slope], 1)
    slope = torch.cat([torch.zeros_like(slope[:, :1]), slope], 1)
    # d log-odds_c / d x_j = -p_j / (1-p_c) for j ≠ c; for the largest c that is the softmax of the other logits.
    largest = _largest(x)
    p = torch.softmax(x, 1)
    others = torch.softmax(x.masked_fill(largest, -torch.inf), 1).nan_to_num(0)
    shares = torch.where(largest, 0, slope / (1 - p.masked_fill(largest, 0)))
    of_largest = torch.where(largest, slope, 0).sum(1, keepdim=True)
    return slope - p * (shares.sum(1, keepdim=True) - shares) - others * of_largest


def _largest(x: Tensor) -> Tensor:
    return x.max(1, keepdim=True).indices == torch.arange(x.shape[1], device=x.device)[:, None]
