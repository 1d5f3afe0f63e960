"""Execute one run of a study: train, predict on the original grid, score, and record how it ended."""

import hashlib
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voxloss.data.case import Case, read_label
from voxloss.data.formats import exists
from voxloss.data.formats.geometry import Geometry
from voxloss.data.grid import flattened, in_plane, stored_flat_axis, turn_of
from voxloss.data.prepare.case import PreparedCase, open_prepared
from voxloss.evaluation.lesion_list import lesion_rows, write_lesions
from voxloss.evaluation.lesions import LesionMatch
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.probabilities.counts import ProbabilityCounts, RunCounts, write_counts
from voxloss.evaluation.scores import failed_rows, score_rows, write_scores
from voxloss.geometry.units import element_size
from voxloss.study.claims import LostClaimError
from voxloss.study.folder import Run, RunFolder, State
from voxloss.study.jobs import training_job
from voxloss.study.own import own_functions, own_metric_scores, require_own_loss
from voxloss.study.predict import predict_mask
from voxloss.study.probabilities import ScoredProbabilities
from voxloss.study.sources import SourceError, require_case, require_files
from voxloss.study.study import Study
from voxloss.study.trial import PrunedError, train_trial
from voxloss.training.checkpoint import load_state
from voxloss.training.device import resolve_device
from voxloss.training.predict import predict_label
from voxloss.training.train import DivergedError, InterruptedRunError, train
from voxloss.utilities.files import write_text
from voxloss.utilities.machine import PeakMemory, environment


def execute_run(
    study: Study,
    run: Run,
    files: RunFolder,
    stop: Callable[[], bool] = lambda: False,
) -> State:
    """Train, predict and score one run, from its checkpoint where there is one, and return its state.

    A trial of a search is trained in the same way, and judged on inner cases. A run that diverges or fails is recorded
    with its reason and with failed scores, and raises no error here.

    Args:
        study: The study.
        run: The run, which this process has claimed.
        files: The folder of its attempt.
        stop: Asked at every step; when it says yes, the run becomes pending and keeps its checkpoint.

    Raises:
        LostClaimError: `stop` raised it; nothing was written after that.
    """
    status = study.files.read_status(run, files)
    setting = study.setting_of(run) or None
    device = resolve_device(study.config.execution.device)
    here = environment() | {"device": device}
    machines = status.environments if here in status.environments[-1:] else (*status.environments, here)
    epochs = study.config_of(run).training.epochs
    now = replace(status, epochs=epochs, setting=setting, environments=machines)
    start = time.perf_counter()
    memory = PeakMemory(device, status.peak_memory or 0)

    def write(state: State, **details: Any) -> None:
        nonlocal now
        seconds = round(status.seconds + time.perf_counter() - start, 1)
        now = replace(now, state=state, seconds=seconds, peak_memory=memory.read(), **details)
        study.files.write_status(now, files)

    write("running", reason=None)
    try:
        work = _train_and_score if run.trial is None else train_trial
        details = work(study, run, files, stop, lambda epoch: write("running", epoch=epoch))
    except LostClaimError:
        raise
    except InterruptedRunError:
        write("pending")
    except PrunedError as error:
        write("pruned", reason=str(error))
    except DivergedError as error:
        record_failure(study, run, files)
        write("diverged", reason=str(error))
    except SourceError as error:  # the fault of the data, which must not count against the loss
        files.scores_file.unlink(missing_ok=True)
        write("failed", reason=str(error))
    except torch.OutOfMemoryError:
        record_failure(study, run, files)
        write("failed", reason="out of memory on the device: lower patches.size, patches.batch_size or network.filters")
    except Exception as error:  # whatever it is, the other runs go on and the reason is kept
        write_text(files.error_file, traceback.format_exc())
        record_failure(study, run, files)
        write("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    else:
        digests = "".join(epoch.batch_digest for epoch in files.history())
        digest = hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()
        weights = load_state(files.checkpoint_file).get("weight_digest")
        write("done", batch_digest=digest, weight_digest=weights, **details)
    return now.state


def _train_and_score(
    study: Study, run: Run, files: RunFolder, stop: Callable[[], bool], report: Callable[[int], None]
) -> dict[str, Any]:
    """Write predictions, scores and counts; return the classes in scored cases that are predicted in none of them."""
    config, split = study.config, study.split(run.fold)
    prepared = {case_id: open_prepared(folder) for case_id, folder in study.files.read_prepared().items()}
    job = training_job(study, run, files, split, prepared)
    require_own_loss(study, run.loss)
    functions = own_functions(study)
    cases = [study.case(case_id) for case_id in split.validation]
    inner = [study.case(case_id) for case_id in split.inner]
    require_files([path for case in (*cases, *inner) for path in case.files if not exists(path)], study.folder)
    network = train(job, torch.device(resolve_device(config.execution.device)), stop, report)
    rows: list[dict[str, Any]] = []
    present, predicted = set[int](), set[int]()
    lesions: list[dict[str, Any]] = []
    counted: list[tuple[ProbabilityCounts, NDArray[np.int64]]] = []
    lesion_class, ignore_index = config.comparison.primary_class, study.dataset.ignore_index
    grid = config.evaluation.probabilities

    def check() -> None:
        if stop():
            raise InterruptedRunError

    for case in cases:
        case_id = case.case_id
        require_case(study, case_id)
        reference, geometry = read_label(case, study.dataset.label_values, study.dataset.value_hints)
        watched = ScoredProbabilities(
            turn_of(geometry, study.dataset).turned(reference),
            len(study.dataset.classes),
            ignore_index,
            study.dataset.classes.index(lesion_class),
        )
        prediction = predict_mask(
            network,
            prepared[case_id].image,
            config,
            study.dataset,
            like=case.images[0],
            output=files.prediction(case_id, like=case.images[0]),
            before_windows=check,
            watch=watched.watch,
            probabilities=None if grid == "none" else (files.probabilities(case_id), grid),
        )
        flat = stored_flat_axis(geometry, study.dataset)
        size = element_size(in_plane(geometry.spacing_mm, flat))
        found = watched.lesions(size, config.evaluation.lesions, study.dataset.flat_axis)
        counted.append((watched.counts(), found))
        del watched
        present |= set(np.unique(reference).tolist()) - {ignore_index}
        predicted |= set(np.unique(prediction).tolist())
        masks, spacing_mm = (
            (flattened(reference, flat), flattened(prediction, flat)),
            in_plane(geometry.spacing_mm, flat),
        )
        scores = case_scores(
            *masks,
            study.dataset.classes,
            spacing_mm,
            config.comparison.tolerance_mm,
            config.evaluation.lesions,
            ignore_index=ignore_index,
            matched=partial(_list_lesions, lesions, case_id, geometry, flat),
        )
        scores += own_metric_scores(study, functions, *masks, spacing_mm)
        rows += score_rows(
            scores, dataset=study.dataset.name, fold=run.fold, seed=run.seed, loss=run.loss.key, case=case_id
        )
    for case in inner:
        require_case(study, case.case_id)
        counted.append(_inner_counts(study, network, case, prepared[case.case_id], check))
    run_counts = RunCounts(
        cases=tuple(case.case_id for case in (*cases, *inner)),
        inner=(False,) * len(cases) + (True,) * len(inner),
        classes=tuple(study.dataset.classes[1:]),
        counts=tuple(counts for counts, _ in counted),
        lesion_class=lesion_class,
        lesions=np.stack([lesions for _, lesions in counted]),
    )
    check()  # as nothing may be written once the run is another process's
    write_counts(files.counts_file, run_counts)
    write_lesions(files.lesions_file, lesions)
    write_scores(files.scores_file, rows)
    return {"collapsed": tuple(study.dataset.classes[index] for index in sorted(present - predicted))}


def _list_lesions(
    rows: list[dict[str, Any]],
    case_id: str,
    geometry: Geometry,
    flat_axis: int | None,
    class_name: str,
    match: LesionMatch,
) -> None:
    if flat_axis is not None:
        match = match.in_volume(flat_axis)
    rows += lesion_rows(case_id, class_name, match, geometry.affine)


def _inner_counts(
    study: Study, network: torch.nn.Module, case: Case, prepared: PreparedCase, check: Callable[[], None]
) -> tuple[ProbabilityCounts, NDArray[np.int64]]:
    """Count an inner case, on which thresholds may be chosen; no mask or score of it is written."""
    reference, geometry = read_label(case, study.dataset.label_values, study.dataset.value_hints)
    turned = turn_of(geometry, study.dataset).turned(reference)
    classes = len(study.dataset.classes)
    watched = ScoredProbabilities(turned, classes, study.dataset.ignore_index, 0)
    predict_label(network, prepared.image, study.config, turned.shape, classes, check, watched.watch)
    return watched.counts(), watched.lesions(0.0, study.config.evaluation.lesions)


def record_failure(study: Study, run: Run, files: RunFolder) -> None:
    """Write failed scores for all cases that the run would have scored into an attempt; a trial scores none."""
    if run.trial is not None:
        return
    rows = failed_rows(
        dataset=study.dataset.name,
        fold=run.fold,
        seed=run.seed,
        loss=run.loss.key,
        cases=study.split(run.fold).validation,
        classes=study.dataset.classes,
        own_metrics=[metric.name for metric in study.own_metrics],
    )
    write_scores(files.scores_file, rows)
