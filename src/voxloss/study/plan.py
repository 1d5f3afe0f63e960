"""What a study will cost on this machine, measured on random patches before anything is prepared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from voxloss.config.losses import check_losses, loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.config.settled import SettledConfig
from voxloss.config.tuning import check_tuning
from voxloss.data.formats import read_geometry
from voxloss.study.probe import Probe, available, probe
from voxloss.study.search import require_sampler
from voxloss.study.settle import Survey, survey
from voxloss.training.device import resolve_device
from voxloss.training.networks import check_network
from voxloss.training.predict import prediction_memory as case_memory
from voxloss.utilities.machine import available_memory, forget_peak_memory, peak_memory

SCORING_PACKAGES = 140_000_000  # bytes of MONAI, which a run imports when it scores
PREDICTION_SHARE = 50  # voxels of a compressed prediction per byte, about


@dataclass(frozen=True)
class Plan:
    """Seconds and bytes that a study takes.

    Args:
        survey: What is known of the data.
        probe: What a training step takes.
        memory: At the peak of a run, of the device on CUDA, else of its process; None where the system does not tell.
        available: Memory free now, for all parallel runs; None likewise.
        prediction_memory: Of the run's process, while it predicts and scores the case that needs most; None likewise.
        runs, steps: Their number, and the training steps of each.
        training, prediction: Of all runs, one after the other.
        trials, search: Number of trials of a search for settings and their seconds, if none is stopped early.
        disk: The prepared cases, checkpoints, predictions, and probabilities that are kept.
        probabilities: The last of these: a byte per voxel and foreground class, of which compression leaves less.
        advice: A patch or batch that fits, where the study's does not.
        parts: Of a study of several networks the plan of each by the network's key, of which this one is the sum; its
            probe is that of the network with the longest step.
    """

    survey: Survey
    probe: Probe
    memory: int | None
    available: int | None
    prediction_memory: int | None
    runs: int
    steps: int
    training: float
    trials: int
    search: float
    prediction: float
    disk: int
    probabilities: int
    advice: str | None
    parts: tuple[tuple[str, "Plan"], ...] = ()


def plan(config: StudyConfig, report: Callable[[str], None] = lambda line: None) -> Plan:
    """Estimate what a study needs on this machine: time, memory and disk space.

    Reads the headers of the data, and measures steps of the study's network on patches of growing size.

    Args:
        config: The configuration.
        report: Called with a line about what is measured.

    Raises:
        InputError: As `voxloss run` would, as far as headers and the network tell.
    """
    networks = config.networks()
    if not networks:
        return _plan(config, report)
    parts = [(choice.key, _plan(one, report)) for choice, one in zip(networks, config.per_network(), strict=True)]
    plans = [part for _, part in parts]
    slowest = max(plans, key=lambda part: part.probe.step)
    settled = slowest.survey.config
    comparison = replace(settled.comparison, networks=config.comparison.networks)
    whole = replace(settled, network=config.network, comparison=comparison)
    prepared = prepared_bytes(slowest.survey)
    return replace(
        slowest,
        survey=replace(slowest.survey, config=whole),
        memory=max((part.memory for part in plans if part.memory is not None), default=None),
        runs=sum(part.runs for part in plans),
        training=sum(part.training for part in plans),
        trials=sum(part.trials for part in plans),
        search=sum(part.search for part in plans),
        prediction=sum(part.prediction for part in plans),
        disk=prepared + sum(part.disk - prepared for part in plans),  # all networks see the same prepared cases
        probabilities=sum(part.probabilities for part in plans),
        advice=next((part.advice for part in plans if part.advice is not None), None),
        parts=tuple(parts),
    )


def _plan(config: StudyConfig, report: Callable[[str], None]) -> Plan:
    """Estimate what a study of one network needs."""
    listed, losses, tuning = (
        loss_choices(config.comparison.losses),
        config.comparison.compared(),
        config.comparison.search(),
    )
    check_losses(listed)
    check_tuning(listed, tuning)
    require_sampler(tuning)
    surveyed = survey(config)
    settled, dataset, channels = surveyed.config, surveyed.dataset, surveyed.channels
    size = settled.patches.size
    check_network(settled.network, size, channels, len(dataset.classes))
    device = torch.device(resolve_device(settled.execution.device))
    process = process_memory()
    measured = probe(settled, channels, len(dataset.classes), device, report)
    prediction_memory = None if process is None else process + _largest_prediction(surveyed)
    memory = measured.memory
    if device.type != "cuda" and memory is not None and process is not None and prediction_memory is not None:
        memory = max(process + memory, prediction_memory)
    seeds = settled.comparison.seeds
    runs = len(losses) * settled.splits.folds * len(seeds)
    windows = sum(window_count(shape, size, settled.patches.overlap) for shape in surveyed.shapes)
    trials = 0 if tuning is None else tuning.trials * len(listed) * settled.splits.folds
    per_run = training_seconds(settled, measured)
    predictions = surveyed.original_voxels * len(losses) * len(seeds) // PREDICTION_SHARE
    probabilities = len(losses) * len(seeds) * _probability_bytes(surveyed)
    return Plan(
        survey=surveyed,
        probe=measured,
        memory=memory,
        available=available(device),
        prediction_memory=prediction_memory,
        runs=runs,
        steps=settled.training.epochs * settled.training.iterations,
        training=runs * per_run,
        trials=trials,
        search=trials * trial_seconds(settled, per_run, windows * measured.forward) if tuning is not None else 0.0,
        prediction=len(losses) * len(seeds) * windows * measured.forward,
        disk=prepared_bytes(surveyed) + runs * checkpoint_bytes(settled, measured) + predictions + probabilities,
        probabilities=probabilities,
        advice=_advice(settled, device, measured.memory, prediction_memory, process or 0),
    )


def prepared_bytes(surveyed: Survey) -> int:
    """Return the bytes of all prepared cases."""
    return sum(math.prod(shape) for shape in surveyed.shapes) * (4 * surveyed.channels + 1)


def process_memory() -> int | None:
    """Return the bytes that a run's process takes before anything is read; None where the system does not tell."""
    forget_peak_memory()
    imported = peak_memory()  # the packages of this process, which a run imports too
    return None if imported is None else imported + SCORING_PACKAGES


def _probability_bytes(surveyed: Survey) -> int:
    """Return the bytes of the probabilities that a loss and seed keep: at most, for compression leaves less."""
    voxels = {
        "none": 0,
        "prepared": sum(math.prod(shape) for shape in surveyed.shapes),
        "original": surveyed.original_voxels,
    }
    return voxels[surveyed.config.evaluation.probabilities] * (len(surveyed.dataset.classes) - 1)


def training_seconds(config: SettledConfig, measured: Probe) -> float:
    """Return the seconds that one run trains, its validation included."""
    setting = config.training
    validation = setting.validation_batches * config.patches.batch_size * measured.forward
    return setting.epochs * (setting.iterations * measured.step + validation)


def trial_seconds(config: SettledConfig, training: float, prediction: float) -> float:
    """Return the seconds of a trial: its epochs, and the prediction of the inner cases.

    Args:
        config: The configuration, with a search.
        training: Seconds that a run trains.
        prediction: Seconds of predicting every case of the study once.
    """
    tuning = config.comparison.search()
    assert tuning is not None
    epochs = tuning.epochs or config.training.epochs
    inner = config.splits.inner_share * (1 - 1 / config.splits.folds)
    return training * epochs / config.training.epochs + prediction * inner


def checkpoint_bytes(config: SettledConfig, measured: Probe) -> int:
    """Return the bytes of a run's checkpoint: weights, Adam's two moments, and the selected weights."""
    return measured.parameters * 4 * (3 + (config.training.selection != "last"))


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
    room = available(device)
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
