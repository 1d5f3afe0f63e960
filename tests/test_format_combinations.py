"""Formats in layouts that nothing else combines, through `check`, `run`, `predict` and `report`."""

import csv
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
import yaml
from PIL import Image

from study_helpers import call
from test_study_formats import OPTIONS, SHAPE, ball
from voxloss.data.case import IGNORED, Case, read_label, write_label
from voxloss.data.dataset import Dataset, to_file_values
from voxloss.data.formats import mask_ending
from voxloss.data.layouts import load_dataset

sys.path.insert(0, str(Path(__file__).parent / "data"))
from format_files import write_itk, write_palette, write_picture, write_series

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_figures", "unmeasured_steps")]

NAMES = ("a", "b", "c", "d")


def parts(number: int, values: tuple[int, ...] = (1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """An image and a mask (z, y, x) with two values: of a ball, and of its lower half."""
    image, mask = ball(number)
    label = mask * values[0]
    label[:3][mask[:3]] = values[1]
    return image, label


def plane(number: int, values: tuple[int, ...] = (1, 2)) -> tuple[np.ndarray, np.ndarray]:
    image, label = parts(number)
    label = np.select([label[3] > 0], [values[0]], 0)
    label[3:5, 9:12] = values[1]
    return image[3], label


def nnunet_mha(root: Path) -> dict:
    for number, name in enumerate(NAMES):
        image, label = parts(number)
        write_itk(root / f"imagesTr/{name}_0000.mha", image, compressed=True)
        write_itk(root / f"imagesTr/{name}_0001.mha", image[::-1].copy())
        write_itk(root / f"labelsTr/{name}.mha", label.astype(np.uint8))
        write_itk(root / f"fov/{name}_region.mha", np.pad(np.ones((8, 12, 14), np.uint8), ((0, 0), (0, 4), (0, 4))))
    labels = {"background": 0, "tumour": 1, "ignore": 2}
    names = {"channel_names": {"0": "a", "1": "b"}, "labels": labels, "numTraining": 4, "file_ending": ".mha"}
    (root / "dataset.json").write_text(json.dumps(names))
    folds = [{"train": ["a", "d"], "val": ["b", "c"]}, {"train": ["b", "c"], "val": ["a", "d"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    return {"region_of_interest": "fov"}


def nrrd_pairs(root: Path) -> dict:
    for number, name in enumerate(NAMES):
        image, label = parts(number, (3, 7))
        write_itk(root / f"{name}_image.nrrd", image, compressed=True)
        write_itk(root / f"{name}_label.seg.nrrd", label.astype(np.uint8), compressed=True)
    return {"classes": {"lesion": [3, 7]}}


def deep_pictures_in_a_table(root: Path) -> dict:
    rows = [["case", "image", "mask", "patient", "fold"]]
    for number, name in enumerate(NAMES):
        image, label = plane(number)
        write_picture(root / f"grey/{name}.png", image.astype(np.uint16) * 200)
        write_palette(root / f"drawn/{name}.png", label, [0, 0, 0, 200, 0, 0, 0, 200, 0])
        rows.append([name, f"grey/{name}.png", f"drawn/{name}.png", f"p{number // 2}", str(number // 2)])
    with (root / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return {"picture_spacing_mm": [0.5, 0.5]}


def patients_of_dicom(root: Path) -> dict:
    codes = pydicom.sr.codedict.codes.SCT
    for number, name in enumerate(NAMES):
        image, label = parts(number)
        folder = write_series(root / f"{name}/ct", image, series=f"1.2.826.0.1.3680043.8.498.{number + 40}")
        files = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda file: file.InstanceNumber)
        segments = [
            highdicom.seg.SegmentDescription(value, text, codes.Tissue, codes.Tissue, "MANUAL")
            for value, text in ((1, "upper"), (2, "lower"))
        ]
        values, uids = label.astype(np.uint8), [highdicom.UID(), highdicom.UID()]
        highdicom.seg.Segmentation(
            files, values, "BINARY", segments, uids[0], 1, uids[1], 1, "m", "n", "1", "2"
        ).save_as(root / f"{name}/seg.dcm")  # fmt: skip
    return {}


def planes_of_bids(root: Path) -> dict:
    for number, name in enumerate(NAMES):
        image, label = plane(number)
        for path, values in (
            (root / f"sub-{name}/anat/sub-{name}_T1w.nii.gz", image.T.astype(np.float32)),
            (root / f"derivatives/manual/sub-{name}/anat/sub-{name}_dseg.nii.gz", label.T.astype(np.uint8)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.5, 1, 1])), path)
    return {}


def measured_tiff_stacks(root: Path) -> dict:
    for number, name in enumerate(NAMES):
        image, label = parts(number, (1001, 65535))
        for folder, values in (("images", image), ("masks", label.astype(np.uint16))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            described = {"unit": "mm", "spacing": 3.0, "axes": "ZYX"}
            path = root / folder / f"{name}.tif"
            tifffile.imwrite(path, values, imagej=True, resolution=(2, 2), metadata=described)
    return {"classes": {"low": 1001, "high": 65535}}


def odd_names(root: Path) -> dict:
    for number, name in enumerate(("Fall 1 & 2", "<b>Ü", "a'b;c", "%s {x}")):
        image, label = parts(number)
        for folder, values in (("images", image.T.astype(np.float32)), ("masks", label.T.astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / folder / f"{name}.nii.gz")
    return {}


def links_elsewhere(root: Path) -> dict:
    store = root.parent / "store"
    for number, name in enumerate(NAMES):
        image, label = parts(number)
        for folder, values in (("images", image), ("masks", label.astype(np.uint8))):
            write_itk(store / f"{folder}-{number}.mhd", values)
            (root / folder).mkdir(parents=True, exist_ok=True)
            for ending in (".mhd", ".raw"):
                (root / folder / f"{folder}-{number}{ending}").symlink_to(store / f"{folder}-{number}{ending}")
            (root / folder / f"{folder}-{number}.mhd").rename(root / folder / f"{name}.mhd")
    return {}


def capitals_alone(root: Path) -> dict:
    for number, name in enumerate(("A", "a", "B", "b")):
        image, label = plane(number)
        write_picture(root / f"images/{name}.bmp", image)
        write_picture(root / f"masks/{name}.png", (label > 0).astype(np.uint16) * 4000)
    return {}


def slices_of_patients(root: Path) -> dict:
    for number, name in enumerate(NAMES):
        image, label = parts(number)
        for folder, values in (("t1", image), ("seg", label), ("brain", np.ones(SHAPE)), ("second", label > 0)):
            top = root / name if folder in ("t1", "seg") else root.parent / folder
            for place, values_of_slice in enumerate(values, start=98):
                last = folder if folder in ("t1", "seg") else name
                write_picture(top / last / f"{place}.png", values_of_slice.astype(np.uint8))
    return {
        "slices": True, "picture_spacing_mm": [0.5, 0.75, 2], "region_of_interest": str(root.parent / "brain"),
        "second_reader": str(root.parent / "second"), "classes": {"lesion": [1, 2]},
    }  # fmt: skip


def monai_list(root: Path) -> dict:
    training = []
    for number, name in enumerate(NAMES):
        image, label = parts(number, (256, 300))
        write_itk(root / f"x/{name}.nhdr", image)
        write_itk(root / f"y/{name}.nrrd", label.astype(np.uint16))
        training.append({"image": f"x/{name}.nhdr", "label": f"y/{name}.nrrd", "fold": number % 2})
    (root / "data.json").write_text(json.dumps({"training": training}))
    return {}


def read_itk(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_nifti(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T


def read_picture(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def read_slices(path: Path) -> np.ndarray:
    return np.stack([read_picture(file) for file in sorted(path.iterdir(), key=lambda file: int(file.stem))])


def read_frames(path: Path) -> np.ndarray:
    return np.atleast_3d(pydicom.dcmread(path).pixel_array)


# What writes the data; where its images are; a prediction's ending, its reader and the values that it may have.
COMBINATIONS: dict[str, tuple[Callable[[Path], dict], str, str, Callable[[Path], np.ndarray], set[int]]] = {
    "nnunet-mha": (nnunet_mha, "imagesTr", ".mha", read_itk, {0, 1}),
    "nrrd-pairs": (nrrd_pairs, "a_image.nrrd", ".nrrd", read_itk, {0, 3}),
    "table-of-pictures": (deep_pictures_in_a_table, "grey", ".png", read_picture, {0, 1, 2}),
    "dicom-patients": (patients_of_dicom, "a/ct", ".dcm", read_frames, {0, 1}),
    "bids-planes": (planes_of_bids, "sub-a/anat", ".nii.gz", read_nifti, {0, 1, 2}),
    "tiff-stacks": (measured_tiff_stacks, "images", ".tif", read_itk, {0, 1001, 65535}),
    "odd-names": (odd_names, "images", ".nii.gz", read_nifti, {0, 1, 2}),
    "links": (links_elsewhere, "images", ".mha", read_itk, {0, 1, 2}),
    "capitals": (capitals_alone, "images", ".png", read_picture, {0, 4000}),
    "slices-of-patients": (slices_of_patients, "a/t1", "", read_slices, {0, 1}),
    "monai-list": (monai_list, "x", ".nrrd", read_itk, {0, 256, 300}),
}


FLAT = ("table-of-pictures", "bids-planes", "capitals")
TRAINED = ("nnunet-mha", "dicom-patients", "odd-names", "slices-of-patients")  # training takes seconds


def written(name: str, root: Path) -> list[str]:
    """Write the data of a combination; returns its options."""
    root.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = COMBINATIONS[name][0](root)
    return ["--data.options", yaml.safe_dump(options, default_flow_style=True, width=10_000).strip()]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_is_checked_planned_and_prepared_alike(tmp_path, name):
    root = tmp_path / "data"
    options = written(name, root)
    checked = call("check", root, *options, "--splits.folds", "2")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "4 cases, 4 masks read" in checked.stdout
    size = "[16,16]" if name in FLAT else "[16,16,8]"
    planned = call("plan", "folder", "--data", root, "--patches.size", size, *options, *OPTIONS)
    assert planned.returncode == 0, planned.stderr
    known = {name: value for name, value in yaml.safe_load(options[1]).items() if name != "second_reader"}
    dataset = load_dataset("auto", root, **known)
    for case in dataset.cases:
        assert_a_mask_comes_back(case, dataset, tmp_path / "out", name)


def assert_a_mask_comes_back(case: Case, dataset: Dataset, folder: Path, name: str) -> None:
    """The reference, written as a prediction, is what another reader finds in it."""
    _, _, ending, read, values = COMBINATIONS[name]
    label, _ = read_label(case, dataset.label_values)
    label[label == IGNORED] = 0
    target = folder / f"{case.case_id}{ending}"
    assert mask_ending(case.images[0]) == ending
    write_label(target, to_file_values(label, dataset), like=case.images[0])
    found = read(target)
    assert {*np.unique(found)} <= values
    if name == "dicom-patients":  # frames, which leave empty slices out
        assert np.count_nonzero(found) == np.count_nonzero(label)
    else:
        np.testing.assert_array_equal(found.squeeze(), to_file_values(label, dataset).T.squeeze())


@pytest.mark.parametrize("name", TRAINED)
def test_a_combination_is_run_predicted_and_reported(tmp_path, name):
    _, images, ending, read, values = COMBINATIONS[name]
    root, study = tmp_path / "data", tmp_path / "study"
    options = written(name, root)
    size = ["--patches.size", "[16,16]" if name in FLAT else "[16,16,8]", *OPTIONS, "--no-report"]
    ran = call("run", "folder", "--data", root, "--study", study, *options, *size)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    predicted = call("predict", study, root / images, "--output", tmp_path / "out")
    assert predicted.returncode == 0, predicted.stderr
    masks = [*(tmp_path / "out").iterdir(), *study.glob("runs/dice/fold-*/seed-0/predictions/*")]
    assert len(masks) > 4
    for mask in masks:
        assert mask.name.endswith(ending)
        assert {*np.unique(read(mask))} <= values
    again = call("run", study, "--no-report")
    assert (again.returncode, again.stderr) == (0, "")
    reported = call("report", study)
    assert reported.returncode == 0, reported.stderr
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert "is not in the viewer" not in page
    assert "<b>Ü" not in page
    assert len(list((study / "report/viewer").glob("**/0*.js"))) == 4
    if name == "slices-of-patients":
        probable = call("predict", study, root / images, "--output", tmp_path / "maps", "--probabilities")
        assert probable.returncode == 0, probable.stderr
        maps = nibabel.load(tmp_path / "maps/t1_probabilities.nii.gz")
        np.testing.assert_allclose(maps.header.get_zooms()[:3], (0.5, 0.75, 2))
        assert (study / "report/tables/second_reader.csv").is_file()
    if name == "dicom-patients":
        refused = call("predict", study, root, "--output", tmp_path / "all")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 2  # the number of networks, and one sentence
        assert not (tmp_path / "all").exists()
