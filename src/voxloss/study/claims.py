"""Claims: which process works on what, by files alone, so that they hold wherever a study's folder is shared.

Locks of the system (`flock`) do not reach other machines on many network file systems; exclusive creation of a file and
renaming do. A *place* is a folder with the claims on one thing: claim-0001.json, claim-0002.json, … The newest one
counts. Who wants the thing creates the next number, exclusively, and may do so only when the newest claim is released,
or its owner is dead. Nothing of another owner is changed for that.

A claim's modification time is its owner's heartbeat. It is compared with the time that the file system gives a file
now. On NFS the server sets both; Lustre and sshfs set them by the clock of the machine that writes, and clocks may
differ. So who takes a thing over has also watched the claim for a while in which no heartbeat came. Processes of this
machine are seen to be dead at once.
"""

import errno
import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from voxloss.utilities.machine import is_gone, process_identity

CLAIMS = ".claims"  # in a study's folder: the places of what is no run
STUDY = "study"  # creating and changing the study
REPORT = "report"  # writing the report, and the table of scores
RACE = "race"  # deciding which losses leave
END = "end"  # writing the report after the last run
PARTIAL = ".partial-"  # begins the names of files that are being written
LOOK_SECONDS = 5.0  # between two looks at what others wrote, at most
MOST_PAUSE = 10.0  # seconds, of a claim whose place goes again and again; the pauses before it add up to twice as much
WATCHED = 1 / 3  # of `stale_after_s`, for which an old claim is watched before it is taken over: some heartbeats

Why = Literal["first", "resumed", "takeover"]

_watched: dict[tuple[Path, int], tuple[float, float]] = {}  # by place and generation: heartbeat, first seen when

_NAME = re.compile(r"claim-(\d{4,})\.json")
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL, errno.EXDEV}


class LostClaimError(Exception):
    """Another process has taken over what this one claimed; this one must not write any more."""


@dataclass(frozen=True)
class Worker:
    """A process that claims.

    Args:
        executor: What started it.
        heartbeat_s: Seconds between two heartbeats.
        stale_after_s: Seconds without a heartbeat after which others presume it dead. Many network file systems show
            times that are up to a minute old.
        host: The machine's name. The environment variable VOXLOSS_HOST gives another one; then this process counts as
            one of another machine, of which only heartbeats tell whether it is alive.
        process: What identifies the process among those of this machine; None where the system does not tell.
    """

    executor: str = "command"
    heartbeat_s: float = 30.0
    stale_after_s: float = 300.0
    host: str = field(default_factory=lambda: os.environ.get("VOXLOSS_HOST") or platform.node())
    process: str | None = field(default_factory=lambda: None if "VOXLOSS_HOST" in os.environ else process_identity())


@dataclass(frozen=True)
class Record:
    """The content of a claim's file.

    Args:
        state: "free" once the owner has released it.
        why: "first", "resumed" after a release, or "takeover" from an owner that is dead or silent.
        owner: A random name.
        host: The owner's machine.
        pid: Its process there.
        process: What identifies it among the processes of the machine.
        executor: What started it.
        stale_after_s: Seconds without a heartbeat after which it counts as dead.
        epoch: Of a run: the epochs that were finished when it was claimed.
    """

    state: Literal["held", "free"] = "held"  # of equal length: see `Claim.release`
    why: Why = "first"
    owner: str = ""
    host: str = ""
    pid: int = 0
    process: str | None = None
    executor: str = ""
    stale_after_s: float = Worker.stale_after_s
    epoch: int = 0


@dataclass(frozen=True)
class Standing:
    """A claim as its file says.

    Args:
        place: Where it is.
        generation: Its number.
        record: Its content.
        beat: Time of the last heartbeat, by the file server's clock.
    """

    place: Path
    generation: int
    record: Record
    beat: float

    def is_dead(self, now: Callable[[Path], float] | None = None) -> bool:
        """Whether the owner is dead, or so long silent that it is presumed dead.

        Args:
            now: Gives the file server's time in a folder; None: `server_time`, for which a file is written.
        """
        if is_gone(self.record.pid, self.record.process):
            return True
        return (now or server_time)(self.place) - self.beat > self.record.stale_after_s

    def is_live(self, now: Callable[[Path], float] | None = None) -> bool:
        """Whether it is held by an owner that is not presumed dead."""
        return self.record.state == "held" and not self.is_dead(now)


def server_time(folder: Path) -> float:
    """Return the time of the file server of a folder: that of a file written just now."""
    probe = folder / f"{PARTIAL}{uuid.uuid4().hex}-clock"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        os.utime(probe)  # NFS may keep other things in the times of a file that was created exclusively
        return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink()


def time_of_scan(study: Path | None = None) -> Callable[[Path], float]:
    """Return `server_time` that asks the server once, for looking at many claims of one study.

    Args:
        study: The study's folder, in which the server is asked; None: in the place of the first claim, which the one
            who asks will write to if it is free.
    """
    known: list[float] = []

    def now(place: Path) -> float:
        if not known:
            known.append(server_time(study or place))
        return known[0]

    return now


def own_time(_: Path) -> float:
    """Return this machine's time: for readers that write nothing, and decide nothing."""
    return time.time()


def generations(place: Path) -> list[int]:
    """Return the numbers of all claims in a place, in order."""
    try:
        names = [
            path.name for path in place.iterdir()
        ]  # opens the folder, so that a network file system looks at the server
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: the folder was removed between opening and reading
            return []
        raise
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def newest(place: Path) -> Standing | None:
    """Return the newest claim in a place; None where there was none."""
    while numbers := generations(place):
        # A network file system's list may be some seconds old: with a claim that is removed, and without later ones.
        for generation in range(numbers[-1], numbers[-1] + 10):
            if (standing := read_claim(place, generation)) is not None:
                return standing
        time.sleep(0.1)
    return None


def read_claim(place: Path, generation: int) -> Standing | None:
    """Return a claim; None if it is no longer there. One that cannot be read counts as held by an unknown owner."""
    try:
        with _file(place, generation).open(encoding="utf-8") as file:
            text, beat = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: it was removed between opening and reading
            return None
        raise
    try:
        content = json.loads(text)
        record = Record(**{item.name: content[item.name] for item in fields(Record) if item.name in content})
    except (ValueError, TypeError):
        record = Record()  # it is just being created, where the file system has no hard links
    return Standing(place, generation, record, beat)


def _file(place: Path, generation: int) -> Path:
    return place / f"claim-{generation:04}.json"


class Claim:
    """A claim that this process holds."""

    def __init__(self, place: Path, generation: int, record: Record, worker: Worker) -> None:
        self.place, self.generation, self.record, self.worker = place, generation, record, worker
        self.file = _file(place, generation)

    def beat(self) -> None:
        """Tell others that this process is alive. Raises LostClaimError if the claim is no longer its own."""
        self.check()
        try:
            os.utime(self.file)  # without times: the file server sets its own
        except FileNotFoundError:
            raise LostClaimError(str(self.file)) from None

    def check(self) -> None:
        """Raise LostClaimError if the claim is no longer the newest one.

        It asks for the next one by its name, as a network file system's list of the place may be some seconds old, and
        lists the place, as the name may be remembered as missing. A claim is removed only when there is a later one.
        """
        if self.is_lost():
            raise LostClaimError(str(self.file))

    def is_lost(self) -> bool:
        """Whether the claim is no longer the newest one; see `check`."""
        later = _file(self.place, self.generation + 1).exists() or generations(self.place)[-1:] > [self.generation]
        return later or not self.file.exists()

    def release(self) -> None:
        """Let others claim the thing at once.

        The file is changed in place, to the same length, which a full disk does not prevent.
        """
        with suppress(FileNotFoundError), self.file.open("r+", encoding="utf-8") as file:
            file.write(_text(replace(self.record, state="free")))


def take(place: Path, worker: Worker, epoch: int = 0, now: Callable[[Path], float] | None = None) -> Claim | None:
    """Claim a thing without waiting; None if another owner has it, or is just taking it.

    Args:
        place: Its place; made if it does not exist.
        worker: Who claims.
        epoch: Of a run: the epochs that are finished.
        now: As of `Standing.is_dead`.

    Raises:
        OSError: The place cannot be written.
    """
    looked = time.monotonic()  # before the claim is read, as this process may be halted after that
    last = newest(place)
    why: Why = "first"
    if last is not None:
        try:
            if last.record.state == "held" and not may_be_taken_over(last, looked, now):
                return None
        except FileNotFoundError:  # the place is gone, and with it the claim
            return None
        why = "resumed" if last.record.state == "free" else "takeover"
    record = Record(
        why=why,
        owner=uuid.uuid4().hex,
        host=worker.host,
        pid=os.getpid(),
        process=worker.process,
        executor=worker.executor,
        stale_after_s=worker.stale_after_s,
        epoch=epoch,
    )
    claim = Claim(place, 1 if last is None else last.generation + 1, record, worker)
    return claim if _create(claim) else None


def may_be_taken_over(claim: Standing, looked: float, now: Callable[[Path], float] | None = None) -> bool:
    """Whether the owner of a claim is dead, or presumed dead by its time and by what this process has watched.

    Args:
        claim: A claim that is held.
        looked: This process's `time.monotonic()` before it read the claim.
        now: As of `Standing.is_dead`.
    """
    if is_gone(claim.record.pid, claim.record.process):
        return True
    key = claim.place, claim.generation
    if (seen := _watched.get(key)) is None or seen[0] != claim.beat:
        seen = _watched[key] = claim.beat, looked
    watched, limit = looked - seen[1], claim.record.stale_after_s
    return watched > limit or (watched >= WATCHED * limit and claim.is_dead(now))


def _create(claim: Claim) -> bool:
    """Create the file of a claim, whole and only if it does not exist yet.

    A place goes when others have created the study whose cases it is about, and a file that is being written when they
    take it for one that was left behind. Then it begins again, for a while: names on a network file system may be old.
    """
    pause = 0.05
    while True:
        try:
            return _create_at_once(claim)
        except (FileNotFoundError, FileExistsError):  # the latter of a place that was made and went again
            if pause > MOST_PAUSE:
                raise
        time.sleep(pause)
        pause *= 2


def _create_at_once(claim: Claim) -> bool:
    content = _text(claim.record).encode()
    aside = claim.place / f"{PARTIAL}{claim.record.owner}"
    try:
        _write_new(aside, content)
    except FileNotFoundError:
        claim.place.mkdir(parents=True, exist_ok=True)
        _write_new(aside, content)
    try:
        os.link(aside, claim.file)  # exclusive on NFS of every version
    except FileExistsError:
        return _is_own(claim)  # the server's answer to a link that it made may have been lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            _write_new(claim.file, content)
        except FileExistsError:
            return False
        except PermissionError:  # sshfs gives one error for all reasons: is it that another process was faster?
            if claim.file.exists():
                return False
            raise
    finally:
        with suppress(OSError):
            aside.unlink()
    return True


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise OSError(error.errno, error.strerror, str(path.parent)) from None


def _is_own(claim: Claim) -> bool:
    standing = read_claim(claim.place, claim.generation)
    return standing is not None and standing.record.owner == claim.record.owner


def _text(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=True) + "\n"


class Heart:
    """Keeps a claim alive by a thread, and tells whether its owner must stop.

    Args:
        claim: The claim.
        leave: Asked by the thread every few seconds; once it says yes, `stop` does.
    """

    def __init__(self, claim: Claim, leave: Callable[[], bool] = lambda: False) -> None:
        self.claim, self._leave = claim, leave
        self._heard = time.monotonic()  # when the claim was last known to be this process's
        self._leaving, self._lost = False, False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        heartbeat = self.claim.worker.heartbeat_s
        due = time.monotonic() + heartbeat
        while not self._end.wait(min(LOOK_SECONDS, heartbeat)):
            with suppress(OSError):  # a file server may be away for a while; `stop` notices a long while
                self._leaving = self._leaving or self._leave()
                if time.monotonic() >= due:
                    due = time.monotonic() + heartbeat
                    try:
                        self.claim.beat()
                    except LostClaimError:
                        self._lost = True
                        return
                    self._heard = time.monotonic()

    def stop(self) -> bool:
        """Whether the owner is to stop; it may go on later.

        Raises:
            LostClaimError: Others have presumed this process dead, as when it was halted for a while.
        """
        if self._lost:
            raise LostClaimError(str(self.claim.file))
        if time.monotonic() - self._heard > self.claim.worker.stale_after_s / 2:
            self.claim.beat()
            self._heard = time.monotonic()
        return self._leaving


@contextmanager
def hold(
    place: Path, worker: Worker | None = None, waiting: Callable[[Standing], None] = lambda _: None
) -> Iterator[Claim]:
    """Claim a thing for a short while, and wait while another process has it.

    Args:
        place: Its place.
        worker: Who claims; None: this process.
        waiting: Called once with the claim that is waited for.
    """
    me, pause = worker or Worker(), 0.02
    while (claim := _take_and_tidy(place, me)) is None:
        if pause < LOOK_SECONDS and (pause := pause * 1.5) > 1 and (other := newest(place)) is not None:
            waiting(other)
            waiting = lambda _: None  # noqa: E731
        time.sleep(min(pause, LOOK_SECONDS))
    try:
        with Heart(claim):
            yield claim
    finally:
        claim.release()


def _take_and_tidy(place: Path, worker: Worker) -> Claim | None:
    """As `take`, of a place that is claimed often, in which the claims before one's own are removed.

    So the next number may be free again when this process, halted meanwhile, creates it.
    """
    claim = take(place, worker)
    if claim is None:
        return None
    others = generations(place)
    if any(number > claim.generation for number in others):
        claim.release()
        return None
    for number in others:
        if number < claim.generation:
            with suppress(OSError):
                _file(place, number).unlink()
    return claim


def of_study(folder: Path, name: str) -> Path:
    """Return the place of something of a study that is no run."""
    return folder / CLAIMS / name


def newest_claims(folder: Path) -> Iterator[Standing]:
    """Yield the newest claim of every place in a study's folder. Writes nothing."""
    for root in (folder / CLAIMS, folder / "runs", folder / "tuning", folder / "networks"):
        for place, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(("seed-", "trial-", "attempt-"))]
            if any(_NAME.fullmatch(name) for name in files) and (standing := newest(Path(place))) is not None:
                yield standing


def live_claims(folder: Path, now: Callable[[Path], float] | None = own_time) -> list[Standing]:
    """Return all claims in a study's folder that are held, as `Standing.is_live` tells by `now`."""
    return [standing for standing in newest_claims(folder) if _is_live(standing, now)]


def _is_live(standing: Standing, now: Callable[[Path], float] | None) -> bool:
    try:
        return standing.is_live(now)
    except FileNotFoundError:  # others have removed the place, or the file that tells the server's time
        again = newest(standing.place)
        return again is not None and _is_live(again, now)
