"""Settle what a configuration leaves open (spacing, patch size, primary class, sizes of lesions) from a data set."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from voxloss.config.axes import with_three_axes
from voxloss.config.losses import loss_choices
from voxloss.config.schema import (
    DataConfig,
    ExecutionConfig,
    LayoutName,
    PatchesConfig,
    PreparationConfig,
    Size,
    Spacing,
    SplitsConfig,
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
from voxloss.data.case import Case, read_label
from voxloss.data.check.findings import grouped_lines
from voxloss.data.check.rules import absent_class, header_findings
from voxloss.data.dataset import Dataset, channels_of, require_complete, require_same_channels
from voxloss.data.folds import assign_folds, own_assignment, split_of
from voxloss.data.formats import read_geometry
from voxloss.data.grid import common_spacing, flattened, in_plane, same_spacing, turned_geometry
from voxloss.data.layouts import COMMON_OPTIONS, detect_layout, load_dataset
from voxloss.data.patients import read_patients, require_known
from voxloss.data.prepare.case import Preparation, PreparedCase
from voxloss.data.prepare.resample import resampled_shape
from voxloss.data.readers import OPTION, second_masks
from voxloss.evaluation.lesion_rules import AREA_KEYS, LesionRules
from voxloss.evaluation.lesions import lesion_volumes, limits_of_classes
from voxloss.geometry.components import class_boxes
from voxloss.geometry.units import element_size
from voxloss.training.device import resolve_device, resolve_precision
from voxloss.utilities.arrays import Float64s
from voxloss.utilities.errors import InputError

# The side of the largest square or cubic patch that is chosen, on the CPU and on CUDA.
PATCH_SIDES = {2: (256, 512), 3: (64, 128)}


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
    config = with_three_axes(config, dataset.flat_axis)
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
            splits=settled_splits(config, dataset),
            patches=settle_patch_size(config, shapes, dataset.flat_axis),
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
    """A data set that is ready for a study, its folds, and what `check` says of it as far as headers tell."""

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
    patients = known_patients(config, dataset)
    folds = assigned_folds(config, dataset, patients)
    if (mixed := mixed_orders(config, dataset)) is not None:
        raise InputError(mixed)
    findings = header_findings(dataset, patients, folds)
    for finding in findings:
        if finding.severity == "error":
            raise InputError(f"{finding.case_id}: {finding.message}" if finding.case_id else finding.message)
    warnings = grouped_lines([finding for finding in findings if finding.severity == "warning"])
    return JudgedData(dataset, folds, patients, (*warnings, *dataset.notes))


def known_patients(config: StudyConfig, dataset: Dataset) -> dict[str, str]:
    """Return the patient of each case: from the table of the configuration, else as the data tell."""
    return read_patients(Path(config.splits.patients)) if config.splits.patients else dataset.patients


def settled_splits(config: StudyConfig, dataset: Dataset) -> SplitsConfig:
    """Return the splits with the number of folds that the data come with, if a study uses these."""
    if dataset.own_folds is None or not config.splits.from_data:
        return config.splits
    return replace(config.splits, folds=len(dataset.own_folds.validation))


def settled_layout(data: DataConfig) -> DataConfig:
    """Replace the layout "auto" by that of the data's folder, if there is one."""
    if data.layout != "auto" or not data.root:
        return data
    own = {name: value for name, value in data.options.items() if name not in (*COMMON_OPTIONS, OPTION)}
    return replace(data, layout=cast(LayoutName, detect_layout(Path(data.root), own)))


def assigned_folds(config: StudyConfig, dataset: Dataset, patients: Mapping[str, str]) -> list[list[str]]:
    """Assign the cases to folds, or take the folds that the data come with.

    Raises:
        InputError: The data's own folds are at fault, a case has no patient, there are fewer cases (patients) than
            folds, or setting inner cases aside leaves none to train on.
    """
    ids = [case.case_id for case in dataset.cases]
    if config.splits.patients:
        require_known(patients, ids)
    if dataset.own_folds is not None and config.splits.from_data:
        folds = own_assignment(dataset.own_folds, ids, [case_id for case_id, _ in dataset.dropped], patients)
    else:
        folds = assign_folds(ids, config.splits.folds, config.splits.seed, patients)
    if config.training.selection == "inner" or config.comparison.tuning:
        split_of(folds, 0, config.splits.seed, config.splits.inner_share, patients)
    return folds


def configured_dataset(config: StudyConfig, on_fault: Callable[[str, str], None] | None = None) -> Dataset:
    """Load the data set of a configuration, whose files may be missing or wrong; `on_fault` as for `load_dataset`.

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
            raise InputError(f"data.options has no {option!r}; all layouts have {', '.join(COMMON_OPTIONS)}.")
    options = {name: value for name, value in data.options.items() if name != OPTION}
    dataset = load_dataset(data.layout, Path(data.root), exclude=tuple(data.exclude), on_fault=on_fault, **options)
    if OPTION in data.options:
        second_masks(dataset.cases, Path(data.root), data.options[OPTION])
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
    _check_lesion_rules(config.evaluation.lesions, dataset)
    return dataset


def _check_lesion_rules(rules: LesionRules, dataset: Dataset) -> None:
    """Raise InputError for a rule of volumes where the cases are images, of images where they are volumes."""
    volumes = dataset.flat_axis is None
    for pair in AREA_KEYS.items():
        key, wrong = pair if volumes else pair[::-1]
        if getattr(rules, wrong) not in (None, 0):
            cases = "volumes" if volumes else "images"
            raise InputError(f"evaluation.lesions.{wrong} is set, but the cases are {cases}: set {key} instead.")
    key = "size_limits_ml" if volumes else "size_limits_mm2"
    limits = getattr(rules, key)
    unknown = [name for name in limits if name not in dataset.classes[1:]] if isinstance(limits, dict) else []
    if unknown:
        raise InputError(
            f"evaluation.lesions.{key}: {unknown[0]!r} is not a class of the data; it has "
            f"{', '.join(dataset.classes[1:])}."
        )


def settle_spacing(preparation: PreparationConfig, dataset: Dataset) -> SettledPreparation:
    """Replace "median" by the median spacing of the cases, or by "stored" if all cases have that spacing."""
    if preparation.spacing_mm != "median":
        return settled_preparation(preparation)
    spacings = [turned_geometry(case, dataset).spacing_mm for case in dataset.cases]
    median = tuple(_rounded(float(statistics.median(axis))) for axis in zip(*spacings, strict=True))
    spacing = (median[0], median[1], median[2])
    flat = dataset.flat_axis
    if all(same_spacing(in_plane(spacing, flat), in_plane(other, flat)) for other in spacings):
        return settled_preparation(replace(preparation, spacing_mm="stored"))
    first, second, third = (1.0 if axis == flat else side for axis, side in enumerate(spacing))
    return settled_preparation(replace(preparation, spacing_mm=(first, second, third)))


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
    flat = dataset.flat_axis
    if (rules.size_limits_ml if flat is None else rules.size_limits_mm2) is not None:
        return rules
    rules_here = rules if flat is None else rules.of_areas()
    sizes: dict[str, list[Float64s]] = {name: [] for name in dataset.classes[1:]}
    for case in prepared:
        element = element_size(in_plane(case.spacing_mm, flat))
        label = flattened(case.label, flat)
        boxes = class_boxes([label], len(dataset.classes))
        for index, name in enumerate(dataset.classes[1:], start=1):
            sizes[name].append(lesion_volumes(label[boxes[index]] == index, element, rules_here))
    limits = limits_of_classes(sizes)
    return replace(rules, size_limits_ml=limits) if flat is None else replace(rules, size_limits_mm2=limits)


def _has_class(case: Case, dataset: Dataset, index: int) -> bool:
    label, _ = read_label(case, dataset.label_values, dataset.value_hints)
    return bool((label == index).any())


def settle_patch_size(
    config: StudyConfig, shapes: Sequence[tuple[int, int, int]], flat_axis: int | None = None
) -> SettledPatches:
    """Choose the largest patch with the median case's proportions that suits the device, even at every level.

    Args:
        config: The configuration.
        shapes: Shape of every prepared case.
        flat_axis: The axis along which every case has one voxel, and the patch too; None: the cases are volumes.
    """
    patches: PatchesConfig = config.patches
    if patches.size is not None:
        return settled_patches(patches)
    side = PATCH_SIDES[3 if flat_axis is None else 2][resolve_device(config.execution.device).startswith("cuda")]
    depth = max(one.network.depth for one in config.per_network())
    return settled_patches(replace(patches, size=patch_within(shapes, side, depth, flat_axis)))


def patch_within(shapes: Sequence[tuple[int, int, int]], side: int, depth: int, flat_axis: int | None = None) -> Size:
    """Return a patch with the median case's proportions, even at every level of the network.

    Args:
        shapes: Shape of every prepared case.
        side: The side of the largest cubic patch, of images the largest square one, of which it has at most the voxels.
        depth: Number of poolings of the network.
        flat_axis: The axis along which every case has one voxel; None: the cases are volumes.
    """
    axes = [axis for axis in range(3) if axis != flat_axis]
    extents = dict(zip(axes, np.median(shapes, axis=0)[axes].tolist(), strict=True))
    voxels = float(side ** len(axes))
    size = [1, 1, 1]
    for axis in sorted(axes, key=lambda axis: extents[axis]):  # what a thin axis cannot give up, the others do
        extent = extents[axis] * min(1.0, (voxels / math.prod(extents.values())) ** (1 / len(extents)))
        # Images are large enough to be halved at every level, and small ones are cut to fit.
        levels = 3 if flat_axis is None else max(2, int(math.log2(extent)) - 2)
        unit = 2 ** min(depth, levels)
        size[axis] = max(unit, int(extent // unit * unit))
        if size[axis] > extent:
            voxels /= size[axis]
            del extents[axis]
    return size[0], size[1], size[2]


def settle_precision(training: TrainingConfig, execution: ExecutionConfig) -> SettledTraining:
    """Choose the precision by the device; for a cluster, by that of this machine."""
    device = resolve_device(execution.device if execution.executor == "local" else "auto")
    precision = resolve_precision(training.precision, device)
    return settled_training(replace(training, precision=precision))
