"""The files of evidence/: every study is a valid configuration, and its data are what they are said to be."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
from PIL import Image

from voxloss.config.files import load_config, to_plain
from voxloss.evidence.export import read_exports

EVIDENCE = Path(__file__).parents[1] / "evidence"
STUDIES = sorted((EVIDENCE / "studies").glob("*.yaml"))


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EVIDENCE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_is_a_valid_configuration_and_says_how_it_is_run(file: Path) -> None:
    config = load_config(str(file))
    assert "dice_cross_entropy" in config.comparison.losses
    if not config.comparison.demonstration:  # else two kinds of machine would differ by more than rounding
        assert config.training.precision == "float32"
    head = "".join(line for line in file.read_text().splitlines() if line.startswith("#"))
    assert f"voxloss run evidence/studies/{file.name}" in head
    assert set(re.findall(r"prepare\.py (\w+)", head)) <= set(module("prepare").KINDS)


def test_confirmatory_studies_compare_the_same_losses_on_five_folds_and_three_seeds() -> None:
    new = {"dice_topk", "skeleton_recall"}
    for name in ("emidec", "hippocampus", "drive"):
        config = load_config(str(EVIDENCE / "studies" / f"{name}.yaml"))
        assert set(config.comparison.losses) - new == {
            "focal", "dice", "tversky", "cosine_tversky", "focal_tversky", "combo", "mixed_focal",
            "dice_cross_entropy", "unified_focal",
        }  # fmt: skip
        assert config.comparison.seeds == (0, 1, 2)
        assert config.splits.folds == 5


def test_the_stored_scores_are_those_of_the_files() -> None:
    exports = {export.name: export for export in read_exports(EVIDENCE / "results")}
    for name in {"emidec", "hippocampus", "drive"} & set(exports):
        plain = to_plain(load_config(str(EVIDENCE / "studies" / f"{name}.yaml")))
        settings = exports[name].settings
        for section in ("augmentation", "network", "training"):
            assert settings[section] == plain[section]
        assert list(exports[name].losses) == plain["comparison"]["losses"]


def test_the_program_that_runs_the_studies_knows_every_file() -> None:
    steps = module("reproduce").STEPS
    assert {step.config for step in steps.values()} == {file.stem for file in STUDIES}


@pytest.fixture
def hearts(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(8):
        mask = np.zeros((12, 12, 3), np.uint8)
        mask[5, 5, 1] = 3 if number % 2 else 1
        for kind, values in (("images", rng.integers(0, 255, mask.shape).astype(np.uint8)), ("masks", mask)):
            (tmp_path / "source" / kind).mkdir(parents=True, exist_ok=True)
            affine = np.diag([2.0, 3.0, 10.0, 1.0])
            nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "source" / kind / f"case_{number}.nii.gz")
    return tmp_path / "source"


def test_a_crop_keeps_every_voxel_at_its_place(hearts: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    module("prepare").crop(hearts, tmp_path / "small", 8)
    before, after = (nibabel.load(root / "images" / "case_3.nii.gz") for root in (hearts, tmp_path / "small"))
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj)[2:10, 2:10])
    np.testing.assert_allclose(after.affine @ [0, 0, 0, 1], before.affine @ [2, 2, 0, 1])


def test_fewer_positive_training_cases_leave_the_test_cases_as_they_are(hearts: Path, tmp_path: Path) -> None:
    folds = {}
    for positives in (1, 2):
        (tmp_path / str(positives)).mkdir()
        module("prepare").few(hearts, tmp_path / str(positives), positives)
        with (tmp_path / str(positives) / "cases.csv").open() as file:
            folds[positives] = {row["case"]: row["fold"] for row in csv.DictReader(file)}
    tested = [{name for name, fold in cases.items() if fold == "0"} for cases in folds.values()]
    assert tested[0] == tested[1] and len(tested[0]) == 4
    assert set(folds[1]) < set(folds[2])
    rare = [sum(int(name[-1]) % 2 for name, fold in cases.items() if fold == "1") for cases in folds.values()]
    assert rare == [1, 2]


def test_masks_with_a_palette_become_black_and_white(tmp_path: Path) -> None:
    values = np.eye(4, dtype=np.uint8)
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([4, 2, 4, 252, 254, 252])
    for name in ("1st_manual/01_manual1.gif", "2nd_manual/01_manual2.gif", "mask/01_test_mask.gif"):
        (tmp_path / "source" / "test" / name).parent.mkdir(parents=True)
        picture.save(tmp_path / "source" / "test" / name)
    (tmp_path / "target").mkdir()
    module("prepare").drive(tmp_path / "source", tmp_path / "target")
    for kind in ("masks", "second", "fov"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "target" / kind / "01.png")), 255 * values)


def test_a_phantom_in_another_field_of_view_has_the_same_tumour(tmp_path: Path) -> None:
    tumours = []
    for slices, rows in ((16, 24), (24, 32)):
        (tmp_path / str(slices)).mkdir()
        module("prepare").view(tmp_path / str(slices), slices, rows, 1)
        mask = np.asanyarray(nibabel.load(tmp_path / str(slices) / "masks" / "case_000.nii.gz").dataobj)
        assert mask.shape == (slices, rows, rows)
        where = np.argwhere(mask == 2)
        tumours.append(where - where.min(axis=0))
    np.testing.assert_array_equal(*tumours)
    assert len(tumours[0]) == pytest.approx(79, abs=2)
