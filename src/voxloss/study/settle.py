"""Settle what a configuration leaves open (spacing, patch size, primary class, sizes of lesions) from a data set."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxloss.config.schema import DataConfig, PatchesConfig, PreparationConfig, StudyConfig
from voxloss.config.settled import (
    SettledConfig,
    SettledPatches,
    SettledPreparation,
    settled_patches,
    settled_preparation,
)
from voxloss.data.dataset import Dataset, channels_of, file_values, require_complete, require_same_channels
from voxloss.data.layouts import load_dataset
from voxloss.data.nifti import read_geometry
from voxloss.data.prepare.case import Preparation, PreparedCase
from voxloss.data.prepare.resample import resampled_shape
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import lesion_volumes, limits_of_classes
from voxloss.geometry.components import class_boxes
from voxloss.training.device import resolve_device
from voxloss.utilities.arrays import Float64s
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Survey:
    """What is known of a data set from its headers.

    Args:
        config: The configuration, settled. The rarest class needs the masks, so without a configured primary class it
            is the last class here.
        dataset: The cases.
        shapes: Shape of every case after preparation.
        original_voxels: Voxels of all cases as stored.
        channels: Channels of every case.
    """

    config: SettledConfig
    dataset: Dataset
    shapes: list[tuple[int, int, int]]
    original_voxels: int
    channels: int


def survey(config: StudyConfig) -> Survey:
    """Settle spacing and patch size from headers alone, without preparing or writing anything.

    Raises:
        InputError: As creating the study would, as far as headers allow.
    """
    dataset = load_data(config)
    preparation = settle_spacing(config.preparation, dataset)
    shapes, original = [], 0
    for case in dataset.cases:
        geometry = read_geometry(case.images[0])
        original += math.prod(geometry.shape)
        shapes.append(resampled_shape(geometry.shape, geometry.spacing_mm, preparation_of(preparation).spacing_mm))
    primary = config.comparison.primary_class or dataset.classes[-1]
    settled = SettledConfig.of(
        replace(
            config,
            preparation=preparation,
            patches=settle_patch_size(config, shapes),
            comparison=replace(config.comparison, primary_class=primary),
        )
    )
    return Survey(settled, dataset, shapes, original, channels_of(dataset.cases[0]))


def preparation_of(setting: SettledPreparation) -> Preparation:
    """Return the preparation of a study's configuration."""
    spacing = None if setting.spacing_mm == "stored" else setting.spacing_mm
    return Preparation(setting.clip, spacing, setting.normalisation)


def load_data(config: StudyConfig) -> Dataset:
    """Load the data set of a configuration, complete and ready for a study.

    Raises:
        InputError: No folder is configured, files are missing, or cases do not match; the message names the first.
    """
    data: DataConfig = config.data
    if not data.root:
        raise InputError("data.root is not set: name the folder of the images with --data.")
    if "exclude" in data.options:
        raise InputError("data.options has no `exclude`: that is data.exclude.")
    dataset = load_dataset(data.layout, Path(data.root), exclude=tuple(data.exclude), **data.options)
    require_complete(dataset)
    require_same_channels(dataset)
    primary = config.comparison.primary_class
    if primary is not None and primary not in dataset.classes[1:]:
        raise InputError(
            f"comparison.primary_class {primary!r} is not a class of the data; it has {', '.join(dataset.classes[1:])}."
        )
    limits = config.evaluation.lesions.size_limits_ml
    unknown = [name for name in limits if name not in dataset.classes[1:]] if isinstance(limits, dict) else []
    if unknown:
        raise InputError(
            f"evaluation.lesions.size_limits_ml: {unknown[0]!r} is not a class of the data; it has "
            f"{', '.join(dataset.classes[1:])}."
        )
    large = [value for value in file_values(dataset) if value > 255]
    if large:
        raise InputError(f"mask value {large[0]} of {dataset.name}: predictions are 8-bit masks, values 0 to 255.")
    return dataset


def settle_spacing(preparation: PreparationConfig, dataset: Dataset) -> SettledPreparation:
    """Replace "median" by the median spacing of the cases, or by "stored" if all cases have that spacing."""
    if preparation.spacing_mm != "median":
        return settled_preparation(preparation)
    spacings = [read_geometry(case.images[0]).spacing_mm for case in dataset.cases]
    median = tuple(round(float(statistics.median(axis)), 4) for axis in zip(*spacings, strict=True))
    spacing = (median[0], median[1], median[2])
    if all(np.allclose(spacing, other, rtol=1e-3) for other in spacings):
        return settled_preparation(replace(preparation, spacing_mm="stored"))
    return settled_preparation(replace(preparation, spacing_mm=spacing))


def rarest_class(dataset: Dataset, prepared: Sequence[PreparedCase]) -> str:
    """Return the foreground class with the fewest voxels in the prepared masks."""
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for case in prepared:
        counts += np.bincount(case.label.ravel(), minlength=len(counts))
    return dataset.classes[1 + int(counts[1:].argmin())]


def settle_sizes(rules: LesionRules, dataset: Dataset, prepared: Sequence[PreparedCase]) -> LesionRules:
    """Replace open size limits by the thirds of the lesions in the prepared masks; a class without any gets none."""
    if rules.size_limits_ml is not None:
        return rules
    volumes: dict[str, list[Float64s]] = {name: [] for name in dataset.classes[1:]}
    for case in prepared:
        voxel_ml = math.prod(case.spacing_mm) / 1000
        boxes = class_boxes([case.label], len(dataset.classes))
        for index, name in enumerate(dataset.classes[1:], start=1):
            volumes[name].append(lesion_volumes(case.label[boxes[index]] == index, voxel_ml, rules))
    return replace(rules, size_limits_ml=limits_of_classes(volumes))


def settle_patch_size(config: StudyConfig, shapes: Sequence[tuple[int, int, int]]) -> SettledPatches:
    """Choose the largest patch with the median volume's proportions that suits the device, even at every level."""
    patches: PatchesConfig = config.patches
    if patches.size is not None:
        return settled_patches(patches)
    largest = 128**3 if resolve_device(config.execution.device).startswith("cuda") else 64**3
    shape = np.median(shapes, axis=0)
    shape = shape * min(1.0, (largest / float(np.prod(shape))) ** (1 / 3))
    unit = 2 ** min(config.network.depth, 3)
    size = [max(unit, int(extent // unit * unit)) for extent in shape]
    return settled_patches(replace(patches, size=(size[0], size[1], size[2])))
