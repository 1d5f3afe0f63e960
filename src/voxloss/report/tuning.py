"""What a study's search for settings found: its trials as a table, and what was chosen for each loss and fold."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from voxloss.config.losses import LossChoice
from voxloss.config.tuning import Dimension, Setting, Tuning
from voxloss.report.record import StudyRecord
from voxloss.study.folder import FINISHED, RunStatus
from voxloss.study.searches import Trial


@dataclass(frozen=True)
class TuningResults:
    """The searches of a study.

    Args:
        tuning: What is searched.
        losses: The losses as listed, in the study's order.
        trials: A row per trial that has begun: loss, fold, trial, round, source, state, epochs, value (mean foreground
            Dice on inner cases; 0 if it diverged, NaN while it is unknown or if it was stopped early), chosen, seconds,
            and a column per searched value.
        settings: By loss and fold, the chosen setting; None while the search goes on.
        same_batches: Whether all trials of a fold saw the same batches, by the digests of the epochs that they share.
    """

    tuning: Tuning
    losses: tuple[LossChoice, ...]
    trials: pd.DataFrame
    settings: dict[tuple[str, int], Setting | None]
    same_batches: bool

    def space(self, loss: LossChoice) -> dict[str, Dimension]:
        """What is searched for a loss."""
        return self.tuning.space(loss)

    def of_loss(self, loss: LossChoice) -> pd.DataFrame:
        """The trials of a loss."""
        return self.trials[self.trials["loss"] == loss.key]

    @property
    def folds(self) -> list[int]:
        """The folds that are searched."""
        return sorted({fold for _, fold in self.settings})


def tuning_results(record: StudyRecord) -> TuningResults | None:
    """Read the searches of a study; None without any, or before the first trial."""
    study = record.study
    if study.imported or study.tuning is None:
        return None
    losses = tuple(choice.listed for choice in study.losses if choice.tuned)
    rows: list[dict[str, Any]] = []
    settings: dict[tuple[str, int], Setting | None] = {}
    digests: dict[tuple[int, int], set[str]] = {}
    for fold in sorted({fold for _, fold in study.rounds()}):
        for loss in losses:
            search = study.search(loss, fold)
            settings[loss.key, fold] = search.setting
            for trial in search.trials:
                run = study.trial_run(loss, fold, trial)
                rows.append(_row(loss, fold, trial, study.status(run), search.chosen))
                for epoch in study.run_folder(run).history():
                    digests.setdefault((fold, epoch.number), set()).add(epoch.batch_digest)
    if not rows:
        return None
    same = all(len(of_epoch) == 1 for of_epoch in digests.values())
    return TuningResults(study.tuning, losses, pd.DataFrame(rows), settings, same)


def _row(loss: LossChoice, fold: int, trial: Trial, status: RunStatus, chosen: int | None) -> dict[str, Any]:
    value = 0.0 if status.state == "diverged" else math.nan if status.value is None else status.value
    return {
        "loss": loss.key, "fold": fold, "trial": trial.number, "round": trial.round, "source": trial.source,
        "state": status.state, "epochs": status.epoch, "value": value, "chosen": trial.number == chosen,
        "seconds": status.seconds, **trial.setting,
    }  # fmt: skip


def best_so_far(results: TuningResults) -> pd.DataFrame:
    """Return for every loss and number of trials the best score on inner cases so far, averaged over the folds.

    Only folds whose trials have all finished count. Of a grid, whose order means nothing, it is the expected best over
    all orders of its trials.
    """
    rows = []
    for loss in results.losses:
        curves = []
        for _, of_fold in results.of_loss(loss).groupby("fold", sort=True):
            if len(of_fold) == results.tuning.trials and of_fold["state"].isin(FINISHED).all():
                values = of_fold.sort_values("trial")["value"].fillna(-math.inf).to_numpy(dtype=float)
                curves.append(expected_best(values) if results.tuning.grid else np.maximum.accumulate(values))
        for number, best in enumerate(np.mean(curves, axis=0) if curves else [], start=1):
            rows.append({"loss": loss.key, "trials": number, "best": best, "folds": len(curves)})
    return pd.DataFrame(rows, columns=["loss", "trials", "best", "folds"])


def expected_best(values: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the expected largest of n values drawn without replacement, for n from 1 to their number."""
    ordered, total = np.sort(values), len(values)
    return np.array(
        [
            sum(math.comb(place, n - 1) * value for place, value in enumerate(ordered) if place >= n - 1)
            / math.comb(total, n)
            for n in range(1, total + 1)
        ]
    )
