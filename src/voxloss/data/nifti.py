"""Read NIfTI files in pieces, so that volumes never exist in float64 and damage anywhere in a file is noticed."""

import gzip
import logging
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from voxloss.utilities.arrays import AnyArray, Float32s, Labels
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    import nibabel
    from nibabel.arrayproxy import ArrayProxy

CHUNK_VALUES = 2**18  # values read at a time: 2 MB in the widest type, which stays in cache
GEOMETRY_TOLERANCE = 1e-3  # image and mask of public data sets agree to about this, not exactly
WHOLE_TOLERANCE = 1e-3

# NIfTI's codes of spatial units, the three lowest bits of xyzt_units. Files without a code are in mm by custom.
UNIT_NAMES = {1: "metre", 2: "mm", 3: "micrometre"}
MM_PER_UNIT = {1: 1e3, 3: 1e-3}


# The ends of a patient's three axes: right and left, anterior and posterior, superior and inferior.
OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


def are_axes(text: str) -> bool:
    """Return whether a text names the directions of three axes, such as "LPS"."""
    return sorted(min(letter, OPPOSITE.get(letter, letter)) for letter in text) == ["A", "I", "L"]


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume.

    shape and spacing_mm are per stored array axis; affine is the 4×4 voxel-to-world matrix in mm. axes has a letter per
    array axis, the end of the patient towards which it counts: "LPS" is left, posterior, superior. It is empty if the
    file does not say where left and right are. unit is "pixel" for an image whose pixel size is not known, which is 1.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...]
    axes: str = ""
    unit: Literal["mm", "pixel"] = "mm"


def is_nifti_name(path: Path) -> bool:
    """Return whether a name is a visible .nii or .nii.gz (not a ._name file of macOS)."""
    return path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return the file's name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def open_nifti(path: Path) -> "nibabel.Nifti1Image":
    """Open a NIfTI file and read only its header. Raises InputError, naming the file, if that is impossible."""
    # nibabel imports SciPy, and commands that open no volume (status) import this module.
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError
    from nibabel.wrapstruct import WrapStructError

    # Its remarks on odd headers would stand between our lines; what matters of them is judged in data/check.
    nibabel.imageglobals.logger.setLevel(logging.CRITICAL)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder where a NIfTI file should be")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        path.open("rb").close()  # nibabel says of a file without permission that it is none
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError) as error:
        raise InputError(f"{path} is not a NIfTI file ({_one_line(error)})") from error
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({_one_line(error)})") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{path} is a {type(image).__name__}, not a single-file NIfTI image")
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(f"{path} stores {image.get_data_dtype()} values; grey values or labels are needed")
    return image


def volume_shape(path: Path, image: "nibabel.Nifti1Image") -> tuple[tuple[int, int, int], int]:
    """Return the three spatial sizes and the number of channels (the fourth axis; 1 without one).

    A plane (X, Y) is a volume of one slice. ITK writes channels as the fifth axis, after a time axis of one.
    """
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) not in (3, 4):
        raise InputError(f"{path} has shape {tuple(image.shape)} where a volume has three axes, or four with channels")
    if min(shape) < 1:
        raise InputError(f"{path} has shape {tuple(image.shape)}, which holds no voxels")
    return (shape[0], shape[1], shape[2]), (shape[3] if len(shape) == 4 else 1)


def geometry_of(path: Path, image: "nibabel.Nifti1Image") -> Geometry:
    """Return the geometry in an open file's header. Raises InputError if a voxel has no positive finite size."""
    import nibabel  # as in open_nifti

    shape, _ = volume_shape(path, image)
    affine = np.array(image.affine, dtype=np.float64)
    if len(image.shape) == 2 and not affine[:3, 2].any():  # a plane without thickness
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    affine[:3] *= mm_per_unit(image)
    first, second, third = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    spacing = (first, second, third)
    if not (np.isfinite(affine).all() and min(spacing) > 0):
        raise InputError(f"{path} has voxels of {_by(spacing)} mm; every side should be positive and finite")
    rows = [tuple(float(value) for value in row) for row in affine]
    placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    codes = nibabel.orientations.aff2axcodes(affine) if placed else ()
    axes = "" if None in codes else "".join(codes)
    return Geometry(shape, spacing, tuple((row[0], row[1], row[2], row[3]) for row in rows), axes)


def mm_per_unit(image: "nibabel.Nifti1Image") -> float:
    """Return the length in mm of the unit that the header's affine and voxel sizes are in."""
    return MM_PER_UNIT.get(int(image.header["xyzt_units"]) & 7, 1.0)


def read_geometry(path: Path) -> Geometry:
    """Read the geometry from a file's header.

    The axes are those of the stored array; spacing is the length in mm of the affine's columns. The affine is the
    sform where its code is set, else the qform, else what the voxel sizes alone give (as nibabel does), converted to mm
    from the unit that the header names.
    Raises InputError naming the file: absent, unreadable, not three-dimensional, or without a valid voxel size.
    """
    path = Path(path)
    return geometry_of(path, open_nifti(path))


def check_same_geometry(path: Path, geometry: Geometry, reference_path: Path, reference: Geometry) -> None:
    """Raise InputError unless shapes are equal and affines agree within 1e-3 mm (of tiny voxels, a hundredth)."""
    if geometry.shape != reference.shape:
        raise InputError(
            f"{path} has shape {_by(geometry.shape)} but {reference_path.name} of the same case has "
            f"{_by(reference.shape)}"
        )
    difference = np.abs(np.asarray(geometry.affine) - np.asarray(reference.affine)).max()
    if difference > min(GEOMETRY_TOLERANCE, 0.01 * min(reference.spacing_mm)):
        raise InputError(
            f"{path} and {reference_path.name} of the same case are at different positions: their affines differ "
            f"by up to {difference:.3g} mm"
        )


def stored_values(path: Path, image: "nibabel.Nifti1Image") -> Iterator[AnyArray]:
    """Yield the file's unscaled values, flat and in file order (first axis fastest), in pieces.

    Each piece lies in the same buffer, so it is valid until the next is asked for. A compressed file is read to its end
    so that its checksum is verified. Raises InputError naming the file when it ends early or is damaged.
    """
    count = math.prod(image.shape)
    proxy = _proxy(image)
    buffer = np.empty(min(CHUNK_VALUES, count), dtype=proxy.dtype)
    compressed = path.name.endswith(".gz")
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            file.seek(proxy.offset)
            for start in range(0, count, CHUNK_VALUES):
                piece = buffer[: min(CHUNK_VALUES, count - start)]
                got = file.readinto(piece.view(np.uint8).data)
                if got < piece.nbytes:
                    missing = (count - start) * piece.itemsize - got
                    raise InputError(f"{path} is cut short: {missing:,} bytes of its values are missing")
                yield piece
            while compressed and file.read(2**20):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({_one_line(error)})") from error


def grey_values(path: Path, image: "nibabel.Nifti1Image") -> Iterator[Float32s]:
    """Yield the file's grey values as float32, scaled by the header's slope and intercept, flat, in file order."""
    slope, intercept = np.float32(_proxy(image).slope), np.float32(_proxy(image).inter)
    for piece in stored_values(path, image):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is counted as not finite by the readers
            values = piece.astype(np.float32)
            if slope != 1:
                values *= slope
            if intercept != 0:
                values += intercept
        yield values


def whole_values(path: Path, image: "nibabel.Nifti1Image") -> Iterator[Labels]:
    """Yield a mask's values as integers, flat, in file order.

    Floating or scaled values are rounded when within 1e-3 of a whole number (truncating would turn 3.9999998 into 3).
    Raises InputError naming the file and the value otherwise.
    """
    slope, intercept = float(_proxy(image).slope), float(_proxy(image).inter)
    for piece in stored_values(path, image):
        if piece.dtype.kind in "iub" and slope == 1 and intercept == 0:
            yield piece
            continue
        values = piece.astype(np.float64) * slope + intercept
        with np.errstate(invalid="ignore"):
            rounded = np.rint(values)
            whole = (np.abs(values - rounded) <= WHOLE_TOLERANCE) & (np.abs(values) < 2**31)
        if not whole.all():
            raise InputError(f"{path} holds the value {values[~whole][0]:.6g}, but the values of a mask are whole")
        yield rounded.astype(np.int64)


def count_label_values(path: Path) -> dict[int, int]:
    """Count the voxels of each value in a mask: value -> voxels, by rising value, only values that occur."""
    path = Path(path)
    counts: Counter[int] = Counter()
    for piece in whole_values(path, open_nifti(path)):
        count_values(piece, counts)
    return {value: count for value, count in sorted(counts.items()) if count}


def count_values(piece: Labels, counts: Counter[int]) -> None:
    """Add the number of each value in a piece of a mask to `counts`."""
    low, high = int(piece.min()), int(piece.max())
    if high - low < 16:  # comparing is twenty times faster than binning, and most masks have few values
        counts.update({value: int(np.count_nonzero(piece == value)) for value in range(low, high + 1)})
    elif high - low < 2**20:
        numbers = np.bincount(piece.astype(np.int64) - low)
        values = np.flatnonzero(numbers)
        counts.update({int(value) + low: int(numbers[value]) for value in values})
    else:
        values, numbers = np.unique(piece, return_counts=True)
        counts.update({int(value): int(number) for value, number in zip(values, numbers, strict=True)})


def _proxy(image: "nibabel.Nifti1Image") -> "ArrayProxy":
    """Return the part of an image that keeps type, offset and scaling of its file (nibabel types it as any array)."""
    return cast("ArrayProxy", image.dataobj)


def _by(sizes: tuple[float, ...]) -> str:
    return " × ".join(f"{size:g}" for size in sizes)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:  # the sentences name the file already
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
