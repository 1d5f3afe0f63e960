"""The locks of a study's folder: one for its runs, and one for the files that reports share with them.

The system releases a lock when its process ends, however it ends.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from voxloss.utilities.errors import InputError

ATTEMPTS = 10  # `is_locked` of another process holds the lock for a moment too
PAUSE = 0.05


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process.

    Raises:
        InputError: Another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        for attempt in range(ATTEMPTS):
            if _lock(file):
                break
            if attempt == ATTEMPTS - 1:
                raise InputError(f"Another process is working on {folder}; wait for it or stop it.")
            time.sleep(PAUSE)
        yield


def is_locked(folder: Path) -> bool:
    """Whether some process holds the folder; False where this process may not read the lock. Writes nothing."""
    try:
        with (folder / ".lock").open() as file:
            return not _lock(file, shared=True)
    except OSError:  # no process ever held it, or it is not readable
        return False


@contextmanager
def report_lock(folder: Path) -> Iterator[None]:
    """Hold what a report writes (report/ and scores.csv); wait while another process holds it.

    It is a lock of its own, since a report may be asked for while the study is running.
    """
    with (folder / ".report.lock").open("a") as file:
        while not _lock(file):
            time.sleep(PAUSE)
        yield


@contextmanager
def if_no_report(folder: Path) -> Iterator[bool]:
    """Hold what a report writes if no process is writing one; yields whether this process holds it."""
    path = folder / ".report.lock"
    with ExitStack() as held:
        yield not path.exists() or _lock(held.enter_context(path.open("a")))


def _lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, without waiting; returns False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return _lock_windows(file)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_windows(file: IO[Any]) -> bool:
    """The same by the first byte of the file; without locks of either kind (WebAssembly) there is but one process."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
    return True
