"""Losses and metrics as users write them; a test copies this file as a module of its own."""

import torch
from torch import nn

import voxloss
from voxloss.losses.curves import Power
from voxloss.losses.parameters import Positive


class RootTversky(voxloss.Loss):
    """Tversky loss with a root of the error.

        Σ_c (1 - index_c)^(1/root)

    Args:
        root: The root that is taken of a class's error.
    """

    root: Positive = 2.0

    def terms(self):
        return self.region(0.5, Power(1 / self.root))


class Weighted(nn.Module):
    """A module whose buffer, running frequencies of the classes, weighs the cross entropy."""

    title = "Running weights"

    def __init__(self, momentum=0.5):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("share", torch.full((8,), 0.125))

    def forward(self, logits, labels):
        count = logits.shape[1]
        if self.training:
            now = torch.bincount(labels.flatten(), minlength=8)[:8] / labels.numel()
            self.share.mul_(self.momentum).add_((1 - self.momentum) * now)
        return nn.functional.cross_entropy(logits, labels, weight=1 / (self.share[:count] + 0.1))


def soft_dice(logits, labels, smooth=1.0):
    target = nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)
    p, axes = logits.softmax(1), tuple(range(2, logits.ndim))
    index = (2 * (p * target).sum(axes) + smooth) / (p.sum(axes) + target.sum(axes) + smooth)
    return 1 - index.mean()


class Float32Only(nn.Module):
    """A module that refuses anything but float32 logits, outside autocast."""

    def forward(self, logits, labels):
        assert logits.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return nn.functional.cross_entropy(logits, labels)


class WithChannel(nn.Module):
    def forward(self, logits, labels):
        assert labels.shape == (len(logits), 1, *logits.shape[2:]), "labels need a channel axis"
        return nn.functional.cross_entropy(logits, labels[:, 0])


class OneHot(nn.Module):
    def forward(self, logits, target):
        if target.shape != logits.shape:
            raise ValueError("one-hot targets, please")
        return -(target * logits.log_softmax(1)).sum(1).mean()


def masked(logits, labels, ignore_index=-1):
    return nn.functional.cross_entropy(logits, labels, ignore_index=ignore_index)


def counts_ignored(logits, labels, ignore_index):
    return nn.functional.cross_entropy(logits, labels.clamp(max=logits.shape[1] - 1))


def per_sample(logits, labels):
    return nn.functional.cross_entropy(logits, labels, reduction="none").flatten(1).mean(1)


def not_a_number(logits, labels):
    return logits.sum() * float("nan")


def of_absent_classes(logits, labels):
    return nn.functional.cross_entropy(logits, labels) / (labels > 0).sum()


def raises(logits, labels):
    raise RuntimeError("no such thing")


def without_gradient(logits, labels):
    return (logits.argmax(1) != labels).float().mean()


def in_numbers(logits, labels):
    return 0.5


def in_parts(logits, labels):
    return logits.mean(), logits.std()


class Trainable(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return self.weight * nn.functional.cross_entropy(logits, labels)


class Frozen(Trainable):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Callable_:
    def __call__(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels)


def one_argument(logits):
    return logits.mean()


existing = Float32Only()
compound = voxloss.Compound(["dice", "cross_entropy"])
number = 3


def missed(reference, prediction, spacing_mm):
    """Share of the reference that is predicted, so that it equals the recall."""
    return (reference & prediction).sum() / reference.sum() if reference.any() else float("nan")


missed.title = "Found share"


def volume_error(reference, prediction, spacing_mm):
    return abs(float(prediction.sum()) - float(reference.sum())) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000


volume_error.range, volume_error.higher_is_better, volume_error.unit = (0, float("inf")), False, "ml"


def beyond(reference, prediction, spacing_mm):
    return 1.5


def of_empty(reference, prediction, spacing_mm):
    return 1 // int(prediction.any())
