"""The lock that gives a study's folder to one process."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxloss.utilities.errors import InputError

ATTEMPTS = 10  # `is_locked` of another process holds the lock for a moment too


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process.

    Raises:
        InputError: Another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        for attempt in range(ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == ATTEMPTS - 1:
                    raise InputError(f"Another process is working on {folder}; wait for it or stop it.") from error
                time.sleep(0.05)
        yield


def is_locked(folder: Path) -> bool:
    """Whether some process holds the folder."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
