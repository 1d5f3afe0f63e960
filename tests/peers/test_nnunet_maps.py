"""nnU-Net's own commands with losses that need maps: two epochs, of which the second is resumed, and validation."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")

pytestmark = pytest.mark.peers

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
CASES = 4
COMPILED = "3D, labels, CC-DiceCE, compiled"
# Labels of the data set (0, 1 and 2; with "ignore" the second structure of one case is 3), configuration and trainer.
LABELS = {"background": 0, "anterior": 1, "posterior": 2}
REGIONS = {"background": 0, "whole": [1, 2], "posterior": 2}
TRAININGS = {
    "3D, labels, CC-DiceCE": (LABELS, "3d_fullres", "CcDiceCe"),
    COMPILED: (LABELS, "3d_fullres", "CcDiceCe"),
    "3D, regions and ignored voxels, blob": (REGIONS | {"ignore": 3}, "3d_fullres", "Blob"),
    "3D, regions, Skeleton Recall": (REGIONS, "3d_fullres", "SkeletonRecall"),
    "2D, labels and ignored voxels, Skeleton Recall": (LABELS | {"ignore": 3}, "2d", "SkeletonRecall"),
    "2D, labels, clDice": (LABELS, "2d", "ClDice"),
    "3D, labels, a Compound with all maps": (LABELS, "3d_fullres", "Compound"),
}


def run(environment, *command):
    done = subprocess.run([BIN / command[0], *map(str, command[1:])], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_is_resumed_and_validated(kind, real_data, tmp_path, monkeypatch):
    import numpy as np
    import SimpleITK

    labels, configuration, name = TRAININGS[kind]
    monkeypatch.delenv("VOXLOSS_PARAMETERS", raising=False)
    if name == "Compound":
        schedule = "{shape: linear, start: 0, end: 0.1, epochs: 2}"
        losses = f"{{losses: [boundary, skeleton_recall, cc_dice_ce], weights: [{schedule}, 1, 1]}}"
        monkeypatch.setenv("VOXLOSS_PARAMETERS", losses)
    if kind == COMPILED:
        monkeypatch.setenv("VOXLOSS_TEST_COMPILE", "1")
    folder = subprocess.check_output([BIN / "voxloss", "nnunet-trainers"], text=True).strip()
    environment = os.environ | {
        "nnUNet_raw": str(tmp_path / "raw"),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_extTrainer": os.pathsep.join([str(HERE / "short_trainers"), folder]),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE / "stand_ins"), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    data, raw = real_data / "hippocampus", tmp_path / "raw" / "Dataset004_Hippocampus"
    cases = sorted(path.name for path in (data / "imagesTr").glob("*.nii.gz"))[:CASES]
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for number, case in enumerate(cases):
        shutil.copy(data / "imagesTr" / case, raw / "imagesTr" / case.replace(".nii.gz", "_0000.nii.gz"))
        mask = SimpleITK.ReadImage(str(data / "labelsTr" / case))
        if "ignore" in labels and number == 0:
            values = SimpleITK.GetArrayFromImage(mask)
            changed = SimpleITK.GetImageFromArray(np.where(values == 2, 3, values).astype(np.uint8))
            changed.CopyInformation(mask)
            mask = changed
        SimpleITK.WriteImage(mask, str(raw / "labelsTr" / case))
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    if "whole" in labels:
        description["regions_class_order"] = [1, 2]
    (raw / "dataset.json").write_text(json.dumps(description))

    run(environment, "nnUNetv2_plan_and_preprocess", "-d", 4, "-c", configuration, "-np", 1, "-npfp", 1)
    ids = [name.removesuffix(".nii.gz") for name in cases]
    splits = [{"train": ids[::2], "val": ids[1::2]}]
    preprocessed = tmp_path / "preprocessed" / "Dataset004_Hippocampus"
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    train = ("nnUNetv2_train", 4, configuration, 0, "-tr", f"nnUNetTrainerVoxloss{name}", "-device", "cpu")
    said = run(environment | {"VOXLOSS_TEST_EPOCHS": "1"}, *train)
    assert (
        ("Compound(" if name == "Compound" else f"{name}Loss(") in said and "Epoch 0" in said and "Epoch 1" not in said
    )
    results = next((tmp_path / "results").rglob("fold_0"))
    (results / "checkpoint_final.pth").rename(results / "checkpoint_latest.pth")  # as if it had been stopped
    assert ("Using torch.compile..." in said) == (kind == COMPILED)
    said = run(environment, *train, "--c")
    assert "Epoch 1" in said and "Epoch 0" not in said and "Validation complete" in said
    scores = json.loads((results / "validation" / "summary.json").read_text())["metric_per_case"]
    assert sorted(Path(entry["prediction_file"]).name for entry in scores) == cases[1::2]
