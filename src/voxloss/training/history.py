"""The history of a run: one row per epoch, written by training and read by status and report."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_text

COLUMNS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_dice",
    "not_predicted",
    "learning_rate",
    "gradient_shares",
    "seconds",
    "waiting",
    "batch_digest",
)


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run's history; a number that is undefined is NaN.

    Args:
        number: Counted from 1.
        train_loss: Mean loss over the training steps.
        validation_loss: Mean loss over the validation batches.
        validation_dice: Mean foreground Dice over the voxels of the validation batches.
        seconds: Duration, validation included.
        batch_digest: Digest of all training batches.
    """

    number: int
    train_loss: float
    validation_loss: float
    validation_dice: float
    seconds: float
    batch_digest: str


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the keys `COLUMNS` as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_history(path: Path) -> list[Epoch]:
    """Read the finished epochs of a run; none if there is no file yet.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_epoch(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a run's history: {error!r}") from None


def _epoch(row: Mapping[str, str]) -> Epoch:
    numbers = ("train_loss", "validation_loss", "validation_dice", "seconds")
    values = {name: float(row[name] or "nan") for name in numbers}
    return Epoch(int(row["epoch"]), **values, batch_digest=row.get("batch_digest") or "")


def selected_epoch(epochs: Sequence[Epoch], selection: Literal["last", "inner", "fold"]) -> int | None:
    """Return the number of the epoch whose weights `training.selection` selects; None without a history."""
    if not epochs:
        return None
    if selection == "last":
        return epochs[-1].number
    values = [epoch.validation_loss if selection == "fold" else -epoch.validation_dice for epoch in epochs]
    # The first of equal values; the first epoch is selected even if its value is not finite.
    best = min(range(len(values)), key=lambda place: values[place] if math.isfinite(values[place]) else math.inf)
    return epochs[best].number
