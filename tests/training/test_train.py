"""Training: the same for every loss, resumable, and honest about what went wrong."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import voxloss
from voxloss.config.files import load_config
from voxloss.data.patches import read_batch, training_places
from voxloss.training.batches import TrainingJob, augmentation_seeds, validation_batches
from voxloss.training.checkpoint import load_state
from voxloss.training.networks import outputs
from voxloss.training.schedule import Schedule
from voxloss.training.terms import gradient_shares, what_is_not_finite
from voxloss.training.train import DivergedError, InterruptedRunError, make_loss, train
from voxloss.utilities.errors import InputError

CPU = torch.device("cpu")


class Volume:
    """A prepared case in memory: a bright ball (class 1) and a small brighter one (class 2) in noise."""

    inside = None  # no region of interest

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        z, y, x = np.indices((8, 16, 16))
        centre = generator.integers(5, 11, 2)
        self.label = np.zeros((8, 16, 16), dtype=np.uint8)
        self.label[(z - 4) ** 2 + (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 9] = 1
        self.label[4, centre[0], centre[1]] = 2
        self.image = (self.label * 1.5 + generator.normal(0, 0.3, self.label.shape)).astype(np.float32)[None]
        self.shape, self.spacing_mm = (8, 16, 16), (1.0, 1.0, 1.0)
        self.foreground = {c: np.argwhere(self.label == c).astype(np.int32) for c in (1, 2)}


CASES = [Volume(seed) for seed in range(4)]
FROZEN = ["--training.learning_rate", "1e-30", "--training.minimum_learning_rate", "1e-30"]
SMALL = [
    "--patches.size", "[8,16,16]", "--patches.foreground_share", "0.5",
    "--network.filters", "4", "--network.depth", "2",
    "--training.epochs", "4", "--training.iterations", "3", "--training.validation_batches", "1",
    "--training.learning_rate", "1e-2",
]  # fmt: skip


def run(
    folder: Path, *overrides: str, loss: str = "mixed_focal", fold: int = 0, seed: int = 0, **parameters
) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(None, [*SMALL, *overrides])
    return TrainingJob(
        folder, config, loss, parameters, fold, seed, CASES[:3], CASES[3:], ("background", "ball", "core")
    )


def history(folder: Path) -> list[dict]:
    return load_state(folder / "checkpoint.pt")["history"]


def digests(folder: Path) -> list[str]:
    return [row["batch_digest"] for row in history(folder)]


def test_every_loss_sees_the_same_batches_from_the_same_initial_weights(tmp_path):
    for loss in ("dice", "focal"):
        train(run(tmp_path / loss, *FROZEN, loss=loss), CPU)
    assert digests(tmp_path / "dice") == digests(tmp_path / "focal")
    assert len(set(digests(tmp_path / "dice"))) == 4
    weights = [load_state(tmp_path / loss / "checkpoint.pt")["network"] for loss in ("dice", "focal")]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-20)
    train(run(tmp_path / "other", seed=1), CPU)
    assert not set(digests(tmp_path / "other")) & set(digests(tmp_path / "dice"))


def test_a_run_that_is_stopped_ends_with_the_same_weights_and_history(tmp_path):
    whole = train(run(tmp_path / "whole"), CPU)
    for steps in (2, 5, 4, 1):  # stopped in the middle of an epoch, then again and again
        asked = iter(range(1000))
        with pytest.raises(InterruptedRunError):
            train(run(tmp_path / "parts"), CPU, stop=lambda asked=asked, steps=steps: next(asked) >= steps)
    parts = train(run(tmp_path / "parts"), CPU)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    for first, second in zip(history(tmp_path / "whole"), history(tmp_path / "parts"), strict=True):
        assert {**first, "seconds": 0, "waiting": 0} == {**second, "seconds": 0, "waiting": 0}
        assert 0 < first["waiting"] < 1


def test_the_events_are_the_history(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(run(tmp_path / "run"), CPU)
    accumulator = EventAccumulator(str(tmp_path / "run" / "events"))
    accumulator.Reload()
    for row, event in zip(history(tmp_path / "run"), accumulator.Scalars("loss/train"), strict=True):
        assert event.step == row["epoch"] and event.value == pytest.approx(row["train_loss"], rel=1e-6)


def test_the_events_of_a_look_name_no_lost_classes(tmp_path, monkeypatch):
    lost = {"ball": True}
    monkeypatch.setattr("voxloss.training.train.lost_classes", lambda rows, classes: lost)
    written = []
    monkeypatch.setattr("voxloss.training.train.Events.write", lambda self, row, lost: written.append(lost))
    for look in ("false", "true"):
        train(run(tmp_path / look, "--training.epochs", "1", "--comparison.look", look), CPU)
    assert written == [lost, None]


def test_what_happened_before_in_the_process_does_not_matter(tmp_path):
    torch.manual_seed(1)
    first = train(run(tmp_path / "a"), CPU).state_dict()
    torch.manual_seed(2)
    torch.rand(10)
    np.random.default_rng(3)
    second = train(run(tmp_path / "b"), CPU).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("loss", voxloss.list_losses())
def test_every_loss_lowers_itself_and_finds_the_ball(tmp_path, loss):
    settings = ["--augmentation.probability", "0", "--training.learning_rate", "3e-2", "--training.iterations", "6"]
    parameters = {"alpha": 0.2} if loss == "cl_dice" else {}  # by centre lines, foreground everywhere costs nothing
    epochs = 16 if loss == "ml1_ace" else 8
    if loss in ("boundary", "hausdorff"):  # which alone end in an empty prediction
        loss, parameters = "compound", {"losses": ["mixed_focal", loss], "weights": [1, 0.1]}
    train(run(tmp_path, *settings, "--training.epochs", str(epochs), loss=loss, **parameters), CPU)
    rows = history(tmp_path)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[0]["validation_dice"] < 0.3
    assert rows[-1]["validation_dice"] > 0.35  # 0.45 and more: the ball, not yet the single voxel


def test_the_polynomial_schedule_is_the_same_for_every_loss(tmp_path):
    for loss in ("combo", "focal"):
        train(run(tmp_path / loss, loss=loss), CPU)
        rates = [row["learning_rate"] for row in history(tmp_path / loss)]
        assert rates == pytest.approx([1e-2 * (1 - epoch / 4) ** 0.9 for epoch in range(4)])


@pytest.mark.parametrize("constant", [3.0, -1.0])
def test_the_plateau_schedule_lowers_every_20_epochs_without_improvement_whatever_the_sign(constant):
    config = load_config(None, ["--training.schedule", "plateau", "--training.learning_rate", "3e-4"])
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config.training.learning_rate)
    schedule = Schedule(config, optimizer)
    rates = []
    for epoch in range(70):
        rates.append(schedule.start(epoch))
        # falling by more than the threshold of 1e-4 for 5 epochs, and by less from then on
        schedule.finish(constant - 2e-4 * min(epoch, 4) - 1e-7 * epoch)
    drops = [epoch for epoch in range(1, 70) if rates[epoch] < rates[epoch - 1]]
    assert drops == [25, 45, 65]
    assert [rates[epoch] for epoch in drops] == pytest.approx([3e-5, 3e-6, 1e-6])


@pytest.mark.parametrize("selection", ["inner", "fold"])
def test_the_selected_weights_are_those_of_the_best_epoch(tmp_path, selection):
    network = train(run(tmp_path, "--training.selection", selection), CPU)
    best = load_state(tmp_path / "best.pt")
    rows = history(tmp_path)
    if selection == "fold":
        expected = min(rows, key=lambda row: row["validation_loss"])["epoch"]
    else:
        expected = max(rows, key=lambda row: row["validation_dice"])["epoch"]
    assert best["epoch"] == expected
    assert all(torch.equal(value, best["network"][name]) for name, value in network.state_dict().items())


def test_divergence_names_epoch_step_and_classes(tmp_path):
    with pytest.raises(
        DivergedError, match=r"the loss became nan in epoch \d, step \d: the network's logits of .*ball"
    ):
        train(run(tmp_path, "--training.learning_rate", "1e30", "--training.epochs", "8", loss="cross_entropy"), CPU)


def test_what_is_not_finite_is_named():
    classes, labels = ("background", "ball", "core"), torch.tensor([[0, 1, 2, 1]])
    logits = torch.zeros(1, 3, 4)
    logits[0, 2, 1] = torch.inf
    loss = voxloss.get_loss("mixed_focal")
    assert what_is_not_finite(loss, logits, labels, classes) == "the network's logits of core are not finite"
    # A loss of our own whose region term breaks at finite logits: 0/0 in the class that is perfectly predicted.
    perfect = 1e4 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()

    class BrokenLoss(voxloss.MixedFocalLoss):
        def terms(self):
            pixelwise, region = super().terms()
            return pixelwise, replace(region, curve=lambda index: index.error / index.error)

    broken = BrokenLoss()
    assert what_is_not_finite(broken, perfect, labels, classes) == "the region term is not finite"


def test_gradient_shares_are_those_of_the_terms_alone(tmp_path):
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    norms = []
    for part in ("focal", "focal_tversky"):
        leaf = logits.clone().requires_grad_()
        norms.append(torch.autograd.grad(voxloss.get_loss(part)(leaf, labels), leaf)[0].norm().item())
    shares = gradient_shares(voxloss.get_loss("mixed_focal"), logits, labels)
    assert shares == pytest.approx({"pixelwise": norms[0] / sum(norms), "region": norms[1] / sum(norms)}, rel=1e-5)
    assert gradient_shares(voxloss.get_loss("dice"), logits, labels) == {"region": 1.0}
    train(run(tmp_path, "--training.epochs", "2"), CPU)
    for row in history(tmp_path):
        parts = dict(part.split("=") for part in row["gradient_shares"].split())
        assert list(parts) == ["pixelwise", "region"] and sum(map(float, parts.values())) == pytest.approx(1, abs=1e-3)


def test_validation_dice_is_the_mean_over_foreground_classes(tmp_path, monkeypatch):
    """A network that always says class 1: Dice of class 1 by hand, and 0 for class 2."""
    from voxloss.training import train as module

    class Always(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image):
            logits = torch.zeros(len(image), 3, *image.shape[2:])
            logits[:, 1] = 5
            return logits + self.weight

    monkeypatch.setattr(module, "make_network", lambda *_: Always())
    train(run(tmp_path, "--training.epochs", "1", *FROZEN), CPU)
    label = CASES[3].label
    expected = 2 * (label == 1).sum() / (label.size + (label == 1).sum())
    assert history(tmp_path)[0]["validation_dice"] == pytest.approx(expected / 2)


def test_a_damaged_checkpoint_is_named_and_code_in_one_is_not_run(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"checkpoint\.pt is not a readable checkpoint"):
        load_state(tmp_path / "checkpoint.pt")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(InputError, match="it is empty"):
        load_state(tmp_path / "checkpoint.pt")
    torch.save({"epoch": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_state(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "ran").exists()


def test_bfloat16_trains_too(tmp_path):
    train(run(tmp_path, "--training.precision", "bfloat16"), CPU)
    assert np.isfinite([row["train_loss"] for row in history(tmp_path)]).all()


@pytest.mark.slow
def test_batches_by_worker_processes_are_the_same(tmp_path):
    train(run(tmp_path / "own"), CPU)
    train(run(tmp_path / "workers", "--execution.workers", "1"), CPU)
    assert digests(tmp_path / "own") == digests(tmp_path / "workers")


@pytest.mark.slow
def test_patches_augmented_on_the_device_train_as_those_augmented_on_the_cpu(tmp_path):
    """On a CPU the draws are the same too, so the losses agree; the digest is then of the patches as read."""
    often = ["--augmentation.probability", "1"]
    train(run(tmp_path / "cpu", *often), CPU)
    train(run(tmp_path / "device", *often, "--execution.augmentation", "device"), CPU)
    train(run(tmp_path / "none", "--augmentation.probability", "0", "--augmentation.mirror_axes", "[]"), CPU)
    losses = {name: [row["train_loss"] for row in history(tmp_path / name)] for name in ("cpu", "device", "none")}
    assert losses["cpu"] == pytest.approx(losses["device"], rel=0.002)
    assert losses["cpu"] != pytest.approx(losses["none"], rel=0.002)
    assert digests(tmp_path / "device") == digests(tmp_path / "none") != digests(tmp_path / "cpu")


@pytest.mark.slow
def test_every_patch_of_a_training_is_augmented_by_a_seed_of_its_own(tmp_path):
    seeds = [
        seed
        for training in [run(tmp_path, fold=fold, seed=run_seed) for run_seed in (0, 1) for fold in (0, 1)]
        for step in range(50)
        for seed in augmentation_seeds(training, step)
    ]  # fmt: skip
    assert len(seeds) == len(set(seeds)) == 2 * 2 * 50 * 2


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--execution.compile=true", "--execution.channels_last=false"])
def test_compiling_the_network_or_its_layout_changes_last_bits_only(tmp_path, option, monkeypatch):
    # The default backend's C++ takes a minute to compile; tests/losses/test_contract.py has training steps with it.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    size = ["--network.filters", "2", "--network.depth", "1", "--training.epochs", "1"]
    plain = train(run(tmp_path / "plain", *size), CPU)
    other = train(run(tmp_path / "other", *size, option), CPU)
    assert other.state_dict().keys() == plain.state_dict().keys()
    for name in ("train_loss", "validation_loss"):
        assert history(tmp_path / "other")[0][name] == pytest.approx(history(tmp_path / "plain")[0][name], rel=1e-4)


def test_the_share_of_patches_with_each_class_is_that_of_the_batches(tmp_path):
    job = run(tmp_path, "--augmentation.probability", "0", "--patches.size", "[4,4,4]")
    train(job, CPU)
    setting = job.config.training
    for epoch, row in enumerate(history(tmp_path)):
        labels = []
        for step in range(epoch * setting.iterations, (epoch + 1) * setting.iterations):
            places = training_places(job.training_cases, job.patches, job.seed, job.fold, step)
            labels += list(read_batch(job.training_cases, places, job.patches.size)[1])
        expected = {name: np.mean([index in label for label in labels]) for index, name in ((1, "ball"), (2, "core"))}
        assert json.loads(row["patches_with_class"]) == pytest.approx(expected, abs=1e-4)
        assert 0 < expected["core"] < 1


def test_a_class_that_is_predicted_nowhere_is_recorded_and_training_goes_on(tmp_path, monkeypatch):
    import voxloss.training.train as module

    class OnlyBackground(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image):
            logits = torch.zeros(len(image), 3, *image.shape[2:])
            logits[:, 0] = 9
            return logits + self.weight

    monkeypatch.setattr(module, "make_network", lambda *_: OnlyBackground())
    train(run(tmp_path), CPU)
    assert [row["not_predicted"] for row in history(tmp_path)] == ["ball; core"] * 4
    assert (tmp_path / "history.csv").read_text().splitlines()[1].split(",")[4] == "ball; core"


# Ignored voxels


class Unlabelled(Volume):
    """The same volume; nobody annotated the half of it, where the labels hold `value`."""

    def __init__(self, seed: int, value: int) -> None:
        super().__init__(seed)
        self.label[..., :8] = value
        self.foreground = {c: np.argwhere(self.label == c).astype(np.int32) for c in (1, 2)}


@pytest.mark.parametrize("loss", voxloss.list_losses())
def test_the_loss_of_a_job_is_that_of_the_counted_voxels_alone(tmp_path, loss):
    job = replace(run(tmp_path, loss=loss), ignore_index=254)
    labels = torch.from_numpy(np.stack([Unlabelled(seed, 254).label for seed in range(2)]))
    logits = torch.randn(2, 3, *labels.shape[1:], generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = make_loss(job)(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    counted = logits[..., 8:].detach().contiguous()
    torch.testing.assert_close(value, make_loss(run(tmp_path, loss=loss))(counted, labels[..., 8:].contiguous()))
    assert torch.count_nonzero(gradient[..., :8]) == 0


def test_the_validation_dice_is_that_of_the_counted_voxels(tmp_path):
    cases = [Unlabelled(seed, 254) for seed in range(4)]
    job = replace(run(tmp_path), training_cases=cases[:3], validation_cases=cases[3:], ignore_index=254)
    network = train(job, CPU).eval()
    images, labels = validation_batches(job)[0]
    with torch.no_grad():
        logits = outputs(network(images))[0]
    counted = labels != 254
    assert 0 < counted.sum() < counted.numel()
    found, there = logits.argmax(1)[counted], labels[counted]
    overlaps = [2 * float(((found == c) & (there == c)).sum()) for c in (1, 2)]
    sizes = [float((found == c).sum() + (there == c).sum()) for c in (1, 2)]
    expected = np.nanmean([o / s if s else np.nan for o, s in zip(overlaps, sizes, strict=True)])
    row = history(tmp_path)[-1]
    assert row["validation_dice"] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(row["train_loss"])


def test_patches_that_are_ignored_everywhere_train_nothing_and_stop_nothing(tmp_path):
    nothing = [Unlabelled(seed, 254) for seed in range(4)]
    for case in nothing:
        case.label[:] = 254
        case.foreground = {1: np.empty((0, 3), np.int32), 2: np.empty((0, 3), np.int32)}
    job = run(tmp_path / "run", "--augmentation.probability", "0")  # which shows background outside the patch
    train(replace(job, training_cases=nothing[:3], validation_cases=nothing[3:], ignore_index=254), CPU)
    assert [row["train_loss"] for row in history(tmp_path / "run")] == [0.0] * 4


def test_a_loss_that_ignores_another_class_contradicts_data_that_ignore_a_value(tmp_path):
    job = replace(run(tmp_path / "run", ignore_index=1), ignore_index=254)
    with pytest.raises(InputError, match="ignore_index cannot be set"):
        train(job, CPU)
