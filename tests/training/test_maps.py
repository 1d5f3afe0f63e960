"""Losses that need maps of the labels, and weights that follow a schedule, in the training of a study."""

import pytest
import torch
from test_train import CASES, CPU, digests, history, run

import voxloss
from voxloss.config.losses import LossChoice, check_losses, loss_choices
from voxloss.losses import LabelMaps
from voxloss.report.names import loss_name
from voxloss.training.batches import training_batches, validation_batches
from voxloss.training.train import InterruptedRunError, make_loss, train
from voxloss.utilities.errors import InputError

SCHEDULE = {"shape": "linear", "start": 0, "end": 0.4, "epochs": 4}
COMPOUND = {"losses": ["mixed_focal", "boundary"], "weights": [1, SCHEDULE]}


@pytest.fixture(autouse=True)
def spacing(monkeypatch):
    for case in CASES:
        monkeypatch.setattr(case, "spacing_mm", (3.0, 1.0, 0.5))


def test_distances_are_in_mm_of_the_median_case(tmp_path, monkeypatch):
    job = run(tmp_path, loss="compound", **COMPOUND)
    assert make_loss(job).losses[1].spacing == (3.0, 1.0, 0.5)
    assert make_loss(run(tmp_path, loss="boundary", spacing=[1, 1, 1])).spacing == (1.0, 1.0, 1.0)
    monkeypatch.setattr(job.training_cases[0], "spacing_mm", (9.0, 1.0, 0.5))
    assert job.spacing_mm == (3.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        ("boundary", {"distances"}),
        ("cc_dice_ce", {"regions"}),
        ("skeleton_recall", {"skeletons"}),
        ("compound", {"regions", "distances", "skeletons"}),
        ("dice", set()),
    ],
)
def test_the_loader_makes_the_maps_that_the_loss_would_make(tmp_path, loss, names):
    parameters = {"losses": ["boundary", "skeleton_recall", "blob", "topk"]} if loss == "compound" else {}
    job = run(tmp_path, loss=loss, **parameters)
    made = make_loss(job)
    maps = LabelMaps.of(made, 3)
    _, labels, *given = next(training_batches(job, 0, CPU, maps))
    assert set().union(*given) == names
    if not names:
        return
    logits = torch.randn(len(labels), 3, *labels.shape[1:], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(logits, labels, **given[0]), made(logits, labels), rtol=1e-5, atol=1e-6)
    on_device = run(tmp_path, "--execution.augmentation", "device", loss=loss, **parameters)
    assert len(next(training_batches(on_device, 0, CPU, maps))) == 2  # whose labels change later


@pytest.mark.slow
def test_training_follows_the_schedule_and_resumes(tmp_path):
    def with_weight(weight, folder):
        weights = [1, {**SCHEDULE, "start": weight, "end": weight}]
        return run(tmp_path / folder, loss="compound", **{**COMPOUND, "weights": weights})

    whole = run(tmp_path / "whole", loss="compound", **COMPOUND)
    train(whole, CPU)
    rows = history(tmp_path / "whole")
    assert [row["gradient_shares"].split()[1].split("=")[0] for row in rows] == ["Boundary"] * 4
    shares = [float(row["gradient_shares"].split()[1].split("=")[1]) for row in rows]
    assert shares[0] == 0 < shares[1] and shares[3] > shares[1]
    train(with_weight(0, "none"), CPU)
    first = history(tmp_path / "none")[0]
    assert (first["train_loss"], first["validation_loss"]) == (rows[0]["train_loss"], rows[0]["validation_loss"])
    steps = iter(range(100))
    with pytest.raises(InterruptedRunError):
        train(run(tmp_path / "cut", loss="compound", **COMPOUND), CPU, stop=lambda: next(steps) == 7)
    train(run(tmp_path / "cut", loss="compound", **COMPOUND), CPU)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert [row["train_loss"] for row in history(tmp_path / "cut")] == [row["train_loss"] for row in rows]


def test_validation_is_in_mm_too(tmp_path):
    job = run(tmp_path, "--training.epochs", "1", loss="boundary")
    network = train(job, CPU)
    images, labels = validation_batches(job)[0]
    network.eval()
    with torch.no_grad():
        expected = voxloss.BoundaryLoss(spacing=(3, 1, 0.5))(network(images), labels)
    assert history(tmp_path)[0]["validation_loss"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


def test_a_compound_in_a_configuration():
    choice = LossChoice.of({"name": "compound", **COMPOUND})
    assert choice.key == "compound-losses=mixed_focal+boundary-weights=1+shape=linear,start=0,end=0.4,epochs=4"
    named = LossChoice.of({"name": "compound", "losses": ["dice", {"name": "tversky", "delta": 0.6}]})
    assert named.key == "compound-losses=dice+tversky,delta=0.6"
    check_losses([choice, named])
    for wrong, words in (
        ({"losses": []}, "Compound needs a list of losses"),
        ({}, "Compound needs a list of losses"),
        ({"losses": ["dice", "dyce"]}, "unknown loss 'dyce'"),
        ({"losses": ["dice"], "weights": [1, 2]}, "1 losses need as many weights"),
        ({"losses": ["dice"], "reduction": "none"}, "gives several values"),
    ):
        with pytest.raises(InputError, match=words):
            check_losses(loss_choices([{"name": "compound", **wrong}]))


def test_the_name_of_a_compound_in_tables():
    assert loss_name("compound-losses=mixed_focal+boundary") == "Mixed Focal loss + Boundary loss"
    key = LossChoice.of({"name": "compound", **COMPOUND}).key
    weights = "(weights = 1+shape=linear,start=0,end=0.4,epochs=4)"
    assert loss_name(key) == f"Mixed Focal loss + Boundary loss {weights}"
    assert loss_name("compound-losses=dice+tversky,delta=0.6") == "Dice loss + tversky,delta=0.6"
    assert loss_name("compound") == "compound" and loss_name("mine-x=1") == "mine-x=1"
