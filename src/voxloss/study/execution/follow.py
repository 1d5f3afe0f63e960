"""Follow the execution of runs from the study's folder, as `voxloss run` does while it waits."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from voxloss.config.schema import StudyConfig
from voxloss.study.claims import LOOK_SECONDS, live_claims, time_of_scan
from voxloss.study.execution.executor import Executor
from voxloss.study.execution.request import Request, not_ended
from voxloss.study.folder import ENDED, Run
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

LEAVE_SECONDS = 5.0  # without any worker, after which those of this command and of others count as gone


class Helpers:
    """Workers that are started before a new study is created, to help to prepare it; as many as it has runs.

    Args:
        executor: Starts them.
        folder: The study's folder.
        request: What they are asked to do.
    """

    def __init__(self, executor: Executor, folder: Path, request: Request) -> None:
        self.executor, self.folder, self.request = executor, folder, request
        self.started = False
        self.what = ""  # was started, as `Executor.start` says

    def start(self, config: StudyConfig) -> None:
        """Start them (`voxloss.study.create.Helpers`)."""
        folds = config.splits.folds if self.request.folds is None else len(self.request.folds)
        networks = len(config.networks()) or 1
        runs = len(self.request.losses) * folds * len(self.request.seeds) * networks
        self.started = True  # a part of them may be there when an error ends the next line
        self.what = self.executor.start(self.folder, config.execution, runs, self.request)

    def stop(self) -> None:
        """Stop them (`voxloss.study.create.Helpers`)."""
        if self.started:
            self.executor.stop(self.folder)


@contextmanager
def executed(
    study: Study, executor: Executor, request: Request, runs: int, stopping: Callable[[], None], *, started: bool
) -> Iterator[None]:
    """Have runs executed while the block follows them; when it is left by an error, the workers are stopped.

    Args:
        study: The study.
        executor: Starts the workers.
        request: What they are asked to do.
        runs: The number of runs to do.
        stopping: Called before the workers are stopped, which takes until they reach their next step.
        started: Whether they are there, as they have helped to prepare the study.
    """
    try:
        if not started:
            executor.start(study.folder, study.config.execution, runs, request)
        yield
    except BaseException:
        stopping()
        executor.stop(study.folder)
        raise


def follow(
    study: Study,
    executor: Executor,
    request: Request,
    runs: Sequence[Run],
    changed: Callable[[Run, str], None] = lambda run, state: None,
    poll: Callable[[], None] = lambda: None,
    ended: Callable[[], bool] = lambda: True,
) -> bool:
    """Wait until runs have ended, whoever executes them, or their losses were retired.

    Returns False if the workers have left before `ended` said yes.

    Args:
        study: The study.
        executor: Has started workers.
        request: What they were asked to do.
        runs: The runs, none of which had ended.
        changed: Called with a run and its state when it has ended.
        poll: Called in between, to show progress.
        ended: Asked when all runs have ended, whether that is all.

    Raises:
        InputError: The workers cannot do the work.
        KeyboardInterrupt: Ctrl-C was pressed, or the study was stopped by `voxloss stop`.
    """
    waiting, begin = list(runs), time.monotonic()
    last_seen = begin  # when a worker was, of whichever command
    while True:
        working = executor.alive(study.folder)  # before the runs are looked at
        for run in list(waiting):
            status = study.status(run)
            if status.state in ENDED:
                waiting.remove(run)
                changed(run, status.state)
        waiting = not_retired(study, waiting)
        if not waiting and ended():
            return True
        if study.files.stop_token() != request.stop_token:
            raise KeyboardInterrupt
        if working or live_claims(study.folder, time_of_scan(study.folder)):
            last_seen = time.monotonic()
        elif request.is_left(Study.open(study.folder)):
            # Between two runs, a worker of another command has no claim.
            if time.monotonic() - last_seen > LEAVE_SECONDS:
                raise InputError(executor.why_left(study.folder))
        elif len(not_ended(study, waiting)) == len(waiting):
            return False
        poll()
        # The longer it takes, the less often: a file server is not asked without need.
        until = time.monotonic() + min(LOOK_SECONDS, 0.2 + 0.05 * (time.monotonic() - begin))
        while (left := until - time.monotonic()) > 0 and executor.alive(study.folder) == working:
            time.sleep(min(0.5, left))  # a worker that has left may have done the last run


def not_retired(study: Study, runs: Sequence[Run]) -> list[Run]:
    """Leave out runs of losses that were retired meanwhile, which nobody executes."""
    retired = {part.files.network: part.files.read_retired() for part in study.parts()}
    return [run for run in runs if run.asked_by not in retired[run.network]]
