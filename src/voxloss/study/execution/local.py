"""Workers on this machine, each a process of its own, so that only one run suffers if the system kills a process.

`python -m voxloss.study.execution.local STUDY WORKERS REQUEST` keeps workers alive until they have left, for a
`voxloss run` that does not wait for them.
"""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from voxloss.config.schema import ExecutionConfig
from voxloss.study.claims import newest_claims
from voxloss.study.execution.request import PARENT, Request
from voxloss.study.folder import StudyFolder
from voxloss.study.study import Study
from voxloss.training.device import gpus_of_runs, runs_at_once
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, shell_word

EARLY_DEATHS = 3  # in a row, of workers that had not claimed anything


@dataclass
class _Process:
    """A worker, and what starts it again."""

    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


class LocalExecutor:
    """Starts as many workers as the settings allow, with a share of the cores each, or a GPU each."""

    elsewhere = False

    def __init__(self) -> None:
        self._workers: list[_Process] = []
        self._words: list[str] = []
        self._early = 0
        self._variables: list[dict[str, str]] = []

    def check(self, settings: ExecutionConfig, *, detached: bool) -> None:
        """Processes can be started anywhere."""

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: Request) -> str:
        """Start workers (`Executor.start`), by a process of their own where nobody waits for them."""
        at_once, gpus = min(runs_at_once(settings), workers), gpus_of_runs(settings)
        started = f"{count_of(at_once, 'worker')} started on {platform.node()}"
        if request.detached:
            _detach(study, settings, workers, replace(request, detached=False))
            return started
        threads = settings.threads or max(1, (os.cpu_count() or 1) // runs_at_once(settings))
        self._words = replace(request, threads=threads).words(study)
        self._variables = [
            {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(at_once)
        ]
        for number in range(at_once):
            self._workers.append(self._started(number))
        return started

    def _started(self, number: int) -> _Process:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - of the worker; what it says matters only if it dies
        variables = {**tuned_for_training(os.environ), **self._variables[number], PARENT: str(os.getpid())}
        with _interrupts_ignored():  # Ctrl-C reaches this process, which stops its workers
            process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stderr=errors, env=variables)
        return _Process(number, process, errors)

    def alive(self, study: Path) -> int:
        """Return how many are at work, and start those again that were killed (`Executor.alive`)."""
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if not code:
                continue
            said = _last_line(worker.errors)
            if code == 2:
                raise InputError(said or "a process that executes runs ended with an error")
            # A process that has claimed something is counted at the run, by whoever claims that next.
            claimed = any(claim.record.pid == worker.process.pid for claim in newest_claims(study))
            self._early = 0 if claimed else self._early + 1
            if self._early >= EARLY_DEATHS:
                why = f": {said}" if said else ", possibly out of memory"
                raise InputError(f"The processes that execute runs crash on start{why}")
            self._workers[place] = self._started(worker.number)
        return sum(worker.process.poll() is None for worker in self._workers)

    def why_left(self, study: Path) -> str:
        """Nobody knows; those that died are started again (`Executor.why_left`)."""
        return f"All workers have left with runs to do; to resume: voxloss run {shell_word(study)}"

    def queue(self, study: Path) -> None:
        """Nothing waits (`Executor.queue`)."""

    def stop(self, study: Path) -> None:
        """End the workers after their present training step (`Executor.stop`)."""
        for worker in self._workers:
            with suppress(OSError):
                worker.process.terminate()
        try:
            for worker in self._workers:
                worker.process.wait()
        finally:  # also of a second Ctrl-C
            for worker in self._workers:
                worker.process.kill()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def tuned_for_training(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with which a process trains faster on a CPU, unless the user has set them.

    Threads release their core soon when they wait. If more threads are active than there are cores (workers, other
    runs, other programs), torch's threads otherwise wait by spinning on a core that another thread needs: on two cores,
    one worker made training five times slower.

    glibc asks the system for memory in pages of 2 MB. Every step gives tensors back and asks for them again, and with
    pages of 4 kB the system spent a quarter to 40 % of a step on handing them out.
    """
    tuned = dict(variables)
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & variables.keys():
        tuned["GOMP_SPINCOUNT"] = "1000"
    tuned.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # ignored by other libraries and versions before 2.35
    return tuned


def _detach(study: Path, settings: ExecutionConfig, workers: int, request: Request) -> None:
    """Start a process that keeps the workers alive when this one has ended; what it says goes to a log."""
    folder = StudyFolder(study).execution
    folder.mkdir(exist_ok=True)
    module = "voxloss.study.execution.local"
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    with (folder / f"local-{platform.node()}.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(study.resolve()), str(workers), request.text()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **options,
        )


def main(words: Sequence[str]) -> int:
    """Keep workers alive until they leave, and return the exit status."""
    study, workers, text = words
    executor, settings = LocalExecutor(), Study.open(Path(study)).config.execution

    def end(*_: object) -> None:
        executor.stop(Path(study))
        sys.exit(130)

    signal.signal(signal.SIGTERM, end)
    executor.start(Path(study), settings, int(workers), Request.parse(text))
    try:
        while executor.alive(Path(study)):
            time.sleep(0.5)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        executor.stop(Path(study))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
