"""The preparation of a new study's cases, shared out over all processes that see its folder.

Cases are claimed like runs, so that each is prepared once. Whoever is about to create the study also *announces* the
preparation: workers that an executor has started on other machines then prepare cases until the study is there, and
leave if nobody is left who would create it.
"""

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from voxloss.config.files import config_from, to_plain
from voxloss.config.schema import ExecutionConfig, StudyConfig
from voxloss.config.settled import settled_preparation
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.prepare.case import PreparedCase
from voxloss.data.prepare.cases import prepare_cases
from voxloss.study.claims import CLAIMS, LOOK_SECONDS, Heart, Worker, hold, may_be_taken_over, newest, of_study, take
from voxloss.study.folder import StudyFolder
from voxloss.study.settle import preparation_of
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import available_memory

CASE, CREATOR = "case-", "creator-"  # begin the names of what is claimed
DONE = "done"  # beside the claims on a case: it is prepared, and need not be read to see that


def prepared_cases(
    files: StudyFolder,
    config: StudyConfig,
    dataset: Dataset,
    progress: Callable[[int, int, str], None],
    cases: Sequence[Case] | None = None,
) -> list[PreparedCase]:
    """Prepare cases of a study, all by default, except those that other processes do; wait for these, and open them.

    Raises:
        InputError: A case cannot be prepared.
    """
    return prepare_cases(
        dataset.cases if cases is None else cases,
        dataset,
        preparation_of(settled_preparation(config.preparation)),
        files.prepared,
        os.cpu_count() or 1,
        memory_limit(config.execution),
        progress,
        partial(_claimed_case, files.path, worker_of(config.execution, "command"), lambda: False),
    )


@contextmanager
def announced(files: StudyFolder, config: StudyConfig, dataset: Dataset) -> Iterator[Path]:
    """Tell workers what to prepare, as long as this process is about to create the study; yields its claim's place."""
    place = of_study(files.path, f"{CREATOR}{uuid.uuid4().hex}")
    try:
        with hold(place, worker_of(config.execution, "command")):
            files.write_preparation(to_plain(config), dataset)
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def forget_claims(files: StudyFolder) -> None:
    """Remove what was written to share out the preparation, once the study is created."""
    for place in (files.path / CLAIMS).glob(f"{CASE}*"):  # whoever is still at it opens prepared cases
        shutil.rmtree(place, ignore_errors=True)
    files.preparation_file.unlink(missing_ok=True)


def help_prepare(folder: Path, worker: str, threads: int, leaving: Callable[[], bool]) -> bool:
    """Prepare cases of a study that is being created, and wait until it is; return whether there is a study.

    A case that cannot be prepared is left to the process that creates the study, which says why: once, and not once per
    worker.

    Args:
        folder: The study's folder.
        worker: The executor that started this process.
        threads: Most cases at the same time.
        leaving: Asked before each case and while waiting; when it says yes, the answer is no.
    """
    files, helped, pause = StudyFolder(folder), False, 0.05

    def too_late() -> bool:  # once the study is there, claims on its cases would stay for good
        return leaving() or files.is_study()

    while not files.is_study():
        if leaving() or not _is_created_by_anyone(folder):
            return files.is_study()
        plan = None if helped else files.read_preparation()
        if plan is not None:
            helped = True
            config, dataset = config_from(plan[0]), plan[1]
            try:
                prepare_cases(
                    dataset.cases,
                    dataset,
                    preparation_of(settled_preparation(config.preparation)),
                    files.prepared,
                    threads,
                    memory_limit(config.execution),
                    claimed=partial(_claimed_case, folder, worker_of(config.execution, worker), too_late),
                    wait=False,
                )
            except (InputError, OSError) as error:
                print(f"left to the process that creates the study: {error}", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(1.2 * pause, LOOK_SECONDS)
    return True


def execution_of(folder: Path) -> ExecutionConfig:
    """Return the section `execution` of a study, or of one that is being prepared.

    Raises:
        InputError: The folder is neither.
    """
    files = StudyFolder(folder)
    if not files.is_study() and (plan := files.read_preparation()) is not None:
        return config_from(plan[0]).execution
    return config_from(files.read_description().config).execution


def worker_of(settings: ExecutionConfig, executor: str) -> Worker:
    """Return this process as one that claims by the heartbeats of a study."""
    return Worker(executor, settings.heartbeat_s, settings.stale_after_s)


def memory_limit(settings: ExecutionConfig) -> int | None:
    """Return the bytes that cases which are prepared at the same time may take; None: no limit is known."""
    if settings.memory_gb is not None:
        return round(settings.memory_gb * 1e9)
    available = available_memory()
    return None if available is None else available * 3 // 4


def _is_created_by_anyone(folder: Path) -> bool:
    for place in (folder / CLAIMS).glob(f"{CREATOR}*"):
        with suppress(FileNotFoundError):  # the study is created at this moment
            looked = time.monotonic()
            standing = newest(place)
            if standing is not None and standing.record.state == "held" and not may_be_taken_over(standing, looked):
                return True
    return False


@contextmanager
def _claimed_case(
    folder: Path, worker: Worker, leaving: Callable[[], bool], case_id: str, wait: bool
) -> Iterator[bool]:
    """Claim the preparation of a case; yields False if another process has it, which with `wait` is waited for."""
    place = of_study(folder, f"{CASE}{case_id}")
    if wait:
        with hold(place, worker):
            yield True
    elif leaving() or (place / DONE).is_file() or (claim := take(place, worker)) is None:
        yield False
    else:
        try:
            with Heart(claim):
                if (place / DONE).is_file():  # meanwhile
                    yield False
                else:
                    yield True
                    with suppress(FileNotFoundError):  # others have created the study
                        (place / DONE).touch()
        finally:
            claim.release()
