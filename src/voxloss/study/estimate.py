"""What the runs of an open study will take: by those that are finished, else by training steps measured now."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxloss.data.prepare.case import open_prepared
from voxloss.study.folder import Run
from voxloss.study.plan import PREDICTION_SHARE, checkpoint_bytes, process_memory, training_seconds, window_count
from voxloss.study.probe import Probe, probe
from voxloss.study.study import Study
from voxloss.training.device import resolve_device, runs_at_once
from voxloss.training.predict import prediction_memory
from voxloss.utilities.machine import available_memory

LONGEST_STEP = 2.0  # seconds: whoever starts a study waits for the measurement


@dataclass(frozen=True)
class Estimate:
    """What the runs will take.

    Args:
        finished: The finished runs that it is taken from; 0 where training steps were measured.
        each: Seconds of one run.
        total: Seconds of all runs, as many at a time as this machine executes.
        memory: Bytes of one run, of the device on CUDA, else of its process; None where it is unknown.
        available: Bytes that are free in the machine's memory; None likewise.
        disk: Bytes that the runs will write, about.
        probe: What was measured, if it was.
    """

    finished: int
    each: float
    total: float
    memory: int | None
    available: int | None
    disk: int
    probe: Probe | None


def estimate(study: Study, runs: Sequence[Run]) -> Estimate:
    """Estimate what runs of a study take.

    Args:
        study: The study, whose cases are prepared.
        runs: The runs, at least one.
    """
    done = [status for run in study.runs() if (status := study.status(run)).state == "done" and status.seconds > 0]
    config, measured = study.config, None
    if done:
        each = sum(status.seconds for status in done) / len(done)
        memory = max((status.peak_memory or 0 for status in done), default=0) or None
        files = study.run_folder(done[0].run).path
        disk = sum(path.stat().st_size for path in files.rglob("*") if path.is_file()) * len(runs)
    else:
        cases = [open_prepared(folder) for folder in study.files.read_prepared().values()]
        classes = len(study.dataset.classes)
        channels, size = cases[0].image.shape[0], config.patches.size
        device = torch.device(resolve_device(config.execution.device))
        process = process_memory()
        measured = probe(config, channels, classes, device, longest=LONGEST_STEP)
        windows = sum(window_count(case.shape, size, config.patches.overlap) for case in cases) / len(study.folds)
        each = training_seconds(config, measured) + windows * measured.forward
        memory = measured.memory
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif memory is not None and process is not None:
            largest = max(
                prediction_memory(case.shape, case.original.shape, config, channels, classes) for case in cases
            )
            memory = process + max(memory, largest)
        voxels = sum(math.prod(case.original.shape) for case in cases)
        disk = len(runs) * (checkpoint_bytes(config, measured) + voxels // PREDICTION_SHARE // len(study.folds))
    total = math.ceil(len(runs) / runs_at_once(config.execution)) * each
    return Estimate(len(done), each, total, memory, available_memory(), disk, measured)
