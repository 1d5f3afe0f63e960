"""Open a study, or create it from a configuration and images."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from voxloss.config.losses import check_losses, loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.config.settled import SettledConfig
from voxloss.data.prepare.case import open_prepared, prepare_case
from voxloss.data.prepare.cases import prepare_cases
from voxloss.evaluation.scores import read_scores
from voxloss.study.folder import Run, StudyFolder
from voxloss.study.lock import locked
from voxloss.study.settle import (
    judged_data,
    preparation_of,
    rarest_class,
    settle_patch_size,
    settle_sizes,
    settle_spacing,
    settled_layout,
)
from voxloss.study.study import Study, extend_study, write_study
from voxloss.training.device import resolve_device
from voxloss.training.networks import check_network
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import available_memory

Progress = Callable[[int, int, str], None]  # (finished, of, what)

# What the folder of a study that is not created yet may hold: interrupted preparation, or the demonstration's images.
UNFINISHED = ("prepared", "phantom", "dataset.json", "folds.json", ".lock")


@contextmanager
def open_study(
    config: StudyConfig,
    folder: Path,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Study]:
    """Open and lock the study in `folder`; extend it by new losses and seeds of `config`, or create it.

    The data of a new study are read, checked and prepared first. If anything goes wrong, prepared cases are kept and
    the same call resumes with them; if no case is prepared yet, nothing is left behind. Damaged files of an existing
    study are rebuilt.

    Args:
        config: The configuration.
        folder: The study's folder.
        progress: Called with (finished, of, what) as cases are prepared.
        notice: Called with each warning of `voxloss check` about the data of a new study, as far as headers tell.

    Raises:
        InputError: Wrong data or a wrong configuration (the message names the file, key or value), or another process
            works on the study.
    """
    check_losses(loss_choices(config.comparison.losses))
    resolve_device(config.execution.device)
    if config.data.root:
        root = str(Path(config.data.root).expanduser().resolve())
        config = replace(config, data=replace(config.data, root=root))
    files = StudyFolder(folder)
    exists = files.is_study()
    if exists:
        files.read_description()  # before anything in the folder is changed: a later version's study is refused
    else:
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
                study = _create_study(config, files, progress, notice)
        except BaseException:
            if new is not None and not _has_prepared(files):
                shutil.rmtree(new, ignore_errors=True)
            raise
        yield study


def _has_prepared(files: StudyFolder) -> bool:
    return files.prepared.is_dir() and any(not path.name.startswith(".") for path in files.prepared.iterdir())


def _repair(study: Study, progress: Progress) -> None:
    """Prepare damaged cases again, and set finished runs to pending if their scores or predictions are missing.

    Such a run predicts and scores again with the weights of its checkpoint; nothing is trained.
    """
    preparation = preparation_of(study.config.preparation)
    folders = study.files.read_prepared()
    for case in study.dataset.cases:
        folder = folders[case.case_id]
        try:
            open_prepared(folder)
        except InputError as error:
            progress(0, 1, f"preparing {case.case_id} again")
            if prepare_case(case, study.dataset, preparation, folder.parent).folder != folder:
                raise InputError(
                    f"{error}, and the files of {case.case_id} are no longer those that it was prepared from"
                ) from error
    for run in study.runs():
        if study.status(run).state == "done" and (missing := _first_missing_result(study, run)) is not None:
            study.write_status(run, state="pending", reason=f"{missing.name} was missing or damaged")


def _first_missing_result(study: Study, run: Run) -> Path | None:
    files = study.run_folder(run)
    for case_id in study.split(run.fold).validation:
        if not files.prediction(case_id).is_file():
            return files.prediction(case_id)
    try:
        read_scores(files.scores_file)
    except InputError:
        return files.scores_file
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


def _create_study(config: StudyConfig, files: StudyFolder, progress: Progress, notice: Callable[[str], None]) -> Study:
    config = replace(config, data=settled_layout(config.data))
    data = judged_data(config)
    dataset, folds, patients = data.dataset, data.folds, data.patients
    for warning in data.warnings:
        notice(warning)
    classes = len(dataset.classes)
    preparation = settle_spacing(config.preparation, dataset)
    config = replace(config, preparation=preparation)
    check_network(config.network, config.patches.size, None, classes)  # what can be checked before hours of preparation
    progress(0, len(dataset.cases), "preparing")
    prepared = prepare_cases(
        dataset.cases,
        dataset,
        preparation_of(preparation),
        files.prepared,
        os.cpu_count() or 1,
        _memory_limit(config),
        progress,
    )
    files.write_prepared({case.case_id: case.folder for case in prepared})
    rarest = rarest_class(dataset, prepared)
    comparison = replace(
        config.comparison,
        primary_class=config.comparison.primary_class or rarest,
        demonstration=config.comparison.demonstration or dataset.name == "phantom",
    )
    patches = settle_patch_size(config, [case.shape for case in prepared])
    evaluation = replace(config.evaluation, lesions=settle_sizes(config.evaluation.lesions, dataset, prepared))
    settled = SettledConfig.of(replace(config, patches=patches, comparison=comparison, evaluation=evaluation))
    check_network(settled.network, settled.patches.size, prepared[0].image.shape[0], classes)
    return write_study(files.path, settled, dataset, folds, patients)


def _memory_limit(config: StudyConfig) -> int | None:
    if config.execution.memory_gb is not None:
        return round(config.execution.memory_gb * 1e9)
    available = available_memory()
    return None if available is None else available * 3 // 4
