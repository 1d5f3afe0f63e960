"""Where runs are run: processes of this machine.

Every run has a process of its own from a pool, so that a run that the system kills (out of memory) is one failed run.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path

from voxloss.experiment import execute_run
from voxloss.study import Run, Study

_stop: Event | None = None  # set in each worker process


def execute_locally(
    study: Study,
    runs: Sequence[Run],
    changed: Callable[[Run, str], None] = lambda run, state: None,
    poll: Callable[[], None] = lambda: None,
) -> None:
    """Execute `runs` on this machine, `execution.parallel` at a time, and come back when all have ended.

    Args:
        changed: called with a run and its state when it ends.
        poll: called about twice a second in between, to show progress.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; the runs at work have stopped and can go on later.
    """
    execution = study.config.execution
    threads = execution.threads or max(1, (os.cpu_count() or 1) // execution.parallel)
    remaining = list(runs)
    while remaining:
        remaining = _one_pool(study, remaining, execution.parallel, threads, changed, poll)


def _one_pool(
    study: Study,
    runs: Sequence[Run],
    parallel: int,
    threads: int,
    changed: Callable[[Run, str], None],
    poll: Callable[[], None],
) -> list[Run]:
    """Execute runs in one pool; return those that it did not come to because a process of it was killed."""
    context = multiprocessing.get_context("spawn")  # a forked process inherits torch's threads in an unknown state
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(parallel, len(runs)), mp_context=context, initializer=_start_worker, initargs=(stop, threads)
    )
    pending: dict[Future[str], Run] = {pool.submit(_work, study.folder, run): run for run in runs}
    killed: list[Run] = []
    try:
        while pending:
            finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                run = pending.pop(future)
                try:
                    changed(run, future.result())
                except BrokenProcessPool:
                    killed.append(run)
            poll()
    except BaseException:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    for run in killed:
        # Only a run at work can have brought its process down; those that still waited are tried again.
        if study.status(run)["state"] == "running":
            study.write_status(run, "failed", reason="its process was killed, perhaps for want of memory")
            changed(run, "failed")
    return [run for run in killed if study.status(run)["state"] != "failed"]


def _start_worker(stop: Event, threads: int) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets `stop`
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever, or go on beside a new parent's workers."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(folder: Path, run: Run) -> str:
    return execute_run(Study.open(folder), run, stop=lambda: _stop is not None and _stop.is_set())
