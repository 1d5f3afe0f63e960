"""Write files that appear whole or not at all: written aside, flushed to disk, then renamed. Read such files."""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

Content = TypeVar("Content")
Made = TypeVar("Made")

REMEMBERED_SECONDS = 30.0  # for which a file system may show what it knew of a file; sshfs by default 20
TRIES = 5  # to make a folder that others remove


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    if os.name == "nt":  # Windows opens no folder, and writes names without being asked
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing; others may make or remove them in this moment."""
    for left in reversed(range(TRIES)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise


def _is_of_a_full_disk(error: BaseException) -> bool:
    """Return whether a disk is full, also from the errors of NumPy and torch, which have no error number."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT) or " requested and " in str(error)
    return isinstance(error, RuntimeError) and "PytorchStreamWriter failed writing" in str(error)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make an error name the requested path instead of the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _aside(path: Path, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Make a file or folder beside a path, and folders above it where they are missing, and return its path.

    The temporary name keeps the path's suffixes, because some writers (nibabel) choose the format by them.
    """
    partial = path.with_name(f".partial-{secrets.token_hex(6)}-{path.name}")
    with _named(path):
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                return partial, make(partial)
            make_folder(path.parent)
        return partial, make(partial)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is flushed to disk and renamed to `path`, on error removed.

    Every operation counts on a file server, of which thousands of runs ask.
    """
    path = Path(path)
    partial, descriptor = _aside(path, _new_file)
    try:
        try:
            yield partial
            os.fsync(descriptor)  # of the file, whoever wrote it
        finally:
            os.close(descriptor)
        partial.replace(path)
        with suppress(FileNotFoundError):  # whoever has seen the file may have moved its folder
            sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if _is_of_a_full_disk(error):
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from error
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it is renamed to `path` (replacing it), on error removed.

    The old folder is moved away before it is removed: a reader finds one of the two, but for a moment.
    """
    path = Path(path)
    partial, _ = _aside(path, Path.mkdir)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:  # Windows flushes only what may be written
                    os.fsync(handle.fileno())
        _replace_folder(path, partial)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _is_of_a_full_disk(error):
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from error
        raise


def _replace_folder(path: Path, new: Path) -> None:
    old = new.with_name(f"{new.name}-old")
    if not path.is_file():  # which is no folder to be replaced
        with suppress(FileNotFoundError):
            path.replace(old)
    try:
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            old.replace(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all; NaN, which JSON does not have, is refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_whole(path: Path, parse: Callable[[str], Content]) -> Content:
    """Return what `parse` makes of the text of a file that another machine may replace in this moment.

    A network file system may then answer that the file is not there any more (ESTALE). Those of FUSE may give the new
    file cut off at the length of the old one, which they remember for some seconds. Such a file is read again.

    Raises:
        ValueError: `parse` raised it, and the file stays as it is.
        OSError: The file cannot be read.
    """
    limit: float | None = None
    while True:
        try:
            return parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            replaced = isinstance(error, OSError) and error.errno == errno.ESTALE
            if isinstance(error, OSError) and not replaced:
                raise
            if limit is None:
                remembers = replaced or file_system(path).startswith("fuse")
                limit = time.monotonic() + (REMEMBERED_SECONDS if remembers else 0.0)
            if time.monotonic() >= limit:
                raise
        time.sleep(0.5)


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, such as ext4, nfs4 or fuse.sshfs; "" where unknown."""
    try:
        device = path.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    # A line is "ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG ...] - TYPE SOURCE OPTIONS".
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number), "")
