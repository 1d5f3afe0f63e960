"""Merge the scores of a study's runs into its one table."""

from pathlib import Path

from voxloss.evaluation.scores import merge_scores, write_scores
from voxloss.study.folder import FINISHED, Study


def merge_study_scores(study: Study) -> Path | None:
    """Merge the ended runs' scores into the study's scores.csv; None while there is none."""
    ended = [run for run in study.runs() if study.status(run)["state"] in (*FINISHED, "failed")]
    parts = [study.run_folder(run) / "scores.csv" for run in ended]
    if not parts:
        return None
    write_scores(study.folder / "scores.csv", merge_scores(parts))
    return study.folder / "scores.csv"
