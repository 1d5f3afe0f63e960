"""How far a study is, from its files: what `voxloss status` shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from voxloss.study.claims import Standing, newest, own_time
from voxloss.study.folder import ENDED, FINISHED, Run, RunStatus, State
from voxloss.study.study import Study
from voxloss.training.alarm import LostClass, alarms
from voxloss.training.history import Epoch


@dataclass(frozen=True)
class RunProgress:
    """A run's status and the epochs it has finished.

    Args:
        status: As its files say.
        state: Its state now: a run whose process is gone is pending.
        epochs: What its history says of each finished epoch.
        claim: Of a run that is at work: that of its process.
    """

    status: RunStatus
    state: State
    epochs: Sequence[Epoch]
    claim: Standing | None = None

    @property
    def run(self) -> Run:
        """The run."""
        return self.status.run

    def alarms(self, classes: Sequence[str]) -> list[LostClass]:
        """Classes that the run lost, as long as it is not finished; after that its scores tell."""
        return [] if self.state in FINISHED else alarms(self.epochs, classes)

    @property
    def epoch_seconds(self) -> tuple[float, ...]:
        """Duration of every epoch so far."""
        return tuple(epoch.seconds for epoch in self.epochs)


def run_progress(study: Study) -> list[RunProgress]:
    """Every run of the study as its files say now. Nothing is written."""
    return [_progress_of(study, run) for run in study.runs()]


def _progress_of(study: Study, run: Run) -> RunProgress:
    status = study.status(run)
    claim = None if status.state in ENDED else newest(study.files.place(run))
    if claim is not None and not claim.is_live(own_time):
        claim = None
    # What a process that is gone left is taken up by the next one.
    state: State = status.state if status.state in ENDED else "pending" if claim is None else "running"
    return RunProgress(status, state, study.run_folder(run).history(), claim)


def run_seconds_left(one: RunProgress, epochs: int) -> float | None:
    """Training time that a running run still needs, by the median of its epochs; None before the first has ended."""
    if one.state != "running" or not one.epochs:
        return None
    return (epochs - one.status.epoch) * median(one.epoch_seconds)


def study_seconds_left(runs: Sequence[RunProgress], epochs: int, parallel: int) -> float | None:
    """Time until all runs have ended, by the epochs and predictions so far; None before any epoch has ended.

    Runs that have not begun are assumed to be like those that have, with `parallel` of them at the same time.
    """
    known = [seconds for one in runs for seconds in one.epoch_seconds]
    if not known:
        return None
    after_training = [max(0.0, one.status.seconds - sum(one.epoch_seconds)) for one in runs if one.state == "done"]
    waiting = [one for one in runs if one.state not in ENDED]
    training = sum(epochs - one.status.epoch for one in waiting) * mean(known)
    return (training + len(waiting) * (mean(after_training) if after_training else 0.0)) / max(1, parallel)


@dataclass(frozen=True)
class SearchProgress:
    """How far the search for the setting of a loss on a fold is.

    Args:
        loss: The loss's key.
        fold: The fold.
        trials: The statuses of its trials so far.
        planned: Number of trials that it will have.
        chosen: The number of the trial that was chosen; None: still searching.
    """

    loss: str
    fold: int
    trials: Sequence[RunStatus]
    planned: int
    chosen: int | None

    @property
    def finished(self) -> int:
        """Number of trials that have finished."""
        return sum(trial.state in FINISHED for trial in self.trials)


def search_progress(study: Study) -> list[SearchProgress]:
    """Every search of the study as its files say now, loss by loss."""
    if study.tuning is None:
        return []
    folds = sorted({fold for _, fold in study.rounds()})
    result = []
    for loss in study.losses:
        for fold in folds if loss.tuned else ():
            search = study.search(loss, fold)
            trials = [study.status(study.trial_run(loss, fold, trial)) for trial in search.trials]
            result.append(SearchProgress(loss.listed.key, fold, trials, study.tuning.trials, search.chosen))
    return result
