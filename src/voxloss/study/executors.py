"""Execute runs in processes of this machine, so that only one run fails if the system kills a process."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from voxloss.study.folder import Run
from voxloss.study.run import execute_run, record_failure
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import shared_memory_room

_stop: Event | None = None  # set in each worker process


def execute_locally(
    study: Study,
    runs: Sequence[Run],
    changed: Callable[[Run, str], None] = lambda run, state: None,
    poll: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Execute runs on this machine, `execution.parallel` at a time, and return when all have finished.

    The study must be held (`open_study`). A run whose process is killed is tried once more, alone.

    Args:
        study: The study.
        runs: Its runs that are to be executed.
        changed: Called with a run and its state when it finishes.
        poll: Called about twice a second in between, to show progress.
        stopping: Called when Ctrl-C was pressed, before the active runs reach their next step and stop.

    Raises:
        InputError: Processes crash before they start a run.
        KeyboardInterrupt: The user pressed Ctrl-C. The active runs have stopped and can be resumed.
    """
    for run in runs:
        if study.status(run).state == "running":  # of a process that was killed
            study.write_status(run, state="pending")
    execution = study.config.execution
    threads = execution.threads or max(1, (os.cpu_count() or 1) // execution.parallel)
    remaining, suspects = list(runs), list[Run]()
    while remaining or suspects:
        # When one process of a pool is killed the others end with it, so each run at work then is tried alone.
        batch = remaining or [suspects.pop(0)]
        alone = not remaining
        unfinished = _one_pool(study, batch, 1 if alone else execution.parallel, threads, changed, poll, stopping)
        at_work = [run for run in unfinished if study.status(run).state == "running"]
        if unfinished and not at_work and len(unfinished) == len(batch):
            raise InputError("The processes that execute runs crash on start, possibly out of memory.")
        remaining = [run for run in unfinished if run not in at_work]
        if alone:
            for run in at_work:
                record_failure(study, run)
                study.write_status(run, state="failed", reason="its process was killed, possibly out of memory")
                changed(run, "failed")
        else:
            suspects += at_work


def _one_pool(
    study: Study,
    runs: Sequence[Run],
    parallel: int,
    threads: int,
    changed: Callable[[Run, str], None],
    poll: Callable[[], None],
    stopping: Callable[[], None],
) -> list[Run]:
    """Execute runs in one pool; return those that did not finish because one of its processes was killed."""
    context = multiprocessing.get_context("spawn")  # a forked process inherits torch's threads in an unknown state
    try:
        stop = context.Event()
    except OSError as error:
        room = (shared_memory_room() or 0) / 1e6
        raise InputError(
            f"Processes cannot be started ({error.strerror}): /dev/shm, by which they talk, has {room:.0f} MB left."
        ) from error
    pool = ProcessPoolExecutor(
        min(parallel, len(runs)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(stop, threads, os.getpid()),
    )
    unfinished: list[Run] = []
    try:
        # Both are inherited by the workers: Ctrl-C reaches this process, which sets `stop`.
        with _interrupts_ignored(), short_spinning():
            pending: dict[Future[str], Run] = {pool.submit(_work, study.folder, run): run for run in runs}
        while pending:
            finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                run = pending.pop(future)
                try:
                    changed(run, future.result())
                except BrokenProcessPool:
                    unfinished.append(run)
            poll()
    except BaseException:
        stop.set()
        stopping()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return unfinished


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def short_spinning() -> Iterator[None]:
    """Make the threads of processes that are started meanwhile release their core soon when they wait.

    If more threads are active than there are cores (workers, other runs, other programs), torch's threads otherwise
    wait by spinning on a core that another thread needs: on two cores, one worker made training five times slower.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():  # the user knows better
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _start_worker(stop: Event, threads: int, parent: int) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _die_with(parent: int) -> None:
    """End this worker when its parent is killed; else it would wait for work forever, or run beside new workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(folder: Path, run: Run) -> str:
    return execute_run(Study.open(folder), run, stop=lambda: _stop is not None and _stop.is_set())
