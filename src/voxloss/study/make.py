"""Make a study from a configuration and images, or open it; `runs` executes what it consists of."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from voxloss.config.losses import loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.data.folds import assign_folds, split_of
from voxloss.data.patients import read_patients, require_known
from voxloss.data.prepare.case import open_prepared, prepare_case
from voxloss.data.prepare.cases import prepare_cases
from voxloss.evaluation.scores import read_scores
from voxloss.study.folder import Run, Study, extend_study, write_study
from voxloss.study.lock import locked
from voxloss.study.settle import load_data, preparation_of, settle_patch_size, settle_primary_class, settle_spacing
from voxloss.training.device import resolve_device
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_json
from voxloss.utilities.machine import available_memory

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


def _make_study(config: StudyConfig, folder: Path, progress: Progress) -> Study:
    from voxloss.training.networks import check_network

    dataset = load_data(config)
    if dataset.name == "phantom":
        config = replace(config, comparison=replace(config.comparison, demonstration=True))
    config = settle_spacing(config, dataset)
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
    config = settle_primary_class(config, dataset, prepared)
    config = settle_patch_size(config, [case.shape for case in prepared])
    check_network(config, prepared[0].image.shape[0], len(dataset.classes))
    return write_study(folder, config, dataset, folds, patients)


def _memory_limit(config: StudyConfig) -> int | None:
    if config.execution.memory_gb is not None:
        return round(config.execution.memory_gb * 1e9)
    available = available_memory()
    return None if available is None else available * 3 // 4
