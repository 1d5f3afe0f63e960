"""A study's folder as the report reads it: settings, data set, folds, the state of every run, and the scores."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloss.config.losses import LossChoice
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunRecord:
    """What a run's status.json says; "pending" without one."""

    loss: str
    fold: int
    seed: int
    folder: Path
    state: str = "pending"
    epoch: int = 0
    epochs: int = 0
    reason: str | None = None
    seconds: float = 0.0
    batch_digest: str | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class StudyRecord:
    """Everything a report is made from. `scores` may be empty; `losses` are keys, in the study's order.

    imported: the scores are of trainings elsewhere (`voxloss import`), of which little is known.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    dataset: Dataset
    folds: tuple[tuple[str, ...], ...]
    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunRecord, ...]
    scores: "pd.DataFrame"
    data_digest: str | None = None
    imported: bool = False

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """One value of the configuration."""
        return (self.config.get(section) or {}).get(key, default)

    def fold_of(self, case_id: str) -> int:
        """The fold in which a case is held out."""
        return next(fold for fold, ids in enumerate(self.folds) if case_id in ids)

    def run(self, loss: str, fold: int, seed: int) -> RunRecord | None:
        """One run, None where the study has no such run."""
        wanted = (loss, fold, seed)
        return next((run for run in self.runs if (run.loss, run.fold, run.seed) == wanted), None)


def open_record(study: Path) -> StudyRecord:
    """Read a study's folder, finished or in progress.

    Raises:
        InputError: it is no study, or one of its files is damaged; the message names the file.
    """
    from voxloss.evaluation.scores import merge_scores, read_scores

    if not (study / "study.yaml").is_file():
        raise InputError(f"{study} is not a study: it has no study.yaml")
    content = _read(study / "study.yaml")
    config, environment = content.get("config") or {}, content.get("environment") or {}
    dataset = _dataset(study / "dataset.json")
    folds = tuple(tuple(ids) for ids in _read(study / "folds.json").get("folds", ()))
    comparison = config.get("comparison") or {}
    losses = tuple(_loss_key(entry) for entry in comparison.get("losses", ()))
    seeds = tuple(comparison.get("seeds", ()))
    held_out = [fold for fold, ids in enumerate(folds) if ids]  # of imported results some folds may not be there
    runs = tuple(_run(study, loss, fold, seed) for loss in losses for fold in held_out for seed in seeds)
    if (study / "scores.csv").is_file():
        scores = read_scores(study / "scores.csv")
    else:
        scores = merge_scores(run.folder / "scores.csv" for run in runs if (run.folder / "scores.csv").is_file())
    digest = _read(study / "dataset.json").get("digest")
    imported = "imported" in content
    return StudyRecord(study, config, environment, dataset, folds, losses, seeds, runs, scores, digest, imported)


def read_history(run: RunRecord) -> list[dict[str, float]]:
    """Epoch, validation loss and mean foreground Dice on the validation batches, and seconds, as far as a run got."""
    path = run.folder / "history.csv"
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {"epoch": int(row["epoch"])}
                | {name: float(row[name] or "nan") for name in ("validation_loss", "validation_dice", "seconds")}
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a run's history: {error!r}") from None


def chosen_epoch(history: list[dict[str, float]], selection: str) -> int | None:
    """The epoch whose weights are the run's model by `training.selection`; None without a history."""
    if not history:
        return None
    if selection == "last":
        return int(history[-1]["epoch"])
    values = [entry["validation_loss"] if selection == "fold" else -entry["validation_dice"] for entry in history]
    # Of equal values the first; the first epoch's weights are kept also where its value is not finite.
    best = min(range(len(values)), key=lambda place: values[place] if math.isfinite(values[place]) else math.inf)
    return int(history[best]["epoch"])


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold a mapping, but holds {type(content).__name__}")
    return content


def _dataset(path: Path) -> Dataset:
    content = _read(path)
    try:
        cases = tuple(
            Case(case["id"], tuple(map(Path, case["images"])), Path(case["label"]) if case["label"] else None)
            for case in content["cases"]
        )
        values = {int(value): int(index) for value, index in content["label_values"].items()}
        return Dataset(content["name"], cases, tuple(content["classes"]), values)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a data set's description: {error!r}") from None


def _loss_key(entry: Any) -> str:
    if isinstance(entry, dict):
        return LossChoice(str(entry.get("name")), {key: value for key, value in entry.items() if key != "name"}).key
    return str(entry)


def _run(study: Path, loss: str, fold: int, seed: int) -> RunRecord:
    folder = study / "runs" / loss / f"fold-{fold}" / f"seed-{seed}"
    if not (folder / "status.json").is_file():
        return RunRecord(loss, fold, seed, folder)
    status = _read(folder / "status.json")
    return RunRecord(
        loss,
        fold,
        seed,
        folder,
        state=str(status.get("state", "pending")),
        epoch=int(status.get("epoch") or 0),
        epochs=int(status.get("epochs") or 0),
        reason=status.get("reason"),
        seconds=float(status.get("seconds") or 0.0),
        batch_digest=status.get("batch_digest"),
        peak_memory=status.get("peak_memory"),
    )
