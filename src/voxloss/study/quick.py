"""Cut a study to a quick look: few cases, on a coarse grid, in small patches.

What the configuration sets itself is kept: the spacing, the patch, the number of runs at a time.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voxloss.config.axes import with_three_axes
from voxloss.config.losses import check_losses, loss_choices
from voxloss.config.schema import Spacing, StudyConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.formats import count_label_values
from voxloss.data.grid import turned_geometry
from voxloss.data.prepare.resample import resampled_shape
from voxloss.study.settle import configured_dataset, patch_within
from voxloss.utilities.errors import InputError

MOST_CASES = 12
MOST_VOXELS = 1_500_000  # of the median case
PATCH_SIDE, IMAGE_PATCH_SIDE = 40, 160  # of the largest cubic patch, and of the largest square one of images


def quick_look(config: StudyConfig) -> StudyConfig:
    """Choose the cases, spacing and patch of a quick look. The same data give the same choice.

    Args:
        config: The preset `quick` with the data's folder.

    Raises:
        InputError: As creating the study would, as far as names and headers tell.
    """
    if config.comparison.networks:
        raise InputError("A quick look has one network: leave comparison.networks out, or take `voxloss run`.")
    check_losses(loss_choices(config.comparison.losses))
    dataset = configured_dataset(config)
    flat_axis = dataset.flat_axis
    config = with_three_axes(config, flat_axis)
    chosen = _chosen(dataset)
    left_out = [case.case_id for case in dataset.cases if case not in chosen]
    geometries = [turned_geometry(case, dataset) for case in chosen]
    stored = [geometry.spacing_mm for geometry in geometries]
    shapes = [geometry.shape for geometry in geometries]
    spacing = config.preparation.spacing_mm
    if spacing == "median":
        median = np.median(stored, axis=0).tolist()
        spacing = coarse_spacing(_shapes(shapes, stored, median), median, flat_axis)
        if spacing is None:
            spacing = "median"
    target = None if spacing == "stored" else np.median(stored, axis=0).tolist() if spacing == "median" else spacing
    patches, execution = config.patches, config.execution
    if patches.size is None:
        side = PATCH_SIDE if flat_axis is None else IMAGE_PATCH_SIDE
        size = patch_within(_shapes(shapes, stored, target), side, config.network.depth, flat_axis)
        patches = replace(patches, size=size)
    runs = len(config.comparison.losses) * config.splits.folds * len(config.comparison.seeds)
    if execution.parallel == 1 and not execution.device.startswith("cuda"):
        execution = replace(execution, parallel=max(1, min(runs, os.cpu_count() or 1)))
    return replace(
        config,
        data=replace(config.data, exclude=(*config.data.exclude, *left_out)),
        splits=replace(config.splits, from_data=False),  # folds that the data come with are those of all cases
        preparation=replace(config.preparation, spacing_mm=spacing),
        patches=patches,
        execution=execution,
    )


def _chosen(dataset: Dataset) -> list[Case]:
    """Return cases spread evenly over the data set; where they lack a class, also cases that have it."""
    cases = list(dataset.cases)
    if len(cases) <= MOST_CASES:
        return cases
    places = np.linspace(0, len(cases) - 1, MOST_CASES).round().astype(int).tolist()
    chosen = [cases[place] for place in places]
    missing = set(range(1, len(dataset.classes))).difference(*(_classes(case, dataset) for case in chosen))
    for case in cases:
        if not missing:
            break
        if case not in chosen and (new := missing & _classes(case, dataset)):
            chosen.append(case)
            missing -= new
    return [case for case in cases if case in chosen]


def _classes(case: Case, dataset: Dataset) -> set[int]:
    if case.label is None:
        raise InputError(f"case {case.case_id} has no mask.")
    values = count_label_values(case.label)
    return {dataset.label_values[value] for value in values if value in dataset.label_values}


def _shapes(
    shapes: Sequence[tuple[int, int, int]], stored: Sequence[Spacing], spacing: Sequence[float] | None
) -> list[tuple[int, int, int]]:
    target = None if spacing is None else (spacing[0], spacing[1], spacing[2])
    return [resampled_shape(shape, own, target) for shape, own in zip(shapes, stored, strict=True)]


def coarse_spacing(
    shapes: Sequence[tuple[int, int, int]], spacing: Sequence[float], flat_axis: int | None = None
) -> Spacing | None:
    """Return a spacing at which the median case is small enough, the finest axes coarsened first; None if it is.

    Args:
        shapes: Of the cases at `spacing`.
        spacing: In mm.
        flat_axis: The axis along which every case has one voxel, whose spacing stays; None: the cases are volumes.
    """
    extent = np.median(shapes, axis=0) * spacing
    least = min(spacing)

    def coarsened(least: float) -> list[float]:
        return [step if axis == flat_axis else max(step, least) for axis, step in enumerate(spacing)]

    if math.prod(extent / coarsened(least)) <= MOST_VOXELS:
        return None
    while math.prod(extent / coarsened(least)) > MOST_VOXELS:
        least *= 1.02
    first, second, third = (round(step, 3) for step in coarsened(least))
    return first, second, third
