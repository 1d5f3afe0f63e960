"""What is being done: on a terminal a bar or a spinner, elsewhere a line on stderr, where scripts read no results."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from voxloss.utilities.text import count_of

SPEED_PERIOD = 6 * 3600  # seconds of the past that the time left is estimated from; a case or an epoch may take minutes


@dataclass
class PreparationBar:
    """Moves the bar when it is called with (finished, of, what)."""

    bars: Progress
    task: TaskID

    def __call__(self, finished: int, of: int, what: str) -> None:
        """Show how many cases are prepared; without a terminal say that it begins."""
        if self.bars.disable and finished == 0:
            say(f"{what}: {count_of(of, 'case')}" if of > 1 else what)
        self.bars.update(self.task, completed=finished, total=of, description=what)


@contextmanager
def preparation_bar(console: Console) -> Iterator[PreparationBar]:
    """Show a bar on a terminal, which disappears at the end, and elsewhere a line for each part.

    FORCE_COLOR, which notebooks and services for continuous integration set, does not make a terminal of a file.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not console.file.isatty(), transient=True, speed_estimate_period=SPEED_PERIOD
    ) as bars:
        yield PreparationBar(bars, bars.add_task("reading", total=None))


@contextmanager
def working(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done, by a spinner on a terminal; what is given takes the next thing that is."""
    if console.file.isatty():
        with console.status(what) as status:
            yield status.update
    else:
        say(what)
        yield say


def say(what: str) -> None:
    """Print a line about what is being done, on stderr."""
    print(what, file=sys.stderr, flush=True)
