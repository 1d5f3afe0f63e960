"""Execute one run of a study: train, predict on the original grid, score, and record how it ended."""

import hashlib
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from voxloss.data.case import read_label
from voxloss.data.prepare.case import open_prepared
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.scores import failed_rows, score_rows, write_scores
from voxloss.study.folder import FINISHED, Run, State
from voxloss.study.own import own_functions, own_metric_scores, require_own_loss
from voxloss.study.predict import predict_mask
from voxloss.study.sources import SourceError, require_case, require_files
from voxloss.study.study import Study
from voxloss.training.batches import TrainingJob
from voxloss.training.device import resolve_device
from voxloss.training.train import DivergedError, InterruptedRunError, train
from voxloss.utilities.files import write_text
from voxloss.utilities.machine import PeakMemory


def execute_run(
    study: Study,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
) -> State:
    """Train, predict and score one run, from its checkpoint where there is one, and return its state.

    A run that diverges or fails is recorded with its reason and with failed scores, and raises no error here.

    Args:
        study: The study, which this process or its parent holds.
        run: The run.
        stop: Asked at every step; when it says yes, the run becomes pending and keeps its checkpoint.
    """
    status = study.status(run)
    if status.state in FINISHED:
        return status.state
    files = study.run_folder(run)
    start = time.perf_counter()
    memory = PeakMemory(resolve_device(study.config.execution.device), status.peak_memory or 0)

    def write(state: State, **details: Any) -> None:
        seconds = round(status.seconds + time.perf_counter() - start, 1)
        study.write_status(run, state=state, seconds=seconds, peak_memory=memory.read(), **details)

    write("running", reason=None)
    try:
        collapsed = _train_and_score(study, run, stop, lambda epoch: write("running", epoch=epoch))
    except InterruptedRunError:
        write("pending")
    except DivergedError as error:
        record_failure(study, run)
        write("diverged", reason=str(error))
    except SourceError as error:  # the fault of the data, which must not count against the loss
        files.scores_file.unlink(missing_ok=True)
        write("failed", reason=str(error))
    except torch.OutOfMemoryError:
        record_failure(study, run)
        write("failed", reason="out of memory on the device: lower patches.size, patches.batch_size or network.filters")
    except Exception as error:  # whatever it is, the other runs go on and the reason is kept
        write_text(files.error_file, traceback.format_exc())
        record_failure(study, run)
        write("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    else:
        digests = "".join(epoch.batch_digest for epoch in files.history())
        digest = hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()
        write("done", batch_digest=digest, collapsed=tuple(collapsed))
    return study.status(run).state


def _train_and_score(study: Study, run: Run, stop: Callable[[], bool], report: Callable[[int], None]) -> list[str]:
    """Write predictions and scores; return the classes that are in scored cases and predicted in none of them."""
    config, files, split = study.config, study.run_folder(run), study.split(run.fold)
    prepared = {case_id: open_prepared(folder) for case_id, folder in study.files.read_prepared().items()}
    job = TrainingJob(
        folder=files.path,
        config=config,
        loss=run.loss.name,
        parameters=run.loss.parameters,
        fold=run.fold,
        seed=run.seed,
        training_cases=[prepared[case_id] for case_id in split.training],
        validation_cases=[prepared[case_id] for case_id in split.inner or split.validation],
        classes=study.dataset.classes,
        ignore_index=study.dataset.ignore_index,
        labels=run.loss.labels,
    )
    require_own_loss(study, run.loss)
    functions = own_functions(study)
    cases = [study.case(case_id) for case_id in split.validation]
    require_files([path for case in cases for path in case.files if not path.is_file()], study.folder)
    network = train(job, torch.device(resolve_device(config.execution.device)), stop, report)
    rows: list[dict[str, Any]] = []
    present, predicted = set[int](), set[int]()

    def check() -> None:
        if stop():
            raise InterruptedRunError

    for case in cases:
        case_id = case.case_id
        require_case(study, case_id)
        prediction = predict_mask(
            network,
            prepared[case_id].image,
            config,
            study.dataset,
            like=case.images[0],
            output=files.prediction(case_id),
            before_windows=check,
        )
        reference, geometry = read_label(case, study.dataset.label_values, study.dataset.value_hints)
        present |= set(np.unique(reference).tolist()) - {study.dataset.ignore_index}
        predicted |= set(np.unique(prediction).tolist())
        scores = case_scores(
            reference,
            prediction,
            study.dataset.classes,
            geometry.spacing_mm,
            config.comparison.tolerance_mm,
            config.evaluation.lesions,
            ignore_index=study.dataset.ignore_index,
        )
        scores += own_metric_scores(study, functions, reference, prediction, geometry.spacing_mm)
        rows += score_rows(
            scores, dataset=study.dataset.name, fold=run.fold, seed=run.seed, loss=run.loss.key, case=case_id
        )
    write_scores(files.scores_file, rows)
    return [study.dataset.classes[index] for index in sorted(present - predicted)]


def record_failure(study: Study, run: Run) -> None:
    """Write failed scores for all cases that the run would have scored."""
    rows = failed_rows(
        dataset=study.dataset.name,
        fold=run.fold,
        seed=run.seed,
        loss=run.loss.key,
        cases=study.split(run.fold).validation,
        classes=study.dataset.classes,
        own_metrics=[metric.name for metric in study.own_metrics],
    )
    write_scores(study.run_folder(run).scores_file, rows)
