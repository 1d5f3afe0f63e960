"""The locks of a study: who waits, who is turned away, who writes nothing; and systems that have other locks."""

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from study_files import StudyFiles
from study_helpers import call
from voxloss.config.files import load_config
from voxloss.report import build as report_module
from voxloss.report import build_report
from voxloss.study import lock
from voxloss.study.create import open_study
from voxloss.study.lock import if_no_report, is_locked, locked, report_lock
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

HOLDER = """
import sys, time
from pathlib import Path
from voxloss.study.lock import locked, report_lock
with {lock}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def small_study(tmp_path) -> Path:
    return StudyFiles(losses=("focal", "dice"), cases=4, folds=2).write(tmp_path / "study")


class Holder:
    """Another process that holds a lock."""

    def __init__(self, name: str, folder: Path) -> None:
        command = [sys.executable, "-c", HOLDER.format(lock=name), str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"held\n"

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_lock_ends_with_its_process_and_asking_for_it_writes_nothing(tmp_path):
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    with Holder("locked", tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match="Another process is working on"), locked(tmp_path):
            pass
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)


def test_status_opens_no_file_for_writing(small_study, monkeypatch):
    with locked(small_study):
        pass
    opened = Path.open

    def for_reading(path, mode="r", *arguments, **options):
        assert mode in ("r", "rb"), f"{path} is opened with {mode}"
        return opened(path, mode, *arguments, **options)

    before = sorted(small_study.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", for_reading)
        result = call("status", small_study, "--once")
    assert result.returncode == 0 and "All 4 runs finished." in result.stdout
    assert sorted(small_study.rglob("*")) == before


def test_a_lock_that_may_not_be_read_is_no_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".lock"))

    monkeypatch.setattr(Path, "open", refuse)
    assert not is_locked(tmp_path)


def test_a_second_run_is_turned_away_while_the_first_writes_its_report(own_study, monkeypatch):
    from voxloss.commands import run as command

    seen = []

    def second_run(folder, console):
        seen.append(call("run", folder, "--no-report"))

    monkeypatch.setattr(command, "show_report", second_run)
    assert call("run", own_study).returncode == 0
    assert seen[0].returncode == 2 and "Another process is working" in seen[0].stderr


def test_a_run_that_starts_keeps_what_a_report_is_writing(own_study):
    ours, theirs = own_study / ".partial-x-report", own_study / "runs/dice/.partial-y-status.json"
    ours.mkdir()
    theirs.write_text("{")
    with Holder("report_lock", own_study):
        with if_no_report(own_study) as alone:
            assert not alone
        with open_study(load_config(own_study), own_study):
            assert ours.is_dir()
    with open_study(load_config(own_study), own_study):
        assert not ours.exists() and not theirs.exists()


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


def test_a_folder_that_is_no_study_gets_no_lock(tmp_path):
    assert call("report", tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())


def test_scores_are_merged_while_no_report_is_written(small_study):
    with Holder("report_lock", small_study) as holder:
        thread = threading.Thread(target=Study.open(small_study).merge_scores)
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
        holder.process.kill()
        thread.join(timeout=60)
    assert not thread.is_alive()


def test_commands_work_without_fcntl(small_study):
    program = "import sys; sys.modules['fcntl'] = None; from voxloss.commands.main import main; main(sys.argv[1:])"
    for words in (
        ["status", str(small_study), "--once"],
        ["check", "--help"],
        ["run", str(small_study), "--data", "/no"],
    ):
        result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        assert "fcntl" not in result.stderr and "Traceback" not in result.stderr, result.stderr
        assert result.returncode == (2 if words[0] == "run" else 0)


def test_windows_locks_the_first_byte(tmp_path, monkeypatch):
    """By a stand-in for msvcrt, whose locks last until the file is closed, as there."""
    held: dict[str, int] = {}

    def locking(descriptor, mode, count):
        name = f"/proc/self/fd/{descriptor}"
        target = str(Path(name).resolve())
        if count != 1 or mode != "LK_NBLCK" or held.get(target, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")
        held[target] = descriptor

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK="LK_NBLCK"))
    monkeypatch.setattr(lock, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(lock, "PAUSE", 0)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match="Another process"), locked(tmp_path):
            pass
    held.clear()  # the system does it when the file is closed
    assert not is_locked(tmp_path)


def test_the_report_lock_is_another_than_the_studys(tmp_path):
    with locked(tmp_path), report_lock(tmp_path), if_no_report(tmp_path) as alone:
        assert not alone
    with locked(tmp_path), if_no_report(tmp_path) as alone:
        assert alone


def test_a_study_without_a_report_gets_no_lock_of_one(tmp_path):
    with if_no_report(tmp_path) as alone:
        assert alone
    assert not list(tmp_path.iterdir())
