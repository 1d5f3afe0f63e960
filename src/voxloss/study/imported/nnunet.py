"""nnU-Net's validations of several trainers as one study."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.formats import MASK_ENDINGS, ending_of
from voxloss.evaluation.blind import every_voxel_dice
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import TOLERANCE_MM
from voxloss.evaluation.scores import score_table
from voxloss.study.imported.comparable import require_comparable
from voxloss.study.imported.nnunet_results import Training, find_trainings, read_training
from voxloss.study.imported.nnunet_scores import (
    Places,
    Progress,
    label_values,
    rarest,
    settle_sizes,
    training_rows,
    unreadable,
)
from voxloss.study.imported.write import ImportCounts, Imported, require_free, write_imported
from voxloss.utilities.errors import InputError


def import_nnunet(
    folders: Sequence[Path],
    study: Path,
    *,
    folds: Sequence[int] | None = None,
    labels: Path | None = None,
    images: Path | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    lesions: LesionRules | None = None,
    progress: Progress = lambda *_: None,
) -> ImportCounts:
    """Read the fold validations of several trainers and write them as a study that `voxloss report` reads.

    Where predictions and references are there as NIfTI files, every metric is computed from them on their own grid, and
    the Dice must be that of the summaries; else Dice, precision and recall are those of the voxels counted there.

    Args:
        folders: Trainers' folders (`nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION`), or data sets' folders with
            several trainers, which are all read. Several trainings of the same loss count as its seeds.
        study: The folder to write; an earlier import is replaced.
        folds: The folds to compare; None: all, which every trainer must have finished.
        labels: The folder of the reference masks; None: as the summaries and nnU-Net's variables say.
        images: The folder of the images; None: as nnU-Net's variables say.
        tolerance_mm: Tolerance of the normalised surface Dice.
        lesions: What a lesion is and when two match; None: the defaults.
        progress: Called with (scored, of, what).

    Raises:
        InputError: Results cannot be read or compared; the message says which and why.
    """
    require_free(study)
    if not 0 < tolerance_mm < math.inf:
        raise InputError(f"the tolerance of the NSD must be a positive number of mm, got {tolerance_mm}")
    trainings = [read_training(folder, folds) for folder in find_trainings(folders)]
    require_comparable(trainings, folds)
    places = Places(labels, images)
    without_masks = unreadable(trainings, places)
    rules = lesions or LesionRules()
    if without_masks is None:
        rules = settle_sizes(trainings[0], places, rules)
    total, done = sum(len(cases) for training in trainings for cases in training.folds.values()), 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, what)

    rows: list[dict[str, Any]] = []
    predictions: dict[tuple[str, int, int, str], Path] = {}
    seen = Counter[str]()
    for training in trainings:
        seed = seen[training.loss]
        seen[training.loss] += 1
        read = places if without_masks is None else None
        rows += training_rows(training, seed, read, tolerance_mm, rules, tell)
        for fold, cases in training.folds.items():
            for case, validated in cases.items():
                kept = ending_of(validated.prediction) in (*MASK_ENDINGS, ".nii")
                if kept and validated.prediction.is_file():
                    predictions[training.loss, fold, seed, case] = validated.prediction
    settings = {training.loss: training.setting for training in trainings}
    first = trainings[0]
    origin = {
        "from": "nnU-Net",
        "folders": [str(training.folder.resolve()) for training in trainings],
        "configuration": first.configuration,
        "metrics": "of the masks" if without_masks is None else f"of the summaries alone: {without_masks}",
    }
    imported = Imported(
        name=f"{first.dataset} {first.configuration}",
        origin=origin,
        dataset=_dataset(first, places),
        losses=list(settings.values()),
        keys=list(settings),
        scores=score_table(rows),
        primary_class=rarest(first),
        tolerance_mm=tolerance_mm if without_masks is None else None,
        lesions=rules if without_masks is None else None,
        predictions=predictions,
        blind=_blind(first),
    )
    note = None
    if without_masks is not None:
        note = f"Dice, precision and recall alone, of the voxels counted in the summaries, as {without_masks}"
    return write_imported(study, imported, note)


def _blind(training: Training) -> dict[str, dict[str, float]]:
    """The Dice of a mask of every voxel, by structure and case; the training masks of each fold are not at hand."""
    return {
        structure.name: {
            case: every_voxel_dice(share)
            for cases in training.folds.values()
            for case, validated in cases.items()
            if (share := validated.counts[place].share) is not None
        }
        for place, structure in enumerate(training.structures)
    }


def _dataset(training: Training, places: Places) -> Dataset:
    cases = []
    for _, held_out in sorted(training.folds.items()):
        for case, validated in sorted(held_out.items()):
            reference = places.reference(training, validated)
            cases.append(Case(case, tuple(places.channels(training, case)), reference))
    classes = ("background", *(structure.name for structure in training.structures))
    return Dataset(training.dataset, tuple(cases), classes, label_values(training))
