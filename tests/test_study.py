"""A whole study through the command line: from images to scores and report, stopped, killed, extended, refused."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml

from study_helpers import assert_only_prepared_cases, call, command, tiny_run, voxloss
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.scores import read_scores
from voxloss.study.study import Study

pytestmark = pytest.mark.slow


def statuses(folder: Path) -> dict[tuple, dict]:
    opened = Study.open(folder)
    return {(run.loss.key, run.fold, run.seed): opened.status(run) for run in opened.runs()}


def test_every_run_is_done_and_scored_once_per_case_class_and_metric(tiny_study):
    assert {status.state for status in statuses(tiny_study).values()} == {"done"}
    scores = read_scores(tiny_study / "scores.csv")
    assert len(scores) == 2 * 4 * 2 * len(METRICS)  # losses, cases, classes
    assert set(scores["class"]) == {"kidney", "tumour"}
    assert set(scores["dataset"]) == {"phantom"}
    folds = json.loads((tiny_study / "folds.json").read_text())["folds"]
    for _, row in scores.iterrows():
        assert row["case"] in folds[row["fold"]]


def test_losses_saw_equal_batches_and_folds_did_not(tiny_study):
    digests = {key: status.batch_digest for key, status in statuses(tiny_study).items()}
    assert digests["dice", 0, 0] == digests["mixed_focal", 0, 0]
    assert digests["dice", 1, 0] == digests["mixed_focal", 1, 0]
    assert digests["dice", 0, 0] != digests["dice", 1, 0]


def test_predictions_lie_on_the_images_grid_and_their_scores_are_in_the_table(tiny_study, phantom):
    scores = read_scores(tiny_study / "scores.csv")
    dice = scores[(scores.metric == "dice") & (scores.loss == "dice")].set_index(["case", "class"])["value"]
    predictions = sorted(tiny_study.glob("runs/dice/fold-*/seed-0/predictions/*.nii.gz"))
    assert len(predictions) == 4
    for path in predictions:
        case = path.name.removesuffix(".nii.gz")
        prediction, image = nibabel.load(path), nibabel.load(phantom / case / "imaging.nii.gz")
        assert prediction.shape == image.shape
        np.testing.assert_array_equal(prediction.affine, image.affine)
        label = np.asarray(prediction.dataobj)
        reference = np.asarray(nibabel.load(phantom / case / "segmentation.nii.gz").dataobj)
        for index, name in ((1, "kidney"), (2, "tumour")):
            both = ((label == index) & (reference == index)).sum()
            expected = 2 * both / ((label == index).sum() + (reference == index).sum())
            assert dice[case, name] == pytest.approx(expected)


def test_the_report_and_the_record_are_there(tiny_study):
    for name in ("index.html", "tables", "figures"):
        assert (tiny_study / "report" / name).exists()
    assert len(list((tiny_study / "report" / "tables").glob("*.tex"))) >= 3
    record = yaml.safe_load((tiny_study / "study.yaml").read_text())
    assert record["config"]["comparison"]["primary_class"] == "tumour"
    assert record["config"]["comparison"]["demonstration"] is True  # known to be a phantom
    assert set(record["config"]["evaluation"]["lesions"]["size_limits_ml"]) == {"kidney", "tumour"}
    assert record["environment"]["torch"]
    assert record["config"]["patches"]["size"] == [8, 16, 16]
    assert Path(record["config"]["data"]["root"]).is_absolute()


def test_the_same_command_again_trains_nothing_and_changes_no_score(own_study, phantom):
    before = {path: path.stat().st_mtime_ns for path in (own_study / "runs").rglob("*")}
    result = call(*tiny_run(Path(phantom.name), own_study), cwd=phantom.parent)  # the folder, named in another way
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in (own_study / "runs").rglob("*")} == before


def test_status_shows_the_grid(tiny_study):
    result = call("status", tiny_study)
    assert result.returncode == 0
    assert result.stdout.count("done") == 4
    assert "mixed_focal" in result.stdout


def test_predict_repeats_the_prediction_of_the_run(tiny_study, phantom, tmp_path):
    run = tiny_study / "runs" / "dice" / "fold-0" / "seed-0"
    own = sorted((run / "predictions").iterdir())[0]
    image = phantom / own.name.removesuffix(".nii.gz") / "imaging.nii.gz"
    result = call("predict", run, image, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    again = nibabel.load(tmp_path / "imaging.nii.gz")
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(nibabel.load(own).dataobj))
    np.testing.assert_array_equal(again.affine, nibabel.load(image).affine)


def comparable(folder: Path) -> pd.DataFrame:
    return read_scores(folder / "scores.csv").sort_values(["loss", "case", "class", "metric"], ignore_index=True)


def hears_ctrl_c() -> None:
    """Listen to Ctrl-C, which shells switch off for what they start in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, process, seconds=600):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end
        time.sleep(0.05)


LONGER = ["--training.epochs", "8"]


@pytest.fixture(scope="module")
def uninterrupted(phantom, once) -> pd.DataFrame:
    def build(folder: Path) -> None:
        result = call(*tiny_run(phantom, folder, *LONGER))
        assert result.returncode == 0, result.stderr

    return comparable(once("uninterrupted", build))


@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_a_stopped_or_killed_study_resumes_and_ends_with_the_same_scores(phantom, uninterrupted, tmp_path, how):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        voxloss(*tiny_run(phantom, folder, *LONGER)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears_ctrl_c,
    )
    wait_for(lambda: list(folder.glob("runs/*/fold-0/*seed-0/**/checkpoint.pt")), process)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert "Run the same command to resume." in errors
        assert {status.state for status in statuses(folder).values()} <= {"pending", "done"}
    else:
        process.kill()  # the parent alone: its workers must notice by themselves
        process.communicate()
    assert {status.state for status in statuses(folder).values()} != {"done"}
    result = call(*tiny_run(phantom, folder, *LONGER))
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(comparable(folder), uninterrupted, check_exact=True)


def test_a_study_is_extended_by_its_own_name(own_study):
    before = statuses(own_study)
    result = call("run", own_study, "--seeds", "0,3", "--no-report")
    assert result.returncode == 0, result.stderr
    after = statuses(own_study)
    assert len(after) == 2 * len(before) and {status.state for status in after.values()} == {"done"}
    assert after.items() >= before.items()
    assert call("run", own_study / "study.yaml", "--seeds", "0,3", "--no-report").returncode == 0
    changed = call("run", own_study, "--training.epochs", "3", "--no-report")
    assert changed.returncode == 2 and "training.epochs = 2, not 3" in changed.stderr


def test_losses_and_seeds_can_be_added_and_nothing_else_changed(own_study, phantom):
    folder = own_study
    result = call(*tiny_run(phantom, folder, "--losses", "{}", "--training.epochs", "3"))
    assert result.returncode == 2
    arguments = [word if word != "dice,mixed_focal" else "dice,focal" for word in tiny_run(phantom, folder)]
    result = call(*arguments, "--training.epochs", "3")
    assert result.returncode == 2
    assert "training.epochs = 2, not 3" in result.stderr
    result = call(*arguments, "--folds", "1")
    assert result.returncode == 0, result.stderr
    states = {key: status.state for key, status in statuses(folder).items()}
    assert states["focal", 1, 0] == "done"
    assert states["focal", 0, 0] == "pending"
    assert states["mixed_focal", 0, 0] == "done"


def test_a_diverged_run_is_a_result_and_the_study_goes_on(phantom, tmp_path):
    folder = tmp_path / "study"
    result = call(*tiny_run(phantom, folder, "--losses", "cross_entropy,dice", "--training.learning_rate", "1e30",
                               "--training.iterations", "6"))  # fmt: skip
    assert result.returncode == 0, result.stderr
    states = statuses(folder)
    diverged = [status for status in states.values() if status.state == "diverged"]
    assert diverged
    assert "the loss became" in diverged[0].reason
    scores = read_scores(folder / "scores.csv")
    assert (scores[scores.status == "failed"]["value"].isna()).all()
    assert len(scores) == 2 * 4 * 2 * len(METRICS)
    assert "diverged" in call("status", folder).stdout


def test_a_class_that_is_never_predicted_is_recorded_as_a_result(phantom, tmp_path):
    folder = tmp_path / "study"
    result = call(*tiny_run(phantom, folder, "--losses", "cross_entropy", "--training.epochs", "12",
                               "--training.learning_rate", "0.03", "--patches.foreground_share", "0"))  # fmt: skip
    assert result.returncode == 0, result.stderr
    ended = statuses(folder)["cross_entropy", 0, 0]
    assert ended.state == "done"
    assert "tumour" in ended.collapsed
    assert "cross_entropy, fold 0, seed 0: tumour was never predicted" in call("status", folder).stdout
    scores = read_scores(folder / "scores.csv")
    recall = scores[(scores["class"] == "tumour") & (scores.metric == "recall") & (scores.fold == 0)]
    assert (recall["value"] == 0).all()
    assert len(recall) == 2


DEADLY = """
import os, signal, sys
import torch

class Loss(torch.nn.Module):
    def forward(self, logits, labels):
        if "worker" in sys.argv[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return logits.square().mean()
"""


def test_a_run_whose_processes_are_killed_has_failed_and_the_others_go_on(phantom, uninterrupted, tmp_path):
    """As by a system that is out of memory: each process of the run is killed before it has finished an epoch."""
    folder = tmp_path / "study"
    (tmp_path / "deadly.py").write_text(DEADLY)
    words = tiny_run(phantom, folder, *LONGER, "--losses", "deadly.Loss,dice", "--folds", "0")
    result = command(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert "voxloss: 1 run failed (deadly.Loss, fold 0, seed 0: its process was killed 3 times" in result.stderr
    assert result.stderr.endswith("). Run the same command to try again.\n")
    states = statuses(folder)
    assert states["deadly.Loss", 0, 0].state == "failed" and states["dice", 0, 0].state == "done"
    assert states["deadly.Loss", 0, 0].takeovers == 3
    scores = comparable(folder)
    assert set(scores[scores.status == "failed"]["loss"]) == {"deadly.Loss"}
    scores = scores.query("loss == 'dice'").reset_index(drop=True)
    expected = uninterrupted.query("loss == 'dice' and fold == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True)  # in processes of their own as in this one


def test_another_network_by_its_import_path(phantom, tmp_path):
    """From training to the mask of a new image; a wrong path leaves nothing behind."""
    folder = tmp_path / "study"
    chosen = ["--losses", "dice", "--network.arguments", "{init_filters: 8, blocks_down: [1, 1], blocks_up: [1]}"]
    wrong = call(*tiny_run(phantom, folder, *chosen, "--network.name", "monai.networks.nets.SegRezNet"))
    assert wrong.returncode == 2 and "cannot be imported" in wrong.stderr and not folder.exists()
    result = call(*tiny_run(phantom, folder, *chosen, "--network.name", "monai.networks.nets.SegResNet"))
    assert result.returncode == 0, result.stderr
    assert {status.state for status in statuses(folder).values()} == {"done"}
    image = sorted(phantom.glob("case_*/imaging.nii.gz"))[0]
    run = folder / "runs" / "dice" / "fold-0" / "seed-0"
    result = call("predict", run, image, "--output", tmp_path / "masks")
    assert result.returncode == 0, result.stderr
    assert nibabel.load(tmp_path / "masks" / image.name).shape == nibabel.load(image).shape


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda phantom: (phantom / "case_00001" / "segmentation.nii.gz").unlink(), "segmentation.nii.gz"),
        (lambda phantom: (phantom / "case_00001" / "imaging.nii.gz").write_bytes(b"not nifti"), "imaging.nii.gz"),
        (lambda phantom: relabel(phantom / "case_00002" / "segmentation.nii.gz", 7), "7"),
        (lambda phantom: crop(phantom / "case_00002" / "segmentation.nii.gz"), "segmentation.nii.gz"),
    ],
)
def test_spoilt_data_get_one_sentence_and_leave_nothing(phantom, tmp_path, spoil, named):
    spoilt, folder = tmp_path / "data", tmp_path / "study"
    shutil.copytree(phantom, spoilt)
    spoil(spoilt)
    result = call(*tiny_run(spoilt, folder))
    assert result.returncode == 2
    assert named in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert_only_prepared_cases(folder)


def relabel(path: Path, value: int) -> None:
    image = nibabel.load(path)
    label = np.asarray(image.dataobj).copy()
    label[0, 0, 0] = value
    nibabel.save(nibabel.Nifti1Image(label, image.affine, image.header), path)


def crop(path: Path) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[1:], image.affine), path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "nope"], "'nope'"),
        (["run", "kits19"], "data.root"),
        (["run", "kits19", "--data", "/does/not/exist"], "/does/not/exist"),
        (["run", "demo", "--data", ".", "--losses", "dise"], "dise"),
        (["run", "demo", "--data", ".", "--seeds", "x"], "--seeds"),
        (["run", "demo", "--data", ".", "--training.epoch", "3"], "training has no key 'epoch'"),
        (["status", "/does/not/exist"], "/does/not/exist"),
        (["report", "/does/not/exist"], "/does/not/exist"),
        (["predict", "/does/not/exist", "a.nii", "--output", "x"], "/does/not/exist"),
        (["losses", "focl"], "focal"),
        (["check", "/does/not/exist"], "/does/not/exist"),
        (["config", "nope"], "nope"),
        (["demo", "--study", "/proc/nothing/here"], "/proc"),
    ],
)
def test_a_wrong_argument_gets_one_sentence_that_names_it(arguments, named, tmp_path):
    result = call(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_mistakes_are_found_before_hours_of_preparation(phantom, tmp_path):
    mistakes = {
        "patches.size": ["--patches.size", "[9,16,16]"],
        "no fold 5": ["--folds", "5"],
        "'cuda:99'": ["--execution.device", "cuda:99"],
        "liver": ["--comparison.primary_class", "liver"],
        "data.exclude": ["--data.options", "{exclude: [a]}"],
        "5 folds need": ["--splits.folds", "5"],
    }
    for named, arguments in mistakes.items():
        result = call(*tiny_run(phantom, tmp_path / "new" / "study", *arguments))
        assert result.returncode == 2
        assert named in result.stderr
        assert not list(tmp_path.iterdir())


def test_a_users_prepared_folder_survives_a_mistake(tmp_path):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "mine.nii").write_text("mine")
    assert call(*tiny_run(tmp_path / "no-data", tmp_path)).returncode == 2
    assert (tmp_path / "prepared" / "mine.nii").exists()


def test_prepared_cases_of_a_killed_process_are_used(phantom, tiny_study, tmp_path):
    """Killed after preparation and before study.yaml, in the middle of a write."""
    folder = tmp_path / "left"
    folder.mkdir()
    shutil.copytree(tiny_study / "prepared", folder / "prepared")
    shutil.copy(tiny_study / "dataset.json", folder)
    (folder / ".partial-x-study.yaml").write_text("half")
    before = (folder / "prepared" / "index.json").stat().st_mtime_ns
    entry = next(path for path in (folder / "prepared").iterdir() if path.is_dir())
    made = (entry / "image.npy").stat().st_mtime_ns
    result = call(*tiny_run(phantom, folder, "--losses", "dice", "--folds", "0"))
    assert result.returncode == 0, result.stderr
    assert not list(folder.rglob(".partial-*"))
    assert (entry / "image.npy").stat().st_mtime_ns == made
    assert (folder / "prepared" / "index.json").stat().st_mtime_ns > before


def test_predict_checks_all_images_before_it_writes_a_mask(tiny_study, phantom, tmp_path):
    run, image = tiny_study / "runs" / "dice" / "fold-0" / "seed-0", phantom / "case_00000" / "imaging.nii.gz"
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    for images, named in (
        ([image, tmp_path / "absent.nii.gz"], "absent.nii.gz"),
        ([image, tmp_path / "bad.nii.gz"], "bad.nii.gz"),
        ([f"{image},{image}"], "1 channels per case; received 2"),
        ([image, phantom / "case_00001" / "imaging.nii.gz"], "Two images"),
    ):
        result = call("predict", run, *images, "--output", tmp_path / "out")
        assert result.returncode == 2
        assert named in result.stderr
        assert not (tmp_path / "out").exists()
    result = call("predict", run, image, "--output", image.parent)
    assert "would overwrite its image" in result.stderr


def test_a_folder_with_other_content_is_left_alone(phantom, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for arguments in (tiny_run(phantom, tmp_path), ["demo", "--study", tmp_path]):
        result = call(*arguments)
        assert result.returncode == 2
        assert "not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
