"""Layouts, folds of the data and regions of interest through the commands: check, plan, run, predict and report."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from study_helpers import call, leave_pictures_empty, leave_steps_unmeasured
from test_study_data import TINY, content, save
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.scores import read_scores
from voxloss.study.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unmeasured_steps")]

NAMES = ("a", "b", "c", "d", "e", "f")
FOLDS = {"a": 2, "b": 2, "c": 0, "d": 0, "e": 1, "f": 1}
INSIDE = (slice(1, 9), slice(1, 10), slice(2, 12))


def region() -> np.ndarray:
    inside = np.zeros((10, 12, 14), np.uint8)
    inside[INSIDE] = 1
    return inside


def write_table(root: Path) -> Path:
    """Six cases of two channels with folds, patients and regions; class 1 also has voxels outside the region."""
    lines = ["case;image_0;image_1;mask;fold;patient;region"]
    for number, name in enumerate(NAMES):
        grey, label = content(number)
        label[9, 10:, 12:] = 1
        save(root / f"{name}_x.nii.gz", grey)
        save(root / f"{name}_y.nii.gz", grey[::-1].copy())
        save(root / f"{name}_m.nii.gz", label)
        save(root / f"{name}_r.nii.gz", region())
        files = ";".join(f"{name}_{part}.nii.gz" for part in "xym")
        lines.append(f"{name};{files};{FOLDS[name]};p{FOLDS[name]};{name}_r.nii.gz")
    (root / "cases.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return root / "cases.csv"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    table = write_table(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch)
        leave_steps_unmeasured(patch)
        result = call("run", "folder", "--data", table, "--study", folder / "study", *TINY)
    assert result.returncode == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "note: 3 folds from cases.csv, which a study uses unless splits.from_data is false" in told
    assert "note: voxels outside each case's region of interest count in no loss and no score" in told
    assert "3 runs left" in told
    return folder / "study"


def test_the_study_has_the_folds_of_the_data_and_says_what_counts(study):
    opened = Study.open(study)
    assert [set(fold) for fold in opened.folds] == [{"c", "d"}, {"e", "f"}, {"a", "b"}]
    assert opened.config.splits.folds == 3
    assert json.loads((study / "folds.json").read_text())["seed"] is None
    assert opened.patients == {name: f"p{fold}" for name, fold in FOLDS.items()}
    assert opened.dataset.has_regions
    page = (study / "report" / "index.html").read_text()
    assert "Training and scores count only the voxels in each case&#39;s region of interest." in page
    assert "of the data: cases.csv" in page


def test_scores_are_those_of_the_region(study):
    scores = read_scores(study / "scores.csv").set_index(["case", "metric"])["value"]
    for name in NAMES:
        (path,) = study.glob(f"runs/dice/*/seed-0/predictions/{name}.nii.gz")
        inside = region().astype(bool)
        prediction, label = (
            np.where(inside, np.asarray(nibabel.load(file).dataobj), 0).astype(np.uint8)
            for file in (path, study.parent / "data" / f"{name}_m.nii.gz")
        )
        for score in case_scores(label, prediction, ("background", "class 1"), (1.0, 1.5, 2.0)):
            assert scores[name, score.metric] == pytest.approx(score.value, nan_ok=True), score.metric


def test_the_same_command_resumes_whatever_number_of_folds_it_names(study):
    table = study.parent / "data" / "cases.csv"
    for more in ((), ("--splits.folds", "4")):
        result = call("run", "folder", "--data", table, "--study", study, *TINY, *more, "--no-report")
        assert (result.returncode, result.stderr) == (0, "")
    result = call("run", "folder", "--data", table, "--study", study, *TINY, "--splits.from_data", "false")
    assert result.returncode == 2
    assert "splits.f" in result.stderr


def test_a_region_that_changed_is_refused_and_one_that_moved_is_found(study, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    shutil.copytree(study.parent / "data", tmp_path / "data")
    result = call("run", tmp_path / "study", "--data", tmp_path / "data" / "cases.csv", "--no-report")
    assert (result.returncode, result.stderr) == (0, "")
    assert str(tmp_path / "data") in (tmp_path / "study" / "dataset.json").read_text()
    larger = region()
    larger[0] = 1
    save(tmp_path / "data" / "b_r.nii.gz", larger)
    result = call("run", tmp_path / "study", "--no-report")
    assert result.returncode == 2
    assert "b_r.nii.gz differs from the file" in result.stderr


def test_a_new_case_needs_no_region(study, tmp_path):
    data = study.parent / "data"
    images = f"{data / 'a_x.nii.gz'},{data / 'a_y.nii.gz'}"
    result = call("predict", study / "runs/dice/fold-0/seed-0", images, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    assert nibabel.load(result.stdout.strip()).shape == (10, 12, 14)


def test_check_and_plan_say_the_same(study):
    table = study.parent / "data" / "cases.csv"
    for arguments in (("check", table), ("plan", "folder", "--data", table, *TINY)):
        result = call(*arguments)
        told = " ".join(result.stdout.split())
        assert result.returncode == 0, result.stderr
        assert "3 folds from cases.csv, which a study uses unless splits.from_data is false" in told
        assert "voxels outside each case's region of interest count in no loss and no score" in told
    assert "1 loss × 3 folds × 1 seed" in told


def test_a_fold_that_the_data_do_not_have_is_refused_before_anything_is_prepared(study, tmp_path):
    table = study.parent / "data" / "cases.csv"
    result = call("run", "folder", "--data", table, "--study", tmp_path / "s", *TINY, "--folds", "3")
    assert result.returncode == 2
    assert "there is no fold 3; the study has folds 0 to 2" in result.stderr
    assert not (tmp_path / "s").exists()
    result = call("run", study, "--folds", "3", "--no-report")
    assert result.returncode == 2
    assert "there is no fold 3; the study has folds 0 to 2" in result.stderr


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text.replace(";2;p2", ";2;p0", 1), "but both are of the patient p0, who would be in both"),
        (lambda text: text.replace(";2;", ";0;").replace(";1;", ";0;"), "has one fold, but a study needs"),
        (lambda text: text.replace(";2;", ";x;"), "the fold should be a whole number, but is 'x'"),
        (lambda text: text.replace("c_x", "gone"), "gone.nii.gz"),
    ],
)
def test_check_plan_and_run_refuse_alike(study, tmp_path, spoil, told):
    shutil.copytree(study.parent / "data", tmp_path / "data")
    table = tmp_path / "data" / "cases.csv"
    table.write_text(spoil(table.read_text(encoding="utf-8-sig")))
    for words in (("plan", "folder", "--data", table), ("run", "folder", "--data", table, "--study", tmp_path / "s")):
        result = call(*words, *TINY)
        assert result.returncode == 2
        assert told in result.stderr
    assert not (tmp_path / "s").exists()
    result = call("check", table, *TINY)
    assert result.returncode in (1, 2)
    assert told in result.stdout + result.stderr or "does not exist (image 1 of 2)" in result.stdout


@pytest.mark.parametrize(
    ("images", "label"),
    [(["{}_image"], "{}_label"), (["{}/t1", "{}/t2"], "{}/seg"), (["img/{}"], "Labels/{}")],
    ids=["pairs", "patients", "folder"],
)
def test_a_study_of_each_common_layout(tmp_path, images, label):
    for number, name in enumerate(NAMES[:4]):
        grey, mask = content(number)
        for image in images:
            save(tmp_path / "data" / f"{image.format(name)}.nii.gz", grey)
        save(tmp_path / "data" / f"{label.format(name)}.nii.gz", mask)
    assert call("check", tmp_path / "data").returncode == 0
    for command in ("plan", "run"):
        place = ("--study", tmp_path / "study", "--no-report") if command == "run" else ()
        result = call(command, "folder", "--data", tmp_path / "data", *TINY, *place)
        assert result.returncode == 0, result.stderr
    opened = Study.open(tmp_path / "study")
    assert [case.case_id for case in opened.dataset.cases] == list(NAMES[:4])
    assert opened.parsed.data.layout != "auto"
    assert len(list((tmp_path / "study").glob("runs/dice/*/seed-0/predictions/*.nii.gz"))) == 4
