"""The history of a run: one row per epoch, written by training and read by status and report."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from voxloss.utilities.errors import InputError
from voxloss.utilities.files import read_whole, write_text

COLUMNS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_dice",
    "not_predicted",
    "patches_with_class",
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
        not_predicted: Classes that are in the validation patches and were never predicted, joined by "; ".
        patches_with_class: Share of the training patches that have each class; empty if an earlier version trained it.
        learning_rate: Learning rate.
        gradient_shares: Each term's share of the gradient at the epoch's first step.
    """

    number: int
    train_loss: float
    validation_loss: float
    validation_dice: float
    seconds: float
    batch_digest: str
    not_predicted: str = ""
    patches_with_class: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = math.nan
    gradient_shares: Mapping[str, float] = field(default_factory=dict)

    def lacks(self, class_name: str) -> bool:
        """Whether a class is in the validation patches and was never predicted."""
        return f"; {class_name}; " in f"; {self.not_predicted}; "


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
        return read_whole(path, lambda text: [_epoch(row) for row in csv.DictReader(io.StringIO(text))])
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a run's history: {error!r}") from None


def _epoch(row: Mapping[str, str]) -> Epoch:
    numbers = ("train_loss", "validation_loss", "validation_dice", "seconds")
    values = {name: float(row[name] or "nan") for name in numbers}
    patches = json.loads(row.get("patches_with_class") or "{}")
    if not isinstance(patches, dict):
        raise ValueError(f"patches_with_class is {patches!r}")
    return Epoch(
        int(row["epoch"]),
        **values,
        batch_digest=row.get("batch_digest") or "",
        not_predicted=row.get("not_predicted") or "",
        patches_with_class={name: float(share) for name, share in patches.items()},
        learning_rate=float(row.get("learning_rate") or "nan"),
        gradient_shares=dict(_shares(row.get("gradient_shares") or "")),
    )


def _shares(text: str) -> Iterator[tuple[str, float]]:
    for part in text.split():
        term, share = part.rsplit("=", 1)
        yield term, float(share)


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
