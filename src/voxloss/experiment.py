"""From images to scores: make a study, and execute its runs. Each stage reads the files that the one before wrote."""

import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxloss.config import StudyConfig, loss_choices
from voxloss.data import Dataset, load_dataset, require_complete
from voxloss.data.case import read_geometry, read_label, write_label
from voxloss.data.folds import assign_folds, split_of
from voxloss.data.preprocess import Preparation, PreparedCase, open_prepared, prepare_case, restore_label
from voxloss.errors import InputError
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.scores import failed_rows, merge_scores, score_rows, write_scores
from voxloss.files import write_json, write_text
from voxloss.study import FINISHED, Run, Study, extend_study, write_study

Progress = Callable[[int, int, str], None]  # (finished, of, what)


def open_study(config: StudyConfig, folder: Path, progress: Progress = lambda *_: None) -> Study:
    """Open the study in `folder`, extended by new losses and seeds of `config`, or make it.

    A new study's data are read, checked and prepared first; on a mistake nothing is left behind.

    Raises:
        InputError: see the message; it names the file, key or value.
    """
    loss_choices(config)  # before anything is written
    if (folder / "study.yaml").exists():
        return extend_study(Study.open(folder), config)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder for a study.")
    created = not folder.exists()
    foreign = [] if created else [path.name for path in folder.iterdir() if path.name not in ("prepared", "phantom")]
    if foreign:
        raise InputError(f"{folder} is not empty and not a study (it holds {sorted(foreign)[0]}); name another folder.")
    try:
        return _make_study(config, folder, progress)
    except BaseException:
        if created:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            shutil.rmtree(folder / "prepared", ignore_errors=True)
        raise


def _make_study(config: StudyConfig, folder: Path, progress: Progress) -> Study:
    data = config.data
    if not data.root:
        raise InputError("data.root is not set: name the folder of the images with --data.")
    root = Path(data.root).expanduser().resolve()
    dataset = load_dataset(data.layout, root, exclude=tuple(data.exclude), **data.options)
    require_complete(dataset)
    _check_classes(config, dataset)
    config = replace(config, data=replace(data, root=str(root)))
    config = _settle_spacing(config, dataset)
    ids = [case.case_id for case in dataset.cases]
    folds = assign_folds(ids, config.splits.folds, config.splits.seed)
    if config.training.selection == "inner":
        split_of(folds, 0, config.splits.seed, config.splits.inner_share)
    folder.mkdir(parents=True, exist_ok=True)
    setting = config.preparation
    assert not isinstance(setting.spacing_mm, str)
    preparation = Preparation(setting.clip, setting.spacing_mm, setting.normalisation)
    prepared = []
    for number, case in enumerate(dataset.cases):
        progress(number, len(dataset.cases), f"preparing {case.case_id}")
        prepared.append(prepare_case(case, dataset, preparation, folder / "prepared"))
    progress(len(dataset.cases), len(dataset.cases), "prepared")
    write_json(folder / "prepared" / "index.json", {case.case_id: case.folder.name for case in prepared})
    config = _settle_patch_size(config, prepared)
    _check_patch_size(config)
    return write_study(folder, config, dataset, folds)


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


def _settle_patch_size(config: StudyConfig, prepared: Sequence[PreparedCase]) -> StudyConfig:
    """The largest patch of the median volume's proportions that the device takes well, even at every level."""
    if config.patches.size is not None:
        return config
    most = 128**3 if resolve_device(config.execution.device) == "cuda" else 64**3
    shape = np.median([case.shape for case in prepared], axis=0)
    shape = shape * min(1.0, (most / float(np.prod(shape))) ** (1 / 3))
    unit = 2 ** min(config.network.depth, 3)
    size = [max(unit, int(extent // unit * unit)) for extent in shape]
    return replace(config, patches=replace(config.patches, size=(size[0], size[1], size[2])))


def _check_patch_size(config: StudyConfig) -> None:
    from voxloss.training.unet3d import pooling_strides

    assert config.patches.size is not None
    try:
        pooling_strides(config.patches.size, config.network.depth)
    except ValueError as error:
        raise InputError(f"patches.size: {error}") from error


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


def execute_run(
    study: Study,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Train, predict and score one run, going on from its checkpoint, and return its state.

    A run that diverges or fails is recorded with its reason and with failed scores, and is no error here.
    """
    import torch

    from voxloss.training.train import DivergedError, InterruptedRunError

    status = study.status(run)
    if status["state"] in FINISHED:
        return status["state"]
    before, start = float(status.get("seconds", 0.0)), time.perf_counter()

    def write(state: str, **details: object) -> None:
        seconds = round(before + time.perf_counter() - start, 1)
        study.write_status(run, state, seconds=seconds, **details)

    write("running", reason=None)
    try:
        _train_and_score(study, run, stop, lambda epoch: write("running", epoch=epoch))
    except InterruptedRunError:
        write("pending")
    except DivergedError as error:
        _record_failure(study, run)
        write("diverged", reason=str(error))
    except torch.OutOfMemoryError:
        _record_failure(study, run)
        write("failed", reason="out of memory on the device: lower patches.size, patches.batch_size or network.filters")
    except Exception as error:  # whatever it is, the other runs go on and the reason is kept
        write_text(study.run_folder(run) / "error.txt", traceback.format_exc())
        _record_failure(study, run)
        write("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    else:
        write("done", batch_digest=_batch_digest(study.run_folder(run)))
    return study.status(run)["state"]


def _train_and_score(study: Study, run: Run, stop: Callable[[], bool], report: Callable[[int], None]) -> None:
    import torch

    from voxloss.training.predict import predict_probabilities
    from voxloss.training.train import InterruptedRunError, Training, train

    config, folder, split = study.config, study.run_folder(run), study.split(run.fold)
    prepared = {case.case_id: open_prepared(study.prepared_folder(case.case_id)) for case in study.dataset.cases}
    training = Training(
        folder=folder,
        config=config,
        loss=run.loss.name,
        parameters=run.loss.parameters,
        fold=run.fold,
        seed=run.seed,
        training=[prepared[case_id] for case_id in split.training],
        validation=[prepared[case_id] for case_id in split.inner or split.validation],
        classes=len(study.dataset.classes),
    )
    network = train(training, torch.device(resolve_device(config.execution.device)), stop, report)
    rows: list[dict[str, Any]] = []
    for case_id in split.validation:
        if stop():
            raise InterruptedRunError
        case = study.case(case_id)
        probabilities = predict_probabilities(
            network, prepared[case_id].image, config.patches, config.training.precision
        )
        prediction = restore_label(probabilities, prepared[case_id].original.shape)
        path = folder / "predictions" / f"{case_id}.nii.gz"
        write_label(path, to_file_values(prediction, study.dataset), like=case.images[0])
        reference, _ = read_label(case, study.dataset.label_values, study.dataset.value_hints)
        scores = case_scores(reference, prediction, study.dataset.classes)
        rows += score_rows(
            scores, dataset=study.dataset.name, fold=run.fold, seed=run.seed, loss=run.loss.key, case=case_id
        )
    write_scores(folder / "scores.csv", rows)


def to_file_values(label: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Class indices as the values that the data set's own masks use (BraTS20 writes enhancing tumour as 4)."""
    lookup = np.zeros(len(dataset.classes), dtype=np.uint8)
    for value, index in sorted(dataset.label_values.items(), reverse=True):
        lookup[index] = value  # of several values for a class the smallest stays
    return lookup[label]


def _record_failure(study: Study, run: Run) -> None:
    rows = failed_rows(
        dataset=study.dataset.name,
        fold=run.fold,
        seed=run.seed,
        loss=run.loss.key,
        cases=study.split(run.fold).validation,
        classes=study.dataset.classes,
    )
    write_scores(study.run_folder(run) / "scores.csv", rows)


def _batch_digest(folder: Path) -> str:
    """One digest of all batches of a run, from those of its epochs."""
    import csv
    import hashlib

    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        digests = [row["batch_digest"] for row in csv.DictReader(file)]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def merge_study_scores(study: Study) -> Path | None:
    """Merge the ended runs' scores into the study's scores.csv; None while there is none."""
    ended = [run for run in study.runs() if study.status(run)["state"] in (*FINISHED, "failed")]
    parts = [study.run_folder(run) / "scores.csv" for run in ended]
    if not parts:
        return None
    write_scores(study.folder / "scores.csv", merge_scores(parts))
    return study.folder / "scores.csv"
