"""Settle what a configuration leaves open (spacing, patch size, primary class) from a data set."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxloss.config.schema import StudyConfig
from voxloss.data.dataset import Dataset, channels_of, file_values, require_complete, require_same_channels
from voxloss.data.layouts import load_dataset
from voxloss.data.nifti import read_geometry
from voxloss.data.prepare.case import Preparation, PreparedCase
from voxloss.data.prepare.resample import resampled_shape
from voxloss.training.device import resolve_device
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Survey:
    """What the headers of a data set tell: the configuration settled as far as that goes, shapes after preparation."""

    config: StudyConfig
    dataset: Dataset
    shapes: list[tuple[int, int, int]]
    original_voxels: int
    channels: int


def survey(config: StudyConfig) -> Survey:
    """Settle spacing and patch size from headers alone, without preparing or writing anything.

    Raises:
        InputError: as making the study would, as far as headers tell.
    """
    dataset = load_data(config)
    config = settle_spacing(config, dataset)
    target = config.preparation.spacing_mm
    assert not isinstance(target, str)
    shapes, original = [], 0
    for case in dataset.cases:
        geometry = read_geometry(case.images[0])
        original += math.prod(geometry.shape)
        shapes.append(resampled_shape(geometry.shape, geometry.spacing_mm, target))
    channels = channels_of(dataset.cases[0])
    return Survey(settle_patch_size(config, shapes), dataset, shapes, original, channels)


def preparation_of(config: StudyConfig) -> Preparation:
    """The preparation of a study whose spacing is settled."""
    setting = config.preparation
    assert not isinstance(setting.spacing_mm, str)
    return Preparation(setting.clip, setting.spacing_mm, setting.normalisation)


def load_data(config: StudyConfig) -> Dataset:
    data = config.data
    if not data.root:
        raise InputError("data.root is not set: name the folder of the images with --data.")
    if "exclude" in data.options:
        raise InputError("data.options has no `exclude`: that is data.exclude.")
    dataset = load_dataset(data.layout, Path(data.root), exclude=tuple(data.exclude), **data.options)
    require_complete(dataset)
    require_same_channels(dataset)
    _check_classes(config, dataset)
    large = [value for value in file_values(dataset) if value > 255]
    if large:
        raise InputError(f"mask value {large[0]} of {dataset.name}: predictions are 8-bit masks, values 0 to 255.")
    return dataset


def _check_classes(config: StudyConfig, dataset: Dataset) -> None:
    primary = config.comparison.primary_class
    if primary is not None and primary not in dataset.classes[1:]:
        raise InputError(
            f"comparison.primary_class {primary!r} is not a class of the data; it has {', '.join(dataset.classes[1:])}."
        )


def settle_spacing(config: StudyConfig, dataset: Dataset) -> StudyConfig:
    if config.preparation.spacing_mm != "median":
        return config
    spacings = [read_geometry(case.images[0]).spacing_mm for case in dataset.cases]
    median = tuple(round(float(statistics.median(axis)), 4) for axis in zip(*spacings, strict=True))
    spacing = (median[0], median[1], median[2])
    if all(np.allclose(spacing, other, rtol=1e-3) for other in spacings):
        return replace(config, preparation=replace(config.preparation, spacing_mm=None))  # nothing to resample
    return replace(config, preparation=replace(config.preparation, spacing_mm=spacing))


def settle_primary_class(config: StudyConfig, dataset: Dataset, prepared: Sequence[PreparedCase]) -> StudyConfig:
    """The rarest class of the prepared masks, where none is named, so that it is fixed before training."""
    if config.comparison.primary_class is not None:
        return config
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for case in prepared:
        counts += np.bincount(case.label.ravel(), minlength=len(counts))
    rarest = dataset.classes[1 + int(counts[1:].argmin())]
    return replace(config, comparison=replace(config.comparison, primary_class=rarest))


def settle_patch_size(config: StudyConfig, shapes: Sequence[tuple[int, int, int]]) -> StudyConfig:
    """The largest patch of the median volume's proportions that the device takes well, even at every level."""
    if config.patches.size is not None:
        return config
    most = 128**3 if resolve_device(config.execution.device).startswith("cuda") else 64**3
    shape = np.median(shapes, axis=0)
    shape = shape * min(1.0, (most / float(np.prod(shape))) ** (1 / 3))
    unit = 2 ** min(config.network.depth, 3)
    size = [max(unit, int(extent // unit * unit)) for extent in shape]
    return replace(config, patches=replace(config.patches, size=(size[0], size[1], size[2])))
