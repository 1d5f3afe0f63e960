"""The lock that keeps a study's folder for one process."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxloss.utilities.errors import InputError

LOCK_ATTEMPTS = 10  # `is_locked` of another process holds the lock for a moment too


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process.

    Raises:
        InputError: another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == LOCK_ATTEMPTS - 1:
                    raise InputError(f"Another process is at work on {folder}; wait for it or stop it.") from error
                time.sleep(0.05)
        yield
