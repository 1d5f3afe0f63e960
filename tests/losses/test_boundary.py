"""Boundary loss: maps against SciPy and by hand, wrong maps, scales, and its place beside other losses."""

import importlib.util
import math
from functools import partial

import numpy as np
import pytest
import torch
from loss_twin import signed_distances as by_all_distances
from scipy import ndimage

import voxloss
from voxloss import Compound, DeepSupervision, distance_maps, get_loss
from voxloss.geometry import distances as geometry
from voxloss.losses.voxel_pass import library
from voxloss.losses.voxel_pass.further.distances import distances_to
from voxloss.transforms import DistanceMaps

SHAPES = [((7, 9, 8), (1.0, 1.0, 1.0)), ((13, 21), (0.7, 0.7)), ((6, 10, 9), (2.5, 0.97, 1.0)), ((40,), (3.0,))]


def mask(shape, density, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def problem(shape=(2, 3, 6, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits, labels


def outcome(compute, logits, *others):
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3, 0.9])
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_distances_are_those_of_scipy(shape, spacing, density):
    for seed in range(3):
        given = mask(shape, density, seed)
        given.view(-1)[seed] = True
        expected = ndimage.distance_transform_edt(~given.numpy(), sampling=spacing)
        np.testing.assert_allclose(distances_to(given, spacing), expected, rtol=1e-6)
        np.testing.assert_allclose(distances_to(given, spacing, torch.float64), expected, rtol=1e-13)


def test_far_distances_and_a_single_voxel():
    given = torch.zeros(3, 400, dtype=torch.bool)
    given[2, 399] = True
    assert distances_to(given, (5.0, 1.0))[0, 0].item() == pytest.approx(math.hypot(10, 399), rel=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_maps_of_torch_and_of_the_loader_are_equal(shape, spacing, density, monkeypatch):
    labels = mask(shape, density, 1).long() * torch.randint(1, 3, shape, generator=torch.Generator().manual_seed(2))
    labels.view(-1)[:4] = 255
    options = {"classes": 3, "spacing": spacing, "ignore_index": 255, "background": True}
    maps = distance_maps(labels[None], **options)[0]
    if library.is_there():
        assert torch.equal(DistanceMaps(**options)({"label": labels})["distances"], maps)
    monkeypatch.setattr(library, "is_there", lambda: False)  # as without a compiler, by SciPy
    sample = DistanceMaps(**options)({"label": labels})
    assert maps.dtype == sample["distances"].dtype == torch.float32
    torch.testing.assert_close(maps, sample["distances"], rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as without SciPy
    assert torch.equal(DistanceMaps(**options)({"label": labels})["distances"], maps)
    if len(set(spacing)) == 1:  # in units of the spacing they are those in voxels
        voxels = distance_maps(labels[None], 3, ignore_index=255, background=True)[0]
        torch.testing.assert_close(maps, voxels * spacing[0], rtol=1e-6, atol=1e-6)
    for c in range(3):
        inside, outside = labels == c, (labels != c) & (labels != 255)
        if spacing == (1.0,) * len(shape):
            torch.testing.assert_close(maps[c].double(), by_all_distances(inside, outside), rtol=1e-6, atol=1e-6)
        if not (inside.any() and outside.any()):
            assert not maps[c].any() and not geometry.signed_distances(inside.numpy(), outside.numpy(), spacing).any()


def test_maps_by_hand():
    """Depth 0 at the border; an ignored voxel is on neither side; a class that is absent or alone has 0."""
    labels = torch.tensor([[1, 1, 1, 0, 0, 9, 2, 0]])
    maps = distance_maps(labels, 4, ignore_index=9)
    assert maps.tolist() == [[[-2, -1, 0, 1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1, 0, 1], [0] * 8]]
    assert not distance_maps(torch.ones(1, 2, 3, dtype=torch.long), 2).any()
    thick = distance_maps(torch.tensor([[[0, 0], [1, 1], [1, 1], [1, 1]]]), 2, spacing=(2.5, 0.5))
    assert thick[0, 0, :, 0].tolist() == [2.5, -2.0, -4.5, -7.0]
    soft = torch.tensor([[[0.5, 0.49, 0.0, 0.7]]])
    assert distance_maps(soft, 1, activation="sigmoid").tolist() == [[[0, 1, 1, 0]]]
    assert distance_maps(torch.cat([soft, 1 - soft], 1), 2, multi_hot=True).tolist() == [[[-2, -1, 0, 1]]]
    assert distance_maps(labels.new_zeros(0, 3), 2).shape == (0, 1, 3)


def test_boundary_by_hand():
    """p = 1/2, 1/4, 1/8, 1/4 at distances -1, 0, 1, 2 of a structure of two voxels; mean over four voxels."""
    p = torch.tensor([0.5, 0.25, 0.125, 0.25], dtype=torch.float64)
    logits, labels = torch.stack([1 - p, p]).log()[None], torch.tensor([[1, 1, 0, 0]])
    expected = (-0.5 + 0.125 + 2 * 0.25) / 4
    assert get_loss("boundary")(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    assert get_loss("boundary", spacing=[3])(logits, labels).item() == pytest.approx(3 * expected, rel=1e-12)
    background = (0.5 * 2 + 0.75 * 1 + 0.875 * 0 + 0.75 * -1) / 4
    both = get_loss("boundary", include_background=True, class_reduction="sum")(logits, labels)
    assert both.item() == pytest.approx(expected + background, rel=1e-12)
    kept = get_loss("boundary", ignore_index=255)(logits, torch.tensor([[1, 1, 0, 255]]))
    assert kept.item() == pytest.approx((-0.5 + 0.125) / 3, rel=1e-12)


def test_a_class_that_is_absent_or_alone():
    logits, labels = problem((1, 3, 4, 5))
    labels = labels.clamp_max(1)
    keep, skip = (get_loss("boundary", absent_class=how)(logits, labels) for how in ("keep", "skip"))
    assert skip.item() == pytest.approx(2 * keep.item(), rel=1e-12)
    for alone in (0, 1):
        value, gradient = outcome(get_loss("boundary"), logits, torch.full_like(labels, alone))
        assert value == 0 and not gradient.any()
    maps = distance_maps(labels, 3)
    maps[:, 1] = 5.0  # of a structure that is lost in these labels
    torch.testing.assert_close(get_loss("boundary")(logits, labels, distances=maps), keep, rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_given_maps_are_those_that_the_loss_makes(activation):
    logits, labels = problem((2, 3, 5, 6, 7))
    labels[0, 0] = 255
    options = {"activation": activation, "ignore_index": 255}
    maps = distance_maps(labels, 3, spacing=(3, 1, 1), **options)
    loss = get_loss("boundary", spacing=(3, 1, 1), **options)
    expected = outcome(loss, logits, labels)
    for given in (maps, maps.double(), maps.numpy()):
        torch.testing.assert_close(
            outcome(partial(loss, distances=given), logits, labels), expected, rtol=1e-6, atol=1e-9
        )
    whole = distance_maps(labels, 3, background=True, **options)
    all_classes = get_loss("boundary", include_background=True, **options)
    value = all_classes(logits, labels, distances=whole)
    torch.testing.assert_close(value, all_classes(logits, labels), rtol=1e-6, atol=1e-9)
    function = voxloss.functional.boundary_loss(logits, labels, distances=maps, **options)
    assert function == get_loss("boundary", **options)(logits, labels, distances=maps)


def test_wrong_maps_are_refused():
    logits, labels = problem()
    loss, maps = get_loss("boundary"), distance_maps(labels, 3)
    with pytest.raises(ValueError, match=r"distances of shape \(2, 6, 7\) do not fit .* expected \(2, 2, 6, 7\)"):
        loss(logits, labels, distances=maps[:, 0])
    for wrong in (maps.abs(), -maps, distance_maps(labels.flip(1), 3)):
        with pytest.raises(ValueError, match=r"distances must not be above 0 inside their class.*distance_maps"):
            loss(logits, labels, distances=wrong)
    with pytest.raises(ValueError, match="distances must be finite"):
        loss(logits, labels, distances=maps.index_fill(3, torch.tensor([1]), torch.inf))
    with pytest.raises(ValueError, match="distances leave out the background, which include_background=True needs"):
        get_loss("boundary", include_background=True)(logits, labels, distances=maps)
    with pytest.raises(ValueError, match=r"spacing has 3 values \(1.0, 2.0, 3.0\) for 2 spatial axes"):
        get_loss("boundary", spacing=(1, 2, 3))(logits, labels)
    for spacing in ((1, 0), (1, -2), (1, math.inf), 1.0, ()):
        with pytest.raises(ValueError, match="spacing must be finite numbers above 0, one per axis, or None"):
            get_loss("boundary", spacing=spacing)
    for spacing in ((1, 0), (1, math.nan)):
        with pytest.raises(ValueError, match="spacing must be finite and above 0"):
            distance_maps(labels, 3, spacing=spacing)
    with pytest.raises(ValueError, match="label 2 is outside the allowed range 0 to 1 of 2 classes"):
        distance_maps(labels, 2)
    with pytest.raises(ValueError, match=r"must have the shape \(B, 2, \*spatial\), received \(2, 3, 4, 5\)"):
        distance_maps(torch.zeros(2, 3, 4, 5), 2, activation="sigmoid", multi_hot=True)
    with pytest.raises(ValueError, match="class_weight must be numbers in a loss of distances"):
        get_loss("boundary", class_weight="inverse_volume")
    with pytest.raises(ValueError, match="overlap is a parameter of region terms"):
        get_loss("boundary", overlap="minimum")


def test_the_transform_gives_a_loader_the_maps():
    logits, labels = problem((2, 3, 5, 6))
    transform = DistanceMaps("mask", classes=3, spacing="spacing")
    batch = torch.utils.data.default_collate(
        [transform({"mask": label, "spacing": (2.0, 0.5), "image": 0}) for label in labels[:, None].float().numpy()]
    )
    torch.testing.assert_close(batch["distances"], distance_maps(labels, 3, spacing=(2, 0.5)), rtol=1e-6, atol=1e-6)
    value = get_loss("boundary")(logits, batch["mask"], distances=batch["distances"])
    torch.testing.assert_close(value, get_loss("boundary", spacing=(2, 0.5))(logits, labels), rtol=1e-6, atol=1e-9)
    flipped = DistanceMaps("mask", classes=3)({"mask": labels[0].numpy()[:, ::-1]})["distances"]
    torch.testing.assert_close(flipped, distance_maps(labels[:1].flip(2), 3)[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(KeyError, match="the sample has no labels 'label'; its keys are 'image', 'mask'"):
        DistanceMaps()({"image": 0, "mask": labels[0]})
    with pytest.raises(KeyError, match="the sample has no spacing 'spacing'"):
        transform({"mask": labels[0]})


def test_compound_with_mixed_focal():
    logits, labels = problem()
    maps = distance_maps(labels, 3)
    parts = [get_loss("mixed_focal"), get_loss("boundary")]
    expected = parts[0](logits, labels) + 0.1 * parts[1](logits, labels)
    for given in ({}, {"distances": maps}):
        torch.testing.assert_close(Compound(parts, [1, 0.1])(logits, labels, **given), expected, rtol=1e-7, atol=0)
    assert get_loss("dice")(logits, labels, distances=maps) == get_loss("dice")(logits, labels)
    course = Compound(["mixed_focal", get_loss("hausdorff", spacing=(2, 1))], [1, voxloss.LinearSchedule(0, 0.1, 10)])
    course.set_epoch(5)
    expected = parts[0](logits, labels) + 0.05 * get_loss("hausdorff", spacing=(2, 1))(logits, labels)
    torch.testing.assert_close(course(logits, labels), expected, rtol=1e-7, atol=0)
    smoothed = Compound([get_loss("cross_entropy", label_smoothing=0.1), "boundary"])
    rest = get_loss("cross_entropy", label_smoothing=0.1)(logits, labels) + parts[1](logits, labels)
    torch.testing.assert_close(smoothed(logits, labels), rest)


def test_deep_supervision_takes_maps_to_every_grid():
    """A structure of one voxel is lost on the coarse grid, where it costs nothing."""
    logits, _ = problem((1, 3, 8, 8))
    coarse, _ = problem((1, 3, 4, 4), seed=5)
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 2:7, 1:6], labels[0, 0, 0] = 1, 2
    maps, loss = distance_maps(labels, 3, spacing=(2, 2)), get_loss("boundary")
    found = DeepSupervision(loss, [1, 0.5])([logits, coarse], labels, distances=maps)
    small = labels[:, 1::2, 1::2]
    assert 2 not in small
    p = coarse.softmax(1)[0, 1]
    lost = (p * maps[0, 0, 1::2, 1::2]).mean() / 2
    torch.testing.assert_close(found, loss(logits, labels, distances=maps) + 0.5 * lost)


def test_training_moves_the_border():
    """From a prediction that is shifted: with the boundary loss beside Dice the border comes to its place."""
    labels = torch.zeros(1, 20, 20, dtype=torch.long)
    labels[0, 5:12, 6:15] = 1
    logits = torch.zeros(1, 2, 20, 20)
    logits[0, 1] = torch.where(labels[0].roll(4, 1) == 1, 2.0, -2.0)
    logits.requires_grad_()
    loss = Compound(["dice", "boundary"])
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, labels).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), labels)


def test_hausdorff_by_hand():
    """p = 3/4, 1/4, 1/4, 3/4 of a structure of the first two voxels: one missed, one invented far away."""
    p = torch.tensor([0.75, 0.25, 0.25, 0.75], dtype=torch.float64)
    logits, labels = torch.stack([1 - p, p]).log()[None], torch.tensor([[1, 1, 0, 0]])
    # Distances to the other side: in the labels 2, 1, 1, 2, in the prediction 1, 1, 1, 1.
    for alpha in (2, 1.0, 0.5):
        errors = [0.0625 * (2**alpha + 1), 0.5625 * 2, 0.0625 * 2, 0.5625 * (2**alpha + 1)]
        value = get_loss("hausdorff", alpha=alpha)(logits, labels)
        assert value.item() == pytest.approx(sum(errors) / 4, rel=1e-12)
    wide = get_loss("hausdorff", spacing=[3])(logits, labels)
    assert wide.item() == pytest.approx(9 * get_loss("hausdorff")(logits, labels).item(), rel=1e-12)
    empty = get_loss("hausdorff")(logits, torch.zeros_like(labels))  # distances of the prediction alone
    assert empty.item() == pytest.approx((p**2).sum().item() / 4, rel=1e-12)
    assert (
        get_loss("hausdorff")(1000 * (logits[:, [0, 1]] * 0 + torch.tensor([[[0.0, 0, 1, 1], [1, 1, 0, 0]]])), labels)
        == 0
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_hausdorff_gradcheck(activation):
    logits, labels = problem((1, 3, 3, 4))
    loss = get_loss("hausdorff", activation=activation, class_weight=[1, 2, 0.5], spacing=(2, 0.5), ignore_index=2)
    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), labels))
    twice = Compound(["mixed_focal", "hausdorff"], [1, 0.1])
    expected = get_loss("mixed_focal")(logits, labels) + 0.1 * get_loss("hausdorff")(logits, labels)
    torch.testing.assert_close(twice(logits, labels), expected)
