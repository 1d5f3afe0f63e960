"""Write the folder of a small study of several networks as an experiment leaves it, without training anything."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from study_files import StudyFiles
from voxloss.study.folder import StudyFolder
from voxloss.study.study import Study

NETWORKS = ("unet", {"name": "monai.networks.nets.SegResNet", "label": "SegResNet"})


def write_networks_study(
    study: Path,
    networks: tuple[str | dict[str, Any], ...] = NETWORKS,
    **options: Any,
) -> Path:
    """Write a study in which all networks have the same scores.

    Args:
        study: Its folder.
        networks: The networks.
        options: Of `StudyFiles`.
    """
    StudyFiles(**options).write(study)
    files = StudyFolder(study)
    before = files.read_description()
    comparison = before.config["comparison"] | {"networks": list(networks)}
    files.write_description(replace(before, config=before.config | {"comparison": comparison}))
    runs = study / "runs"
    for choice in Study.open(study).networks:
        shutil.copytree(runs, study / "networks" / choice.key / "runs")
    shutil.rmtree(runs)
    runs.mkdir()
    files.scores_file.unlink(missing_ok=True)
    Study.open(study).merge_scores()
    return study
