"""Damaged and odd files in all formats: values and grid are those of another library, or one sentence refuses the file.

`make fuzz` runs this for VOXLOSS_FUZZ_SECONDS, elsewhere it takes seconds.
"""

import gzip
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from format_files import all_values, grey, itk_affine, write_itk, write_palette, write_picture, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from voxloss.data.case import write_label
from voxloss.data.formats import files_of, mask_ending, open_image, open_mask
from voxloss.utilities.errors import InputError

SECONDS = float(os.environ.get("VOXLOSS_FUZZ_SECONDS", "0"))
FUZZ = settings(
    max_examples=40 if SECONDS == 0 else 300,
    deadline=None,
    derandomize=SECONDS == 0,
    database=None,
    suppress_health_check=list(HealthCheck),
)

sitk.ProcessObject.SetGlobalWarningDisplay(False)


# How each format is written, by another library where there is one, and what reads it to compare


def write_stack(path: Path, values: np.ndarray) -> Path:
    pages = [Image.fromarray(plane) for plane in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def write_nifti(path: Path, values: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(values.T, np.diag([-2.0, -1.5, 3, 1]))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def write_slices(path: Path, values: np.ndarray) -> Path:
    for number, plane in enumerate(values):
        write_picture(path / f"{number}.png", plane)
    return path


TIFFS = {"a.tif": np.uint8, "b.tif": np.uint16}

WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.mha": lambda path: write_itk(path, grey((3, 4, 5))),
    "c.mha": lambda path: write_itk(path, grey((3, 4, 5)), compressed=True),
    "a.mhd": lambda path: write_itk(path, grey((3, 4, 5))),
    "a.nrrd": lambda path: write_itk(path, grey((3, 4, 5))),
    "c.nrrd": lambda path: write_itk(path, grey((3, 4, 5)), compressed=True),
    "a.nhdr": lambda path: write_itk(path, grey((3, 4, 5))),
    "a.nii": lambda path: write_nifti(path, grey((3, 4, 5))),
    "a.nii.gz": lambda path: write_nifti(path, grey((3, 4, 5))),
    "a.png": lambda path: write_picture(path, grey((6, 7), np.uint8)),
    "c.png": lambda path: write_picture(path, grey((6, 7, 3), np.uint8)),
    "p.png": lambda path: write_palette(path, grey((6, 7), np.uint8) % 3, [0, 0, 0, 255, 0, 0, 0, 9, 0]),
    "a.bmp": lambda path: write_picture(path, grey((6, 7), np.uint8)),
    "a.gif": lambda path: write_picture(path, grey((6, 7), np.uint8)),
    "a.jpg": lambda path: write_picture(path, grey((16, 16), np.uint8)),
    "a.tif": lambda path: write_stack(path, grey((3, 4, 5), TIFFS["a.tif"])),
    "b.tif": lambda path: tifffile.imwrite(path, grey((3, 4, 5), np.uint16), compression="zlib", photometric=1) or path,
    "series": lambda path: write_series(path, grey((3, 4, 5))),
    "slices": lambda path: write_slices(path, grey((3, 4, 5), np.uint8)),
}


def reference(path: Path) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Values (channel, x, y, z) and affine by another library; None if it reads no volume of one kind of value."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj, dtype=np.float64)
        units = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
        shape = values.shape + (1,) * (3 - values.ndim)
        affine = image.affine.copy()
        affine[:3] *= units
        return np.moveaxis(values.reshape(*shape[:3], -1), -1, 0), affine
    if path.suffix in (".png", ".bmp", ".gif", ".jpg"):
        with Image.open(path) as picture:
            mode = "RGB" if picture.mode in ("P", "RGBA", "RGB") else "L"
            values = np.asarray(picture if picture.mode.startswith("I") else picture.convert(mode), dtype=np.float64)
        values = values.reshape(*values.shape[:2], -1)
        return values.transpose(2, 1, 0)[..., None], None
    if path.suffix == ".tif":
        return pages_by_pillow(path)
    if path.name == "slices":
        planes = [reference(file) for file in sorted(path.iterdir())]
        return np.concatenate([values for values, _ in filter(None, planes)], axis=3), None
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        names = reader.GetGDCMSeriesFileNames(str(path))
        if len(names) < len(files_of(path)):  # GDCM passes over files that it does not like
            return None
        reader.SetFileNames(names)
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values, -1, 0)
    elif image.GetDimension() < 4:
        values = values[None]
    values = values.reshape(len(values), *(1,) * (4 - values.ndim), *values.shape[1:])
    return values.transpose(0, 3, 2, 1), itk_affine(image) if image.GetDimension() == 3 else None


def pages_by_pillow(path: Path) -> tuple[np.ndarray, None] | None:
    try:
        with Image.open(path) as pages:
            planes = []
            for number in range(pages.n_frames):
                pages.seek(number)
                planes.append(np.asarray(pages, dtype=np.float64))
    except Exception:  # Pillow reads fewer files than tifffile, and raises anything
        return None
    if len({plane.shape for plane in planes}) > 1 or planes[0].ndim != 2:
        return None
    return np.stack(planes).transpose(2, 1, 0)[None], None


def compare(path: Path) -> bool:
    """Open a file; return whether it was accepted, and then has the values and the grid that another library reads."""
    try:
        image = open_image(path)
        geometry = image.geometry
        values = all_values(image)
        if path.suffix != ".jpg":
            open_mask(path)
        list(image.remarks())
    except InputError as error:
        sentence = str(error)
        assert str(path) in sentence or any(str(file) in sentence for file in path.parent.rglob("*")), sentence
        assert "\n" not in sentence
        assert len(sentence) < 1000, sentence
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = reference(path)
    if found is None:
        return True
    expected, affine = found
    if path.suffix == ".tif" and any("inverted" in message for _, message in image.remarks()):
        return True  # as Pillow does with 8 bits only, and ITK never
    if path.name in UNDAMAGED and np.array_equal(values, UNDAMAGED[path.name]):
        return True  # libraries differ in which of a page's redundant fields they believe
    shape = (image.channels, *geometry.shape)
    assert values.shape == shape
    if expected.shape != shape and expected.shape[0] == 3:  # a grey palette
        expected = expected[:1]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(values, expected.astype(np.float32), rtol=1e-5, atol=1e-3)
        # Of unusual classes of DICOM objects GDCM takes no spacing, and of tilted slices no shear.
        axes = np.array(geometry.affine)[:3, :3] / geometry.spacing_mm
        sheared = np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3
        unknown = affine is not None and np.allclose(np.linalg.norm(affine[:3, :2], axis=0), 1)
        if affine is not None and not (path.is_dir() and (unknown or sheared)):
            np.testing.assert_allclose(geometry.affine, affine, rtol=1e-5, atol=1e-4 * max(1, np.abs(affine).max()))
    return True


# What damaged TIFF files may still hold.
UNDAMAGED = {name: grey((3, 4, 5), kind).T[None].astype(np.float32) for name, kind in TIFFS.items()}


def originals() -> dict[str, dict[str, bytes]]:
    """The files of each format, by name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            place = Path(folder) / name.replace(".", "-")
            place.mkdir()
            write(place / name)
            found[name] = {
                str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()
            }
    return found


ORIGINALS = originals()


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A format and its files, of which one is changed in some bytes, cut, or lengthened."""
    name = draw(st.sampled_from(sorted(ORIGINALS)))
    files = dict(ORIGINALS[name])
    which = draw(st.sampled_from(sorted(files)))
    packed = which.endswith(".gz") and draw(st.booleans())
    content = bytearray(gzip.decompress(files[which]) if packed else files[which])
    kind = draw(st.sampled_from(["bytes", "bytes", "bytes", "digits", "cut", "more", "swap"]))
    if kind == "cut":
        del content[draw(st.integers(0, len(content) - 1)) :]
    elif kind == "more":
        content += draw(st.binary(min_size=1, max_size=9))
    elif kind == "digits":  # of a text header, or bytes that look so
        places = [place for place, byte in enumerate(content[:1000]) if chr(byte) in "0123456789"]
        if places:
            content[draw(st.sampled_from(places))] = ord(draw(st.sampled_from("0123456789-.e ")))
    elif kind == "swap":
        start, length = draw(st.integers(0, max(0, len(content) - 8))), draw(st.sampled_from([2, 4, 8]))
        content[start : start + length] = content[start : start + length][::-1]
    else:
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, min(len(content), 700) - 1) | st.integers(0, len(content) - 1))
            content[place] = draw(st.integers(0, 255))
    if name.endswith("png") and draw(st.booleans()):
        content = with_checksums(content)
    files[which] = gzip.compress(bytes(content), mtime=0) if packed else bytes(content)
    return name, files


def with_checksums(content: bytearray) -> bytearray:
    """Repair the checksums of a PNG's chunks, so that what is in them is read."""
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return content


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("name", WRITERS)
def test_whole_files_are_accepted(tmp_path, name):
    assert compare(WRITERS[name](tmp_path / name))


def test_a_damaged_file_is_read_as_by_others_or_refused():
    end = time.monotonic() + SECONDS
    check_damaged_files()
    while time.monotonic() < end:
        check_damaged_files()


@FUZZ
@given(damages())
def check_damaged_files(damage):
    name, files = damage
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        path = Path(folder) / name
        before = sorted(Path(folder).rglob("*"))
        if compare(path):
            label = np.ones(open_image(path).geometry.shape, np.uint8)
            target = Path(folder) / "out" / f"mask{mask_ending(path)}"
            try:
                write_label(target, label, like=path)
            except InputError:
                assert not target.exists()
                assert list(target.parent.iterdir()) == []
                return
            mask = open_mask(target, like=path)
            assert mask.geometry.shape == label.shape
            assert all((piece == 1).all() for piece in mask.whole_values())
            assert files_of(path)
        else:
            assert sorted(Path(folder).rglob("*")) == before
