"""Formats: equal values and grids whatever the format, masks in the image's format, and every fault named."""

import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from format_files import (
    OBLIQUE,
    SERIES,
    SPACING,
    all_values,
    grey,
    itk_affine,
    itk_image,
    mask_values,
    read_series,
    write_itk,
    write_palette,
    write_picture,
    write_series,
)
from PIL import Image, ImageOps

from voxloss.data.case import Case, read_image, read_label, write_label
from voxloss.data.check.check import check
from voxloss.data.classes import found_classes
from voxloss.data.dataset import Dataset
from voxloss.data.formats import (
    content_digest,
    files_of,
    is_image,
    is_image_name,
    mask_ending,
    open_image,
    open_mask,
    read_geometry,
    stem,
    value_names,
)
from voxloss.data.formats.geometry import check_same_geometry
from voxloss.data.grid import Turn
from voxloss.utilities.errors import InputError

BLACK_WHITE = np.zeros((6, 8), np.uint8)
BLACK_WHITE[2:4, 3:6] = 255
PNG = "a.png"
OTHER = Image.new("L", (8, 6), 9)


def mask_of(path: Path) -> np.ndarray:
    return mask_values(open_mask(path))


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"), ("a.nii", "a"), ("a.b.mha", "a.b"), ("A.MHD", "A"), ("s.seg.nrrd", "s"), ("s.nhdr", "s"),
        ("x.ome.tif", "x"), ("x.TIFF", "x"), ("1_t.tif", "1_t"), ("p.jpeg", "p"), ("p.GIF", "p"), ("i.dcm", "i"),
    ],
)  # fmt: skip
def test_names_of_images(name, expected):
    assert is_image_name(Path(name))
    assert stem(Path(name)) == expected


@pytest.mark.parametrize("name", ["._a.png", ".nii.gz", "a.txt", "a.raw", "nii", "a.npy", "Thumbs.db", "README"])
def test_other_names(name):
    assert not is_image_name(Path(name))


def test_a_folder_is_an_image_if_it_has_dicom_files(tmp_path):
    series = write_series(tmp_path / "p.1", grey())
    assert is_image(series)
    assert stem(series) == "p.1"
    for file in series.iterdir():  # as scanners name them
        file.rename(file.with_suffix(""))
    assert is_image(series)
    (tmp_path / "empty").mkdir()
    assert not is_image(tmp_path / "empty")


# One volume in all formats


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float64])
def test_values_and_grid_are_those_of_nifti(tmp_path, ending, compressed, dtype):
    values = grey(dtype=dtype)
    nifti = write_itk(tmp_path / "a.nii.gz", values)
    other = write_itk(tmp_path / f"b{ending}", values, compressed=compressed)
    ours, reference = open_image(other), open_image(nifti)
    np.testing.assert_array_equal(all_values(ours), all_values(reference))
    np.testing.assert_array_equal(all_values(ours)[0], values.T.astype(np.float32))
    np.testing.assert_allclose(ours.geometry.affine, reference.geometry.affine, atol=1e-5)
    np.testing.assert_allclose(ours.geometry.affine, itk_affine(itk_image(values)), atol=1e-12)
    np.testing.assert_allclose(ours.geometry.affine, nibabel.load(nifti).affine, atol=1e-5)
    assert ours.geometry.axes == reference.geometry.axes == "LPS"
    assert ours.geometry.spacing_mm == pytest.approx(SPACING)
    assert ours.dtype == dtype


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
@pytest.mark.parametrize("vector", [True, False])
def test_channels_are_vectors_or_a_fourth_axis(tmp_path, ending, vector):
    values = grey((5, 6, 7, 2) if vector else (2, 5, 6, 7), np.float32)
    path = write_itk(tmp_path / f"a{ending}", values, vector=vector)
    image = open_image(path)
    assert (image.channels, image.geometry.shape, image.geometry.axes) == (2, (7, 6, 5), "LPS")
    np.testing.assert_array_equal(all_values(image), values.transpose((3, 2, 1, 0) if vector else (0, 3, 2, 1)))
    with pytest.raises(InputError, match="where a mask has three axes"):
        read_label(Case("a", (path,), path), {0: 0})


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plane_is_a_volume_of_one_slice(tmp_path, ending, channels):
    values = grey((6, 7) if channels == 1 else (6, 7, 3), np.uint8)
    image = open_image(write_itk(tmp_path / f"a{ending}", values, vector=channels > 1))
    assert (image.channels, image.geometry.shape) == (channels, (7, 6, 1))
    np.testing.assert_array_equal(all_values(image)[..., 0].T.squeeze(), values)
    upright = np.diag([-1, -1]) * np.array(image.geometry.spacing_mm[:2])
    np.testing.assert_allclose(np.array(image.geometry.affine)[:2, :2], upright, atol=1e-6)
    assert image.geometry.unit == ("mm" if ending in (".mha", ".nrrd", ".nii.gz") else "pixel")


def test_an_nrrd_without_space_has_no_left_and_right(tmp_path):
    path = tmp_path / "a.nrrd"
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\nencoding: raw\n\n"
    path.write_bytes(header.encode() + bytes(range(24)))
    image = open_image(path)
    assert (image.geometry.axes, image.geometry.spacing_mm) == ("", (1, 2, 3))
    assert [kind for kind, _ in image.remarks()] == ["note"]
    np.testing.assert_array_equal(all_values(image)[0].ravel(order="F"), np.arange(24))


def test_names_of_segments_of_slicer(tmp_path):
    image = itk_image((grey() > 500).astype(np.uint8))
    image.SetMetaData("Segment0_LabelValue", "1")
    image.SetMetaData("Segment0_Name", "tumour")
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert value_names(tmp_path / "a.seg.nrrd") == {1: "tumour"}
    assert found_classes([Case("a", (), tmp_path / "a.seg.nrrd")])[0] == ("background", "tumour")


# Pictures


@pytest.mark.parametrize("ending", [".png", ".gif", ".bmp", ".tif"])
def test_masks_have_the_values_that_are_shown_or_the_index_of_a_colour(tmp_path, ending):
    ones = (BLACK_WHITE > 0).astype(np.uint8)
    write_picture(tmp_path / f"grey{ending}", BLACK_WHITE)
    write_picture(tmp_path / f"bits{ending}", BLACK_WHITE > 0)
    write_palette(tmp_path / f"white{ending}", ones, [0, 0, 0, 255, 255, 255])
    for name in ("grey", "bits", "white"):
        np.testing.assert_array_equal(mask_of(tmp_path / f"{name}{ending}")[..., 0].T, BLACK_WHITE, err_msg=name)
    red = write_palette(tmp_path / f"red{ending}", ones, [0, 0, 0, 128, 0, 0])
    np.testing.assert_array_equal(mask_of(red)[..., 0].T, ones)
    as_image = open_image(red)
    assert as_image.channels == 3
    np.testing.assert_array_equal(all_values(as_image)[..., 0].T, np.array(Image.open(red).convert("RGB")))


def test_a_mask_in_equal_colours_is_grey_and_in_others_refused(tmp_path):
    equal = write_picture(tmp_path / "a.png", np.dstack([BLACK_WHITE] * 3))
    np.testing.assert_array_equal(mask_of(equal)[..., 0].T, BLACK_WHITE)
    with pytest.raises(InputError, match=r"b\.png holds colours"):
        mask_of(write_picture(tmp_path / "b.png", np.dstack([BLACK_WHITE, 0 * BLACK_WHITE, BLACK_WHITE])))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_left_out_and_said(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(BLACK_WHITE).convert(mode).save(path)
    image = open_image(path)
    assert image.channels == (3 if mode == "RGBA" else 1)
    np.testing.assert_array_equal(all_values(image)[0, :, :, 0].T, BLACK_WHITE)
    assert [message for _, message in image.remarks()] == ["the transparency (alpha) of a.png is left out"]


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, channels), np.uint16)
    path = tmp_path / "a.png"
    sitk.WriteImage(sitk.GetImageFromArray(values.squeeze(), isVector=channels > 1), str(path))
    np.testing.assert_array_equal(all_values(open_image(path))[..., 0].T, values)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_photograph_is_used_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = write_picture(tmp_path / "a.jpg", grey((16, 32), np.uint8), exif=exif)
    image = open_image(path)
    assert image.geometry.shape == ((16, 32, 1) if orientation > 4 else (32, 16, 1))
    [(kind, message)] = image.remarks()
    assert kind == "warning"
    assert "EXIF" in message
    np.testing.assert_array_equal(all_values(image)[0, :, :, 0].T, np.array(ImageOps.exif_transpose(Image.open(path))))


def test_the_first_frame_of_a_photograph_with_previews(tmp_path):
    path = tmp_path / "a.jpg"
    photograph = Image.fromarray(grey((16, 32, 3), np.uint8))
    photograph.save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    np.testing.assert_array_equal(all_values(open_image(path))[..., 0].T, np.array(Image.open(path)))


def test_a_jpeg_is_no_mask_whatever_its_name(tmp_path):
    path = write_picture(tmp_path / "a.jpg", BLACK_WHITE)
    renamed = path.rename(tmp_path / PNG)
    with pytest.raises(InputError, match=r"a\.png is a JPEG, which changes the values of a mask; save masks as PNG"):
        open_mask(renamed)
    assert open_image(renamed).channels == 1
    tifffile.imwrite(tmp_path / "a.tif", grey((32, 32), np.uint8), compression="jpeg")
    with pytest.raises(InputError, match=r"a\.tif is compressed as JPEG"):
        open_mask(tmp_path / "a.tif")
    assert open_image(tmp_path / "a.tif").geometry.shape == (32, 32, 1)


def test_printing_resolution_is_not_the_size_of_a_pixel(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        geometry = read_geometry(write_picture(tmp_path / name, BLACK_WHITE, dpi=(300, 300)))
        assert (geometry.unit, geometry.spacing_mm) == ("pixel", (1, 1, 1))


# TIFF


def stack(shape=(5, 6, 7), dtype=np.uint8) -> np.ndarray:
    return grey(shape, dtype)


@pytest.mark.parametrize(
    "settings", [{}, {"bigtiff": True}, {"compression": "lzw"}, {"tile": (16, 16)}, {"byteorder": ">"}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_pages_of_a_tiff_are_slices(tmp_path, settings, dtype):
    values = stack(dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **settings)
    image = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(all_values(image)[0].T, values)
    assert image.dtype.newbyteorder("=") == dtype


def test_pages_by_other_writers(tmp_path):
    values = stack()
    pages = [Image.fromarray(plane) for plane in values]
    pages[0].save(tmp_path / "pillow.tif", save_all=True, append_images=pages[1:])
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "itk.tif"))
    for name in ("pillow.tif", "itk.tif"):
        np.testing.assert_array_equal(all_values(open_image(tmp_path / name))[0].T, values)


def test_sizes_of_imagej_and_ome(tmp_path):
    values = stack()
    tifffile.imwrite(
        tmp_path / "a.tif", values, imagej=True, resolution=(2, 4), metadata={"unit": "um", "spacing": 3, "axes": "ZYX"}
    )
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 3.0}
    tifffile.imwrite(tmp_path / "b.ome.tif", values, metadata={"axes": "ZYX", **sizes})
    for name in ("a.tif", "b.ome.tif"):
        geometry = read_geometry(tmp_path / name)
        assert geometry.unit == "mm"
        assert geometry.spacing_mm == pytest.approx((0.0005, 0.00025, 0.003))
    tifffile.imwrite(tmp_path / "c.ome.tif", values, metadata={"axes": "ZYX"})
    assert read_geometry(tmp_path / "c.ome.tif").unit == "pixel"


def test_colours_and_channels_of_tiff(tmp_path):
    colours = stack((6, 7, 3))
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", colours.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "c.ome.tif", colours.transpose(2, 0, 1), metadata={"axes": "CYX"})
    tifffile.imwrite(
        tmp_path / "d.tif", np.dstack([colours, colours[..., 0]]), photometric="rgb", extrasamples=["unassalpha"]
    )
    for name in ("a.tif", "b.tif", "c.ome.tif", "d.tif"):
        np.testing.assert_array_equal(all_values(open_image(tmp_path / name))[..., 0].T, colours, err_msg=name)
    volume = stack((4, 6, 7, 3))
    tifffile.imwrite(tmp_path / "e.tif", volume, photometric="rgb")
    np.testing.assert_array_equal(all_values(open_image(tmp_path / "e.tif")).T, volume)


# DICOM


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reverse": True},
        {"direction": np.eye(3)},
        {"direction": np.diag([1.0, -1.0, -1.0])},
        {"scaling": [(1 + number, -10.0 * number) for number in range(5)]},
        {"scaling": [(1, -1024)] * 5},
    ],
    ids=["oblique", "reversed", "axial", "turned", "slope-per-slice", "hounsfield"],
)
def test_a_series_is_that_of_gdcm(tmp_path, options):
    folder = write_series(tmp_path / "s", grey(), **options)
    image, reference = open_image(folder), read_series(folder)
    np.testing.assert_allclose(all_values(image)[0].T, sitk.GetArrayFromImage(reference), atol=1e-3)
    np.testing.assert_allclose(image.geometry.affine, itk_affine(reference), atol=1e-5)
    assert image.geometry.shape == (7, 6, 5)


def test_values_of_a_series_are_scaled_slice_by_slice(tmp_path):
    scaling = [(1 + 0.5 * number, -10.0 * number) for number in range(5)]
    folder = write_series(tmp_path / "s", grey())
    for path, (slope, intercept) in zip(sorted(folder.iterdir()), scaling, strict=True):
        file = pydicom.dcmread(path)
        file.RescaleSlope, file.RescaleIntercept = slope, intercept  # GDCM writes whole slopes alone
        file.save_as(path)
    image = open_image(folder)
    stored = np.stack([pydicom.dcmread(file).pixel_array for file in image.files])
    slopes, intercepts = np.array(scaling).T
    np.testing.assert_allclose(
        all_values(image)[0].T, stored * slopes[:, None, None] + intercepts[:, None, None], atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": (2,)}, "lacks 1 slice between 001.dcm and 003.dcm"),
        ({"skip": (2, 3)}, "lacks 2 slices between 001.dcm and 004.dcm"),
        ({"places": [0, 1, 2, 3.4, 4.4, 5.4, 6.4]}, "slices at unequal distances: 2.8 mm between 002.dcm and 003.dcm"),
        ({"places": [0, 1, 1, 2, 3, 4, 5]}, "are at the same position"),
    ],
)
def test_a_series_that_is_no_volume(tmp_path, options, message):
    folder = write_series(tmp_path / "s", grey((7, 6, 7)), **options)
    with pytest.raises(InputError, match=message):
        open_image(folder)


def test_slices_without_a_position(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    file = pydicom.dcmread(folder / "002.dcm")
    del file.ImagePositionPatient
    file.save_as(folder / "002.dcm")
    with pytest.raises(InputError, match=r"002\.dcm has no position in the patient"):
        open_image(folder)


def test_two_series_in_a_folder(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    for file in write_series(tmp_path / "t", grey(), series=SERIES + "0").iterdir():
        file.rename(folder / f"t{file.name}")
    with pytest.raises(InputError, match="holds 2 series; give each a folder of its own"):
        open_image(folder)


@pytest.mark.parametrize("name", ["Rows", "PixelSpacing", "ImageOrientationPatient"])
def test_slices_that_differ(tmp_path, name):
    folder = write_series(tmp_path / "s", grey())
    file = pydicom.dcmread(folder / "002.dcm")
    changed = {"Rows": 5, "PixelSpacing": [1, 1], "ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}
    setattr(file, name, changed[name])
    file.save_as(folder / "002.dcm")
    with pytest.raises(InputError, match=f"002.dcm has (another )?{name}"):
        open_image(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CT_small.dcm", (128, 128, 1)), ("MR_small_RLE.dcm", (64, 64, 1)), ("693_J2KI.dcm", (512, 512, 1))],
)
def test_files_of_pydicom(name, expected):
    path = Path(pydicom.data.get_testdata_file(name))
    image = open_image(path)
    assert image.geometry.shape == expected
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_allclose(all_values(image)[0].T, reference, atol=1e-3)


def test_a_set_of_contours_names_the_way_out(tmp_path):
    path = write_series(tmp_path / "s", grey((1, 6, 7))) / "000.dcm"
    file = pydicom.dcmread(path)
    file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    file.save_as(tmp_path / "c.dcm")
    with pytest.raises(InputError, match=r"RTSTRUCT.*3D Slicer or plastimatch"):
        open_mask(tmp_path / "c.dcm")
    with pytest.raises(InputError, match="RTSTRUCT"):
        open_image(tmp_path / "c.dcm")


def segmentation(
    folder: Path, masks: dict[str, np.ndarray], kind: str = "BINARY", **options
) -> highdicom.seg.Segmentation:
    """Write masks (z, y, x) as segments by highdicom, of the slices that `options` choose."""
    codes = pydicom.sr.codedict.codes
    files = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
    descriptions = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Tissue, codes.SCT.Tissue, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(masks, start=1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            files, np.stack(list(masks.values()), axis=-1).astype(np.uint8), "BINARY", descriptions,
            highdicom.UID(), 1, highdicom.UID(), 1, "m", "n", "1", "2",
        )  # fmt: skip


def test_segments_are_values_and_their_labels_are_classes(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    kidney, tumour = (np.zeros((5, 6, 7), bool) for _ in range(2))
    kidney[1:4, 2:4, 1:5] = True
    tumour[2, 4:, 5:] = True
    segmentation(folder, {"kidney": kidney, "tumour": tumour}).save_as(tmp_path / "m.dcm")
    expected = kidney + 2 * tumour
    case = Case("s", (folder,), tmp_path / "m.dcm")
    label, geometry = read_label(case, {0: 0, 1: 1, 2: 2})
    np.testing.assert_array_equal(label.T, expected)  # with the slices that have no frame
    assert geometry == read_geometry(folder)
    assert found_classes([case]) == (("background", "kidney", "tumour"), {0: 0, 1: 1, 2: 2})


def test_segments_that_overlap_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    mask = np.ones((5, 6, 7), bool)
    segmentation(folder, {"a": mask, "b": mask}).save_as(tmp_path / "m.dcm")
    with pytest.raises(InputError, match=r"segments of .*m\.dcm overlap"):
        read_label(Case("s", (folder,), tmp_path / "m.dcm"), {0: 0, 1: 1, 2: 2})


def test_a_segmentation_of_another_image_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    segmentation(folder, {"a": grey() > 500}).save_as(tmp_path / "m.dcm")
    beside = write_series(tmp_path / "t", grey(), places=[number + 0.5 for number in range(5)])
    with pytest.raises(InputError, match="lies on no slice of its image"):
        open_mask(tmp_path / "m.dcm", like=beside)
    turned = write_series(tmp_path / "u", grey(), direction=np.eye(3))
    with pytest.raises(InputError, match="of its image"):
        open_mask(tmp_path / "m.dcm", like=turned)


def test_segments_numbered_differently_are_an_error(tmp_path):
    cases = []
    for name, labels in (("a", ("kidney", "tumour")), ("b", ("tumour", "kidney"))):
        folder = write_series(tmp_path / name, grey(seed=ord(name)))
        masks = [np.zeros((5, 6, 7), bool) for _ in labels]
        masks[0][:2], masks[1][2:4] = True, True
        segmentation(folder, dict(zip(labels, masks, strict=True))).save_as(tmp_path / f"{name}.dcm")
        cases.append(Case(name, (folder,), tmp_path / f"{name}.dcm"))
    report = check(Dataset("d", tuple(cases), ("background", "kidney", "tumour"), {0: 0, 1: 1, 2: 2}))
    assert [(finding.case_id, finding.message) for finding in report.findings if finding.severity == "error"] == [
        ("b", "the value 1 is called tumour, but kidney in a; number the segments alike"),
        ("b", "the value 2 is called kidney, but tumour in a; number the segments alike"),
    ]


# Writing


def image_in(tmp_path: Path, ending: str) -> Path:
    """An image of 7 × 6 × 5 voxels, or of one slice, in a format."""
    if ending == "":
        return write_series(tmp_path / "image", grey())
    path = tmp_path / f"image{ending}"
    if ending in (".png", ".jpg", ".bmp", ".gif"):
        return write_picture(path, grey((6, 7), np.uint8))
    if ending == ".tif":
        tifffile.imwrite(path, grey(dtype=np.uint8), photometric="minisblack")
        return path
    return write_itk(path, grey())


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (".nii.gz", ".nii.gz"), (".mha", ".mha"), (".mhd", ".mha"), (".nrrd", ".nrrd"), (".nhdr", ".nrrd"),
        (".tif", ".tif"), (".png", ".png"), (".jpg", ".png"), (".bmp", ".png"), (".gif", ".png"), ("", ".dcm"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [1, 255, 300, 0])
def test_masks_come_back_in_the_images_format_and_place(tmp_path, ending, expected, value):
    like = image_in(tmp_path, ending)
    assert mask_ending(like) == expected
    label = np.zeros(read_geometry(like).shape, np.uint16)
    label[1:5, 2:4] = value
    target = tmp_path / f"mask{expected}"
    write_label(target, label, like, names={value: "tumour"} if value else {1: "tumour"})
    np.testing.assert_array_equal(mask_values(open_mask(target, like=like)), label)
    check_same_geometry(target, open_mask(target, like=like).geometry, like, read_geometry(like))
    if expected == ".dcm":
        other = highdicom.seg.segread(target).get_volume(combine_segments=True, skip_overlap_checks=True)
        assert np.unique(other.array).tolist() == np.unique(label).tolist()
        assert sorted(other.spacing) == pytest.approx(sorted(SPACING))
        return
    image = sitk.ReadImage(str(target))  # by a third reader
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).reshape(label.T.shape), label.T)
    if expected not in (".png", ".tif"):
        original = sitk.ReadImage(str(like))
        for place in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(image, place)(), getattr(original, place)(), atol=1e-6)


def changed_series(folder: Path, change: Callable[[pydicom.Dataset], None], slices: int = 5) -> Path:
    write_series(folder, grey((slices, 6, 7)))
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        change(file)
        file.save_as(path)
    return folder


def without(*names: str) -> Callable[[pydicom.Dataset], None]:
    return lambda file: [delattr(file, name) for name in names if name in file]


def sideways(millimetres: float, only: int | None = None) -> Callable[[pydicom.Dataset], None]:
    """Shift a slice along its rows: each by so much from the one before, as a tilted gantry does, or one alone."""

    def shift(file: pydicom.Dataset) -> None:
        number = int(file.InstanceNumber)
        steps = number if only is None else number == only
        along = np.array(file.ImageOrientationPatient[:3], dtype=float)
        position = np.array(file.ImagePositionPatient, dtype=float) + millimetres * steps * along
        file.ImagePositionPatient = [f"{value:.8g}" for value in position]

    return shift


PATIENT = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyDate",
    "StudyID",
    "AccessionNumber",
    "StudyInstanceUID",
)
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PixelSpacing", "SliceThickness")


@pytest.mark.parametrize(
    ("change", "slices"),
    [(without(*PATIENT), 5), (without("FrameOfReferenceUID"), 5), (without(*PLACE), 1), (sideways(0.4), 5)],
    ids=["anonymous", "no-frame", "no-place", "tilted"],
)
def test_segmentations_of_series_that_lack_something(tmp_path, change, slices):
    like = changed_series(tmp_path / "s", change, slices)
    label = np.zeros((7, 6, slices), np.uint8)
    label[2:5, 1:3] = 1
    write_label(tmp_path / "m.dcm", label, like, names={1: "tumour"})
    np.testing.assert_array_equal(mask_values(open_mask(tmp_path / "m.dcm", like=like)), label)
    assert read_geometry(like).unit == ("pixel" if slices == 1 else "mm")


def test_a_slice_beside_the_others_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"002\.dcm lies 3 mm beside the line of the other slices"):
        open_image(changed_series(tmp_path / "s", sideways(3, only=2)))


def test_a_tiff_with_sizes_gives_them_to_its_mask(tmp_path):
    like = tmp_path / "a.tif"
    tifffile.imwrite(
        like, stack(), imagej=True, resolution=(2, 4), metadata={"unit": "mm", "spacing": 3, "axes": "ZYX"}
    )
    label = (stack().T > 100).astype(np.uint8)
    write_label(tmp_path / "m.tif", label, like)
    assert read_geometry(tmp_path / "m.tif").spacing_mm == pytest.approx(read_geometry(like).spacing_mm)
    np.testing.assert_array_equal(mask_of(tmp_path / "m.tif"), label)


@pytest.mark.parametrize(
    ("name", "header", "order", "axes"),
    [
        (
            "a.nrrd",
            "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 7 6 5\nspace directions: "
            "(0.5,0,0) (0,0.7,0) (0,0,2)\nspace origin: (1,2,3)\nendian: big\nencoding: raw\n\n",
            ">i2",
            "RAS",
        ),
        (
            "a.mha",
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nTransformMatrix = "
            "-1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\nDimSize = 7 6 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
            ">i2",
            "RPS",
        ),
        (
            "a.mha",
            "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
            "<i2",
            "LPS",
        ),
    ],
)
def test_headers_by_hand(tmp_path, name, header, order, axes):
    (tmp_path / name).write_bytes(header.encode() + grey().astype(order).tobytes())
    image, reference = open_image(tmp_path / name), sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(all_values(image)[0].T, grey())
    np.testing.assert_allclose(image.geometry.affine, itk_affine(reference), atol=1e-9)
    assert image.geometry.axes == axes


def test_nothing_is_left_of_a_mask_that_cannot_be_written(tmp_path):
    like = image_in(tmp_path, ".mha")
    with pytest.raises(InputError, match="does not fit"):
        write_label(tmp_path / "m.mha", np.zeros((2, 2, 2), np.uint8), like)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.mha"]


# Faults


def cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr", ".png", ".bmp", ".gif", ".tif", ".jpg", ""])
@pytest.mark.parametrize("fault", ["empty", "text", "cut", "start", "folder", "gone"])
def test_a_file_that_is_none_is_named(tmp_path, ending, fault, capfd):
    image = image_in(tmp_path, ending)
    path = sorted(image.iterdir())[2] if image.is_dir() else image
    if fault == "empty":
        path.write_bytes(b"")
    elif fault == "text":
        path.write_text("This is no image.\n" * 40)
    elif fault == "cut":
        data = files_of(path)[-1] if ending else path
        cut(data, data.stat().st_size // 2)
    elif fault == "start":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.unlink()
        if ending == "":
            (image / "002.dcm").mkdir() if fault == "folder" else None
        elif fault == "folder":
            path.mkdir()
    with pytest.raises(InputError) as caught:
        all_values(open_image(image))
    sentence = str(caught.value)
    assert str(tmp_path) in sentence
    assert "\n" not in sentence
    assert capfd.readouterr().err == ""


def test_a_compressed_metaimage_says_how_long_its_values_are(tmp_path):
    path = write_itk(tmp_path / "a.mha", grey(), compressed=True)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"CompressedDataSize")))
    with pytest.raises(InputError, match="CompressedDataSize is not the size of its values"):  # ITK reads anything
        all_values(open_image(path))


def test_a_png_with_too_few_pixels(tmp_path):
    """Pillow takes the missing ones as 0."""
    path = write_picture(tmp_path / PNG, BLACK_WHITE)
    content = bytearray(path.read_bytes())
    content[20:24] = (60).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(InputError, match="486 bytes of its pixels are missing"):
        all_values(open_image(path))


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_compressed_values_that_are_damaged(tmp_path, ending, capfd):
    path = write_itk(tmp_path / f"a{ending}", grey((20, 20, 20)), compressed=True)
    data = files_of(path)[-1]
    content = bytearray(data.read_bytes())
    for place in (-1, -5, -200):  # the checksum, and the values
        content[place] ^= 0x55
    data.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        all_values(open_image(path))


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_values_beside_a_header(tmp_path, ending):
    path = write_itk(tmp_path / f"a{ending}", grey())
    raw = tmp_path / "a.raw"
    assert files_of(path) == [path, raw]
    digest = content_digest(path)
    raw.write_bytes(raw.read_bytes() + b"more")
    assert content_digest(path) != digest
    with pytest.raises(InputError, match=r"a\.raw holds 4 bytes more than the 420"):
        all_values(open_image(path))
    cut(raw, 10)
    with pytest.raises(InputError, match=r"a\.raw is cut short: 6 bytes"):
        all_values(open_image(path))
    raw.unlink()
    with pytest.raises(InputError, match=r"has its values in 'a\.raw', which does not exist"):
        open_image(path)


def test_a_header_without_a_name_of_values(tmp_path):
    path = write_itk(tmp_path / "a.mhd", grey())
    path.write_text(path.read_text().replace("a.raw", ""))
    with pytest.raises(InputError, match=r"a\.mhd"):
        all_values(open_image(path))


def test_a_spacing_that_is_no_number(tmp_path):
    path = write_series(tmp_path / "s", grey((1, 6, 7))) / "000.dcm"
    header = pydicom.dcmread(path)
    header.pop("SpacingBetweenSlices", None)  # which GDCM writes after some other images
    header.save_as(path)
    content = path.read_bytes()
    assert content.count(b"2.0 ") == 1  # SliceThickness
    path.write_bytes(content.replace(b"2.0 ", b"2x0 "))
    with pytest.raises(InputError, match=r"000\.dcm cannot be read"):
        read_geometry(path)


def test_values_in_several_files_are_refused(tmp_path):
    path = write_itk(tmp_path / "a.mhd", grey())
    path.write_text(path.read_text().replace("a.raw", "a%02d.raw 1 5 1"))
    with pytest.raises(InputError, match="values in several files"):
        open_image(path)


def test_values_that_are_no_numbers_are_counted(tmp_path):
    values = grey(dtype=np.float32)
    values[1, 2, 3] = np.nan
    for ending in (".mha", ".nrrd", ".nii.gz"):
        path = write_itk(tmp_path / f"a{ending}", values)
        with pytest.raises(InputError, match="has 1 value that is not finite"):
            read_image(Case("a", (path,), None))
        with pytest.raises(InputError, match="holds the value nan"):
            mask_of(path)


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])  # MetaImage has no complex type
def test_complex_values_are_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(grey().astype(np.complex64)), str(path))
    with pytest.raises(InputError, match="values; grey values or labels are needed"):
        all_values(open_image(path))


def test_colours_of_nifti_are_refused(tmp_path):
    colours = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(InputError, match="grey values or labels are needed"):
        open_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.gif", lambda p: write_picture(p, BLACK_WHITE, save_all=True, append_images=[OTHER]), "2 frames"),
        ("a.png", lambda p: write_picture(p, BLACK_WHITE, save_all=True, append_images=[OTHER]), "2 frames"),
        ("a.jpg", lambda p: Image.fromarray(BLACK_WHITE).convert("CMYK").save(p), "stores CMYK colours"),
        ("a.tif", lambda p: Image.fromarray(BLACK_WHITE).convert("CMYK").save(p), "stores SEPARATED colours"),
        ("b.tif", lambda p: tifffile.imwrite(p, stack(), imagej=True, metadata={"axes": "TYX"}), "axes TYX"),
        ("c.tif", lambda p: tifffile.imwrite(p, stack().astype(np.complex64)), "complex64 values"),
    ],
)  # fmt: skip
def test_pictures_that_are_refused(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        all_values(open_image(tmp_path / name))


def test_pages_in_other_files_are_refused(tmp_path):
    """An OME-TIFF may describe a stack of which each file holds a part."""
    tifffile.imwrite(tmp_path / "a.ome.tif", stack((1, 6, 7)), metadata={"axes": "ZYX"})
    content = (tmp_path / "a.ome.tif").read_bytes()
    assert b'SizeZ="1"' in content
    (tmp_path / "a.ome.tif").write_bytes(content.replace(b'SizeZ="1"', b'SizeZ="3"'))
    with pytest.raises(InputError, match=r"describes itself as 3|lacks a page"):
        open_image(tmp_path / "a.ome.tif")


def test_pages_that_differ_or_are_missing(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(BLACK_WHITE)
        writer.write(BLACK_WHITE[:4])
    with pytest.raises(InputError, match="2 images of different sizes"):
        open_image(tmp_path / "a.tif")
    pages = [Image.fromarray(plane) for plane in stack((8, 6, 7))]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    whole = (tmp_path / "b.tif").read_bytes()
    for length in range(8, len(whole), 7):  # wherever it ends, no page is left out silently
        (tmp_path / "b.tif").write_bytes(whole[:length])
        try:
            values = all_values(open_image(tmp_path / "b.tif"))
        except InputError:
            continue
        np.testing.assert_array_equal(values[0].T, stack((8, 6, 7)))


@pytest.mark.parametrize(
    ("ending", "module", "extra"),
    [
        (".mha", "SimpleITK", "formats"),
        (".tif", "tifffile", "formats"),
        ("", "pydicom", "dicom"),
        (".png", "PIL.Image", "formats"),
    ],
)
def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, ending, module, extra):
    path = image_in(tmp_path, ending)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'voxloss\[{extra}\]'"):
        open_image(path)


# What depends on a geometry


def test_a_turn_keeps_the_unit(tmp_path):
    geometry = replace(read_geometry(write_picture(tmp_path / PNG, BLACK_WHITE)), axes="LPS")
    assert Turn((1, 0, 2), (False, False, False)).geometry(geometry).unit == "pixel"


def test_check_says_that_sizes_are_in_pixels(tmp_path):
    cases = []
    for number in range(2):
        image = write_picture(tmp_path / f"{number}.png", grey((6, 8), np.uint8, seed=number))
        cases.append(Case(str(number), (image,), write_picture(tmp_path / f"{number}.gif", BLACK_WHITE)))
    report = check(Dataset("d", tuple(cases), ("background", "x"), {0: 0, 255: 1}))
    assert report.ok
    assert "the files do not say how large a pixel is" in " ".join(finding.message for finding in report.findings)


def test_an_image_with_sizes_and_a_mask_without_are_compared_by_their_directions(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", BLACK_WHITE, imagej=True, resolution=(2, 2), metadata={"unit": "mm"})
    mask = write_picture(tmp_path / PNG, BLACK_WHITE)
    label, _ = read_label(Case("a", (tmp_path / "a.tif",), mask), {0: 0, 255: 1})
    np.testing.assert_array_equal(label[..., 0].T, BLACK_WHITE > 0)
    flipped = nibabel.Nifti1Image(BLACK_WHITE.T.copy(), np.eye(4))
    flipped.to_filename(tmp_path / "m.nii")
    with pytest.raises(InputError, match="point elsewhere"):
        read_label(Case("a", (write_picture(tmp_path / "b.png", BLACK_WHITE),), tmp_path / "m.nii"), {0: 0, 255: 1})


def test_the_digest_of_a_series_is_that_of_all_its_files(tmp_path):
    folder = write_series(tmp_path / "s", grey())
    digest = content_digest(folder)
    (folder / "LICENSE").write_text("not an image")
    assert content_digest(folder) == digest
    file = pydicom.dcmread(folder / "002.dcm")
    file.PatientID = "other"
    file.save_as(folder / "002.dcm")
    assert content_digest(folder) != digest


def test_oblique_directions_are_at_right_angles():
    np.testing.assert_allclose(OBLIQUE.T @ OBLIQUE, np.eye(3), atol=1e-12)
