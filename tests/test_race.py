"""Races over the files of a study: which runs they take, that they resume anywhere, and what their report says."""

import json
import shutil
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from study_files import StudyFiles
from study_helpers import call, tiny_run
from voxloss.commands.display.execution import show_execution
from voxloss.config.files import load_config
from voxloss.evaluation.race import Look
from voxloss.evaluation.scores import read_scores, write_scores
from voxloss.report import build_report
from voxloss.study.execution.request import Request
from voxloss.study.folder import FINISHED, Run
from voxloss.study.race import decide, next_round
from voxloss.study.study import Study, extended, rewrite_config
from voxloss.utilities.errors import InputError

pytestmark = pytest.mark.slow

# Mean Dice. The last two are far behind, so that they leave; the first two are alike.
MEANS = {"mixed_focal": 0.80, "dice": 0.79, "focal": 0.50, "combo": 0.45}


class Trainings:
    """A race's executor: a run appears as a finished grid has it, and is remembered."""

    def __init__(self, grid: Path, study: Path) -> None:
        self.grid, self.study, self.runs, self.rounds = grid, study, list[Run](), list[int]()
        self.stop_after: int | None = None

    def __call__(self, number: int, runs: Sequence[Run]) -> None:
        self.rounds.append(number)
        for run in runs:
            if self.stop_after is not None and len(self.runs) >= self.stop_after:
                raise KeyboardInterrupt
            place = Path("runs") / run.loss.key / f"fold-{run.fold}" / f"seed-{run.seed}"
            shutil.copytree(self.grid / place, self.study / place, dirs_exist_ok=True)
            self.runs.append(run)


def run_race(
    study: Study, execute: Callable[[int, Sequence[Run]], None], looked: Callable[[Look], None] = lambda _: None
) -> None:
    """As a worker does it: the missing runs of a round, then the decision, until there is none."""
    while (upcoming := next_round(study)) is not None:
        number, runs = upcoming
        if missing := [run for run in runs if study.status(run).state not in FINISHED]:
            execute(number, missing)
        if not decide(study):
            return
        looked(study.race().looks[-1])


@pytest.fixture(scope="session")
def grid(once) -> Path:
    """A full grid of four losses, four folds and three seeds, whose Dice is the loss's mean and some noise."""

    def build(folder: Path) -> None:
        StudyFiles(losses=tuple(MEANS), cases=24, folds=4, seeds=(0, 1, 2), design="race").write(folder)
        random = np.random.default_rng(0)
        for loss, mean in MEANS.items():
            for path in sorted(folder.glob(f"runs/{loss}/*/*/scores.csv")):
                scores = read_scores(path)
                dice = (scores["metric"] == "dice") & (scores["status"] == "ok")
                noise = random.normal(0, 0.03, int(dice.sum())) + random.normal(0, 0.01)
                scores.loc[dice, "value"] = mean + noise
                write_scores(path, scores)

    return once("race_grid", build)


@pytest.fixture
def begin(grid, tmp_path) -> Callable[..., tuple[Path, Trainings]]:
    """`begin(losses, seeds)` is a race without a run, and its executor."""

    def build(losses: Sequence[str] = tuple(MEANS), seeds: Sequence[int] = (0, 1)) -> tuple[Path, Trainings]:
        study = tmp_path / f"race-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(grid, study, ignore=shutil.ignore_patterns("runs", "scores.csv"))
        change(study, losses=list(losses), seeds=list(seeds))
        return study, Trainings(grid, study)

    return build


def change(study: Path, **comparison: object) -> None:
    description = yaml.safe_load((study / "study.yaml").read_text())
    description["config"]["comparison"] |= comparison
    (study / "study.yaml").write_text(yaml.safe_dump(description))


def looks(study: Path) -> list[dict]:
    return json.loads((study / "race.json").read_text())["looks"]


def test_losses_that_left_are_not_trained_any_more(begin):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    left = {one["loss"]: look["round"] for look in looks(study) for one in look["departures"]}
    assert set(left) == {"focal", "combo"}
    assert min(left.values()) < looks(study)[-1]["round"]
    counts = pd.Series([run.loss.key for run in trainings.runs]).value_counts()
    assert counts["focal"] == left["focal"]
    assert counts["combo"] == left["combo"]
    last = looks(study)[-1]
    assert counts["mixed_focal"] == counts["dice"] == last["round"]
    assert last["outcome"] in ("futile", "rounds", "equivalent")
    assert len(trainings.runs) == len(set(map(str, trainings.runs)))
    again = Trainings(trainings.grid, study)
    run_race(Study.open(study), again)
    assert not again.runs  # the race is over


def test_rounds_go_over_the_folds_first_and_the_first_three_come_together(begin):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    assert trainings.rounds[0] == 3
    assert [(run.seed, run.fold) for run in trainings.runs[:12]] == [(0, 0)] * 4 + [(0, 1)] * 4 + [(0, 2)] * 4


@pytest.mark.parametrize("stop_after", [0, 5, 12])
def test_a_race_interrupted_anywhere_has_the_looks_of_an_uninterrupted_one(begin, stop_after):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    other, broken = begin()
    broken.stop_after = stop_after
    with pytest.raises(KeyboardInterrupt):
        run_race(Study.open(other), broken)
    broken.stop_after = None
    run_race(Study.open(other), broken)
    assert looks(other) == looks(study)
    assert sorted(map(str, broken.runs)) == sorted(map(str, trainings.runs))


def test_a_decision_that_was_not_written_is_made_again(begin, monkeypatch):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    other, broken = begin()

    def full(*_: object) -> None:
        raise OSError(28, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("voxloss.study.folder.StudyFolder.write_looks", full)
        with pytest.raises(OSError, match="full"):
            run_race(Study.open(other), broken)
    run_race(Study.open(other), broken)
    assert looks(other) == looks(study)


def test_a_failed_run_decides_nothing(begin):
    study, trainings = begin()
    seen = []

    def failing(number: int, runs: Sequence[Run]) -> None:
        trainings(number, runs)
        status = study / "runs/dice/fold-1/seed-0/status.json"
        status.write_text(status.read_text().replace('"done"', '"failed"'))

    run_race(Study.open(study), failing, seen.append)
    assert not seen
    assert not (study / "race.json").exists()
    run_race(Study.open(study), trainings, seen.append)
    assert [look.round for look in seen] == [look["round"] for look in looks(study)]


def test_seeds_can_be_added_to_a_race_that_is_over(begin):
    study, trainings = begin(seeds=(0,))
    run_race(Study.open(study), trainings)
    before = looks(study)
    assert before[-1]["round"] == 4
    change(study, seeds=[0, 1, 2])
    trainings.runs.clear()
    run_race(Study.open(study), trainings)
    after = looks(study)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    staying = set(before[-1]["losses"]) - {one["loss"] for one in before[-1]["departures"]}
    assert {run.loss.key for run in trainings.runs} == staying
    spent = sum(look["level"] for look in after)
    assert spent < 0.05


def test_a_loss_that_is_added_catches_up(begin):
    study, trainings = begin(losses=("dice", "focal", "combo"))
    run_race(Study.open(study), trainings)
    assert looks(study)[-1]["outcome"] == "one"
    change(study, losses=["dice", "focal", "combo", "mixed_focal"])
    trainings.runs.clear()
    run_race(Study.open(study), trainings)
    last = looks(study)[-1]
    new = [(run.seed, run.fold) for run in trainings.runs if run.loss.key == "mixed_focal"]
    assert new == list(Study.open(study).race().rounds[: last["round"]])
    assert {"focal", "combo"}.isdisjoint(run.loss.key for run in trainings.runs)
    assert sum(look["level"] for look in looks(study)) < 0.05
    assert last["family"] == 4
    assert set(last["losses"]) == {"dice", "mixed_focal"}


def test_a_damaged_file_is_named(begin):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    for text in ("{", "[]", '{"looks": 3}', '{"looks": [{"round": 2}]}', '{"looks": [{"losses": 4}]}'):
        (study / "race.json").write_text(text)
        with pytest.raises(InputError, match=r"race\.json"):
            Study.open(study).runs()


def test_a_grid_may_go_on_as_a_race_and_a_race_not_as_a_grid(grid, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(grid, study)
    change(study, design="grid")
    opened = Study.open(study)
    assert len(opened.runs()) == 4 * 4 * 3
    raced = rewrite_config(opened, extended(opened, load_config(study, ["--comparison.design", "race"])))
    run_race(raced, Trainings(grid, study))
    assert len(raced.runs()) < 4 * 4 * 3
    with pytest.raises(InputError, match=r"comparison\.design = 'race', not 'grid'"):
        extended(raced, load_config(study, ["--comparison.design", "grid"]))


def test_the_report_tells_the_race(begin, blank_figures):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    Study.open(study).merge_scores()
    page = build_report(study).read_text()
    last = looks(study)[-1]
    assert "may be the best by mean DSC of tumour" in page
    assert "The race by mean DSC of tumour" in page
    assert f"ended after round {last['round']}" in page
    table = (study / "report" / "tables" / "race.csv").read_text()
    assert "focal" in table and "needed" in table
    markdown = (study / "report" / "tables" / "race.md").read_text()
    for name in ("Mixed Focal loss", "Dice loss", "Focal loss", "Combo loss"):
        assert name in markdown
    assert "left after round" in markdown
    verdict = (study / "report" / "tables" / "verdict_tumour.csv").read_text()
    assert "combo" not in verdict or "combo" in last["losses"]
    assert "In progress" not in page


def test_a_race_in_progress_is_reported_as_its_last_look(begin, blank_figures):
    study, trainings = begin()
    run_race(Study.open(study), trainings)
    total = looks(study)
    other, broken = begin()
    broken.stop_after = 12 + len(total[0]["losses"]) - len(total[0]["departures"]) - 1
    with pytest.raises(KeyboardInterrupt):
        run_race(Study.open(other), broken)
    assert len(looks(other)) == 1
    page = build_report(other).read_text()
    assert "A race in progress: after 3 of at most 8 rounds" in page
    assert "Go on with the race." in page
    before, _ = begin()
    with pytest.raises(InputError, match="no finished run"):
        build_report(before)


@pytest.mark.parametrize("already", [0, 3, 12])
def test_runs_and_rounds_that_end_between_two_looks_are_shown(begin, already):
    folder, trainings = begin()
    study = Study.open(folder)
    for run in next_round(study)[1][:already]:  # by an earlier command, which did not look at the round
        trainings(1, [run])
    waiting = [run for run in study.race().runs() if study.status(run).state not in FINISHED]
    before = len(trainings.runs)

    class AllAtOnce:
        def start(self, *_: object) -> None: ...

        def stop(self, _: Path) -> None: ...

        def alive(self, _: Path) -> int:
            run_race(study, trainings)
            return 0

    out = StringIO()
    request = Request(tuple(MEANS), (0, 1), stop_token=study.files.stop_token())
    show_execution(study, AllAtOnce(), request, waiting, Console(file=out, width=500))
    said = out.getvalue()
    assert looks(folder)[-1]["outcome"] is not None
    assert [said.count(f" {run} (") for run in trainings.runs] == [0] * before + [1] * (len(trainings.runs) - before)
    assert "The race is over" in said


def test_a_race_on_the_command_line(phantom, tmp_path):
    study = tmp_path / "race"
    words = ["race", *tiny_run(phantom, study, "--seeds", "0,1")[1:]]
    result = call(*words)
    assert result.returncode == 0, result.stderr
    assert "rounds 1 to 2 of at most 4, 2 losses still in, 4 runs left" in " ".join(result.stdout.split())
    assert "The race is over" in result.stdout
    again = call("run", study, "--no-report")
    assert again.returncode == 0, again.stderr
    assert "runs left" not in again.stdout
    shown = call("status", study, "--once")
    assert "The race is over. Still in: " in shown.stdout
    refused = call("run", study, "--folds", "0")
    assert refused.returncode == 2
    assert "a race chooses the folds" in refused.stderr
    alone = call(*words, "--losses", "dice")
    assert alone.returncode == 2
    assert "comparison.design must be 'grid' for a single loss" in alone.stderr
