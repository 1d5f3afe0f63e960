"""Workers that come before a study is created: each case is prepared once, and nobody waits for ever."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study_helpers import tiny_run
from voxloss.config.files import load_config
from voxloss.config.schema import StudyConfig
from voxloss.data.prepare import cases as preparation
from voxloss.study import preparation as module
from voxloss.study.claims import Worker, live_claims, of_study, take
from voxloss.study.create import open_study
from voxloss.study.execution.request import Request
from voxloss.study.execution.worker import work
from voxloss.study.folder import StudyFolder
from voxloss.study.preparation import execution_of, help_prepare
from voxloss.utilities.errors import InputError

CASES = [f"case_{number:05}" for number in range(4)]


@pytest.fixture
def config(phantom, tmp_path) -> StudyConfig:
    words = [str(word) for word in tiny_run(phantom, tmp_path)[6:-1]]
    options = ["--execution.heartbeat_s", "0.2", "--execution.stale_after_s", "1"]
    return load_config("demo", ["--data.root", str(phantom), "--comparison.losses", "[dice]", *words[2:], *options])


@pytest.fixture
def prepared(monkeypatch) -> list[tuple[str, str]]:
    """The host and the case of every preparation that wrote something."""
    written, original = [], preparation.prepare_case

    def counted(case, dataset, settings, cache):
        before = set(cache.glob(f"{case.case_id}-*")) if cache.is_dir() else set()
        host = threading.current_thread().name.partition("_")[0]
        time.sleep(0.05)
        found = original(case, dataset, settings, cache)
        if not before:
            written.append((host, case.case_id))
        return found

    monkeypatch.setattr(preparation, "prepare_case", counted)
    return written


class Hosts:
    """Workers in threads of this process, which count as processes of other machines."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.folder, self.leaving = folder, threading.Event()
        self.answers: dict[str, bool] = {}
        self.threads = [threading.Thread(target=self._help, args=(host,)) for host in hosts]

    def start(self, config: StudyConfig) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.leaving.set()
        self.join()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _help(self, host: str) -> None:
        self.answers[host] = help_prepare(self.folder, host, 1, self.leaving.is_set)


@pytest.fixture(autouse=True)
def hosts_by_name(monkeypatch) -> None:
    def named(settings, executor: str) -> Worker:
        return Worker(executor, settings.heartbeat_s, settings.stale_after_s, executor, None)

    monkeypatch.setattr(module, "worker_of", named)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)


def test_workers_of_two_hosts_and_the_command_prepare_each_case_once(config, prepared, tmp_path):
    folder = tmp_path / "study"
    hosts = Hosts(folder, "one", "two")
    with open_study(config, folder, helpers=hosts) as study:
        hosts.join()
        assert len(study.files.read_prepared()) == 4
    assert sorted(case for _, case in prepared) == CASES
    assert hosts.answers == {"one": True, "two": True}
    assert load_config(folder).comparison.losses == ("dice",)  # a study is named by its folder before any run begins
    left = {path.name for path in (folder / ".claims").iterdir()}
    assert left == {"study"} and not live_claims(folder)


def test_workers_prepare_all_while_the_command_is_slow(config, prepared, tmp_path, monkeypatch):
    """And it opens what they have prepared, instead of preparing it again."""
    folder = tmp_path / "study"
    hosts = Hosts(folder, "one", "two")
    original = module.prepared_cases

    def late(*arguments):
        limit = time.monotonic() + 60
        while len(list((folder / ".claims").glob("case-*/done"))) < 4 and time.monotonic() < limit:
            time.sleep(0.01)
        prepared.append(("the command comes", ""))
        return original(*arguments)

    monkeypatch.setattr("voxloss.study.create.prepared_cases", late)
    with open_study(config, folder, helpers=hosts):
        hosts.join()
    assert prepared[-1] == ("the command comes", "")
    assert sorted(case for _, case in prepared[:-1]) == CASES


def test_a_case_of_a_worker_that_died_is_taken_over(config, prepared, tmp_path):
    folder, taken = tmp_path / "study", []

    class Dead:
        def start(self, config: StudyConfig) -> None:
            taken.append(take(of_study(folder, f"case-{CASES[1]}"), Worker("slurm", 0.2, 1, "dead", None)))

        def stop(self) -> None:
            raise AssertionError("the study was created")

    with open_study(config, folder, helpers=Dead()):
        pass
    assert taken[0] is not None
    assert [case for _, case in prepared][-1] == CASES[1]
    assert sorted(case for _, case in prepared) == CASES


def broken(phantom: Path, folder: Path) -> Path:
    shutil.copytree(phantom, folder)
    image = next(folder.rglob(f"{CASES[2]}/imaging.nii.gz"))
    image.write_bytes(image.read_bytes()[:-2000])
    return folder


def test_a_case_that_cannot_be_prepared_is_said_once(phantom, config, tmp_path, capsys):
    """Workers leave it to the command, whose sentence ends the study; prepared cases are kept for the next call."""
    data = broken(phantom, tmp_path / "data")
    changed = load_config(
        "demo", ["--data.root", str(data), "--preparation.spacing_mm", "[11,11,11]", "--execution.device", "cpu"]
    )
    folder = tmp_path / "study"
    hosts = Hosts(folder, "one", "two")
    with pytest.raises(InputError, match=CASES[2]), open_study(changed, folder, helpers=hosts):
        pass
    assert hosts.answers == {"one": False, "two": False}
    assert "Traceback" not in capsys.readouterr().err
    assert not live_claims(folder)
    if folder.exists():
        assert {path.name for path in folder.iterdir()} <= {"prepared", ".claims"}


def test_prepared_cases_of_an_interrupted_call_are_kept(config, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    hosts = Hosts(folder, "one")

    def interrupted(*_: object) -> None:
        limit = time.monotonic() + 60
        while not list((folder / ".claims").glob("case-*/done")) and time.monotonic() < limit:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("voxloss.study.create.prepared_cases", interrupted)
        with pytest.raises(KeyboardInterrupt), open_study(config, folder, helpers=hosts):
            pass
    assert hosts.answers == {"one": False} and prepared
    hosts = Hosts(folder, "two")
    with open_study(config, folder, helpers=hosts) as study:
        hosts.join()
        assert study.files.is_study()
    assert sorted(case for _, case in prepared) == CASES


def test_workers_leave_when_nobody_creates_the_study_any_more(config, tmp_path):
    """A command that was killed; and a folder that never was to be a study."""
    folder = tmp_path / "study"
    assert not help_prepare(folder, "one", 1, lambda: False)
    assert not folder.exists()
    assert take(of_study(folder, "creator-dead"), Worker("command", 0.2, 1, "dead", None)) is not None
    start = time.monotonic()
    work(folder, Request(losses=("dice",), seeds=(0,), executor="slurm", wait=False))
    assert time.monotonic() - start > 0.5, "it did not wait for the heartbeat"
    with pytest.raises(InputError, match="is not a study"):
        execution_of(folder)


def test_clocks_of_machines_may_differ(tmp_path, monkeypatch):
    """The process that creates the study is alive, whatever time its machine gives its heartbeats."""
    folder, place = tmp_path / "study", of_study(tmp_path / "study", "creator-elsewhere")
    claim = take(place, Worker("command", 0.2, 1, "elsewhere", None))
    assert claim is not None
    behind = time.time() - 600
    for late in range(5):  # beats by a clock that is ten minutes behind
        os.utime(claim.file, (behind + late, behind + late))
        assert module._is_created_by_anyone(folder)
        time.sleep(0.05)


def test_a_worker_that_comes_as_the_study_is_created_leaves_no_claims(config, prepared, tmp_path, monkeypatch):
    folder, created = tmp_path / "study", threading.Event()
    original = StudyFolder.read_preparation

    def late(files: StudyFolder):
        plan = original(files)
        if threading.current_thread() in hosts.threads:
            read.set()
            assert created.wait(60)
        return plan

    hosts, read = Hosts(folder, "one"), threading.Event()
    monkeypatch.setattr(StudyFolder, "read_preparation", late)
    monkeypatch.setattr(hosts, "start", lambda config: (hosts.threads[0].start(), read.wait(60)))
    with open_study(config, folder, helpers=hosts):
        created.set()
        hosts.join()
    assert hosts.answers == {"one": True}
    assert {path.name for path in (folder / ".claims").iterdir()} == {"study"}


@pytest.mark.slow
def test_a_worker_is_a_process_that_trains_after_it_has_helped(config, tmp_path):
    """With the words that executors start: it comes first, prepares, and executes a run of the new study."""
    folder, request = tmp_path / "study", Request(losses=("dice",), seeds=(0,), folds=(0,), wait=False)
    processes: list[subprocess.Popen] = []

    class Elsewhere:
        def start(self, config: StudyConfig) -> None:
            words = [sys.executable, "-P", "-m", "voxloss.study.execution.worker", str(folder), request.text()]
            processes.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
            wait_until(lambda: any(claim.record.executor == "local" for claim in live_claims(folder)))
            assert execution_of(folder).device == "cpu"

        def stop(self) -> None:
            pass

    with open_study(config, folder, helpers=Elsewhere()) as study:
        pass
    _, errors = processes[0].communicate(timeout=300)
    assert processes[0].returncode == 0, errors
    assert study.status(study.runs()[0]).state == "done"
    claims = list(folder.glob("runs/*/fold-0/.seed-0/claim-*.json"))
    assert json.loads(claims[0].read_text())["pid"] == processes[0].pid


def wait_until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)
