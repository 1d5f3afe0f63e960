"""A bar while cases are read, prepared or scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SPEED_PERIOD = 6 * 3600  # seconds of the past that the time left is estimated from; a case or an epoch may take minutes


@dataclass
class PreparationBar:
    """Moves the bar when it is called with (finished, of, what)."""

    bars: Progress
    task: TaskID

    def __call__(self, finished: int, of: int, what: str) -> None:
        """Show how many cases are prepared."""
        self.bars.update(self.task, completed=finished, total=of, description=what)


@contextmanager
def preparation_bar(console: Console) -> Iterator[PreparationBar]:
    """Show a bar on a terminal, and nothing elsewhere; it disappears at the end.

    FORCE_COLOR, which notebooks and services for continuous integration set, does not make a terminal of a file.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not console.file.isatty(), transient=True, speed_estimate_period=SPEED_PERIOD
    ) as bars:
        yield PreparationBar(bars, bars.add_task("reading", total=None))
