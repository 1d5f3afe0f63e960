"""How far a study is, from its files: what `voxloss status` shows, once or until its runs have ended."""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from voxloss.report.names import duration_text
from voxloss.study import FINISHED, Run, Study

STYLES = {"done": "green", "running": "cyan", "pending": "dim", "failed": "red", "diverged": "magenta"}
REFRESH_SECONDS = 2.0


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


def status_view(study: Study, runs: Sequence[RunProgress]) -> Group:
    """The grid of runs, a row per loss and a column per fold and seed; below it the time left and what went wrong."""
    config, epochs = study.config, study.config.training.epochs
    table = Table(title=escape(f"{config.name}: {study.folder}"), title_justify="left")
    table.add_column("loss")
    several = len(config.comparison.seeds) > 1
    places = [(seed, fold) for seed in config.comparison.seeds for fold in range(len(study.folds))]
    for seed, fold in places:
        table.add_column(f"fold {fold}" + (f"\nseed {seed}" if several else ""))
    rows: dict[str, dict[tuple[int, int], Text]] = {}
    for one in runs:
        rows.setdefault(one.run.loss.key, {})[one.run.seed, one.run.fold] = _cell(one, epochs)
    for loss, cells in rows.items():
        table.add_row(escape(loss), *(cells[place] for place in places))
    return Group(table, *_sentences(study, runs))


def _cell(one: RunProgress, epochs: int) -> Text:
    lines = [one.state]
    if one.state in ("running", "pending") and one.epoch:
        lines[0] += f" {one.epoch}/{epochs}"
    if one.state == "running" and one.loss is not None:
        lines.append(f"loss {one.loss:.4g}")
        left = run_seconds_left(one, epochs)
        lines.append("predicting" if one.epoch >= epochs or left is None else f"{duration_text(left)} left")
    return Text("\n".join(lines), style=STYLES[one.state])


def _sentences(study: Study, runs: Sequence[RunProgress]) -> list[Text]:
    over = [one for one in runs if one.state in FINISHED]
    execution = study.config.execution
    left = study_seconds_left(runs, study.config.training.epochs, execution.parallel)
    text = f"{len(over)} of {len(runs)} runs ended"
    if len(over) < len(runs) and left is not None:
        text += f", about {duration_text(left)} left"
        if not any(one.state == "running" for one in runs):
            text += " once it goes on; nothing is at work"
    lines = [Text(f"{text}.")]
    for one in runs:
        if one.reason:
            lines.append(Text(f"{one.run}: {one.state}: {one.reason}"))
        lines += [Text(f"{one.run}: {name} is predicted in no case") for name in one.collapsed]
    return lines


def watch(study_folder: Callable[[], Study], console: Console, seconds: float = REFRESH_SECONDS) -> None:
    """Show the study and renew what is shown until no process is at work on it.

    Args:
        study_folder: opens the study; asked every time, since its losses may be extended meanwhile.
    """
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            study = study_folder()
            runs = progress(study)
            live.update(status_view(study, runs), refresh=True)
            if not study.is_locked():
                return
            time.sleep(seconds)
