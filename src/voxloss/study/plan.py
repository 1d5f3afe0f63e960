"""What a study will cost on this machine, measured on random patches before anything is prepared."""

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

import voxloss
from voxloss.config.losses import check_losses, loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.config.settled import SettledConfig
from voxloss.data.formats import read_geometry
from voxloss.study.settle import Survey, survey
from voxloss.training.augment import Augmenter
from voxloss.training.batches import augments_on, workers_of
from voxloss.training.device import resolve_device
from voxloss.training.networks import check_network, make_network, outputs
from voxloss.training.precision import autocast, layout, place
from voxloss.training.predict import prediction_memory as case_memory
from voxloss.utilities.machine import available_memory, forget_peak_memory, peak_memory

LONGEST_STEP = 15.0  # seconds: a step expected to take longer is projected from a smaller patch
ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """Seconds and bytes. `patch` is the one measured; where it is smaller than the study's, the rest is projected.

    Args:
        step: One training step: augmentation (where the run does it itself), forward, loss, backward, update.
        forward: One window's forward pass.
        memory: At the peak of a run, of the device on CUDA, else of its process; None where the system does not tell.
        available: Memory free now, for all parallel runs; None likewise.
        prediction_memory: Of the run's process, while it predicts and scores the case that needs most; None likewise.
        runs, steps: Their number, and the training steps of each.
        training, prediction: Of the whole study, runs one after the other.
        disk: The prepared cases, checkpoints, predictions, and probabilities that are kept.
        probabilities: The last of these: a byte per voxel and foreground class, of which compression leaves less.
        advice: A patch or batch that fits, where the study's does not.
    """

    survey: Survey
    patch: tuple[int, int, int]
    parameters: int
    step: float
    forward: float
    memory: int | None
    available: int | None
    prediction_memory: int | None
    runs: int
    steps: int
    training: float
    prediction: float
    disk: int
    probabilities: int
    advice: str | None


def plan(config: StudyConfig, report: Callable[[str], None] = lambda line: None) -> Plan:
    """Estimate what a study needs on this machine: time, memory and disk space.

    Reads the headers of the data, and measures steps of the study's network on patches of growing size.

    Args:
        config: The configuration.
        report: Called with a line about what is measured.

    Raises:
        InputError: As `voxloss run` would, as far as headers and the network tell.
    """
    losses = loss_choices(config.comparison.losses)
    check_losses(losses)
    surveyed = survey(config)
    settled, dataset, channels = surveyed.config, surveyed.dataset, surveyed.channels
    size = settled.patches.size
    check_network(settled.network, size, channels, len(dataset.classes))
    device = torch.device(resolve_device(settled.execution.device))
    forget_peak_memory()
    process = peak_memory()  # what the packages take, in every run's process too
    threads = torch.get_num_threads()
    torch.set_num_threads(settled.execution.threads or max(1, (os.cpu_count() or 1) // settled.execution.parallel))
    try:
        measured: _Measured | None = None
        patches = growing_patches(size)
        _measure(settled, patches[0], channels, len(dataset.classes), device)  # takes what is taken once and for all
        for patch in patches:
            if measured is not None:
                grown = math.prod(patch) / math.prod(measured.patch)
                room = _available(device) or math.inf
                if measured.step * grown > LONGEST_STEP or (measured.memory or 0) * grown > 0.8 * room:
                    break
            report(f"measuring patches of {' x '.join(map(str, patch))}")
            measured = _measure(settled, patch, channels, len(dataset.classes), device)
        augmentation = _augmentation(settled, size, channels, device)
    finally:
        torch.set_num_threads(threads)
    assert measured is not None
    scale = math.prod(size) / math.prod(measured.patch)
    step, forward = measured.step * scale + augmentation, measured.forward * scale
    training_memory = None if measured.memory is None else round(measured.memory * scale)
    prediction_memory = None if process is None else process + _largest_prediction(surveyed)
    memory = training_memory
    if device.type != "cuda" and training_memory is not None and process is not None and prediction_memory is not None:
        memory = max(process + training_memory, prediction_memory)
    seeds = settled.comparison.seeds
    runs = len(losses) * settled.splits.folds * len(seeds)
    steps = settled.training.epochs * settled.training.iterations
    validation = settled.training.epochs * settled.training.validation_batches * settled.patches.batch_size * forward
    windows = sum(window_count(shape, size, settled.patches.overlap) for shape in surveyed.shapes)
    prepared = sum(math.prod(shape) for shape in surveyed.shapes) * (4 * channels + 1)
    kept = 3 + (settled.training.selection != "last")  # weights and Adam's two moments, and the selected weights
    disk = prepared + runs * measured.parameters * 4 * kept + surveyed.original_voxels * len(losses) * len(seeds) // 50
    probabilities = len(losses) * len(seeds) * _probability_bytes(surveyed)
    available = _available(device)
    return Plan(
        survey=surveyed,
        patch=measured.patch,
        parameters=measured.parameters,
        step=step,
        forward=forward,
        memory=memory,
        available=available,
        prediction_memory=prediction_memory,
        runs=runs,
        steps=steps,
        training=runs * (steps * step + validation),
        prediction=len(losses) * len(seeds) * windows * forward,
        disk=disk + probabilities,
        probabilities=probabilities,
        advice=_advice(settled, device, training_memory, prediction_memory, process or 0),
    )


def _probability_bytes(surveyed: Survey) -> int:
    """Return the bytes of the probabilities that a loss and seed keep: at most, for compression leaves less."""
    voxels = {
        "none": 0,
        "prepared": sum(math.prod(shape) for shape in surveyed.shapes),
        "original": surveyed.original_voxels,
    }
    return voxels[surveyed.config.evaluation.probabilities] * (len(surveyed.dataset.classes) - 1)


def _largest_prediction(surveyed: Survey) -> int:
    """Return the bytes that predicting and scoring the case that needs most takes."""
    config, classes = surveyed.config, len(surveyed.dataset.classes)
    return max(
        case_memory(prepared, read_geometry(case.images[0]).shape, config, surveyed.channels, classes)
        for case, prepared in zip(surveyed.dataset.cases, surveyed.shapes, strict=True)
    )


def _advice(
    config: SettledConfig, device: torch.device, training: int | None, prediction: int | None, process: int
) -> str | None:
    """Return what would fit where training or prediction needs more memory than there is."""
    free, parallel = available_memory(), config.execution.parallel
    room = _available(device)
    if room is not None and device.type != "cuda":
        room = max(0, room - parallel * process)
    return memory_advice(config, training, room) or prediction_advice(prediction, parallel, free)


def prediction_advice(memory: int | None, parallel: int, available: int | None) -> str | None:
    """Return the options with which the predictions of parallel runs fit the memory that is available."""
    if memory is None or available is None or memory * parallel <= available:
        return None
    if memory <= available:
        return f"--execution.parallel {available // memory} would fit the predictions of the largest case"
    return (
        f"the prediction of the largest case takes {memory / 1e9:.1f} GB; a coarser --preparation.spacing_mm takes "
        "less, and so do smaller --patches.size"
    )


@dataclass(frozen=True)
class _Measured:
    patch: tuple[int, int, int]
    parameters: int
    step: float
    forward: float
    memory: int | None


def growing_patches(size: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return the patch with its axes divided by 4 and by 2, to multiples of 16 (at least 16), and the patch itself."""
    smaller = []
    for divisor in (4, 2):
        a, b, c = (max(min(extent, 16), extent // divisor // 16 * 16) for extent in size)
        smaller.append((a, b, c))
    return list(dict.fromkeys([*smaller, size]))


def _measure(
    config: SettledConfig, patch: tuple[int, int, int], channels: int, classes: int, device: torch.device
) -> _Measured:
    """Measure median seconds of a step without augmentation and of a window's forward pass, and peak memory."""
    config = replace(config, patches=replace(config.patches, size=patch))
    batch = config.patches.batch_size
    gc.collect()
    before = _peak(device, reset=True)
    with torch.random.fork_rng(devices=[]):
        network = make_network(config.network, patch, channels, classes)
    place(network, device, config)
    loss = voxloss.DeepSupervision(voxloss.get_loss("mixed_focal"))
    optimizer = torch.optim.Adam(network.parameters())
    images = torch.zeros(batch, channels, *patch, device=device).contiguous(memory_format=layout(config))
    labels = torch.zeros(batch, *patch, dtype=torch.uint8, device=device)
    labels[:, : patch[0] // 4] = 1

    def forward(inputs: torch.Tensor) -> list[torch.Tensor]:
        with autocast(device, config.training):
            return outputs(network(inputs))

    def step() -> None:
        value = loss(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    seconds = _median_seconds(step, device)
    after = _peak(device)
    network.eval()
    with torch.no_grad():
        window = _median_seconds(lambda: forward(images), device) / batch
    parameters = sum(parameter.numel() for parameter in network.parameters())
    memory = None if before is None or after is None else max(0, after - before)
    return _Measured(patch, parameters, seconds, window, memory)


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(ROUNDS + 1):  # the first warms up
        start = time.perf_counter()
        run()
        _finish(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _augmentation(config: SettledConfig, size: tuple[int, int, int], channels: int, device: torch.device) -> float:
    """Measure the seconds that augmentation adds to a step: the mean of several, since each kind is used at random."""
    on_device = augments_on(config, device)
    workers = 0 if on_device else workers_of(config, device)
    augment = Augmenter(size, config.augmentation, on_device)
    batch, where = config.patches.batch_size, device if on_device else torch.device("cpu")
    start, rounds = time.perf_counter(), 4
    for seed in range(rounds):
        images = torch.zeros(batch, channels, *size, device=where)
        labels = torch.zeros(batch, *size, dtype=torch.uint8, device=where)
        augment(images, labels, [seed * batch + n for n in range(batch)])
    _finish(device)
    seconds = (time.perf_counter() - start) / rounds
    return seconds if workers == 0 else 0.0  # workers do it beside the steps


def window_count(shape: Sequence[int], size: Sequence[int], overlap: float) -> int:
    """Return the number of sliding windows that cover a volume."""
    strides = (max(1, int(extent * (1 - overlap))) for extent in size)
    return math.prod(
        1 + max(0, math.ceil((extent - patch) / stride))
        for extent, patch, stride in zip(shape, size, strides, strict=True)
    )


def memory_advice(config: SettledConfig, memory: int | None, available: int | None) -> str | None:
    """Return the options of a smaller batch or patch if the parallel runs need more memory than is available."""
    if memory is None or available is None or memory * config.execution.parallel <= available:
        return None
    size, batch = list(config.patches.size), config.patches.batch_size
    per_voxel = memory * config.execution.parallel / (math.prod(size) * batch)
    if per_voxel * math.prod(size) <= available:
        fitting = int(available // (per_voxel * math.prod(size)))
        return f"--patches.batch_size {fitting} would fit"
    while per_voxel * math.prod(size) > available and max(size) > 16:
        longest = size.index(max(size))
        size[longest] = max(16, (size[longest] - 1) // 16 * 16)
    return f'--patches.batch_size 1 --patches.size "{size}" would fit'


def _available(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


def _peak(device: torch.device, reset: bool = False) -> int | None:
    """Bytes at the peak since the last reset; with `reset` the bytes in use now."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if reset:
        forget_peak_memory()
    return peak_memory()
