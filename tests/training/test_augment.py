"""Augmentation: seeded per patch, silent towards global generators, and as strong as configured."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import create_zero_centered_coordinate_mesh, elastic_deform_coordinates

from voxloss.config.schema import AugmentationConfig
from voxloss.training.augment import Augmenter, elastic_magnitude

SIZE = (12, 16, 16)
OFF = AugmentationConfig(
    probability=1.0,
    rotation_degrees=None,
    scaling=None,
    elastic_alpha=None,
    mirror_axes=(),
    brightness=None,
    contrast=None,
    gamma=None,
    noise_sd=None,
)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, *SIZE, generator=generator)
    labels = (torch.rand(2, *SIZE, generator=generator) > 0.7).to(torch.uint8)
    return images, labels


def test_the_same_seed_gives_the_same_patch_whatever_happened_before():
    results = []
    for noise in range(2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        augment = Augmenter(SIZE, AugmentationConfig(probability=1.0))
        images, labels = batch()
        if noise:
            augment(*batch(5), [9, 9])
        augment(images, labels, [1, 2])
        results.append((images, labels))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    other = batch()
    Augmenter(SIZE, AugmentationConfig(probability=1.0))(*other, [3, 4])
    assert not torch.equal(other[0], results[0][0])


def test_global_generators_are_left_as_they_were():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    Augmenter(SIZE, AugmentationConfig(probability=1.0))(*batch(), [1, 2])
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


def test_with_everything_off_nothing_changes():
    images, labels = batch()
    before = images.clone(), labels.clone()
    Augmenter(SIZE, OFF)(images, labels, [1, 2])
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_only_the_configured_axes_are_mirrored_and_labels_follow():
    augment = Augmenter(SIZE, replace(OFF, mirror_axes=(2,)))
    seen = set()
    for seed in range(20):
        images, labels = batch()
        before = images.clone(), labels.clone()
        augment(images, labels, [seed, seed])
        mirrored = torch.equal(images, before[0].flip(4))
        assert mirrored or torch.equal(images, before[0])
        assert torch.equal(labels, before[1].flip(3) if mirrored else before[1])
        seen.add(mirrored)
    assert seen == {True, False}


@pytest.mark.parametrize("kind", ["brightness", "contrast", "gamma", "noise_sd"])
def test_intensity_kinds_change_images_within_their_range_and_never_labels(kind):
    ranges = {"brightness": (2.0, 2.0), "contrast": (0.5, 0.5), "gamma": (1.5, 1.5), "noise_sd": (0.1, 0.1)}
    images, labels = batch()
    before = images.clone(), labels.clone()
    Augmenter(SIZE, replace(OFF, **{kind: ranges[kind]}))(images, labels, [1, 2])
    assert torch.equal(labels, before[1])
    if kind == "brightness":
        torch.testing.assert_close(images, 2 * before[0])
    elif kind == "contrast":
        mean = before[0].mean(dim=(2, 3, 4), keepdim=True)
        torch.testing.assert_close(images, mean + 0.5 * (before[0] - mean))
    elif kind == "gamma":
        low, high = before[0].amin((2, 3, 4), True), before[0].amax((2, 3, 4), True)
        torch.testing.assert_close(images, low + (high - low) * ((before[0] - low) / (high - low)) ** 1.5)
    else:
        assert 0.09 < float((images - before[0]).std()) < 0.11


def test_rotation_keeps_to_its_angle():
    size = (4, 33, 33)
    images = torch.zeros(1, 1, *size)
    images[0, 0, :, 16, 30] = 1.0
    labels = images[:, 0].to(torch.uint8)
    Augmenter(size, replace(OFF, rotation_degrees=(0.0, 15.0)))(images, labels, [4])
    centre = torch.nonzero(images[0, 0] > 0.2).float().mean(dim=0)[1:] - 16
    assert 13 < float(centre.norm()) < 15
    angle = abs(float(torch.rad2deg(torch.atan2(centre[0], centre[1]))))
    assert 0.5 < angle < 16


def test_probability_is_the_share_of_changed_patches():
    augment = Augmenter(SIZE, replace(OFF, brightness=(2.0, 2.0), probability=0.15))
    changed = 0
    for seed in range(300):
        images = torch.ones(1, 1, *SIZE)
        augment(images, torch.zeros(1, *SIZE, dtype=torch.uint8), [seed])
        changed += bool(images.max() > 1.5)
    assert 25 < changed < 70  # 45 expected


def test_elastic_deformation_is_as_strong_as_batchgenerators():
    """The formula against the largest displacement that batchgenerators itself produces."""
    size, alpha, sigma = (64, 80, 80), 900.0, 10.0
    np.random.seed(0)
    mesh = create_zero_centered_coordinate_mesh(size)
    largest = [np.abs(elastic_deform_coordinates(mesh, alpha, sigma) - mesh).max(axis=(1, 2, 3)) for _ in range(3)]
    assert elastic_magnitude(alpha, sigma, size) == pytest.approx(np.mean(largest), rel=0.25)


def blobs(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image of two channels, and three classes in large pieces that reach the border."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, extent) for extent in size), indexing="ij")
    image = torch.stack([sum(torch.sin((2 + axis) * x) for axis, x in enumerate(axes)), axes[1]])[None]
    label = (axes[1] > 0.2).to(torch.uint8) + (axes[2] > 0.4).to(torch.uint8)
    return image, label[None]


@pytest.mark.parametrize("size", [(24, 32, 40), (1, 32, 40), (32, 40, 1)])
@pytest.mark.parametrize(
    "kinds",
    [
        {"rotation_degrees": (-15.0, 15.0)},
        {"scaling": (0.85, 1.25)},
        {"elastic_alpha": (900.0, 900.0)},
        {"rotation_degrees": (-15.0, 15.0), "scaling": (0.7, 1.4), "elastic_alpha": (0.0, 900.0)},
    ],
)
def test_on_the_device_spatial_transforms_are_batchgeneratorsv2s(size, kinds):
    """Of the same draws the same patch, so that the distributions are the same whatever draws a device makes."""
    setting = replace(OFF, **kinds)
    for seed in range(3):
        image, label = blobs(size)
        there, there_label = image.clone(), label.clone()
        Augmenter(size, setting)(image, label, [seed])
        Augmenter(size, setting, on_device=True)(there, there_label, [seed])
        torch.testing.assert_close(there, image, atol=2e-4, rtol=1e-4)
        # Ties apart, which batchgeneratorsv2 sees in float16 and gives to the nearest voxel.
        assert (there_label != label).float().mean() < 0.005
        assert not torch.equal(image, blobs(size)[0])


def test_on_the_device_each_kind_comes_as_often():
    for on_device in (False, True):
        augment = Augmenter(SIZE, replace(OFF, rotation_degrees=(10.0, 10.0), probability=0.3), on_device)
        changed = 0
        for seed in range(200):
            images, labels = batch()
            before = images[:1].clone()
            augment(images[:1], labels[:1], [seed])
            changed += not torch.equal(images[:1], before)
        assert 38 < changed < 84  # 60 expected


def test_a_slice_stays_in_its_plane():
    size = (1, 24, 24)
    images = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(1, *size, dtype=torch.uint8)
    Augmenter(size, replace(OFF, rotation_degrees=(15.0, 15.0)))(images, labels, [0])
    assert labels[0, 0, 6:-6, 6:-6].all()
    before = images.clone()
    Augmenter(size, replace(OFF, mirror_axes=(0,)))(images, labels, [0])
    assert torch.equal(images, before)
