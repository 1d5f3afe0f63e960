"""A case: its files, read and written on the stored grid, without reorientation."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxloss.data.formats import exists, files_of, mask_ending, open_image, open_mask, write_mask
from voxloss.data.formats.geometry import Geometry, check_same_geometry, sized
from voxloss.data.formats.volume import Volume, count_values
from voxloss.utilities.arrays import AnyArray, ClassIndices, Float32s, Labels, Mask
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder, atomic_path
from voxloss.utilities.text import not_finite_values

MAX_LABEL_VALUE = 65535
LONGEST_ID = 216  # bytes: file systems take 255, and the folder of a prepared case adds 39 while it is written
UNDECLARED = 255  # marks, in a mapped mask, a value that no class has
IGNORED = 254  # the index of voxels that count in no loss and no score, such as those that nobody annotated


@dataclass(frozen=True)
class Case:
    """One patient or scan. The files need not exist yet.

    Args:
        case_id: Its id, which is safe as a folder's name.
        images: One file (or DICOM series) per channel; a single file may hold several channels.
        label: The mask.
        region: A mask of the region of interest: voxels where it is 0 count in no loss and no score.
        spacing_mm: The size of a voxel where the files do not tell it, as pictures do not.

    Raises:
        InputError: An id that is empty, ".", "..", or has a path separator or a control character.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    region: Path | None = None
    spacing_mm: tuple[float, float, float] | None = None

    def placed(self, geometry: Geometry) -> Geometry:
        """Return the grid of a file of this case, with the case's size of a voxel if the file does not tell it."""
        return sized(geometry, self.files[0], self.spacing_mm)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, then the mask and the region of interest if there are such."""
        return (*self.images, *(path for path in (self.label, self.region) if path is not None))

    def __post_init__(self) -> None:
        name = self.case_id
        if name in ("", ".", "..") or any(sign in "/\\" or not sign.isprintable() for sign in name):
            raise InputError(
                f"{name!r} cannot be a case's id, since results are kept in a folder of that name; rename its files"
            )
        if (size := len(name.encode())) > LONGEST_ID:
            raise InputError(
                f"the case id {name[:20]}… has {size} bytes, and with the endings of its results it has room for "
                f"{LONGEST_ID}; shorten the names of its files"
            )


def read_image(case: Case) -> tuple[Float32s, Geometry]:
    """Read a case's channels as float32 (channel, *shape), in the stored axis order, with the header's scaling.

    Each channel keeps the file's memory order (first axis fastest). Raises InputError naming the file: absent,
    damaged, not a volume, a channel on another grid than the first (affines within 1e-3), or values not finite.
    """
    if not case.images:
        raise InputError(f"case {case.case_id} has no image")
    opened = [open_image(path) for path in case.images]
    geometry = opened[0].geometry
    channels = 0
    for file in opened:
        check_same_geometry(file.path, file.geometry, case.images[0], geometry)
        channels += file.channels
    voxels = math.prod(geometry.shape)
    values = _room(case.images[0], channels * voxels, np.float32)
    start = 0
    for file in opened:
        not_finite = 0
        for piece in file.grey_values():
            values[start : start + piece.size] = piece
            start += piece.size
            not_finite += piece.size - int(np.count_nonzero(np.isfinite(piece)))
        if not_finite:
            raise InputError(f"{file.path} has {not_finite_values(not_finite)}")
    return values.reshape(channels, *geometry.shape[::-1]).transpose(0, 3, 2, 1), case.placed(geometry)


def read_label(
    case: Case, label_values: dict[int, int], value_hints: dict[int, str] | None = None
) -> tuple[ClassIndices, Geometry]:
    """Read a case's mask as uint8 class indices (*shape), in the stored axis order; `IGNORED` outside its region.

    label_values: value in the file -> class index. Floating masks are rounded when within 1e-3 of whole values.
    Raises InputError naming the file: absent, damaged, a value that is not whole or not in label_values (with the
    sentence of value_hints for that value), a grid other than that of the case's first image, if that exists, or an
    empty region.
    """
    if case.label is None:
        raise InputError(f"case {case.case_id} has no mask")
    path = case.label
    image = case.images[0] if case.images and exists(case.images[0]) else None
    file = open_mask(path, like=image)
    geometry = file.geometry
    require_one_channel(file)
    if image is not None:
        check_same_geometry(path, geometry, image, open_image(image).geometry)
    mapped, counts = map_label(file, label_values)
    for value in counts:
        if value not in label_values:
            raise InputError(undeclared_value(path, value, label_values, value_hints))
    if case.region is not None:
        mapped[~read_region(case.region, path, geometry, like=image)] = IGNORED
    return mapped, case.placed(geometry)


def read_region(path: Path, label: Path, geometry: Geometry, like: Path | None = None) -> Mask:
    """Read a region of interest: whether each voxel (*shape) lies in it, in the stored axis order.

    like: The image of the case, if it is there: a DICOM segmentation may have some of its slices only.
    Raises InputError naming the file: absent, damaged, values that are not whole, another grid than that of the mask
    `label`, or no voxel in it.
    """
    file = open_mask(path, like=like)
    require_one_channel(file, "region of interest")
    check_same_geometry(path, file.geometry, label, geometry)
    inside = _room(path, math.prod(geometry.shape), np.bool_)
    start = 0
    for values in file.whole_values():
        np.not_equal(values, 0, out=inside[start : start + values.size])
        start += values.size
    if not inside.any():
        raise InputError(f"{path} is an empty region of interest: it has no voxel other than 0")
    region: Mask = inside.reshape(geometry.shape, order="F")
    return region


def require_one_channel(mask: Volume, what: str = "mask") -> None:
    """Raise InputError if an open mask has several channels."""
    if mask.channels != 1:
        raise InputError(
            f"{mask.path} has shape {mask.shape} where a {what} has three axes; a mask with a channel for each "
            "class is to be written as one volume with a value for each class"
        )


def map_label(file: Volume, label_values: dict[int, int]) -> tuple[ClassIndices, dict[int, int]]:
    """Read an open mask once: class indices uint8 (*shape), `UNDECLARED` for other values; and voxels of each value."""
    shape = file.geometry.shape
    table = _class_table(label_values)
    mapped = _room(file.path, math.prod(shape), np.uint8)
    counts: Counter[int] = Counter()
    start = 0
    for values in file.whole_values():
        _map_values(values, table, mapped[start : start + values.size])
        count_values(values, counts)
        start += values.size
    return mapped.reshape(shape, order="F"), {value: count for value, count in sorted(counts.items()) if count}


def _room(path: Path, count: int, kind: type[np.generic]) -> AnyArray:
    try:
        return np.empty(count, dtype=kind)
    except (MemoryError, ValueError):  # ValueError: more than any machine has
        size = count * np.dtype(kind).itemsize / 1e9
        raise InputError(f"{path} takes {size:,.0f} GB of memory by its header, which this machine has not") from None


def undeclared_value(path: Path, value: int, label_values: dict[int, int], hints: dict[int, str] | None) -> str:
    """Return the sentence about a value of a mask that no class has."""
    declared = ", ".join(str(known) for known in sorted(label_values))
    hint = (hints or {}).get(value)
    return f"{path} holds the value {value}, but the declared values are {declared}" + (f": {hint}" if hint else "")


def _class_table(label_values: dict[int, int]) -> ClassIndices:
    if wrong := [value for value in label_values if not 0 <= value <= MAX_LABEL_VALUE]:
        raise InputError(
            f"label_values holds {wrong[0]}, but the values of a mask should lie in 0 to {MAX_LABEL_VALUE}"
        )
    table = np.full(MAX_LABEL_VALUE + 1, UNDECLARED, dtype=np.uint8)
    for value, index in label_values.items():
        table[value] = index
    return table


def _map_values(values: Labels, table: ClassIndices, out: ClassIndices) -> None:
    if values.dtype in (np.uint8, np.uint16):
        np.take(table, values, out=out)
        return
    inside = (values >= 0) & (values <= MAX_LABEL_VALUE)
    np.take(table, np.where(inside, values, 0), out=out)
    out[~inside] = UNDECLARED


def may_replace(path: Path, like: Path) -> bool:
    """Return whether a new mask may take a path's place: nothing is there, or a file, or a folder of slices alone."""
    if path.is_dir():
        return mask_ending(like) == "" and {*path.iterdir()} == {*files_of(path)}
    return not path.exists() or mask_ending(like) != ""


def write_label(path: Path, label: Labels, like: Path, names: Mapping[int, str] | None = None) -> None:
    """Write a label map (*shape) on the grid and in the format (`mask_ending`) of an image, whole or not at all.

    The type is uint8, or uint16 if a value is above 255. `names` are those of the values, which a DICOM segmentation
    keeps. Raises InputError when the shape is not that of `like`, a value does not fit, or `path` is a folder with
    more than slices.
    """
    shape = open_image(like).geometry.shape
    if label.shape != shape:
        raise InputError(f"a label of shape {label.shape} does not fit {like}, which has shape {shape}")
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    if label.dtype.kind not in "iub" or not 0 <= low <= high <= MAX_LABEL_VALUE:
        raise InputError(
            f"a label of {label.dtype} values cannot be written to {path}: values are 0 to {MAX_LABEL_VALUE}"
        )
    if not may_replace(Path(path), like):
        raise InputError(f"a mask cannot be written to {path}, which is no mask that it could replace")
    with (atomic_path if mask_ending(like) else atomic_folder)(Path(path)) as partial:
        write_mask(partial, label.astype(np.uint8 if high <= 255 else np.uint16, copy=False), like, names)
