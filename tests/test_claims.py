"""Claims: who gets a thing, how it is taken over, and what the clocks and gaps of file systems do to that."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from study_files import StudyFiles
from study_helpers import call
from voxloss.config.files import load_config
from voxloss.report import build as report_module
from voxloss.report import build_report
from voxloss.study import claims
from voxloss.study.claims import (
    REPORT,
    STUDY,
    Heart,
    LostClaimError,
    Worker,
    generations,
    hold,
    live_claims,
    newest,
    of_study,
    take,
)
from voxloss.study.create import open_study
from voxloss.study.study import Study

HOLDER = """
import sys
from pathlib import Path
from voxloss.study.claims import Worker, take
claim = take(Path(sys.argv[1]), Worker())
print("held" if claim else "refused", flush=True)
sys.stdin.read()
"""
ELSEWHERE = Worker(host="elsewhere", process=None)  # of which only heartbeats tell


@pytest.fixture(autouse=True)
def _watched_long_enough(monkeypatch) -> None:
    """Whoever takes over has watched the claim before, so that its age decides."""
    monkeypatch.setattr(claims, "WATCHED", 0)


@contextmanager
def holder(place: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a claim."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def small_study(tmp_path) -> Path:
    return StudyFiles(losses=("focal", "dice"), cases=4, folds=2).write(tmp_path / "study")


def grown_old(place: Path, seconds: float) -> None:
    """Set back the heartbeat of the newest claim."""
    file = place / f"claim-{generations(place)[-1]:04}.json"
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_a_thing_has_one_owner_until_it_is_released(tmp_path):
    first = take(tmp_path / "place", ELSEWHERE)
    assert first is not None and first.record.why == "first"
    assert take(tmp_path / "place", Worker()) is None
    first.release()
    second = take(tmp_path / "place", Worker())
    assert second is not None and (second.generation, second.record.why) == (2, "resumed")
    with pytest.raises(LostClaimError):
        first.check()
    second.beat()


def test_of_many_who_want_it_at_once_one_gets_it(tmp_path):
    barrier, got = threading.Barrier(16), []

    def want() -> None:
        barrier.wait()
        got.append(take(tmp_path, Worker()))

    for _ in range(20):
        threads = [threading.Thread(target=want) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [claim for claim in got if claim is not None]
        assert len(winners) == 1
        winners[0].release()
        got.clear()
    assert generations(tmp_path) == list(range(1, 21))
    assert not list(tmp_path.glob(".partial-*"))


def test_a_killed_process_of_this_machine_is_seen_at_once(tmp_path):
    with holder(tmp_path) as process:
        assert take(tmp_path, Worker()) is None
        process.send_signal(signal.SIGSTOP)
        assert take(tmp_path, Worker()) is None  # it may go on
        process.kill()
        while (claim := take(tmp_path, Worker())) is None:  # until the system has ended it
            time.sleep(0.01)
        assert (claim.generation, claim.record.why) == (2, "takeover")  # though nobody has waited for the process yet


def test_a_silent_owner_elsewhere_is_taken_over_when_it_is_stale_and_notices(tmp_path):
    lost = take(tmp_path, ELSEWHERE)
    grown_old(tmp_path, 290)
    assert take(tmp_path, Worker()) is None
    grown_old(tmp_path, 20)
    claim = take(tmp_path, Worker())
    assert claim is not None and claim.record.why == "takeover"
    with pytest.raises(LostClaimError):
        lost.beat()
    before = claim.file.read_bytes()
    lost.release()  # changes its own file alone
    assert claim.file.read_bytes() == before and newest(tmp_path).record.state == "held"


@pytest.mark.parametrize("hours", [-7, 0, 7])
def test_an_owner_whose_clock_differs_is_taken_over_only_when_no_heartbeat_comes(tmp_path, monkeypatch, hours):
    """The file system sets times by the clocks of the machines, as Lustre and sshfs do."""
    monkeypatch.setattr(claims, "WATCHED", 1 / 3)
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    claim = take(tmp_path, ELSEWHERE)

    def beaten(number: int) -> None:
        then = time.time() + hours * 3600 - 400 + number
        os.utime(claim.file, (then, then))

    for number in range(20):  # heartbeats of an owner that lives
        beaten(number)
        assert take(tmp_path, Worker()) is None
        now[0] += 30
    silent = 0
    while take(tmp_path, Worker()) is None:
        now[0] += 5
        silent += 5
    assert 100 <= silent + 30 <= (110 if hours <= 0 else 310)


def test_who_was_halted_between_looking_and_deciding_does_not_take_over(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "WATCHED", 1 / 3)
    now, read = [1000.0], claims.read_claim
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    take(tmp_path, ELSEWHERE)
    assert take(tmp_path, Worker()) is None

    def halted(place: Path, generation: int) -> claims.Standing | None:
        standing = read(place, generation)
        now[0] += 5000
        return standing

    monkeypatch.setattr(claims, "read_claim", halted)
    assert take(tmp_path, Worker(), now=lambda _: time.time() + 5000) is None


def test_an_old_list_of_a_place_hides_no_claim(tmp_path, monkeypatch):
    """As sshfs shows it for 20 seconds: a claim that is removed, and not those after it."""
    for _ in range(3):
        with hold(tmp_path):
            pass
    lost = take(tmp_path, Worker())
    with monkeypatch.context() as patch:
        patch.setattr(claims, "generations", lambda _: [2])
        assert newest(tmp_path).generation == 3 and take(tmp_path, Worker()) is None
        lost.check()
        lost.release()
        take(tmp_path, Worker())
    later = take(tmp_path, Worker())
    monkeypatch.setattr(claims, "generations", lambda _: [lost.generation])
    with pytest.raises(LostClaimError):
        lost.check()
    later.check()


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_system_with_one_error_for_all_reasons(tmp_path, monkeypatch, exists):
    """sshfs: another process created the claim between the kernel's look at the name and the server's answer."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def refuse_new(path: Path, content: bytes, write=claims._write_new) -> None:
        if path.name.startswith("claim-"):
            if exists:
                path.write_bytes(content)
            refuse()
        write(path, content)

    monkeypatch.setattr(claims.os, "link", refuse)
    monkeypatch.setattr(claims, "_write_new", refuse_new)
    if exists:
        assert take(tmp_path, Worker()) is None
    else:
        with pytest.raises(PermissionError):
            take(tmp_path, Worker())


@pytest.mark.parametrize("hours", [-7, 7])
def test_the_clock_of_the_machine_does_not_matter(tmp_path, monkeypatch, hours):
    """The file server's clock is wrong by hours: all its times are."""
    stat, fstat = Path.stat, os.fstat

    def shifted(result: os.stat_result) -> os.stat_result:
        values = list(result)
        values[8] += hours * 3600
        return os.stat_result(values, {"st_mtime": result.st_mtime + hours * 3600})

    monkeypatch.setattr(Path, "stat", lambda path, **options: shifted(stat(path, **options)))
    monkeypatch.setattr(claims.os, "fstat", lambda descriptor: shifted(fstat(descriptor)))
    assert abs(claims.server_time(tmp_path) - time.time() - hours * 3600) < 60
    take(tmp_path, ELSEWHERE)
    assert take(tmp_path, Worker()) is None
    monkeypatch.undo()
    monkeypatch.setattr(claims, "WATCHED", 0)
    grown_old(tmp_path, 301)
    monkeypatch.setattr(Path, "stat", lambda path, **options: shifted(stat(path, **options)))
    monkeypatch.setattr(claims.os, "fstat", lambda descriptor: shifted(fstat(descriptor)))
    assert take(tmp_path, Worker()) is not None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims.os, "link", refuse)
    test_of_many_who_want_it_at_once_one_gets_it(tmp_path)


def test_a_claim_that_is_just_being_created_without_hard_links_is_respected(tmp_path):
    (tmp_path / "claim-0001.json").touch()
    assert take(tmp_path, Worker()) is None
    grown_old(tmp_path, 301)
    assert take(tmp_path, Worker()).generation == 2


def test_an_answer_of_the_server_that_was_lost_is_found_out(tmp_path, monkeypatch):
    link = os.link

    def made_and_refused(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(claims.os, "link", made_and_refused)
    assert take(tmp_path, Worker()).generation == 1


@pytest.mark.parametrize("name", ["_write_new", "os.link", "os.utime", "os.fstat", "os.close"])
def test_a_crash_at_any_operation_leaves_a_thing_that_can_be_claimed(tmp_path, monkeypatch, name):
    class Crash(BaseException):
        pass

    for calls in range(4):
        place = tmp_path / f"{name}-{calls}"
        take(place, Worker()).release()
        counted, (owner, _, attribute) = [0], name.rpartition(".")
        target = claims.os if owner else claims
        original = getattr(target, attribute)

        def crash(*arguments: object, calls=calls, counted=counted, original=original, **options: object) -> object:
            counted[0] += 1
            if counted[0] > calls:
                raise Crash
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(target, attribute, crash)
            try:
                claim = take(place, ELSEWHERE)
            except Crash:
                claim = None
        if newest(place).record.state == "held":  # it may have been created before the crash
            assert claim is not None or take(place, Worker()) is None
            grown_old(place, 301)
        assert take(place, Worker()) is not None


def test_a_full_disk_keeps_nobody_from_releasing(tmp_path, monkeypatch):
    claim = take(tmp_path, Worker())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims, "_write_new", full)
        patch.setattr(claims.os, "replace", full)
        patch.setattr(Path, "replace", full)
        claim.release()
        with pytest.raises(OSError, match="No space"):
            take(tmp_path, Worker())
    assert take(tmp_path, Worker()).record.why == "resumed"


def test_a_heart_beats_and_hears_that_the_claim_is_lost(tmp_path):
    worker = Worker(heartbeat_s=0.02, stale_after_s=300, host="elsewhere", process=None)
    claim, asked = take(tmp_path, worker), []
    with Heart(claim, lambda: bool(asked)) as heart:
        grown_old(tmp_path, 1000)
        while claim.file.stat().st_mtime < time.time() - 500:
            time.sleep(0.01)
        assert not heart.stop()
        asked.append(True)
        while not heart.stop():
            time.sleep(0.01)
        grown_old(tmp_path, 1000)
        taken = take(tmp_path, Worker())
        if taken is not None:  # it may have beaten in between
            with pytest.raises(LostClaimError):
                while True:
                    heart.stop()
                    time.sleep(0.01)


def test_an_owner_that_slept_looks_before_it_goes_on(tmp_path, monkeypatch):
    claim = take(tmp_path, Worker(heartbeat_s=1000, stale_after_s=300, host="elsewhere", process=None))
    with Heart(claim) as heart:
        grown_old(tmp_path, 400)
        assert take(tmp_path, Worker()) is not None
        assert not heart.stop()
        now = time.monotonic()
        monkeypatch.setattr(claims.time, "monotonic", lambda: now + 200)  # it was halted: SIGSTOP
        with pytest.raises(LostClaimError):
            heart.stop()


def test_who_holds_waits_for_the_other_and_old_claims_are_removed(tmp_path):
    order = []

    def wait() -> None:
        with hold(tmp_path):
            order.append("second")

    with hold(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert generations(tmp_path) == [2]


def test_status_opens_no_file_for_writing_and_works_in_a_folder_that_it_may_not_write(small_study, monkeypatch):
    study = Study.open(small_study)
    study.write_status(study.runs()[0], state="running")
    take(study.files.place(study.runs()[0]), ELSEWHERE)
    opened = Path.open

    def for_reading(path, mode="r", *arguments, **options):
        assert mode in ("r", "rb"), f"{path} is opened with {mode}"
        return opened(path, mode, *arguments, **options)

    before = sorted(small_study.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", for_reading)
        patched.setattr(claims.os, "open", lambda *_: pytest.fail("a file is opened"))
        result = call("status", small_study, "--once")
    assert result.returncode == 0 and "3 of 4 runs finished" in result.stdout, result.stderr
    assert "elsewhere" in result.stdout
    assert sorted(small_study.rglob("*")) == before


def test_a_run_that_starts_keeps_what_others_are_writing(own_study):
    ours, theirs = own_study / ".partial-x-report", own_study / "runs/dice/.partial-y-status.json"
    ours.mkdir()
    theirs.write_text("{")
    with holder(of_study(own_study, REPORT)), open_study(load_config(own_study), own_study):
        assert ours.is_dir()
    with open_study(load_config(own_study), own_study):
        assert not ours.exists() and not theirs.exists()


def test_two_processes_do_not_change_a_study_at_once(own_study):
    begun = threading.Event()

    def other() -> None:
        with open_study(load_config(own_study), own_study):
            begun.set()

    with open_study(load_config(own_study), own_study):
        assert [claim.place.name for claim in live_claims(own_study)] == [STUDY]
        thread = threading.Thread(target=other)
        thread.start()
        assert not begun.wait(0.3)
    thread.join(60)
    assert begun.is_set() and not live_claims(own_study)


def test_reports_are_written_one_after_the_other(small_study, blank_figures, monkeypatch):
    at_work, most, write = [0], [0], report_module.write_contents

    def watched(*arguments):
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        try:
            return write(*arguments)
        finally:
            at_work[0] -= 1

    monkeypatch.setattr(report_module, "write_contents", watched)
    threads = [threading.Thread(target=build_report, args=(small_study, 0)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert (small_study / "report/index.html").is_file()
    assert not list(small_study.glob(".partial-*"))


def test_scores_are_merged_while_no_report_is_written(small_study):
    with holder(of_study(small_study, REPORT)) as process:
        thread = threading.Thread(target=Study.open(small_study).merge_scores)
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
        process.kill()
        thread.join(timeout=60)
    assert not thread.is_alive()


def test_a_folder_that_is_no_study_gets_no_claim(tmp_path):
    for command in (["report"], ["retire", "dice"], ["stop"]):
        assert call(command[0], tmp_path, *command[1:]).returncode == 2
    assert not list(tmp_path.iterdir())


def test_commands_work_without_locks_of_the_system(small_study):
    program = "import sys; sys.modules['fcntl'] = None; from voxloss.commands.main import main; main(sys.argv[1:])"
    for words in (
        ["status", str(small_study), "--once"],
        ["check", "--help"],
        ["run", str(small_study), "--data", "/no"],
    ):
        result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        assert "fcntl" not in result.stderr and "Traceback" not in result.stderr, result.stderr
        assert result.returncode == (2 if words[0] == "run" else 0)


@pytest.mark.parametrize("removed", ["place", "file"])
def test_a_claim_whose_place_or_file_others_remove_begins_again(tmp_path, monkeypatch, removed):
    place, left = tmp_path / "study" / ".claims" / "case-1", 3

    def cleaned(call, remove):
        def wrapped(path, *arguments):
            nonlocal left
            left -= 1
            if left >= 0:
                with suppress(FileNotFoundError):
                    remove(path)
            return call(path, *arguments)

        return wrapped

    if removed == "place":
        monkeypatch.setattr(os, "open", cleaned(os.open, lambda path: path.parent.rmdir()))
    else:
        monkeypatch.setattr(os, "link", cleaned(os.link, Path.unlink))
    claim = take(place, Worker())
    assert claim is not None and left <= 0
    assert newest(place).record.owner == claim.record.owner and take(place, ELSEWHERE) is None
    assert not list(place.glob(".partial-*"))


def test_a_place_that_goes_while_its_owner_is_looked_at_is_not_taken(tmp_path, monkeypatch):
    place = tmp_path / "case-1"
    assert take(place, ELSEWHERE) is not None

    def gone(folder: Path) -> float:
        shutil.rmtree(folder)
        return claims.server_time(folder)

    assert take(place, Worker(), now=gone) is None
    assert take(place, Worker()) is not None
