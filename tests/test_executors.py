"""The processes that execute runs."""

from types import SimpleNamespace

import pytest
import torch

from voxloss.config.schema import ComparisonConfig, ExecutionConfig, SplitsConfig, StudyConfig
from voxloss.study.execution.follow import Helpers
from voxloss.study.execution.local import LocalExecutor, tuned_for_training
from voxloss.study.execution.request import Request
from voxloss.training.device import gpus_of_runs, runs_at_once


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
