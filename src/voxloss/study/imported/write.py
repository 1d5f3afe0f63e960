"""Write scores from elsewhere as a study's folder, marked as such, with the masks where there are any."""

import gzip
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from voxloss import __version__
from voxloss.config.losses import LossChoice
from voxloss.data.dataset import Dataset
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.scores import write_scores
from voxloss.study.folder import Description, Run, RunStatus, StudyFolder
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder
from voxloss.utilities.text import count_of


@dataclass(frozen=True)
class Imported:
    """An import, as it is written in a study's form.

    Args:
        name: The study's name.
        origin: What study.yaml says about where the scores came from, at least `from`.
        dataset: The data set.
        losses: Entries of `comparison.losses`.
        keys: The values of the scores' column `loss`, in the order of `losses`.
        scores: The long table of scores.
        primary_class: The class of the headline.
        primary_metric: The metric of the headline.
        tolerance_mm: Of the normalised surface Dice; None if it is not known.
        lesions: The rules of lesion scores; None if they are not known.
        predictions: NIfTI files by loss, fold, seed and case.
        blind: By class and case the Dice of a mask of every voxel, where it is known.
    """

    name: str
    origin: Mapping[str, Any]
    dataset: Dataset
    losses: Sequence[str | dict[str, Any]]
    keys: Sequence[str]
    scores: pd.DataFrame
    primary_class: str
    primary_metric: str = "dice"
    tolerance_mm: float | None = None
    lesions: LesionRules | None = None
    predictions: Mapping[tuple[str, int, int, str], Path] = field(default_factory=dict)
    blind: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportCounts:
    """Numbers of what was imported, which print as a sentence. `note` says what the scores lack; None: nothing."""

    losses: int
    folds: int
    seeds: int
    cases: int
    note: str | None = None

    def __str__(self) -> str:
        counts = {"loss": self.losses, "fold": self.folds, "seed": self.seeds, "case": self.cases}
        parts = [count_of(number, noun) for noun, number in counts.items()]
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")


def require_free(study: Path) -> None:
    """Refuse a folder that holds something else than an earlier import, which is replaced.

    Raises:
        InputError: Naming the folder.
    """
    if study.exists() and not study.is_dir():
        raise InputError(f"{study} is a file, not a folder for a study")
    if study.is_dir() and any(study.iterdir()) and not StudyFolder(study).is_imported():
        raise InputError(f"{study} is not empty and not an earlier import; name another folder with --study")


def write_imported(study: Path, imported: Imported, note: str | None = None) -> ImportCounts:
    """Write the study's folder, whole or not at all; an earlier import in its place is replaced, with its report."""
    require_free(study)
    scores = imported.scores
    seeds = sorted(int(seed) for seed in scores["seed"].unique())
    case_folds = scores[["case", "fold"]].drop_duplicates()
    folds: list[list[str]] = [[] for _ in range(int(scores["fold"].max()) + 1)]
    for case, fold in zip(case_folds["case"], case_folds["fold"], strict=True):
        folds[fold].append(case)
    comparison = {
        "losses": list(imported.losses),
        "seeds": seeds,
        "primary_class": imported.primary_class,
        "primary_metric": imported.primary_metric,
        "interval": "fold" if sum(map(bool, folds)) > 1 else "case",
    }
    if imported.tolerance_mm is not None:
        comparison["tolerance_mm"] = imported.tolerance_mm
    config: dict[str, Any] = {"name": imported.name, "comparison": comparison}
    if imported.lesions is not None:
        config["evaluation"] = {"lesions": asdict(imported.lesions)}
    with atomic_folder(study) as folder:
        files = StudyFolder(folder)
        files.write_dataset(imported.dataset, digest=False)
        files.write_folds(folds)
        write_scores(files.scores_file, scores)
        if any(imported.blind.values()):
            files.write_blind("every voxel", imported.blind)
        choices = dict(zip(imported.keys, map(LossChoice.of, imported.losses), strict=True))
        for choice in choices.values():
            for fold in (fold for fold, cases in enumerate(folds) if cases):
                for seed in seeds:
                    files.write_status(RunStatus(Run(choice, fold, seed), "done"))
        for (loss, fold, seed, case), source in imported.predictions.items():
            target = files.run(Run(choices[loss], fold, seed)).prediction(case, like=source)
            target.parent.mkdir(exist_ok=True)
            if source.name.endswith(".nii"):
                target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))
            else:
                shutil.copyfile(source, target)
        files.write_description(
            Description(
                config=config,
                environment={
                    "voxloss": __version__,
                    **{f"imported {key}": _text(value) for key, value in imported.origin.items()},
                },
                imported=dict(imported.origin),
            )
        )
    return ImportCounts(len(imported.keys), sum(map(bool, folds)), len(seeds), len(case_folds), note)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
