"""Classes of several values and values that are ignored, in every layout, from the files to patches and statistics."""

import json
from pathlib import Path

import numpy as np
import pytest
from nifti_files import write_nifti

from voxloss.data.case import IGNORED, read_label
from voxloss.data.check.check import check
from voxloss.data.classes import MOST_CLASSES, declared_classes
from voxloss.data.dataset import Dataset, dataset_from_json, dataset_to_json, to_file_values
from voxloss.data.layouts import LAYOUTS, load_dataset
from voxloss.data.patches import PatchSetting, read_batch, training_places
from voxloss.data.prepare.case import Preparation, prepare_case
from voxloss.utilities.errors import InputError

SHAPE = (6, 7, 8)


def values(*at_start: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask with 3, 4, 5, ... voxels of the values, the rest 0."""
    flat = np.zeros(np.prod(SHAPE), dtype)
    flat[: sum(range(3, 3 + len(at_start)))] = np.repeat(at_start, range(3, 3 + len(at_start)))
    return flat.reshape(SHAPE)


def write_layout(layout: str, root: Path, *masks: np.ndarray) -> Path:
    """Write cases with these masks as each layout has them."""
    for number, mask in enumerate(masks):
        image = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        scan, old, new = f"case_{number:05}", f"BraTS20_Training_00{number}", f"sub-{number}/anat/sub-{number}"
        files = {
            "csv": (f"a/c{number}", f"b/c{number}"),
            "monai": (f"a/c{number}", f"b/c{number}"),
            "kits19": (f"{scan}/imaging", f"{scan}/segmentation"),
            "kits21": (f"{scan}/imaging", f"{scan}/aggregated_MAJ_seg"),
            "kits23": (f"{scan}/imaging", f"{scan}/segmentation"),
            "brats": (f"{old}/{old}_t1ce", f"{old}/{old}_seg"),
            "decathlon": (f"imagesTr/c{number}", f"labelsTr/c{number}"),
            "bids": (f"{new}_T1w", f"derivatives/hand/{new}_mask"),
            "folder": (f"images/c{number}", f"masks/c{number}"),
            "patients": (f"c{number}/flair", f"c{number}/lesions"),
            "pairs": (f"c{number}_image", f"c{number}_label"),
        }[layout]
        for name, array in zip(files, (image, mask), strict=True):
            write_nifti(root / f"{name}.nii.gz", array)
    names = [(f"a/c{number}.nii.gz", f"b/c{number}.nii.gz") for number in range(len(masks))]
    if layout == "csv":
        (root / "cases.csv").write_text("".join(f"{one},{two}\n" for one, two in [("image", "mask"), *names]))
    if layout == "monai":
        entries = [{"image": one, "label": two} for one, two in names]
        (root / "list.json").write_text(json.dumps({"training": entries}))
    return root


def mapped(dataset: Dataset, case: int = 0) -> list[int]:
    """The voxels of each class index, and of ignored ones last."""
    label, _ = read_label(dataset.cases[case], dataset.label_values, dataset.value_hints)
    return [int((label == index).sum()) for index in (*range(len(dataset.classes)), IGNORED)]


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_an_ignored_value_in_every_layout(tmp_path, layout, dtype):
    root = write_layout(layout, tmp_path, values(1, 2, 4, dtype=dtype))
    dataset = load_dataset(layout, root, classes={"tumour": [1, 4]}, ignore=2)
    assert dataset.classes == ("background", "tumour")
    assert dataset.ignore_index == IGNORED
    assert mapped(dataset) == [336 - 12, 3 + 5, 4]
    assert dataset_from_json(dataset_to_json(dataset)) == dataset
    with pytest.raises(InputError, match="value 2, but the declared values are 0, 1, 4"):
        mapped(load_dataset(layout, root, classes={"tumour": [1, 4]}))


@pytest.mark.parametrize(
    ("layout", "classes", "expected"),
    [
        ("kits19", ("background", "kidney"), [336 - 7, 3, 4]),
        ("brats", ("background", "enhancing tumour"), [336 - 4, 0, 4]),
        ("decathlon", ("background", "class 1"), [336 - 7, 3, 4]),
        ("folder", ("background", "class 1"), [336 - 7, 3, 4]),
    ],
)
def test_an_ignored_value_of_the_layouts_own_classes(tmp_path, layout, classes, expected):
    dataset = load_dataset(layout, write_layout(layout, tmp_path, values(1, 2)), ignore=2)
    assert dataset.classes == classes
    assert mapped(dataset) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ({"background": 0, "tumour": 1, "ignore": 2}, ("tumour",), [336 - 7, 3, 4]),
        ({"background": 0, "tumour": 2, "ignore": 1}, ("tumour",), [336 - 7, 4, 3]),  # not the highest value
        ({"background": 0, "both": [1, 2]}, ("both",), [336 - 7, 7, 0]),
        ({"background": 0, "both": [2], "ignore": [1]}, ("both",), [336 - 7, 4, 3]),
        ({"background": [0, 1], "b": 2}, ("b",), [336 - 4, 4, 0]),
        ({"0": "background", "1": "ignore", "2": "tumour"}, ("tumour",), [336 - 7, 4, 3]),
        ({"lesion": [2, 1]}, ("lesion",), [336 - 7, 7, 0]),
    ],
)
def test_labels_of_nnunet(tmp_path, labels, classes, expected):
    root = write_layout("decathlon", tmp_path, values(1, 2))
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    dataset = load_dataset("auto", root)
    assert dataset.classes == ("background", *classes)
    assert mapped(dataset) == expected


def test_regions_of_nnunet_that_overlap_are_refused_with_the_way_out(tmp_path):
    root = write_layout("decathlon", tmp_path, values(1, 2))
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "core": 2}}))
    with pytest.raises(InputError, match=r"whole and core both have the value 2.*data\.options\.classes"):
        load_dataset("decathlon", root)
    assert load_dataset("decathlon", root, classes={"whole": [1, 2]}).classes == ("background", "whole")


@pytest.mark.parametrize(
    ("classes", "ignore", "message"),
    [
        ({"a": 1, "b": [2, 1]}, None, "a and b both have the value 1"),
        ({"a": 1}, 1, "the value 1 is that of a and is also ignored"),
        ({"a": [1, 1]}, None, "a takes different whole values from 0 to 65535"),
        ({"a": []}, None, "a: a class needs a value"),
        ({"a": 1.5}, None, "a takes different whole values"),
        ({"a": True}, None, "a takes different whole values"),
        ({"a": "1"}, None, "a takes different whole values"),
        ({"a": 1}, -1, "ignore takes different whole values"),
        ({"a": 1}, 65536, "ignore takes different whole values"),
        ({"background": 0, "ignore": 1}, None, "no class besides the background"),
        ({"background": 1, "a": 2}, None, "the class background has the value 0"),
        ({f"c{n}": n for n in range(1, MOST_CLASSES + 2)}, None, f"{MOST_CLASSES} are possible"),
    ],
)
def test_classes_that_contradict_themselves_are_refused(classes, ignore, message):
    with pytest.raises(InputError, match=message):
        declared_classes(classes, ignore)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("classes", [["tumour"], "tumour", 3, {1: 1}, {None: 1}])
def test_classes_of_another_form_are_refused(tmp_path, layout, classes):
    root = write_layout(layout, tmp_path, values(1))
    with pytest.raises(InputError, match="takes names with their values"):
        load_dataset(layout, root, classes=classes)


def test_the_background_has_another_value_where_0_is_ignored():
    names, label_values = declared_classes({"background": 1, "lesion": [2, 3]}, ignore=0)
    assert names == ("background", "lesion")
    assert label_values == {1: 0, 2: 1, 3: 1, 0: IGNORED}


def test_predictions_have_the_smallest_value_of_a_class():
    classes, label_values = declared_classes({"a": [9, 4], "b": 1001}, ignore=2)
    dataset = Dataset("d", (), classes, label_values)
    written = to_file_values(np.array([0, 1, 2], np.uint8), dataset)
    assert written.tolist() == [0, 4, 1001]
    assert written.dtype == np.uint16
    small = Dataset("d", (), ("background", "a"), {0: 0, 255: 1})
    assert to_file_values(np.array([0, 1], np.uint8), small).dtype == np.uint8


def test_as_many_classes_as_fit_below_the_index_of_ignored_voxels():
    classes, label_values = declared_classes({f"c{n}": n for n in range(1, MOST_CLASSES + 1)}, ignore=60000)
    assert max(index for index in label_values.values() if index != IGNORED) == MOST_CLASSES == 253
    Dataset("d", (), classes, label_values)


def test_patches_are_not_centred_on_ignored_voxels_and_keep_them_in_the_labels(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[0, 0, 0], label[3:, 3:, 3:] = 1, 2
    dataset = load_dataset("folder", write_layout("folder", tmp_path, label), ignore=2)
    prepared = prepare_case(dataset.cases[0], dataset, Preparation(), tmp_path / "cache")
    assert prepared.foreground.keys() == {1}
    np.testing.assert_array_equal(prepared.label == IGNORED, label == 2)
    setting = PatchSetting((2, 2, 2), 2, 1.0)
    for step in range(5):
        places = training_places([prepared], setting, seed=0, fold=0, step=step)
        assert {place.origin for place in places} == {(0, 0, 0)}
    _, labels = read_batch([prepared], [places[0]], SHAPE)
    assert (labels == IGNORED).sum() == 60


def test_resampling_keeps_the_border_of_ignored_voxels(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[:, :, :4] = 2
    label[2:4, 2:4, 5:7] = 1
    dataset = load_dataset("folder", write_layout("folder", tmp_path, label), ignore=2)
    prepared = prepare_case(dataset.cases[0], dataset, Preparation(spacing_mm=(0.5, 0.5, 0.5)), tmp_path / "cache")
    fine = np.repeat(np.repeat(np.repeat(label, 2, 0), 2, 1), 2, 2)
    np.testing.assert_array_equal(prepared.label == IGNORED, fine == 2)
    assert (prepared.label == 1).sum() > 0


def test_the_check_leaves_ignored_voxels_out_of_its_statistics(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[:3] = 2
    label[5, 5, 5] = 1
    nothing = np.full(SHAPE, 2, np.uint8)
    dataset = load_dataset("folder", write_layout("folder", tmp_path, label, nothing), classes={"lesion": 1}, ignore=2)
    report = check(dataset)
    assert [item.name for item in report.classes] == ["background", "lesion"]
    assert report.classes[1].cases == 1
    assert report.classes[1].voxel_fraction.median == pytest.approx(1 / 168)
    assert report.classes[0].voxel_fraction.median == pytest.approx(167 / 168)
    found = [(finding.severity, finding.case_id, finding.message) for finding in report.findings]
    assert found == [
        ("warning", "c1", "every voxel of the mask is ignored"),
        ("note", "", "voxels of value 2 are ignored: 2 of 2 masks, 75 % of all voxels"),
    ]


# Images that nnU-Net lists without the numbers of their channels, and exclusions


def test_listed_images_are_found_by_the_numbers_of_their_channels(tmp_path):
    for name in ("x_001", "x_002"):
        for channel in range(2):
            write_nifti(tmp_path / f"imagesTr/{name}_000{channel}.nii.gz", np.full(SHAPE, channel, np.int16))
        write_nifti(tmp_path / f"labelsTr/{name}.nii.gz", values(1))
    listed = [{"image": "./imagesTr/x_001.nii.gz", "label": "./labelsTr/x_001.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": listed, "labels": {"0": "background", "1": "t"}}))
    dataset = load_dataset("auto", tmp_path)
    assert [case.case_id for case in dataset.cases] == ["x_001"]
    assert [path.name for path in dataset.cases[0].images] == ["x_001_0000.nii.gz", "x_001_0001.nii.gz"]
    assert {case_id for case_id, _ in dataset.dropped} == {"x_002_0000", "x_002_0001"}
    (tmp_path / "imagesTr/x_001_0000.nii.gz").unlink()  # a gap is no case of one channel
    assert [path.name for path in load_dataset("auto", tmp_path).cases[0].images] == ["x_001.nii.gz"]


def test_an_image_without_a_mask_can_be_excluded(tmp_path):
    root = write_layout("folder", tmp_path, values(1), values(1))
    for name in ("extra", "several_0000", "several_0001"):
        write_nifti(root / "images" / f"{name}.nii.gz", values(1))
    dataset = load_dataset("folder", root, exclude=["extra", "several", "c1"])
    assert [case.case_id for case in dataset.cases] == ["c0"]
    assert {case_id for case_id, _ in dataset.dropped} == {"extra", "several", "c1"}
    with pytest.raises(InputError, match="has no mask of the same name"):
        load_dataset("folder", root, exclude=["extra"])
    with pytest.raises(InputError, match=r"extra.nii.gz has no mask .*; 2 other cases with a fault: several_0000, sev"):
        load_dataset("folder", root)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_excluded_id_that_no_case_has_is_named(tmp_path, layout):
    root = write_layout(layout, tmp_path, values(1), values(1))
    first = load_dataset(layout, root).cases[0].case_id
    with pytest.raises(InputError, match=rf"names '{first.swapcase()}', but .* did you mean '{first}'"):
        load_dataset(layout, root, exclude=[first.swapcase()])
    assert len(load_dataset(layout, root, exclude=[first]).cases) == 1
