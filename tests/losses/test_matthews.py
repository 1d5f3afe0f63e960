"""The Matthews correlation loss: by hand, nearly perfect, with weights, and against the correlation of NumPy."""

import math

import mpmath
import numpy as np
import pytest
import torch

import voxloss
from voxloss import get_loss


def problem(shape=(2, 3, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def test_by_hand():
    """p = 3/4 at two of the structure's three voxels and 1/4 elsewhere: TP 7/4, FN 5/4, FP 5/4, TN 15/4."""
    p = torch.tensor([0.75, 0.75, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]])
    expected = 1 - (7 * 15 - 5 * 5) / math.sqrt(12 * 12 * 20 * 20)
    for logits, activation, given in (
        (torch.stack([1 - p, p]).log()[None], "softmax", labels),
        (torch.logit(p)[None, None], "sigmoid", labels),
    ):
        assert get_loss("mcc", activation=activation, smooth=0)(logits, given).item() == pytest.approx(expected)


@pytest.mark.parametrize("right", [0.5, 0.8, 0.97])
def test_of_a_mask_it_is_the_correlation(right):
    """With p of 0 or 1 it is one minus the correlation of two masks, Pearson's of two columns of 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(1, 400, generator=generator) < 0.2).long()
    mask = torch.where(torch.rand(1, 400, generator=generator) < right, labels, 1 - labels)
    logits = 400 * (mask[:, None].double() - 0.5)
    correlation = np.corrcoef(mask.flatten(), labels.flatten())[0, 1]
    assert get_loss("mcc", activation="sigmoid")(logits, labels).item() == pytest.approx(1 - correlation, rel=1e-9)
    both = torch.cat([-logits, logits], 1) / 2
    background = get_loss("mcc", include_background=True)(both, labels)
    assert background.item() == pytest.approx(1 - correlation, rel=1e-9)  # that of the background is the same


@pytest.mark.parametrize("size", [5, 12, 17])
def test_a_nearly_perfect_prediction_keeps_its_digits(size):
    """1 - MCC of errors down to 1e-15 each, against 60 digits."""
    mpmath.mp.dps = 60
    labels = torch.tensor([[1, 1, 0, 0, 0, 0, 0]])
    logits = size * (2 * labels[:, None].double() - 1)
    value = get_loss("mcc", activation="sigmoid", smooth=0)(logits, labels)
    miss = 1 / (1 + mpmath.exp(size))
    tp, fn, fp, tn = 2 * (1 - miss), 2 * miss, 5 * miss, 5 * (1 - miss)
    exact = 1 - (tp * tn - fp * fn) / mpmath.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert value.item() == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("absent_class", ["keep", "skip"])
def test_a_class_that_is_absent_or_everywhere(absent_class):
    logits, labels = problem((1, 2, 4, 4))
    loss = get_loss("mcc", absent_class=absent_class)
    for given in (torch.zeros_like(labels), torch.ones_like(labels)):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, given)
        value.backward()
        there = absent_class == "keep" or bool(given.any())
        assert value.item() == pytest.approx(float(there)) and (leaf.grad == 0).all()
        perfect = 1e5 * (2 * torch.stack([1 - given, given], 1).double() - 1)
        assert loss(perfect, given) == 0


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dense", [False, True])
def test_weights_of_samples_are_weights_of_their_voxels(dense, activation):
    """In sums over the batch; and a weight of 2 is a voxel that is there twice."""
    logits, labels = problem()
    if dense:
        labels = torch.rand(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    loss = get_loss("mcc", activation=activation)
    weight = torch.tensor([2.0, 1.0])
    expected = loss(logits[[0, 0, 1]], labels[[0, 0, 1]])
    assert loss(logits, labels, sample_weight=weight).item() == pytest.approx(expected.item(), rel=1e-12)
    by_voxel = weight[:, None, None].expand(2, 5, 6)
    assert loss(logits, labels, by_voxel).item() == pytest.approx(expected.item(), rel=1e-12)
    mask = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    both = loss(logits, labels, by_voxel, mask=mask)
    assert both.item() == pytest.approx(loss(logits[[0, 0, 1]], labels[[0, 0, 1]], mask=mask[[0, 0, 1]]).item())


def test_channels_that_are_ignored_apart():
    logits, _ = problem((3, 2, 5, 6))
    target = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    target[1, 0] = 9
    weight = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(4))
    apart = get_loss("mcc", activation="sigmoid", ignore_index=9, ignore_scope="channel", class_reduction="none")
    found = apart(logits, target, weight)
    for c, samples in ((0, [0, 2]), (1, [0, 1, 2])):
        alone = get_loss("mcc", activation="sigmoid")
        own = alone(logits[samples, c : c + 1], target[samples, c : c + 1], weight[samples])
        assert found[c].item() == pytest.approx(own.item(), rel=1e-12)


def test_float32_of_a_rare_structure_in_a_large_volume():
    """A million voxels with forty of the structure: the true negatives of the background are those of a few voxels."""
    labels = torch.zeros(1, 100, 100, 100, dtype=torch.long)
    labels[0, 50, 50, :40] = 1
    logits = torch.randn(1, 2, 100, 100, 100, generator=torch.Generator().manual_seed(0))
    logits[:, 0] += 6 - 9 * labels
    loss = get_loss("mcc", include_background=True, class_reduction="none")
    torch.testing.assert_close(loss(logits, labels).double(), loss(logits.double(), labels), rtol=2e-6, atol=0)


def test_other_overlaps_are_refused_and_aliases_found():
    with pytest.raises(ValueError, match="overlap must be 'product' in the Matthews correlation loss, received"):
        get_loss("mcc", overlap="minimum")
    assert isinstance(get_loss("matthews"), voxloss.MccLoss)
