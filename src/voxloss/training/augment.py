"""Random changes of training patches by batchgeneratorsv2, seeded per patch; the CPU's generators are restored."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from voxloss.config.schema import AugmentationConfig
from voxloss.training.device_spatial import DeviceSpatialTransform
from voxloss.training.planar import slice_axis


class Augmenter:
    """The paper's augmentations for patches of one size.

    Kinds and order are MIScnn's: spatial (elastic deformation, rotation, scaling), mirroring, brightness, contrast,
    gamma, Gaussian noise. Outside the patch, spatial transforms see intensity 0 (the mean, after the z-score) and
    background.

    A patch of one slice is changed within its plane.

    Args:
        size: Voxels of the patch per axis.
        setting: Ranges and probabilities.
        on_device: Whether spatial transforms are computed on the device of the patches. The distribution is the same,
            and on a CPU the random numbers are too.
    """

    def __init__(self, size: tuple[int, int, int], setting: AugmentationConfig, on_device: bool = False) -> None:
        self._slice_axis = slice_axis(size)
        axes = [axis for axis in range(3) if axis != self._slice_axis]
        mirrored = tuple(axes.index(axis) for axis in setting.mirror_axes if axis in axes)
        plane = tuple(size[axis] for axis in axes)
        self._transforms = list(_transforms(plane, replace(setting, mirror_axes=mirrored), on_device))

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, seeds: list[int]) -> None:
        """Change `images` (B, channels, *size) and `labels` (B, *size) in place; `seeds[b]` seeds patch b."""
        if self._slice_axis is not None:
            images, labels = images.squeeze(2 + self._slice_axis), labels.squeeze(1 + self._slice_axis)
        for image, label, seed in zip(images, labels, seeds, strict=True):
            sample: dict[str, Any] = {"image": image.clone(), "segmentation": label[None].to(torch.int16)}
            with _seeded(seed, image.device):
                for transform in self._transforms:
                    sample = transform(**sample)
            image.copy_(sample["image"])
            label.copy_(sample["segmentation"][0])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python, which batchgeneratorsv2 uses, and restore them after."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _transforms(size: tuple[int, ...], setting: AugmentationConfig, on_device: bool) -> Iterator[Any]:
    def sometimes(transform: Any) -> Any:
        return RandomTransform(transform, apply_probability=setting.probability)

    rotation, scaling, alpha = setting.rotation_degrees, setting.scaling, setting.elastic_alpha
    if rotation or scaling or alpha:
        yield (DeviceSpatialTransform if on_device else SpatialTransform)(
            patch_size=size,
            patch_center_dist_from_border=0,
            random_crop=False,
            p_rotation=setting.probability if rotation else 0,
            rotation=tuple(math.radians(angle) for angle in rotation or (0, 0)),
            p_scaling=setting.probability if scaling else 0,
            scaling=scaling or (1, 1),
            p_elastic_deform=setting.probability if alpha else 0,
            # No lambdas, which cannot be sent to the processes that read ahead.
            elastic_deform_scale=partial(_random_scale, sigma=setting.elastic_sigma),
            elastic_deform_magnitude=partial(_random_magnitude, alpha=alpha or (0, 0)),
        )
    if setting.mirror_axes:
        yield MirrorTransform(allowed_axes=tuple(setting.mirror_axes))
    if setting.brightness:
        yield sometimes(MultiplicativeBrightnessTransform(setting.brightness, synchronize_channels=False))
    if setting.contrast:
        yield sometimes(ContrastTransform(setting.contrast, preserve_range=True, synchronize_channels=False))
    if setting.gamma:
        yield sometimes(
            GammaTransform(
                setting.gamma, p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=0
            )
        )
    if setting.noise_sd:
        # named variance there, used as the standard deviation
        yield sometimes(GaussianNoiseTransform(setting.noise_sd))


def _random_scale(image: Any, dim: int, patch_size: tuple[int, ...], sigma: tuple[float, float]) -> float:
    return np.random.uniform(*sigma) / patch_size[dim]  # noqa: NPY002


def _random_magnitude(
    image: Any, dim: int, patch_size: tuple[int, ...], deformation_scale: float, alpha: tuple[float, float]
) -> float:
    return elastic_magnitude(np.random.uniform(*alpha), deformation_scale * patch_size[dim], patch_size)  # noqa: NPY002


def elastic_magnitude(alpha: float, sigma: float, size: tuple[int, ...]) -> float:
    """Return the largest displacement (voxels) of batchgenerators' elastic deformation with `alpha` and `sigma`.

    batchgenerators (used by MIScnn) multiplies uniform noise on [-1, 1], smoothed by a Gaussian of `sigma` voxels, by
    `alpha`; batchgeneratorsv2 scales a smoothed field to a given largest displacement. The smoothed noise has standard
    deviation `3^(-1/2) (2 √π σ)^(-3/2)`, and the largest of about `n = V / (2 √π σ)^3` independent values of a normal
    variable is close to `√(2 ln 2n)` standard deviations.
    """
    width = 2 * math.sqrt(math.pi) * sigma
    cells = max(1.0, math.prod(max(1.0, extent / width) for extent in size))
    largest: float = alpha / math.sqrt(3) * width**-1.5 * math.sqrt(2 * math.log(2 * cells))
    return largest
