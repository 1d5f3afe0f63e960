"""Losses and metrics of the user's own in a study: tried before anything is trained, and losses recorded by source."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from voxloss.config.losses import LossChoice, build_loss, loss_choices
from voxloss.config.metrics import metric_choices
from voxloss.config.schema import Size, StudyConfig
from voxloss.data.dataset import Dataset
from voxloss.evaluation.metrics import Score, own_scores, register_metric
from voxloss.losses.own import try_loss
from voxloss.study.folder import ENDED
from voxloss.study.sources import SourceError
from voxloss.study.study import Study
from voxloss.training.device import resolve_device
from voxloss.utilities.arrays import Labels
from voxloss.utilities.errors import InputError
from voxloss.utilities.imports import import_attribute, source_digests

LONGEST_TITLE = 40  # of a docstring's first line, above which it is no name for tables
USUAL_SIZE: Size = (32, 32, 32)  # of the patch that a loss is tried on before the study's is known


def try_own_losses(config: StudyConfig, dataset: Dataset, choices: Sequence[LossChoice] | None = None) -> None:
    """Compute own losses on random patches, so that a mistake shows before hours of training.

    Args:
        config: The study's configuration; its patch size may still be open.
        dataset: The study's data set.
        choices: The losses; None: all of the configuration. Those of the package are passed over.

    Raises:
        InputError: A loss cannot be imported, built or computed, or cannot ignore the data set's ignored voxels.
    """
    for choice in loss_choices(config.comparison.losses) if choices is None else choices:
        if choice.own:
            loss = build_loss(choice, dataset.ignore_index)
            device = torch.device(resolve_device(config.execution.device))
            try:
                try_loss(
                    loss.to(device),
                    choice.name,
                    len(dataset.classes),
                    config.patches.size or USUAL_SIZE,
                    config.patches.batch_size,
                    dataset.ignore_index,
                    device,
                )
            except ValueError as error:
                raise InputError(f"the loss {error}") from error


def own_records(
    study: Study, keys: Collection[str], notice: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Any]]:
    """Return the records of a study's own losses, with those that have runs left as they are now.

    Args:
        study: The study.
        keys: The keys of the losses with runs left.
        notice: Called with a sentence where other parts of a loss's file changed.

    Raises:
        InputError: The source text of a loss changed after one of its runs began.
    """
    records = study.files.read_own_losses()
    for choice in study.losses:
        if not choice.own or choice.key not in keys:
            continue
        now, before = _record(choice), records.get(choice.key)
        if before is not None and _begun(study, choice):
            if now["source"] != before.get("source"):
                raise InputError(
                    f"the source text of the loss {choice.name} is not the one that runs of {study.folder} were "
                    "trained with; restore it, or give the changed loss another name"
                )
            if now["file"] != before.get("file"):
                notice(
                    f"the file of the loss {choice.name} changed since its first run, but not the loss itself; check "
                    "that nothing changed that the loss uses"
                )
                now["file"] = before.get("file")
        records[choice.key] = now
    return records


def require_own_loss(study: Study, choice: LossChoice) -> None:
    """Raise SourceError if an own loss cannot be imported now, or has another source text than recorded."""
    if not choice.own:
        return
    recorded = study.files.read_own_losses().get(choice.key)
    try:
        now = _record(choice)
    except InputError as error:
        raise SourceError(str(error)) from error
    if recorded is not None and now["source"] != recorded.get("source"):
        raise SourceError(f"the source text of the loss {choice.name} changed while the study was running; restore it")


def own_functions(study: Study) -> dict[str, Callable[..., Any]]:
    """Import the study's own metrics. Raises SourceError if one cannot be imported: no loss is at fault."""
    try:
        return {metric.name: metric.function() for metric in study.own_metrics}
    except InputError as error:
        raise SourceError(str(error)) from error


def own_metric_scores(
    study: Study,
    functions: Mapping[str, Callable[..., Any]],
    reference: Labels,
    prediction: Labels,
    spacing_mm: Sequence[float],
) -> list[Score]:
    """Score a case by the study's own metrics. Raises SourceError if one fails: no loss is at fault."""
    classes, ignored = study.dataset.classes, study.dataset.ignore_index
    try:
        return own_scores(reference, prediction, classes, spacing_mm, functions, ignored)
    except InputError as error:
        raise SourceError(str(error)) from error


def try_own_metrics(entries: Sequence[str | dict[str, Any]], dataset: Dataset) -> None:
    """Compute own metrics on small masks, empty ones too, so that a mistake shows before hours of training.

    Args:
        entries: `evaluation.metrics`, settled.
        dataset: The study's data set. Masks of images have two axes, as when a run scores them.

    Raises:
        InputError: A metric cannot be imported, fails, or leaves its range.
    """
    spacing = (3.0, 1.5, 1.0) if dataset.flat_axis is None else (1.5, 1.0)
    empty = np.zeros((6, 7, 8)[-len(spacing) :], dtype=np.uint8)
    full = empty.copy()
    full[tuple(slice(2, 5) for _ in spacing)] = 1
    moved = np.roll(full, 1, axis=-1)
    for metric in metric_choices(entries):
        register_metric(metric.name, metric.range, metric.higher_is_better, metric.unit)
        function = {metric.name: metric.function()}
        for reference, prediction in ((full, moved), (full, empty), (empty, full), (empty, empty)):
            own_scores(reference, prediction, ("background", "a trial mask"), spacing, function)


def _record(choice: LossChoice) -> dict[str, Any]:
    part = import_attribute(choice.name, "the loss")
    return {"name": choice.name, "title": _title(choice, part), **source_digests(part)}


def _title(choice: LossChoice, part: Any) -> str:
    """What the page calls the loss: as configured, as its class says, or by its name."""
    if choice.title is not None:
        return choice.title
    own = getattr(part, "title", None)
    if isinstance(own, str) and own.strip():
        return own
    documented = vars(part).get("documentation") if isinstance(part, type) else None  # of a subclass of voxloss.Loss
    title = getattr(documented, "title", None)
    short = isinstance(title, str) and 0 < len(title.strip()) <= LONGEST_TITLE
    return str(title) if short else choice.name.rpartition(".")[2]


def _begun(study: Study, choice: LossChoice) -> bool:
    runs = [run for run in study.runs() if run.loss.listed == choice.listed]
    return any(study.status(run).state in ENDED or study.run_folder(run).checkpoint_file.is_file() for run in runs)
