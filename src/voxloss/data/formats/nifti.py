"""Read NIfTI files in pieces, so that volumes never exist in float64 and damage anywhere in a file is noticed."""

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from voxloss.data.formats.geometry import GEOMETRY_TOLERANCE, Geometry, geometry_from, times
from voxloss.data.formats.volume import CHUNK_VALUES, Remark, Volume, one_line, require_file
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    import nibabel
    from nibabel.arrayproxy import ArrayProxy

# NIfTI's codes of spatial units, the three lowest bits of xyzt_units. Files without a code are in mm by custom.
UNIT_NAMES = {1: "metre", 2: "mm", 3: "micrometre"}
GZIP = b"\x1f\x8b"
HEADER_SIZES = (348, 540)  # the first number of a NIfTI-1 and of a NIfTI-2 file
MM_PER_UNIT = {1: 1e3, 3: 1e-3}


class NiftiVolume(Volume):
    """An open NIfTI file.

    The axes are those of the stored array; spacing is the length in mm of the affine's columns. The affine is the
    sform where its code is set, else the qform, else what the voxel sizes alone give (as nibabel does), converted to mm
    from the unit that the header names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image = open_nifti(path)
        proxy = _proxy(self._image)
        self.shape = tuple(int(size) for size in self._image.shape)
        self.dtype = proxy.dtype
        self.slope, self.intercept = float(proxy.slope), float(proxy.inter)

    @cached_property
    def geometry(self) -> Geometry:
        """The grid."""
        return geometry_of(self.path, self._image)

    @property
    def at_once(self) -> int:
        """Nothing: values are read in pieces."""
        return 0

    @property
    def channels(self) -> int:
        """The number of channels: the fourth axis, or as ITK writes them the fifth."""
        return volume_shape(self.path, self._image)[1]

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the file's unscaled values, in file order."""
        return stored_values(self.path, self._image)

    def remarks(self) -> Iterator[Remark]:
        """Compare the voxel sizes as stored, before nibabel's repairs, with those that are used."""
        from nibabel.openers import ImageOpener  # as in open_nifti

        with ImageOpener(str(self.path), "rb") as stream:
            stored = type(self._image.header).from_fileobj(stream, check=False)
        unit = mm_per_unit(self._image)
        spacing = self.geometry.spacing_mm
        sizes = tuple(float(size) * unit for size in stored["pixdim"][1 : min(4, len(self.shape) + 1)])
        placed = int(stored["sform_code"]) > 0
        agree = bool(np.allclose(sizes, spacing[: len(sizes)], rtol=1e-3))
        name = self.path.name
        if not all(math.isfinite(size) and size > 0 for size in sizes):
            used = f", whose affine gives {times(spacing)}, which are used" if placed else ""
            yield "warning" if placed else "error", f"voxel sizes of {times(sizes)} mm in the header of {name}{used}"
        elif not agree:
            yield (
                "warning",
                f"{name} gives voxel sizes of {times(sizes)} mm, its affine {times(spacing)}, which are used",
            )
        if unit != 1:
            yield (
                "note",
                f"the header's unit is the {UNIT_NAMES[int(stored['xyzt_units']) & 7]}, which is converted to mm",
            )
        if not placed and int(stored["qform_code"]) == 0:
            yield "note", "neither qform nor sform is set, so where left and right are is not known"
        if placed and int(stored["qform_code"]) > 0 and agree:
            difference = _form_difference(self._image) * unit
            if not difference <= GEOMETRY_TOLERANCE:
                yield "note", f"qform and sform differ by up to {difference:.3g} mm; the sform is used"


def open_nifti(path: Path) -> "nibabel.Nifti1Image":
    """Open a NIfTI file and read only its header. Raises InputError, naming the file, if that is impossible."""
    # nibabel imports SciPy, and commands that open no volume (status) import this module.
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError
    from nibabel.wrapstruct import WrapStructError

    # Its remarks on odd headers would stand between our lines; what matters of them is judged in data/check.
    nibabel.imageglobals.logger.setLevel(logging.CRITICAL)
    require_file(path, "a NIfTI file")
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError) as error:
        reason = _misnamed(path) or one_line(error)
        said = "" if str(path) in reason else f" ({reason})"  # says no more than that
        raise InputError(f"{path} is not a NIfTI file{said}") from error
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{path} is a {type(image).__name__}, not a single-file NIfTI image")
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(f"{path} stores {image.get_data_dtype()} values; grey values or labels are needed")
    return image


def _misnamed(path: Path) -> str:
    """Say what is wrong with the ending of a file that is compressed, or is not, against its name; or nothing."""
    compressed = path.name.casefold().endswith(".gz")
    with path.open("rb") as file:
        beginning = file.read(4)
    if not compressed:
        return f"it is compressed; name it {path.name}.gz" if beginning.startswith(GZIP) else ""
    if not beginning.startswith(GZIP):
        sizes = [one for size in HEADER_SIZES for one in (size.to_bytes(4, "little"), size.to_bytes(4, "big"))]
        return f"it is not compressed; name it {path.name[:-3]}" if beginning in sizes else ""
    try:
        with gzip.open(path) as inner:
            return "it is compressed twice; decompress it once" if inner.read(2**20).startswith(GZIP) else ""
    except (EOFError, OSError, zlib.error):
        return "its compressed data are damaged or cut short"


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
    shape, _ = volume_shape(path, image)
    affine = np.array(image.affine, dtype=np.float64)
    if len(image.shape) == 2 and not affine[:3, 2].any():  # a plane without thickness
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    affine[:3] *= mm_per_unit(image)
    placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    return geometry_from(path, shape, affine, placed=placed)


def mm_per_unit(image: "nibabel.Nifti1Image") -> float:
    """Return the length in mm of the unit that the header's affine and voxel sizes are in."""
    return MM_PER_UNIT.get(int(image.header["xyzt_units"]) & 7, 1.0)


def stored_values(path: Path, image: "nibabel.Nifti1Image") -> Iterator[AnyArray]:
    """Yield the file's unscaled values, flat and in file order (first axis fastest), in pieces.

    Each piece lies in the same buffer, so it is valid until the next is asked for. A compressed file is read to its end
    so that its checksum is verified. Raises InputError naming the file when it ends early or is damaged.
    """
    count = math.prod(image.shape)
    proxy = _proxy(image)
    buffer = np.empty(min(CHUNK_VALUES, count), dtype=proxy.dtype)
    compressed = path.name.casefold().endswith(".gz")
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
    except (EOFError, OSError, OverflowError, ValueError, zlib.error) as error:  # also an offset that no file has
        raise InputError(f"{path} is damaged ({one_line(error)})") from error


def write_mask(path: Path, label: Labels, like: Path) -> None:
    """Write a label map (*shape) of uint8 or uint16 on the grid of the NIfTI file `like`.

    Voxel sizes, both matrices (qform and sform), both codes and the units are copied as stored, so that a viewer places
    the label exactly on the image; nothing else is (scaling, window, names). The label of a plane (X, Y) is a plane.
    """
    source = open_nifti(like)
    stored = label.reshape(source.shape[:2]) if len(source.shape) == 2 else label
    header = type(source.header)()
    header.set_data_dtype(label.dtype)
    header.set_data_shape(stored.shape)
    header["pixdim"][:4] = source.header["pixdim"][:4]
    for name in ("qform_code", "sform_code", "xyzt_units"):
        header[name] = source.header[name]
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = source.header[name]
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name] = source.header[name]
    type(source)(stored, None, header).to_filename(path)


def _form_difference(file: "nibabel.Nifti1Image") -> float:
    """Return the largest difference between the matrices of qform and sform; infinite if the qform is none."""
    from nibabel.spatialimages import HeaderDataError  # as in open_nifti

    try:
        return float(np.abs(file.header.get_qform() - file.header.get_sform()).max())
    except (ValueError, HeaderDataError):  # a quaternion that is no rotation
        return math.inf


def _proxy(image: "nibabel.Nifti1Image") -> "ArrayProxy":
    """Return the part of an image that keeps type, offset and scaling of its file (nibabel types it as any array)."""
    return cast("ArrayProxy", image.dataobj)
