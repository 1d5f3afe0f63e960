"""Read and write a volume that is a folder of pictures, one for each slice."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np

from voxloss.data.formats.geometry import Geometry, picture_geometry, times
from voxloss.data.formats.pictures import KINDS, Picture, Role
from voxloss.data.formats.pictures import write_mask as write_picture
from voxloss.data.formats.tiff import TiffVolume
from voxloss.data.formats.tiff import write_mask as write_tiff
from voxloss.data.formats.volume import Remark, Volume, pieces_of
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

TIFF = (".tif", ".tiff")
SHOWN = 5  # numbers of missing slices
FORMATS = KINDS | dict.fromkeys(TIFF, "TIFF")


class SliceStack(Volume):
    """An open folder of pictures: a volume (X, Y, Z) with a picture for each slice.

    Slices are in the natural order of their names, in which 9 goes before 10. Pictures do not say how far apart slices
    are, so the unit is the pixel.

    Args:
        path: The folder.
        role: What it holds.
        like: The folder of the image's slices, where a mask has one: its slices need the same numbers.
    """

    def __init__(self, path: Path, role: Role, like: Path | None = None) -> None:
        self.path, self.role = path, role
        files = slice_files(path)
        if not files:
            raise InputError(f"{path} is a folder without images")
        kinds = {_kind(file): file for file in reversed(files)}
        if len(kinds) > 1:
            names = " and ".join(sorted(file.name for file in kinds.values()))
            raise InputError(f"{path} holds {names}; all slices of a volume should be files of one format")
        self._slices = [_opened(file, role) for file in files]
        first = self._slices[0]
        for one in self._slices:
            if one.geometry.shape[2] > 1:
                raise InputError(
                    f"{one.path} has {one.geometry.shape[2]} pages where a slice has one; a stack of pages is a volume "
                    "by itself"
                )
            if one.geometry.shape != first.geometry.shape:
                sizes = [times(file.geometry.shape[:2]) for file in (one, first)]
                raise InputError(f"{one.path} has {sizes[0]} pixels, but {first.path.name} has {sizes[1]}")
            if one.channels != first.channels:
                raise InputError(
                    f"{one.path} has {one.channels} channels, but {first.path.name} has {first.channels}; save all "
                    "slices in grey values, or all in colours"
                )
            if role == "image" and one.dtype != first.dtype:
                raise InputError(
                    f"{one.path} has values of {one.dtype}, but {first.path.name} of {first.dtype}, so they may be "
                    "scaled differently"
                )
        self._channels = first.channels
        self.dtype = np.result_type(*(one.dtype for one in self._slices))
        columns, rows, _ = first.geometry.shape
        volume = (columns, rows, len(files))
        self.shape = volume if self.channels == 1 else (*volume, self.channels)
        if like is not None and like.is_dir():
            self._require_numbers_of(slice_files(like), like)

    @property
    def channels(self) -> int:
        """The number of channels: 3 of colours."""
        return self._channels

    @cached_property
    def geometry(self) -> Geometry:
        """The grid, in pixels."""
        return picture_geometry(self.path, (self.shape[0], self.shape[1], self.shape[2]), None)

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the values slice by slice; of colours, all slices of a channel before those of the next."""
        if self.channels == 1:
            for one in self._slices:
                yield from one.stored_values()
            return
        planes = [np.concatenate([piece.copy() for piece in one.stored_values()]) for one in self._slices]
        size = self.shape[0] * self.shape[1]
        yield from pieces_of(np.stack([plane.reshape(self.channels, size) for plane in planes], axis=1))

    def remarks(self) -> Iterator[Remark]:
        """Say what is odd about the names, and about the first slice with a remark."""
        files = [one.path for one in self._slices]
        gaps = _gaps(_numbers(files))
        if number := sum(map(len, gaps)):
            shown = ", ".join(map(str, islice(chain.from_iterable(gaps), SHOWN)))
            more = f" and {number - SHOWN} more" if number > SHOWN else ""
            yield "warning", f"{self.path.name} may lack slices: the numbers of its files leave out {shown}{more}"
        elif len(files) > 1 and not _numbers(files):
            first, last = files[0].name, files[-1].name
            yield "note", f"the slices of {self.path.name} are in the order of their names, from {first} to {last}"
        yield from next((found for one in self._slices if (found := list(one.remarks()))), [])

    def _require_numbers_of(self, image: Sequence[Path], folder: Path) -> None:
        """Raise InputError if the slices lie at other places than the image's, as far as numbers in the names tell."""
        own, others = (_numbers(files) for files in ([one.path for one in self._slices], image))
        if len(own) != len(others) or not own:
            return  # another number of slices is another grid
        for number, other, one, picture in zip(own, others, self._slices, image, strict=True):
            if number - own[0] != other - others[0]:
                raise InputError(
                    f"the slices of {self.path} and {folder} have different numbers, so they may not belong together: "
                    f"{one.path.name} lies on {picture.name}"
                )


def slice_files(path: Path) -> list[Path]:
    """Return the visible pictures in a folder in the natural order of their names, in which 9 goes before 10.

    Raises InputError if two names have the same place in it, such as 1.png and 01.png.
    """
    files = [file for file in path.iterdir() if _kind(file) and not file.name.startswith(".") and file.is_file()]
    files.sort(key=lambda file: (_natural(file), file.name))
    for one, other in pairwise(files):
        if _natural(one) == _natural(other):
            raise InputError(f"{one} and {other.name} have the same number, so the order of the slices is not known")
    return files


def is_stack(path: Path) -> bool:
    """Return whether a path is a visible folder with pictures, of which the first is no volume by itself."""
    if path.name.startswith(".") or not path.is_dir():
        return False
    try:
        files = slice_files(path)
        return bool(files) and (_kind(files[0]) != "TIFF" or TiffVolume(files[0], "image").geometry.shape[2] == 1)
    except InputError:  # which opening it tells
        return True


def write_mask(folder: Path, label: Labels, like: Path) -> None:
    """Write a label map (X, Y, Z) of uint8 or uint16 as a picture for each slice, named like the image's slices."""
    files = slice_files(like)
    for number, file in enumerate(files):
        plane = label[:, :, number : number + 1]
        if _kind(file) == "TIFF":
            write_tiff(folder / f"{file.stem}.tif", plane, file)
        else:  # JPEG would change the values, and BMP and GIF hold none above 255
            write_picture(folder / f"{file.stem}.png", plane, file)


def _kind(file: Path) -> str:
    return FORMATS.get(file.suffix.casefold(), "")


def _opened(file: Path, role: Role) -> Picture | TiffVolume:
    return TiffVolume(file, role) if _kind(file) == "TIFF" else Picture(file, role)


def _natural(file: Path) -> tuple[str | int, ...]:
    """Return the parts of a name, of which every second is a number."""
    parts = re.split(r"(\d+)", file.stem.casefold())
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def _numbers(files: Sequence[Path]) -> list[int]:
    """Return the number in each name that counts the slices; none if the names differ in another way too."""
    names = [_natural(file) for file in files]
    if len({len(name) for name in names}) > 1:
        return []
    differing = [place for place, parts in enumerate(zip(*names, strict=True)) if len(set(parts)) > 1]
    if len(files) == 1 or len(differing) != 1 or differing[0] % 2 == 0:
        return []
    return [int(name[differing[0]]) for name in names]


def _gaps(numbers: Sequence[int]) -> list[range]:
    """Return the numbers that are left out between those that there are, which may count in larger steps."""
    usual = math.gcd(*(above - below for below, above in pairwise(numbers))) or 1
    return [range(below + usual, above, usual) for below, above in pairwise(numbers)]
