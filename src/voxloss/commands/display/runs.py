"""Show the runs while `voxloss run` executes them: a line per finished run, and on a terminal bars."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from voxloss.commands.display.preparation import SPEED_PERIOD
from voxloss.commands.display.states import STYLES
from voxloss.config.tuning import setting_text
from voxloss.study.folder import FINISHED, Run
from voxloss.study.study import Study
from voxloss.training.alarm import alarms
from voxloss.utilities.text import count_of


@dataclass
class RunDisplay:
    """Shows the runs of a study by their status files.

    The bar of all runs counts epochs, and one more step per run for prediction and scoring.
    """

    study: Study
    runs: Sequence[Run]
    console: Console
    bars: Progress
    overall: TaskID
    tasks: dict[str, TaskID] = field(default_factory=dict)
    finished: int = 0
    alarmed: set[tuple[str, str, int]] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)

    def changed(self, run: Run, state: str) -> None:
        """Print that a run finished or failed."""
        if state == "pending":  # it was stopped
            return
        self.finished += 1
        status = self.study.status(run)
        found = f", {setting_text(status.setting)}" if status.setting else ""
        found += f", Dice {status.value:.3f} on inner cases" if status.value is not None else ""
        missed = f"; never predicted {', '.join(status.collapsed)}" if status.collapsed else ""
        self.console.print(
            f"[{STYLES[state]}]{state:8}[/] {run} ({self.finished} of {len(self.runs)}, {status.seconds:.0f} s"
            f"{escape(found)}){escape(missed)}",
            highlight=False,
        )
        if status.reason:
            self.console.print(f"         {status.reason}", markup=False, highlight=False)
        self.poll()

    def stopping(self) -> None:
        """Print that stopping may take a moment."""
        self.console.print("Stopping after the current training step.", highlight=False)

    def poll(self) -> None:
        """Read the status files and move the bars."""
        total = 0
        for run in self.runs:
            status = self.study.status(run)
            name, epochs = str(run), epochs_of(self.study, run)
            state, epoch = status.state, status.epoch
            total += epochs + 1 if state in (*FINISHED, "failed") else epoch
            if state == "running":
                if name not in self.tasks:
                    self.tasks[name] = self.bars.add_task(name, total=epochs)
                what = name if epoch < epochs else f"{name}: predicting"
                self.bars.update(self.tasks[name], completed=epoch, description=what)
                if self.epochs.get(name) != epoch:
                    self.epochs[name] = epoch
                    self._alarm(run)
            elif name in self.tasks:
                self.bars.remove_task(self.tasks.pop(name))
        self.bars.update(self.overall, completed=total)

    def _alarm(self, run: Run) -> None:
        """Print, once each time, that a run no longer predicts a class; not in a look, which nobody would change."""
        if self.study.comparison.look:
            return
        for lost in alarms(self.study.run_folder(run).history(), self.study.dataset.classes):
            if (str(run), lost.name, lost.last) not in self.alarmed:
                self.alarmed.add((str(run), lost.name, lost.last))
                self.console.print(f"[bold red]alarm[/]    {run}: {escape(lost.sentences())}", highlight=False)


def epochs_of(study: Study, run: Run) -> int:
    """Return the number of epochs that a run or trial will have."""
    trial_epochs = study.tuning.epochs if run.trial is not None and study.tuning is not None else None
    return trial_epochs or study.config.training.epochs


@contextmanager
def run_display(study: Study, runs: Sequence[Run], console: Console) -> Iterator[RunDisplay]:
    """Show the runs while they are executed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.file.isatty(),  # see `preparation_bar`
        speed_estimate_period=SPEED_PERIOD,
    ) as bars:
        total = sum(epochs_of(study, run) + 1 for run in runs)
        what = "trial" if runs and runs[0].trial is not None else "run"
        overall = bars.add_task(f"{count_of(len(runs), what)}, in epochs", total=total)
        display = RunDisplay(study, runs, console, bars, overall)
        display.poll()
        yield display
