"""The interface of executors, and the choice of one by its name."""

from pathlib import Path
from typing import Protocol

from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.request import Request


class Executor(Protocol):
    """Starts and stops workers of a study; where they are is its own business.

    A worker is the process of `Request.words`. It finds its work in the study's folder by itself, so that an executor
    knows nothing of runs, several of them may serve a study at once, and a study may move from one to another. What it
    must know later, such as the numbers of its jobs, it writes to STUDY/.execution/NAME.json.
    """

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: Request) -> None:
        """Start workers, and return at once.

        Args:
            study: The study's folder, which the workers see under this path too.
            settings: The study's section `execution`.
            workers: How many there are to be at most: the number of runs to do.
            request: What they are asked to do.
        """

    def alive(self, study: Path) -> int:
        """Return the number of its workers that wait to start or are at work; start those again that died.

        Raises:
            InputError: They cannot do the work; the message says why.
        """

    def stop(self, study: Path) -> None:
        """End its workers, who release their runs first; wait for those that work."""


def executor_of(settings: ExecutionConfig) -> Executor:
    """Return the executor that the settings name."""
    from voxloss.study.execution.local import LocalExecutor

    return LocalExecutor()
