"""The processes that execute runs."""

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from study_files import StudyFiles
from study_helpers import InlineExecutor, call, tiny_run
from voxloss.config.schema import ComparisonConfig, ExecutionConfig, SplitsConfig, StudyConfig
from voxloss.evaluation.scores import read_scores
from voxloss.study.execution import follow as following
from voxloss.study.execution import local
from voxloss.study.execution.follow import Helpers, follow
from voxloss.study.execution.local import LocalExecutor, tuned_for_training
from voxloss.study.execution.request import Request
from voxloss.study.folder import Run
from voxloss.study.study import Study
from voxloss.training.device import gpus_of_runs, runs_at_once
from voxloss.utilities.errors import InputError


def test_worker_processes_are_tuned_for_training_unless_the_user_says_otherwise():
    pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert tuned_for_training({"HOME": "/"}) == {"HOME": "/", "GOMP_SPINCOUNT": "1000", **pages}
    assert tuned_for_training({"OMP_WAIT_POLICY": "active"}) == {"OMP_WAIT_POLICY": "active", **pages}
    own = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "GOMP_SPINCOUNT": "5"}
    assert tuned_for_training(own) == own


@pytest.mark.parametrize(
    ("settings", "visible", "expected"),
    [
        ({}, None, ["0", "1", "2", "3"]),
        ({}, "5,GPU-ab", ["5", "GPU-ab"]),
        ({}, "5", []),
        ({"devices_per_run": 2}, None, ["0,1", "2,3"]),
        ({"devices_per_run": 3}, None, []),
        ({"device": "cuda:1"}, None, []),
        ({"device": "cpu"}, None, []),
        ({"device": "cuda", "parallel": 6}, None, ["0", "1", "2", "3"]),
    ],
)
def test_each_run_gets_a_gpu_where_there_are_several(monkeypatch, tmp_path, settings, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    execution = ExecutionConfig(**settings)
    assert gpus_of_runs(execution) == expected
    assert runs_at_once(execution) == (settings.get("parallel") or max(1, len(expected)))
    executor, started = LocalExecutor(), []
    monkeypatch.setattr(executor, "_started", started.append)
    executor.start(tmp_path, execution, 5, Request((), ()))
    assert started == list(range(min(5, runs_at_once(execution))))
    devices = [variables.get("CUDA_VISIBLE_DEVICES") for variables in executor._variables]
    assert devices == [expected[number % len(expected)] if expected else None for number in range(len(devices))]


def test_on_a_cpu_one_run_is_executed_unless_the_user_says_so():
    assert runs_at_once(ExecutionConfig(device="cpu")) == 1
    assert runs_at_once(ExecutionConfig(device="cpu", parallel=3)) == 3


@pytest.mark.parametrize(
    ("folds", "networks", "expected"),
    [(None, (), 2 * 3 * 2), ((1,), (), 2 * 1 * 2), (None, ("unet", "segresnet"), 2 * 3 * 2 * 2)],
)
def test_as_many_workers_help_to_prepare_as_the_new_study_has_runs(tmp_path, folds, networks, expected):
    started, stopped = [], []
    executor = SimpleNamespace(
        start=lambda folder, settings, workers, request: started.append((folder, settings, workers, request)),
        stop=stopped.append,
    )
    request = Request(losses=("dice", "focal"), seeds=(0, 1), folds=folds)
    config = StudyConfig(splits=SplitsConfig(folds=3), comparison=ComparisonConfig(networks=networks))
    helpers = Helpers(executor, tmp_path, request)  # type: ignore[arg-type]
    helpers.stop()
    assert not stopped
    helpers.start(config)
    assert started == [(tmp_path, config.execution, expected, request)]
    helpers.stop()
    assert stopped == [tmp_path]


def test_detached_workers_are_counted(monkeypatch, tmp_path, phantom, own_study):
    monkeypatch.setattr(local, "_detach", lambda *_: None)
    request, settings = Request(("dice",), (0,), detached=True), ExecutionConfig(device="cpu", parallel=3)
    said = [LocalExecutor().start(tmp_path, settings, runs, request) for runs in (1, 7)]
    assert said == [f"1 worker started on {platform.node()}", f"3 workers started on {platform.node()}"]
    (own_study / "runs/dice/fold-0/seed-0/status.json").unlink()
    lines = call(*tiny_run(phantom, own_study, "--detach")).stdout.splitlines()[-3:]
    assert lines == ["1 worker in this process.", f"voxloss status {own_study}", f"voxloss stop {own_study}"]


class Absent:
    """An executor whose workers have left."""

    def alive(self, study: Path) -> int:
        return 0

    def why_left(self, study: Path) -> str:
        return "the last log says why"


def follow_one(folder: Path, poll: Callable[[Study, Run], None]) -> list[str]:
    """Follow one run of a study, and return its states; `poll` is what others do between two looks."""
    study = Study.open(StudyFiles(losses=("dice",), cases=4, folds=2, skip={("dice", 1, 0)}).write(folder))
    (run,) = (run for run in study.runs() if run.fold == 1)
    request, states = Request(("dice",), (0,), stop_token=study.files.stop_token()), list[str]()
    follow(study, Absent(), request, [run], lambda _, state: states.append(state), lambda: poll(study, run))  # type: ignore[arg-type]
    return states


def test_workers_of_another_command_are_waited_for_between_two_of_their_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "LEAVE_SECONDS", 1e6)
    looks = []

    def work(study: Study, run: Run) -> None:
        looks.append(run)
        if len(looks) == 2:
            study.files.write_status(replace(study.status(run), state="done"))

    assert follow_one(tmp_path / "study", work) == ["done"]


def test_runs_that_nobody_does_any_more_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "LEAVE_SECONDS", 0)
    with pytest.raises(InputError, match="the last log says why"):
        follow_one(tmp_path / "study", lambda *_: None)


def test_the_run_of_a_loss_that_is_retired_is_not_waited_for(tmp_path):
    assert follow_one(tmp_path / "study", lambda study, _: call("retire", study.folder, "dice")) == []


def test_scores_that_another_command_has_added_meanwhile_are_kept(monkeypatch, phantom, own_study):
    (own_study / "runs/dice/fold-0/seed-0/status.json").unlink()
    alive, others = InlineExecutor.alive, []

    def after_another_command(executor: InlineExecutor, study: Path) -> int:
        if not others:
            others.append(study)
            added = call("run", study, "--losses", "focal", "--folds", "0", "--no-report")
            assert added.returncode == 0, added.stderr
        return alive(executor, study)

    monkeypatch.setattr(InlineExecutor, "alive", after_another_command)
    result = call(*tiny_run(phantom, own_study))
    assert result.returncode == 0, result.stderr
    assert others and set(read_scores(own_study / "scores.csv")["loss"]) == {"dice", "mixed_focal", "focal"}
