"""The data of a report: a study, the state of every run, and the scores."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.data.case import IGNORED, Case, read_label
from voxloss.data.formats import exists
from voxloss.study.folder import RunStatus
from voxloss.study.study import Study
from voxloss.utilities.arrays import ClassIndices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyRecord:
    """Everything that a report is built from.

    Args:
        study: The study, or imported scores in a study's form.
        runs: The status of every run.
        scores: The long table; it may be empty.
    """

    study: Study
    runs: tuple[RunStatus, ...]
    scores: "pd.DataFrame"

    @property
    def shown_seed(self) -> int:
        """The seed whose predictions are shown case by case: the lowest."""
        return min(self.study.comparison.seeds, default=0)

    def probabilities(self, loss: str, case_id: str, seed: int) -> Path | None:
        """Return the probabilities that a loss predicted for a case; None if the study does not keep them."""
        fold = self.study.fold_of(case_id)
        for status in self.runs:
            if (status.loss, status.fold, status.seed) == (loss, fold, seed):
                path = self.study.run_folder(status.run).probabilities(case_id)
                return path if path.is_file() else None
        return None

    def prediction(self, loss: str, case_id: str, seed: int) -> Path | None:
        """Return the mask that a loss predicted for a case it was not trained on; None if there is none."""
        fold = self.study.fold_of(case_id)
        for status in self.runs:
            if (status.loss, status.fold, status.seed) == (loss, fold, seed):
                path = self.study.run_folder(status.run).prediction(case_id)
                return path if exists(path) else None
        return None

    def read_prediction(self, path: Path, case: Case) -> ClassIndices:
        """Read a predicted mask to be shown: background outside the case's region of interest, where nothing counts.

        Raises InputError naming the file if it cannot be read.
        """
        mask, _ = read_label(replace(case, label=path), self.study.dataset.label_values)
        mask[mask == IGNORED] = 0
        return mask


def open_record(study: Path) -> StudyRecord:
    """Read a study's folder, finished or in progress.

    Raises:
        InputError: It is no study, or one of its files is damaged; the message names the file.
    """
    return record_of(Study.open(study))


def record_of(study: Study) -> StudyRecord:
    """Read the runs and scores of an open study of one network, or of the part of a network."""
    return StudyRecord(study, tuple(study.status(run) for run in study.runs()), study.scores())
