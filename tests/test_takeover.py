"""Workers that are halted, killed and crash, several at once: every run is published once, with the same numbers."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from study_helpers import call, tiny_run, voxloss
from voxloss.data.prepare import cases as preparation
from voxloss.study import attempts, claims
from voxloss.study.claims import Worker, generations, live_claims, newest, read_claim, take
from voxloss.study.create import open_study
from voxloss.study.execution import worker as module
from voxloss.study.execution.request import Request
from voxloss.study.execution.worker import work
from voxloss.study.folder import Run, RunFolder
from voxloss.study.study import Study
from voxloss.training.events import Events

KILLS = int(os.environ.get("VOXLOSS_KILLS", "2"))
LONGER = ["--training.epochs", "8"]
ELSEWHERE = Worker(host="elsewhere", process=None)
REQUEST = Request(losses=("dice", "mixed_focal"), seeds=(0,))


@pytest.fixture(autouse=True)
def _watched_long_enough(monkeypatch) -> None:
    """Whoever takes over has watched the claim before, so that its age decides."""
    monkeypatch.setattr(claims, "WATCHED", 0)


@pytest.fixture
def unfinished(own_study) -> Study:
    """A study whose runs are all to be done."""
    shutil.rmtree(own_study / "runs")
    return Study.open(own_study)


def finish_at_once(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
    """In the place of a training."""
    stop()
    files.scores_file.write_text(f"{run}\n")
    study.write_status(run, files, state="done", epoch=2)
    return "done"


def grow_old(study: Study) -> None:
    """Set back all heartbeats, as if nobody had given a sign for long."""
    for file in study.folder.rglob("claim-*.json"):
        then = file.stat().st_mtime - 1000
        os.utime(file, (then, then))


def assert_published_once(study: Study) -> None:
    for run in study.runs():
        assert study.status(run).state == "done"
        assert study.files.published(run).scores_file.read_text() == f"{run}\n"
        assert not study.files.attempts(run)


class Crash(BaseException):
    pass


OPERATIONS = [(os, "link"), (os, "utime"), (os, "close"), (os, "fdopen")]
OPERATIONS += [(Path, name) for name in ("rename", "replace", "mkdir", "unlink", "open", "iterdir")]


def test_a_worker_may_crash_between_any_two_operations(unfinished, monkeypatch):
    """It crashes at its n-th operation on files, for every n; another worker ends the run."""
    monkeypatch.setattr(module, "execute_run", finish_at_once)
    monkeypatch.setenv("VOXLOSS_HOST", "elsewhere")
    study, (run, *_) = unfinished, unfinished.runs()
    crashes, number = 0, 0
    while True:
        counted = [0]

        def crashing(original: Callable, counted=counted, number=number) -> Callable:
            def operation(*arguments: object, **options: object) -> object:
                counted[0] += 1
                if counted[0] > number:
                    raise Crash
                return original(*arguments, **options)

            return operation

        with monkeypatch.context() as patch:
            for owner, name in OPERATIONS:
                patch.setattr(owner, name, crashing(getattr(owner, name)))
            try:
                module._do_one(study, [run], ELSEWHERE, set(), lambda: False, lambda: False)
                crashed = False
            except Crash:
                crashed = True
        grow_old(study)
        module._do_one(study, [run], Worker(), set(), lambda: False, lambda: False)
        assert study.status(run).state == "done"
        assert study.files.published(run).scores_file.read_text() == f"{run}\n"
        if not crashed:
            break
        crashes += 1
        number += 1
        shutil.rmtree(study.files.published(run).path)
    assert crashes > 10


def test_an_owner_that_was_taken_over_publishes_nothing(unfinished, monkeypatch):
    study, run = unfinished, unfinished.runs()[0]
    taken = []

    def halted_meanwhile(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
        if not taken:
            grow_old(study)
            taken.append(take(study.files.place(run), Worker()))
        return finish_at_once(study, run, files, stop)

    monkeypatch.setattr(module, "execute_run", halted_meanwhile)
    module._do_one(study, [run], ELSEWHERE, set(), lambda: False, lambda: False)
    assert not study.files.published(run).path.exists()
    assert not study.files.attempts(run)  # the loser has removed its own
    assert newest(study.files.place(run)).generation == 2
    taken[0].release()
    work(study.folder, REQUEST)
    assert_published_once(study)


def test_of_two_finished_attempts_one_is_published(unfinished, monkeypatch):
    """The owner is halted after its last look: its rename comes when the other's is there, or the other way round."""
    study, run = unfinished, unfinished.runs()[0]
    first = take(study.files.place(run), ELSEWHERE)
    one = attempts.begin(study, run, first)
    finish_at_once(study, run, one, lambda: False)
    grow_old(study)
    second = take(study.files.place(run), Worker())
    two = attempts.begin(study, run, second)
    finish_at_once(study, run, two, lambda: False)
    monkeypatch.setattr(first, "check", lambda: None)  # it was halted right after that
    attempts.publish(study, run, second, two)
    assert not one.path.exists()
    finish_at_once(study, run, one, lambda: False) if one.path.mkdir() else None
    (one.path / "late").touch()
    with pytest.raises(claims.LostClaimError):
        attempts.publish(study, run, first, one)
    assert not (study.files.published(run).path / "late").exists()


def test_a_result_that_a_halted_owner_moved_away_is_put_back(unfinished):
    """It had seen a run that was to be repeated; meanwhile another process has taken it over and published it."""
    study, run = unfinished, unfinished.runs()[0]
    study.write_status(run, state="pending")
    claim = take(study.files.place(run), ELSEWHERE)

    def published_meanwhile() -> None:
        study.write_status(run, state="done")

    claim.check = published_meanwhile
    with pytest.raises(claims.LostClaimError):
        attempts.begin(study, run, claim)
    assert study.status(run).state == "done"


def test_a_run_goes_on_from_the_latest_attempt_without_hard_links_too(unfinished, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    study, run = unfinished, unfinished.runs()[0]
    for generation, linked in ((1, True), (2, False), (3, True)):
        with monkeypatch.context() as patch:
            if not linked:
                patch.setattr(os, "link", refuse)
            attempt = attempts.begin(study, run, take(study.files.place(run), ELSEWHERE))
        assert attempt == study.files.attempt(run, generation)
        if generation == 1:
            attempt.checkpoint_file.write_text("state")
            study.write_status(run, attempt, epoch=1, seconds=3.0)
        assert attempt.checkpoint_file.read_text() == "state"
        grow_old(study)
    status = study.status(run)
    assert (status.epoch, status.seconds, status.takeovers) == (1, 3.0, 2)


def test_tensorboard_shows_a_run_under_one_name_before_and_after_it_is_published(unfinished, monkeypatch):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    study, shown = unfinished, EventMultiplexer()
    shutil.rmtree(study.files.path / "events")
    row = dict.fromkeys(("train_loss", "validation_loss", "validation_dice", "learning_rate", "seconds"), 1.0)

    def train(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
        epoch = study.status(run).takeovers
        Events(study.files.events(run), epoch).write(row | {"waiting": 0, "gradient_shares": "", "epoch": epoch + 1})
        shown.AddRunsFromDirectory(str(study.folder)).Reload()
        assert set(shown.Runs()) == {f"events/{run.loss.key}/fold-{run.fold}/seed-0"}
        if not epoch:
            grow_old(study)
            raise claims.LostClaimError
        return finish_at_once(study, run, files, stop)

    monkeypatch.setattr(module, "execute_run", train)
    for _ in range(2):
        module._do_one(study, study.runs()[:1], ELSEWHERE, set(), lambda: False, lambda: False)
    shown.AddRunsFromDirectory(str(study.folder)).Reload()
    (name,) = shown.Runs()
    assert [event.step for event in shown.Scalars(name, "loss/train")] == [1, 2]


def test_a_case_is_prepared_once_however_many_prepare(phantom, tmp_path, monkeypatch):
    import threading

    from voxloss.config.files import load_config

    written, original = [], preparation.prepare_case

    def counted(case, dataset, settings, cache):
        before = set(cache.glob(f"{case.case_id}-*")) if cache.is_dir() else set()
        time.sleep(0.05)
        found = original(case, dataset, settings, cache)
        if not before:
            written.append(case.case_id)
        return found

    monkeypatch.setattr(preparation, "prepare_case", counted)
    words = [str(word) for word in tiny_run(phantom, tmp_path)[6:-1]]
    config = load_config("demo", ["--data.root", str(phantom), "--comparison.losses", "[dice]", *words[2:]])
    errors = []

    def create() -> None:
        try:
            with open_study(config, tmp_path / "study"):
                pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(written) == [f"case_{number:05}" for number in range(4)]
    assert not list((tmp_path / "study" / ".claims").glob("case-*")) and not live_claims(tmp_path / "study")


def test_retired_losses_stop_and_a_stopped_study_is_left(unfinished, monkeypatch):
    study, done = unfinished, []

    def until_told(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
        if run.loss.key == "mixed_focal" and not done:
            assert call("retire", study.folder, "mixed_focal").returncode == 0
            end = time.monotonic() + 30
            while not stop() and time.monotonic() < end:
                time.sleep(0.01)
            done.append(run)
            study.write_status(run, files, state="pending")
            return "pending"
        return finish_at_once(study, run, files, stop)

    monkeypatch.setattr(module, "execute_run", until_told)
    monkeypatch.setattr(claims, "LOOK_SECONDS", 0.05)
    work(study.folder, REQUEST)
    left = Study.open(study.folder)
    assert len(done) == 1 and {run.loss.key for run in left.runs()} == {"dice"}
    assert {left.status(run).state for run in left.runs()} == {"done"}
    study.files.stop_file.write_text("token\n")
    assert call("retire", study.folder, "mixed_focal", "--undo").returncode == 0
    work(study.folder, REQUEST)  # was asked before the study was stopped
    assert "pending" in {study.status(run).state for run in Study.open(study.folder).runs()}


@pytest.fixture
def read_only(own_study, tmp_path) -> Iterator[Path]:
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = subprocess.run(["mount", "--bind", own_study, folder], capture_output=True, check=False).returncode == 0
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], capture_output=True, check=True)
        yield folder
        subprocess.run(["umount", folder], check=True)
    else:
        pytest.skip("mounting needs root")


def test_a_folder_that_may_not_be_written(read_only):
    assert "All 4 runs finished." in call("status", read_only, "--once").stdout
    for words in (["run", read_only, "--seeds", "0,1"], ["stop", read_only], ["retire", read_only, "dice"]):
        result = call(*words)
        assert result.returncode == 2 and "Read-only file system" in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def undisturbed(phantom, once) -> bytes:
    def build(folder: Path) -> None:
        result = call(*tiny_run(phantom, folder, *LONGER))
        assert result.returncode == 0, result.stderr

    return (once("undisturbed", build) / "scores.csv").read_bytes()


def started(words: list[object], **variables: str) -> subprocess.Popen:
    environment: Mapping[str, str] = {**os.environ, **variables}
    return subprocess.Popen(
        voxloss(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def test_a_study_that_others_create_while_its_folder_is_listed_is_no_foreign_folder(phantom, own_study, monkeypatch):
    hidden, listed = own_study.with_name("study.yaml"), Path.iterdir
    (own_study / "study.yaml").rename(hidden)

    def listing(path: Path) -> Iterator[Path]:
        names = list(listed(path))
        if path == own_study and hidden.exists():
            hidden.rename(own_study / "study.yaml")
        return iter(names)

    monkeypatch.setattr(Path, "iterdir", listing)
    result = call(*tiny_run(phantom, own_study))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_two_commands_on_two_hosts_share_a_study(phantom, undisturbed, tmp_path):
    folder = tmp_path / "study"
    processes = [started(tiny_run(phantom, folder, *LONGER), VOXLOSS_HOST=host) for host in ("one", "two")]
    for process in processes:
        ended(process)
    assert (folder / "scores.csv").read_bytes() == undisturbed
    places = list(folder.glob("runs/*/fold-*/.seed-*"))
    assert len(places) == 4 and all(generations(place) == [1] for place in places)
    assert {read_claim(place, 1).record.host for place in places} <= {"one", "two"}
    assert not live_claims(folder) and not list(folder.rglob("attempt-*"))


@pytest.mark.slow
def test_a_halted_worker_that_was_taken_over_writes_nothing_when_it_goes_on(phantom, undisturbed, tmp_path):
    folder = tmp_path / "study"
    words = tiny_run(phantom, folder, *LONGER, "--execution.heartbeat_s", "0.5", "--execution.stale_after_s", "4")
    halted = started(words, VOXLOSS_HOST="halted")
    while not list(folder.glob("runs/*/*/.seed-*/attempt-0001/checkpoint.pt")):
        assert halted.poll() is None, halted.communicate()
        time.sleep(0.01)
    pid = live_claims(folder)[0].record.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        ended(started(words, VOXLOSS_HOST="other"))
        assert (folder / "scores.csv").read_bytes() == undisturbed
        before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    finally:
        os.kill(pid, signal.SIGCONT)
    ended(halted)
    after = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    assert after == before  # its own claim too: it has lost it
    assert (folder / "scores.csv").read_bytes() == undisturbed
    statuses = [json.loads(path.read_text()) for path in folder.glob("runs/*/*/seed-*/status.json")]
    assert sum(status["takeovers"] for status in statuses) == 1


@pytest.mark.slow
def test_workers_killed_at_random_moments_change_no_number(phantom, undisturbed, tmp_path):
    """Only workers are killed; `voxloss run` starts others. `make test-faults` kills 100 of them."""
    chance, kills, studies = random.Random(1), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{studies}"
        words = tiny_run(phantom, folder, *LONGER, "--execution.parallel", "2")
        while True:
            process = started(words)
            while process.poll() is None and kills < KILLS:
                time.sleep(chance.uniform(0, 1.5))
                working = [claim for claim in live_claims(folder) if ".seed-" in str(claim.place)]
                if working:
                    os.kill(chance.choice(working).record.pid, signal.SIGKILL)
                    kills += 1
            _, errors = process.communicate(timeout=600)
            if process.returncode == 0:
                break
            # A run whose processes were killed three times in an epoch has failed; the same command repeats it.
            assert process.returncode == 2 and "its process was killed 3 times" in errors, errors
        assert (folder / "scores.csv").read_bytes() == undisturbed
        assert not list(folder.rglob("attempt-*"))
        studies += 1
    print(f"{kills} workers killed in {studies} studies")
