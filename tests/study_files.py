"""Write a small study folder as an experiment leaves it, without training anything."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

from voxloss.config.files import config_from, to_plain
from voxloss.config.losses import LossChoice
from voxloss.config.settled import SettledConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.evaluation.lesion_list import lesion_rows, write_lesions
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.probabilities.counts import RunCounts, count_probabilities, write_counts
from voxloss.evaluation.probabilities.froc import lesions_by_threshold
from voxloss.evaluation.scores import failed_rows, merge_scores, score_rows, write_scores
from voxloss.study.folder import Description, Run, RunStatus, StudyFolder
from voxloss.training.history import write_history

LOSSES = ("focal", "dice", "tversky", "cosine_tversky", "focal_tversky", "combo", "mixed_focal")
SHAPE = (10, 40, 36)
SPACING = (3.2, 1.6, 1.6)
SIZE_LIMITS_ML = (0.5, 2.5)
RULES = LesionRules(size_limits_ml=SIZE_LIMITS_ML)

# KiTS19's: slices towards the feet, rows towards the back, columns towards the patient's left.
AFFINE = np.array([[0, 0, -1.6, 0], [0, -1.6, 0, 0], [-3.2, 0, 0, 0], [0, 0, 0, 1]], dtype=float)


@dataclass
class StudyFiles:
    """What to write. `skip`: runs (loss, fold, seed) without files; `states`: state and reason of others than done."""

    losses: tuple = LOSSES
    classes: tuple = ("background", "kidney", "tumour")
    cases: int = 12
    folds: int = 3
    seeds: tuple = (0,)
    name: str = "toy"
    dataset: str = "toy"
    case_prefix: str = "case_"
    interval: str = "fold"
    primary_class: str = "tumour"
    demonstration: bool = False
    clip: tuple | None = (-79, 304)
    skip: set = field(default_factory=set)
    states: dict = field(default_factory=dict)
    digest_of: dict = field(default_factory=dict)
    random_seed: int = 0
    design: str = "grid"
    shifts: dict | None = None  # by loss, of the log odds of its probabilities; None: no counts, no lists of lesions
    blank: tuple = ()  # losses that predict the background alone

    @property
    def ids(self):
        return [f"{self.case_prefix}{number:03d}" for number in range(self.cases)]

    def write(self, study: Path) -> Path:
        random = np.random.default_rng(self.random_seed)
        study.mkdir(parents=True, exist_ok=True)
        folds = [self.ids[fold :: self.folds] for fold in range(self.folds)]
        references = {case_id: _reference(random, len(self.classes)) for case_id in self.ids}
        self._write_descriptions(study, folds)
        for case_id, label in references.items():
            folder = study / "images" / case_id
            folder.mkdir(parents=True)
            _save(folder / "label.nii.gz", label)
            grey = np.array([-60, 180, 90, 120, 60, 150])[label] + random.normal(0, 18, SHAPE)
            _save(folder / "image.nii.gz", np.where(_body(), grey, -500).astype(np.int16))
        merged = []
        for place, loss in enumerate(self.losses):
            for fold, held_out in enumerate(folds):
                for seed in self.seeds:
                    if (loss, fold, seed) not in self.skip:
                        quality = 0.10 + 0.05 * (len(self.losses) - place)
                        merged.append(self._write_run(study, loss, fold, seed, held_out, references, quality, random))
        written = [path for path in merged if path is not None]
        if written:
            write_scores(study / "scores.csv", merge_scores(written))
        return study

    def _write_descriptions(self, study, folds):
        content = {
            "name": self.name,
            "data": {"layout": "folder", "root": "images"},
            "preparation": {"clip": list(self.clip) if self.clip else None, "spacing_mm": "stored"},
            "splits": {"folds": self.folds, "seed": 0},
            "patches": {"size": [8, 16, 16]},
            "training": {"epochs": 8, "iterations": 12, "selection": "last", "precision": "float32"},
            "comparison": {
                "losses": list(self.losses), "seeds": list(self.seeds), "primary_class": self.primary_class,
                "primary_metric": "dice", "interval": self.interval, "demonstration": self.demonstration,
                "design": self.design,
            },
            "evaluation": {"lesions": {"size_limits_ml": list(SIZE_LIMITS_ML)}},
        }  # fmt: skip
        environment = {
            "python": "3.11.5",
            "torch": "2.13.0",
            "voxloss": "0.1.0",
            "processor": "a processor",
            "cores": 2,
        }
        files = StudyFolder(study)
        cases = tuple(
            Case(case_id, (study / f"images/{case_id}/image.nii.gz",), study / f"images/{case_id}/label.nii.gz")
            for case_id in self.ids
        )
        values = {value: value for value in range(len(self.classes))}
        files.write_dataset(Dataset(self.dataset, cases, tuple(self.classes), values), digest=False)
        files.write_folds(folds, seed=0)
        files.write_description(Description(to_plain(SettledConfig.of(config_from(content))), environment))

    def _write_run(self, study, loss, fold, seed, held_out, references, error, random):
        state, reason = self.states.get((loss, fold, seed), ("done", None))
        files, run = StudyFolder(study), Run(LossChoice(loss, {}), fold, seed)
        folder = files.run(run).path
        folder.mkdir(parents=True)
        digest = self.digest_of.get((loss, fold, seed), f"digest-{fold}-{seed}")
        epoch = 8 if state == "done" else 3
        files.write_status(RunStatus(run, state, epoch, 8, reason, seconds=41.5, batch_digest=digest))
        rows = []
        for epoch in range(1, 9):
            dice = (1 - error) * (1 - np.exp(-epoch / 3)) + random.normal(0, 0.02)
            losses = {"train_loss": 1 / epoch, "validation_loss": 1.1 / epoch, "validation_dice": dice}
            rows.append({"epoch": epoch, **losses, "learning_rate": 0.0003, "seconds": 1.2, "batch_digest": "x"})
        write_history(files.run(run).history_file, rows)
        if state in ("pending", "running"):
            return None
        origin = {"dataset": self.dataset, "fold": fold, "seed": seed, "loss": loss}
        rows = []
        if state in ("failed", "diverged"):
            rows = failed_rows(**origin, cases=held_out, classes=self.classes)
        else:
            (folder / "predictions").mkdir()
            counted, lesions = [], []
            for case_id in held_out:
                prediction = _prediction(references[case_id], error, random) * np.uint8(loss not in self.blank)
                _save(folder / "predictions" / f"{case_id}.nii.gz", prediction)
                listed = partial(_list_lesions, lesions, case_id)
                scores = case_scores(
                    references[case_id], prediction, self.classes, SPACING, lesions=RULES, matched=listed
                )
                rows += score_rows(scores, **origin, case=case_id)
                if self.shifts is not None:
                    counted.append(_counts(references[case_id], prediction, self.shifts.get(loss, 0.0)))
            if counted:
                write_lesions(files.run(run).lesions_file, lesions)
                write_counts(
                    files.run(run).counts_file,
                    RunCounts(
                        tuple(held_out), (False,) * len(held_out), self.classes[1:], tuple(c for c, _ in counted),
                        self.primary_class, np.stack([lesions for _, lesions in counted]),
                    ),
                )  # fmt: skip
        write_scores(folder / "scores.csv", rows)
        return folder / "scores.csv"


def _body():
    _, row, column = np.indices(SHAPE)
    return ((row - 20) / 17) ** 2 + ((column - 18) / 17) ** 2 < 1


def _ball(centre, radius_mm):
    spacing = np.array([3.2, 1.6, 1.6])
    distance = (np.indices(SHAPE) - np.array(centre)[:, None, None, None]) * spacing[:, None, None, None]
    return np.sqrt((distance**2).sum(axis=0)) < radius_mm


def _reference(random, n_classes):
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[_ball((5, 22, 9), 9)] = 1
    label[_ball((5, 22, 27), 9)] = 1
    for index in range(2, n_classes):
        label[_ball((5 + random.integers(-1, 2), 17 + random.integers(0, 4), 10 + 6 * (index - 2)), 5)] = index
    return label


def _prediction(reference, error, random):
    """The reference, moved a little where the loss is bad, with some voxels wrong at random."""
    prediction = np.roll(reference, random.integers(0, 2), axis=int(random.integers(1, 3)))
    wrong = random.random(SHAPE) < error * random.uniform(0.2, 1.2)
    return np.where(wrong & (prediction > 0), 0, prediction).astype(np.uint8)


def _list_lesions(rows, case_id, class_name, match):
    rows += lesion_rows(case_id, class_name, match, AFFINE)


def _counts(reference, prediction, shift):
    """Counts of probabilities whose log odds are 2 or more where a class is predicted, moved by a shift."""
    random = np.random.default_rng(int(prediction.sum()))
    odds = [
        np.where(prediction == index, 2, -2) + random.normal(0, 1, SHAPE) + 2 * (reference == index) + shift
        for index in range(1, int(reference.max()) + 1)
    ]
    probabilities = 1 / (1 + np.exp(-np.stack([np.zeros(SHAPE), *odds])))
    last = np.floor(probabilities[-1] * 255 + 0.5).astype(np.uint8)
    lesions = lesions_by_threshold(reference == reference.max(), last, np.prod(SPACING) / 1000)
    return count_probabilities(probabilities.astype(np.float32), reference), lesions


def _save(path, array):
    image = nibabel.Nifti1Image(array, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    nibabel.save(image, path)
