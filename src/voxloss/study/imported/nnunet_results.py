"""What nnU-Net v2 leaves of a training: TRAINER__PLANS__CONFIGURATION/fold_K/validation/summary.json and predictions.

In a summary every case has TP, FP, FN and Dice of each label ("1") or region ("(1, 2)"), as counted on the original
grid, ignored voxels left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import voxloss
from voxloss.config.losses import LossChoice
from voxloss.nnunet.names import PREFIX, RECORD, trainer_name
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Structure:
    """A label or region: its name, its values in a mask, and its key in a summary."""

    name: str
    values: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Counts:
    """Voxels of one structure in one case, and its Dice as the summary has it (NaN where it is in neither mask).

    `true_negative` is None where the summary does not have it.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    dice: float
    true_negative: int | None = None

    @property
    def share(self) -> float | None:
        """The structure's share of the counted voxels; None where it is in no voxel, or the number is unknown."""
        inside = self.true_positive + self.false_negative
        if self.true_negative is None or not inside:
            return None
        return inside / (inside + self.false_positive + self.true_negative)


@dataclass(frozen=True)
class Validated:
    """A case that a fold held out: counts of every structure, the prediction, and the reference it was compared with.

    The reference's path is that of the machine where nnU-Net ran, and may not exist here.
    """

    counts: tuple[Counts, ...]
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Training:
    """One trainer's folder. `loss` is its key in tables, `setting` its entry in a study's `comparison.losses`.

    setting: the loss's name, or a mapping of name and parameters. folds: fold -> case -> result, of finished folds.
    """

    folder: Path
    dataset: str
    configuration: str
    loss: str
    setting: "str | dict[str, Any]"
    structures: tuple[Structure, ...]
    ignore_label: int | None
    file_ending: str
    folds: Mapping[int, Mapping[str, Validated]]


def find_trainings(folders: Sequence[Path]) -> list[Path]:
    """The trainers' folders among those given: each itself, or all that are in a data set's folder.

    Raises:
        InputError: A folder is neither, or is given twice.
    """
    found: list[Path] = []
    for folder in folders:
        own = [folder] if _is_training(folder) else []
        if not own and folder.is_dir():
            own = sorted(path for path in folder.iterdir() if _is_training(path))
        if not own:
            raise InputError(
                f"{folder} is not a folder of nnU-Net's results: there is no fold_K in it, nor in a folder named "
                "TRAINER__PLANS__CONFIGURATION in it"
            )
        found += own
    resolved = [path.resolve() for path in found]
    for path in found:
        if resolved.count(path.resolve()) > 1:
            raise InputError(f"{path} is given twice")
    return found


def _is_training(folder: Path) -> bool:
    return folder.is_dir() and len(folder.resolve().name.split("__")) == 3 and any(folder.glob("fold_*"))


def read_training(folder: Path, wanted: Sequence[int] | None = None) -> Training:
    """Read a trainer's folder: of all finished folds, or of those `wanted`.

    Raises:
        InputError: A file is missing or damaged, or a case is held out in two folds; the message names the file.
    """
    trainer, plans, configuration = folder.resolve().name.split("__")
    dataset = _read_json(folder / "dataset.json")
    structures, ignore_label = _structures(dataset, folder / "dataset.json")
    ending = dataset.get("file_ending", ".nii.gz")
    folds: dict[int, dict[str, Validated]] = {}
    settings: dict[int, str | dict[str, Any]] = {}
    for path in sorted(folder.glob("fold_*")):
        number = path.name.removeprefix("fold_")
        summary = path / "validation" / "summary.json"
        # fold_all is validated on its own training cases.
        if number.isdecimal() and summary.is_file() and (wanted is None or int(number) in wanted):
            folds[int(number)] = _read_summary(summary, structures, ending)
            settings[int(number)] = _setting(trainer, path)
    _refuse_twice_held_out(folder, folds)
    first = next(iter(settings.values()), trainer)
    for fold, setting in settings.items():
        if setting != first:
            raise InputError(f"{folder}: fold {fold} was trained with {setting}, but another fold with {first}")
    dataset_name = folder.resolve().parent.name
    if (folder / "plans.json").is_file():
        dataset_name = str(_read_json(folder / "plans.json").get("dataset_name") or dataset_name)
    return Training(
        folder=folder,
        dataset=dataset_name,
        configuration=f"{plans}__{configuration}",
        loss=first if isinstance(first, str) else _choice(first).key,
        setting=first,
        structures=structures,
        ignore_label=ignore_label,
        file_ending=str(ending),
        folds=folds,
    )


def _choice(setting: dict[str, Any]) -> LossChoice:
    return LossChoice(str(setting["name"]), {key: value for key, value in setting.items() if key != "name"})


def _setting(trainer: str, fold: Path) -> "str | dict[str, Any]":
    """The loss where the trainer is one of ours by name, with the parameters that the training noted; else its name."""
    if not trainer.startswith(PREFIX):
        return trainer
    if not (fold / RECORD).is_file():
        return {trainer_name(loss): loss for loss in voxloss.list_losses()}.get(trainer, trainer)
    record = _read_json(fold / RECORD)
    loss, parameters = record.get("loss"), record.get("parameters")
    if not isinstance(loss, str) or not isinstance(parameters, dict):
        raise InputError(f"{fold / RECORD} lacks loss or parameters")
    if trainer != trainer_name(loss):  # somebody's variant of it, which may differ in more than the loss
        return trainer
    return {"name": loss, **parameters} if parameters else loss


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold a mapping, but holds {type(content).__name__}")
    return content


def _structures(dataset: dict[str, Any], path: Path) -> tuple[tuple[Structure, ...], int | None]:
    """Labels and regions by nnU-Net's rules: regions as soon as one of them has several values."""
    labels = dataset.get("labels")
    try:
        values = {name: _values(entry) for name, entry in labels.items()}  # type: ignore[union-attr]
        ignore = values.pop("ignore", None)
        regions = any(len(entry) > 1 for entry in values.values())
        structures = []
        for name, entry in values.items():
            if set(entry) != {0}:
                as_tuple = regions and isinstance(labels[name], list)  # type: ignore[index]
                structures.append(Structure(name, entry, str(entry) if as_tuple else str(entry[0])))
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: labels should map names to values or lists of values ({error!r})") from None
    if not structures:
        raise InputError(f"{path} has no labels but the background")
    if not regions:
        structures.sort(key=lambda structure: structure.values)
    return tuple(structures), None if ignore is None else ignore[0]


def _values(entry: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in entry) if isinstance(entry, list) else (int(entry),)


def _read_summary(path: Path, structures: Sequence[Structure], ending: str) -> dict[str, Validated]:
    content = _read_json(path)
    cases: dict[str, Validated] = {}
    try:
        for entry in content["metric_per_case"]:
            # Whatever system wrote it: only the file's name is taken of the prediction's path.
            name = PureWindowsPath(entry["prediction_file"]).name
            case = name.removesuffix(ending)
            counts = tuple(_counts(entry["metrics"][structure.key]) for structure in structures)
            if case in cases:
                raise InputError(f"{path} has the case {case} twice")
            cases[case] = Validated(counts, path.parent / name, Path(entry["reference_file"]))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a summary of nnU-Net's validation: {error!r} is missing or wrong") from None
    if not cases:
        raise InputError(f"{path} holds no case")
    return cases


def _counts(metrics: dict[str, Any]) -> Counts:
    dice, outside = metrics["Dice"], metrics.get("TN")
    return Counts(
        int(metrics["TP"]),
        int(metrics["FP"]),
        int(metrics["FN"]),
        math.nan if dice is None else float(dice),
        None if outside is None else int(outside),
    )


def _refuse_twice_held_out(folder: Path, folds: Mapping[int, Mapping[str, Validated]]) -> None:
    fold_of: dict[str, int] = {}
    for number, cases in folds.items():
        for case in cases:
            if case in fold_of:
                raise InputError(f"{folder}: case {case} is held out in fold {fold_of[case]} and in fold {number}")
            fold_of[case] = number
