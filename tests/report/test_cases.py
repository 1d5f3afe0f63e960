"""The cases' table and the volumes that the viewer gets."""

import base64
import gzip
import json
import math
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest

from study_files import SHAPE, StudyFiles
from voxloss.data.probabilities import write_probabilities
from voxloss.report.comparison import compare
from voxloss.report.page import cases
from voxloss.report.page.cases import case_rows, largest_error, mask_frame, viewer_index, write_viewer_cases
from voxloss.report.record import open_record

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(tmp_path):
    study = StudyFiles(losses=("dice", "focal"), cases=6, folds=2).write(tmp_path / "study")
    record = open_record(study)
    return record, compare(record)


def read_case(path):
    text = path.read_text(encoding="utf-8")
    name, _, content = text.removeprefix("voxlossCase(").removesuffix(");\n").partition(", ")
    assert json.loads(name) == path.name
    return json.loads(content)


def volume(text):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_rows_by_disagreement(opened):
    record, _ = opened
    scores = pd.read_csv(record.study.folder / "scores.csv")
    chosen = (scores["class"] == "tumour") & (scores["metric"] == "dice")
    number = scores.loc[chosen, "case"].str[-3:].astype(int)
    scores.loc[chosen, "value"] = 0.5 + 0.05 * number * (scores.loc[chosen, "loss"] == "focal")
    scores.to_csv(record.study.folder / "scores.csv", index=False)
    rows = case_rows(compare(open_record(record.study.folder)))
    assert [row.case_id[-1] for row in rows] == ["5", "4", "3", "2", "1", "0"]
    assert rows[0].spread == pytest.approx(0.25) and rows[0].values == (0.5, 0.75)
    assert rows[0].fold == record.study.fold_of(rows[0].case_id) and rows[0].volume_ml > 0


def test_the_volumes_are_the_studys(opened, tmp_path):
    record, comparison = opened
    files, missing = write_viewer_cases(record, comparison, ["case_001", "case_004"], tmp_path)
    assert files == {"case_001": "0001.js", "case_004": "0002.js"} and not missing
    content = read_case(tmp_path / "0002.js")
    case = next(case for case in record.study.dataset.cases if case.case_id == "case_004")
    reference = nibabel.load(case.label)
    shown = volume(content["reference"])
    np.testing.assert_array_equal(np.asarray(shown.dataobj), np.asarray(reference.dataobj))
    np.testing.assert_allclose(shown.affine, reference.affine, atol=1e-5)
    for loss in ("dice", "focal"):
        folder = record.prediction(loss, "case_004", 0).parent.parent
        predicted = nibabel.load(folder / "predictions" / "case_004.nii.gz")
        np.testing.assert_array_equal(np.asarray(volume(content["predictions"][loss]).dataobj), predicted.dataobj)
    grey = np.asarray(volume(content["image"]).dataobj).astype(float)
    image = np.asarray(nibabel.load(case.images[0]).dataobj).astype(float)
    expected = np.clip((image + 79) * 255 / (304 + 79), 0, 255)
    assert np.abs(grey - expected).max() <= 1 and not content["cut"]


def test_predictions_are_shown_in_the_region_of_interest_alone(opened, tmp_path):
    record, comparison = opened
    inside = np.zeros(SHAPE, np.uint8)
    inside[: SHAPE[0] // 2] = 1
    dataset = record.study.dataset
    region = tmp_path / "region.nii.gz"
    nibabel.save(nibabel.Nifti1Image(inside, nibabel.load(dataset.cases[0].label).affine), region)
    dataset = replace(dataset, cases=tuple(replace(case, region=region) for case in dataset.cases))
    record = replace(record, study=replace(record.study, dataset=dataset))
    path = record.prediction("dice", "case_004", 0)
    whole = np.asarray(nibabel.load(path).dataobj)
    assert whole[inside == 0].any()
    np.testing.assert_array_equal(record.read_prediction(path, record.study.case("case_004")), whole * inside)
    write_viewer_cases(record, comparison, ["case_004"], tmp_path / "out")
    shown = volume(read_case(tmp_path / "out/0001.js")["predictions"]["dice"])
    assert np.count_nonzero(shown.dataobj) == np.count_nonzero(whole * inside)


def test_lesions_are_listed_and_marked_for_every_loss(opened, tmp_path):
    record, comparison = opened
    path = record.prediction("focal", "case_004", 0)
    case = next(case for case in record.study.dataset.cases if case.case_id == "case_004")
    file = nibabel.load(case.label)
    reference, mask = np.asarray(file.dataobj), np.zeros(SHAPE, dtype=np.uint8)
    mask[reference == 1] = 1  # tumour is missed, and one lesion of it invented
    mask[0, 0, :3] = 2
    nibabel.Nifti1Image(mask, file.affine).to_filename(path)
    write_viewer_cases(record, comparison, ["case_004"], tmp_path)
    content = read_case(tmp_path / "0001.js")
    lesions = content["lesions"]["focal"]
    assert [lesion["kind"] for lesion in lesions["1"]] == ["found"] * len(lesions["1"])
    assert sorted(lesion["kind"] for lesion in lesions["2"]) == ["invented", "missed"]
    voxel_ml = abs(np.linalg.det(file.affine[:3, :3])) / 1000
    missed, invented = sorted(lesions["2"], key=lambda lesion: lesion["kind"], reverse=True)
    assert missed["ml"] == pytest.approx((reference == 2).sum() * voxel_ml, abs=1e-3)
    assert invented["ml"] == pytest.approx(3 * voxel_ml, abs=1e-4)
    place = np.round(np.linalg.inv(file.affine) @ [*invented["mm"], 1])[:3]
    np.testing.assert_array_equal(place, [0, 0, 1])
    marks = np.asarray(volume(content["marks"]["focal"]).dataobj)
    expected = np.where(reference == 2, 2, np.where(mask == 2, 128 + 2, 0))
    np.testing.assert_array_equal(marks, expected)
    assert content["probabilities"] == {}


@pytest.mark.parametrize("shape", [SHAPE, (5, 20, 18)])
def test_probabilities_that_are_kept_are_in_the_viewer(opened, tmp_path, shape):
    record, comparison = opened
    case = next(case for case in record.study.dataset.cases if case.case_id == "case_004")
    values = np.zeros((2, *shape), dtype=np.uint8)
    values[1, shape[0] // 2 :] = 200
    folder = record.prediction("focal", "case_004", 0).parent.parent
    write_probabilities(folder / "probabilities" / "case_004.nii.gz", values, case.label)
    write_viewer_cases(record, comparison, ["case_004"], tmp_path)
    kept = read_case(tmp_path / "0001.js")["probabilities"]
    assert list(kept) == ["focal"]
    shown = np.asarray(volume(kept["focal"]).dataobj)
    border = (shape[0] // 2) * SHAPE[0] // shape[0]
    assert shown.shape == SHAPE
    assert (shown[: border - 1] == 0).all() and (shown[border + 1 :] == 200).all()


def test_ignored_voxels_are_shown_as_background_and_are_no_error(opened, tmp_path):
    record, _ = opened
    case = next(case for case in record.study.dataset.cases if case.case_id == "case_004")
    reference = nibabel.load(case.label)
    mask = np.asarray(reference.dataobj).copy()
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, :20] = True
    nibabel.Nifti1Image(np.where(ignored, 9, mask).astype(np.uint8), reference.affine).to_filename(case.label)
    description = record.study.folder / "dataset.json"
    content = json.loads(description.read_text())
    content["label_values"]["9"] = 254
    description.write_text(json.dumps(content))
    record = open_record(record.study.folder)
    files, missing = write_viewer_cases(record, compare(record), ["case_004"], tmp_path)
    assert files and not missing
    shown = read_case(tmp_path / "0001.js")
    np.testing.assert_array_equal(np.asarray(volume(shown["reference"]).dataobj), np.where(ignored, 0, mask))
    to_voxels = np.linalg.inv(volume(shown["reference"]).affine)
    for errors in shown["errors"].values():
        for error in filter(None, errors.values()):
            assert not ignored[tuple(np.rint(to_voxels @ [*error["mm"], 1]).astype(int)[:3])]


def test_a_case_without_its_image_is_reported(opened, tmp_path):
    record, comparison = opened
    next(case for case in record.study.dataset.cases if case.case_id == "case_001").images[0].unlink()
    files, missing = write_viewer_cases(record, comparison, ["case_001", "case_002"], tmp_path)
    assert list(files) == ["case_002"]
    assert len(missing) == 1 and missing[0].startswith("Case case_001 is not in the viewer")


def test_a_deleted_prediction_is_left_out(opened, tmp_path):
    record, comparison = opened
    folder = record.prediction("dice", "case_001", 0).parent.parent
    (folder / "predictions" / "case_001.nii.gz").unlink()
    write_viewer_cases(record, comparison, ["case_001"], tmp_path)
    assert list(read_case(tmp_path / "0001.js")["predictions"]) == ["focal"]


def test_nothing_in_a_name_ends_the_script(tmp_path):
    prefix, name = "<!--<script>", "</script><script>alert(1)//\u2028"
    files = StudyFiles(
        losses=("dice", "focal"), cases=4, folds=2, case_prefix=prefix, classes=("background", name, "c")
    )
    files.primary_class = "c"
    record = open_record(files.write(tmp_path / "study"))
    comparison = compare(record)
    names, _ = write_viewer_cases(record, comparison, [f"{prefix}000"], tmp_path / "out")
    written = tmp_path / "out" / names[f"{prefix}000"]
    text = written.read_text(encoding="utf-8")
    assert "<" not in text and text.isascii()
    assert read_case(written)["case"] == f"{prefix}000"
    assert viewer_index(record, comparison, names)["classes"] == [name, "c"]


def test_the_largest_error_by_hand():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (10, 20, 30)
    reference, prediction = np.zeros((12, 12, 12), bool), np.zeros((12, 12, 12), bool)
    reference[1:3, 1:3, 1:3] = True  # 8 voxels missed
    prediction[5:10, 5:10, 5:10] = True  # 125 false positives, centre (7, 7, 7)
    assert largest_error(reference, prediction, affine) == {
        "mm": [10 + 14, 20 + 21, 30 + 28], "ml": 125 * 24 / 1000, "kind": "false positive",
    }  # fmt: skip
    assert largest_error(reference, np.zeros_like(reference), affine)["kind"] == "missed part"
    assert largest_error(reference, reference, affine) is None


def test_missed_and_false_positive_voxels_are_not_one_error():
    """A structure that is moved by a voxel is missed on one side and a false positive on the other."""
    reference = np.zeros((20, 20, 20), bool)
    reference[5:15, 5:15, 5:15] = True
    prediction = np.roll(reference, 1, axis=0)
    prediction[5:15, 5:15, 16:18] = True  # a little more on the false positive side
    error = largest_error(reference, prediction, np.eye(4))
    assert error["kind"] == "false positive" and error["ml"] == pytest.approx(0.2)
    alone = largest_error(reference, np.roll(reference, 1, axis=0), np.eye(4))
    assert alone["ml"] == pytest.approx(0.1)


def test_the_scores_shown_are_those_of_the_predictions_shown(tmp_path):
    study = StudyFiles(losses=("dice", "focal"), cases=4, folds=2, seeds=(3, 5)).write(tmp_path / "study")
    record = open_record(study)
    comparison = compare(record)
    scores = pd.read_csv(study / "scores.csv").set_index(["metric", "seed", "case", "loss", "class"])["value"]
    index = viewer_index(record, comparison, {"case_001": "0001.js"})
    assert index["seed"] == 3
    for loss in ("dice", "focal"):
        assert index["dice"]["case_001"][loss]["2"] == round(scores["dice", 3, "case_001", loss, "tumour"], 3)


def test_the_largest_error_is_a_wrong_voxel_though_its_centre_is_not():
    ring = np.zeros((9, 9, 3), bool)
    ring[1:8, 1:8, 1] = True
    ring[3:6, 3:6, 1] = False
    place = largest_error(ring, np.zeros_like(ring), np.eye(4))["mm"]
    assert ring[tuple(int(value) for value in place)]


def test_a_large_case_is_cut_around_its_structures_and_thinned(monkeypatch):
    monkeypatch.setattr(cases, "VIEWER_VOXELS", 20_000)
    mask = np.zeros((200, 100, 60), np.uint8)
    mask[100:110, 50:60, 30:34] = 1
    frame = mask_frame([mask])
    assert mask[frame].size <= 20_000
    structure = zip(frame, (100, 50, 30), (110, 60, 34), strict=True)
    assert all(part.start <= low and part.stop >= high for part, low, high in structure)
    monkeypatch.setattr(cases, "VIEWER_VOXELS", 2_000_000)
    assert mask[mask_frame([mask])].shape == mask.shape


def test_the_cut_volume_lies_where_the_whole_one_does(tmp_path, monkeypatch, opened):
    record, comparison = opened
    monkeypatch.setattr(cases, "VIEWER_VOXELS", 900)
    monkeypatch.setattr(cases, "LEAST_MARGIN", 2)
    files, _ = write_viewer_cases(record, comparison, ["case_001"], tmp_path)
    content = read_case(tmp_path / files["case_001"])
    assert content["cut"] and math.prod(volume(content["reference"]).shape) <= 900 < math.prod(SHAPE)
    case = next(case for case in record.study.dataset.cases if case.case_id == "case_001")
    whole = nibabel.load(case.label)
    shown = volume(content["reference"])
    predicted = nibabel.load(record.prediction("dice", "case_001", 0))
    wrong = [np.asarray(image.dataobj) == 2 for image in (whole, predicted)]
    assert content["errors"]["dice"]["2"] == largest_error(*wrong, whole.affine)  # of the whole grid
    for voxel in np.argwhere(np.asarray(shown.dataobj))[::5]:
        at = np.linalg.inv(whole.affine) @ shown.affine @ [*voxel, 1]
        assert np.asarray(whole.dataobj)[tuple(np.rint(at[:3]).astype(int))] == shown.dataobj[tuple(voxel)]
