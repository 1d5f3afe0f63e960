"""Volumes that are folders of pictures: order, sizes, numbers, spacing, and how layouts find them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from format_files import all_values, grey, mask_values, write_palette, write_picture
from PIL import Image

from voxloss.data.case import Case, read_image, read_label, write_label
from voxloss.data.formats import content_digest, exists, is_image, mask_ending, open_image, open_mask
from voxloss.data.formats.slices import is_stack
from voxloss.data.layouts import detect_layout, load_dataset
from voxloss.data.layouts.names import volumes
from voxloss.utilities.errors import InputError


def write_slices(folder: Path, values: np.ndarray, name: str = "{}.png", first: int = 1) -> Path:
    for number, plane in enumerate(values, start=first):
        write_picture(folder / name.format(number), plane)
    return folder


def remarks(folder: Path) -> list[tuple[str, str]]:
    return list(open_image(folder).remarks())


# Values and order


def test_slices_are_in_the_natural_order_of_their_names(tmp_path):
    values = grey((12, 4, 5), np.uint8)
    folder = write_slices(tmp_path / "c", values, "scan {}.png", first=0)
    for name in (".hidden.png", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "more").mkdir()
    image = open_image(folder)
    assert (image.shape, image.channels, image.geometry.unit) == ((5, 4, 12), 1, "pixel")
    np.testing.assert_array_equal(all_values(image)[0], values.T)
    assert remarks(folder) == []
    assert exists(folder)
    assert is_stack(folder)
    assert not is_image(folder)  # which a layout decides


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_kept_and_agree_with_another_reader(tmp_path, ending):
    values = grey((3, 6, 7), np.uint16) * 60
    folder = write_slices(tmp_path / "c", values, "{:03}" + ending)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in sorted(folder.iterdir())])
    np.testing.assert_array_equal(all_values(open_image(folder))[0].T, sitk.GetArrayFromImage(reader.Execute()))
    np.testing.assert_array_equal(all_values(open_image(folder))[0], values.T)


def test_colours_are_channels(tmp_path):
    values = grey((4, 5, 6, 3), np.uint8)
    image = open_image(write_slices(tmp_path / "c", values))
    assert image.channels == 3
    np.testing.assert_array_equal(all_values(image), values.transpose(3, 2, 1, 0))


def test_masks_take_palettes_by_index_and_black_and_white_as_255(tmp_path):
    classes = grey((3, 4, 5), np.uint8) % 4
    for number, plane in enumerate(classes):
        write_palette(tmp_path / f"p/{number}.png", plane, [0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 200])
        write_picture(tmp_path / f"b/{number}.png", plane > 0)
    np.testing.assert_array_equal(mask_values(open_mask(tmp_path / "p")), classes.T)
    np.testing.assert_array_equal(mask_values(open_mask(tmp_path / "b")), (classes.T > 0) * 255)


# What is refused


def picture(name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> Callable[[Path], Path]:
    return lambda folder: write_picture(folder / name, np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (picture("2.png", (4, 6)), r"2\.png has 6 × 4 pixels, but 1\.png has 5 × 4"),
        (picture("2.png", (4, 5, 3)), r"2\.png has 3 channels, but 1\.png has 1"),
        (picture("2.png", (4, 5), np.uint16), r"2\.png has values of uint16, but 1\.png of uint8"),
        (picture("4.jpg", (4, 5)), r"1\.png and 4\.jpg; all slices"),
        (picture("02.png", (4, 5)), "have the same number"),
        (lambda folder: (folder / "2.png").write_bytes(b""), r"2\.png is empty"),
        (lambda folder: (folder / "2.png").write_bytes(b"no picture at all"), r"2\.png is not a PNG picture"),
    ],
)
def test_slices_that_are_not_alike_are_refused(tmp_path, spoil, sentence):
    folder = write_slices(tmp_path / "c", grey((3, 4, 5), np.uint8))
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        open_image(folder)


def test_a_stack_of_pages_is_no_slice(tmp_path):
    (tmp_path / "c").mkdir()
    for number in range(2):
        tifffile.imwrite(tmp_path / f"c/{number}.tif", grey((3, 4, 5), np.uint8), photometric="minisblack")
    assert not is_stack(tmp_path / "c")
    with pytest.raises(InputError, match=r"0\.tif has 3 pages where a slice has one"):
        open_image(tmp_path / "c")


def test_a_cut_slice_is_found_as_its_values_are_read(tmp_path):
    folder = write_slices(tmp_path / "c", grey((3, 40, 50), np.uint8))
    content = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"2\.png"):
        read_image(Case("c", (folder,), None))


# Numbers


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["1", "2", "4"], "the numbers of its files leave out 3"),
        (["s010_x", "s020_x", "s030_x", "s050_x"], "leave out 40"),
        (["1", "10"], None),
        (["1", "2", "1000000000"], r"leave out 3, 4, 5, 6, 7 and 999999992 more"),
        (["a", "b"], r"in the order of their names, from a\.png to b\.png"),
        (["a1", "b2"], "in the order of their names"),
        (["7"], None),
    ],
)
def test_numbers_that_are_left_out_are_told(tmp_path, names, told):
    for name in names:
        write_picture(tmp_path / f"c/{name}.png", np.eye(5, dtype=np.uint8))
    found = remarks(tmp_path / "c")
    if told is None:
        assert found == []
    else:
        ((severity, message),) = found
        assert severity == ("warning" if "leave" in told else "note")
        assert re.search(told, message), message


def test_a_mask_that_lacks_another_slice_than_its_image_is_refused(tmp_path):
    values = grey((6, 4, 5), np.uint8)
    image, mask = write_slices(tmp_path / "i", values), write_slices(tmp_path / "m", values % 2, "m_{:02}.png", first=0)
    case = Case("c", (image,), mask)
    read_label(case, {0: 0, 1: 1})  # counted from another number on
    (image / "3.png").unlink()
    (mask / "m_04.png").unlink()
    with pytest.raises(InputError, match=r"have different numbers, so they may not belong together: m_02\.png lies on"):
        read_label(case, {0: 0, 1: 1})
    (image / "2.png").unlink()
    with pytest.raises(InputError, match="has shape"):
        read_label(case, {0: 0, 1: 1})


# Masks that are written


@pytest.mark.parametrize(("ending", "value"), [(".jpg", 255), (".bmp", 300), (".png", 3), (".tif", 1000)])
def test_a_mask_comes_back_as_such_a_folder(tmp_path, ending, value):
    image = write_slices(tmp_path / "i", grey((3, 8, 8), np.uint8), "s{}" + ending)
    label = (grey((8, 8, 3), np.uint8) % 2).astype(np.uint16) * value
    assert mask_ending(image) == ""
    write_label(tmp_path / "o", label, like=image)
    written = ".tif" if ending == ".tif" else ".png"
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [f"s{n}{written}" for n in (1, 2, 3)]
    for number in range(3):
        with Image.open(tmp_path / f"o/s{number + 1}{written}") as picture:
            np.testing.assert_array_equal(np.array(picture), label[:, :, number].T)
    np.testing.assert_array_equal(mask_values(open_mask(tmp_path / "o", like=image)), label)


def test_a_mask_replaces_slices_alone(tmp_path):
    image = write_slices(tmp_path / "i", grey((2, 8, 8), np.uint8))
    label = np.ones((8, 8, 2), np.uint8)
    write_slices(tmp_path / "o", grey((5, 4, 4), np.uint8))
    write_label(tmp_path / "o", label, like=image)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["1.png", "2.png"]
    (tmp_path / "o/thesis.txt").touch()
    with pytest.raises(InputError, match="no mask that it could replace"):
        write_label(tmp_path / "o", label, like=image)
    assert (tmp_path / "o/thesis.txt").exists()
    with pytest.raises(InputError, match="does not fit"):
        write_label(tmp_path / "p", np.ones((8, 8, 3), np.uint8), like=image)
    assert not (tmp_path / "p").exists()
    assert not list(tmp_path.glob(".partial*"))


def test_every_slice_counts_as_content(tmp_path):
    folder = write_slices(tmp_path / "c", grey((3, 4, 5), np.uint8))
    before = content_digest(folder)
    write_picture(folder / "3.png", np.zeros((4, 5), np.uint8))
    assert content_digest(folder) != before


# Layouts


def write_cases(root: Path, image: str, mask: str, n: int = 3) -> None:
    for number in range(n):
        values = grey((4, 5, 6), np.uint8, seed=number)
        write_slices(root / image.format(number), values)
        write_slices(root / mask.format(number), values % 2)


@pytest.mark.parametrize(
    ("image", "mask", "options", "layout"),
    [
        ("images/c{}", "masks/c{}", {}, "folder"),
        ("scan/c{}", "Labels/c{}", {"images": "scan", "masks": "Labels"}, "folder"),
        ("c{}/image", "c{}/mask", {}, "patients"),
        ("p{}/s1/t1", "p{}/s1/seg", {}, "patients"),
        ("c{}_image", "c{}_label", {}, "pairs"),
        ("in/c{}/t1", "out/c{}/gt", {"image": "in/*/t1", "label": "out/*/gt"}, "pairs"),
    ],
)
def test_layouts_find_folders_of_slices_where_the_option_says_so(tmp_path, image, mask, options, layout):
    write_cases(tmp_path, image, mask)
    options |= {"slices": True}
    assert detect_layout(tmp_path, options) == layout
    dataset = load_dataset("auto", tmp_path, classes={"x": 1}, **options)
    assert len(dataset.cases) == 3
    assert dataset.flat_axis is None
    for number, case in enumerate(dataset.cases):
        assert case.images == (tmp_path / image.format(number),)
        assert case.label == tmp_path / mask.format(number)
    options.pop("slices")
    with pytest.raises(InputError):
        load_dataset("auto", tmp_path, classes={"x": 1}, **options)


def test_a_table_names_folders_of_slices_without_an_option(tmp_path):
    write_cases(tmp_path, "a/c{}", "b/c{}")
    rows = [f"c{number},a/c{number},b/c{number}" for number in range(3)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,image,mask", *rows]))
    dataset = load_dataset("auto", tmp_path, classes={"x": 1})
    assert [case.images[0].name for case in dataset.cases] == ["c0", "c1", "c2"]
    assert dataset.flat_axis is None


def test_without_the_option_both_ways_are_named(tmp_path):
    write_cases(tmp_path, "images/c{}", "masks/c{}")
    with pytest.raises(InputError) as error:
        load_dataset("auto", tmp_path)
    assert "--data.options '{slices: true}'" in str(error.value)
    assert """--data.options '{image: "images/*/*", label: "masks/*/*"}'""" in str(error.value)
    (tmp_path / "masks").rename(tmp_path / "drawn")
    (tmp_path / "images").rename(tmp_path / "pics")
    with pytest.raises(InputError, match=r"\{slices: true, images: drawn, masks: pics\}"):
        load_dataset("auto", tmp_path)
    write_cases(tmp_path / "deep", "c{}/image", "c{}/mask")
    with pytest.raises(InputError, match=r"each folder of pictures is a volume: --data\.options '\{slices: true\}'"):
        load_dataset("auto", tmp_path / "deep")


def test_pictures_by_themselves_are_no_volumes_then(tmp_path):
    write_slices(tmp_path / "images", grey((3, 4, 5), np.uint8))
    write_slices(tmp_path / "masks", grey((3, 4, 5), np.uint8) % 2)
    assert len(load_dataset("auto", tmp_path).cases) == 3
    with pytest.raises(InputError, match="holds no folder of pictures"):
        load_dataset("auto", tmp_path, slices=True)
    assert volumes(tmp_path / "images", slices=True) == []


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_option_is_true_or_false(tmp_path, value):
    write_cases(tmp_path, "images/c{}", "masks/c{}")
    with pytest.raises(InputError, match="slices"):
        load_dataset("auto", tmp_path, slices=value)


def test_regions_may_be_folders_of_slices_too(tmp_path):
    write_cases(tmp_path, "images/c{}", "masks/c{}")
    write_cases(tmp_path, "fov/c{}", "rest/c{}")
    for option in ("fov", "fov/*"):
        dataset = load_dataset("auto", tmp_path, classes={"x": 1}, slices=True, region_of_interest=option)
        assert [case.region for case in dataset.cases] == [tmp_path / f"fov/c{number}" for number in range(3)]


# The size of a voxel


@pytest.mark.parametrize(("given", "spacing"), [([0.5, 0.75, 3], (0.5, 0.75, 3.0)), ((2, 2), (2.0, 2.0, 1.0))])
def test_an_option_tells_the_size_of_a_voxel(tmp_path, given, spacing):
    write_cases(tmp_path, "images/c{}", "masks/c{}")
    dataset = load_dataset("auto", tmp_path, classes={"x": 1}, slices=True, picture_spacing_mm=given)
    assert (dataset.spacing_mm, dataset.unit) == (spacing, "mm")
    image, geometry = read_image(dataset.cases[0])
    _, of_label = read_label(dataset.cases[0], dataset.label_values)
    assert geometry == of_label
    assert geometry.spacing_mm == spacing
    assert image.shape == (1, 6, 5, 4)


@pytest.mark.parametrize(
    "given", [0.5, [1], [1, 2, 3, 4], [1, 0], [1, -1], [1, "2"], [1, float("nan")], [1, True], "1,1"]
)
def test_sizes_that_make_no_sense_are_refused(tmp_path, given):
    write_cases(tmp_path, "images/c{}", "masks/c{}")
    with pytest.raises(InputError, match="picture_spacing_mm takes two or three positive sizes"):
        load_dataset("auto", tmp_path, classes={"x": 1}, slices=True, picture_spacing_mm=given)


def test_a_size_that_the_files_tell_is_not_set_anew(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8) + 1, str(tmp_path / part / "a.mha"))
    with pytest.raises(InputError, match=r"a\.mha tells the size of its voxels"):
        load_dataset("auto", tmp_path, classes={"x": 1}, picture_spacing_mm=[1, 1, 1])
