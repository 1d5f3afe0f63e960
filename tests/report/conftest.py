"""A study with a report, built once for all tests that only look at it."""

from pathlib import Path

import pytest
from study_files import StudyFiles

from voxloss.report import build_report


@pytest.fixture(scope="session")
def reported_study(once) -> Path:
    """Four losses, two classes, nine cases in three folds, one seed; the report is in its report/ folder."""
    losses = ("focal", "dice", "focal_tversky", "mixed_focal")

    def build(folder: Path) -> None:
        build_report(StudyFiles(losses=losses, cases=9, demonstration=True).write(folder))

    return once("reported_study", build)
