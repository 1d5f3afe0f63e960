"""A study small enough for tests: four phantom cases, two folds, two losses."""

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

from voxloss.commands.main import run_command

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


class InlinePool:
    """In the place of a pool of processes: work is done at once, by this process, which has imported everything."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, work: Callable[..., object], *arguments: object) -> Future:
        future: Future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None:
        pass


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """As `command`, in this process alone; what processes are for is tested by `command`."""
    words, handler = list(map(str, arguments)), signal.getsignal(signal.SIGTERM)
    with (
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as errors,
        chdir(cwd or Path.cwd()),
        mock.patch("voxloss.study.executors.ProcessPoolExecutor", InlinePool),
    ):
        try:
            status = run_command(words)
        except SystemExit as end:  # of the parser
            status = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)  # a command sets its own
    return subprocess.CompletedProcess(words, status, out.getvalue(), errors.getvalue())


def voxloss(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "voxloss", *map(str, arguments)]


def tiny_run(data: Path, study: Path, *extra: object, report: bool = False) -> list[object]:
    """The words of a run of two losses; without a report, which takes as long as everything else."""
    words = ["run", "demo", "--data", data, "--study", study, "--losses", "dice,mixed_focal", *TINY, *extra]
    return words if report else [*words, "--no-report"]


def assert_only_prepared_cases(study: Path) -> None:
    """Of a study that could not be created: nothing is left, or the cases that were prepared before the mistake."""
    if study.exists():
        assert {path.name for path in study.iterdir()} <= {"prepared", ".lock"}
        cases = [path for path in (study / "prepared").iterdir() if path.name != "index.json"]
        assert cases
        assert all((case / "geometry.json").is_file() and not case.name.startswith(".") for case in cases)
