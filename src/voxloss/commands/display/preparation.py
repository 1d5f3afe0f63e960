"""What is being done: on a terminal a bar or a spinner, elsewhere a line on stderr, where scripts read no results."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from voxloss.utilities.text import count_of

PATIENCE = 2.0  # seconds after which a line says what is being done: a mistake that is found at once stands alone
SPEED_PERIOD = 6 * 3600  # seconds of the past that the time left is estimated from; a case or an epoch may take minutes


@dataclass
class PreparationBar:
    """Moves the bar when it is called with (finished, of, what)."""

    bars: Progress
    task: TaskID
    lines: "_Lines"

    def __call__(self, finished: int, of: int, what: str) -> None:
        """Show how many cases are prepared; without a terminal say that it begins."""
        if self.bars.disable and finished == 0:
            self.lines(f"{what}: {count_of(of, 'case')}" if of > 1 else what)
        self.bars.update(self.task, completed=finished, total=of, description=what)


@contextmanager
def preparation_bar(console: Console) -> Iterator[PreparationBar]:
    """Show a bar on a terminal, which disappears at the end, and elsewhere a line for each part.

    FORCE_COLOR, which notebooks and services for continuous integration set, does not make a terminal of a file.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        _lines() as lines,
        Progress(
            *columns,
            console=console,
            disable=not console.file.isatty(),
            transient=True,
            speed_estimate_period=SPEED_PERIOD,
        ) as bars,
    ):
        yield PreparationBar(bars, bars.add_task("reading", total=None), lines)


@contextmanager
def working(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done, by a spinner on a terminal; what is given takes the next thing that is."""
    if console.file.isatty():
        with console.status(what) as status:
            yield status.update
    else:
        with _lines() as lines:
            lines(what)
            yield lines


class _Lines:
    """Says on stderr what is being done, once it has lasted."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __call__(self, what: str) -> None:
        self.end()
        self._timer = threading.Timer(PATIENCE, say, [what])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def _lines() -> Iterator[_Lines]:
    lines = _Lines()
    try:
        yield lines
    finally:
        lines.end()


def say(what: str) -> None:
    """Print a line about what is being done, on stderr."""
    print(what, file=sys.stderr, flush=True)
