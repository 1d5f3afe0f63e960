"""Random patches: the batch of a step is a function of (seed, fold, step) alone.

No generator state lives between steps, so that every loss sees the same batches and an interrupted run goes on with
the batches it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from voxloss.data.case import IGNORED
from voxloss.utilities.arrays import ClassIndices, Float32s, Integers

# Streams of random numbers that must not coincide, as last words of a seed sequence.
_ORDER, _PLACE, _VALIDATION, _CLASS = 0, 1, 2, 5  # 3 and 4 are those of voxloss.training


class PatchSource(Protocol):
    """The part of a prepared case that patches need."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the prepared case."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the prepared grid."""

    @property
    def image(self) -> Float32s:
        """Channels of the image, (channels, *shape)."""

    @property
    def label(self) -> ClassIndices:
        """Class of every voxel, (*shape)."""

    @property
    def foreground(self) -> dict[int, Integers]:
        """Flat indices of voxels of each foreground class."""

    @property
    def inside(self) -> Integers | None:
        """Coordinates of voxels of the region of interest, which patches are centred on; None without a region."""


@dataclass(frozen=True)
class PatchSetting:
    """Size in voxels per stored axis, patches per batch, and the probability of centring one on the foreground.

    by_class: such a patch is cut from a case that has a class drawn before, not from the next case.
    """

    size: tuple[int, int, int]
    batch_size: int
    foreground_share: float
    by_class: bool = False


@dataclass(frozen=True)
class Place:
    """The case that a patch is cut from, and its first voxel (negative if the volume is smaller than the patch)."""

    case: int
    origin: tuple[int, int, int]


def training_places(
    cases: Sequence[PatchSource], setting: PatchSetting, seed: int, fold: int, step: int
) -> list[Place]:
    """Return the places of the patches of a training step. Each pass through the cases has a new random order."""
    places = []
    for position in range(step * setting.batch_size, (step + 1) * setting.batch_size):
        turn, index = divmod(position, len(cases))
        order = _generator(seed, fold, turn, _ORDER).permutation(len(cases))
        case = int(order[index])
        centred = _of_class(cases, setting, _generator(seed, fold, position, _CLASS)) if setting.by_class else None
        if centred is None:
            share = replace(setting, foreground_share=0.0) if setting.by_class else setting
            centred = Place(case, _origin(cases[case], share, _generator(seed, fold, position, _PLACE)))
        places.append(centred)
    return places


def _of_class(cases: Sequence[PatchSource], setting: PatchSetting, generator: np.random.Generator) -> Place | None:
    """Return a place that is centred on a class, each class as often as the others; None if none is to be centred."""
    if generator.random() >= setting.foreground_share:
        return None
    having: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        for index, voxels in case.foreground.items():
            if len(voxels):
                having.setdefault(index, []).append(number)
    if not having:
        return None
    index = sorted(having)[int(generator.integers(len(having)))]
    chosen = having[index][int(generator.integers(len(having[index])))]
    return Place(chosen, _around(cases[chosen].foreground[index], cases[chosen].shape, setting, generator))


def validation_places(cases: Sequence[PatchSource], setting: PatchSetting, fold: int, step: int) -> list[Place]:
    """Return the places of the patches of a validation batch, equal for every epoch, loss and seed."""
    places = []
    for position in range(step * setting.batch_size, (step + 1) * setting.batch_size):
        case = position % len(cases)
        places.append(Place(case, _origin(cases[case], setting, _generator(0, fold, position, _VALIDATION))))
    return places


def padding_before(extent: int, size: int) -> int:
    """Return the voxels of padding before an axis shorter than the patch, which centre the volume in the patch."""
    return max(0, (size - extent + 1) // 2)


def read_batch(
    cases: Sequence[PatchSource], places: Sequence[Place], size: tuple[int, int, int]
) -> tuple[Float32s, ClassIndices]:
    """Cut the patches out: images float32 (B, channels, *size), labels uint8 (B, *size).

    Voxels outside a volume smaller than the patch get each channel's minimum over the part read (air, or the clipped
    lower end) and the label background, or are ignored if the case has a region of interest.
    """
    patches = [_read_patch(cases[place.case], place.origin, size) for place in places]
    return np.stack([image for image, _ in patches]), np.stack([label for _, label in patches])


def _generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def _origin(case: PatchSource, setting: PatchSetting, generator: np.random.Generator) -> tuple[int, int, int]:
    low, high = _range(case.shape, setting)
    # Both are drawn whatever is used, so that the share changes which patches are centred and not the others' places.
    anywhere = [int(generator.integers(first, last + 1)) for first, last in zip(low, high, strict=True)]
    present: list[Integers] = []
    if generator.random() < setting.foreground_share:
        present = [voxels for _, voxels in sorted(case.foreground.items()) if len(voxels)]
    if not present and case.inside is not None:
        present = [case.inside]
    if not present:
        return anywhere[0], anywhere[1], anywhere[2]
    return _around(present[int(generator.integers(len(present)))], case.shape, setting, generator)


def _around(
    voxels: Integers, shape: Sequence[int], setting: PatchSetting, generator: np.random.Generator
) -> tuple[int, int, int]:
    """Return the origin of a patch that is centred on one of these voxels, as far as the volume's borders allow."""
    low, high = _range(shape, setting)
    centre = voxels[int(generator.integers(len(voxels)))]
    origin = [
        int(np.clip(int(middle) - size // 2, first, last))
        for middle, size, first, last in zip(centre, setting.size, low, high, strict=True)
    ]
    return origin[0], origin[1], origin[2]


def _range(shape: Sequence[int], setting: PatchSetting) -> tuple[list[int], list[int]]:
    """Return the lowest and the highest origin of a patch along each axis."""
    low = [-padding_before(extent, size) for extent, size in zip(shape, setting.size, strict=True)]
    high = [max(extent - size, first) for extent, size, first in zip(shape, setting.size, low, strict=True)]
    return low, high


def _read_patch(
    case: PatchSource, origin: tuple[int, int, int], size: tuple[int, int, int]
) -> tuple[Float32s, ClassIndices]:
    inside = tuple(
        slice(max(0, first), min(first + length, extent))
        for first, length, extent in zip(origin, size, case.shape, strict=True)
    )
    image = np.array(case.image[(slice(None), *inside)], dtype=np.float32)
    label = np.array(case.label[inside], dtype=np.uint8)
    if label.shape == tuple(size):
        return image, label
    before = [max(0, -first) for first in origin]
    into = tuple(slice(start, start + length) for start, length in zip(before, label.shape, strict=True))
    padded_image = np.empty((len(image), *size), dtype=np.float32)
    padded_image[:] = image.reshape(len(image), -1).min(axis=1)[:, None, None, None]
    padded_image[(slice(None), *into)] = image
    padded_label = np.full(size, 0 if case.inside is None else IGNORED, dtype=np.uint8)
    padded_label[into] = label
    return padded_image, padded_label
