"""Settle what a configuration leaves open (spacing, patch size, primary class, sizes of lesions) from a data set."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxloss.config.losses import loss_choices
from voxloss.config.schema import (
    DataConfig,
    ExecutionConfig,
    PatchesConfig,
    PreparationConfig,
    Size,
    Spacing,
    StudyConfig,
    TrainingConfig,
)
from voxloss.config.settled import (
    SettledConfig,
    SettledPatches,
    SettledPreparation,
    SettledTraining,
    settled_patches,
    settled_preparation,
    settled_training,
)
from voxloss.data.case import Case
from voxloss.data.check.findings import grouped_lines
from voxloss.data.check.rules import absent_class, header_findings
from voxloss.data.dataset import Dataset, channels_of, require_complete, require_same_channels
from voxloss.data.folds import assign_folds, split_of
from voxloss.data.grid import common_spacing, same_spacing, turned_geometry
from voxloss.data.layouts import detect_layout, load_dataset
from voxloss.data.nifti import count_label_values, read_geometry
from voxloss.data.patients import read_patients, require_known
from voxloss.data.prepare.case import Preparation, PreparedCase
from voxloss.data.prepare.resample import resampled_shape
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import lesion_volumes, limits_of_classes
from voxloss.geometry.components import class_boxes
from voxloss.training.device import resolve_device, resolve_precision
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
        warnings: What `check` warns of, as far as headers tell.
    """

    config: SettledConfig
    dataset: Dataset
    shapes: list[tuple[int, int, int]]
    original_voxels: int
    channels: int
    warnings: tuple[str, ...] = ()


def survey(config: StudyConfig) -> Survey:
    """Settle spacing and patch size from headers alone, without preparing or writing anything.

    Raises:
        InputError: As creating the study would, as far as headers allow.
    """
    data = judged_data(config)
    dataset = data.dataset
    preparation = settle_spacing(config.preparation, dataset)
    shapes, original = [], 0
    for case in dataset.cases:
        geometry = turned_geometry(case, dataset)
        original += math.prod(geometry.shape)
        shapes.append(resampled_shape(geometry.shape, geometry.spacing_mm, preparation_of(preparation).spacing_mm))
    primary = config.comparison.primary_class or dataset.classes[-1]
    settled = SettledConfig.of(
        replace(
            config,
            preparation=preparation,
            patches=settle_patch_size(config, shapes),
            training=settle_precision(config.training, config.execution),
            comparison=replace(config.comparison, primary_class=primary),
        )
    )
    return Survey(settled, dataset, shapes, original, channels_of(dataset.cases[0]), data.warnings)


def preparation_of(setting: SettledPreparation) -> Preparation:
    """Return the preparation of a study's configuration."""
    spacing = None if setting.spacing_mm == "stored" else setting.spacing_mm
    return Preparation(setting.clip, spacing, setting.normalisation)


@dataclass(frozen=True)
class JudgedData:
    """A data set that is ready for a study, its folds, and what `check` warns of as far as headers tell."""

    dataset: Dataset
    folds: list[list[str]]
    patients: dict[str, str]
    warnings: tuple[str, ...]


def judged_data(config: StudyConfig) -> JudgedData:
    """Load the data set of a configuration and assign its cases to folds, by the rules of `check`.

    Raises:
        InputError: As `configured_dataset` and `assigned_folds`; files are missing, or a rule finds an error. The
            message names the first.
    """
    dataset = configured_dataset(config)
    require_complete(dataset)
    require_same_channels(dataset)
    patients = read_patients(Path(config.splits.patients)) if config.splits.patients else {}
    folds = assigned_folds(config, dataset, patients)
    if (mixed := mixed_orders(config, dataset)) is not None:
        raise InputError(mixed)
    findings = header_findings(dataset, patients, folds)
    for finding in findings:
        if finding.severity == "error":
            raise InputError(f"{finding.case_id}: {finding.message}" if finding.case_id else finding.message)
    warnings = grouped_lines([finding for finding in findings if finding.severity == "warning"])
    return JudgedData(dataset, folds, patients, tuple(warnings))


def settled_layout(data: DataConfig) -> DataConfig:
    """Replace the layout "auto" by that of the data's folder, if there is one."""
    if data.layout != "auto" or not data.root:
        return data
    return replace(data, layout=detect_layout(Path(data.root)))


def assigned_folds(config: StudyConfig, dataset: Dataset, patients: Mapping[str, str]) -> list[list[str]]:
    """Assign the cases to folds.

    Raises:
        InputError: A case has no patient, there are fewer cases (patients) than folds, or setting inner cases aside
            leaves none to train on.
    """
    ids = [case.case_id for case in dataset.cases]
    require_known(patients, ids)
    folds = assign_folds(ids, config.splits.folds, config.splits.seed, patients)
    if config.training.selection == "inner":
        split_of(folds, 0, config.splits.seed, config.splits.inner_share, patients)
    return folds


def configured_dataset(config: StudyConfig) -> Dataset:
    """Load the data set of a configuration, whose files may be missing or wrong.

    Raises:
        InputError: No folder is configured, its layout is another one, or a setting contradicts the data set.
    """
    data: DataConfig = config.data
    if not data.root:
        raise InputError("data.root is not set: name the folder of the images with --data.")
    for option in data.options:
        if option in ("layout", "root", "exclude"):
            raise InputError(f"data.options has no `{option}`: that is data.{option}.")
        if option == "must_exist" or not isinstance(option, str):
            raise InputError(f"data.options has no {option!r}; all layouts have classes, ignore and axes.")
    dataset = load_dataset(data.layout, Path(data.root), exclude=tuple(data.exclude), **data.options)
    for choice in loss_choices(config.comparison.losses):
        if dataset.ignore_index is not None and choice.parameters.get("ignore_index") is not None:
            raise InputError(
                f"{choice.key}: ignore_index cannot be set where the data set itself has an ignored value."
            )
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
    return dataset


def settle_spacing(preparation: PreparationConfig, dataset: Dataset) -> SettledPreparation:
    """Replace "median" by the median spacing of the cases, or by "stored" if all cases have that spacing."""
    if preparation.spacing_mm != "median":
        return settled_preparation(preparation)
    spacings = [turned_geometry(case, dataset).spacing_mm for case in dataset.cases]
    median = tuple(_rounded(float(statistics.median(axis))) for axis in zip(*spacings, strict=True))
    spacing = (median[0], median[1], median[2])
    if all(same_spacing(spacing, other) for other in spacings):
        return settled_preparation(replace(preparation, spacing_mm="stored"))
    return settled_preparation(replace(preparation, spacing_mm=spacing))


def mixed_orders(config: StudyConfig, dataset: Dataset) -> str | None:
    """Return a sentence if a median spacing would mix directions, as the cases' axes have different orders; or None."""
    if config.preparation.spacing_mm != "median" or dataset.axes is not None:
        return None
    first: dict[str, tuple[str, str]] = {}  # order of axes without their directions -> a case
    for case in dataset.cases:
        try:
            axes = read_geometry(case.images[0]).axes
        except InputError:
            continue  # whoever reads the case names the fault
        first.setdefault(axes.translate(str.maketrans("LPI", "RAS")), (case.case_id, axes))
    known = [case for order, case in first.items() if order]
    if len(known) < 2:
        return None
    (one, its_axes), (other, other_axes), *_ = known
    return (
        f"case {one} is stored as {its_axes} and {other} as {other_axes}, so a median spacing would mix directions; "
        "set preparation.spacing_mm, or leave data.options.axes out."
    )


def _rounded(spacing: float) -> float:
    """Round to four digits after the point; a spacing far below a millimetre to four significant ones."""
    return round(spacing, max(4, 3 - math.floor(math.log10(spacing))))


def spacing_of_all(config: SettledConfig, dataset: Dataset, prepared: Sequence[PreparedCase]) -> Spacing | None:
    """Return the spacing that all cases of a study have where none is resampled ("stored"); None elsewhere.

    A new case of another spacing must be resampled to it, as the networks have seen no other.

    Args:
        config: The study's configuration.
        dataset: The study's, which has the spacing unless an earlier version wrote it.
        prepared: The study's prepared cases, which have it too.
    """
    if config.preparation.spacing_mm != "stored":
        return None
    return dataset.spacing_mm or common_spacing([case.original.spacing_mm for case in prepared])


def rarest_class(dataset: Dataset, prepared: Sequence[PreparedCase]) -> str:
    """Return the foreground class with the fewest voxels in the prepared masks.

    Raises:
        InputError: No case has one of the classes.
    """
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for case in prepared:
        counts += np.bincount(case.label.ravel(), minlength=len(counts))[: len(counts)]  # without ignored voxels
    for index in np.flatnonzero(counts == 0).tolist():
        if not any(_has_class(case, dataset, index) for case in dataset.cases):  # resampling may have removed it
            raise InputError(absent_class(dataset.classes[index]))
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


def _has_class(case: Case, dataset: Dataset, index: int) -> bool:
    assert case.label is not None, "judged_data refuses a case without a mask"
    return any(dataset.label_values[value] == index for value in count_label_values(case.label))


def settle_patch_size(config: StudyConfig, shapes: Sequence[tuple[int, int, int]]) -> SettledPatches:
    """Choose the largest patch with the median volume's proportions that suits the device, even at every level."""
    patches: PatchesConfig = config.patches
    if patches.size is not None:
        return settled_patches(patches)
    largest = 128**3 if resolve_device(config.execution.device).startswith("cuda") else 64**3
    return settled_patches(replace(patches, size=patch_within(shapes, largest, config.network.depth)))


def patch_within(shapes: Sequence[tuple[int, int, int]], voxels: int, depth: int) -> Size:
    """Return a patch with the median volume's proportions and at most `voxels`, even at every level of the network."""
    shape = np.median(shapes, axis=0)
    shape = shape * min(1.0, (voxels / float(np.prod(shape))) ** (1 / 3))
    unit = 2 ** min(depth, 3)
    size = [max(unit, int(extent // unit * unit)) for extent in shape]
    return size[0], size[1], size[2]


def settle_precision(training: TrainingConfig, execution: ExecutionConfig) -> SettledTraining:
    """Choose the precision by the device."""
    precision = resolve_precision(training.precision, resolve_device(execution.device))
    return settled_training(replace(training, precision=precision))
