"""Read and write MetaImage (MHA, MHD) and NRRD (NRRD, NHDR) by SimpleITK."""

import math
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxloss.data.formats.geometry import Geometry, geometry_from, lps_affine
from voxloss.data.formats.volume import Remark, Volume, decoding, library, one_line, pieces_of, require_file
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

HEADER_BYTES = 2**22  # no header is longer; what looks so is no image

# SimpleITK's names of pixel types; "vector of " stands before that of images with channels.
DTYPES = {f"{8 * size}-bit {name}": f"{kind}{size}" for name, kind, sizes in (
    ("signed integer", "i", (1, 2, 4, 8)), ("unsigned integer", "u", (1, 2, 4, 8)), ("float", "f", (4, 8)),
) for size in sizes}  # fmt: skip


class ItkVolume(Volume):
    """An open MetaImage or NRRD file. The fourth axis, or the components of a pixel, are channels."""

    def __init__(self, path: Path) -> None:
        sitk = library("SimpleITK", path, "formats")
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        self.path = path
        self._header = _header(path)
        self._data = data_files(path)[-1]
        self._reader = sitk.ImageFileReader()
        self._reader.SetFileName(str(path))
        form = "NrrdImageIO" if _is_nrrd(path) else "MetaImageIO"
        if sitk.ImageFileReader.GetImageIOFromFileName(str(path)) != form:
            raise InputError(f"{path} is not a {_kind(path)} file")
        self._reader.SetImageIO(form)
        try:
            self._reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(f"{path} is not a {_kind(path)} file ({_reason(error)})") from error
        pixel = sitk.GetPixelIDValueAsString(self._reader.GetPixelIDValue())
        self._components = int(self._reader.GetNumberOfComponents())
        if pixel.removeprefix("vector of ") not in DTYPES:
            raise InputError(f"{path} stores {pixel} values; grey values or labels are needed")
        self.dtype = np.dtype(DTYPES[pixel.removeprefix("vector of ")])
        self.shape = tuple(int(size) for size in self._reader.GetSize())
        if self._components > 1:
            self.shape = (*self.shape, self._components)
        spatial = len(self.shape) - (self._components > 1)
        if spatial not in (2, 3, 4) or (spatial == 4 and self._components > 1):
            raise InputError(f"{path} has shape {self.shape} where a volume has three axes, or four with channels")
        if math.prod(self.shape) < 1:
            raise InputError(f"{path} has shape {self.shape}, which holds no voxels")

    @cached_property
    def geometry(self) -> Geometry:
        """The grid, converted from ITK's LPS convention."""
        count = int(self._reader.GetDimension())
        sizes = [int(size) for size in self._reader.GetSize()]
        spacing, origin, directions = np.ones(3), np.zeros(3), np.eye(3)
        used = min(count, 3)
        spacing[:used] = self._reader.GetSpacing()[:used]
        origin[:used] = self._reader.GetOrigin()[:used]
        directions[:used, :used] = np.reshape(self._reader.GetDirection(), (count, count))[:used, :used]
        shape = (sizes[0], sizes[1], sizes[2] if count > 2 else 1)
        return geometry_from(self.path, shape, lps_affine(directions, spacing, origin), placed=self._is_placed())

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self._components * (self.shape[3] if self._reader.GetDimension() == 4 else 1)

    @property
    def names(self) -> dict[int, str]:
        """The names of the segments in a file of 3D Slicer (.seg.nrrd)."""
        fields = {key: self._reader.GetMetaData(key) for key in self._reader.GetMetaDataKeys()}
        numbers = {
            key.removesuffix("_LabelValue"): value for key, value in fields.items() if key.endswith("_LabelValue")
        }
        named = {value: fields.get(f"{segment}_Name", "") for segment, value in numbers.items()}
        return {int(value): name for value, name in named.items() if name and value.isdecimal()}

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the values; SimpleITK reads the volume at once."""
        self._require_whole()
        try:
            image = self._reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{self.path} is damaged ({_reason(error)})") from error
        sitk = library("SimpleITK", self.path, "formats")
        values: AnyArray = sitk.GetArrayViewFromImage(image)
        yield from pieces_of(np.moveaxis(values, -1, 0) if self._components > 1 else values)

    def remarks(self) -> Iterator[Remark]:
        """Say if the file has no anatomical space."""
        if not self._is_placed():
            yield "note", f"{self.path.name} names no anatomical space, so where left and right are is not known"

    def _is_placed(self) -> bool:
        # ITK takes every MetaImage as LPS, and an NRRD whose space has no name.
        return not _is_nrrd(self.path) or "space" in self._header or "space dimension" in self._header

    def _require_whole(self) -> None:
        """Find values that are missing or too many, for ITK prints the former to the terminal and ignores the latter.

        Of compressed values the checksum is verified, which ITK does not do.
        """
        raw = math.prod(self.shape) * self.dtype.itemsize
        if _is_nrrd(self.path):
            encoding = self._header.get("encoding", "raw").casefold()
            if encoding in ("gzip", "gz"):
                self._require_checksum(raw, 16 + zlib.MAX_WBITS)
            if (
                encoding != "raw"
                or self._header.get("byte skip", "0") != "0"
                or self._header.get("line skip", "0") != "0"
            ):
                return
            expected = raw
        else:
            if self._header.get("BinaryData", "true").casefold() in ("false", "0"):
                return
            skip = int(self._header.get("HeaderSize", "0"))
            if skip:  # -1: the values are at the end of the file
                return
            if self._header.get("CompressedData", "false").casefold() in ("true", "1"):
                if self._header.get("CompressedDataSize") != str(self._data.stat().st_size - self._values_start()):
                    raise InputError(f"{self.path} is damaged: CompressedDataSize is not the size of its values")
                self._require_checksum(raw, 32 + zlib.MAX_WBITS)  # zlib or gzip
                return
            expected = raw
        there = self._data.stat().st_size - self._values_start()
        if there < expected:
            raise InputError(f"{self._data} is cut short: {expected - there:,} bytes of its values are missing")
        if there > expected:
            raise InputError(
                f"{self._data} holds {there - expected:,} bytes more than the {expected:,} that the header of "
                f"{self.path.name} describes"
            )

    def _values_start(self) -> int:
        return int(self._header[VALUES_START]) if self._data == self.path else 0

    def _require_checksum(self, expected: int, form: int) -> None:
        there, stream = 0, zlib.decompressobj(form)
        try:
            with self._data.open("rb") as file:
                file.seek(self._values_start())
                while not stream.eof and (piece := file.read(2**20)):
                    there += len(stream.decompress(piece))
        except zlib.error as error:
            raise InputError(f"{self._data} is damaged ({one_line(error)})") from error
        if not stream.eof:
            raise InputError(f"{self._data} is damaged or cut short: its compressed values do not end")
        if there != expected:
            raise InputError(f"{self._data} holds {there:,} bytes of values where its header describes {expected:,}")


def write_mask(path: Path, label: Labels, like: Path) -> None:
    """Write a label map (*shape) of uint8 or uint16, compressed, on the grid of a MetaImage or NRRD file."""
    sitk = library("SimpleITK", like, "formats")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(like))
    reader.SetImageIO("NrrdImageIO" if _is_nrrd(like) else "MetaImageIO")
    reader.ReadImageInformation()
    count = int(reader.GetDimension())
    used = min(count, 3)
    stored = np.ascontiguousarray(label.T if used == 3 else label[:, :, 0].T)
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(reader.GetSpacing()[:used])
    image.SetOrigin(reader.GetOrigin()[:used])
    image.SetDirection(np.reshape(reader.GetDirection(), (count, count))[:used, :used].ravel().tolist())
    with decoding(path):
        sitk.WriteImage(image, str(path), True)


def data_files(path: Path) -> list[Path]:
    """Return the file, and the one beside it that holds the values, if there is one.

    Raises InputError if the header is none, or if the values are spread over several files.
    """
    header = _header(path)
    name = header.get("data file", header.get("datafile")) if _is_nrrd(path) else header.get("ElementDataFile")
    if not name or (name.casefold() == "local" and not _is_nrrd(path)):
        return [path]
    if name.casefold().startswith("list") or "%" in name:
        raise InputError(f"{path} has its values in several files; write it as one file, such as .mha or .nrrd")
    data = path.parent / name
    if not data.is_file():
        raise InputError(f"{path} has its values in {name!r}, which does not exist beside it")
    return [path, data]


VALUES_START = "(start of the values)"  # among the fields of a header


def _header(path: Path) -> dict[str, str]:
    """Return the fields of a text header, of NRRD with names in lower case, and at which byte the values begin."""
    require_file(path, f"a {_kind(path)} file")
    with path.open("rb") as file:
        beginning = file.read(HEADER_BYTES)
    fields: dict[str, str] = {}
    start, nrrd = 0, _is_nrrd(path)
    if nrrd and not beginning.startswith(b"NRRD"):
        raise InputError(f"{path} is not a NRRD file")
    while start < len(beginning):
        end = beginning.find(b"\n", start)
        end = len(beginning) if end < 0 else end
        line = beginning[start:end].decode("latin-1").strip()
        start = end + 1
        if nrrd and not line:
            break
        name, sign, value = line.partition(":" if nrrd else "=")
        if sign and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(name.strip().casefold() if nrrd else name.strip(), value.strip())
        if not nrrd and name.strip() == "ElementDataFile":
            break
    if not nrrd:
        _require_fields(path, fields)
    return fields | {VALUES_START: str(start)}


def _require_fields(path: Path, fields: dict[str, str]) -> None:
    """Raise InputError if a MetaImage's header lacks what ITK prints several lines to the terminal about."""
    for name in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(name):
            raise InputError(f"{path} is not a MetaImage file, or is damaged (it has no {name})")
    sizes = fields["DimSize"].split()
    if not all(size.isdecimal() for size in sizes) or fields["NDims"] != str(len(sizes)):
        raise InputError(f"{path} is damaged: DimSize is {fields['DimSize']!r} and NDims {fields['NDims']!r}")


def _is_nrrd(path: Path) -> bool:
    return path.name.casefold().endswith((".nrrd", ".nhdr"))


def _kind(path: Path) -> str:
    return "NRRD" if _is_nrrd(path) else "MetaImage"


def _reason(error: Any) -> str:
    """Return the last line of ITK's message, which says what is wrong; those before name its source files."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return lines[-1].removeprefix("sitk::ERROR: ").rstrip(".") if lines else "unknown reason"
