"""A second reader's masks: found by the cases' ids, scored like the losses, and shown beside them."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from study_helpers import call
from test_planar_study import TINY, content, run, save, write_folder
from voxloss.config.schema import DataConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.readers import second_masks
from voxloss.evaluation.scores import read_scores
from voxloss.study.readers import reader_scores, second_values
from voxloss.study.settle import settled_layout
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

CASES = [Case(name, (Path(f"{name}.nii.gz"),), None) for name in ("1", "01", "scan_1", "scan_12")]


def found(root: Path, where: object, *names: str) -> dict[str, str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return {case_id: path.name for case_id, path in second_masks(CASES, root, where).items()}


def test_masks_belong_to_the_case_whose_id_is_in_their_name(tmp_path):
    names = ("scan_1.nii.gz", "reader2_scan_12.nii", "01_manual2.nii.gz", "7.nii.gz", "notes.txt", "._1.nii.gz")
    expected = {"scan_1": "scan_1.nii.gz", "scan_12": "reader2_scan_12.nii", "01": "01_manual2.nii.gz"}
    assert found(tmp_path, "second", *(f"second/{name}" for name in names)) == expected
    assert found(tmp_path, str(tmp_path / "second")) == expected
    assert found(tmp_path, "second/*_manual2.nii.gz") == {"01": "01_manual2.nii.gz"}
    assert found(tmp_path, str(tmp_path / "second/*_manual2.*")) == {"01": "01_manual2.nii.gz"}


def test_a_table_of_cases_has_the_masks_in_its_folder(tmp_path):
    (tmp_path / "cases.csv").touch()
    found(tmp_path, "second", "second/scan_1.nii.gz")
    for where in ("second", "second/*.nii.gz"):
        assert set(second_masks(CASES, tmp_path / "cases.csv", where)) == {"scan_1"}


def test_no_layout_must_have_the_option(tmp_path):
    lines = ["case,image,mask"]
    for number in range(2):
        for name, values in zip("xm", content(number), strict=True):
            save(tmp_path / f"{number}_{name}.nii.gz", values)
        lines.append(f"case_{number},{number}_x.nii.gz,{number}_m.nii.gz")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    data = DataConfig(layout="auto", root=str(tmp_path / "cases.csv"), options={"second_reader": "second"})
    assert settled_layout(data).layout == "csv"


@pytest.mark.parametrize(
    ("where", "names", "words"),
    [
        (3, [], "takes a folder or a pattern of files, but is 3"),
        ("", [], "takes a folder or a pattern of files, but is ''"),
        ("second", [], r"names 'second', but .*second is not a folder"),
        ("second", ["second/7.nii.gz"], "where no file has a case's id in its name"),
        ("*/x.nii", [], "where no file has a case's id in its name"),
        ("second", ["second/01.nii", "second/01_b.nii"], "may both be the second reader's mask of case 01"),
    ],
)
def test_what_is_refused(tmp_path, where, names, words):
    with pytest.raises(InputError, match=words):
        found(tmp_path, where, *names)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """With a second reader who agrees on one case, and marks a pixel more on another."""
    folder = tmp_path_factory.mktemp("readers")
    data = write_folder(folder / "data")
    (data / "second").mkdir()
    shutil.copy(data / "masks" / "c0.nii.gz", data / "second" / "c0_reader2.nii.gz")
    more = np.array(nibabel.load(data / "masks" / "c1.nii.gz").dataobj)
    assert (more.sum(), more[20, 15]) == (48, 0)
    more[20, 15] = 1
    save(data / "second" / "c1_reader2.nii.gz", more)
    return run(data, folder / "study", "--patches.size", "[16,16]", "--data.options", "{second_reader: second}")


@pytest.mark.slow
def test_the_second_reader_is_scored_like_a_loss_and_judged_like_none(study):
    scores = reader_scores(study)
    dice = scores[scores["metric"] == "dice"].set_index("case")["value"]
    assert dice.to_dict() == {"c0": 1.0, "c1": 2 * 48 / (2 * 48 + 1)}
    areas = scores[scores["metric"] == "volume_difference"].set_index("case")["value"]
    assert areas.to_dict() == {"c0": 0.0, "c1": 0.5 * 0.25}
    assert set(read_scores(study.folder / "scores.csv")["loss"]) == {"dice"}
    tables = study.folder / "report" / "tables"
    main = (tables / "table1_scores.md").read_text()
    assert "Second reader (2 cases)" in main
    assert "**" not in main.partition("Second reader")[2].splitlines()[0]
    written = pd.read_csv(tables / "second_reader.csv")
    mean = written.loc[written["metric"] == "dice", "mean"].item()
    assert mean == pytest.approx(dice.mean())
    page = (study.folder / "report" / "index.html").read_text()
    assert page.count("Second reader (2 cases)") >= 3  # scores, contours and lesions
    assert f"the second reader&#39;s mean, {mean:.3f}" in page


@pytest.mark.slow
def test_a_second_reader_can_be_named_later(study, tmp_path):
    other = tmp_path / "study"
    data = Path(study.config.data.root)
    run(data, other, "--patches.size", "[16,16]", "--no-report")
    assert reader_scores(Study.open(other)) is None
    words = ("run", other, "--no-report", "--data.options", "{second_reader: second}")
    assert call(*words).returncode == 0
    assert reader_scores(Study.open(other)) is not None
    assert call("run", other, "--no-report").returncode == 0  # and stays
    assert Study.open(other).config.data.options == {"second_reader": "second"}
    refused = call("run", "folder", "--data", data, "--study", other, *TINY, "--patches.size", "[16,16]",
                   "--data.options", "{ignore: 7}")  # fmt: skip
    assert refused.returncode == 2
    assert "data.options" in refused.stderr


@pytest.mark.slow
def test_a_mask_on_another_grid_is_named_and_the_report_goes_on(study, tmp_path):
    moved = tmp_path / "study"
    shutil.copytree(study.folder, moved)
    second = Path(study.config.data.root) / "second" / "c1_reader2.nii.gz"
    whole = second.read_bytes()
    try:
        save(second, np.zeros((5, 5), np.uint8))
        assert call("report", moved).returncode == 0
    finally:
        second.write_bytes(whole)
    page = (moved / "report" / "index.html").read_text()
    assert "The second reader is not shown: " in page
    assert "c1_reader2.nii.gz has shape" in page


def test_the_layout_is_found_whatever_other_options_are_set(tmp_path):
    data = write_folder(tmp_path / "data")
    (data / "masks").rename(data / "drawn")
    options = {"masks": "drawn", "second_reader": "second", "region_of_interest": "fov"}
    assert settled_layout(DataConfig(root=str(data), options=options)).layout == "folder"


def test_the_folder_of_a_second_reader_lies_beside_a_table(tmp_path):
    (tmp_path / "cases.csv").touch()
    for where in ("second", "second/*_b.nii"):
        assert found(tmp_path, where, "second/01_b.nii") == {"01": "01_b.nii"}
        masks = second_masks(CASES, tmp_path / "cases.csv", where)
        assert masks == {"01": tmp_path / "second" / "01_b.nii"}


@pytest.mark.parametrize(
    ("marked", "classes", "own", "expected"),
    [
        ([0, 1], ("background", "vessel"), {0: 0, 255: 1}, {0: 0, 255: 1, 1: 1}),
        ([0, 255], ("background", "vessel"), {0: 0, 255: 1}, {0: 0, 255: 1}),
        ([0, 9], ("background", "vessel"), {0: 0, 1: 1, 9: 254}, {0: 0, 1: 1, 9: 254}),  # an ignored value stays one
        ([0, 1, 2], ("background", "vessel"), {0: 0, 255: 1}, {0: 0, 255: 1}),
        ([0, 3], ("background", "a", "b"), {0: 0, 1: 1, 2: 2}, {0: 0, 1: 1, 2: 2}),
    ],
)
def test_the_only_value_of_a_second_mask_is_the_only_class(tmp_path, marked, classes, own, expected):
    save(tmp_path / "second.nii.gz", np.array([marked, marked], np.uint8))
    assert second_values(tmp_path / "second.nii.gz", Dataset("x", CASES, classes, own)) == expected
