"""What tests/imports writes as results is what nnU-Net's own evaluation writes: labels, regions, ignored voxels."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
sys.path.insert(0, str(Path(__file__).parents[1] / "imports"))

import nnunet_files

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("labels", [nnunet_files.LABELS, nnunet_files.REGIONS], ids=["labels", "regions"])
def test_summaries_are_those_of_nnunet(labels, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from voxloss.study.imported import import_nnunet

    results = nnunet_files.Results(tmp_path, labels).references()
    folder = results.trainer("nnUNetTrainerVoxlossMixedFocal")
    manager = LabelManager(labels, [1, 2, 3] if labels is nnunet_files.REGIONS else None)
    for fold in nnunet_files.CASES:
        validation = folder / f"fold_{fold}" / "validation"
        summary = json.loads((validation / "summary.json").read_text())
        compute_metrics_on_folder(
            str(results.raw / "labelsTr"),
            str(validation),
            str(validation / "summary.json"),
            SimpleITKIO(),
            ".nii.gz",
            manager.foreground_regions if manager.has_regions else manager.foreground_labels,
            manager.ignore_label,
            num_processes=1,
        )
        theirs = json.loads((validation / "summary.json").read_text())
        assert summary.keys() == theirs.keys()
        assert summary["metric_per_case"] == theirs["metric_per_case"]
    assert import_nnunet([folder], tmp_path / "study").note is None
