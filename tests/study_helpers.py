"""A study small enough for tests: four phantom cases, two folds, two losses."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from voxloss.commands.main import run_command
from voxloss.config.schema import ExecutionConfig
from voxloss.study.claims import Worker, take
from voxloss.study.study import Study
from voxloss.utilities.text import count_of

if TYPE_CHECKING:  # it imports the training, for which the peers' environment lacks packages
    from voxloss.study.execution.request import Request

TINY = [
    "--splits.folds", "2",
    "--patches.size", "[8,16,16]", "--patches.overlap", "0",
    "--network.filters", "2", "--network.depth", "2",
    "--training.epochs", "2", "--training.iterations", "2", "--training.validation_batches", "1",
    "--preparation.spacing_mm", "[11,11,11]",
    "--execution.device", "cpu", "--execution.threads", "1", "--execution.parallel", "1",
]  # fmt: skip


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run `voxloss ARGUMENTS` as a user would and return what it printed."""
    return subprocess.run(voxloss(*arguments), capture_output=True, text=True, timeout=600, **options)


class InlineExecutor:
    """In the place of processes: this one works, since it has imported everything."""

    elsewhere = False

    def check(self, settings: ExecutionConfig, *, detached: bool) -> None:
        pass

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: "Request") -> str:
        self.request: Request | None = request
        return f"{count_of(workers, 'worker')} in this process"

    def alive(self, study: Path) -> int:
        if self.request is not None:
            request, self.request = self.request, None
            from voxloss.study.execution.worker import work  # trains, for which the peers' environment lacks packages

            work(study, request)
        return 0

    def why_left(self, study: Path) -> str:
        return "The worker has left"

    def stop(self, study: Path) -> None:
        pass


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """As `command`, in this process alone; what processes are for is tested by `command`.

    Lines about what is being done are left out, so that stderr has the mistakes alone.
    """
    words, handler = list(map(str, arguments)), signal.getsignal(signal.SIGTERM)
    with (
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as errors,
        chdir(cwd or Path.cwd()),
        mock.patch("voxloss.study.execution.local.LocalExecutor", InlineExecutor),
        mock.patch("voxloss.commands.display.preparation.say"),
    ):
        try:
            status = run_command(words)
        except SystemExit as end:  # of the parser
            status = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)  # a command sets its own
    return subprocess.CompletedProcess(words, status, out.getvalue(), errors.getvalue())


@contextmanager
def claimed(study: Study, *places: int) -> Iterator[None]:
    """Claim some of the study's runs, as a worker does."""
    claims = [take(study.files.place(study.runs()[place]), Worker()) for place in places]
    assert all(claims)
    yield
    for claim in claims:
        claim.release()


def voxloss(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "voxloss", *map(str, arguments)]


def tiny_run(data: Path, study: Path, *extra: object, report: bool = False) -> list[object]:
    """The words of a run of two losses; without a report, which takes as long as everything else."""
    words = ["run", "demo", "--data", data, "--study", study, "--losses", "dice,mixed_focal", *TINY, *extra]
    return words if report else [*words, "--no-report"]


def assert_only_prepared_cases(study: Path) -> None:
    """Of a study that could not be created: nothing is left, or the cases that were prepared before the mistake."""
    if study.exists():
        assert {path.name for path in study.iterdir()} <= {"prepared", ".claims"}
        cases = [path for path in (study / "prepared").iterdir() if path.name != "index.json"]
        assert cases
        assert all((case / "geometry.json").is_file() and not case.name.startswith(".") for case in cases)


def leave_pictures_empty(patch: pytest.MonkeyPatch) -> None:
    """The pictures of reports are files without content, which saves most of the time."""
    from matplotlib.figure import Figure  # the peers' environment lacks it

    patch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).touch())


def leave_steps_unmeasured(patch: pytest.MonkeyPatch) -> None:
    """Before it trains and in its plan, a study measures training steps, which takes seconds."""
    from voxloss.study import estimate, plan  # torch
    from voxloss.study.probe import Probe  # torch

    for module in (estimate, plan):
        patch.setattr(module, "probe", lambda config, *_, **__: Probe(config.patches.size, 1, 0.1, 0.1, None, 0, 1))
