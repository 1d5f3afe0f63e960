"""Whatever others do before any operation on files, no process is misled, fails, or undoes their work."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moments import EVERY, moments
from voxloss.commands.display.status_view import status_view
from voxloss.config.schema import StudyConfig
from voxloss.study import attempts, claims, create, preparation
from voxloss.study.claims import Worker, hold, newest, of_study, take
from voxloss.study.create import open_study
from voxloss.study.execution import worker as module
from voxloss.study.execution.request import Request
from voxloss.study.folder import Run, RunFolder, StudyFolder
from voxloss.study.preparation import announced, forget_claims, help_prepare
from voxloss.study.progress import run_progress
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder, write_text

ELSEWHERE = Worker(host="elsewhere", process=None)
REQUEST = Request(losses=("dice", "mixed_focal"), seeds=(0,))
REMEMBERS = pytest.mark.parametrize("remembers", [False, True])


@pytest.fixture(autouse=True)
def _watched_long_enough_and_fast(monkeypatch) -> None:
    monkeypatch.setattr(claims, "WATCHED", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def study(own_study, monkeypatch) -> Study:
    """A finished study, whose runs are executed at once if they are repeated."""

    def finish_at_once(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
        stop()
        shutil.copyfile(scores, files.scores_file)
        study.write_status(run, files, state="done", epoch=2)
        return "done"

    scores = own_study.parent / "scores.csv"
    opened = Study.open(own_study)
    shutil.copyfile(opened.run_folder(opened.runs()[0]).scores_file, scores)
    monkeypatch.setattr(module, "execute_run", finish_at_once)
    return opened


@pytest.fixture
def not_created(tmp_path, monkeypatch) -> Path:
    """The folder of a study that cannot be created: the image of a case is missing."""

    def refused(config: StudyConfig, files: StudyFolder, *_: object) -> None:
        with hold(of_study(files.path, "case-1")), atomic_folder(files.prepared / "case-1"):
            raise InputError("no image")

    monkeypatch.setattr(create, "_prepared_study", refused)
    return tmp_path / "studies" / "one"


def do_one(study: Study, run: Run, worker: Worker) -> None:
    module._do_one(study, [run], worker, set(), lambda: False, lambda: False)


def grow_old(place: Path) -> None:
    """Set back all heartbeats, as if nobody had given a sign for long."""
    for file in place.glob("claim-*.json"):
        then = file.stat().st_mtime - 1000
        os.utime(file, (then, then))


@REMEMBERS
def test_a_thing_that_is_claimed_again_and_again_has_one_owner(tmp_path, remembers):
    """Others have it twice, remove the claims before their own, and have it again."""
    for number, moment in enumerate(moments(tmp_path, remembers=remembers)):
        place, third = tmp_path / str(number), []

        def others(place: Path = place, third: list = third) -> None:
            for _ in range(2):
                if (claim := claims._take_and_tidy(place, Worker())) is not None:
                    claim.release()
            third.append(claims._take_and_tidy(place, Worker()))

        def leave(third: list = third) -> None:
            if third and third[0] is not None:
                third[0].release()

        with hold(place):
            pass
        with moment(others, leave), hold(place):
            assert not third or third[0] is None or newest(place).generation > third[0].generation


@REMEMBERS
@pytest.mark.parametrize("repeated", [False, True])
def test_a_run_may_be_taken_over_at_any_moment_of_its_owner(study, remembers, repeated):
    """The owner was halted; another process takes the run over, and publishes it."""
    run = study.runs()[0]
    for moment in moments(study.folder, remembers=remembers):
        shutil.rmtree(study.files.place(run), ignore_errors=True)
        if repeated:
            study.write_status(run, state="pending")
        else:
            shutil.rmtree(study.files.published(run).path)

        def takeover() -> None:
            grow_old(study.files.place(run))
            do_one(study, run, Worker())

        with moment(takeover):
            do_one(study, run, ELSEWHERE)
        do_one(study, run, Worker())
        assert study.status(run).state == "done"
        assert not study.files.attempts(run)


@REMEMBERS
@pytest.mark.parametrize("reader", ["status", "progress"])
def test_a_run_may_be_published_at_any_moment_of_a_reader(study, reader, remembers):
    run = study.runs()[0]
    read = {"status": lambda: study.status(run), "progress": lambda: run_progress(study)[0]}[reader]
    for moment in moments(study.folder, remembers=remembers):
        shutil.rmtree(study.files.published(run).path)
        claim = take(study.files.place(run), Worker())
        attempt = attempts.begin(study, run, claim)
        module.execute_run(study, run, attempt, lambda: False)
        with moment(lambda claim=claim, attempt=attempt: attempts.publish(study, run, claim, attempt)):
            assert read().state in ("pending", "running", "done")
        if not moment.acted:
            attempts.publish(study, run, claim, attempt)
        assert study.status(run).state == "done"
        claim.release()


READERS = {
    "status": lambda study: [study.status(run) for run in study.runs()],
    "view": lambda study: status_view(study, run_progress(study)),
    "merge": Study.merge_scores,
    "scores": lambda study: (study.files.scores_file.unlink(), study.scores()),
}


@REMEMBERS
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ends", [False, True])
def test_a_failed_run_may_be_repeated_at_any_moment_of_a_reader(study, reader, remembers, ends):
    run = study.runs()[0]
    for moment in moments(study.folder, remembers=remembers, every=EVERY):
        shutil.rmtree(study.files.place(run), ignore_errors=True)
        study.merge_scores()
        study.write_status(run, state="failed", reason="out of memory")

        def repeat() -> None:
            study.write_status(run, state="pending", reason=None)
            if ends:
                do_one(study, run, Worker())
            else:
                attempts.begin(study, run, take(study.files.place(run), Worker()))

        with moment(repeat):
            READERS[reader](study)
        if not study.files.published(run).path.is_dir():
            study.files.attempts(run)[-1].path.rename(study.files.published(run).path)


@REMEMBERS
def test_a_run_may_begin_as_soon_as_it_is_to_be_repeated(study, remembers):
    run = study.runs()[0]
    for moment in moments(study.folder, remembers=remembers):
        study.write_status(run, state="failed")

        def begin() -> None:
            if study.status(run).state == "pending":
                do_one(study, run, Worker())

        with moment(begin):
            study.write_status(run, state="pending")
        do_one(study, run, Worker())
        assert study.status(run).state == "done"


@REMEMBERS
@pytest.mark.parametrize("act", ["publish", "forget", "stop"])
def test_who_starts_a_study_removes_nothing_that_others_write(study, remembers, act):
    """It removes what was left half written. What others begin while it looks stays, and they may go."""
    run, left = study.runs()[0], study.folder / "prepared/.partial-left"
    place = of_study(study.folder, "case-1")
    for moment in moments(study.folder, remembers=remembers, every=EVERY):
        left.mkdir()
        shutil.rmtree(study.files.place(run), ignore_errors=True)
        shutil.rmtree(study.files.published(run).path, ignore_errors=True)
        claim = take(study.files.place(run), ELSEWHERE) if act == "publish" else None
        attempt = None if claim is None else attempts.begin(study, run, claim)
        with hold(place):
            pass
        take(place, ELSEWHERE)
        (study.folder / ".partial-1-.stop").touch()

        def others(claim=claim, attempt=attempt) -> None:
            if act == "publish":
                study.write_status(run, attempt, state="done")
                attempts.publish(study, run, claim, attempt)
                claim.release()
            elif act == "forget":
                forget_claims(study.files)

        with moment(others):
            create._remove_partial_files(study.folder, ())
        assert (study.folder / ".partial-1-.stop").exists()
        shutil.rmtree(place, ignore_errors=True)
        create._remove_partial_files(study.folder, ())
        assert (study.folder / ".partial-1-.stop").exists()
        shutil.rmtree(left, ignore_errors=True)


@pytest.mark.parametrize("name", [".stop", ".execution/ray-1.json"])
def test_what_is_written_without_a_claim_is_not_taken_for_left_behind(study, name):
    for moment in moments(study.folder):
        with moment(lambda: create._remove_partial_files(study.folder, ())):
            write_text(study.folder / name, "token")


@REMEMBERS
def test_a_study_that_cannot_be_created_takes_no_other_along(tmp_path, not_created, remembers):
    """Others begin beside it or in the same folder, at any moment."""
    for place in (not_created.with_name("two"), not_created):
        for moment in moments(tmp_path, remembers=remembers, every=EVERY):
            claim = []

            def others(place: Path = place, claim: list = claim) -> None:
                claim.append(take(of_study(place, "case-2"), ELSEWHERE))
                (place / "prepared" / ".partial-2").mkdir(parents=True)

            with moment(others), pytest.raises(InputError, match="no image"), open_study(StudyConfig(), not_created):
                pass
            if claim:
                assert (place / "prepared" / ".partial-2").is_dir() and claim[0].file.is_file()
                shutil.rmtree(tmp_path / "studies")
            assert not (tmp_path / "studies").exists()


def test_another_study_that_cannot_be_created_takes_this_one_not_along(tmp_path, not_created):
    for place in (not_created.with_name("two"), not_created):
        for moment in moments(tmp_path, every=EVERY):

            def gone(place: Path = place) -> None:
                create._remove_unused(StudyFolder(place), tmp_path / "studies")

            with moment(gone), pytest.raises(InputError, match="no image"), open_study(StudyConfig(), not_created):
                pass


@REMEMBERS
def test_a_worker_that_helps_to_prepare_sees_the_study_created(study, remembers, monkeypatch):
    monkeypatch.setattr(preparation, "prepare_cases", lambda *_, **__: [])  # below
    hidden, file = study.folder.parent / "study.yaml", study.files.description_file
    for moment in moments(study.folder, remembers=remembers):
        file.rename(hidden)
        announcing = announced(study.files, study.parsed, study.dataset)
        announcing.__enter__()

        def created(announcing=announcing) -> None:
            if hidden.exists():
                hidden.rename(file)
                forget_claims(study.files)
                announcing.__exit__(None, None, None)

        with moment(created, created):
            assert help_prepare(study.folder, "slurm", 1, lambda: False)
        created()


@REMEMBERS
def test_the_claims_on_cases_may_go_while_one_is_prepared(study, remembers):
    for moment in moments(study.folder, remembers=remembers):
        with moment(lambda: forget_claims(study.files)):
            for case in ("one", "two"):
                with preparation._claimed_case(study.folder, Worker(), lambda: False, case, wait=False):
                    pass
            with preparation._claimed_case(study.folder, Worker(), lambda: False, "two", wait=True) as own:
                assert own
        forget_claims(study.files)


def test_no_run_begins_after_a_study_was_stopped(study, monkeypatch):
    """`voxloss stop` leaves a mark, and waits as long as it sees a claim."""
    run, stopped, begun = study.runs()[0], [], []

    def execute(study: Study, run: Run, files: RunFolder, stop: Callable[[], bool]) -> str:
        begun.append(run)
        assert not stopped
        return "pending"

    def stop() -> None:
        write_text(study.files.stop_file, "stopped")
        if not claims.live_claims(study.folder):
            stopped.append(True)

    monkeypatch.setattr(module, "execute_run", execute)
    for moment in moments(study.folder):
        shutil.rmtree(study.files.place(run), ignore_errors=True)
        shutil.rmtree(study.files.published(run).path, ignore_errors=True)
        study.files.stop_file.unlink(missing_ok=True)
        stopped.clear()
        begun.clear()

        def leaving() -> bool:
            return study.files.stop_token() != "" or bool(begun)

        with moment(stop):
            while not leaving():
                module._do_one(study, [run], Worker(), set(), lambda: False, leaving)


def test_a_folder_that_is_replaced_is_whole_at_all_moments_but_one(tmp_path):
    folder, seen = tmp_path / "report", []

    def look() -> None:
        seen.append(sorted(path.name for path in folder.iterdir()) if folder.exists() else [])

    for moment in moments(tmp_path):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).touch()
        with moment(look), atomic_folder(folder) as partial:
            for name in ("c", "d"):
                (partial / name).touch()
    assert seen.count([]) == 1 and all(names in ([], ["a", "b"], ["c", "d"]) for names in seen)
