"""Follow the execution of runs from the study's folder, as `voxloss run` does while it waits."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from voxloss.study.claims import LOOK_SECONDS, live_claims
from voxloss.study.execution.executor import Executor
from voxloss.study.execution.request import Request, not_ended
from voxloss.study.folder import ENDED, Run
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of


@contextmanager
def executed(
    study: Study, executor: Executor, request: Request, runs: int, stopping: Callable[[], None]
) -> Iterator[None]:
    """Have runs executed while the block follows them; when it is left by an error, the workers are stopped.

    Args:
        study: The study.
        executor: Starts the workers.
        request: What they are asked to do.
        runs: The number of runs to do.
        stopping: Called before the workers are stopped, which takes until they reach their next step.
    """
    try:
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
) -> None:
    """Wait until runs have ended, whoever executes them.

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
    while True:
        working = executor.alive(study.folder)  # before the runs are looked at
        for run in list(waiting):
            status = study.status(run)
            if status.state in ENDED:
                waiting.remove(run)
                changed(run, status.state)
        if not waiting and ended():
            return
        if study.files.stop_token() != request.stop_token:
            raise KeyboardInterrupt
        if not working and not live_claims(study.folder):
            left = not_ended(study, waiting)
            if left:
                raise InputError(f"All workers have left with {count_of(len(left), 'run')} to do: {left[0]}.")
            if not waiting:
                return
        poll()
        # The longer it takes, the less often: a file server is not asked without need.
        time.sleep(min(LOOK_SECONDS, 0.2 + 0.05 * (time.monotonic() - begin)))
