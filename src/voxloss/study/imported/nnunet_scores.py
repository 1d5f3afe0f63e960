"""Scores of nnU-Net's validations: of the masks where they can be read, else of the voxels that its summaries count."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxloss.data.case import IGNORED, Case, read_label
from voxloss.data.formats import is_image_name
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import lesion_volumes, limits_of_classes
from voxloss.evaluation.metrics import Score, case_scores
from voxloss.evaluation.scores import score_rows
from voxloss.study.imported.nnunet_results import Counts, Structure, Training, Validated
from voxloss.utilities.arrays import Float64s
from voxloss.utilities.errors import InputError

DICE_TOLERANCE = 1e-6  # between our Dice of the masks and that of the summary

Progress = Callable[[int, int, str], None]  # (finished, of, what)


@dataclass(frozen=True)
class Places:
    """Where the references and images of a data set are looked for; the summaries' own paths come before."""

    labels: Path | None = None
    images: Path | None = None

    def reference(self, training: Training, validated: Validated) -> Path | None:
        """The file of a case's reference mask; None where there is none."""
        name = validated.prediction.name
        folders = [self.labels] if self.labels is not None else [validated.reference.parent]
        if self.labels is None:
            folders += _of_variable("nnUNet_preprocessed", training.dataset, "gt_segmentations")
            folders += _of_variable("nnUNet_raw", training.dataset, "labelsTr")
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    def channels(self, training: Training, case: str) -> list[Path]:
        """The image files of a case, CASE_0000 and so on; empty where there are none."""
        folders = [self.images] if self.images is not None else _of_variable("nnUNet_raw", training.dataset, "imagesTr")
        pattern = f"_[0-9][0-9][0-9][0-9]{training.file_ending}"
        matches = [sorted(folder.glob(f"{_literal(case)}{pattern}")) for folder in folders]
        return matches[0] if matches and is_image_name(Path(f"x{training.file_ending}")) else []


def _literal(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _of_variable(variable: str, *parts: str) -> list[Path]:
    return [Path(os.environ[variable], *parts)] if os.environ.get(variable) else []


def unreadable(trainings: Sequence[Training], places: Places) -> str | None:
    """The sentence about the first mask that is not there as NIfTI; None where all are."""
    for training in trainings:
        if not is_image_name(Path(f"x{training.file_ending}")):
            return f"masks are {training.file_ending} files"
        for cases in training.folds.values():
            for case, validated in cases.items():
                if not validated.prediction.is_file():
                    return f"{validated.prediction} does not exist"
                if places.reference(training, validated) is None:
                    return f"the reference of {case} is not at {validated.reference}"
    return None


def settle_sizes(training: Training, places: Places, rules: LesionRules) -> LesionRules:
    """Replace open size limits by the thirds of the lesions in the references; a structure without any gets none."""
    if rules.size_limits_ml is not None:
        return rules
    volumes: dict[str, list[Float64s]] = {structure.name: [] for structure in training.structures}
    for cases in training.folds.values():
        for case, validated in cases.items():
            path = places.reference(training, validated)
            reference, geometry = read_label(Case(case, (), path), _known_values(training))
            for structure in training.structures:
                mask = np.isin(reference, structure.values)
                volumes[structure.name].append(lesion_volumes(mask, math.prod(geometry.spacing_mm) / 1000, rules))
    return replace(rules, size_limits_ml=limits_of_classes(volumes))


def training_rows(
    training: Training,
    seed: int,
    places: Places | None,
    tolerance_mm: float,
    lesions: LesionRules,
    progress: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows of the long table of one training. Without `places` the masks are not read.

    Raises:
        InputError: A mask is damaged or on another grid, or its Dice is not that of the summary.
    """
    for fold, cases in sorted(training.folds.items()):
        for case, validated in sorted(cases.items()):
            if places is None:
                scores = summary_scores(training.structures, validated.counts)
            else:
                scores = _mask_scores(training, case, validated, places, tolerance_mm, lesions)
            yield from score_rows(scores, dataset=training.dataset, fold=fold, seed=seed, loss=training.loss, case=case)
            progress(f"{training.loss}, {case}")


def summary_scores(structures: Sequence[Structure], counts: Sequence[Counts]) -> list[Score]:
    """Dice, precision and recall of the counted voxels; 0/0 is undefined."""
    scores = []
    for structure, counted in zip(structures, counts, strict=True):
        true_positive, wrong, missed = counted.true_positive, counted.false_positive, counted.false_negative
        fractions = {
            "dice": (2 * true_positive, 2 * true_positive + wrong + missed),
            "precision": (true_positive, true_positive + wrong),
            "recall": (true_positive, true_positive + missed),
        }
        for metric, (part, whole) in fractions.items():
            value = part / whole if whole else math.nan
            scores.append(Score(structure.name, metric, value, "ok" if whole else "undefined"))
    return scores


def _mask_scores(
    training: Training, case: str, validated: Validated, places: Places, tolerance_mm: float, lesions: LesionRules
) -> list[Score]:
    reference_path = places.reference(training, validated)
    known = _known_values(training)
    reference, geometry = read_label(Case(case, (), reference_path), known)
    images = () if reference_path is None else (reference_path,)  # the grid that the prediction must have
    prediction, _ = read_label(Case(case, images, validated.prediction), known)
    scores = []
    for structure, counts in zip(training.structures, validated.counts, strict=True):
        truth, predicted = (np.isin(mask, structure.values).astype(np.uint8) for mask in (reference, prediction))
        if training.ignore_label is not None:
            truth[reference == training.ignore_label] = IGNORED
        classes = ("background", structure.name)
        own = case_scores(truth, predicted, classes, geometry.spacing_mm, tolerance_mm, lesions, IGNORED)
        dice = next(score.value for score in own if score.metric == "dice")
        if not (math.isnan(dice) and math.isnan(counts.dice)) and not abs(dice - counts.dice) <= DICE_TOLERANCE:
            raise InputError(
                f"{validated.prediction}: the Dice of {structure.name} is {dice:.6f} by the masks, but "
                f"{counts.dice:.6f} in summary.json; these are not the masks that nnU-Net compared (the reference: "
                f"{reference_path})"
            )
        scores += own
    return scores


def _known_values(training: Training) -> dict[int, int]:
    values = {0, *(value for structure in training.structures for value in structure.values)}
    if training.ignore_label is not None:
        values.add(training.ignore_label)
    return {value: value for value in values}


def label_values(training: Training) -> dict[int, int]:
    """Value in a mask -> class index, the background 0. Of regions that overlap the last one."""
    values = {0: 0}
    for index, structure in enumerate(training.structures, start=1):
        values |= dict.fromkeys(structure.values, index)
    if training.ignore_label is not None:
        values[training.ignore_label] = IGNORED
    return values


def rarest(training: Training) -> str:
    """The structure with the fewest voxels in all references, of those that are in any."""
    totals = {
        structure.name: sum(
            validated.counts[place].true_positive + validated.counts[place].false_negative
            for cases in training.folds.values()
            for validated in cases.values()
        )
        for place, structure in enumerate(training.structures)
    }
    present = {name: total for name, total in totals.items() if total}
    return min(present or totals, key=lambda name: totals[name])
