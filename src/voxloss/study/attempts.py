"""Attempts: the folders in which the owners of claims work on a run, and how one of them becomes its result.

The result appears by a single rename of a finished attempt to a name that does not exist yet; no folder can be renamed
onto one that holds files. So at most one result of a run is ever published, whoever believes to own it.
"""

import errno
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from voxloss.study.claims import PARTIAL, Claim, LostClaimError, read_claim
from voxloss.study.folder import ENDED, Run, RunFolder, RunStatus
from voxloss.study.study import Study
from voxloss.utilities.files import sync_folder

DEATHS = 3  # of processes in the same epoch of a run, after which it has failed


def begin(study: Study, run: Run, claim: Claim) -> RunFolder | None:
    """Make the folder of the owner of a claim, from what the latest attempt has reached, and return it.

    None if the run has ended meanwhile. The folder appears whole.
    """
    published, attempt = study.files.published(run), study.files.attempt(run, claim.generation)
    status = study.status(run)
    if status.state in ENDED:
        return None
    if _moved(published, attempt, claim):  # its result is damaged or has failed, or an earlier version began it
        if study.files.read_status(run, attempt).state in ENDED:
            # This process was halted before the line above, and another one has published the run meanwhile.
            _rename_new(attempt.path, published.path)
            raise LostClaimError(str(attempt.path))
    else:
        earlier = [one for one in study.files.attempts(run) if one.path.name < attempt.path.name]
        partial = RunFolder(claim.place / f"{PARTIAL}{uuid.uuid4().hex}")
        partial.path.mkdir()
        if earlier:
            _copy(earlier[-1], partial)
        study.files.write_status(status, partial)
        claim.check()
        _rename_new(partial.path, attempt.path)  # others may have removed the first: they presumed this process dead
    takeovers = status.takeovers + (claim.record.why == "takeover")
    study.files.write_status(replace(status, state="pending", takeovers=takeovers), attempt)
    return attempt


def _moved(published: RunFolder, attempt: RunFolder, claim: Claim) -> bool:
    """Move a result into an attempt; False where there is none, also where a file system remembers one."""
    if not published.path.is_dir():
        return False
    claim.check()
    try:
        published.path.rename(attempt.path)
    except FileNotFoundError:
        return False
    return True


def _copy(earlier: RunFolder, new: RunFolder) -> None:
    """Copy what a run goes on from. Its owner may still be writing, and replaces files as a whole."""
    for source in (earlier.checkpoint_file, earlier.best_file):  # in this order: best.pt is written first
        target = new.path / source.name
        with suppress(FileNotFoundError):
            try:
                os.link(source, target)
            except OSError:  # the file system has no hard links
                if source.is_file():
                    shutil.copyfile(source, target)


def has_died_too_often(claim: Claim, status: RunStatus) -> bool:
    """Whether the last owners of a run have all died before it had finished one more epoch."""
    before = [read_claim(claim.place, claim.generation - number) for number in range(1, DEATHS + 1)]
    return all(one is not None and one.record.state == "held" and one.record.epoch == status.epoch for one in before)


def publish(study: Study, run: Run, claim: Claim, attempt: RunFolder) -> None:
    """Make a finished attempt the run's result.

    Raises:
        LostClaimError: Another process owns the run, or has published it.
    """
    claim.check()
    _rename_new(attempt.path, study.files.published(run).path)
    for other in study.files.attempts(run):
        shutil.rmtree(other.path, ignore_errors=True)


def _rename_new(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise LostClaimError(str(folder)) from error
    except OSError as error:
        if error.errno == errno.ENOTEMPTY or target.is_dir():
            raise LostClaimError(str(folder)) from error
        raise
    sync_folder(target.parent)


def abandon(attempt: RunFolder) -> None:
    """Remove the attempt of an owner that has lost its claim."""
    shutil.rmtree(attempt.path, ignore_errors=True)
