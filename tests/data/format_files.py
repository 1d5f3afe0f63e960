"""Small images and masks in all formats, written by other libraries than those that read them."""

import locale
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image

from voxloss.data.formats.volume import Volume

SPACING, ORIGIN = (0.5, 0.75, 2.0), (10.0, -20.0, 30.5)

ANGLE = 0.3
OBLIQUE = np.array(
    [
        [np.cos(ANGLE), -np.sin(ANGLE) * np.cos(ANGLE), np.sin(ANGLE) ** 2],
        [np.sin(ANGLE), np.cos(ANGLE) ** 2, -np.cos(ANGLE) * np.sin(ANGLE)],
        [0, np.sin(ANGLE), np.cos(ANGLE)],
    ]
)  # columns are the directions of the axes

CT, SERIES, FRAME = "1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.9"


def grey(shape=(5, 6, 7), dtype=np.int16, seed=0) -> np.ndarray:
    """Values (z, y, x), as SimpleITK and DICOM order them."""
    return np.random.default_rng(seed).integers(0, 1000 if np.dtype(dtype).itemsize > 1 else 256, shape).astype(dtype)


def itk_image(values: np.ndarray, direction=OBLIQUE, *, vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(values, isVector=vector)
    count = image.GetDimension()
    image.SetSpacing([*SPACING, 1.0][:count])
    image.SetOrigin([*ORIGIN, 0.0][:count])
    if count == 3:
        image.SetDirection(np.asarray(direction).ravel().tolist())
    return image


def itk_affine(image: sitk.Image) -> np.ndarray:
    """RAS+ affine of an ITK image, computed from its own accessors."""
    affine = np.eye(4)
    for axis in range(3):
        step = [0, 0, 0]
        step[axis] = 1
        affine[:3, axis] = np.subtract(image.TransformIndexToPhysicalPoint(step), image.GetOrigin())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def write_itk(path: Path, values: np.ndarray, *, compressed: bool = False, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(itk_image(values, **options), str(path), compressed)
    return path


def write_picture(path: Path, values: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def write_palette(path: Path, indices: np.ndarray, colours: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette(colours)
    picture.save(path)
    return path


def write_series(
    folder: Path,
    values: np.ndarray,
    direction: np.ndarray = OBLIQUE,
    series: str = SERIES,
    places: list[float] | None = None,
    scaling: list[tuple[float, float]] | None = None,
    skip: tuple[int, ...] = (),
    reverse: bool = False,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write slices (z, y, x) by GDCM; `places`: along the normal, in slices; `reverse`: the last file is the lowest."""
    before = locale.setlocale(locale.LC_ALL)
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(values):
        if number in skip:
            continue
        image = sitk.GetImageFromArray(plane)
        image.SetSpacing(SPACING[:2])
        place = number if places is None else places[number]
        position = np.array(ORIGIN) + direction[:, 2] * SPACING[2] * place
        fields = {
            "0008|0016": CT, "0008|0018": f"{series}.{number + 1}", "0008|0060": "CT", "0010|0010": "Doe^Jane",
            "0010|0020": "p1", "0018|0050": str(SPACING[2]), "0020|000d": FRAME + ".1", "0020|000e": series,
            "0020|0013": str(number), "0020|0052": FRAME,
            "0020|0032": "\\".join(f"{value:.8g}" for value in position),
            "0020|0037": "\\".join(f"{value:.10g}" for value in (*direction[:, 0], *direction[:, 1])),
        }  # fmt: skip
        if scaling is not None:
            fields |= {"0028|1053": str(scaling[number][0]), "0028|1052": str(scaling[number][1])}
        for key, value in (fields | (tags or {})).items():
            image.SetMetaData(key, value)
        name = len(values) - number if reverse else number
        writer.SetFileName(str(folder / f"{name:03}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM sets to "C", where Python reads text as ASCII
    return folder


def write_segmentation(path: Path, series: Path, mask: np.ndarray) -> Path:
    """Write a mask (z, y, x) of a series, whose files go up, by highdicom, which leaves out empty frames."""
    codes = pydicom.sr.codedict.codes.SCT
    tumour = highdicom.seg.SegmentDescription(1, "tumour", codes.Tissue, codes.Tissue, "MANUAL")
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    highdicom.seg.Segmentation(
        files, mask, "BINARY", [tumour], highdicom.UID(), 1, highdicom.UID(), 1, "m", "n", "1", "2"
    ).save_as(path)
    return path


def read_series(folder: Path) -> sitk.Image:
    """Read a series by GDCM."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def all_values(volume: Volume) -> np.ndarray:
    """Grey values (channel, x, y, z) of an open image."""
    flat = np.concatenate([piece.copy() for piece in volume.grey_values()])
    return flat.reshape(volume.channels, *volume.geometry.shape[::-1]).transpose(0, 3, 2, 1)


def mask_values(volume: Volume) -> np.ndarray:
    """Values (x, y, z) of an open mask."""
    flat = np.concatenate([piece.copy() for piece in volume.whole_values()])
    return flat.reshape(volume.geometry.shape[::-1]).T
