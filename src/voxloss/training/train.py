"""Training of one network: one loss, fold and seed. Everything but the loss is the same for every loss."""

import csv
import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import voxloss
from voxloss.config import StudyConfig
from voxloss.data.patches import PatchSetting, PatchSource, read_batch, training_places, validation_places
from voxloss.files import write_text
from voxloss.losses import VoxelLoss
from voxloss.training.augment import Augmenter
from voxloss.training.checkpoint import load_state, save_state
from voxloss.training.networks import make_network, outputs
from voxloss.training.precision import autocast, place
from voxloss.training.terms import gradient_shares, what_is_not_finite

HISTORY = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_dice",
    "learning_rate",
    "gradient_shares",
    "seconds",
    "batch_digest",
)
_AUGMENT, _WEIGHTS = 3, 4  # streams of random numbers; 0 to 2 are the patches'


class InterruptedRunError(Exception):
    """The run was asked to stop; its last checkpoint is on disk."""


class DivergedError(Exception):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Training:
    """What one training needs.

    Args:
        folder: of the run; gets checkpoint.pt, best.pt (where weights are selected) and history.csv.
        loss: catalogue name, and parameters that differ from its defaults.
        training, validation: prepared cases to train on, and those that are looked at after every epoch.
        classes: the name of every class index, background first.
    """

    folder: Path
    config: StudyConfig
    loss: str
    parameters: dict[str, Any]
    fold: int
    seed: int
    training: Sequence[PatchSource]
    validation: Sequence[PatchSource]
    classes: Sequence[str]

    @property
    def patches(self) -> PatchSetting:
        setting = self.config.patches
        assert setting.size is not None, "settled when the study was made"
        return PatchSetting(setting.size, setting.batch_size, setting.foreground_share)


def train(
    run: Training,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] = lambda epoch: None,
) -> torch.nn.Module:
    """Train to the last epoch, from the run's checkpoint where there is one, and return the selected weights.

    Args:
        stop: asked at every step; when it says yes the training ends with `InterruptedRunError`.
        report: called with the number of finished epochs after each.

    Raises:
        DivergedError: the loss is no longer finite; the message names epoch, step, term and class.
        InterruptedRunError: `stop` said so.
    """
    setting = run.config.training
    with torch.random.fork_rng(devices=[]):  # initial weights are a function of (seed, fold) alone
        torch.manual_seed(_word(run.seed, run.fold, _WEIGHTS))
        network = make_network(run.config, run.training[0].image.shape[0], len(run.classes))
    channels = run.training[0].image.shape[0]
    place(network, device, setting)
    loss = voxloss.get_loss(run.loss, **run.parameters).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=setting.learning_rate)
    schedule = _Schedule(run.config, optimizer)
    progress = _Progress.resume(run.folder, network, optimizer, schedule, device)
    batches = iter(_batches(run, progress.epoch, device))
    validation = _validation_batches(run, device)
    for epoch in range(progress.epoch, setting.epochs):
        start = time.perf_counter()
        rate = schedule.start(epoch)
        train_loss, shares, digest = _train_epoch(run, network, loss, optimizer, batches, epoch, stop)
        validation_loss, validation_dice = _validate(run, network, loss, validation)
        schedule.finish(train_loss)
        seconds = time.perf_counter() - start
        row = (epoch + 1, train_loss, validation_loss, validation_dice, rate, shares, round(seconds, 3), digest)
        progress.history.append(dict(zip(HISTORY, row, strict=True)))
        progress.epoch = epoch + 1
        _select(run, network, progress, validation_loss, validation_dice)
        progress.save(run.folder, network, optimizer, schedule, channels)
        report(epoch + 1)
    if setting.selection != "last":
        network.load_state_dict(load_state(run.folder / "best.pt", device)["network"])
    return network


class _Schedule:
    """The learning rate of each epoch, polynomial or lowered on a plateau of the training loss."""

    def __init__(self, config: StudyConfig, optimizer: torch.optim.Optimizer) -> None:
        self.setting, self.optimizer = config.training, optimizer
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.1,
            # Keras's patience 20 and cooldown 1: it lowers at the 20th epoch without improvement and every 20 after.
            # torch waits for one more than its patience, and its cooldown would add another epoch.
            patience=19,
            cooldown=0,
            threshold=1e-4,
            threshold_mode="abs",  # torch's relative one never sees a plateau of a negative loss
            min_lr=config.training.minimum_learning_rate,
        )

    def start(self, epoch: int) -> float:
        if self.setting.schedule == "polynomial":
            rate = self.setting.learning_rate * (1 - epoch / self.setting.epochs) ** 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = max(rate, self.setting.minimum_learning_rate)
        return self.optimizer.param_groups[0]["lr"]

    def finish(self, train_loss: float) -> None:
        if self.setting.schedule == "plateau":
            self.plateau.step(train_loss)


@dataclass
class _Progress:
    """How far a run is: finished epochs, its history, and the best value that selection has seen."""

    epoch: int
    best: float
    history: list[dict[str, Any]]

    @classmethod
    def resume(
        cls,
        folder: Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: _Schedule,
        device: torch.device,
    ) -> "_Progress":
        if not (folder / "checkpoint.pt").exists():
            return cls(0, math.inf, [])
        state = load_state(folder / "checkpoint.pt", device)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.plateau.load_state_dict(state["plateau"])
        return cls(state["epoch"], state["best"], state["history"])

    def save(
        self,
        folder: Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: _Schedule,
        channels: int,
    ) -> None:
        # The checkpoint holds the history too, so that the two cannot disagree; history.csv is for people.
        save_state(
            folder / "checkpoint.pt",
            {
                "epoch": self.epoch,
                "channels": channels,
                "best": self.best,
                "history": self.history,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "plateau": schedule.plateau.state_dict(),
            },
        )
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(folder / "history.csv", text.getvalue())


def _select(run: Training, network: torch.nn.Module, progress: _Progress, loss: float, dice: float) -> None:
    """Keep the weights if they are the best so far by the study's measure; the first epoch's are kept in any case."""
    selection = run.config.training.selection
    if selection == "last":
        return
    value = loss if selection == "fold" else -dice
    if progress.epoch == 1 or value < progress.best:
        progress.best = value if math.isfinite(value) else math.inf
        save_state(run.folder / "best.pt", {"epoch": progress.epoch, "network": network.state_dict()})


class _TrainingBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The augmented batches of a run, by step."""

    def __init__(self, run: Training, first: int, steps: int) -> None:
        self.run, self.first, self.steps = run, first, steps
        self.augment = Augmenter(run.patches.size, run.config.augmentation)

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        run, step = self.run, self.first + index
        places = training_places(run.training, run.patches, run.seed, run.fold, step)
        images, labels = map(torch.from_numpy, read_batch(run.training, places, run.patches.size))
        first = step * run.patches.batch_size
        self.augment(images, labels, [_word(run.seed, run.fold, first + n, _AUGMENT) for n in range(len(places))])
        return images, labels


def _batches(run: Training, epoch: int, device: torch.device) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    iterations = run.config.training.iterations
    dataset = _TrainingBatches(run, epoch * iterations, run.config.training.epochs * iterations)
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=run.config.execution.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


def _validation_batches(run: Training, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = []
    for step in range(run.config.training.validation_batches):
        places = validation_places(run.validation, run.patches, run.fold, step)
        images, labels = read_batch(run.validation, places, run.patches.size)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return batches


def _train_epoch(
    run: Training,
    network: torch.nn.Module,
    loss: VoxelLoss,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    epoch: int,
    stop: Callable[[], bool],
) -> tuple[float, str, str]:
    """One epoch: the mean loss over its steps, its terms' gradient shares at the first, a digest of its batches."""
    network.train()
    supervised = voxloss.DeepSupervision(loss)  # of one output it is the loss itself
    digest = hashlib.blake2b(digest_size=16)
    total, shares = 0.0, ""
    for step in range(run.config.training.iterations):
        if stop():
            raise InterruptedRunError
        images, labels = next(batches)
        digest.update(images.numpy().data)
        digest.update(labels.numpy().data)
        logits, references = _forward(run, network, images, labels)
        value = supervised(logits, references)
        number = float(value.detach())
        if not math.isfinite(number):
            reason = what_is_not_finite(loss, logits[0], references, run.classes)
            raise DivergedError(f"the loss became {number} in epoch {epoch + 1}, step {step + 1}: {reason}")
        if step == 0:
            parts = gradient_shares(loss, logits[0], references)
            shares = " ".join(f"{name}={share:.4f}" for name, share in parts.items())
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        total += number
    return total / run.config.training.iterations, shares, digest.hexdigest()


@torch.no_grad()
def _validate(
    run: Training,
    network: torch.nn.Module,
    loss: torch.nn.Module,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[float, float]:
    """Mean loss over the validation batches, and the mean over foreground classes of Dice pooled over their voxels."""
    network.eval()
    total = 0.0
    count = len(run.classes)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    for images, labels in batches:
        (logits, *_), references = _forward(run, network, images, labels)
        total += float(loss(logits, references))
        pairs = references.long() * count + logits.argmax(dim=1)
        confusion += torch.bincount(pairs.flatten(), minlength=count**2).view(count, -1).cpu()
    sizes = (confusion.sum(0) + confusion.sum(1))[1:]
    dice = 2 * confusion.diagonal()[1:] / sizes  # NaN for a class in neither: left out
    return total / len(batches), float(dice.nanmean())


def _forward(
    run: Training, network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits, the finest first, and labels, on the network's device."""
    device = next(network.parameters()).device
    images = images.to(device, memory_format=torch.channels_last_3d, non_blocking=True)
    with autocast(device, run.config.training):
        logits = outputs(network(images))
    return logits, labels.to(device, non_blocking=True)


def _word(*words: int) -> int:
    """One 64-bit seed from several numbers."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
