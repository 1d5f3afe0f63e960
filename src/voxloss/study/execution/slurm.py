"""Workers as jobs of Slurm, submitted by submitit as one job array.

A job keeps a worker alive, or one for each of its GPUs. When Slurm says that the job's time is nearly over, or that
another job needs the node, workers save their runs and leave, and the job is queued again. The numbers of the jobs are
in STUDY/.execution/slurm-*.json, scripts and logs in STUDY/.execution/slurm/. No accounting (sacct) is needed.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.local import LocalExecutor
from voxloss.study.execution.queue import Queue
from voxloss.study.execution.request import Request
from voxloss.study.folder import StudyFolder
from voxloss.study.preparation import execution_of
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_text
from voxloss.utilities.install import install_command
from voxloss.utilities.text import count_of

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

NOTICE_SECONDS = 120  # before the time limit, for one training step and the checkpoint
LARGEST_ARRAY = 1000  # Slurm's own default is MaxArraySize=1001
ANY_NUMBER = 1_000_000  # of time limits that a job may reach
LOOK_SECONDS = (2.0, 30.0)  # between two calls of squeue: at first, and at most
WAIT_SECONDS = 120.0  # for jobs that were told to leave


class SlurmExecutor:
    """Submits workers to Slurm. Raises InputError where its commands or submitit are missing."""

    elsewhere = True

    def __init__(self) -> None:
        self._next, self._pause, self._alive = 0.0, LOOK_SECONDS[0], 0

    def check(self, settings: ExecutionConfig, *, detached: bool) -> None:
        """Raise InputError if jobs cannot be submitted from here."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"execution.executor slurm needs submitit, which is not installed: {install_command('slurm')}."
            ) from error
        missing = [program for program in ("sbatch", "srun", "squeue", "scancel") if shutil.which(program) is None]
        if missing:
            raise InputError(
                f"execution.executor slurm: {', '.join(missing)} is not on the PATH of {platform.node()}; run voxloss "
                "on a login node of the cluster, or leave Slurm out with --execution.executor local."
            )

    def start(self, study: Path, settings: ExecutionConfig, workers: int, request: Request) -> str:
        """Submit an array of jobs (`Executor.start`), which outlives this process."""
        import submitit

        self.check(settings, detached=request.detached)
        study = study.resolve()
        count = min(workers, settings.jobs or workers, LARGEST_ARRAY)
        request = replace(request, executor="slurm", detached=False, wait=False)
        folder = _folder(study)
        folder.mkdir(parents=True, exist_ok=True)
        _forget_ended(study)
        submitter = submitit.SlurmExecutor(folder=folder, max_num_timeout=ANY_NUMBER, python=settings.python)
        submitter.update_parameters(**parameters_of(study.name, settings, count))
        job = WorkerJob(str(study), request.text())
        with _as_outside_of_jobs(), redirect_stderr(StringIO()):  # submitit prints what it raises as well
            try:
                submitted = submitter.submit_array([job] * count) if count > 1 else [submitter.submit(job)]
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                raise InputError(f"Slurm refuses the jobs: {_refusal(str(error))}") from error
        number = submitted[0].job_id.split("_")[0]
        write_text(_note(study, number), json.dumps({"jobs": count, "request": request.text()}) + "\n")
        self._next, self._pause, self._alive = 0.0, LOOK_SECONDS[0], count
        return f"{count_of(count, 'job')} submitted to Slurm"

    def alive(self, study: Path) -> int:
        """Return how many jobs wait or work (`Executor.alive`); Slurm starts those again whose node has died."""
        if time.monotonic() < self._next:
            return self._alive
        self._next = time.monotonic() + self._pause
        self._pause = min(1.5 * self._pause, LOOK_SECONDS[1])
        states = _states(list(_notes(study)))
        if states is None:  # Slurm's controller does not answer now
            return self._alive
        self._alive = len(states)
        return self._alive

    def why_left(self, study: Path) -> str:
        """Return what the last log says (`Executor.why_left`)."""
        return _without_jobs(study)

    def queue(self, study: Path) -> Queue | None:
        """Return how many jobs were submitted, and how many are pending (`Executor.queue`)."""
        notes = _notes(study)
        states = _states(list(notes))
        waiting = None if states is None else states.count("PENDING")
        return Queue("Slurm", sum(note["jobs"] for note in notes.values()), waiting) if notes else None

    def stop(self, study: Path) -> None:
        """Cancel jobs that wait, and tell those at work to leave (`Executor.stop`)."""
        numbers = list(_notes(study))
        for number in numbers:  # first, as a job that is not noted any more is not queued again
            _note(study, number).unlink(missing_ok=True)
        if not numbers or shutil.which("scancel") is None:
            return  # the jobs see that the study is stopped
        _call("scancel", "--state=PENDING", *numbers)
        _call("scancel", "--signal=TERM", *numbers)
        limit = time.monotonic() + WAIT_SECONDS
        while (states := _states(numbers)) and time.monotonic() < limit:
            if any(state == "PENDING" for state in states):  # queued again in this moment
                _call("scancel", "--state=PENDING", *numbers)
            time.sleep(1)


class WorkerJob:
    """What a job executes: it keeps its workers alive until nothing is left for them.

    Slurm sends signals to all processes of a job, and submitit answers them by calling `checkpoint` from the signal's
    handler, in whatever line this process is. So handlers only take note here, and `__call__` does the rest.
    """

    def __init__(self, study: str, request: str) -> None:
        self.study, self.request = study, request

    def __call__(self) -> None:
        """Keep the workers alive. Raises InputError if they cannot work."""
        import submitit

        warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        requeue = signal.getsignal(warning)
        told: list[int] = []

        def note(number: int, _: FrameType | None) -> None:
            told.append(number)

        study, request = Path(self.study), Request.parse(self.request)
        settings = execution_of(study)
        threads = settings.threads or int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        executor = LocalExecutor()
        signal.signal(warning, signal.SIG_IGN)  # which the worker inherits: else the signal would kill it
        executor.start(study, replace(settings, parallel=1, threads=threads), sys.maxsize, request)  # one for each GPU
        signal.signal(warning, note)
        signal.signal(signal.SIGTERM, note)
        try:
            while executor.alive(study) and not told:
                time.sleep(0.5)
        finally:
            executor.stop(study)
        if told and self._goes_on(study, request, warning in told) and callable(requeue):
            requeue(warning, None)  # submitit's: calls `checkpoint`, queues the job again and ends this process

    def checkpoint(self) -> "DelayedSubmission":
        """Return what the job does when it is started again: the same, from the checkpoints of the runs."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(WorkerJob(self.study, self.request))

    def _goes_on(self, study: Path, request: Request, near_limit: bool) -> bool:
        """Whether the job is to be queued again: nobody has stopped it, and Slurm does not queue it by itself.

        While a preempted job may still use its grace time, and when its time is nearly over, it counts as running.
        """
        array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = os.environ["SLURM_JOB_ID"]
        if not _note(study, array or job).is_file() or StudyFolder(study).stop_token() != request.stop_token:
            return False
        states = _states([f"{array}_{index}" if array else job])
        return near_limit if states is None else states == ["RUNNING"]


def parameters_of(name: str, settings: ExecutionConfig, count: int) -> dict[str, Any]:
    """Return submitit's parameters of the jobs."""
    options: dict[str, Any] = {"requeue": True, "time": str(settings.time), **sbatch_options(settings.sbatch)}
    seconds = 60 * minutes_of(str(settings.time))
    cores = int(options.get("cpus-per-task", settings.threads or 1))
    return {
        "job_name": f"voxloss-{name}",
        "partition": settings.partition,
        "account": settings.account,
        "gres": settings.gres,
        "constraint": settings.constraint,
        "time": seconds // 60,  # what submitit reckons with; Slurm reads the option
        "cpus_per_task": cores,
        # Said to srun too: since Slurm 22.05 it does not take the cores from sbatch, and on a node that a job has for
        # itself it would start as many tasks as fit.
        "ntasks_per_node": 1,
        "srun_args": ["--ntasks=1", f"--cpus-per-task={cores}"],
        "signal_delay_s": min(NOTICE_SECONDS, seconds // 3),
        "array_parallelism": count,
        "setup": list(settings.setup) or None,
        "wckey": None,  # submitit's own, which some clusters refuse
        "additional_parameters": options,
    }


def sbatch_options(lines: Sequence[str]) -> dict[str, str | bool]:
    """Return options of sbatch as people write them: "#SBATCH --mem=16G", "--mem=16G", "--mem 16G" or "--exclusive"."""
    options: dict[str, str | bool] = {}
    for line in lines:
        name, _, value = line.removeprefix("#SBATCH").strip().removeprefix("--").replace(" ", "=", 1).partition("=")
        options[name] = value.strip() or True
    return options


def minutes_of(time_limit: str) -> int:
    """Return a time limit in one of Slurm's forms, such as 90, 4:00:00 or 2-12, in minutes."""
    days, _, rest = time_limit.rpartition("-")
    numbers = [int(part) for part in rest.split(":")]
    if days:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        hours += 24 * int(days)
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:  # minutes[:seconds]
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return max(1, 60 * hours + minutes + (seconds > 0))


@contextmanager
def _as_outside_of_jobs() -> Iterator[None]:
    """Hide that this process itself is in a job, such as an interactive one: sbatch would take over its settings."""
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        names = [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _refusal(said: str) -> str:
    """Return what sbatch said, and which key to look at."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in said.splitlines()]
    reason = next((line for line in lines if "submission failed" in line), " ".join(lines)).rstrip(".")
    reason = reason.removeprefix("Batch job submission failed: ")
    hints = {
        "partition": "execution.partition (sinfo lists the partitions)",
        "account": "execution.account",
        "feature": "execution.constraint",
        "gres": "execution.gres",
        "node configuration": "execution.gres, execution.constraint and execution.threads",
        "time limit": "execution.time",
    }
    keys = next((hint for word, hint in hints.items() if word in reason.lower()), "the keys of Slurm in execution")
    return f"{reason}; look at {keys}."


def _without_jobs(study: Path) -> str:
    """Say why no job is left although there are runs to do."""
    logs = sorted(_folder(study).glob("*_log.err"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return f"All jobs have left Slurm and wrote no log: is {study} on a file system that the cluster's nodes share?"
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reasons = [line for line in lines if not line.startswith("srun: ")]  # which only says that the job has failed
    said = f": {reasons[-1]}" if reasons else ""
    return f"All jobs have left Slurm with runs to do; the last log is {logs[-1]}{said}"


def _folder(study: Path) -> Path:
    return StudyFolder(study).execution / "slurm"


def _note(study: Path, number: str) -> Path:
    return StudyFolder(study).execution / f"slurm-{number}.json"


def _notes(study: Path) -> dict[str, dict[str, Any]]:
    """The submissions that are not stopped, by the numbers of their arrays."""
    notes = {}
    for path in sorted(StudyFolder(study).execution.glob("slurm-*.json")):
        with suppress(FileNotFoundError):
            notes[path.stem.removeprefix("slurm-")] = json.loads(path.read_text(encoding="utf-8"))
    return notes


def _forget_ended(study: Path) -> None:
    for number in _notes(study):
        if _states([number]) == []:
            _note(study, number).unlink(missing_ok=True)


def _states(jobs: Sequence[str]) -> list[str] | None:
    """Return the state of every job that waits or works; None where Slurm gives no answer."""
    if not jobs:
        return []
    done = _call("squeue", "--noheader", "--array", f"--jobs={','.join(jobs)}", "--format=%T")
    if done is None or done.returncode != 0:
        # Slurm forgets a job some minutes after its end.
        return [] if done is not None and "Invalid job id" in done.stderr else None
    return done.stdout.split()


def _call(*words: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
