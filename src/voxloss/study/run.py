"""Execute the runs of a study: train, predict on the original grid, score, and record how it ended."""

import csv
import hashlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from voxloss.data.case import read_label, write_label
from voxloss.data.dataset import to_file_values
from voxloss.data.prepare.case import open_prepared, restore_label
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.scores import failed_rows, score_rows, write_scores
from voxloss.study.folder import FINISHED, Run, Study
from voxloss.training.device import resolve_device
from voxloss.utilities.files import write_text
from voxloss.utilities.machine import PeakMemory


def execute_run(
    study: Study,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Train, predict and score one run, going on from its checkpoint, and return its state.

    A run that diverges or fails is recorded with its reason and with failed scores, and is no error here.
    """
    import torch

    from voxloss.training.train import DivergedError, InterruptedRunError

    status = study.status(run)
    if status["state"] in FINISHED:
        return status["state"]
    before, start = float(status.get("seconds", 0.0)), time.perf_counter()
    memory = PeakMemory(resolve_device(study.config.execution.device), int(status.get("peak_memory") or 0))

    def write(state: str, **details: object) -> None:
        seconds = round(before + time.perf_counter() - start, 1)
        study.write_status(run, state, seconds=seconds, peak_memory=memory.read(), **details)

    write("running", reason=None)
    try:
        collapsed = _train_and_score(study, run, stop, lambda epoch: write("running", epoch=epoch))
    except InterruptedRunError:
        write("pending")
    except DivergedError as error:
        record_failure(study, run)
        write("diverged", reason=str(error))
    except torch.OutOfMemoryError:
        record_failure(study, run)
        write("failed", reason="out of memory on the device: lower patches.size, patches.batch_size or network.filters")
    except Exception as error:  # whatever it is, the other runs go on and the reason is kept
        write_text(study.run_folder(run) / "error.txt", traceback.format_exc())
        record_failure(study, run)
        write("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    else:
        write("done", batch_digest=_batch_digest(study.run_folder(run)), collapsed=collapsed)
    return study.status(run)["state"]


def _train_and_score(study: Study, run: Run, stop: Callable[[], bool], report: Callable[[int], None]) -> list[str]:
    """Write predictions and scores; return the classes that are in scored cases and predicted in none of them."""
    import torch

    from voxloss.training.batches import TrainingJob
    from voxloss.training.predict import predict_probabilities
    from voxloss.training.train import InterruptedRunError, train

    config, folder, split = study.config, study.run_folder(run), study.split(run.fold)
    prepared = {case.case_id: open_prepared(study.prepared_folder(case.case_id)) for case in study.dataset.cases}
    job = TrainingJob(
        folder=folder,
        config=config,
        loss=run.loss.name,
        parameters=run.loss.parameters,
        fold=run.fold,
        seed=run.seed,
        training_cases=[prepared[case_id] for case_id in split.training],
        validation_cases=[prepared[case_id] for case_id in split.inner or split.validation],
        classes=study.dataset.classes,
    )
    network = train(job, torch.device(resolve_device(config.execution.device)), stop, report)
    rows: list[dict[str, Any]] = []
    there, predicted = set[int](), set[int]()

    def check() -> None:
        if stop():
            raise InterruptedRunError

    for case_id in split.validation:
        case = study.case(case_id)
        probabilities = predict_probabilities(network, prepared[case_id].image, config, check)
        prediction = restore_label(probabilities, prepared[case_id].original.shape)
        path = folder / "predictions" / f"{case_id}.nii.gz"
        write_label(path, to_file_values(prediction, study.dataset), like=case.images[0])
        reference, geometry = read_label(case, study.dataset.label_values, study.dataset.value_hints)
        there |= set(np.unique(reference).tolist())
        predicted |= set(np.unique(prediction).tolist())
        scores = case_scores(
            reference, prediction, study.dataset.classes, geometry.spacing_mm, config.comparison.tolerance_mm
        )
        rows += score_rows(
            scores, dataset=study.dataset.name, fold=run.fold, seed=run.seed, loss=run.loss.key, case=case_id
        )
    write_scores(folder / "scores.csv", rows)
    return [study.dataset.classes[index] for index in sorted(there - predicted)]


def record_failure(study: Study, run: Run) -> None:
    """Write failed scores for all cases that the run would have scored."""
    rows = failed_rows(
        dataset=study.dataset.name,
        fold=run.fold,
        seed=run.seed,
        loss=run.loss.key,
        cases=study.split(run.fold).validation,
        classes=study.dataset.classes,
    )
    write_scores(study.run_folder(run) / "scores.csv", rows)


def _batch_digest(folder: Path) -> str:
    """One digest of all batches of a run, from those of its epochs."""
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        digests = [row["batch_digest"] for row in csv.DictReader(file)]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
