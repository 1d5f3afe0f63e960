"""What a run records of its start and its machine, and a study that moves to another machine without its weights."""

import hashlib
import json
import shutil

import pytest
import torch

from study_helpers import call, tiny_run
from voxloss.study.folder import Run, RunStatus, StudyFolder
from voxloss.study.machines import machine_text, machines_of
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state, save_state, weight_digest
from voxloss.training.networks import make_network

H200 = {"python": "3.12.3", "voxloss": "0.1.0", "torch": "2.11.0", "processor": "Xeon", "gpu": "NVIDIA H200"}


def statuses(study: Study) -> dict[tuple[str, int, int], RunStatus]:
    return {(run.loss.key, run.fold, run.seed): study.status(run) for run in study.runs()}


def test_a_digest_is_of_names_types_shapes_and_values():
    state = {"b": torch.tensor([1.5]), "a": torch.tensor([[1, 2]])}
    bytes_of = b"a torch.int64 (1, 2);" + torch.tensor([1, 2]).numpy().tobytes()
    bytes_of += b"b torch.float32 (1,);" + torch.tensor([1.5]).numpy().tobytes()
    assert weight_digest(state) == hashlib.blake2b(bytes_of, digest_size=16).hexdigest()
    others = (
        {**state, "b": torch.tensor([1.25])},
        {**state, "a": torch.tensor([1, 2])},
        {"b": torch.tensor([1.5]), "c": torch.tensor([[1, 2]])},
        {**state, "b": torch.tensor(1.5)},
    )
    assert len({weight_digest(one) for one in (state, *others)}) == 5
    assert weight_digest({"a": state["a"], "b": state["b"]}) == weight_digest(state)
    assert weight_digest({"a": torch.zeros(2, dtype=torch.bfloat16)}) != weight_digest({"a": torch.zeros(2)})


def test_losses_began_with_equal_weights_and_folds_did_not(tiny_study):
    digests = {key: status.weight_digest for key, status in statuses(Study.open(tiny_study)).items()}
    assert None not in digests.values()
    assert digests["dice", 0, 0] == digests["mixed_focal", 0, 0] != digests["dice", 1, 0]
    assert digests["dice", 1, 0] == digests["mixed_focal", 1, 0]


def test_the_digest_is_of_the_weights_before_the_first_step(tiny_study, monkeypatch):
    """The network is made once more, by what the study's configuration and the seed of weights say."""
    from voxloss.training.batches import seed_of
    from voxloss.training.train import _WEIGHTS

    study = Study.open(tiny_study)
    torch.manual_seed(seed_of(0, 1, _WEIGHTS))
    network = make_network(study.config.network, study.config.patches.size, 1, 3)
    assert statuses(study)["dice", 1, 0].weight_digest == weight_digest(network.state_dict())


def test_every_run_names_its_machine(tiny_study):
    study = Study.open(tiny_study)
    for status in statuses(study).values():
        (environment,) = status.environments
        assert environment == {**study.description.environment, "device": "cpu"}


def test_a_resumed_run_keeps_the_digest_that_it_began_with_or_none(phantom, own_study):
    """A checkpoint of an earlier version has none, and the weights that it began with are gone."""
    study = Study.open(own_study)
    for loss, kept in (("dice", True), ("mixed_focal", False)):
        run = next(run for run in study.runs() if run.loss.key == loss and run.fold == 0)
        files = study.run_folder(run)
        state = load_state(files.checkpoint_file) | {"weight_digest": "as it was"}
        if not kept:
            del state["weight_digest"]
        save_state(files.checkpoint_file, state)
        study.write_status(run, state="pending", weight_digest=None, environments=(H200,))
    assert call(*tiny_run(phantom, own_study)).returncode == 0
    after = statuses(Study.open(own_study))
    assert after["dice", 0, 0].weight_digest == "as it was"
    assert after["mixed_focal", 0, 0].weight_digest is None
    first, second = after["dice", 0, 0].environments
    assert first == H200 and second["device"] == "cpu"  # it moved while it was trained


def test_a_study_goes_on_at_another_place_without_its_weights(phantom, tiny_study, tmp_path):
    """Copied without checkpoints, predictions and prepared cases, with a run left; the finished runs stay."""
    moved, data = tmp_path / "study", tmp_path / "data"
    heavy = shutil.ignore_patterns("checkpoint.pt", "predictions", "prepared", "report", "events")
    shutil.copytree(tiny_study, moved, ignore=heavy)
    shutil.copytree(phantom, data)
    description = (moved / "study.yaml").read_text()
    (moved / "study.yaml").write_text(description.split("environment:")[0] + "environment: " + json.dumps(H200))
    left = StudyFolder(moved).published(next(run for run in Study.open(moved).runs() if run.fold == 1)).path
    shutil.rmtree(left)
    for file in moved.glob("runs/*/*/*/status.json"):  # as earlier versions wrote it
        content = json.loads(file.read_text())
        del content["environments"], content["weight_digest"]
        file.write_text(json.dumps(content))

    result = call("run", moved, "--data", data, "--no-report")
    assert result.returncode == 0, result.stderr
    assert "3 finished runs" in result.stdout and "scores are kept" in " ".join(result.stdout.split())
    study = Study.open(moved)
    assert study.config.data.root == str(data)
    assert study.description.environment == H200  # of the machine that created it
    trained = [key for key, status in statuses(study).items() if status.environments]
    assert trained == [("dice", 1, 0)]
    assert all(status.state == "done" for status in statuses(study).values())
    assert (moved / "scores.csv").read_bytes() == (tiny_study / "scores.csv").read_bytes()
    machines = machines_of(statuses(study).values(), study.description.environment)
    assert [(machine.get("gpu"), count) for machine, count in machines] == [("NVIDIA H200", 3), (None, 1)]


def test_scores_that_are_lost_with_the_weights_are_trained_again(phantom, own_study):
    run = own_study / "runs/dice/fold-0/seed-0"
    for name in ("checkpoint.pt", "scores.csv"):
        (run / name).unlink()
    shutil.rmtree(run / "predictions")
    before = (own_study / "scores.csv").read_bytes()
    assert call(*tiny_run(phantom, own_study)).returncode == 0
    assert (own_study / "scores.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (H200, "NVIDIA H200; voxloss 0.1.0, torch 2.11.0, python 3.12.3"),
        ({**H200, "device": "cuda:1"}, "NVIDIA H200; voxloss 0.1.0, torch 2.11.0, python 3.12.3"),
        ({**H200, "device": "cpu"}, "Xeon; voxloss 0.1.0, torch 2.11.0, python 3.12.3"),
        ({"torch": "2.13.0"}, "unknown machine; torch 2.13.0"),
        ({}, "unknown machine"),
    ],
)
def test_a_machine_is_named_by_what_trains(environment, text):
    assert machine_text(environment) == text


def test_a_run_that_moved_counts_for_both_machines_and_a_pending_one_for_none():
    run = Run(None, 0, 0)
    cpu = {**H200, "device": "cpu"}
    done = [RunStatus(run, "done", environments=(H200, cpu)), RunStatus(run, "diverged"), RunStatus(run, "pending")]
    assert machines_of([*done, RunStatus(run, "failed", environments=(cpu,))], H200) == [(H200, 2), (cpu, 2)]
    assert machines_of([], H200) == []
