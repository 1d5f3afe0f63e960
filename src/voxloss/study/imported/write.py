"""Write scores from elsewhere as a study's folder, marked as such, with the masks where there are any."""

import gzip
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import voxloss
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.evaluation.scores import write_scores
from voxloss.study.folder import is_imported
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder, write_json


@dataclass(frozen=True)
class Imported:
    """What is written.

    origin: what study.yaml says about where it came from, `from` at least. losses: entries of `comparison.losses`;
    keys: their values in the scores' column, in the same order. predictions: (loss, fold, seed, case) -> NIfTI file.
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
    predictions: Mapping[tuple[str, int, int, str], Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What was imported, as a sentence. note: what the scores lack; None where nothing."""

    losses: int
    folds: int
    seeds: int
    cases: int
    note: str | None = None

    def __str__(self) -> str:
        counts = {"loss": self.losses, "fold": self.folds, "seed": self.seeds, "case": self.cases}
        plural = {"loss": "losses"}
        parts = [f"{n} {name if n == 1 else plural.get(name, f'{name}s')}" for name, n in counts.items()]
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")


def require_free(study: Path) -> None:
    """Refuse a folder that holds something else than an earlier import, which is replaced.

    Raises:
        InputError: naming the folder.
    """
    if study.exists() and not study.is_dir():
        raise InputError(f"{study} is a file, not a folder for a study")
    if study.is_dir() and any(study.iterdir()) and not is_imported(study):
        raise InputError(f"{study} is not empty and not an earlier import; name another folder with --study")


def write_imported(study: Path, imported: Imported, note: str | None = None) -> Summary:
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
    with atomic_folder(study) as folder:
        write_json(folder / "dataset.json", _dataset_content(imported.dataset))
        write_json(folder / "folds.json", {"seed": None, "folds": folds})
        write_scores(folder / "scores.csv", scores)
        for loss in imported.keys:
            for fold in (fold for fold, cases in enumerate(folds) if cases):
                for seed in seeds:
                    run = folder / "runs" / loss / f"fold-{fold}" / f"seed-{seed}"
                    run.mkdir(parents=True)
                    write_json(run / "status.json", {"state": "done", "loss": loss, "fold": fold, "seed": seed})
        for (loss, fold, seed, case), source in imported.predictions.items():
            target = folder / "runs" / loss / f"fold-{fold}" / f"seed-{seed}" / "predictions"
            target.mkdir(exist_ok=True)
            if source.name.endswith(".gz"):
                shutil.copyfile(source, target / f"{case}.nii.gz")
            else:
                (target / f"{case}.nii.gz").write_bytes(gzip.compress(source.read_bytes(), mtime=0))
        content = {
            "imported": dict(imported.origin),
            "config": {"name": imported.name, "comparison": comparison},
            "environment": {
                "voxloss": voxloss.__version__,
                **{f"imported {key}": _text(value) for key, value in imported.origin.items()},
            },
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (folder / "study.yaml").write_text(text, encoding="utf-8")
    return Summary(len(imported.keys), sum(map(bool, folds)), len(seeds), len(case_folds), note)


def _dataset_content(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "label_values": {str(value): index for value, index in dataset.label_values.items()},
        "value_hints": {},
        "dropped": [],
        "cases": [_case_content(case) for case in dataset.cases],
    }


def _case_content(case: Case) -> dict[str, Any]:
    label = None if case.label is None else str(case.label.resolve())
    return {"id": case.case_id, "images": [str(path.resolve()) for path in case.images], "label": label}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
