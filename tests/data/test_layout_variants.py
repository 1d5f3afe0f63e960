"""Data sets as people have them: every layout is recognised, its files are paired right, and mistakes are named."""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from nifti_files import write_nifti

from voxloss.config.schema import LayoutName
from voxloss.data.case import read_image, read_label
from voxloss.data.dataset import Dataset, require_complete
from voxloss.data.layouts import LAYOUTS, OTHER_NAMES, detect_layout, load_dataset
from voxloss.data.layouts.names import assign, owner, without_common_words
from voxloss.utilities.errors import InputError

SHAPE = (4, 5, 6)


def volume(path: Path, number: int, channel: int = 0) -> None:
    """An image that says of which case and channel it is, so that a wrong pair is seen."""
    write_nifti(path, np.full(SHAPE, 10 * number + channel, np.int16))


def mask(path: Path, number: int, *values: int) -> None:
    """A mask with `number` voxels of value 1 and one of each further value."""
    array = np.zeros(SHAPE, np.uint8)
    array.flat[:number] = 1
    array.flat[50 : 50 + len(values)] = values
    write_nifti(path, array)


def assert_pairs(dataset: Dataset, channels: int = 1, index: int = 1) -> None:
    """Every case has its own channels, in order, and its own mask, by their content."""
    require_complete(dataset)
    for case in dataset.cases:
        image, _ = read_image(case)
        label, _ = read_label(case, dataset.label_values)
        number = int((label == index).sum())
        assert image[:, 0, 0, 0].tolist() == [10 * number + channel for channel in range(channels)], case


def ids(dataset: Dataset) -> list[str]:
    return [case.case_id for case in dataset.cases]


def clutter(root: Path) -> None:
    """What else lies in folders of data."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        (folder / ".DS_Store").touch()
        (folder / "README.md").write_text("read me")
        for path in list(folder.glob("*.nii*")):
            (folder / f"._{path.name}").touch()
    (root / ".hidden").mkdir(exist_ok=True)


# The forms, with which layout they are and how many channels they have

FORMS = {
    "images, masks": ("folder", ["images/{}"], "masks/{}"),
    "images, labels": ("folder", ["images/{}"], "labels/{}"),
    "Images, Labels": ("folder", ["Images/{}"], "Labels/{}"),
    "img, seg": ("folder", ["img/{}"], "seg/{}"),
    "IMAGE, MASK": ("folder", ["IMAGE/{}"], "MASK/{}"),
    "numbered": ("folder", ["images/{}_0000", "images/{}_0001"], "labels/{}"),
    "suffixes in two folders": ("folder", ["images/{}_image"], "masks/{}_mask"),
    "prefixes in two folders": ("folder", ["images/img_{}"], "masks/lab_{}"),
    "channels by word": ("folder", ["images/{}_flair", "images/{}_t1"], "labels/{}"),
    "channels and a suffix": ("folder", ["images/{}_flair", "images/{}_t1"], "labels/{}_seg"),
    "like DRIVE": ("folder", ["images/{}_training"], "1st_manual/{}_manual1"),
    "beside each other": ("pairs", ["{}_image"], "{}_label"),
    "beside, capitals": ("pairs", ["{}_Image"], "{}_LABEL"),
    "beside, two channels": ("pairs", ["{}_ct", "{}_pet"], "{}_seg"),
    "beside, plain image": ("pairs", ["{}"], "{}_mask"),
    "beside, prefixes": ("pairs", ["image_{}"], "mask_{}"),
    "beside, all are lesions": ("pairs", ["lesion_{}_image"], "lesion_{}_label"),
    "patients": ("patients", ["{}/flair"], "{}/lesions"),
    "patients, two channels": ("patients", ["{}/{}_FLAIR", "{}/{}_T1"], "{}/{}_Seg"),
    "patients and scans": ("patients", ["{}/day1/t1"], "{}/day1/mask"),
    "patients, capitals": ("patients", ["{}/CT"], "{}/GT"),
    "KiTS19": ("kits19", ["case_0000{n}/imaging"], "case_0000{n}/segmentation"),
    "KiTS21": ("kits21", ["case_0000{n}/imaging"], "case_0000{n}/aggregated_MAJ_seg"),
    "BraTS20": ("brats", ["BraTS20_Training_00{n}/BraTS20_Training_00{n}_t1ce"],
                "BraTS20_Training_00{n}/BraTS20_Training_00{n}_seg"),
    "BraTS19": ("brats", ["HGG/BraTS19_CBICA_{}_1/BraTS19_CBICA_{}_1_t1ce"],
                "HGG/BraTS19_CBICA_{}_1/BraTS19_CBICA_{}_1_seg"),
    "BraTS21": ("brats", ["BraTS2021_0000{n}/BraTS2021_0000{n}_t1ce"], "BraTS2021_0000{n}/BraTS2021_0000{n}_seg"),
    "BraTS23": ("brats", ["BraTS-GLI-0000{n}-000/BraTS-GLI-0000{n}-000-t1c"],
                "BraTS-GLI-0000{n}-000/BraTS-GLI-0000{n}-000-seg"),
    "nnU-Net": ("decathlon", ["imagesTr/{}_0000", "imagesTr/{}_0001"], "labelsTr/{}"),
    "Decathlon": ("decathlon", ["imagesTr/{}"], "labelsTr/{}"),
    "BIDS": ("bids", ["sub-{n}/anat/sub-{n}_FLAIR", "sub-{n}/anat/sub-{n}_T1w"],
             "derivatives/manual/sub-{n}/anat/sub-{n}_label-lesion_mask"),
    "BIDS, sessions": ("bids", ["sub-{n}/ses-1/anat/sub-{n}_ses-1_T1w"],
                       "derivatives/sub-{n}/ses-1/anat/sub-{n}_ses-1_dseg"),
    "BIDS, as ISLES": ("bids", ["sub-{n}/ses-1/dwi/sub-{n}_ses-1_adc", "sub-{n}/ses-1/dwi/sub-{n}_ses-1_dwi"],
                       "derivatives/sub-{n}/ses-1/sub-{n}_ses-1_msk"),
    "BIDS, all derived": ("bids", ["derivatives/x/sub-{n}/anat/sub-{n}_space-MNI_T1w"],
                          "derivatives/x/sub-{n}/anat/sub-{n}_space-MNI_desc-T1lesion_mask"),
}  # fmt: skip
NAMES = ("b", "c 1", "Ä-3")


def write_form(root: Path, form: str, names: tuple[str, ...] = NAMES, ending: str = ".nii.gz") -> str:
    layout, images, label = FORMS[form]
    for number, name in enumerate(names, start=1):
        value = {"BraTS20": 4, "BraTS19": 4, "BraTS21": 4, "BraTS23": 3}.get(form, 1)
        for channel, image in enumerate(images):
            volume(root / (image.format(name, name, n=number) + ending), number, channel)
        array = np.zeros(SHAPE, np.uint8)
        array.flat[:number] = value
        write_nifti(root / (label.format(name, name, n=number) + ending), array)
    return layout


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised_and_paired(tmp_path, form):
    layout = write_form(tmp_path, form)
    clutter(tmp_path)
    assert detect_layout(tmp_path) == layout
    dataset = load_dataset("auto", tmp_path)
    assert len(dataset.cases) == 3
    assert_pairs(dataset, len(FORMS[form][1]))
    again = load_dataset("auto", tmp_path, exclude=[dataset.cases[1].case_id])
    assert ids(again) == [ids(dataset)[0], ids(dataset)[2]]
    assert_pairs(again, len(FORMS[form][1]))


@pytest.mark.parametrize("form", FORMS)
def test_endings_in_capitals_and_links_are_files_like_others(tmp_path, form):
    layout = write_form(tmp_path / "true", form, ("b", "c"), ".NII.GZ")
    for path in (tmp_path / "true").rglob("*.NII.GZ"):
        link = tmp_path / "linked" / path.relative_to(tmp_path / "true")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert detect_layout(tmp_path / "linked") == layout
    assert_pairs(load_dataset("auto", tmp_path / "linked"), len(FORMS[form][1]))


@pytest.mark.parametrize("form", [form for form in FORMS if "{}" in FORMS[form][2]])
def test_a_mask_without_an_image_is_named_unless_it_is_left_out(tmp_path, form):
    write_form(tmp_path, form, ("b", "c", "d"))
    for image in FORMS[form][1]:
        (tmp_path / (image.format("c", "c", n=2) + ".nii.gz")).unlink()
    try:
        dataset = load_dataset("auto", tmp_path)
    except InputError as error:
        assert re.search("has no image|has no file named like a mask", str(error))
        known = {"patients and scans": "c_day1", "beside, all are lesions": "lesion_c"}
        assert_pairs(load_dataset("auto", tmp_path, exclude=[known.get(form, "c")]), len(FORMS[form][1]))
    else:  # listed with the file that it should have, which `check`, `plan` and `run` say is missing
        with pytest.raises(InputError, match="does not exist"):
            require_complete(dataset)


@pytest.mark.parametrize("form", [form for form in FORMS if len(FORMS[form][1]) == 2])
def test_a_channel_that_one_case_lacks_is_named(tmp_path, form):
    write_form(tmp_path, form, ("b", "c", "d"))
    (tmp_path / (FORMS[form][1][1].format("c", "c", n=2) + ".nii.gz")).unlink()
    with pytest.raises(InputError, match=r"case (c|sub-2|sub-2_ses-1) \(.*\) lacks the image '.*', which most cases"):
        load_dataset("auto", tmp_path)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("patients", "the image is flair, and the mask is lesions"),
        ("patients, two channels", "the channels are flair, t1, and the mask is seg"),
        ("patients and scans", "the image is t1, and the mask is mask"),
    ],
)
def test_a_folder_for_each_patient_says_which_file_is_what(tmp_path, form, said):
    write_form(tmp_path, form)
    assert load_dataset("auto", tmp_path).notes == (f"by the files' names, {said}",)


def test_the_configuration_has_every_layout():
    assert {*LayoutName.__args__} == {"auto", *LAYOUTS, *OTHER_NAMES}


# Names


def test_names_are_paired_by_the_strictest_way_that_fits():
    def pairs(images, masks):
        return {name: one[0] for name, one in assign({name: Path(name) for name in images}, masks)[0].items()}

    assert pairs(["scan", "scan_0001"], ["scan", "scan_0001"]) == {"scan": "scan", "scan_0001": "scan_0001"}
    assert pairs(["a_0000", "a_0001", "b_0000"], ["a", "b"]) == {"a_0000": "a", "a_0001": "a", "b_0000": "b"}
    assert pairs(["a", "a_extra"], ["a"]) == {"a": "a"}  # no further channel, since the name itself is there
    assert pairs(["1_t1", "12_t1"], ["1", "12"]) == {"1_t1": "1", "12_t1": "12"}
    assert pairs(["a_1_t1", "a_t1"], ["a", "a_1"]) == {"a_1_t1": "a_1", "a_t1": "a"}
    assert pairs(["CASE1"], ["case1"]) == {"CASE1": "case1"}
    assert pairs(["x"], ["y"]) == {}
    assert pairs(["x"], []) == {}
    assert without_common_words(["p_1_seg", "p_2_seg"]) == {"p_1_seg": "1", "p_2_seg": "2"}
    assert without_common_words(["7_seg"]) == {"7_seg": "7"}
    assert without_common_words(["seg", "seg_2"]) == {"seg": "seg", "seg_2": "seg_2"}


def test_a_region_belongs_to_the_longest_id_in_its_path():
    assert owner("21_training_mask", ["2", "21", "22"]) == "21"
    assert owner("case_00001/roi", ["case_00001", "case_00002"]) == "case_00001"
    assert owner("p1/day1/roi", ["p1_day1", "p1_day2"]) == "p1_day1"
    assert owner("other", ["a"]) is None
    with pytest.raises(InputError, match="may belong to the case a or b"):
        owner("a_b_roi", ["a", "b"])


def test_decomposed_names_are_those_of_composed_ones(tmp_path):
    volume(tmp_path / "images" / (unicodedata.normalize("NFC", "Björn") + ".nii"), 1)
    mask(tmp_path / "masks" / (unicodedata.normalize("NFD", "Björn") + ".nii"), 1)
    dataset = load_dataset("auto", tmp_path, exclude=[])
    assert ids(dataset) == [unicodedata.normalize("NFC", "Björn")]
    assert_pairs(dataset)


def test_two_files_of_one_name_are_refused(tmp_path):
    write_form(tmp_path, "beside each other")
    volume(tmp_path / "b_image.nii", 1)
    with pytest.raises(InputError, match=r"b_image\.nii(\.gz)? and b_image\.nii(\.gz)? have the same name"):
        load_dataset("pairs", tmp_path)
    (tmp_path / "b_image.nii").rename(tmp_path / "b_mask.nii")
    with pytest.raises(InputError, match="may both be the mask of b; name one by patterns"):
        load_dataset("auto", tmp_path)


@pytest.mark.parametrize(
    ("form", "further"),
    [
        ("channels by word", "images/b-t1"),
        ("beside, two channels", "b-pet"),
        ("patients, two channels", "b/T1_b"),
        ("BIDS, all derived", "derivatives/y/sub-1/anat/sub-1_space-MNI_T1w"),
    ],
)
def test_two_images_for_one_channel_are_refused(tmp_path, form, further):
    write_form(tmp_path, form)
    volume(tmp_path / f"{further}.nii.gz", 1, 1)
    with pytest.raises(InputError, match=r"may both be the image '.*' of one case; name the files by patterns"):
        load_dataset("auto", tmp_path)


def test_folders_that_both_may_hold_the_masks_are_chosen_by_option(tmp_path):
    write_form(tmp_path, "images, masks")
    for number, name in enumerate(NAMES, start=1):
        mask(tmp_path / "labels" / f"{name}.nii.gz", number + 1)
    with pytest.raises(InputError, match=r"has labels and masks, any of which may hold the masks; .*\{masks: labels\}"):
        load_dataset("auto", tmp_path)
    assert_pairs(load_dataset("auto", tmp_path, masks="masks"))
    with pytest.raises(InputError, match=r"names 'gone', but .* has no such folder"):
        load_dataset("auto", tmp_path, masks="gone")
    (tmp_path / "masks").rename(tmp_path / "drawn")
    (tmp_path / "images").rename(tmp_path / "scanned")
    assert_pairs(load_dataset("auto", tmp_path, images="scanned", masks="drawn"))


def test_names_of_structures_in_two_folders_make_no_patients_of_them(tmp_path):
    write_form(tmp_path, "images, masks", ("lesion_1", "control_1", "lesion_2"))
    assert_pairs(load_dataset("auto", tmp_path))


def test_files_of_other_formats_are_told(tmp_path):
    write_form(tmp_path, "images, labels")
    (tmp_path / "images" / "d.xyz").touch()
    (tmp_path / "labels" / "d.xyz").touch()
    notes = load_dataset("auto", tmp_path).notes
    assert [note.split(" of other formats")[0].split(" in ")[0] for note in notes] == ["1 file", "1 file"]
    assert all(".xyz" in note for note in notes)


# Patterns


@pytest.mark.parametrize(
    ("images", "label", "patterns"),
    [
        (["{}_t1", "{}_t2"], "{}_x", (["*_t1.nii.gz", "*_t2.nii.gz"], "*_x.nii.gz")),
        (["{}_t1", "{}_t2"], "{}_x", (["*_t1", "*_t2"], "*_x")),
        (["{}/a_t1", "{}/a_t2"], "{}/a_x", (["*_t1.nii.gz", "*_t2.nii.gz"], "*_x.nii.gz")),
        (["{}/t1", "{}/t2"], "{}/x", (["*/t1.nii.gz", "*/t2.nii.gz"], "*/x.nii.gz")),
        (["{}/t1", "{}/t2"], "{}/x", (["t1.nii.gz", "t2.nii.gz"], "x.nii.gz")),
        (["a/{}_1", "b/{}_2"], "c/{}", (["a/*_1.nii.gz", "b/*_2.nii.gz"], "c/*.nii.gz")),
        (["a/{}/{}_1", "a/{}/{}_2"], "c/{}/{}", (["a/*/*_1.nii.gz", "a/*/*_2.nii.gz"], "c/*/*.nii.gz")),
        (["a/b/{}_1", "a/b/{}_2"], "c/{}", (["**/*_1.nii.gz", "**/*_2.nii.gz"], "c/*.nii.gz")),
    ],
)
def test_patterns_pair_files_anywhere(tmp_path, images, label, patterns):
    for number, name in enumerate(NAMES, start=1):
        for channel, image in enumerate(images):
            volume(tmp_path / f"{image.format(name, name)}.nii.gz", number, channel)
        mask(tmp_path / f"{label.format(name, name)}.nii.gz", number)
    dataset = load_dataset("auto", tmp_path, image=patterns[0], label=patterns[1])
    assert len(dataset.cases) == 3
    assert_pairs(dataset, 2)
    reverse = load_dataset("auto", tmp_path, image=patterns[0][::-1], label=patterns[1])
    assert read_image(reverse.cases[0])[0][:, 0, 0, 0].tolist()[0] % 10 == 1  # channels in the order of the patterns


def test_patterns_at_fault_are_named(tmp_path):
    write_form(tmp_path, "beside each other")
    for options, told in (
        ({"image": "*_image"}, "data.options.image needs data.options.label too"),
        ({"image": "*_t9", "label": "*_label"}, r"no image file .* like data.options.image '\*_t9'; there are b_image"),
        ({"image": "*_image", "label": "*_x"}, r"like data.options.label '\*_x'; there are b_image\.nii\.gz"),
        ({"image": 3, "label": "*"}, "should be text"),
        ({"image": "*_image", "label": ""}, "should be text"),
    ):
        with pytest.raises(InputError, match=told):
            load_dataset("auto", tmp_path, **options)
    with pytest.raises(InputError, match=r"there are|no layout has the option 'imgae'; the options of all layouts are"):
        load_dataset("auto", tmp_path, imgae="x")


# The message about a folder that is not understood


def test_the_message_counts_names_and_gives_three_ways(tmp_path):
    for number in range(4):
        volume(tmp_path / f"p{number}" / "a_flair.nii.gz", number)
        mask(tmp_path / f"p{number}" / "a_drawn.nii.gz", number)
    with pytest.raises(InputError) as told:
        detect_layout(tmp_path)
    text = str(told.value)
    assert "It holds 4 × pN/a_drawn.nii.gz, 4 × pN/a_flair.nii.gz. The nearest ways: " in text
    patterns = '{image: "*/*_drawn.nii.gz", label: "*/*_flair.nii.gz"}'
    assert (
        f"(1) name images and masks by patterns: --data.options '{patterns}', or the other way round; (2) put" in text
    )
    assert "(3) list them in a CSV table with the columns image and mask" in text
    assert "(4)" not in text


def test_the_message_does_not_follow_links_round(tmp_path):
    for number in range(4):
        volume(tmp_path / "scanned" / f"{number}.nii", number)
        mask(tmp_path / "drawn" / f"{number}.nii", number)
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(InputError) as told:
        detect_layout(tmp_path)
    assert "It holds 4 × drawn/N.nii, 4 × scanned/N.nii. The nearest" in str(told.value)
    assert "(1) say what the folders hold: --data.options '{images: drawn, masks: scanned}'; (2) put" in str(told.value)


def test_masks_without_images_suggest_no_patterns_of_single_names(tmp_path):
    for name in "abc":
        volume(tmp_path / "images" / f"{name}.nii", 1)
    with pytest.raises(InputError, match=r"\(1\) put images into images/ .*; \(2\) put masks beside .*; \(3\) list"):
        detect_layout(tmp_path)


def test_images_in_folders_of_folders_are_named_by_patterns(tmp_path):
    for number, name in enumerate(("train/a", "train/b", "val/a"), start=1):
        volume(tmp_path / "images" / f"{name}.nii", number)
        mask(tmp_path / "labels" / f"{name}.nii", number)
    with pytest.raises(InputError, match=r"images holds no images .* but in its folders \(train, val\); name them by"):
        load_dataset("auto", tmp_path)
    dataset = load_dataset("auto", tmp_path, image="images/*/*", label="labels/*/*")
    assert ids(dataset) == ["train_a", "train_b", "val_a"]
    assert_pairs(dataset)


def test_folders_that_are_not_read_are_told(tmp_path):
    write_form(tmp_path, "images, masks")
    mask(tmp_path / "predicted" / "b.nii", 1)
    notes = load_dataset("auto", tmp_path).notes
    assert notes == ("images are those in images and masks those in masks, none in predicted",)


def test_the_message_points_at_a_folder_inside(tmp_path):
    write_form(tmp_path / "train", "images, masks")
    with pytest.raises(InputError, match=r"\(1\) give .*/train as the data \(layout folder\)"):
        detect_layout(tmp_path)
    for name, told in (("empty", "It holds no files"), ("text", "It holds a.txt")):
        (tmp_path / name).mkdir()
        if name == "text":
            (tmp_path / name / "a.txt").touch()
        with pytest.raises(InputError, match=told):
            detect_layout(tmp_path / name)
    (tmp_path / "a.nii").touch()
    with pytest.raises(InputError, match="a file should be a CSV table"):
        detect_layout(tmp_path / "a.nii")


def test_a_folder_with_two_layouts_asks_which(tmp_path):
    write_form(tmp_path, "images, masks")
    write_form(tmp_path, "beside each other")
    with pytest.raises(InputError, match=r"folder or pairs: it holds .* Choose one: \(1\) data.layout folder; \(2\)"):
        detect_layout(tmp_path)
    assert_pairs(load_dataset("pairs", tmp_path))


# KiTS and BraTS


def test_kits23_is_told_from_kits19_by_a_cyst_or_a_new_number(tmp_path):
    write_form(tmp_path, "KiTS19")
    assert detect_layout(tmp_path) == "kits19"
    mask(tmp_path / "case_00002" / "segmentation.nii.gz", 2, 3)
    dataset = load_dataset("auto", tmp_path)
    assert (dataset.name, dataset.classes) == ("kits23", ("background", "kidney", "tumour", "cyst"))
    nineteen = load_dataset("kits19", tmp_path)
    with pytest.raises(InputError, match=r"value 3, .*set data.layout to kits21 or kits23"):
        read_label(nineteen.cases[1], nineteen.label_values, nineteen.value_hints)
    write_form(tmp_path / "new", "KiTS19")
    (tmp_path / "new" / "case_00002").rename(tmp_path / "new" / "case_00411")
    assert detect_layout(tmp_path / "new") == "kits23"


def test_kits21_takes_the_majority_or_another_aggregation(tmp_path):
    write_form(tmp_path, "KiTS21")
    for number in range(1, 4):
        mask(tmp_path / f"case_0000{number}" / "aggregated_OR_seg.nii.gz", 20)
    assert_pairs(load_dataset("auto", tmp_path))
    label, _ = read_label(load_dataset("auto", tmp_path, aggregation="OR").cases[0], {0: 0, 1: 1})
    assert label.sum() == 20
    with pytest.raises(InputError, match="aggregation should be one of MAJ, AND, OR, but is 'XOR'"):
        load_dataset("auto", tmp_path, aggregation="XOR")


def test_brats_releases_have_their_own_value_and_names(tmp_path):
    write_form(tmp_path / "23", "BraTS23")
    dataset = load_dataset("auto", tmp_path / "23", modalities=["t1ce"])
    assert dataset.name == "brats-gli"
    assert dataset.label_values == {0: 0, 1: 0, 2: 0, 3: 1, 4: 0}
    assert load_dataset("auto", tmp_path / "23", modalities=["t1c"]) == dataset
    assert dataset.patients == {}
    again = tmp_path / "23" / "BraTS-GLI-00001-001"
    (tmp_path / "23" / "BraTS-GLI-00002-000").rename(again)
    for path in list(again.iterdir()):
        path.rename(again / path.name.replace("00002-000", "00001-001"))
    dataset = load_dataset("auto", tmp_path / "23")
    assert dataset.patients == {
        "BraTS-GLI-00001-000": "00001", "BraTS-GLI-00001-001": "00001", "BraTS-GLI-00003-000": "00003"
    }  # fmt: skip
    write_form(tmp_path / "23", "BraTS20")
    with pytest.raises(InputError, match="BraTS-GLI-00001-000 and BraTS20_Training_001 are of releases that write"):
        load_dataset("auto", tmp_path / "23")
    (tmp_path / "ped" / "BraTS-PED-00001-000").mkdir(parents=True)
    with pytest.raises(InputError, match="paediatric scan, in which the enhancing tumour is 3 in the release of 2023"):
        load_dataset("auto", tmp_path / "ped")
    write_form(tmp_path / "19", "BraTS19")
    (tmp_path / "19" / "LGG").mkdir()
    (tmp_path / "19" / "HGG" / "BraTS19_CBICA_b_1").rename(tmp_path / "19" / "LGG" / "BraTS19_CBICA_b_1")
    assert len(load_dataset("auto", tmp_path / "19").cases) == 3


# nnU-Net


def nnunet(root: Path, **content: object) -> Path:
    write_form(root, "nnU-Net", ("a", "b", "c"))
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
        {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"},
        {"image": ".\\imagesTr\\a.nii.gz", "label": ".\\labelsTr\\a.nii.gz"},
        {"image": "imagesTr/a", "label": "labelsTr/a"},
        {"image": "imagesTr/a.NII.GZ", "label": "labelsTr/a.nii"},
    ],
)
def test_a_training_list_is_understood_however_it_is_written(tmp_path, entry):
    training = [
        {key: text.replace("/a", f"/{name}").replace("\\a", f"\\{name}") for key, text in entry.items()}
        for name in "abc"
    ]
    nnunet(tmp_path, labels={"0": "background", "1": "x"}, training=training)
    dataset = load_dataset("auto", tmp_path)
    assert ids(dataset) == ["a", "b", "c"]
    assert_pairs(dataset, 2)


def test_a_description_with_a_byte_order_mark_is_read(tmp_path):
    nnunet(tmp_path, labels={"background": 0, "x": 1}, file_ending=".nii.gz")
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert load_dataset("auto", tmp_path).classes == ("background", "x")


def test_an_ending_that_is_not_read_is_named(tmp_path):
    nnunet(tmp_path, labels={"background": 0, "x": 1}, file_ending=".xyz")
    with pytest.raises(InputError, match=r"has the file_ending '\.xyz', which voxloss does not read"):
        load_dataset("auto", tmp_path)
    nnunet(tmp_path, labels={"background": 0, "x": 1}, file_ending=".nii.gz")
    volume(tmp_path / "imagesTr" / "a_0000.nii", 9)  # nnU-Net passes over it
    assert_pairs(load_dataset("auto", tmp_path), 2)
    nnunet(tmp_path, labels={"background": 0, "x": 1}, file_ending=".nii")
    with pytest.raises(InputError, match=r"holds no \.nii file with a mask"):
        load_dataset("auto", tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "1": 1}, {"1": [1]}),
        ({"0": "background", "1": "1"}, {"1": [1]}),
        ({"0": "background", "1": "x", "2": "x"}, {"x": [1, 2]}),
        ({"background": 0, "x": [1, 2], "ignore": 3}, {"x": [1, 2]}),
        ({"background": 0, "x": "1"}, {"x": [1]}),
    ],
)
def test_labels_of_every_form(tmp_path, labels, classes):
    dataset = load_dataset("auto", nnunet(tmp_path, labels=labels))
    assert dataset.classes == ("background", *classes)
    assert [value for value, index in dataset.label_values.items() if index == 1] == classes[dataset.classes[1]]
    merged = [note for note in dataset.notes if "one class" in note]
    assert merged == (["dataset.json calls the values 1 and 2 x, so they are one class"] if "2" in labels else [])


def test_nnunet_maps_cases_to_files_anywhere(tmp_path):
    for number, name in enumerate("ab", start=1):
        for channel in range(2):
            volume(tmp_path / "x" / f"{name}{channel}.nii.gz", number, channel)
        mask(tmp_path / "y" / f"{name}.nii.gz", number)
    cases = {n: {"images": [f"x/{n}0.nii.gz", f"x/{n}1.nii.gz"], "label": f"y/{n}.nii.gz"} for n in "ab"}
    for content in ({"dataset": cases, "labels": {"background": 0, "x": 1}}, {"dataset": cases}):
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        assert detect_layout(tmp_path) == "decathlon"
        assert_pairs(load_dataset("auto", tmp_path), 2)
    for wrong in (3, {"a": 3}, {"a": {"images": "x", "label": "y"}}, {"a": {"images": []}}):
        (tmp_path / "dataset.json").write_text(json.dumps({"dataset": wrong}))
        with pytest.raises(InputError, match=r"dataset\.json"):
            load_dataset("auto", tmp_path)


# BIDS


def test_bids_sessions_of_a_subject_are_kept_together_and_suffixes_chosen(tmp_path):
    for subject, session in ((1, 1), (1, 2), (2, 1)):
        name, number = f"sub-{subject}_ses-{session}", 2 * subject + session
        folder = Path(f"sub-{subject}") / f"ses-{session}" / "anat"
        for channel, suffix in enumerate(("T1w", "FLAIR", "T2w")):
            volume(tmp_path / folder / f"{name}_{suffix}.nii.gz", number, channel)
        volume(tmp_path / folder.parent / "func" / f"{name}_bold.nii.gz", 0)
        mask(tmp_path / "derivatives" / "hand" / folder / f"{name}_mask.nii.gz", number)
        mask(tmp_path / "derivatives" / "fmriprep" / folder / f"{name}_desc-brain_mask.nii.gz", 60)
    dataset = load_dataset("auto", tmp_path, suffixes=["T1w", "FLAIR"])
    assert_pairs(dataset, 2)
    assert dataset.patients == {"sub-1_ses-1": "sub-1", "sub-1_ses-2": "sub-1", "sub-2_ses-1": "sub-2"}
    with pytest.raises(InputError, match=r"no image of .* has the suffix 'PDw'"):
        load_dataset("auto", tmp_path, suffixes=["PDw"])
    mask(tmp_path / "derivatives" / "other" / "sub-2" / "sub-2_ses-1_dseg.nii.gz", 1)
    with pytest.raises(InputError, match=r"sub-2_ses-1 has several masks, such as .*; choose by patterns"):
        load_dataset("auto", tmp_path)
    patterns = {"image": "sub-*/ses-*/anat/*_T1w.nii.gz", "label": "derivatives/hand/sub-*/ses-*/anat/*_mask.nii.gz"}
    assert len(load_dataset("pairs", tmp_path, **patterns).cases) == 3


# A folder for each patient


def test_scans_of_a_patient_are_kept_together(tmp_path):
    for number, scan in enumerate(("p1/a", "p1/b", "p2/a"), start=1):
        volume(tmp_path / scan / "t1.nii", number)
        mask(tmp_path / scan / "seg.nii", number)
    dataset = load_dataset("auto", tmp_path)
    assert dataset.patients == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert_pairs(dataset)
    mask(tmp_path / "p2" / "a" / "other_mask.nii", 1)
    with pytest.raises(InputError, match=r"p2/a has several masks \(other_mask, seg\); name the files by patterns"):
        load_dataset("auto", tmp_path)
    assert len(load_dataset("auto", tmp_path, exclude=["p2_a"]).cases) == 2


# Data sets that came with this machine


def test_real_foreign_folders(real_data):
    assert detect_layout(real_data / "tumour_rois") == "pairs"
    assert ids(load_dataset("auto", real_data / "tumour_rois")) == ["brain1", "brain2", "breast1"]
    lesions = load_dataset("auto", real_data / "ms_lesions")
    assert [path.name for path in lesions.cases[0].files] == ["flair.nii.gz", "lesions.nii.gz"]
    assert detect_layout(real_data / "emidec") == "folder"


def test_the_names_of_drive(real_data):
    def names(folder: str) -> list[str]:
        return [path.stem for path in sorted((real_data / "drive" / "training" / folder).iterdir())]

    images = {name: Path(name) for name in names("images")}
    assigned, case_ids = assign(images, names("1st_manual"))
    assert {name: one[0] for name, one in assigned.items()} == {f"{n}_training": f"{n}_manual1" for n in range(21, 41)}
    assert set(case_ids.values()) == {str(number) for number in range(21, 41)}
    regions = {owner(name, case_ids.values()): name for name in names("mask")}
    assert regions == {str(number): f"{number}_training_mask" for number in range(21, 41)}


def test_patterns_find_series_beside_segmentations(tmp_path, monkeypatch):
    """A patient's folder with a segmentation, which is a DICOM file, is not itself a series."""
    for patient in ("p1", "p2"):
        for name in ("ct/1.dcm", "ct/2.dcm", "seg.dcm", "fov.dcm"):
            (tmp_path / patient / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / patient / name).touch()
    monkeypatch.chdir("/")  # where relative paths lead nowhere
    options = {"image": "*/ct", "label": "*/seg.dcm", "region_of_interest": "*/fov.dcm"}
    dataset = load_dataset("pairs", tmp_path, classes={"a": 1}, **options)
    patients = {case.case_id: [str(path.relative_to(tmp_path)) for path in case.files] for case in dataset.cases}
    assert patients == {name: [f"{name}/ct", f"{name}/seg.dcm", f"{name}/fov.dcm"] for name in ("p1", "p2")}
