"""Train one network: one loss, fold and seed. Everything except the loss is equal for all losses."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import voxloss
from voxloss.config.losses import LossChoice, build_loss
from voxloss.losses import Loss
from voxloss.losses.boundary import set_spacing
from voxloss.training.alarm import lost_classes
from voxloss.training.batches import (
    Batch,
    TrainingJob,
    augmentation_seeds,
    device_augmenter,
    seed_of,
    training_batches,
    validation_batches,
)
from voxloss.training.checkpoint import load_state, save_state, weight_digest
from voxloss.training.events import Events
from voxloss.training.history import COLUMNS, write_history
from voxloss.training.networks import make_network, outputs
from voxloss.training.precision import autocast, layout, place
from voxloss.training.ranks import Ranks, started
from voxloss.training.schedule import Schedule
from voxloss.training.terms import gradient_shares, what_is_not_finite

_WEIGHTS = 4  # a stream of random numbers; the batches have others


class InterruptedRunError(Exception):
    """The run was asked to stop; its last checkpoint is on disk."""


class DivergedError(Exception):
    """The loss became NaN or infinite."""


def train(
    job: TrainingJob,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] = lambda epoch: None,
) -> torch.nn.Module:
    """Train a network to the last epoch, from the run's checkpoint if there is one.

    Args:
        job: What is trained, on which cases and with which settings.
        device: Where it is trained.
        stop: Asked at every step; if it returns True, the training stops with `InterruptedRunError`.
        report: Called after each epoch with the number of finished epochs.

    Returns:
        The network with the selected weights.

    Raises:
        DivergedError: The loss is no longer finite; the message names epoch, step, term and class.
        InterruptedRunError: `stop` returned True.
    """
    with started(job.config.execution.devices_per_run, device, partial(_follow, job)) as ranks:
        return _train(job, device, ranks, stop, report)


def _follow(job: TrainingJob, ranks: Ranks, device: torch.device) -> None:
    """Train beside rank 0, which writes the files and says when to stop."""
    with suppress(InterruptedRunError, DivergedError):  # on every rank alike; rank 0 reports it
        _train(job, device, ranks)


def _train(
    job: TrainingJob,
    device: torch.device,
    ranks: Ranks,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] = lambda epoch: None,
) -> torch.nn.Module:
    setting, channels = job.config.training, job.training_cases[0].image.shape[0]
    trainee = _Trainee.make(job, channels, device, ranks)
    network = trainee.network
    schedule = Schedule(job.config, trainee.optimizer)
    progress = _State.resume(job.folder, trainee, schedule)
    if ranks.rank == 0 and progress.history:  # history.csv may be missing, or lack the last epoch
        write_history(job.folder / "history.csv", progress.history)
    # A loss that is no subclass of `Loss` makes what it needs itself.
    maps = voxloss.LabelMaps.of(trainee.loss, len(job.classes)) if isinstance(trainee.loss, Loss) else None
    validation: list[Batch] = [
        (images, labels, {} if maps is None else maps(labels)) for images, labels in validation_batches(job)
    ]
    events = Events(job.events or job.folder / "events", progress.epoch) if ranks.rank == 0 else None
    with closing(training_batches(job, progress.epoch, device, maps)) as batches:
        for epoch in range(progress.epoch, setting.epochs):
            start = time.perf_counter()
            rate = schedule.start(epoch)
            row = {"epoch": epoch + 1, "learning_rate": rate}
            row |= _train_epoch(trainee, batches, epoch, stop)
            schedule.finish(row["train_loss"])
            if events is None:
                continue
            row |= _validate(trainee, validation)
            row["seconds"] = round(time.perf_counter() - start, 3)
            progress.history.append({name: row[name] for name in COLUMNS})
            progress.epoch = epoch + 1
            if stop():  # while the network was validated; a checkpoint may be written only by who still owns the run
                raise InterruptedRunError
            _select(job, network, progress, row["validation_loss"], row["validation_dice"])
            progress.save(job.folder, trainee, schedule, channels)
            of_look = job.config.comparison.look  # which nobody would change
            events.write(row, None if of_look else lost_classes(progress.history, job.classes))
            report(epoch + 1)
    if setting.selection != "last" and events is not None:
        network.load_state_dict(load_state(job.folder / "best.pt", device)["network"])
    return network


@dataclass(frozen=True)
class _Trainee:
    """The network and its loss during training.

    Args:
        call: The network, compiled if the study says so; it shares its weights with `network`.
        weight_digest: Digest of the initial weights.
    """

    job: TrainingJob
    device: torch.device
    network: torch.nn.Module
    call: Callable[[torch.Tensor], Any]
    loss: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ranks: Ranks
    weight_digest: str

    @classmethod
    def make(cls, job: TrainingJob, channels: int, device: torch.device, ranks: Ranks) -> "_Trainee":
        with torch.random.fork_rng(devices=[]):  # initial weights are a function of (seed, fold) alone
            torch.manual_seed(seed_of(job.seed, job.fold, _WEIGHTS))
            network = make_network(job.config.network, job.config.patches.size, channels, len(job.classes))
        digest = weight_digest(network.state_dict())
        network = ranks.share_statistics(network, device)
        place(network, device, job.config)
        call = torch.compile(network) if job.config.execution.compile else network
        loss = make_loss(job).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=job.config.training.learning_rate)
        return cls(job, device, network, call, loss, optimizer, ranks, digest)

    def to_device(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def maps_to_device(self, maps: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The maps of a batch by name; none if it came without."""
        return {name: each.to(self.device, non_blocking=True) for part in maps for name, each in part.items()}

    def logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The network's outputs, the finest first; in training, each rank computes its part of them."""
        if self.network.training:
            images = self.ranks.part(images)
        with autocast(self.device, self.job.config.training):
            logits = outputs(self.call(images.contiguous(memory_format=layout(self.job.config))))
        return [self.ranks.whole(each) for each in logits] if self.network.training else logits


def make_loss(job: TrainingJob) -> torch.nn.Module:
    """Build the loss of a job, which leaves the ignored voxels of its data out and measures distances in mm.

    Raises:
        InputError: The loss's own parameters ignore another class, or as `build_loss`.
    """
    loss = build_loss(LossChoice(job.loss, job.parameters, labels=job.labels), job.ignore_index)
    set_spacing(loss, job.spacing_mm)
    return loss


@dataclass
class _State:
    """The state of a run: finished epochs, its history, and the best value for the selection of weights.

    Args:
        weight_digest: Digest of the weights that it began with; None if an earlier version began it.
    """

    epoch: int
    best: float
    history: list[dict[str, Any]]
    weight_digest: str | None

    @classmethod
    def resume(cls, folder: Path, trainee: _Trainee, schedule: Schedule) -> "_State":
        if not (folder / "checkpoint.pt").exists():
            return cls(0, math.inf, [], trainee.weight_digest)
        state = load_state(folder / "checkpoint.pt", trainee.device)
        trainee.network.load_state_dict(state["network"])
        trainee.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in trainee.optimizer.state.items():
            for name, value in moments.items():
                if value.numel() == parameter.numel():  # of another shape where an earlier version trained on slices
                    moments[name] = value.reshape(parameter.shape)
        trainee.loss.load_state_dict(state.get("loss", {}), strict=False)  # an own loss may have buffers
        schedule.plateau.load_state_dict(state["plateau"])
        return cls(state["epoch"], state["best"], state["history"], state.get("weight_digest"))

    def save(self, folder: Path, trainee: _Trainee, schedule: Schedule, channels: int) -> None:
        # The checkpoint holds the history too, so that the two cannot disagree; history.csv is for people.
        save_state(
            folder / "checkpoint.pt",
            {
                "epoch": self.epoch,
                "channels": channels,
                "best": self.best,
                "history": self.history,
                "weight_digest": self.weight_digest,
                "network": trainee.network.state_dict(),
                "optimizer": trainee.optimizer.state_dict(),
                "plateau": schedule.plateau.state_dict(),
                **({"loss": buffers} if (buffers := _buffers(trainee.loss)) else {}),
            },
        )
        write_history(folder / "history.csv", self.history)


def _buffers(loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What an own loss keeps from step to step; frozen parameters are the same in every training."""
    frozen = {name for name, _ in loss.named_parameters()}
    state = loss.state_dict().items()
    return {name: value for name, value in state if isinstance(value, torch.Tensor) and name not in frozen}


def _select(job: TrainingJob, network: torch.nn.Module, progress: _State, loss: float, dice: float) -> None:
    """Keep the weights if they are the best so far by the study's measure; those of the first epoch are always kept."""
    selection = job.config.training.selection
    if selection == "last":
        return
    value = loss if selection == "fold" else -dice
    if progress.epoch == 1 or value < progress.best:
        progress.best = value if math.isfinite(value) else math.inf
        save_state(job.folder / "best.pt", {"epoch": progress.epoch, "network": network.state_dict()})


def _train_epoch(
    trainee: _Trainee,
    batches: Iterator[Batch],
    epoch: int,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train one epoch.

    Returns the mean loss over its steps, the share of the patches with each class, the gradient shares of the terms at
    the first step, a digest of the batches, and the share of the time spent waiting for batches.
    """
    job, loss, optimizer = trainee.job, trainee.loss, trainee.optimizer
    augment = device_augmenter(job, trainee.device)
    trainee.network.train()
    loss.train()
    supervised = voxloss.DeepSupervision(loss)  # of one output it is the loss itself
    supervised.set_epoch(epoch)
    digest = hashlib.blake2b(digest_size=16)
    total, waiting, shares = 0.0, 0.0, ""
    with_class = torch.zeros(len(job.classes), dtype=torch.int64, device=trainee.device)  # patches
    begin = time.perf_counter()
    for step in range(job.config.training.iterations):
        if trainee.ranks.agree(stop, trainee.device):
            raise InterruptedRunError
        asked = time.perf_counter()
        images, labels, *maps = next(batches)
        waiting += time.perf_counter() - asked
        digest.update(images.numpy().data)
        digest.update(labels.numpy().data)
        images, labels = trainee.to_device(images, labels)
        if augment is not None:
            augment(images, labels, augmentation_seeds(job, epoch * job.config.training.iterations + step))
        for label in labels:
            with_class += torch.bincount(label.flatten(), minlength=256)[: len(job.classes)] > 0
        logits = trainee.logits(images)
        of_labels = trainee.maps_to_device(maps)
        value = supervised(logits, labels, **of_labels)
        number = float(value.detach())
        if not math.isfinite(number):
            reason = what_is_not_finite(loss, logits[0], labels, job.classes, of_labels)
            raise DivergedError(f"the loss became {number} in epoch {epoch + 1}, step {step + 1}: {reason}")
        if step == 0:
            parts = gradient_shares(loss, logits[0], labels, of_labels)
            shares = " ".join(f"{name.replace(' ', '_')}={share:.4f}" for name, share in parts.items())
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        trainee.ranks.add_gradients(list(trainee.network.parameters()))
        optimizer.step()
        total += number
    patches = job.config.training.iterations * job.patches.batch_size
    present = zip(job.classes[1:], with_class.tolist()[1:], strict=True)
    return {
        "train_loss": total / job.config.training.iterations,
        "patches_with_class": json.dumps({name: round(count / patches, 4) for name, count in present}),
        "gradient_shares": shares,
        "waiting": round(waiting / (time.perf_counter() - begin), 4),
        "batch_digest": digest.hexdigest(),
    }


@torch.no_grad()
def _validate(trainee: _Trainee, batches: Sequence[Batch]) -> dict[str, Any]:
    """Validate the network.

    Returns the mean loss over the validation batches, the mean over foreground classes of Dice pooled over their
    voxels, and the classes that are in the batches and were never predicted.
    """
    trainee.network.eval()
    trainee.loss.eval()
    classes = trainee.job.classes
    total, count = 0.0, len(classes)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    for *batch, maps in batches:
        images, labels = trainee.to_device(*batch)
        logits = trainee.logits(images)[0]
        total += float(trainee.loss(logits, labels, **trainee.maps_to_device([maps])))
        pairs = labels.long() * count + logits.argmax(dim=1)
        pairs = pairs[labels < count]  # the others are ignored
        confusion += torch.bincount(pairs.flatten(), minlength=count**2).view(count, -1).cpu()
    there, predicted = confusion.sum(1), confusion.sum(0)
    dice = 2 * confusion.diagonal()[1:] / (there + predicted)[1:]  # NaN for a class in neither, which does not count
    counts = zip(classes, there.tolist(), predicted.tolist(), strict=True)
    never_predicted = [name for name, in_labels, in_prediction in counts if in_labels and not in_prediction]
    return {
        "validation_loss": total / len(batches),
        "validation_dice": float(dice.nanmean()),
        "not_predicted": "; ".join(never_predicted),
    }
