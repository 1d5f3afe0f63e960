"""Make a study from a configuration and images, or open it; `runs` executes what it consists of."""

import math
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxloss.config import StudyConfig, loss_choices
from voxloss.data import Dataset, load_dataset, require_complete, require_same_channels
from voxloss.data.case import channels_of, read_geometry
from voxloss.data.doctor import Patch, Report, check
from voxloss.data.folds import assign_folds, split_of
from voxloss.data.inspection import USUAL_PATCH
from voxloss.data.patients import read_patients, require_known
from voxloss.data.prepare_all import prepare_cases
from voxloss.data.preprocess import Preparation, PreparedCase, open_prepared, prepare_case
from voxloss.data.resample import resampled_shape
from voxloss.errors import InputError
from voxloss.evaluation.scores import read_scores
from voxloss.files import write_json
from voxloss.machine import available_memory
from voxloss.study import Run, Study, extend_study, locked, write_study

Progress = Callable[[int, int, str], None]  # (finished, of, what)

# What an unfinished study may hold: preparation that was interrupted, or the demonstration's phantom.
UNFINISHED = ("prepared", "phantom", "dataset.json", "folds.json", ".lock")


@contextmanager
def open_study(config: StudyConfig, folder: Path, progress: Progress = lambda *_: None) -> Iterator[Study]:
    """Hold the study in `folder`, extended by new losses and seeds of `config`, or made if it is not there.

    A new study's data are read, checked and prepared first; on a mistake nothing new is left behind. Interrupted
    preparation is kept, and the same call goes on with it. Of an existing study what was damaged is made again.

    Raises:
        InputError: see the message; it names the file, key or value. Or another process holds the study.
    """
    loss_choices(config)
    resolve_device(config.execution.device)
    if config.data.root:
        root = str(Path(config.data.root).expanduser().resolve())
        config = replace(config, data=replace(config.data, root=root))
    exists = (folder / "study.yaml").exists()
    if not exists:
        _refuse_foreign(folder)
    new = _first_missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            for partial in folder.rglob(".partial-*"):  # of writers that were killed; nobody else writes now
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
            if exists:
                study = extend_study(Study.open(folder), config)
                _repair(study, progress)
            else:
                study = _make_study(config, folder, progress)
        except Exception:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
            raise
        yield study


def _repair(study: Study, progress: Progress) -> None:
    """Prepare damaged cases again, and take up finished runs again whose scores or predictions are gone.

    Such a run predicts and scores anew with the weights of its checkpoint; nothing else is trained.
    """
    preparation = preparation_of(study.config)
    for case in study.dataset.cases:
        folder = study.prepared_folder(case.case_id)
        try:
            open_prepared(folder)
        except InputError as error:
            progress(0, 1, f"preparing {case.case_id} again")
            if prepare_case(case, study.dataset, preparation, folder.parent).folder != folder:
                raise InputError(
                    f"{error}, and the files of {case.case_id} are no longer those it was made from"
                ) from error
    for run in study.runs():
        if study.status(run)["state"] == "done" and (gone := _first_gone(study, run)) is not None:
            study.write_status(run, "pending", reason=f"{gone.name} was gone or damaged")


def _first_gone(study: Study, run: Run) -> Path | None:
    folder = study.run_folder(run)
    for case_id in study.split(run.fold).validation:
        if not (folder / "predictions" / f"{case_id}.nii.gz").is_file():
            return folder / "predictions" / f"{case_id}.nii.gz"
    try:
        read_scores(folder / "scores.csv")
    except InputError:
        return folder / "scores.csv"
    return None


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder for a study.")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [name for name in names if name not in UNFINISHED and not name.startswith(".partial-")]
    if foreign:
        raise InputError(f"{folder} is not empty and not a study (it holds {foreign[0]}); name another folder.")


def _first_missing(folder: Path) -> Path | None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


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
    dataset = _load(config)
    config = _settle_spacing(config, dataset)
    target = config.preparation.spacing_mm
    assert not isinstance(target, str)
    shapes, original = [], 0
    for case in dataset.cases:
        geometry = read_geometry(case.images[0])
        original += math.prod(geometry.shape)
        shapes.append(resampled_shape(geometry.shape, geometry.spacing_mm, target))
    channels = channels_of(dataset.cases[0])
    return Survey(_settle_patch_size(config, shapes), dataset, shapes, original, channels)


def check_data(
    root: Path, config: StudyConfig | None, layout: str, patients: Path | None, progress: Progress = lambda *_: None
) -> Report:
    """Check a data set as a study with this configuration would use it, or (None) as it lies there.

    Raises:
        InputError: the folder or the table of patients is not what it should be.
    """
    known = read_patients(patients) if patients is not None else {}
    if config is None:
        config, dataset = StudyConfig(), load_dataset(layout, root)
        patch = USUAL_PATCH
    else:
        data, spacing = config.data, config.preparation.spacing_mm
        dataset = load_dataset(data.layout, root, exclude=tuple(data.exclude), **data.options)
        if not known and config.splits.patients:
            known = read_patients(Path(config.splits.patients))
        size = config.patches.size or USUAL_PATCH.size
        patch = Patch(size, None if isinstance(spacing, str) else spacing)
    ids = [case.case_id for case in dataset.cases]
    kept_together = known if config.splits.patients else {}
    folds = assign_folds(ids, min(config.splits.folds, len(ids)), config.splits.seed, kept_together)
    return check(
        dataset,
        workers=os.cpu_count() or 1,
        progress=lambda finished, of: progress(finished, of, "reading"),
        patch=patch,
        patients=known,
        folds=folds,
    )


def _make_study(config: StudyConfig, folder: Path, progress: Progress) -> Study:
    from voxloss.training.networks import check_network

    dataset = _load(config)
    if dataset.name == "phantom":
        config = replace(config, comparison=replace(config.comparison, demonstration=True))
    config = _settle_spacing(config, dataset)
    if config.patches.size is not None:  # what can be told before hours of preparation
        check_network(config, None, len(dataset.classes))
    ids = [case.case_id for case in dataset.cases]
    patients = read_patients(Path(config.splits.patients)) if config.splits.patients else {}
    require_known(patients, ids)
    folds = assign_folds(ids, config.splits.folds, config.splits.seed, patients)
    if config.training.selection == "inner":
        split_of(folds, 0, config.splits.seed, config.splits.inner_share, patients)
    preparation = preparation_of(config)
    progress(0, len(dataset.cases), "preparing")
    prepared = prepare_cases(
        dataset.cases, dataset, preparation, folder / "prepared", os.cpu_count() or 1, _memory_limit(config), progress
    )
    write_json(folder / "prepared" / "index.json", {case.case_id: case.folder.name for case in prepared})
    config = _settle_primary_class(config, dataset, prepared)
    config = _settle_patch_size(config, [case.shape for case in prepared])
    check_network(config, prepared[0].image.shape[0], len(dataset.classes))
    return write_study(folder, config, dataset, folds, patients)


def _memory_limit(config: StudyConfig) -> int | None:
    if config.execution.memory_gb is not None:
        return round(config.execution.memory_gb * 1e9)
    available = available_memory()
    return None if available is None else available * 3 // 4


def preparation_of(config: StudyConfig) -> Preparation:
    """The preparation of a study whose spacing is settled."""
    setting = config.preparation
    assert not isinstance(setting.spacing_mm, str)
    return Preparation(setting.clip, setting.spacing_mm, setting.normalisation)


def _load(config: StudyConfig) -> Dataset:
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


def _settle_spacing(config: StudyConfig, dataset: Dataset) -> StudyConfig:
    if config.preparation.spacing_mm != "median":
        return config
    spacings = [read_geometry(case.images[0]).spacing_mm for case in dataset.cases]
    median = tuple(round(float(statistics.median(axis)), 4) for axis in zip(*spacings, strict=True))
    spacing = (median[0], median[1], median[2])
    if all(np.allclose(spacing, other, rtol=1e-3) for other in spacings):
        return replace(config, preparation=replace(config.preparation, spacing_mm=None))  # nothing to resample
    return replace(config, preparation=replace(config.preparation, spacing_mm=spacing))


def _settle_primary_class(config: StudyConfig, dataset: Dataset, prepared: Sequence[PreparedCase]) -> StudyConfig:
    """The rarest class of the prepared masks, where none is named, so that it is fixed before training."""
    if config.comparison.primary_class is not None:
        return config
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for case in prepared:
        counts += np.bincount(case.label.ravel(), minlength=len(counts))
    rarest = dataset.classes[1 + int(counts[1:].argmin())]
    return replace(config, comparison=replace(config.comparison, primary_class=rarest))


def _settle_patch_size(config: StudyConfig, shapes: Sequence[tuple[int, int, int]]) -> StudyConfig:
    """The largest patch of the median volume's proportions that the device takes well, even at every level."""
    if config.patches.size is not None:
        return config
    most = 128**3 if resolve_device(config.execution.device).startswith("cuda") else 64**3
    shape = np.median(shapes, axis=0)
    shape = shape * min(1.0, (most / float(np.prod(shape))) ** (1 / 3))
    unit = 2 ** min(config.network.depth, 3)
    size = [max(unit, int(extent // unit * unit)) for extent in shape]
    return replace(config, patches=replace(config.patches, size=(size[0], size[1], size[2])))


def resolve_device(name: str) -> str:
    """The device that `execution.device` means.

    Raises:
        InputError: torch cannot use it on this machine.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"execution.device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def file_values(dataset: Dataset) -> list[int]:
    """For every class the value that the masks use, the smallest where there are several."""
    return [
        min(value for value, index in dataset.label_values.items() if index == wanted)
        for wanted in range(len(dataset.classes))
    ]
