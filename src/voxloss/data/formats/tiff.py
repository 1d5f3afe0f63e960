"""Read and write TIFF (pictures and stacks, BigTIFF, those of ImageJ and OME) by tifffile."""

import math
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from voxloss.data.formats.geometry import Geometry, picture_geometry
from voxloss.data.formats.pictures import Role, Samples, is_grey
from voxloss.data.formats.volume import Remark, decoding, library, one_line, require_file
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

ALPHA = (1, 2)  # kinds of extra samples that are transparency
JPEG = (6, 7, 34892)  # kinds of compression
STACK_AXES = "ZQI"  # tifffile's letters of slices, and of pages of which the file does not say what they are
MM_OF_UNIT = {
    "nm": 1e-6, "µm": 1e-3, "μm": 1e-3, "um": 1e-3, "\\u00b5m": 1e-3, "micron": 1e-3, "microns": 1e-3,
    "micrometer": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0,
}  # fmt: skip

Spacing = tuple[float, float, float]


class TiffVolume(Samples):
    """An open TIFF file: a picture (X, Y, 1), or a stack of pages (X, Y, Z).

    ImageJ and OME-TIFF give the size of a voxel. The resolution of other files is that of printing, so their unit is
    the pixel.
    """

    def __init__(self, path: Path, role: Role) -> None:
        tifffile = library("tifffile", path, "formats")
        self.path, self.role = path, role
        require_file(path, "a TIFF file")
        try:
            with tifffile.TiffFile(path) as file:
                self._read_header(file)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path} is not a TIFF file, or is damaged ({one_line(error)})") from error

    def _read_header(self, file: Any) -> None:
        path = self.path
        pages = _require_pages(path, file.tiff)
        if len(file.series) != 1:
            raise InputError(f"{path} has {len(file.series)} images of different sizes or types; save each in a file")
        series = file.series[0]
        page = series.keyframe
        axes, shape = series.axes, series.shape
        kept = [(axis, size) for axis, size in zip(axes, shape, strict=True) if size > 1 or axis in "YX"]
        letters = "".join(axis for axis, _ in kept)
        stack = [axis for axis in letters if axis in STACK_AXES]
        others = set(letters) - set("YXSC") - set(stack)
        if others or len(stack) > 1 or letters.count("Y") != 1 or letters.count("X") != 1 or {*"SC"} <= set(letters):
            raise InputError(
                f"{path} has the axes {axes} with sizes {tuple(shape)}; a volume has slices, rows, columns and channels"
            )
        self._letters, self._stack = letters, stack[0] if stack else None
        sizes = dict(kept)
        self._palette: list[tuple[int, ...]] | None = None
        photometric = int(page.photometric)
        if photometric == 3 and page.colormap is not None:  # palette
            self._palette = [tuple(colour) for colour in np.asarray(page.colormap).T.tolist()]
        elif photometric not in (0, 1, 2) and not (photometric == 6 and "S" in letters):
            name = getattr(page.photometric, "name", photometric)
            raise InputError(f"{path} stores {name} colours; save it in grey values or as RGB")
        if self.role == "mask" and int(page.compression) in JPEG:
            raise InputError(f"{path} is compressed as JPEG, which changes the values of a mask; save it without loss")
        orientation = page.tags.get(274)
        if orientation is not None and int(orientation.value) != 1:
            raise InputError(
                f"{path} is stored turned or mirrored (orientation {int(orientation.value)}); save it upright"
            )
        self._inverted = photometric == 0
        self.alpha = "S" in letters and bool(page.extrasamples) and int(page.extrasamples[-1]) in ALPHA
        self.colours = sizes.get("C", sizes.get("S", 1) - self.alpha)
        stored = np.dtype(series.dtype)
        if self._palette is not None and (self.role == "image" or is_grey(self._palette)):
            self.colours = 1 if is_grey(self._palette) else 3
            if max(map(max, self._palette)) > 255:  # 16 bits per colour, of which files use the upper eight
                self._palette = [tuple(value >> 8 for value in colour) for colour in self._palette]
            stored = np.dtype(np.uint8)
        if stored.kind not in "iufb":
            raise InputError(f"{path} stores {stored} values; grey values or labels are needed")
        self.dtype = np.dtype(np.uint8) if stored.kind == "b" else stored  # black and white: 0 and 255
        depth = sizes[self._stack] if self._stack else 1
        volume = (sizes["X"], sizes["Y"], depth)
        if min(*volume, self.colours) < 1:
            raise InputError(f"{path} has shape {tuple(shape)}, which holds no pixels")
        self.shape = volume if self.colours == 1 else (*volume, self.colours)
        self._spacing = _spacing(file, page, depth)
        # tifffile believes descriptions, which may name pages that are not there, or in other files.
        if pages != len(series.pages) and not (pages == 1 and series.dataoffset is not None):
            raise InputError(f"{path} has {pages} pages, but describes itself as {len(series.pages)}")
        self._require_whole(series)

    def remarks(self) -> Iterator[Remark]:
        """Say what is left out or done."""
        yield from super().remarks()
        if self._inverted:
            yield "note", f"low values of {self.path.name} are white, so its values are inverted"

    @cached_property
    def geometry(self) -> Geometry:
        """The grid; its unit is the pixel if the file does not say how large one is."""
        return picture_geometry(self.path, (self.shape[0], self.shape[1], _depth(self.shape)), self._spacing)

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the values; tifffile reads the file at once."""
        tifffile = library("tifffile", self.path, "formats")
        with decoding(self.path), tifffile.TiffFile(self.path) as file:
            values: AnyArray = np.asarray(file.series[0].asarray())
        channel = next((axis for axis in "SC" if axis in self._letters), "S")
        values = values.reshape([size for axis, size in self._sizes_of(values)])
        order = [axis for axis in (self._stack, "Y", "X", channel) if axis is not None and axis in self._letters]
        values = values.transpose([self._letters.index(axis) for axis in order])
        if channel not in self._letters:
            values = values[..., None]
        if self._palette is not None and (self.role == "image" or is_grey(self._palette)):
            values = np.array(self._palette, dtype=np.uint8)[values[..., 0]]
        if values.dtype.kind == "b":
            values = values.astype(np.uint8) * 255
        if self._inverted and self.dtype.kind == "u":
            values = np.iinfo(self.dtype).max - values
        yield from self._pieces(values)

    def _sizes_of(self, values: AnyArray) -> list[tuple[str, int]]:
        kept = [size for size in values.shape if size > 1]
        wanted = [self._size(axis) for axis in self._letters]
        if [size for size in wanted if size > 1] != kept:
            raise InputError(f"{self.path} has values of shape {values.shape}, which its header does not describe")
        return list(zip(self._letters, wanted, strict=True))

    def _size(self, axis: str) -> int:
        sizes = {"X": self.shape[0], "Y": self.shape[1], "C": self.colours, "S": self.colours + self.alpha}
        return sizes.get(axis, _depth(self.shape))

    def _require_whole(self, series: Any) -> None:
        """Find missing values, which tifffile replaces by zeros."""
        there = self.path.stat().st_size
        if series.dataoffset is not None and series.dataoffset + series.nbytes > there:
            raise InputError(f"{self.path} is cut short: values of its pages are missing")
        for page in series.pages:
            if page is None:
                raise InputError(f"{self.path} lacks a page")
            if not page.dataoffsets or any(
                offset + count > there or count < 1
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ):
                raise InputError(f"{self.path} is cut short: values of a page are missing")
            kind = page.keyframe
            plain = int(kind.compression) == 1 and not kind.is_tiled and kind.bitspersample >= 8
            if plain and sum(page.databytecounts) not in (kind.nbytes, series.nbytes):
                raise InputError(f"{self.path} is damaged: the size of a page is not that of its values")


def _require_pages(path: Path, form: Any) -> int:
    """Count the pages. Raises InputError if a header is missing: tifffile leaves out that page and all that follow.

    Args:
        path: The file.
        form: tifffile's description of the sizes and types in a header.
    """
    there, seen = path.stat().st_size, set[int]()
    with path.open("rb") as opened:
        opened.seek(form.offsetsize if form.offsetsize == 8 else 4)
        place = struct.unpack(form.offsetformat, opened.read(form.offsetsize))[0]
        while place and place not in seen:
            seen.add(place)
            if place + form.tagnosize <= there:
                opened.seek(place)
                count = struct.unpack(form.tagnoformat, opened.read(form.tagnosize))[0]
                end = place + form.tagnosize + count * form.tagsize
            if place + form.tagnosize > there or end + form.offsetsize > there:
                raise InputError(f"{path} is cut short: the header of page {len(seen)} is missing")
            opened.seek(end)
            place = struct.unpack(form.offsetformat, opened.read(form.offsetsize))[0]
    return len(seen)


def write_mask(path: Path, label: Labels, like: Path) -> None:
    """Write a label map (X, Y, Z) of uint8 or uint16 as TIFF, with the voxel size of a TIFF file if that has one."""
    tifffile = library("tifffile", like, "formats")
    source = TiffVolume(like, "image")
    values = np.ascontiguousarray(label.T)
    settings: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
    if source.geometry.unit == "mm":
        x, y, z = source.geometry.spacing_mm
        settings = {
            "imagej": True,
            "resolution": (1 / x, 1 / y),
            "metadata": {"unit": "mm", "spacing": z, "axes": "ZYX"},
        }
    tifffile.imwrite(path, values if len(values) > 1 or "imagej" in settings else values[0], **settings)


def _depth(shape: tuple[int, ...]) -> int:
    return shape[2]


def _spacing(file: Any, page: Any, depth: int) -> Spacing | None:
    """Return the size of a voxel in mm as ImageJ or OME-TIFF give it; None if it is not known for each axis."""
    if file.is_ome and file.ome_metadata:
        return _ome_spacing(file.ome_metadata, depth)
    if not file.is_imagej:
        return None
    metadata = file.imagej_metadata or {}
    unit = MM_OF_UNIT.get(str(metadata.get("unit", "")).strip())
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    if unit is None or None in tags:
        return None
    per_unit = [tag.value[0] / tag.value[1] if tag.value[1] else 0.0 for tag in tags]
    between = metadata.get("spacing", 1.0 / unit if depth == 1 else None)
    if min(per_unit) <= 0 or between is None:
        return None
    return _known(unit / per_unit[0], unit / per_unit[1], unit * float(between))


def _ome_spacing(metadata: str, depth: int) -> Spacing | None:
    try:
        root = ElementTree.fromstring(metadata)
    except ElementTree.ParseError:
        return None
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None
    sizes = []
    for axis in "XYZ":
        size = pixels.get(f"PhysicalSize{axis}")
        unit = MM_OF_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size is None and axis == "Z" and depth == 1:
            sizes.append(1.0)
        elif size is None or unit is None:
            return None
        else:
            sizes.append(float(size) * unit)
    return _known(*sizes)


def _known(*sizes: float) -> Spacing | None:
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        return None
    return sizes[0], sizes[1], sizes[2]
