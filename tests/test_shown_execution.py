"""What `voxloss run` shows while others execute runs, whatever happens between two of its looks."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from study_files import StudyFiles
from voxloss.commands.display import execution
from voxloss.commands.display.execution import show_execution
from voxloss.study.claims import Worker, of_study, take
from voxloss.study.execution import follow as following
from voxloss.study.execution import worker
from voxloss.study.execution.request import Request, not_ended
from voxloss.study.search import decide_searches, executable
from voxloss.study.study import Study

GRID = {"learning_rate": [1e-4, 1e-3, 1e-2], "batch": 1, "prune": True}


@pytest.fixture
def study(tmp_path) -> Study:
    """A study whose runs are to be done, which searches for the learning rate of one loss, a trial at a time."""
    folder = StudyFiles(losses=("dice",), cases=4, folds=2).write(tmp_path / "study")
    shutil.rmtree(folder / "runs")
    (folder / "scores.csv").unlink()
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["config"]["comparison"] |= {"tuning": GRID}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return Study.open(folder)


class Elsewhere:
    """Workers on other machines, which do one thing at a time: a training, or decisions about the next ones."""

    def __init__(self, study: Study) -> None:
        self.study, self.shown = study, io.StringIO()
        self.request = Request(tuple(study.loss_keys), (0,))

    def start(self, *_: object) -> str:
        return ""

    def stop(self, study: Path) -> None:
        pass

    def why_left(self, study: Path) -> str:
        return "they have left"

    def alive(self, study: Path) -> int:
        return int(self.does_something())

    def does_something(self, *, decides: bool = True) -> bool:
        study = Study.open(self.study.folder)
        runs = self.request.runs(study)
        for run in not_ended(study, executable(study, runs)):
            study.write_status(run, state="done", value=0.5, epoch=1)
            return True
        return decides and decide_searches(study, runs)

    def show(self) -> list[str]:
        """Show all runs, and return what was printed of those that ended."""
        console = Console(file=self.shown, width=200)
        show_execution(self.study, self, self.request, self.study.runs(), console)  # type: ignore[arg-type]
        return [line for line in self.shown.getvalue().splitlines() if line.startswith("done")]


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch) -> None:
    monkeypatch.setattr(following.time, "sleep", lambda _: None)


def test_a_trial_that_ends_just_after_a_look_ends_no_display(study, monkeypatch):
    elsewhere, follow = Elsewhere(study), execution.follow

    def and_a_trial_ends(*arguments: object, **options: object) -> bool:
        answer = follow(*arguments, **options)
        while elsewhere.does_something(decides=False):
            pass
        return answer

    monkeypatch.setattr(execution, "follow", and_a_trial_ends)
    lines = elsewhere.show()
    assert len(lines) == len(set(lines)) == 2 * 3 + 2 * 2  # trials, and runs of the loss as listed and as tuned
    assert not not_ended(study, study.runs())


def limited(monkeypatch, most: int) -> list[str]:
    """Let `follow` be called so many times at most; returns a list that is as long as it was called."""
    calls, follow = [], execution.follow

    def counted(*arguments: object, **options: object) -> bool:
        calls.append("follow")
        assert len(calls) <= most, "it looks again and again, without a rest"
        return follow(*arguments, **options)

    monkeypatch.setattr(execution, "follow", counted)
    return calls


def test_the_search_of_a_loss_that_is_retired_is_not_waited_for(study, monkeypatch):
    class Retiring(Elsewhere):
        def alive(self, folder: Path) -> int:
            trials = list(folder.glob("tuning/*/*/trial-*"))
            if len(trials) >= 3 and not study.files.retired_file.exists():
                study.files.write_retired({"dice-tuned": {}})
            return super().alive(folder)

    limited(monkeypatch, 20)
    lines = Retiring(study).show()
    assert len([line for line in lines if "trial" not in line]) == 2


@pytest.mark.parametrize("place", ["search-dice-0", "race"])
def test_a_worker_rests_while_another_decides(study, monkeypatch, place):
    """Who decides may have died on another machine; that is seen after some minutes."""
    slept, looks = [], []
    assert take(of_study(study.folder, place), Worker(host="elsewhere", process=None)) is not None

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            raise Enough

    def counted(original: Callable) -> Callable:
        def look(*arguments: object) -> object:
            looks.append(1)
            if len(looks) > 50:
                pytest.fail("it never rests")
            return original(*arguments)

        return look

    if place == "race":
        content = yaml.safe_load(study.files.description_file.read_text())
        content["config"]["comparison"] |= {"tuning": {}, "design": "race", "losses": ["dice", "focal"]}
        study.files.description_file.write_text(yaml.safe_dump(content))
        study = Study.open(study.folder)
        for run in study.runs():
            study.write_status(run, state="done")
        request = Request(("dice", "focal"), (0,))
    else:
        request = Request(("dice-tuned",), (0,), folds=(0,))
    monkeypatch.setattr(worker.time, "sleep", sleep)
    for name in ("decide", "decide_searches"):
        monkeypatch.setattr(worker, name, counted(getattr(worker, name)))
    with pytest.raises(Enough):
        worker.work(study.folder, request)
    assert slept == sorted(slept)
