"""How far a study is, from its files: what `voxloss status` shows, once or until its runs have ended."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from voxloss.study.folder import FINISHED, Run, Study


@dataclass(frozen=True)
class RunProgress:
    """One run: its state, finished epochs, and of the last one the training loss and the validation Dice.

    Args:
        epoch_seconds: of every epoch so far.
        seconds: that the run has taken, prediction and scoring included.
        collapsed: classes that an ended run predicted in no case.
    """

    run: Run
    state: str
    epoch: int
    loss: float | None
    dice: float | None
    epoch_seconds: tuple[float, ...]
    seconds: float
    reason: str | None
    collapsed: tuple[str, ...]


def progress(study: Study) -> list[RunProgress]:
    """Every run of the study as its files tell now; a run whose process is gone is pending."""
    at_work = study.is_locked()
    return [_run_progress(study, run, at_work) for run in study.runs()]


def _run_progress(study: Study, run: Run, at_work: bool) -> RunProgress:
    status = study.status(run)
    state = status["state"]
    if state == "running" and not at_work:
        state = "pending"  # the next `voxloss run` takes it up
    rows = _history(study, run)
    return RunProgress(
        run=run,
        state=state,
        epoch=int(status.get("epoch", 0)),
        loss=float(rows[-1]["train_loss"]) if rows else None,
        dice=float(rows[-1]["validation_dice"] or "nan") if rows else None,
        epoch_seconds=tuple(float(row["seconds"]) for row in rows),
        seconds=float(status.get("seconds", 0.0)),
        reason=status.get("reason"),
        collapsed=tuple(status.get("collapsed") or ()),
    )


def _history(study: Study, run: Run) -> list[dict[str, str]]:
    try:
        with (study.run_folder(run) / "history.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def run_seconds_left(one: RunProgress, epochs: int) -> float | None:
    """Of a running run's training, by the median of its epochs; None before the first has ended."""
    if one.state != "running" or not one.epoch_seconds:
        return None
    return (epochs - one.epoch) * median(one.epoch_seconds)


def study_seconds_left(runs: Sequence[RunProgress], epochs: int, parallel: int) -> float | None:
    """Until all runs have ended, by the epochs and predictions so far; None before any epoch has ended.

    Runs that have not begun are taken to be like those that have, and `parallel` of them to go on at the same time.
    """
    known = [seconds for one in runs for seconds in one.epoch_seconds]
    if not known:
        return None
    after_training = [max(0.0, one.seconds - sum(one.epoch_seconds)) for one in runs if one.state == "done"]
    waiting = [one for one in runs if one.state not in (*FINISHED, "failed")]
    training = sum(epochs - one.epoch for one in waiting) * mean(known)
    return (training + len(waiting) * (mean(after_training) if after_training else 0.0)) / max(1, parallel)
