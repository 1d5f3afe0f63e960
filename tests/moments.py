"""Moments: what another process does before the n-th operation on files of one, for every n."""

import builtins
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

LOOKS = [(os, "stat"), (os, "lstat")]
LISTS = [(os, "listdir"), (os, "scandir")]
OPENS = [(io, "open"), (builtins, "open"), (os, "open")]
CHANGES = [(os, name) for name in ("mkdir", "rmdir", "unlink", "rename", "replace", "link", "utime")]


class Moment:
    """Lets another process act before the n-th operation that this one begins on files of a folder.

    Args:
        folder: The folder.
        number: n.
        remembers: Whether the file system remembers for a while what this process has seen: that a file is there, until
            it is opened, and that it is missing, until its folder is listed. After a sleep it is forgotten.
    """

    def __init__(self, folder: Path, number: int, *, remembers: bool = False) -> None:
        self.folder, self.number, self.remembers = str(folder), number, remembers
        self.count, self.acted = 0, False
        self._act: Callable[[], object] = lambda: None
        self._waiting: Callable[[], object] = lambda: None
        self._busy, self._lock = False, threading.RLock()
        self._there: dict[str, os.stat_result] = {}
        self._missing: set[str] = set()

    @contextmanager
    def __call__(self, act: Callable[[], object], waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Within the block, the other process does `act` at the moment, and `waiting` whenever this one sleeps."""
        self._act, self._waiting = act, waiting
        with mock.patch.object(time, "sleep", self._sleep):
            patches = [
                mock.patch.object(*one, self._wrapped(getattr(*one))) for one in (*LOOKS, *LISTS, *OPENS, *CHANGES)
            ]
            for patch in patches:
                patch.start()
            try:
                yield
            finally:
                for patch in patches:
                    patch.stop()

    def _wrapped(self, original: Callable) -> Callable:
        name = original.__name__

        def operation(path: object, *arguments: object, **options: object) -> object:
            if self._busy or not isinstance(path, str | Path) or not str(path).startswith(self.folder):
                return original(path, *arguments, **options)
            self._begin()
            return self._answer(original, name, str(path), *arguments, **options)

        return operation

    def _begin(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self.number:
                self._others(self._act)
                self.acted = True

    def _others(self, act: Callable[[], object]) -> None:
        if self._busy:
            return
        self._busy = True
        if self.remembers and act is self._act:
            paths = [Path(self.folder), *Path(self.folder).rglob("*")] if Path(self.folder).exists() else []
            self._there = {str(path): path.lstat() for path in paths}
        try:
            act()
        finally:
            self._busy = False

    def _answer(self, original: Callable, name: str, path: str, *arguments: object, **options: object) -> object:
        reads = name in ("stat", "lstat") or (name == "open" and not _creates(*arguments, **options))
        if self.remembers and self.acted and reads and path in self._missing:
            raise FileNotFoundError(2, "No such file or directory", path)
        try:
            answer = original(path, *arguments, **options)
        except FileExistsError:
            self._missing.discard(path)
            raise
        except FileNotFoundError:
            if name in ("stat", "lstat") and self.acted and path in self._there:
                return self._there[path]
            if reads and not self.acted:
                self._missing.add(path)
            raise
        self._missing -= {path, *map(str, Path(path).parents)}
        if name in ("listdir", "scandir"):
            self._missing = {one for one in self._missing if str(Path(one).parent) != path}
        elif not reads:
            for changed in (path, *(str(one) for one in arguments if isinstance(one, str | Path))):
                self._missing.discard(changed)
                self._there = {one: found for one, found in self._there.items() if not one.startswith(changed)}
        return answer

    def _sleep(self, _: float) -> None:
        self._there.clear()
        self._missing.clear()
        with self._lock:
            self._others(self._waiting)


def _creates(mode: object = "r", *_: object, **options: object) -> bool:
    mode = options.get("mode", mode)
    return bool(mode & os.O_CREAT) if isinstance(mode, int) else any(letter in str(mode) for letter in "wxa+")


EVERY = int(os.environ.get("VOXLOSS_MOMENTS", "9"))  # of how many moments one is tried; `make test-faults` tries all


def moments(folder: Path, *, remembers: bool = False, every: int = 1) -> Iterator[Moment]:
    """Yield a moment for every n, until the other process did not get its turn: there were fewer operations.

    Args:
        folder: Of `Moment`.
        remembers: Likewise.
        every: Of how many moments one is tried, where each takes long.
    """
    number = 1 - every
    while True:
        number += every
        yield (moment := Moment(folder, number, remembers=remembers))
        if moment.count < number:
            return
