"""The layouts: which cases, classes and files they list, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from nifti_files import write_nifti

from voxloss.data.case import read_image, read_label
from voxloss.data.dataset import require_complete
from voxloss.data.formats import read_geometry
from voxloss.data.layouts import LAYOUTS, detect_layout, load_dataset
from voxloss.data.layouts.brats import MODALITIES
from voxloss.data.layouts.kits import PAPER_EXCLUDED
from voxloss.utilities.errors import InputError

SHAPE = (4, 5, 6)


def mask(*values: int) -> np.ndarray:
    """A mask with one voxel of each value."""
    array = np.zeros(SHAPE, np.uint8)
    array.flat[1 : 1 + len(values)] = values
    return array


def ids(dataset) -> list[str]:
    return [case.case_id for case in dataset.cases]


# Common


def test_layouts_are_detected_and_loaded_by_name(tmp_path):
    (tmp_path / "k" / "case_00001").mkdir(parents=True)
    (tmp_path / "b" / "BraTS20_Training_001").mkdir(parents=True)
    for name in ("d/imagesTr", "d/labelsTr", "f/images", "f/masks", "none"):
        (tmp_path / name).mkdir(parents=True)
    found = [detect_layout(tmp_path / name) for name in "kbdf"]
    assert found == ["kits19", "brats", "decathlon", "folder"]
    with pytest.raises(InputError, match="no known layout"):
        detect_layout(tmp_path / "none")
    with pytest.raises(InputError, match="does not exist"):
        detect_layout(tmp_path / "gone")
    assert ids(load_dataset("auto", tmp_path / "k")) == ["case_00001"]


def test_unknown_layouts_and_options_are_named(tmp_path):
    (tmp_path / "case_00001").mkdir()
    with pytest.raises(InputError, match="no layout 'kits20'"):
        load_dataset("kits20", tmp_path)
    with pytest.raises(InputError, match="kits19 has no option 'modalities'; it has classes, ignore"):
        load_dataset("kits19", tmp_path, modalities=("t1",))
    with pytest.raises(InputError, match=r"no case of .* is left: all 1"):
        load_dataset("kits19", tmp_path, exclude=["case_00001"])


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_folder_of_something_else_is_refused(tmp_path, layout):
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=str(root)):
            load_dataset(layout, root)


# KiTS19


def kits(root: Path, *names: str) -> Path:
    for name in names:
        write_nifti(root / name / "imaging.nii.gz", np.zeros(SHAPE, np.int16))
        write_nifti(root / name / "segmentation.nii.gz", mask(1, 2))
    return root


def test_kits_cases_in_order_with_exclusions(tmp_path):
    kits(tmp_path, "case_00023", "case_00002", "case_00011")
    (tmp_path / "case_2").mkdir()
    (tmp_path / "case_00099.txt").touch()
    dataset = load_dataset("kits19", tmp_path, exclude=PAPER_EXCLUDED)
    assert ids(dataset) == ["case_00002", "case_00011"]
    assert dataset.classes == ("background", "kidney", "tumour")
    assert dataset.label_values == {0: 0, 1: 1, 2: 2}
    assert dataset.dropped == (("case_00023", "excluded by the settings"),)
    require_complete(dataset)


def test_kits_lists_expected_files_and_uncompressed_ones(tmp_path):
    (tmp_path / "case_00001").mkdir()
    write_nifti(tmp_path / "case_00002" / "imaging.nii", np.zeros(SHAPE, np.int16))
    first, second = load_dataset("kits19", tmp_path).cases
    assert first.images == (tmp_path / "case_00001" / "imaging.nii.gz",)
    assert first.label == tmp_path / "case_00001" / "segmentation.nii.gz"
    assert second.images == (tmp_path / "case_00002" / "imaging.nii",)


def test_kits_test_cases_without_a_mask_are_dropped(tmp_path):
    kits(tmp_path, "case_00209", "case_00210", "case_00900")
    (tmp_path / "case_00210" / "segmentation.nii.gz").unlink()
    (tmp_path / "case_00209" / "segmentation.nii.gz").unlink()
    dataset = load_dataset("kits19", tmp_path)
    assert ids(dataset) == ["case_00209", "case_00900"]
    assert dataset.dropped == (("case_00210", "no mask: of the challenge's test set"),)


def test_the_real_kits_masks(real_data):
    dataset = load_dataset("kits19", real_data / "kits_masks", exclude=PAPER_EXCLUDED)
    assert len(dataset.cases) == 20
    assert [case_id for case_id, _ in dataset.dropped] == ["case_00015", "case_00023", "case_00037", "case_00068"]
    with pytest.raises(InputError, match=r"case_00030/imaging\.nii\.gz does not exist; 19 other files"):
        require_complete(dataset)
    wide = next(case for case in dataset.cases if case.case_id == "case_00160")
    assert read_label(wide, dataset.label_values)[0].shape == (252, 512, 796)


# BraTS20


def brats(root: Path, number: int, seg: np.ndarray, seg_name: str | None = None) -> Path:
    name = f"BraTS20_Training_{number:03d}"
    for position, modality in enumerate(MODALITIES):
        write_nifti(root / name / f"{name}_{modality}.nii.gz", np.full(SHAPE, position, np.int16))
    write_nifti(root / name / (seg_name or f"{name}_seg.nii.gz"), seg)
    return root


def test_brats_modalities_are_channels_in_the_order_asked_for(tmp_path):
    brats(tmp_path, 1, mask(1, 2, 4, 4))
    dataset = load_dataset("brats20", tmp_path, modalities=("flair", "t1ce"))
    image, _ = read_image(dataset.cases[0])
    assert image[:, 0, 0, 0].tolist() == [3, 1]
    assert dataset.classes == ("background", "enhancing tumour")
    label, _ = read_label(dataset.cases[0], dataset.label_values)
    assert label.ravel()[:6].tolist() == [0, 0, 0, 1, 1, 0]
    assert [path.name for path in load_dataset("brats20", tmp_path).cases[0].images] == [
        "BraTS20_Training_001_t1ce.nii.gz"
    ]


@pytest.mark.parametrize("modalities", [(), ("t1", "t1"), ("t1", "t1n"), ("adc",), "t1ce", 3, [["t1"]], None])
def test_brats_unknown_modalities_are_refused(tmp_path, modalities):
    brats(tmp_path, 1, mask(4))
    with pytest.raises(InputError, match="modalities should be some of t1, t1ce, t2, flair"):
        load_dataset("brats20", tmp_path, modalities=modalities)


def test_brats_case_355_is_found_by_its_only_extra_file(tmp_path):
    brats(tmp_path, 355, mask(4), "W39_1998.09.19_Segm.nii")
    (tmp_path / "BraTS20_Training_355" / "._W39_1998.09.19_Segm.nii").touch()
    (tmp_path / "BraTS20_Training_355" / "notes.txt").touch()
    case = load_dataset("brats20", tmp_path).cases[0]
    assert case.label is not None
    assert case.label.name == "W39_1998.09.19_Segm.nii"
    write_nifti(tmp_path / "BraTS20_Training_355" / "another.nii", mask(4))
    case = load_dataset("brats20", tmp_path).cases[0]
    assert case.label is not None
    assert case.label.name == "BraTS20_Training_355_seg.nii.gz"  # which of two is the mask is not guessed


def test_brats_other_releases_are_told_which_option_to_set(tmp_path):
    brats(tmp_path, 1, mask(1, 2, 3))
    dataset = load_dataset("brats20", tmp_path)
    with pytest.raises(InputError, match=r"holds the value 3, .*since 2023 .*set enhancing_label to 3"):
        read_label(dataset.cases[0], dataset.label_values, dataset.value_hints)
    with pytest.raises(InputError, match="set enhancing_label to 3"):
        load_dataset("brats20", tmp_path, require_enhancing=True)
    newer = load_dataset("brats20", tmp_path, enhancing_label=3, require_enhancing=True)
    assert newer.label_values == {0: 0, 1: 0, 2: 0, 3: 1}
    assert read_label(newer.cases[0], newer.label_values)[0].sum() == 1
    brats(tmp_path, 1, mask(4))
    with pytest.raises(InputError, match="set enhancing_label to 4"):
        load_dataset("brats20", tmp_path, enhancing_label=3, require_enhancing=True)
    with pytest.raises(InputError, match="enhancing_label should be 4, or 3"):
        load_dataset("brats20", tmp_path, enhancing_label=2)


def test_brats_cases_without_enhancing_tumour_are_dropped_by_option(tmp_path):
    brats(tmp_path, 1, mask(1, 2))
    brats(tmp_path, 2, mask(1, 4))
    brats(tmp_path, 3, mask())
    brats(tmp_path, 4, mask(4))
    (tmp_path / "BraTS20_Training_004" / "BraTS20_Training_004_seg.nii.gz").unlink()
    brats(tmp_path, 5, mask(4))
    (tmp_path / "BraTS20_Training_005" / "BraTS20_Training_005_seg.nii.gz").write_bytes(b"damaged")
    assert len(load_dataset("brats20", tmp_path).cases) == 5
    dataset = load_dataset("brats20", tmp_path, require_enhancing=True, exclude=["BraTS20_Training_002"])
    assert ids(dataset) == ["BraTS20_Training_004", "BraTS20_Training_005"]  # whoever reads these names the fault
    assert dict(dataset.dropped) == {
        "BraTS20_Training_001": "no enhancing tumour",
        "BraTS20_Training_002": "excluded by the settings",
        "BraTS20_Training_003": "no enhancing tumour",
    }


def test_the_real_brats_cases(real_data):
    dataset = load_dataset("auto", real_data / "brats", modalities=("t1ce", "flair"), require_enhancing=True)
    assert ids(dataset) == [f"BraTS20_Training_{number}" for number in (903, 904, 905, 906)]
    require_complete(dataset)
    voxels = [int(read_label(case, dataset.label_values)[0].sum()) for case in dataset.cases]
    assert voxels == [21250, 17816, 18354, 43379]  # data/brats/cases.csv
    image, geometry = read_image(dataset.cases[0])
    assert image.shape == (2, 240, 240, 155)
    assert geometry.spacing_mm == (1, 1, 1)
    assert image.max(axis=(1, 2, 3)).tolist() == [1393, 1072]


# The Decathlon


def decathlon_files(root: Path, *names: str, values: tuple[int, ...] = (1, 2)) -> Path:
    (root / "labelsTr").mkdir(parents=True, exist_ok=True)
    for name in names:
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", mask(*values))
    return root


def describe(root: Path, **content: object) -> None:
    (root / "dataset.json").write_text(json.dumps(content))


def test_decathlon_by_its_description(tmp_path):
    decathlon_files(tmp_path, "b", "a", "c")
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ba"]
    hidden = {"image": "./imagesTr/._a.nii.gz", "label": "./labelsTr/._a.nii.gz"}
    describe(
        tmp_path,
        name="Hippocampus",
        labels={"0": "background", "2": "Posterior", "1": "Anterior"},
        training=[*pairs, hidden],
    )
    dataset = load_dataset("decathlon", tmp_path)
    assert dataset.name == "Hippocampus"
    assert ids(dataset) == ["a", "b"]
    assert dict(zip(dataset.classes, dataset.label_values, strict=True)) == {
        "background": 0,
        "Posterior": 2,
        "Anterior": 1,
    }
    assert dataset.dropped == (("c", "not in the training list of dataset.json"),)
    require_complete(dataset)


def test_nnunet_descriptions_name_the_classes_the_other_way_round(tmp_path):
    decathlon_files(tmp_path)
    for name in ("a", "b"):
        for channel in range(2):
            write_nifti(tmp_path / "imagesTr" / f"{name}_000{channel}.nii.gz", np.full(SHAPE, channel, np.int16))
        write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", mask(1))
    describe(tmp_path, labels={"background": 0, "lesion": 1}, channel_names={"0": "T1", "1": "T2"}, numTraining=2)
    dataset = load_dataset("decathlon", tmp_path)
    assert dataset.classes == ("background", "lesion")
    assert ids(dataset) == ["a", "b"]
    assert read_image(dataset.cases[1])[0][:, 0, 0, 0].tolist() == [0, 1]


def test_decathlon_without_description(tmp_path):
    decathlon_files(tmp_path, "x", "y", values=(7, 3))
    write_nifti(tmp_path / "imagesTr" / "z.nii.gz", np.zeros(SHAPE, np.int16))
    write_nifti(tmp_path / "labelsTr" / "w.nii.gz", mask(3))
    (tmp_path / "imagesTr" / "._x.nii.gz").touch()
    dataset = load_dataset("decathlon", tmp_path)
    assert ids(dataset) == ["w", "x", "y"]
    assert dataset.classes == ("background", "class 3", "class 7")
    assert dataset.label_values == {0: 0, 3: 1, 7: 2}
    assert dataset.dropped == (("z", "no mask"),)
    with pytest.raises(InputError, match=r"imagesTr/w\.nii\.gz does not exist"):
        require_complete(dataset)
    named = load_dataset("decathlon", tmp_path, classes={"big": 7, "small": 3}, exclude=["w"])
    assert named.classes == ("background", "big", "small")
    assert named.label_values == {0: 0, 7: 1, 3: 2}
    assert ids(named) == ["x", "y"]


def test_four_dimensional_images_become_channels(tmp_path):
    decathlon_files(tmp_path, "a")
    write_nifti(
        tmp_path / "imagesTr" / "a.nii.gz", np.stack([np.full(SHAPE, value, np.int16) for value in (5, 6, 7)], -1)
    )
    image, _ = read_image(load_dataset("decathlon", tmp_path).cases[0])
    assert image.shape == (3, *SHAPE)
    assert image[:, 0, 0, 0].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"training": 3}',
        '{"training": ["a"]}',
        '{"labels": {"lesion": [1, "x"]}}',
        '{"labels": {"lesion": []}}',
        '{"labels": ["x"]}',
        '{"labels": {"0": "background"}}',
    ],
)
def test_a_description_at_fault_is_named(tmp_path, text):
    decathlon_files(tmp_path, "a")
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError):
        load_dataset("decathlon", tmp_path)


def test_the_real_hippocampus(real_data):
    dataset = load_dataset("auto", real_data / "hippocampus")
    assert len(dataset.cases) == 40
    assert dataset.dropped == (("hippocampus_118", "no mask"),)
    assert dataset.classes == ("background", "class 1", "class 2")
    require_complete(dataset)
    for case in dataset.cases:
        image, geometry = read_image(case)
        label, _ = read_label(case, dataset.label_values)
        assert image.shape == (1, *label.shape) == (1, *geometry.shape)
        assert set(np.unique(label)) == {0, 1, 2}


# One's own folder


def own_folder(root: Path, *names: str) -> Path:
    for name in names:
        write_nifti(root / "images" / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        write_nifti(root / "masks" / f"{name}.nii", mask(1))
    return root


def test_own_folder_pairs_by_name(tmp_path):
    own_folder(tmp_path / "lesions", "scan_0001", "scan_0002", "b.c")
    (tmp_path / "lesions" / "images" / ".DS_Store").touch()
    (tmp_path / "lesions" / "images" / "readme.txt").touch()
    dataset = load_dataset("folder", tmp_path / "lesions")
    assert dataset.name == "lesions"
    assert ids(dataset) == ["b.c", "scan_0001", "scan_0002"]  # the number is part of the name, since the masks have it
    assert dataset.classes == ("background", "class 1")
    assert load_dataset("folder", tmp_path / "lesions", classes={"lesion": 1}, exclude=["b.c"]).classes == (
        "background",
        "lesion",
    )
    require_complete(dataset)


def test_own_folder_with_numbered_channels(tmp_path):
    for name in ("a", "b"):
        for channel in (1, 0):
            write_nifti(tmp_path / "images" / f"{name}_000{channel}.nii", np.full(SHAPE, channel, np.int16))
        write_nifti(tmp_path / "masks" / f"{name}.nii.gz", mask(1))
    assert read_image(load_dataset("folder", tmp_path).cases[0])[0][:, 0, 0, 0].tolist() == [0, 1]
    (tmp_path / "images" / "b_0001.nii").unlink()
    with pytest.raises(InputError, match=r"case b .* lacks the image '0001', which most cases have"):
        load_dataset("folder", tmp_path)
    write_nifti(tmp_path / "images" / "b_0002.nii", mask())
    with pytest.raises(InputError, match=r"b_0000\.nii, b_0002\.nii for one case; channels count from 0000"):
        load_dataset("folder", tmp_path)
    (tmp_path / "images" / "b_0002.nii").unlink()
    write_nifti(tmp_path / "images" / "b.nii", mask())
    with pytest.raises(InputError, match=r"b\.nii, b_0000\.nii for one case"):
        load_dataset("folder", tmp_path)


def test_own_folder_names_what_has_no_partner(tmp_path):
    own_folder(tmp_path, "a")
    extra = write_nifti(tmp_path / "images" / "alone.nii", mask())
    with pytest.raises(InputError, match=r"images/alone\.nii has no mask"):
        load_dataset("folder", tmp_path)
    extra.rename(tmp_path / "masks" / "alone.nii")
    with pytest.raises(InputError, match=r"masks/alone\.nii has no image"):
        load_dataset("folder", tmp_path)
    (tmp_path / "masks" / "alone.nii").rename(tmp_path / "masks" / "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii\.gz and a\.nii have the same name"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    "classes",
    [{"x": 0}, {"x": -1}, {"x": 1, "y": 1}, {"x": 1.5}, {"x": "1"}, {"background": 1, "x": 2}, {"background": 0}],
)
def test_declared_classes_at_fault_are_refused(tmp_path, classes):
    own_folder(tmp_path, "a")
    with pytest.raises(InputError):
        load_dataset("folder", tmp_path, classes=classes)


def test_classes_are_found_although_one_mask_is_damaged(tmp_path):
    own_folder(tmp_path, "a", "b")
    (tmp_path / "masks" / "a.nii").write_bytes(b"damaged")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.classes == ("background", "class 1")
    with pytest.raises(InputError, match=r"a\.nii"):
        read_label(dataset.cases[0], dataset.label_values)


def test_images_given_as_masks_are_noticed(tmp_path):
    own_folder(tmp_path, "a")
    write_nifti(tmp_path / "masks" / "a.nii", np.arange(-60, 60).reshape(SHAPE).astype(np.int16))
    with pytest.raises(InputError, match="119 values from -60 to 59, which look like grey values"):
        load_dataset("folder", tmp_path)
    stray = mask(1).astype(np.int16)
    stray[-1, -1, -1] = -1
    write_nifti(tmp_path / "masks" / "a.nii", stray)
    with pytest.raises(InputError, match=r"a\.nii holds the value -1; the values of a mask lie in 0 to 65535"):
        load_dataset("folder", tmp_path)
    write_nifti(tmp_path / "masks" / "a.nii", mask())
    with pytest.raises(InputError, match="holds a value other than 0"):
        load_dataset("folder", tmp_path)


def test_swapped_folders_are_noticed(tmp_path):
    grey = np.linspace(-1, 1, 120).reshape(SHAPE).astype(np.float32)
    for name in "ab":
        write_nifti(tmp_path / "images" / f"{name}.nii", mask(1, 2))
        write_nifti(tmp_path / "masks" / f"{name}.nii", grey)
    with pytest.raises(InputError, match=r"a\.nii holds the value -0\.\d+, .* images and masks seem to be swapped"):
        load_dataset("folder", tmp_path)
    for name in "ab":
        write_nifti(tmp_path / "masks" / f"{name}.nii", (grey * 1000).astype(np.int16))
    with pytest.raises(InputError, match="images and masks seem to be swapped"):
        load_dataset("folder", tmp_path)


def test_the_fault_of_masks_that_are_all_wrong_is_named(tmp_path):
    own_folder(tmp_path, "a", "b")
    for name in "ab":
        write_nifti(tmp_path / "masks" / f"{name}.nii", mask(1).astype(np.float32) * 0.9882)
    with pytest.raises(InputError, match=r"a\.nii holds the value 0\.9882, but the values of a mask are whole") as told:
        load_dataset("folder", tmp_path)
    assert "swapped" not in str(told.value)


def test_a_file_without_permission_is_named_as_such(tmp_path, monkeypatch):
    own_folder(tmp_path, "a")

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.nii cannot be read \(Permission denied\)"):
        read_geometry(tmp_path / "masks" / "a.nii")


def test_foreign_real_images_as_a_folder(tmp_path, real_data):
    pairs = {
        name: (f"tumour_rois/{name}_image.nii.gz", f"tumour_rois/{name}_label.nii.gz")
        for name in ("brain1", "brain2", "breast1")
    }
    pairs["patient19"] = ("ms_lesions/patient19/flair.nii.gz", "ms_lesions/patient19/lesions.nii.gz")
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name, (image, label) in pairs.items():
        (tmp_path / "images" / f"{name}.nii.gz").symlink_to(real_data / image)
        (tmp_path / "masks" / f"{name}.nii.gz").symlink_to(real_data / label)
    dataset = load_dataset("auto", tmp_path)
    assert ids(dataset) == ["brain1", "brain2", "breast1", "patient19"]
    assert dataset.label_values == {0: 0, 1: 1}
    for case in dataset.cases:
        image, geometry = read_image(case)
        label, _ = read_label(case, dataset.label_values)
        assert image.shape[1:] == label.shape == geometry.shape
        assert 0.0002 < label.mean() < 0.01


def test_float_labels_of_brats_2013_as_a_folder(tmp_path, real_data):
    source = real_data / "brats2013_original_bytes" / "brats_2013_pat0005_1"
    for part, name in (("images", "T1c_subtrMeanDivStd.nii.gz"), ("masks", "OTMultiClass.nii.gz")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "pat0005.nii.gz").symlink_to(source / name)
    dataset = load_dataset("folder", tmp_path)
    assert dataset.classes == ("background", "class 1", "class 2", "class 3", "class 4")
    assert np.bincount(read_label(dataset.cases[0], dataset.label_values)[0].ravel()).tolist()[3:] == [3882, 18354]
