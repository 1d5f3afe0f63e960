"""What the commands show while a study runs: bars with the time left on a terminal, a line per run elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table
from rich.text import Text

from voxloss.study.folder import FINISHED, Run
from voxloss.study.progress import RunProgress, progress, run_seconds_left, study_seconds_left
from voxloss.study.study import Study
from voxloss.utilities.text import duration_text

if TYPE_CHECKING:
    from voxloss.study.plan import Plan

SPEED_PERIOD = 6 * 3600  # seconds that the time left is estimated from; an epoch may take minutes


@dataclass
class RunDisplay:
    """Follows the runs of a study by their status files.

    The whole grid's bar counts epochs, and one more step per run for prediction and scoring.
    """

    study: Study
    runs: Sequence[Run]
    console: Console
    bars: Progress
    overall: TaskID
    tasks: dict[str, TaskID] = field(default_factory=dict)
    ended: int = 0

    def changed(self, run: Run, state: str) -> None:
        """Say that a run ended."""
        if state == "pending":  # it was stopped
            return
        self.ended += 1
        status = self.study.status(run)
        self.console.print(
            f"[{STYLES[state]}]{state:8}[/] {run} ({self.ended} of {len(self.runs)}, {status.seconds:.0f} s)",
            highlight=False,
        )
        if status.reason:
            self.console.print(f"         {status.reason}", markup=False, highlight=False)
        self.poll()

    def stopping(self) -> None:
        """Say that it may take a moment."""
        self.console.print("Stopping at the next step.", highlight=False)

    def poll(self) -> None:
        """Read the status files and move the bars."""
        total = 0
        for run in self.runs:
            status = self.study.status(run)
            name, epochs = str(run), self.study.config.training.epochs
            state, epoch = status.state, status.epoch
            total += epochs + 1 if state in (*FINISHED, "failed") else epoch
            if state == "running":
                if name not in self.tasks:
                    self.tasks[name] = self.bars.add_task(name, total=epochs)
                what = name if epoch < epochs else f"{name}: predicting"
                self.bars.update(self.tasks[name], completed=epoch, description=what)
            elif name in self.tasks:
                self.bars.remove_task(self.tasks.pop(name))
        self.bars.update(self.overall, completed=total)


@contextmanager
def run_display(study: Study, runs: Sequence[Run], console: Console) -> Iterator[RunDisplay]:
    """Show the runs while they are executed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TimeLeftColumn(), console=console, disable=not console.is_terminal, speed_estimate_period=SPEED_PERIOD
    ) as bars:
        total = len(runs) * (study.config.training.epochs + 1)
        overall = bars.add_task(f"{len(runs)} runs, in epochs", total=total)
        display = RunDisplay(study, runs, console, bars, overall)
        display.poll()
        yield display


@contextmanager
def preparation_bar(console: Console) -> Iterator["PreparationBar"]:
    """Show the preparation of cases."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeftColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True, speed_estimate_period=SPEED_PERIOD
    ) as bars:
        yield PreparationBar(bars, bars.add_task("reading", total=None))


@dataclass
class PreparationBar:
    """Called with (finished, of, what)."""

    bars: Progress
    task: TaskID

    def __call__(self, finished: int, of: int, what: str) -> None:
        self.bars.update(self.task, completed=finished, total=of, description=what)


def plan_table(plan: "Plan") -> Table:
    """What a study will cost, a line for each part."""
    from voxloss.utilities.text import count_of

    config, survey = plan.survey.config, plan.survey
    size = " × ".join(map(str, config.patches.size or ()))
    measured = "measured" if plan.patch == config.patches.size else f"projected from {' × '.join(map(str, plan.patch))}"
    losses, folds, seeds = len(config.comparison.losses), config.splits.folds, len(config.comparison.seeds)
    together = config.execution.parallel
    channels = "1 channel" if survey.channels == 1 else f"{survey.channels} channels"
    lines = {
        "data": f"{len(survey.shapes)} cases, {channels}, {', '.join(survey.dataset.classes[1:])}",
        "patches": f"{config.patches.batch_size} of {size}, {measured}",
        "network": f"{config.network.name}, {plan.parameters:,} parameters",
        "memory": f"{_size(plan.memory)} a run, {together} at a time; {_size(plan.available)} free",
        "step": f"{_duration(plan.step)}; {plan.steps:,} steps a run",
        "runs": f"{plan.runs}: {count_of(losses, 'loss')} × {count_of(folds, 'fold')} × {count_of(seeds, 'seed')}",
        "training": f"{_duration(plan.training / plan.runs)} a run, {_duration(plan.training)} in all",
        "prediction": f"{_duration(plan.prediction)} in all",
        "disk": _size(plan.disk),
        "total": _duration((plan.training + plan.prediction) / together)
        + (f", if {together} runs at a time do not slow each other" if together > 1 else ""),
    }
    table = Table(title=f"{config.name} on this machine", title_justify="left", show_header=False)
    for name, text in lines.items():
        table.add_row(name, escape(text))
    return table


def _size(number: int | None) -> str:
    return "an unknown amount" if number is None else f"{number / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{1000 * seconds:.0f} ms"


STYLES = {"done": "green", "running": "cyan", "pending": "dim", "failed": "red", "diverged": "magenta"}


REFRESH_SECONDS = 2.0


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
    lines: list[str] = [one.state]
    if one.state in ("running", "pending") and one.status.epoch:
        lines[0] += f" {one.status.epoch}/{epochs}"
    if one.state == "running" and one.epochs:
        lines.append(f"loss {one.epochs[-1].train_loss:.4g}")
        left = run_seconds_left(one, epochs)
        lines.append("predicting" if one.status.epoch >= epochs or left is None else f"{duration_text(left)} left")
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
        if one.status.reason:
            lines.append(Text(f"{one.run}: {one.state}: {one.status.reason}"))
        lines += [Text(f"{one.run}: {name} is predicted in no case") for name in one.status.collapsed]
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
