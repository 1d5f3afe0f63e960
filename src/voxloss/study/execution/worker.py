"""A worker: claims a run of a study, executes it, publishes it, and takes the next one.

A worker that comes before the study is created helps to prepare it.

`python -m voxloss.study.execution.worker STUDY REQUEST` is one process. It knows the study's folder alone.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType

from voxloss.study.attempts import DEATHS, abandon, begin, has_died_too_often, publish
from voxloss.study.claims import (
    END,
    LOOK_SECONDS,
    Claim,
    Heart,
    LostClaimError,
    Worker,
    newest,
    of_study,
    take,
    time_of_scan,
)
from voxloss.study.execution.request import PARENT, Request, not_ended
from voxloss.study.folder import ENDED, FINISHED, Run, StudyFolder
from voxloss.study.preparation import help_prepare, worker_of
from voxloss.study.race import decide
from voxloss.study.run import execute_run, record_failure
from voxloss.study.search import decide_searches, executable
from voxloss.study.study import Study
from voxloss.study.trial import remove_weights
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import end_with


def work(folder: Path, request: Request, leave: Callable[[], bool] = lambda: False) -> None:
    """Execute runs of a study until none is left, or the study is stopped; before it is created, help to prepare it.

    Args:
        folder: The study's folder.
        request: What is asked for.
        leave: Asked before each run and at every step; when it says yes, the run is released and can be resumed.

    Raises:
        InputError: A file of the study is damaged.
        OSError: A file cannot be written, as on a full disk. The run is released.
    """
    files, finished, asked, pause = StudyFolder(folder), set[str](), list[Run](), 0.05
    first: dict[Path, tuple[int, float]] = {}

    def leaving() -> bool:
        return leave() or files.stop_token() != request.stop_token

    if not help_prepare(folder, request.executor, request.threads or 1, leaving):
        return
    while not leaving():
        study = Study.open(folder)  # losses may have been added, retired or eliminated
        settings = study.config.execution
        worker = worker_of(settings, request.executor)
        asked = request.runs(study)
        now = executable(study, asked)
        if _do_one(study, now, worker, finished, leave, leaving):
            pause = 0.05
            first.clear()
            continue
        race = study.comparison.design == "race"
        decided = decide_searches(study, asked, worker)
        left = not_ended(study, [run for run in now if str(run) not in finished])
        if decided or (race and not left and decide(study, worker)):
            first.clear()
            pause = _rest(pause)  # others may be at it, or have died at it
            continue
        more = race or any(run not in now for run in not_ended(study, asked))  # what others do now decides what comes
        if not left or not (request.wait or more or not _all_heard(study, left, first)):
            break
        # All are claimed: the worker may have to take one over, or the race may go on.
        pause = _rest(pause)
    else:
        return
    if request.report and not not_ended(study, executable(study, asked)):
        _report(folder, worker)


def _rest(pause: float) -> float:
    """Sleep, and return how long to sleep next."""
    time.sleep(pause)
    return min(1.2 * pause, LOOK_SECONDS)


def _all_heard(study: Study, runs: Sequence[Run], first: dict[Path, tuple[int, float]]) -> bool:
    """Whether the owners of all runs have given a sign of life since they were first looked at.

    One that has not may be dead: its run is to be waited for, and taken over. So a worker that replaces one whose
    machine has died does not leave the run of that one behind.
    """
    heard = True
    for run in runs:
        standing = newest(study.files.place(run))
        if standing is None or standing.record.state == "free":
            return False  # it can be claimed
        now = standing.generation, standing.beat
        heard = first.setdefault(standing.place, now) != now and heard
    return heard


def _do_one(
    study: Study,
    runs: Sequence[Run],
    worker: Worker,
    finished: set[str],
    leave: Callable[[], bool],
    leaving: Callable[[], bool],
) -> bool:
    """Claim and execute the first run that is free; return whether there was one."""
    now = time_of_scan()
    for run in runs:
        if str(run) in finished:
            continue
        status = study.status(run)
        if status.state in ENDED:
            if status.state in FINISHED:
                finished.add(str(run))
            continue
        claim = take(study.files.place(run), worker, status.epoch, now)
        if claim is not None:
            if leaving():  # `voxloss stop`, which has not seen this claim, takes the study for stopped
                claim.release()
                return True
            _execute(study.part(run.network), run, claim, leave, leaving)
            return True
    return False


def _execute(study: Study, run: Run, claim: Claim, leave: Callable[[], bool], leaving: Callable[[], bool]) -> None:
    """Execute a claimed run, and publish it if it ends."""
    attempt = study.files.attempt(run, claim.generation)

    def to_leave() -> bool:
        return leaving() or run.asked_by in study.files.read_retired()

    try:
        with Heart(claim, to_leave) as heart:
            if begin(study, run, claim) is not None:
                status = study.files.read_status(run, attempt)
                if has_died_too_often(claim, status):
                    reason = f"its process was killed {DEATHS} times, possibly out of memory"
                    record_failure(study, run, attempt)
                    study.write_status(run, attempt, state="failed", reason=reason)
                    publish(study, run, claim, attempt)
                elif execute_run(study, run, attempt, lambda: heart.stop() or leave()) in ENDED:
                    publish(study, run, claim, attempt)
    except LostClaimError:
        abandon(attempt)
        return
    except BaseException as error:
        if isinstance(error, Exception) and claim.is_lost():  # whoever took over may have removed what this one used
            abandon(attempt)
            return
        claim.release()
        raise
    claim.release()
    if run.trial is not None and study.status(run).state in FINISHED:
        remove_weights(study, run)


def _report(folder: Path, worker: Worker) -> None:
    """Write scores and report, unless another worker is at it. The report is above this package: it is a command."""
    if (claim := take(of_study(folder, END), worker)) is not None:
        with Heart(claim):
            subprocess.run([sys.executable, "-m", "voxloss", "report", str(folder)], check=False)
        claim.release()


def main(words: Collection[str]) -> int:
    """Work as the words ask, and return the exit status: 0, or 2 with a sentence on standard error."""
    folder, text = words
    request, stop = Request.parse(text), threading.Event()

    def stopped(_: int, __: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopped)
    if (parent := os.environ.pop(PARENT, None)) is not None:
        end_with(int(parent))
    if (here := str(Path.cwd())) not in sys.path:  # as in `voxloss`
        sys.path.append(here)
    if request.threads:
        import torch

        torch.set_num_threads(request.threads)
    try:
        work(Path(folder), request, stop.is_set)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
