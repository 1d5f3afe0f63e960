"""Whether a loss has learned to find a class at all, which goes before the question which loss is the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEAST_PREDICTED = 0.5  # share of the cases with the class in which it must be predicted
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Learned:
    """What a loss has learned of a class, over the scored cases that have it and all seeds.

    Args:
        loss: The loss.
        class_name: The class.
        predicted: Number of predictions with the class.
        predictions: Number of predictions, one for each case and seed; those of failed runs count as empty.
        mean: Mean Dice over the cases, seeds averaged first; failed runs count as 0.
        low: Lower end of its 95 % interval over the cases (Student's t); the mean itself if there is one case.
        blind: Mean Dice of the best mask that does not look at the image, over the same cases; NaN where unknown.
    """

    loss: str
    class_name: str
    predicted: int
    predictions: int
    mean: float
    low: float
    blind: float

    @property
    def often_predicted(self) -> bool:
        """Whether the class is predicted in at least half of the predictions."""
        return self.predicted >= LEAST_PREDICTED * self.predictions

    @property
    def learned(self) -> bool:
        """Whether the loss has learned the class.

        It has if the class is predicted in at least half of the scored cases that have it, and if the lower end of the
        95 % interval of its mean Dice exceeds the mean Dice of the best mask that does not look at the image. Where
        that is unknown, it must exceed 0.
        """
        return self.often_predicted and self.low > (0.0 if math.isnan(self.blind) else self.blind)


def learned_classes(scores: pd.DataFrame, blind: Mapping[str, Mapping[str, float]]) -> list[Learned]:
    """Return what every loss has learned of every class, in order of first appearance.

    The interval is over cases and not over folds, since the question is whether these networks find the class, and not
    what other trainings would do. The criterion is Dice whatever the metric of the comparison is.

    Args:
        scores: The long table. Classes without a Dice are left out, and so are cases without the class, as the recall
            or the volume of the reference tells; without either, every case with a Dice counts as having it.
        blind: For every class the Dice of the best mask that does not look at the image, by case; may lack any.
    """
    unit = ["dataset", "case", "class"]
    wanted = scores[scores["metric"].isin(("dice", "precision", "recall", "reference_volume"))]
    undefined = wanted["status"] == "undefined"
    absent = (undefined & wanted["metric"].isin(("recall", "dice"))) & ~_present(wanted, unit)
    absent |= (wanted["metric"] == "reference_volume") & (wanted["value"] == 0)
    without = pd.MultiIndex.from_frame(wanted.loc[absent, unit])
    wanted = wanted[~pd.MultiIndex.from_frame(wanted[unit]).isin(without)]
    key = ["loss", "class", "dataset", "seed", "case"]
    dice = wanted[wanted["metric"] == "dice"].set_index(key)
    precision = wanted[wanted["metric"] == "precision"].set_index(key)["status"].reindex(dice.index)
    value = dice["value"].fillna(0.0)
    # A prediction beside the structure has Dice 0 and a precision, an empty one has none.
    predicted = (precision == "ok").where(precision.notna(), value > 0)
    table = pd.DataFrame({"value": value, "predicted": predicted.astype(bool)}).reset_index()
    return [_of_loss(str(loss), str(name), rows, blind) for (loss, name), rows in _groups(table)]


def _present(rows: pd.DataFrame, unit: list[str]) -> "pd.Series[bool]":
    """Whether some loss has a recall for the case and class, which it would not without the class."""
    with_recall = pd.MultiIndex.from_frame(rows.loc[(rows["metric"] == "recall") & (rows["status"] == "ok"), unit])
    return pd.Series(pd.MultiIndex.from_frame(rows[unit]).isin(with_recall), index=rows.index)


def _groups(table: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return list(table.groupby(["loss", "class"], sort=False))


def _of_loss(loss: str, name: str, rows: pd.DataFrame, blind: Mapping[str, Mapping[str, float]]) -> Learned:
    by_case = rows.groupby(["dataset", "case"], sort=False)["value"].mean()
    values, n = by_case.to_numpy(dtype=float), len(by_case)
    mean = float(values.mean())
    margin = 0.0
    if n > 1:
        margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    of_class = blind.get(name, {})
    known = [of_class[case] for _, case in by_case.index if case in of_class]
    return Learned(
        loss=loss,
        class_name=name,
        predicted=int(rows["predicted"].sum()),
        predictions=len(rows),
        mean=mean,
        low=max(0.0, mean - margin),
        blind=float(np.mean(known)) if known else math.nan,
    )
