"""Searches for settings: their trials, that they resume anywhere and never see the scored fold, and their report."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from study_files import StudyFiles
from study_helpers import TINY, call, command, tiny_run
from voxloss.config.files import load_config
from voxloss.config.losses import LossChoice
from voxloss.evaluation.scores import read_scores, write_scores
from voxloss.evidence.add import _finished_scores as finished_scores
from voxloss.report import build_report
from voxloss.report.figures.tuning import smoothed
from voxloss.report.tuning import expected_best
from voxloss.study import trial as trial_module
from voxloss.study.claims import Worker, of_study, take
from voxloss.study.execution.request import Request
from voxloss.study.folder import FINISHED, Run, RunStatus
from voxloss.study.jobs import training_job
from voxloss.study.plan import plan
from voxloss.study.probe import Probe
from voxloss.study.search import Place, decide_searches, executable, is_ready, places_of, trials_of
from voxloss.study.study import Study, extended
from voxloss.study.trial import class_dice, mean_dice, stopping_level
from voxloss.training.history import Epoch
from voxloss.utilities.errors import InputError

SEARCH = {
    "trials": 12,
    "learning_rate": [1e-5, 1e-2, "log"],
    "dice.smooth": [0, 1],
    "mixed_focal.weight": [0, 1],
    "mixed_focal.gamma_focal": [0, 4],
}


@pytest.fixture(scope="session")
def plain_study(once) -> Path:
    def build(folder: Path) -> None:
        StudyFiles(losses=("dice", "mixed_focal"), cases=8, folds=2).write(folder)

    return once("plain_study", build)


@pytest.fixture
def begin(plain_study, tmp_path) -> Callable[..., Study]:
    """`begin(tuning)` is a study without a run that searches for settings."""

    def build(tuning: dict = SEARCH, **comparison: object) -> Study:
        folder = tmp_path / f"study-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(plain_study, folder, ignore=shutil.ignore_patterns("runs", "scores.csv"))
        (folder / "runs").mkdir()
        description = yaml.safe_load((folder / "study.yaml").read_text())
        description["config"]["comparison"] |= {"tuning": tuning, **comparison}
        (folder / "study.yaml").write_text(yaml.safe_dump(description))
        return Study.open(folder)

    return build


class Trainings:
    """In the place of training: the score is a function of the setting."""

    def __init__(self, study: Study, stop_after: int | None = None) -> None:
        self.study, self.stop_after, self.runs = study, stop_after, list[Run]()

    def __call__(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if self.stop_after is not None and len(self.runs) >= self.stop_after:
                raise KeyboardInterrupt
            self.runs.append(run)
            self.study.write_status(run, state="done", value=score(self.study.setting_of(run)))


def score(setting: dict) -> float:
    """Best at a learning rate of 1e-3."""
    return 0.9 - 0.1 * abs(np.log10(setting["learning_rate"]) + 3) - 0.1 * setting.get("weight", 0.5)


def next_trials(study: Study, loss: LossChoice, fold: int, network: str | None = None) -> list[Run]:
    """Decide as workers do, and return the trials that they would claim next."""
    decide_searches(study, [Run(replace(loss, tuned=True), fold, 0, network=network)])
    trials = trials_of(study, [(loss.listed, fold, network)])
    return [run for run in trials if study.status(run).state not in FINISHED]


def run_searches(study: Study, places: Sequence[Place], execute: Callable[[Sequence[Run]], None]) -> list[RunStatus]:
    """Execute trials until every search is finished or has a trial that failed; return these."""
    going, failed = list(places), list[RunStatus]()
    while going:
        trials = [(place, runs) for place in going if (runs := next_trials(study, *place))]
        if trials:
            execute([run for _, runs in trials for run in runs])
        going = []
        for place, runs in trials:
            unfinished = [status for run in runs if (status := study.status(run)).state not in FINISHED]
            failed += unfinished
            if not unfinished:
                going.append(place)
    return failed


def searches(study: Study) -> dict[str, object]:
    return {
        str(path.relative_to(study.folder)): json.loads(path.read_text()) for path in study.folder.rglob("search.json")
    }


def settings(study: Study, loss: str, fold: int) -> list[dict]:
    found = searches(study)[f"tuning/{loss}/fold-{fold}/search.json"]
    return [trial["setting"] for trial in found["trials"]]


def places(study: Study) -> list[Place]:
    return places_of([Run(loss, fold, 0) for loss in study.losses for fold in (0, 1)])


SHORT = SEARCH | {"trials": 6, "batch": 3}


def test_every_search_has_the_same_number_of_trials_within_its_ranges(begin):
    study = begin()
    assert not run_searches(study, places(study), Trainings(study))
    assert len(searches(study)) == 4
    for found in searches(study).values():
        assert len(found["trials"]) == 12
        for trial in found["trials"]:
            assert 1e-5 <= trial["setting"]["learning_rate"] <= 1e-2
            assert all(0 <= trial["setting"].get(name, 0) <= 1 for name in ("smooth", "weight"))
    assert set(settings(study, "mixed_focal", 0)[0]) == {"learning_rate", "weight", "gamma_focal"}


def test_the_listed_setting_is_tried_first_and_the_best_is_chosen(begin):
    study = begin()
    run_searches(study, places(study), Trainings(study))
    found = searches(study)["tuning/dice/fold-0/search.json"]
    assert found["trials"][0]["source"] == "listed"
    assert found["trials"][0]["setting"]["learning_rate"] == study.config.training.learning_rate
    values = [score(trial["setting"]) for trial in found["trials"]]
    assert found["chosen"] == int(np.argmax(values))
    tuned = next(loss for loss in study.losses if loss.key == "dice-tuned")
    run = Run(tuned, 0, 0)
    assert is_ready(study, run)
    setting = found["trials"][found["chosen"]]["setting"]
    assert study.config_of(run).training.learning_rate == setting["learning_rate"]
    assert study.parameters_of(run) == {"smooth": setting["smooth"]}
    assert study.config_of(Run(tuned.listed, 0, 0)) == study.config


def test_the_sampler_learns_from_the_scores(begin):
    study = begin(SEARCH | {"trials": 40})
    run_searches(study, places(study)[:1], Trainings(study))
    values = [score(setting) for setting in settings(study, "dice", 0)]
    assert np.mean(values[-12:]) > np.mean(values[:12])


@pytest.mark.parametrize("stop_after", [0, 5, 12, 23])
def test_a_search_interrupted_anywhere_has_the_trials_of_an_uninterrupted_one(begin, stop_after):
    whole, broken = begin(SHORT), begin(SHORT)
    run_searches(whole, places(whole), Trainings(whole))
    interrupted = Trainings(broken, stop_after)
    with pytest.raises(KeyboardInterrupt):
        run_searches(broken, places(broken), interrupted)
    resumed = Trainings(broken)
    run_searches(broken, places(broken), resumed)
    assert searches(broken) == searches(whole)
    assert len(interrupted.runs) + len(resumed.runs) == 24


def test_a_round_that_was_not_written_is_chosen_again(begin, monkeypatch):
    whole, broken = begin(SHORT), begin(SHORT)
    run_searches(whole, places(whole), Trainings(whole))

    def full(*_: object) -> None:
        raise OSError(28, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("voxloss.study.folder.StudyFolder.write_search", full)
        with pytest.raises(OSError, match="full"):
            run_searches(broken, places(broken), Trainings(broken))
    run_searches(broken, places(broken), Trainings(broken))
    assert searches(broken) == searches(whole)


def test_the_order_in_which_trials_finish_changes_nothing(begin):
    whole, other = begin(SHORT), begin(SHORT)
    run_searches(whole, places(whole), Trainings(whole))
    trainings = Trainings(other)
    run_searches(other, places(other)[::-1], lambda runs: trainings(runs[::-1]))
    assert searches(other) == searches(whole)


def test_the_random_start_is_the_same_for_every_loss(begin):
    study = begin({"trials": 8, "learning_rate": [1e-5, 1e-2, "log"]})
    run_searches(study, places(study), Trainings(study))
    assert settings(study, "dice", 0)[:4] == settings(study, "mixed_focal", 0)[:4]
    assert settings(study, "dice", 0)[1:4] != settings(study, "dice", 1)[1:4]


def test_a_grid_is_one_round_in_the_order_of_its_lists(begin):
    study = begin({"learning_rate": [1e-3, 1e-4], "dice.smooth": [0, 1], "mixed_focal.weight": [0.2, 0.8]})
    waiting = next_trials(study, study.losses[0], 0)
    assert [run.trial for run in waiting] == [0, 1, 2, 3]
    assert settings(study, "dice", 0)[2] == {"learning_rate": 1e-4, "smooth": 0}
    assert next_trials(study, study.losses[0], 0) == waiting  # still the same, as none has finished


def test_whole_numbers_and_lists_keep_their_form(begin):
    tuning = {"trials": 6, "topk.top_k": [5, 20], "ml1_ace.bins": [5, 30], "focal.alpha": [[0.2, 0.8], 0.5, None]}
    study = begin(tuning, losses=["topk", "ml1_ace", "focal"])
    run_searches(study, places(study), lambda runs: [study.write_status(run, state="done", value=0.5) for run in runs])
    assert all(isinstance(setting["top_k"], float | int) for setting in settings(study, "topk", 0))
    assert all(isinstance(setting["bins"], int) for setting in settings(study, "ml1_ace", 0))
    assert all(setting["alpha"] in ([0.2, 0.8], 0.5, None) for setting in settings(study, "focal", 0))


def test_trials_that_stopped_early_are_never_chosen_and_those_that_diverged_count_as_0(begin):
    study = begin({"trials": 4, "learning_rate": [1e-5, 1e-2, "log"]})

    def execute(runs: Sequence[Run]) -> None:
        for run, (state, value) in zip(
            runs, (("pruned", None), ("diverged", None), ("done", 0.001), ("done", 0.0)), strict=True
        ):
            study.write_status(run, state=state, value=value)

    run_searches(study, places(study)[:1], execute)
    assert study.search(study.losses[0], 0).chosen == 2


def test_of_equal_scores_the_listed_setting_is_chosen(begin):
    study = begin({"learning_rate": [1e-2, 3e-4, 1e-3]})  # listed: 3e-4
    run_searches(study, places(study), lambda runs: [study.write_status(run, state="done", value=0.0) for run in runs])
    assert study.search(study.losses[0], 0).chosen == 1
    other = begin({"learning_rate": [1e-2, 1e-3]})
    run_searches(other, places(other), lambda runs: [other.write_status(run, state="done", value=0.0) for run in runs])
    assert other.search(other.losses[0], 0).chosen == 0


def test_a_failed_trial_waits_for_another_run_and_the_other_searches_go_on(begin):
    study = begin()

    def execute(runs: Sequence[Run]) -> None:
        Trainings(study)(runs)
        for run in runs:
            if (run.loss.key, run.fold, run.trial) == ("dice", 0, 5):
                study.write_status(run, state="failed", reason="the disk is full", value=None)

    failed = run_searches(study, places(study), execute)
    assert [str(status.run) for status in failed] == ["dice, fold 0, trial 5"]
    chosen = {name: found["chosen"] is not None for name, found in searches(study).items()}
    assert chosen.pop("tuning/dice/fold-0/search.json") is False
    assert all(chosen.values())
    tuned = next(loss for loss in study.losses if loss.key == "dice-tuned")
    assert not is_ready(study, Run(tuned, 0, 0))
    with pytest.raises(InputError, match="dice-tuned, fold 0, seed 0 has no setting yet"):
        study.config_of(Run(tuned, 0, 0))
    asked = Request(losses=("dice-tuned", "mixed_focal-tuned"), seeds=(0,), folds=(0,))
    assert asked.is_left(study)  # mixed_focal as tuned
    study.write_status(Run(next(loss for loss in study.losses if loss.key == "mixed_focal-tuned"), 0, 0), state="done")
    assert not asked.is_left(study)  # so that executors do not miss the workers that have left
    again = Trainings(study)
    run_searches(study, places(study), again)
    assert again.runs[0].trial == 5
    assert is_ready(study, Run(tuned, 0, 0))


def test_listed_losses_come_first_and_tuned_ones_wait_for_their_setting(begin):
    study = begin(SHORT)
    assert [str(run) for run in executable(study, study.runs())] == [
        f"{loss}, fold {fold}, seed 0" for fold in (0, 1) for loss in ("dice", "mixed_focal")
    ]
    run_searches(study, places(study)[:1], Trainings(study))
    next_trials(study, study.losses[1], 0)
    found = [str(run) for run in executable(study, study.runs())][4:]
    assert found == [*(f"mixed_focal, fold 0, trial {number}" for number in range(3)), "dice-tuned, fold 0, seed 0"]


def test_while_another_process_decides_a_search_nobody_else_does(begin):
    study = begin()
    tuned = [Run(replace(study.losses[0], tuned=True), 0, 0)]
    claim = take(of_study(study.folder, "search-dice-0"), Worker())
    assert claim is not None
    assert decide_searches(study, tuned)  # a decision is under way
    assert not searches(study)
    claim.release()
    assert decide_searches(study, tuned)
    assert len(settings(study, "dice", 0)) == 4
    assert not decide_searches(study, tuned)


def test_a_damaged_record_is_named(begin):
    study = begin()
    run_searches(study, places(study)[:1], Trainings(study))
    path = study.files.search_file(study.losses[0], 0)
    for text in ("{", "[]", "{}", '{"trials": [{"number": 1}], "chosen": null}', '{"trials": [], "chosen": 0}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"search\.json"):
            next_trials(study, study.losses[0], 0)


def test_trials_never_see_the_scored_fold(begin):
    study = begin()
    for fold, scored in enumerate(study.folds):
        split = study.trial_split(fold)
        assert not {*split.training, *split.inner} & {*scored}
        assert not {*split.training} & {*split.inner}
        assert {*split.training, *split.inner, *scored} == {case.case_id for case in study.dataset.cases}


def test_a_search_may_be_added_to_a_study_and_not_changed(plain_study, begin):
    study = Study.open(plain_study)
    words = ["--comparison.tuning", "{learning_rate: [1e-3, 1e-4]}"]
    recorded = study.description.config
    more = extended(study, load_config(plain_study, words, recorded))
    assert [loss.key for loss in more.losses] == ["dice", "mixed_focal", "dice-tuned", "mixed_focal-tuned"]
    searched = begin({"learning_rate": [1e-3, 1e-4]})
    assert extended(searched, load_config(searched.folder, words, searched.description.config)).tuning is not None
    other = ["--comparison.tuning", "{learning_rate: [1e-3, 1e-4, 1e-5]}"]
    with pytest.raises(InputError, match=r"was created with comparison\.tuning = "):
        extended(searched, load_config(searched.folder, other, searched.description.config))


def test_a_sampler_that_is_not_installed_is_named(begin, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = call(
        "plan", "demo", "--data", begin().folder, "--comparison.tuning", "{trials: 3, learning_rate: [1e-4, 1e-3]}"
    )
    assert result.returncode == 2
    assert "needs Optuna" in result.stderr and "[search]" in result.stderr


def epochs(*dice: float) -> list[Epoch]:
    return [Epoch(number, 1.0, 1.0, value, 1.0, "x") for number, value in enumerate(dice, start=1)]


@pytest.mark.parametrize(
    ("history", "level"),
    [
        (epochs(0.0), None),  # a third of the epochs is free
        (epochs(0.0, 0.1), 0.35),  # the median of 0.2, 0.3, 0.4 and 0.5
        (epochs(0.0, 0.4), None),
        (epochs(0.4, 0.1), None),  # its best epoch counts
        (epochs(0.0, 0.1, float("nan")), 0.6),
        (epochs(0.0, 0.1, 0.1, 0.1, 0.1, 0.1), None),  # nothing is left to save
    ],
)
def test_a_trial_stops_below_the_median_of_earlier_ones(history, level):
    earlier = [epochs(0.1, last, 0.6, 0.7, 0.8, 0.9) for last in (0.2, 0.3, 0.4, 0.5)]
    assert stopping_level(history, earlier, 6) == (None if level is None else pytest.approx(level))
    assert stopping_level(history, earlier[:3], 6) is None


def test_dice_of_a_trial_by_hand():
    reference = np.array([[0, 1, 1, 2, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 0, 0, 1]], dtype=np.uint8)
    values = class_dice(reference, predicted, 4, 255)
    assert values[:2] == [pytest.approx(2 / 3), 0.0]
    assert np.isnan(values[2])
    assert mean_dice([values, [1.0, float("nan"), float("nan")]]) == pytest.approx(((2 / 3 + 1) / 2 + 0) / 2)
    assert mean_dice([[float("nan")]]) == 0.0


def test_the_expected_best_is_the_mean_over_all_orders():
    values = np.array([0.3, 0.9, 0.1, 0.5])
    orders = [np.maximum.accumulate(order) for order in itertools.permutations(values)]
    np.testing.assert_allclose(expected_best(values), np.mean(orders, axis=0))


def test_smoothing_of_one_value_is_that_value():
    smooth, weight = smoothed([np.linspace(0, 1, 5)], [np.array([0.5])], np.array([0.7]))
    np.testing.assert_allclose(smooth, 0.7)
    assert weight[2] == 1 and weight[0] < weight[1]


@pytest.mark.slow
def test_the_report_has_both_settings_and_what_the_search_found(plain_study, begin, blank_figures):
    study = begin(SEARCH | {"epochs": 5})
    shutil.copytree(plain_study / "runs", study.folder / "runs", dirs_exist_ok=True)
    for loss in study.losses[:2]:  # the runs as tuned: those of the other loss, under its name
        shutil.copytree(study.folder / "runs" / loss.key, study.folder / "runs" / f"{loss.key}-tuned")
        for path in (study.folder / "runs" / f"{loss.key}-tuned").rglob("scores.csv"):
            write_scores(path, read_scores(path).assign(loss=f"{loss.key}-tuned"))
    trainings = Trainings(study)

    def execute(runs: Sequence[Run]) -> None:
        trainings(runs)
        pruned = [run for run in runs if run.trial == 7]
        for run in pruned:
            study.write_status(run, state="pruned", reason="stopped early", value=None)

    run_searches(study, places(study), execute)
    study.merge_scores()
    assert set(finished_scores(study)[0]["loss"]) == {"dice", "mixed_focal"}  # what evidence takes
    page = build_report(study.folder).read_text()
    for words in (
        "Dice loss, tuned", "Mixed Focal loss, tuned", "As listed and as tuned", "Response of Mixed Focal loss",
        "Score against tuning budget", "every loss had 12 trials for each fold", "A trial had 5 epochs",
        "4 trials stopped early", "All 48 trials", "TPE of Optuna",
    ):  # fmt: skip
        assert words in page, words
    tables = study.folder / "report" / "tables"
    assert len((tables / "trials.csv").read_text().splitlines()) == 49
    scores = read_scores(study.files.scores_file).query("metric == 'dice' and `class` == 'tumour'")
    means = scores.groupby("loss")["value"].mean()
    for row in pd.read_csv(tables / "tuning.csv").to_dict("records"):
        assert row["difference"] == pytest.approx(means[f"{row['loss']}-tuned"] - means[row["loss"]])
        assert row["trials"] == 24 and row["stopped_early"] == 2
    chosen = (tables / "settings.md").read_text()
    assert "λ" in chosen and chosen.count("| Mixed Focal loss | ") == 2
    assert "| Dice loss | " in (tables / "tuning.md").read_text()


def test_status_counts_the_trials(begin):
    study = begin()
    run_searches(study, places(study)[:1], Trainings(study))
    status = call("status", study.folder, "--once")
    assert status.returncode == 0, status.stderr
    assert "12 of 12" in status.stdout and "0 of 12" in status.stdout


def test_a_plan_counts_trials_and_both_runs_of_a_loss(phantom, monkeypatch):
    def measured(*_: object) -> Probe:
        return Probe((8, 16, 16), 1000, step=0.5, forward=0.1, memory=None, others=0.0, slowed=1.0)

    monkeypatch.setattr("voxloss.study.plan.probe", measured)
    words = [*TINY, "--data.root", str(phantom), "--comparison.losses", "[dice, mixed_focal]"]
    tuning = "{learning_rate: [1e-3, 3e-4, 1e-4], epochs: 1}"
    planned = plan(load_config("demo", [*words, "--comparison.tuning", tuning]))
    assert (planned.runs, planned.trials) == (2 * 2 * 2, 3 * 2 * 2)
    training = 1 * (2 * 0.5 + 2 * 0.1)  # an epoch of two steps, and its validation of one batch of two patches
    whole = planned.prediction / (2 * 2)  # of all cases once
    assert planned.search == pytest.approx(12 * (training + whole * 0.2 * 0.5))


@pytest.mark.slow
def test_a_study_with_a_search_from_the_data_to_the_scores(phantom, tmp_path, monkeypatch):
    folder, jobs, failed = tmp_path / "study", [], list[Run]()

    def watched(*arguments: object):
        jobs.append(training_job(*arguments))
        return jobs[-1]

    def histories(study: Study, run: Run) -> list[list[Epoch]]:
        if str(run) == "mixed_focal, fold 0, trial 1" and not failed:
            failed.append(run)
            raise RuntimeError("no space left")
        worse = (run.loss.key, run.fold, run.trial) == ("dice", 1, 1)
        return [epochs(1.0, 1.0)] * 4 if worse else []

    monkeypatch.setattr(trial_module, "training_job", watched)
    monkeypatch.setattr(trial_module, "_earlier_histories", histories)
    search = ["--comparison.tuning", "{learning_rate: [1e-3, 3e-4], prune: true, batch: 1}"]
    result = call(*tiny_run(phantom, folder, *search))
    assert result.returncode == 2
    assert "1 training failed (mixed_focal, fold 0, trial 1: RuntimeError: no space left)" in result.stderr
    states = [Study.open(folder).status(run).state for run in Study.open(folder).runs()]
    assert (states.count("done"), states.count("pending")) == (7, 1)  # its tuned run waits
    again = call(*tiny_run(phantom, folder))  # the search is the study's, and need not be said again
    assert again.returncode == 0, again.stderr
    study = Study.open(folder)
    assert all(study.status(run).state == "done" for run in study.runs())
    assert {run.loss.key for run in study.runs()} == {"dice", "mixed_focal", "dice-tuned", "mixed_focal-tuned"}
    trials = [study.status(run) for run in trials_of(study, places(study))]
    pruned = [one for one in trials if one.state == "pruned"]
    assert [str(one.run) for one in pruned] == ["dice, fold 1, trial 1"]
    assert pruned[0].epoch == 1 and "below the median of earlier trials, 1.000" in str(pruned[0].reason)
    assert len(study.run_folder(pruned[0].run).history()) == 1
    assert study.search(study.losses[0], 1).chosen == 0
    done = [one for one in trials if one.state == "done"]
    assert len(done) == 7 and all(one.value is not None and 0 <= one.value <= 1 for one in done)
    for fold in (0, 1):
        assert len({one.batch_digest for one in done if one.fold == fold}) == 1
    assert len(jobs) == 9
    for job in jobs:
        seen = {case.folder.name for case in (*job.training_cases, *job.validation_cases)}
        scored = {study.files.read_prepared()[case_id].name for case_id in study.folds[job.fold]}
        assert seen and not seen & scored
    assert not list((folder / "tuning").rglob("*.pt"))
    for run in study.runs():
        if run.loss.tuned:
            setting = study.search(run.loss, run.fold).setting
            assert setting is not None and study.status(run).setting == setting
            assert study.run_folder(run).history()[0].learning_rate == pytest.approx(setting["learning_rate"])


@pytest.mark.slow
def test_two_workers_find_what_one_finds(phantom, tmp_path):
    tuning = "{trials: 3, batch: 2, learning_rate: [1e-4, 1e-2, log], dice.smooth: [0, 1]}"
    words = ["--losses", "dice", "--comparison.tuning", tuning, "--execution.threads", "1"]
    one = call(*tiny_run(phantom, tmp_path / "one", *words))
    two = command(*tiny_run(phantom, tmp_path / "two", *words, "--execution.parallel", "2"))
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    first, second = Study.open(tmp_path / "one"), Study.open(tmp_path / "two")
    assert searches(first) == searches(second)
    for run in (*trials_of(first, places(first)), *first.runs()):
        assert first.status(run).value == second.status(run).value
        assert first.status(run).batch_digest == second.status(run).batch_digest
    assert (tmp_path / "one" / "scores.csv").read_text() == (tmp_path / "two" / "scores.csv").read_text()
    for done in (one, two):  # also trials that end between two looks
        said = " ".join(done.stdout.split())
        assert all(said.count(f" {run} (") == 1 for run in (*trials_of(first, places(first)), *first.runs())), said


def test_epochs_of_a_trial(begin):
    study = begin(SEARCH | {"epochs": 3})
    (first, *_) = next_trials(study, study.losses[0], 0)
    assert study.config_of(first).training.epochs == 3
    assert study.config_of(replace(first, trial=None)).training.epochs == 8
