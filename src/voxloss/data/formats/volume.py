"""What all formats have in common: an open image or mask gives its grid, and its values in pieces."""

import importlib
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxloss.data.formats.geometry import Geometry
from voxloss.utilities.arrays import AnyArray, Float32s, Labels
from voxloss.utilities.errors import InputError

CHUNK_VALUES = 2**18  # values handled at a time: 2 MB in the widest type, which stays in cache
WHOLE_TOLERANCE = 1e-3

Remark = tuple[Literal["error", "warning", "note"], str]


class Volume(ABC):
    """An open image or mask. Opening reads the header alone; reading values raises InputError where they are damaged.

    Attributes:
        path: The file, or the folder of a series.
        shape: The sizes as the file has them, for messages.
        dtype: The type of the stored values.
        slope, intercept: What turns stored values into those that are meant.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def at_once(self) -> int:
        """Bytes that are held while values are read, as the library reads all at once."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """The grid. Raises InputError if a voxel has no positive finite size."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The number of channels."""

    @abstractmethod
    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the stored values, flat, first array axis fastest and channels slowest, in pieces.

        A piece is valid until the next is asked for.
        """

    @property
    def scaling(self) -> str:
        """Say how the header scales the stored values; empty if it does not."""
        if (self.slope, self.intercept) == (1, 0):
            return ""
        return f"the header multiplies stored values by {self.slope:g} and adds {self.intercept:g}"

    @property
    def names(self) -> dict[int, str]:
        """The names that a mask gives to its values, as DICOM segmentations do; else none."""
        return {}

    def remarks(self) -> Iterator[Remark]:
        """Yield what is odd about the header, for `voxloss check`."""
        yield from ()

    def grey_values(self) -> Iterator[Float32s]:
        """Yield the values as float32, in the order of `stored_values`."""
        slope, intercept = np.float32(self.slope), np.float32(self.intercept)
        for piece in self.stored_values():
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is counted as not finite by the readers
                values = piece.astype(np.float32)
                if slope != 1:
                    values *= slope
                if intercept != 0:
                    values += intercept
            yield values

    def whole_values(self) -> Iterator[Labels]:
        """Yield a mask's values as integers, in the order of `stored_values`.

        Floating or scaled values are rounded when within 1e-3 of a whole number (truncating would turn 3.9999998 into
        3). Raises InputError naming the file and the value otherwise.
        """
        for piece in self.stored_values():
            if piece.dtype.kind in "iub" and self.slope == 1 and self.intercept == 0:
                yield piece
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                values = piece.astype(np.float64) * self.slope + self.intercept
                rounded = np.rint(values)
                whole = (np.abs(values - rounded) <= WHOLE_TOLERANCE) & (np.abs(values) < 2**31)
            if not whole.all():
                scaled = f" ({self.scaling})" if self.scaling else ""
                raise InputError(
                    f"{self.path} holds the value {values[~whole][0]:.6g}{scaled}, but the values of a mask are whole"
                )
            yield rounded.astype(np.int64)


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


def pieces_of(values: AnyArray) -> Iterator[AnyArray]:
    """Yield the values of an array in pieces, flat, last axis fastest, without a copy of it all."""
    if values.size > CHUNK_VALUES and values.ndim > 1 and not values.flags.c_contiguous:
        rows = max(1, CHUNK_VALUES * len(values) // values.size)
        for start in range(0, len(values), rows):
            yield from pieces_of(values[start] if rows == 1 else values[start : start + rows])
        return
    flat = values.reshape(-1)
    for start in range(0, flat.size, CHUNK_VALUES):
        yield flat[start : start + CHUNK_VALUES]


def require_file(path: Path, what: str) -> None:
    """Raise InputError unless a path is a file with content that can be opened; `what` should be there."""
    if path.is_dir():
        raise InputError(f"{path} is a folder where {what} should be")
    if not path.is_file():
        raise InputError(absent(path))
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        with path.open("rb") as file:  # libraries say of a file without permission that it is none
            beginning = file.read(64).lstrip().lower()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    if beginning.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS instead of the file, which `git lfs pull` fetches")
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path} is a web page or XML instead of {what}; was it downloaded without signing in?")


def absent(path: Path) -> str:
    """Return the sentence about a path where nothing is, or a link that leads nowhere."""
    if not path.is_symlink():
        return f"{path} does not exist"
    try:
        path.stat()
    except FileNotFoundError:
        target = str(path.readlink())
        fetch = "; `datalad get` or `git annex get` fetches it" if ".git/annex" in target else ""
        return f"{path} is a link to {target}, which does not exist{fetch}"
    except (OSError, RuntimeError):  # links in a circle
        return f"{path} is a link that leads back to itself"
    return f"{path} does not exist"


def library(name: str, path: Path, extra: str) -> Any:
    """Import what reads a file. Raises InputError with the install command if it is not there."""
    package = name.split(".")[0]
    # What it remarks on odd files would stand between our lines.
    warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
    logging.getLogger(package).setLevel(logging.CRITICAL)
    try:
        return importlib.import_module(name)
    except ImportError:
        package = "Pillow" if package == "PIL" else package
        raise InputError(
            f"{path} needs the package {package}; install it with: pip install 'voxloss[{extra}]' "
            f"(in a checkout: pip install '.[{extra}]')"
        ) from None


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a library raises about a file into InputError: damaged files make decoders fail in any way."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, for the end of a sentence."""
    if isinstance(error, OSError) and error.strerror:  # the sentences name the file already
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
