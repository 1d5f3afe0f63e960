"""The interface of executors, and the choice of one by its name."""

from pathlib import Path
from typing import Protocol

from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.queue import Queue
from voxloss.study.execution.request import Request
from voxloss.study.folder import StudyFolder


class Executor(Protocol):
    """Starts and stops workers of a study; where they are is its own business.

    A worker is the process of `Request.words`. It finds its work in the study's folder by itself, so that an executor
    knows nothing of runs, several of them may serve a study at once, and a study may move from one to another. What it
    must know later, such as the numbers of its jobs, it writes to STUDY/.execution/NAME.json.

    Args:
        elsewhere: Whether workers are on other machines than the one that creates a study, so that they are started
            before and help to prepare it. On the same machine they would only share its cores.
    """

    elsewhere: bool

    def check(self, settings: ExecutionConfig, *, detached: bool) -> None:
        """Raise InputError if workers cannot be started from here."""

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: Request) -> str:
        """Start workers, and return at once how many and where, such as "3 jobs submitted to Slurm".

        Args:
            study: The study's folder, which the workers see under this path too. The study may be created later.
            settings: The study's section `execution`.
            workers: How many there are to be at most: the number of runs to do.
            request: What they are asked to do.
        """

    def alive(self, study: Path) -> int:
        """Return the number of its workers that wait to start or are at work; start those again that died.

        Raises:
            InputError: They cannot do the work; the message says why.
        """

    def why_left(self, study: Path) -> str:
        """Say why its workers may have left although there is work to do."""

    def queue(self, study: Path) -> Queue | None:
        """Return what was submitted for a study and not stopped; None where its workers start at once."""

    def stop(self, study: Path) -> None:
        """End its workers, who release their runs first; wait for those that work."""


EXECUTORS = ("local", "ray", "slurm")


def executor_of(settings: ExecutionConfig, *, detached: bool = False) -> Executor:
    """Return the executor that the settings name.

    Args:
        settings: The study's section `execution`.
        detached: Whether nobody is to wait for its workers.

    Raises:
        InputError: It cannot be used here; the message says what is missing.
    """
    executor = _executor(settings.executor)
    executor.check(settings, detached=detached)
    return executor


def noted_executors(study: Path) -> list[Executor]:
    """Return the executors that have noted workers of a study which may still be there."""
    names = {path.name.partition("-")[0] for path in StudyFolder(study).execution.glob("*-*.json")}
    return [_executor(name) for name in EXECUTORS if name in names]


def _executor(name: str) -> Executor:
    # Each imports its library where it uses it.
    if name == "slurm":
        from voxloss.study.execution.slurm import SlurmExecutor

        return SlurmExecutor()
    if name == "ray":
        from voxloss.study.execution.ray import RayExecutor

        return RayExecutor()
    from voxloss.study.execution.local import LocalExecutor

    return LocalExecutor()
