"""Regions of interest: which file belongs to which case, and that nothing outside counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from format_files import write_segmentation, write_series
from nifti_files import write_nifti

from voxloss.data.case import IGNORED, read_label
from voxloss.data.check.check import check
from voxloss.data.dataset import Dataset, dataset_from_json, dataset_to_json, require_complete
from voxloss.data.layouts import load_dataset
from voxloss.data.patches import PatchSetting, read_batch, training_places
from voxloss.data.prepare.case import Preparation, prepare_case
from voxloss.utilities.errors import InputError

SHAPE = (8, 9, 10)
INSIDE = (slice(1, 5), slice(2, 8), slice(3, 9))


def write_case(root: Path, number: int, label: np.ndarray) -> None:
    grey = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
    write_nifti(root / "images" / f"c{number}.nii.gz", grey)
    write_nifti(root / "masks" / f"c{number}.nii.gz", label)


def region(value: int = 1, dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[INSIDE] = value
    return array


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cases; class 1 has 8 voxels inside the region and 27 outside, class 2 has 4 inside."""
    for number in range(2):
        label = np.zeros(SHAPE, np.uint8)
        label[1:3, 2:4, 3:5] = 1
        label[5:8, 0:3, 0:3] = 1
        label[4, 6:8, 6:8] = 2
        write_case(tmp_path, number, label)
    return tmp_path


def write_regions(root: Path, form: str = "fov/c{}.nii.gz", value: int = 1, dtype: type = np.uint8) -> None:
    for number in range(2):
        write_nifti(root / form.format(number, number), region(value, dtype))


def voxels(dataset: Dataset, case: int = 0) -> list[int]:
    label, _ = read_label(dataset.cases[case], dataset.label_values)
    return [int((label == index).sum()) for index in (0, 1, 2, IGNORED)]


COUNTED = [4 * 6 * 6 - 12, 8, 4, 720 - 144]


@pytest.mark.parametrize(
    ("form", "option"),
    [
        ("fov/c{}.nii.gz", "fov"),
        ("fov/c{}_training_mask.nii", "fov"),
        ("fov/field_of_C{}.nii.gz", "fov"),
        ("images/fov/c{}.nii.gz", "images/fov"),
        ("fov/c{}/brain.nii.gz", "fov/*/brain.nii.gz"),
        ("c{}_fov.nii.gz", "*_fov.nii.gz"),
        ("c{}_fov.nii.gz", "*_fov"),
        ("deep/down/c{}-fov.nii.gz", "*-fov.nii.gz"),
        ("deep/down/c{}-fov.nii.gz", "deep/*/*-fov.nii.gz"),
    ],
)
@pytest.mark.parametrize(("value", "dtype"), [(1, np.uint8), (255, np.uint8), (-3, np.int16), (1, np.float32)])
def test_a_region_is_found_by_the_id_in_its_name(root, form, option, value, dtype):
    write_regions(root, form, value, dtype)
    dataset = load_dataset("folder", root, region_of_interest=option)
    require_complete(dataset)
    assert dataset.has_regions
    assert dataset.ignore_index == IGNORED
    assert voxels(dataset) == COUNTED
    assert "voxels outside each case's region of interest count in no loss and no score" in dataset.notes
    assert dataset_from_json(json.loads(json.dumps(dataset_to_json(dataset)))) == replace(dataset, notes=())
    assert [path.name for path in dataset.cases[0].files[:2]] == ["c0.nii.gz", "c0.nii.gz"]
    assert len(dataset.cases[0].files) == 3


def test_a_region_of_an_absolute_folder_and_of_a_table(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    write_regions(other)
    assert voxels(load_dataset("folder", root, region_of_interest=str(other / "fov"))) == COUNTED
    write_regions(root)
    rows = [f"images/c{n}.nii.gz,masks/c{n}.nii.gz,fov/c{n}.nii.gz" for n in range(2)]
    (root / "cases.csv").write_text("\n".join(["image,mask,region", *rows]))
    dataset = load_dataset("auto", root)
    assert voxels(dataset) == COUNTED
    with pytest.raises(InputError, match="is set, but the data name a region already"):
        load_dataset("auto", root, region_of_interest="fov")
    assert voxels(load_dataset("auto", root, ignore=2, classes={"x": 1})) == [144 - 12, 8, 0, 720 - 144 + 4]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: (root / "fov/c1.nii.gz").unlink(), "case c1 has no region of interest, but others have"),
        (lambda root: [path.unlink() for path in (root / "fov").iterdir()], "no file can be read as a region"),
        (lambda root: (root / "fov").rename(root / "gone"), "names 'fov', but .* has no such folder"),
        (lambda root: write_nifti(root / "fov/c1_2.nii", region()), r"may both be the region of interest of c1"),
        (lambda root: [path.rename(path.with_name(f"z{n}.nii.gz")) for n, path in
                       enumerate(sorted((root / "fov").iterdir()))], "2 files have no case's id in their names"),
    ],
)  # fmt: skip
def test_a_region_that_is_not_there_or_twice_is_named(root, spoil, told):
    write_regions(root)
    spoil(root)
    with pytest.raises(InputError, match=told):
        load_dataset("folder", root, region_of_interest="fov")


def test_a_region_beside_its_image_is_no_channel(tmp_path):
    for number in range(2):
        for part, array in (("image", region() * 3), ("label", region() * 1), ("fov", region())):
            write_nifti(tmp_path / f"c{number}_{part}.nii", array)
    assert len(load_dataset("auto", tmp_path).cases[0].images) == 2  # what it is cannot be known
    dataset = load_dataset("auto", tmp_path, region_of_interest="*_fov")
    assert [path.name for path in dataset.cases[0].files] == ["c0_image.nii", "c0_label.nii", "c0_fov.nii"]


def test_a_region_of_another_type_of_option_is_refused(root):
    for wrong in (3, "", ["fov"]):
        with pytest.raises(InputError, match="takes a folder or a pattern, but is"):
            load_dataset("folder", root, region_of_interest=wrong)


def findings(dataset: Dataset, severity: str) -> list[str]:
    return [f"{one.case_id}: {one.message}" for one in check(dataset).findings if one.severity == severity]


def test_check_counts_the_region_alone(root):
    write_regions(root)
    dataset = load_dataset("folder", root, region_of_interest="fov")
    report = check(dataset)
    assert report.ok
    assert [item.voxel_fraction.median for item in report.classes] == pytest.approx([132 / 144, 8 / 144, 4 / 144])
    assert [item.volume_ml.median for item in report.classes] == pytest.approx([0.132, 0.008, 0.004])
    assert report.classes[1].components.median == 1  # the other piece lies outside
    notes = findings(dataset, "note")
    assert ": voxels outside the region of interest are ignored: 2 of 2 masks, 80 % of all voxels" in notes
    both = load_dataset("folder", root, region_of_interest="fov", ignore=2)
    assert any("voxels of value 2 and outside the region of interest are ignored" in n for n in findings(both, "note"))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (np.zeros(SHAPE, np.uint8), "empty region of interest: it has no voxel other than 0"),
        (np.ones((8, 9, 11), np.uint8), "has shape 8 × 9 × 11 but"),
        (np.ones((*SHAPE, 2), np.uint8), "where a region of interest has three axes"),
        (np.full(SHAPE, 0.5, np.float32), "holds the value 0.5, but the values of a mask are whole"),
        (None, "c1.nii.gz does not exist"),
        (b"damaged", "is not a NIfTI file"),
    ],
)
def test_a_region_at_fault_is_an_error_of_check_and_of_preparation(root, content, error, tmp_path_factory):
    write_regions(root)
    path = root / "fov" / "c1.nii.gz"
    dataset = load_dataset("folder", root, region_of_interest="fov")
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_nifti(path, content)
    told = findings(dataset, "error")
    assert len(told) == 1
    assert error in told[0]
    with pytest.raises(InputError):
        require_complete(dataset)
        prepare_case(dataset.cases[1], dataset, Preparation(), tmp_path_factory.mktemp("cache"))


def test_a_region_elsewhere_or_without_a_class_is_found(root):
    write_regions(root)
    moved = np.eye(4)
    moved[0, 3] = 5
    write_nifti(root / "fov" / "c0.nii.gz", region(), moved)
    empty = np.zeros(SHAPE, np.uint8)
    empty[7, 0, 0] = 1
    write_case(root, 1, empty)
    dataset = load_dataset("folder", root, region_of_interest="fov", classes={"a": 1, "b": 2})
    (error,) = (one for one in findings(dataset, "error") if one.startswith("c0"))
    assert "are at different positions: their affines differ by up to 5 mm" in error
    assert findings(dataset, "warning") == [
        "c1: empty mask: nothing but background in the region of interest; 1 voxel of classes outside"
    ]


def test_patches_are_centred_in_the_region_and_everything_outside_is_ignored(root, tmp_path_factory):
    write_regions(root)
    dataset = load_dataset("folder", root, region_of_interest="fov")
    cache = tmp_path_factory.mktemp("cache")
    cases = [prepare_case(case, dataset, Preparation(), cache) for case in dataset.cases]
    assert cases[0].inside is not None
    assert cases[0].inside.shape == (144, 3)
    assert len(cases[0].digests) == 3
    assert sorted(map(len, cases[0].foreground.values())) == [4, 8]
    for share in (0.0, 0.5, 1.0):
        setting = PatchSetting((2, 3, 3), 2, share)
        for step in range(20):
            places = training_places(cases, setting, 0, 0, step)
            _, labels = read_batch(cases, places, setting.size)
            for place, label in zip(places, labels, strict=True):
                centre = [start + size // 2 for start, size in zip(place.origin, setting.size, strict=True)]
                assert all(part.start <= at < part.stop for at, part in zip(centre, INSIDE, strict=True))
                assert label[1, 1, 1] != IGNORED
    _, labels = read_batch(cases, training_places(cases, PatchSetting((12, 12, 12), 2, 0.0), 0, 0, 0), (12, 12, 12))
    assert [int((labels[0] == index).sum()) for index in (0, 1, 2)] == COUNTED[:3]  # padding is ignored too


def test_another_region_is_another_prepared_case(root, tmp_path_factory):
    write_regions(root)
    cache = tmp_path_factory.mktemp("cache")
    with_region = load_dataset("folder", root, region_of_interest="fov")
    without = load_dataset("folder", root)
    folders = {
        prepare_case(dataset.cases[0], dataset, Preparation(), cache).folder for dataset in (with_region, without)
    }
    larger = region()
    larger[0, 0, 0] = 1
    write_nifti(root / "fov" / "c0.nii.gz", larger)
    folders.add(prepare_case(with_region.cases[0], with_region, Preparation(), cache).folder)
    assert len(folders) == 3
    assert prepare_case(without.cases[0], without, Preparation(), cache).inside is None


def test_a_region_of_dicom_needs_no_slices_that_are_empty(tmp_path):
    """Writers of segmentations leave out frames without a voxel, so the file spans fewer slices than the image."""
    for number in range(2):
        label = np.zeros((6, 7, 8), np.uint8)  # z, y, x
        label[2:4, 2:4, 2:4] = 1
        fov = np.zeros_like(label)
        fov[2:5, 1:6, 1:7] = 1
        series = write_series(tmp_path / "images" / f"c{number}", label.astype(np.int16), series=f"1.2.3.{number + 1}")
        write_segmentation(tmp_path / "masks" / f"c{number}.dcm", series, label)
        write_segmentation(tmp_path / "fov" / f"c{number}.dcm", series, fov)
    dataset = load_dataset("folder", tmp_path, region_of_interest="fov")
    mask, _ = read_label(dataset.cases[0], dataset.label_values)
    assert [int((mask == value).sum()) for value in (0, 1, IGNORED)] == [90 - 8, 8, 336 - 90]
    report = check(dataset)
    assert not [finding for finding in report.findings if finding.severity == "error"]
