"""nnU-Net's own commands on real images with three of our trainers, then `voxloss import nnunet` and the report."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")

pytestmark = pytest.mark.peers

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
DATASET = "Dataset004_Hippocampus"
LOSSES = {
    "MixedFocal": "mixed_focal",
    "DiceCrossEntropy": "dice_cross_entropy",
    "FocalTversky": "focal_tversky-gamma=2",
}
CASES = 4


@pytest.fixture
def environment(tmp_path, monkeypatch):
    folder = subprocess.check_output([BIN / "voxloss", "nnunet-trainers"], text=True).strip()
    monkeypatch.delenv("VOXLOSS_PARAMETERS", raising=False)
    return os.environ | {
        "nnUNet_raw": str(tmp_path / "raw"),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_extTrainer": os.pathsep.join([str(HERE / "short_trainers"), folder]),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "1",
        "PYTHONPATH": str(HERE / "stand_ins"),
        "OMP_NUM_THREADS": "2",
    }


def run(environment, *command):
    start = time.perf_counter()
    done = subprocess.run([BIN / command[0], *map(str, command[1:])], env=environment, capture_output=True, text=True)
    print(f"{time.perf_counter() - start:5.1f} s: {' '.join(map(str, command))}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_trainers_are_found_by_nnunet(environment):
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "import pickle, voxloss\n"
        "from voxloss.nnunet.names import trainer_name\n"
        "for loss in voxloss.list_losses():\n"
        "    found = find(trainer_name(loss))\n"
        "    assert found.__name__ == trainer_name(loss) and found.voxloss_name == loss\n"
        "    assert pickle.loads(pickle.dumps(found)) is found\n"
    )
    environment["nnUNet_extTrainer"] = environment["nnUNet_extTrainer"].split(os.pathsep)[1]
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_from_plans_to_the_report(real_data, tmp_path, environment):
    data = real_data / "hippocampus"
    task = tmp_path / "Task04_Hippocampus"
    cases = sorted(path.name for path in (data / "imagesTr").glob("*.nii.gz"))[:CASES]
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (task / folder).mkdir(parents=True)
    for folder in ("imagesTr", "labelsTr"):
        for name in cases:
            shutil.copy(data / folder / name, task / folder / name)
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    description = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": labels, "training": [], "test": []}
    (task / "dataset.json").write_text(json.dumps(description | {"numTraining": CASES}))
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()

    run(environment, "nnUNetv2_convert_MSD_dataset", "-i", task, "-np", 1)
    run(environment, "nnUNetv2_plan_and_preprocess", "-d", 4, "-c", "3d_fullres", "-np", 1, "-npfp", 1)
    preprocessed = tmp_path / "preprocessed" / DATASET
    ids = [name.removesuffix(".nii.gz") for name in cases]
    halves = [ids[::2], ids[1::2]]
    splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    (preprocessed / "voxloss.yaml").write_text("focal_tversky: {gamma: 2}\n")
    for fold in (0, 1):
        for name in LOSSES:
            trainer = f"nnUNetTrainerVoxloss{name}"
            said = run(environment, "nnUNetv2_train", 4, "3d_fullres", fold, "-tr", trainer, "-device", "cpu")
            assert f"Loss: {name}Loss(" in said and "Validation complete" in said

    study = tmp_path / "study"
    said = run(environment, "voxloss", "import", "nnunet", tmp_path / "results" / DATASET, "--study", study)
    assert f"3 losses, 2 folds, 1 seed, {CASES} cases" in said
    print(run(environment, "voxloss", "report", study))

    from voxloss.evaluation.metrics import METRICS
    from voxloss.evaluation.scores import read_scores

    scores = read_scores(study / "scores.csv")
    assert set(scores["loss"]) == set(LOSSES.values())
    assert len(scores) == 3 * CASES * 2 * len(METRICS)
    dice = scores[scores["metric"] == "dice"].set_index(["loss", "case", "class"])["value"]
    for name, loss in LOSSES.items():
        for path in (tmp_path / "results" / DATASET).glob(f"*{name}__*/fold_*/validation/summary.json"):
            for entry in json.loads(path.read_text())["metric_per_case"]:
                case = Path(entry["prediction_file"]).name.removesuffix(".nii.gz")
                for key, metrics in entry["metrics"].items():
                    assert dice[loss, case, labels[key]] == pytest.approx(metrics["Dice"], abs=1e-6)
    page = (study / "report" / "index.html").read_text()
    assert "Focal Tversky loss (γ = 2)" in page and 'class="bad"' not in page
    assert len(list((study / "report" / "viewer" / "cases").glob("*.js"))) == CASES
    assert (study / "report" / "figures" / "slices.png").is_file()
