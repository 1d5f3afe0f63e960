"""One trial of a search: train as a run does, and judge the network on inner cases, never on the scored fold."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from voxloss.data.case import read_label
from voxloss.data.formats import exists
from voxloss.data.grid import turn_of
from voxloss.data.prepare.case import open_prepared
from voxloss.study.folder import Run, RunFolder
from voxloss.study.jobs import training_job
from voxloss.study.own import require_own_loss
from voxloss.study.sources import require_case, require_files
from voxloss.study.study import Study
from voxloss.training.device import resolve_device
from voxloss.training.history import Epoch
from voxloss.training.predict import predict_label
from voxloss.training.train import InterruptedRunError, train
from voxloss.utilities.arrays import ClassIndices

LEAST_BEFORE = 4  # finished trials with which one is compared before it may stop
WARM_UP = 1 / 3  # share of a trial's epochs in which none stops: losses differ in how fast they begin


class PrunedError(Exception):
    """The trial stopped, as it was worse than most before it."""


def train_trial(
    study: Study, run: Run, files: RunFolder, stop: Callable[[], bool], report: Callable[[int], None]
) -> dict[str, Any]:
    """Train a trial from its checkpoint, if there is one; return what its status says beyond that of a run.

    Raises:
        PrunedError: It is worse than most trials before it.
        DivergedError, InterruptedRunError: As `train`.
        SourceError: Images or masks of inner cases are missing.
    """
    split = study.trial_split(run.fold)
    prepared = {case_id: open_prepared(folder) for case_id, folder in study.files.read_prepared().items()}
    job = training_job(study, run, files, split, prepared)
    require_own_loss(study, run.loss)
    inner = [study.case(case_id) for case_id in split.inner]
    require_files([path for case in inner for path in case.files if not exists(path)], study.folder)
    earlier = _earlier_histories(study, run)
    epochs = job.config.training.epochs

    stopped = _stopped(files.history(), earlier, epochs)  # of a trial that is resumed

    def after_epoch(epoch: int) -> None:
        nonlocal stopped
        report(epoch)
        stopped = _stopped(files.history(), earlier, epochs)

    def stopping() -> bool:  # asked by all devices of a training alike, which an exception in `after_epoch` is not
        return stopped is not None or stop()

    def check_stop() -> None:
        if stop():
            raise InterruptedRunError

    try:
        network = train(job, torch.device(resolve_device(job.config.execution.device)), stopping, after_epoch)
    except InterruptedRunError:
        if stopped is None:
            raise
    if stopped is not None:
        raise stopped
    predictions = []
    for case in inner:
        require_case(study, case.case_id)
        reference, geometry = read_label(case, study.dataset.label_values, study.dataset.value_hints)
        turned = turn_of(geometry, study.dataset).turned(reference)
        classes = len(study.dataset.classes)
        predicted = predict_label(network, prepared[case.case_id].image, job.config, turned.shape, classes, check_stop)
        predictions.append(class_dice(turned, predicted, classes, study.dataset.ignore_index))
    return {"value": mean_dice(predictions)}


def _earlier_histories(study: Study, run: Run) -> list[list[Epoch]]:
    """The epochs of the finished trials of earlier rounds; none where trials are not pruned."""
    assert run.trial is not None and study.tuning is not None
    if not study.tuning.prune:
        return []
    search = study.search(run.loss, run.fold)
    runs = [study.trial_run(run.loss, run.fold, trial) for trial in search.before(search.trials[run.trial])]
    return [study.run_folder(other).history() for other in runs if study.status(other).state == "done"]


def _stopped(history: Sequence[Epoch], earlier: Sequence[Sequence[Epoch]], epochs: int) -> PrunedError | None:
    """Return why a trial stops, after any of its epochs, so that it does not matter when it was interrupted."""
    for number in range(1, len(history) + 1):
        if (level := stopping_level(history[:number], earlier, epochs)) is not None:
            best = max(_dice(epoch) for epoch in history[:number])
            return PrunedError(
                f"stopped early: the best mean Dice on inner patches was {best:.3f} after epoch {number}, below the "
                f"median of earlier trials, {level:.3f}"
            )
    return None


def stopping_level(history: Sequence[Epoch], earlier: Sequence[Sequence[Epoch]], epochs: int) -> float | None:
    """Return the level that a trial should have reached and has not, so that it stops; None: it goes on.

    This is Optuna's median rule: the best mean Dice of the trial so far is below the median that the finished trials of
    earlier rounds had after the same epoch. It needs four of them, and the first third of the epochs is free. It looks
    at no trial of the same round, so that what is decided does not depend on how many workers there are.

    Args:
        history: The trial's epochs so far.
        earlier: The epochs of the finished trials of earlier rounds.
        epochs: The epochs that the trial will have.
    """
    number = len(history)
    if len(earlier) < LEAST_BEFORE or number < WARM_UP * epochs or number >= epochs:
        return None
    level = median(_dice(other[number - 1]) for other in earlier if len(other) >= number)
    return level if max(_dice(epoch) for epoch in history) < level else None


def _dice(epoch: Epoch) -> float:
    return 0.0 if math.isnan(epoch.validation_dice) else epoch.validation_dice


def class_dice(reference: ClassIndices, predicted: ClassIndices, classes: int, ignore_index: int | None) -> list[float]:
    """Return the Dice of every foreground class in one case; NaN where neither mask has the class."""
    counted = np.ones(reference.shape, dtype=bool) if ignore_index is None else reference != ignore_index
    values = []
    for index in range(1, classes):
        in_reference, in_prediction = (reference == index) & counted, (predicted == index) & counted
        total = int(in_reference.sum()) + int(in_prediction.sum())
        values.append(2 * int((in_reference & in_prediction).sum()) / total if total else math.nan)
    return values


def mean_dice(of_cases: Sequence[Sequence[float]]) -> float:
    """Return the mean over classes of the mean over the cases that have the class; 0 where no case has any."""
    by_class = [[value for value in values if not math.isnan(value)] for values in zip(*of_cases, strict=True)]
    means = [mean(values) for values in by_class if values]
    return mean(means) if means else 0.0


def remove_weights(study: Study, run: Run) -> None:
    """Remove the weights of a trial that ended; its setting, history and score stay."""
    files = study.run_folder(run)
    for path in (files.checkpoint_file, files.path / "best.pt"):
        path.unlink(missing_ok=True)
