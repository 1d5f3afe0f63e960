"""Read and write pictures (PNG, JPEG, BMP, GIF) by Pillow."""

import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from voxloss.data.formats.geometry import Geometry, picture_geometry
from voxloss.data.formats.volume import Remark, Volume, decoding, library, one_line, pieces_of, require_file
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["image", "mask"]

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF"}
EXIF_ORIENTATION = 0x0112
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type of PNG -> samples per pixel
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
COLOUR_PNG = {2: 3, 4: 1, 6: 3}  # colour type of PNG with several samples per pixel -> samples without alpha


class Samples(Volume):
    """Pixels with one or several samples, as pictures and TIFF files have them.

    An image's colours are its channels, without alpha. The value of a mask's pixel is its grey value; if the palette
    has colours, the index; if red, green and blue are equal everywhere, their value.
    """

    role: Role
    alpha: bool = False
    colours: int = 1  # samples per pixel without alpha

    @property
    def channels(self) -> int:
        """The number of channels; 1 of a mask, whose colours must be grey."""
        return 1 if self.role == "mask" else self.colours

    def _pieces(self, samples: AnyArray) -> Iterator[AnyArray]:
        """Yield the values of an array (*volume, sample), whose alpha, if any, is the last sample."""
        if self.colours == 1:
            yield from pieces_of(samples[..., 0])
            return
        colours = np.moveaxis(samples[..., : self.colours], -1, 0)
        if self.role == "image":
            yield from pieces_of(colours)
            return
        if any(not np.array_equal(colours[0], other) for other in colours[1:]):
            raise InputError(
                f"{self.path} holds colours, but a mask has one value per pixel; save it in grey or with a palette"
            )
        yield from pieces_of(colours[0])

    def remarks(self) -> Iterator[Remark]:
        """Say if alpha is left out."""
        if self.alpha:
            yield "note", f"the transparency (alpha) of {self.path.name} is left out"


class Picture(Samples):
    """An open picture: a volume of one slice, (X, Y, 1).

    The resolution in a picture (dots per inch) says how large it is printed, not how large a pixel is in the body, so
    the unit is the pixel. A photograph is turned upright as its EXIF orientation says, as viewers do.
    """

    def __init__(self, path: Path, role: Role) -> None:
        pillow = library("PIL.Image", path, "formats")
        self.path, self.role = path, role
        kind = KINDS[path.suffix.casefold()]
        require_file(path, f"a {kind} picture")
        try:
            with pillow.open(path, formats=sorted(set(KINDS.values()))) as image:
                kind = image.format or kind
                frames = int(getattr(image, "n_frames", 1))
                self._mode, self._size = image.mode, image.size
                palette = palette_of(image)
                self.alpha = image.has_transparency_data
                if kind == "MPO":  # a photograph, followed by previews or depths
                    kind, frames = "JPEG", 1
                self._orientation = int(image.getexif().get(EXIF_ORIENTATION, 1)) if kind == "JPEG" else 1
        except pillow.UnidentifiedImageError as error:
            raise InputError(f"{path} is not a {kind} picture") from error
        except Exception as error:
            raise InputError(f"{path} cannot be read ({one_line(error)})") from error
        if role == "mask" and kind == "JPEG":
            raise InputError(f"{path} is a JPEG, which changes the values of a mask; save masks as PNG")
        if frames > 1:
            raise InputError(f"{path} has {frames} frames where a picture has one; save a stack as TIFF")
        if self._mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I"):
            raise InputError(f"{path} stores {self._mode} colours; save it in grey values or as RGB")
        self._by_index = palette is not None and role == "mask" and not is_grey(palette)
        coloured = self._mode in ("RGB", "RGBA") or (
            palette is not None and not self._by_index and not is_grey(palette)
        )
        deep = _deep_colours(path) if kind == "PNG" else None
        self.colours = deep or (3 if coloured else 1)
        self._deep = deep is not None
        # Of PNG with 16 bits per colour Pillow reads eight, and black and white BMP with 4 or 8 bits it reads as bits.
        self._by_itk = self._deep or (kind == "BMP" and self._mode == "1" and _bits_of_bmp(path) > 1)
        if self._by_itk:
            library("SimpleITK", path, "formats")
        self._kind = kind
        self.dtype = np.dtype(np.uint16 if self._deep or self._mode.startswith("I") else np.uint8)
        width, height = self._size if self._orientation < 5 else self._size[::-1]
        self.shape = (width, height) if self.colours == 1 else (width, height, self.colours)

    @cached_property
    def geometry(self) -> Geometry:
        """The grid, in pixels."""
        return picture_geometry(self.path, (self.shape[0], self.shape[1], 1), None)

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the values of the first channel, row by row, then those of the next."""
        if self._kind == "PNG":
            _require_whole_png(self.path)
        pillow = library("PIL.Image", self.path, "formats")
        with decoding(self.path), pillow.open(self.path, formats=sorted(set(KINDS.values()))) as image:
            image.verify()  # of PNG the checksums, which reading pixels leaves out in part
        yield from self._pieces(self._itk_samples() if self._by_itk else self._samples())

    def remarks(self) -> Iterator[Remark]:
        """Say what is left out, or done before the picture is used."""
        yield from super().remarks()
        if self._orientation != 1:
            yield (
                "warning",
                f"{self.path.name} is stored turned or mirrored (EXIF orientation {self._orientation}) and is used "
                "upright, as viewers show it; was its mask drawn on the upright picture?",
            )

    def _samples(self) -> AnyArray:
        pillow, operations = (library(name, self.path, "formats") for name in ("PIL.Image", "PIL.ImageOps"))
        with decoding(self.path), pillow.open(self.path, formats=sorted(set(KINDS.values()))) as image:
            image.load()
            if self._orientation != 1:
                image = operations.exif_transpose(image)
            if image.mode == "P" and not self._by_index:
                image = image.convert("RGB")
            elif image.mode == "PA":
                image = image.getchannel(0) if self._by_index else image.convert("RGB")
            elif image.mode == "1":
                image = image.convert("L")
            samples = np.asarray(image)
        samples = samples[..., None] if samples.ndim == 2 else samples
        return samples.astype(self.dtype, copy=False)

    def _itk_samples(self) -> AnyArray:
        sitk = library("SimpleITK", self.path, "formats")
        with decoding(self.path):
            samples: AnyArray = sitk.GetArrayFromImage(sitk.ReadImage(str(self.path), imageIO=f"{self._kind}ImageIO"))
        return samples if samples.ndim == 3 else samples[..., None]


def palette_of(image: "Image") -> list[tuple[int, ...]] | None:
    """Return the colours of a picture's palette; None if it has none."""
    if image.mode not in ("P", "PA") or image.palette is None:
        return None
    values = image.getpalette("RGB") or []
    return [tuple(values[start : start + 3]) for start in range(0, len(values), 3)]


def is_grey(palette: Any) -> bool:
    """Return whether a palette has only greys; its indices stand for grey values then, else for classes."""
    return all(red == green == blue for red, green, blue in palette)


def write_mask(path: Path, label: Labels, like: Path) -> None:
    """Write a label map (X, Y, 1) of uint8 or uint16 as a grey PNG."""
    pillow = library("PIL.Image", like, "formats")
    pillow.fromarray(np.ascontiguousarray(label[:, :, 0].T)).save(path, format="PNG")


def _bits_of_bmp(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(30)
    return int.from_bytes(header[28:30], "little")


def _require_whole_png(path: Path) -> None:
    """Raise InputError if a PNG's pixels end early: Pillow takes the others as 0."""
    content = path.read_bytes()
    width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
    depth, colour, interlaced = content[24], content[25], content[28]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, right, down in passes:
        columns, rows = max(0, -(-(width - left) // right)), max(0, -(-(height - top) // down))
        expected += rows * (1 + (columns * depth * SAMPLES.get(colour, 1) + 7) // 8) if columns else 0
    there, place, stream = 0, 8, zlib.decompressobj()
    with decoding(path):
        while place + 12 <= len(content):
            length = int.from_bytes(content[place : place + 4], "big")
            if content[place + 4 : place + 8] == b"IDAT":
                there += len(stream.decompress(content[place + 8 : place + 8 + length]))
            place += 12 + length
    if there < expected:
        raise InputError(f"{path} is damaged: {expected - there:,} bytes of its pixels are missing")


def _deep_colours(path: Path) -> int | None:
    """Return the samples per pixel, without alpha, of a PNG of 16 bits per sample; None for all others."""
    with path.open("rb") as file:
        header = file.read(26)
    return COLOUR_PNG.get(header[25]) if len(header) == 26 and header[24] == 16 else None
