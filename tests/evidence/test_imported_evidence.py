"""Evidence from results of nnU-Net that others trained: what is known of them, and that what is unknown is said."""

import json

import numpy as np
import pytest
import yaml

from nnunet_files import LABELS, Results
from study_helpers import call
from voxloss.evidence.export import read_export

pytestmark = pytest.mark.slow

CASES = {fold: tuple(f"case_{number:03d}" for number in range(1 + fold, 21, 4)) for fold in range(4)}
LOSSES = ("nnUNetTrainer", "nnUNetTrainerVoxlossMixedFocal", "nnUNetTrainerVoxlossFocal")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("nnunet")
    results = Results(root, LABELS).references(CASES)
    record = {"loss": "focal", "parameters": {"gamma": 3}, "voxloss": "0.1.0"}
    folders = [
        results.trainer(name, shift=shift, cases=CASES, record=record if name.endswith("VoxlossFocal") else None)
        for shift, name in enumerate(LOSSES, start=1)
    ]
    content = json.loads((folders[0] / "dataset.json").read_text()) | {"numTraining": 20}
    (results.raw / "dataset.json").write_text(json.dumps(content))  # nnU-Net needs it there too
    result = call("import", "nnunet", *folders, "--study", root / "theirs")
    assert result.returncode == 0, result.stderr
    add = ("evidence", "add", root / "theirs", "--to", root / "results", "--data-set", "msd-hippocampus")
    result = call(*add, "--data", results.raw)
    assert result.returncode == 0, result.stderr
    result = call("evidence", "report", root / "results", "--output", root / "pages")
    assert result.returncode == 0, result.stderr
    return root


def test_its_scores_losses_and_rarity_are_known(exported):
    export = read_export(exported / "results" / "theirs")
    assert export.kind == "real" and export.source["from"] == "nnU-Net"
    assert set(export.losses) == {"nnUNetTrainer", "mixed_focal", "focal-gamma=3"}
    verdict = export.verdict()
    means = dict(zip(verdict.losses, verdict.means, strict=True))
    key = str(LABELS[export.class_name])
    for trainer, loss in zip(LOSSES, ("nnUNetTrainer", "mixed_focal", "focal-gamma=3"), strict=True):
        summaries = (exported / "res").glob(f"*/{trainer}__*/fold_*/validation/summary.json")
        entries = [entry for file in summaries for entry in json.loads(file.read_text())["metric_per_case"]]
        assert means[loss] == pytest.approx(np.mean([entry["metrics"][key]["Dice"] for entry in entries]), abs=1e-6)
        assert len(entries) == verdict.n_cases == 20
    assert export.fingerprint.cases == 20
    # A block of 5 x 7 x 8 of 9 x 12 x 10 voxels, and around it, in planes of its own, 7 x 8 x 8 less those.
    assert export.fingerprint.of("Posterior").voxel_fraction.median == pytest.approx(280 / 1080, rel=1e-5)
    assert export.fingerprint.of("Anterior").voxel_fraction.median == pytest.approx(168 / 1080, rel=1e-5)


def test_its_settings_machine_and_batches_are_unknown_and_said_to_be(exported):
    content = yaml.safe_load((exported / "results" / "theirs" / "evidence.yaml").read_text())
    assert set(content["settings"]) == {"comparison"} and content["environment"] == {}
    assert content["runs"] == {"states": {"done": 12}, "seconds": {}}
    for what in ("batches", "weights"):
        assert content["digests"][what] == {"equal": None, "unrecorded_runs": 12, "digests": {}}
    text = (exported / "results" / "theirs" / "evidence.yaml").read_text()
    assert str(exported) not in text and "case_0" not in text
    page = (exported / "pages" / "studies.md").read_text()
    assert "Imported from nnU-Net (nnUNetPlans__3d_fullres)." in page.replace("\\", "")
    assert "Settings, machine, batches and initial weights are not known." in page
    assert "| not known |" in (exported / "pages" / "index.md").read_text()  # the time of its runs


def test_without_the_baseline_nothing_is_joined_with_it(exported):
    """nnU-Net's own loss is not taken for our Dice + cross entropy, from which it differs in details."""
    assert "No study has Dice + cross entropy and another loss." in (exported / "pages" / "index.md").read_text()
