"""Images and masks that changed, moved, or went after a study was created; cases that were added or removed."""

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from study_helpers import call
from voxloss.data.dataset import data_digest
from voxloss.evaluation.scores import read_scores
from voxloss.study.study import Study

FIXTURE = Path(__file__).parent / "study_format_1"
TINY = (
    "--splits.folds", "2", "--patches.size", "[8,8,8]", "--patches.batch_size", "1", "--network.filters", "2",
    "--network.depth", "1", "--training.epochs", "1", "--training.iterations", "1",
    "--training.validation_batches", "1", "--execution.threads", "1", "--execution.device", "cpu", "--seeds", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(once) -> Path:
    """A folder with data/, and study/ of one loss on it."""

    def build(folder: Path) -> None:
        shutil.copytree(FIXTURE / "data", folder / "data")
        result = run(folder)
        assert result.returncode == 0, result.stderr

    return once("changed data", build)


@pytest.fixture
def place(finished, tmp_path) -> Path:
    """A copy of `finished` whose study has its data there."""
    place = tmp_path / "a place with späces"
    shutil.copytree(finished, place)
    for name in ("study.yaml", "dataset.json"):
        path = place / "study" / name
        path.write_text(path.read_text().replace(str(finished), str(place)))
    return place


def run(place: Path, losses: str = "dice", *extra: object):
    data = place / "data"
    return call("run", "folder", "--data", data, "--study", place / "study", "--losses", losses, "--no-report",
                *TINY, *extra)  # fmt: skip


def resume(study: Path, losses: str = "dice,focal", *extra: object):
    return call("run", study, "--losses", losses, "--no-report", *extra)


def snapshot(folder: Path) -> dict[Path, int]:
    """The time of every file, but of claims: a command holds the study while it looks at the data."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".claims" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


def change(path: Path) -> None:
    """Another content of the same size, with the time that the file had."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # of the time in gzip's header
    path.write_bytes(content)
    os.utime(path, ns=times)


def digest_by_hand(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


def test_the_digest_of_every_file_is_recorded(place):
    content = json.loads((place / "study/dataset.json").read_text())
    for case in ("case0", "case3"):
        paths = [place / "data" / kind / f"{case}.nii.gz" for kind in ("images", "masks")]
        assert content["files"][case] == list(map(digest_by_hand, paths))
    earlier = json.loads((FIXTURE / "study/dataset.json").read_text())  # of the same files, by another version
    assert content["digest"] == data_digest(content["files"]) == earlier["digest"]


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("losses", ["dice", "dice,focal"])
def test_a_changed_file_is_refused_by_name_whatever_its_size_and_time(place, kind, losses):
    victim = place / "data" / kind / "case2.nii.gz"
    change(victim)
    before = snapshot(place / "study")
    result = run(place, losses)
    assert result.returncode == 2
    assert str(victim) in result.stderr and "differs" in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert snapshot(place / "study") == before


def test_the_same_content_with_another_time_or_behind_a_link_is_accepted(place, tmp_path):
    for path in (place / "data").rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    mask = place / "data/masks/case1.nii.gz"
    mask.rename(tmp_path / "elsewhere.nii.gz")
    mask.symlink_to(tmp_path / "elsewhere.nii.gz")
    assert run(place, "dice,focal").returncode == 0
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere.nii.gz")
    result = run(place, "dice,focal,tversky")
    assert result.returncode == 2 and str(mask) in result.stderr


def test_an_added_case_is_mentioned_and_left_out(place):
    for kind in ("images", "masks"):
        shutil.copy(place / "data" / kind / "case1.nii.gz", place / "data" / kind / "case9.nii.gz")
    result = run(place, "dice,focal")
    assert result.returncode == 0, result.stderr
    assert "1 case in" in result.stdout and "case9" in result.stdout
    assert "case9" not in set(read_scores(place / "study/scores.csv")["case"])


def test_an_image_without_a_mask_does_not_stop_a_study_that_lacks_it(place):
    shutil.copy(place / "data/images/case1.nii.gz", place / "data/images/half.nii.gz")
    result = run(place, "dice,focal")
    assert result.returncode == 0, result.stderr
    assert "half.nii.gz" in result.stdout


@pytest.mark.parametrize("case", ["case0", "case1", "case2", "case3"])
def test_a_removed_case_is_refused_before_training_and_else_mentioned(place, case):
    for kind in ("images", "masks"):
        (place / "data" / kind / f"{case}.nii.gz").unlink()
    nothing_to_do = run(place)
    assert nothing_to_do.returncode == 0, nothing_to_do.stderr
    assert "1 case of the study is no longer in" in nothing_to_do.stdout and case in nothing_to_do.stdout
    result = run(place, "dice,focal")
    assert result.returncode == 2
    assert f"{case}.nii.gz" in result.stderr and "--data FOLDER" in result.stderr
    assert not list((place / "study/runs").glob("focal*/*/*/checkpoint.pt"))
    assert set(read_scores(place / "study/scores.csv")["loss"]) == {"dice"}


def test_data_that_moved_are_found_by_their_new_place(place):
    new = place / "neuer Ort"
    (place / "data").rename(new)
    before = (place / "study/study.yaml").read_text()
    gone = resume(place / "study")
    assert gone.returncode == 2 and "--data FOLDER" in gone.stderr
    assert (place / "study/study.yaml").read_text() == before
    moved = resume(place / "study", "dice,focal", "--data", new)
    assert moved.returncode == 0, moved.stderr
    study = Study.open(place / "study")
    assert study.config.data.root == str(new)
    assert all(path.is_file() and path.is_relative_to(new) for case in study.dataset.cases for path in case.files)
    assert study.dataset.name == "data" and set(read_scores(place / "study/scores.csv")["dataset"]) == {"data"}
    assert resume(place / "study", "dice,focal,tversky").returncode == 0  # the new place is that of the study


@pytest.mark.parametrize("losses", ["dice,focal", "dice"])
def test_data_that_moved_in_part_are_found_once_they_are_whole(place, losses):
    listed = [{"image": f"imagesTr/case{n}.nii.gz", "label": f"labelsTr/case{n}.nii.gz"} for n in range(4)]
    description = {"name": "toy", "labels": {"0": "background", "1": "tumour"}, "training": listed}
    (place / "data/dataset.json").write_text(json.dumps(description))
    for old, new in (("images", "imagesTr"), ("masks", "labelsTr")):
        (place / "data" / old).rename(place / "data" / new)
    shutil.rmtree(place / "study")
    assert run(place, "dice", "--data.layout", "decathlon").returncode == 0
    (place / "data").rename(place / "new")
    late = place / "new/imagesTr/case2.nii.gz"
    late.rename(place / "late.nii.gz")  # listed in dataset.json, but not there yet
    before = (place / "study/study.yaml").read_text()
    refused = resume(place / "study", losses, "--data", place / "new")
    if losses == "dice,focal":
        assert refused.returncode == 2 and str(late) in refused.stderr
    assert (place / "study/study.yaml").read_text() == before  # the loss is not added, the place is not taken
    (place / "late.nii.gz").rename(late)
    result = resume(place / "study", "dice,focal", "--data", place / "new")
    assert result.returncode == 0, result.stderr


def test_an_excluded_case_need_not_move(place):
    shutil.rmtree(place / "study")
    for kind in ("images", "masks"):
        shutil.copy(place / "data" / kind / "case0.nii.gz", place / "data" / kind / "odd.nii.gz")
    assert run(place, "dice", "--data.exclude", "[odd]").returncode == 0
    for kind in ("images", "masks"):
        (place / "data" / kind / "odd.nii.gz").unlink()
    (place / "data").rename(place / "new")
    result = resume(place / "study", "dice,focal", "--data", place / "new")
    assert result.returncode == 0, result.stderr
    assert "new cases cannot be looked for" not in result.stdout


def test_study_and_data_may_move_at_once(place, tmp_path):
    place.rename(tmp_path / "other")
    result = resume(tmp_path / "other/study", "dice,focal", "--data", tmp_path / "other/data")
    assert result.returncode == 0, result.stderr
    assert "focal" in set(read_scores(tmp_path / "other/study/scores.csv")["loss"])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda data: change(data / "images/case3.nii.gz"), "images/case3.nii.gz differs"),
        (lambda data: [(data / kind / "case3.nii.gz").unlink() for kind in ("images", "masks")], "no case case3"),
        (lambda data: shutil.rmtree(data / "masks"), "no folder labels or masks"),
        (lambda data: shutil.rmtree(data), "does not exist"),
    ],
)
def test_another_place_with_other_data_is_refused(place, spoil, named):
    new = place / "new"
    shutil.copytree(place / "data", new)
    spoil(new)
    before = snapshot(place / "study")
    result = resume(place / "study", "dice,focal", "--data", new)
    assert result.returncode == 2 and named in result.stderr, result.stderr
    assert snapshot(place / "study") == before


def test_a_study_of_an_earlier_version_names_the_changed_file_too(place):
    """It has one digest of all files; afterwards it has that of each."""
    path = place / "study/dataset.json"
    content = json.loads(path.read_text())
    del content["files"]
    path.write_text(json.dumps(content))
    victim = place / "data/masks/case2.nii.gz"
    original = victim.read_bytes()
    image = nibabel.load(victim)
    label = np.asarray(image.dataobj).copy()
    label[0, 0, 0] = 1 - label[0, 0, 0]
    nibabel.save(nibabel.Nifti1Image(label, image.affine, image.header), victim)
    result = run(place)
    assert result.returncode == 2
    assert f"{victim} differs" in result.stderr and "more file" not in result.stderr
    victim.write_bytes(original)
    assert run(place).returncode == 0
    assert len(json.loads(path.read_text())["files"]) == 4


def test_files_that_go_while_a_study_runs_cost_no_loss_its_score(place, monkeypatch):
    """The second loss's runs fail for want of a mask: before they train, and without scores."""
    from voxloss.study import run as module

    train = module.train

    def last_training(*arguments, **options):
        network = train(*arguments, **options)
        for kind in ("images", "masks"):
            shutil.rmtree(place / "data" / kind)
        return network

    monkeypatch.setattr(module, "train", last_training)
    result = run(place, "dice,focal")
    assert result.returncode == 2
    assert "2 runs failed" in result.stderr and ".nii.gz" in result.stderr
    assert set(read_scores(place / "study/scores.csv")["loss"]) == {"dice"}
    assert len(list((place / "study/runs").glob("focal*/*/*/checkpoint.pt"))) == 1
    shutil.rmtree(place / "data")
    shutil.copytree(FIXTURE / "data", place / "data")
    monkeypatch.setattr(module, "train", train)
    again = run(place, "dice,focal")
    assert again.returncode == 0, again.stderr
    assert (read_scores(place / "study/scores.csv")["status"] != "failed").all()


def test_a_mask_that_changes_while_a_study_runs_is_not_scored(place, monkeypatch):
    from voxloss.study import run as module

    train = module.train

    def train_and_change(*arguments, **options):
        network = train(*arguments, **options)
        for path in (place / "data/masks").iterdir():
            change(path)
        return network

    monkeypatch.setattr(module, "train", train_and_change)
    result = run(place, "dice,focal", "--folds", "0")
    assert result.returncode == 2 and "differs" in result.stderr
    assert set(read_scores(place / "study/scores.csv")["loss"]) == {"dice"}


def test_a_fold_that_trains_without_a_class_is_named(tmp_path):
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    for path in sorted((tmp_path / "data/masks").iterdir())[1:]:  # only case0 keeps the class
        image = nibabel.load(path)
        label = np.asarray(image.dataobj).copy()
        label[label > 0] = 2
        nibabel.save(nibabel.Nifti1Image(label, image.affine, image.header), path)
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    fold = Study.open(tmp_path / "study").fold_of("case0")
    assert f"fold {fold} trains without class 1" in result.stdout
    assert f"fold {1 - fold} trains" not in result.stdout and "class 2" not in result.stdout


def lose(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("pattern", "spoil"),
    [
        ("prepared", lose),
        ("prepared/index.json", lose),
        ("prepared/index.json", lambda path: path.write_text("{")),
        ("prepared/index.json", lambda path: path.write_text('{"case0": "../../data"}')),
        ("prepared/case2-*", lose),
        ("prepared/case2-*/label.npy", lose),
        ("runs/*/*/*/history.csv", lose),
        ("runs/*/*/*/history.csv", lambda path: path.write_text("epoch\nx\n")),
        ("runs/*/*/*/history.csv", lambda path: path.write_text(path.read_text().splitlines()[0])),
    ],
)
def test_what_can_be_rebuilt_is_rebuilt(place, pattern, spoil):
    victims = sorted((place / "study").glob(pattern))
    assert victims
    files = {path: path.read_bytes() for victim in victims for path in (victim, *victim.rglob("*")) if path.is_file()}
    scores = (place / "study/scores.csv").read_bytes()
    data = snapshot(place / "data")
    for victim in victims:
        spoil(victim)
    result = run(place)
    assert result.returncode == 0, result.stderr
    assert {path: path.read_bytes() for path in files} == files
    assert (place / "study/scores.csv").read_bytes() == scores
    assert snapshot(place / "data") == data


def test_a_linked_copy_of_a_study_keeps_its_files_when_the_study_is_rebuilt(place, tmp_path):
    for path in (place / "study").rglob("*"):
        copy = tmp_path / "copy" / path.relative_to(place / "study")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.mkdir(exist_ok=True) if path.is_dir() else os.link(path, copy)
    before = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    entry = next((place / "study/prepared").glob("case1-*"))
    (entry / "image.npy").unlink()
    (place / "study/runs/dice/fold-0/seed-0/history.csv").unlink()
    assert run(place, "dice,focal").returncode == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_whose_last_epoch_is_missing_in_its_history_gets_it_back(place):
    """As after a full disk between checkpoint and history: the digest of the batches is that of all epochs."""
    folder = place / "study/runs/dice/fold-0/seed-0"
    status = json.loads((folder / "status.json").read_text())
    (folder / "history.csv").unlink()
    shutil.rmtree(folder / "predictions")
    assert run(place).returncode == 0
    assert json.loads((folder / "status.json").read_text())["batch_digest"] == status["batch_digest"]


def test_a_killed_preparation_does_not_mix_contents(tmp_path):
    """A case that was prepared before the process was killed, and whose mask then changed with its size and time."""
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    assert run(tmp_path, "dice", "--folds", "0").returncode == 0
    for name in ("study.yaml", "dataset.json", "runs", "events", "scores.csv"):
        lose(tmp_path / "study" / name)
    mask = tmp_path / "data/masks/case0.nii.gz"
    image, times = nibabel.load(mask), (mask.stat().st_atime_ns, mask.stat().st_mtime_ns)
    size, label = mask.stat().st_size, np.zeros_like(np.asarray(image.dataobj))
    label[:2, :2, :2] = 1
    plain = nibabel.Nifti1Image(label, image.affine, image.header).to_bytes()
    content = gzip.compress(plain, mtime=0)
    mask.write_bytes(content + bytes(size - len(content)))  # gzip allows zeros after its end)
    os.utime(mask, ns=times)
    assert mask.stat().st_size == size
    assert run(tmp_path, "dice", "--folds", "0").returncode == 0
    prepared = Study.open(tmp_path / "study").files.read_prepared()["case0"]
    np.testing.assert_array_equal(np.load(prepared / "label.npy"), label)


def test_a_studys_own_settings_still_refuse_before_the_data_are_read(place):
    result = run(place, "dice", "--training.epochs", "7")
    assert result.returncode == 2 and "training.epochs = 1, not 7" in result.stderr
    assert yaml.safe_load((place / "study/study.yaml").read_text())["config"]["training"]["epochs"] == 1
