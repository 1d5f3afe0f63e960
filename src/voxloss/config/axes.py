"""Sizes and spacings of images, for which two numbers suffice, along the three axes of their arrays."""

from dataclasses import replace
from typing import TypeVar

from voxloss.config.schema import Size, Spacing, StudyConfig
from voxloss.utilities.errors import InputError

Number = TypeVar("Number", int, float)


def patch_size(config: StudyConfig, flat_axis: int | None) -> Size | None:
    """Return `patches.size` along three axes, of images 1 along the flat axis; None if it is open.

    Raises:
        InputError: It has two numbers, but the cases are volumes.
    """
    size = config.patches.size
    if size is None:
        return None
    first, second, third = _three(size, flat_axis, 1, "patches.size")
    return first, second, third


def spacing_of(config: StudyConfig, flat_axis: int | None) -> Spacing | None:
    """Return `preparation.spacing_mm` along three axes, of images 1 along the flat axis; None if it has no numbers.

    Raises:
        InputError: It has two numbers, but the cases are volumes.
    """
    spacing = config.preparation.spacing_mm
    if not isinstance(spacing, tuple):
        return None
    first, second, third = _three(spacing, flat_axis, 1.0, "preparation.spacing_mm")
    return first, second, third


def with_three_axes(config: StudyConfig, flat_axis: int | None) -> StudyConfig:
    """Return the configuration with patch size and spacing along three axes, of images 1 along the flat axis.

    A single slice is neither cut nor resampled across its plane, so any other number there would have no effect.

    Args:
        config: The configuration; patch size and spacing may be open.
        flat_axis: The axis along which every case has one voxel; None: the cases are volumes.

    Raises:
        InputError: One of the two has two numbers, but the cases are volumes.
    """
    spacing = spacing_of(config, flat_axis) or config.preparation.spacing_mm
    config = replace(config, preparation=replace(config.preparation, spacing_mm=spacing))
    return replace(config, patches=replace(config.patches, size=patch_size(config, flat_axis)))


def _three(values: tuple[Number, ...], flat_axis: int | None, across: Number, key: str) -> list[Number]:
    if flat_axis is None:
        if len(values) == 2:
            raise InputError(f"{key} has two numbers, {list(values)}, but the cases are volumes: give three.")
        return list(values)
    three = list(values)
    three[flat_axis : flat_axis + len(values) - 2] = [across]
    return three
