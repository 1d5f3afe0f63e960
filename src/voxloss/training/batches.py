"""The job of training one network, and its batches: workers read them ahead; the CPU or the device augments them."""

import math
import os
import signal
import statistics
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from voxloss.config.schema import StudyConfig
from voxloss.config.settled import SettledConfig
from voxloss.data.patches import PatchSetting, PatchSource, read_batch, training_places, validation_places
from voxloss.losses import LabelMaps
from voxloss.training.augment import Augmenter
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import shared_memory_room

_AUGMENT = 3  # a stream of random numbers; 0 to 2 are the patches', 4 the initial weights'
MOST_WORKERS = 8
BATCHES_AHEAD = 2  # that each worker reads before they are asked for


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the training of one network needs: one loss, fold and seed of a study.

    Args:
        config: The study's configuration.
        folder: The run's folder, for checkpoint.pt, best.pt (if weights are selected) and history.csv.
        loss: The loss's name in the catalogue, or the import path of an own one.
        parameters: Its parameters that differ from its defaults.
        training_cases: Prepared cases to train on.
        validation_cases: Prepared cases for the validation after every epoch.
        classes: The name of every class index, background first.
        ignore_index: The value in the labels of voxels that count in no loss; None: all count.
        labels: The form of labels that an own loss takes.
        events: The folder for TensorBoard's files; None: events/ in the run's folder.
    """

    folder: Path
    config: SettledConfig
    loss: str
    parameters: dict[str, Any]
    fold: int
    seed: int
    training_cases: Sequence[PatchSource]
    validation_cases: Sequence[PatchSource]
    classes: Sequence[str]
    ignore_index: int | None = None
    labels: str = "index"
    events: Path | None = None

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The median spacing of the training cases along each axis."""
        return tuple(statistics.median(axis) for axis in zip(*(c.spacing_mm for c in self.training_cases), strict=True))

    @property
    def patches(self) -> PatchSetting:
        """How patches are drawn."""
        setting = self.config.patches
        return PatchSetting(setting.size, setting.batch_size, setting.foreground_share, setting.sampling == "classes")


# Images and labels of a batch and, where the loss needs maps of the labels, these by name: tensors, or arrays.
Batch = tuple[Any, ...]


class _TrainingBatches(Dataset[Batch]):
    """The batches of a run by step, augmented if the CPU does that, with maps of the labels if the loss needs them.

    A process that reads ahead passes tensors through shared memory. If that runs out, the batch never arrives and the
    run would wait for ever; so where there is little left, arrays are returned, which go through a pipe.
    """

    def __init__(self, job: TrainingJob, first: int, augment: Augmenter | None, maps: LabelMaps | None = None) -> None:
        setting = job.config.training
        self.job, self.first, self.augment, self.maps = job, first, augment, maps
        self.steps = setting.epochs * setting.iterations

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        job, step = self.job, self.first + index
        places = training_places(job.training_cases, job.patches, job.seed, job.fold, step)
        images, labels = map(torch.from_numpy, read_batch(job.training_cases, places, job.patches.size))
        if self.augment is not None:
            self.augment(images, labels, augmentation_seeds(job, step))
        maps = {} if self.maps is None else self.maps(labels)
        worker = get_worker_info()
        size = sum(tensor.nbytes for tensor in (images, labels, *maps.values()))
        if worker is not None and not _fits_shared_memory(job.config, worker.num_workers, size):
            arrays = {name: tensor.numpy() for name, tensor in maps.items()}
            return (images.numpy(), labels.numpy(), arrays) if maps else (images.numpy(), labels.numpy())
        return (images, labels, maps) if maps else (images, labels)


def _fits_shared_memory(config: StudyConfig, workers: int, batch_bytes: int) -> bool:
    """Return whether shared memory has room for the batches that all processes may put there at once."""
    room = shared_memory_room()
    return room is None or room >= _ahead(config, workers) * batch_bytes


def _ahead(config: StudyConfig, workers: int) -> int:
    """Return how many batches all processes of all runs may read ahead."""
    return BATCHES_AHEAD * workers * config.execution.parallel * config.execution.devices_per_run


def shared_memory_warning(config: SettledConfig, channels: int, device: torch.device) -> str | None:
    """Return a sentence if shared memory is too small for the batches that are read ahead; None if it suffices."""
    workers, size = workers_of(config, device), config.patches.size
    batch = config.patches.batch_size * math.prod(size) * (4 * channels + 1)
    if workers == 0 or _fits_shared_memory(config, workers, batch):
        return None
    needed = _ahead(config, workers) * batch
    return (
        f"/dev/shm has {(shared_memory_room() or 0) / 1e9:.2f} GB left, but the batches of {workers} workers need "
        f"{needed / 1e9:.2f} GB there; they go through pipes instead, which is slower. Give /dev/shm more room "
        "(docker run --shm-size), or take a lower execution.workers"
    )


def augmentation_seeds(job: TrainingJob, step: int) -> list[int]:
    """Return the seed of the augmentation of each patch of a step."""
    size = job.patches.batch_size
    return [seed_of(job.seed, job.fold, step * size + number, _AUGMENT) for number in range(size)]


def _leave_signals_to_the_run(_: int) -> None:
    """A cluster tells all processes of a job to end; the run's own process ends its step first, and needs batches."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def training_batches(
    job: TrainingJob, epoch: int, device: torch.device, maps: LabelMaps | None = None
) -> Generator[Batch, None, None]:
    """Yield images and labels of every step from the first of `epoch` on; on the CPU, pinned if the device is CUDA.

    With `maps` they follow as a dictionary, unless the device augments, after which the loss makes them itself. Close
    it at the end: the processes that read ahead leave signals to the run, so that only this ends them.
    """
    on_device = augments_on(job.config, device)
    augment = None if on_device else Augmenter(job.patches.size, job.config.augmentation)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, as the user asked
        loader: DataLoader[Batch] = DataLoader(
            _TrainingBatches(job, epoch * job.config.training.iterations, augment, None if on_device else maps),
            batch_size=None,
            collate_fn=_unchanged,
            prefetch_factor=BATCHES_AHEAD if workers_of(job.config, device) else None,
            num_workers=workers_of(job.config, device),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
            worker_init_fn=_leave_signals_to_the_run,
        )
    try:
        batches = iter(loader)
    except OSError as error:
        raise InputError(
            f"The {workers_of(job.config, device)} processes of execution.workers cannot be started "
            f"({error.strerror}); /dev/shm has {(shared_memory_room() or 0) / 1e6:.0f} MB left."
        ) from error
    yield from map(_tensors, batches)


def _unchanged(batch: Any) -> Any:
    return batch


def _tensors(batch: Batch) -> Batch:
    images, labels, *maps = batch
    named = [{name: torch.as_tensor(values) for name, values in each.items()} for each in maps]
    return torch.as_tensor(images), torch.as_tensor(labels), *named


def workers_of(config: StudyConfig, device: torch.device) -> int:
    """Return how many processes read ahead: `execution.workers`, or on CUDA a run's share of the cores."""
    execution = config.execution
    if execution.workers is not None:
        return execution.workers
    share = (os.cpu_count() or 1) // (execution.parallel * execution.devices_per_run)
    return min(MOST_WORKERS, share) if device.type == "cuda" else 0


def augments_on(config: StudyConfig, device: torch.device) -> bool:
    """Return whether patches are augmented on the device, not on the CPU that reads them."""
    place = config.execution.augmentation
    return place == "device" or (place == "auto" and device.type == "cuda")


def device_augmenter(job: TrainingJob, device: torch.device) -> Augmenter | None:
    """Return the augmenter of batches on the device; None if the CPU augments them."""
    on_device = augments_on(job.config, device)
    return Augmenter(job.patches.size, job.config.augmentation, on_device=True) if on_device else None


def validation_batches(job: TrainingJob) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of every epoch's validation, not augmented."""
    batches = []
    for step in range(job.config.training.validation_batches):
        places = validation_places(job.validation_cases, job.patches, job.fold, step)
        images, labels = read_batch(job.validation_cases, places, job.patches.size)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return batches


def seed_of(*words: int) -> int:
    """Return one 64-bit seed from several numbers."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
