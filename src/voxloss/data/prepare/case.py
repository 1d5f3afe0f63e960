"""Clip, resample and normalise cases, with a cache of memory-mapped arrays that is keyed by settings and content."""

import hashlib
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from voxloss.data.case import IGNORED, Case, read_image, read_label
from voxloss.data.dataset import Dataset
from voxloss.data.formats import content_digest, read_geometry
from voxloss.data.formats.geometry import Geometry
from voxloss.data.grid import Turn, turn_of
from voxloss.data.prepare.resample import resample_classes, resample_image, resampled_shape
from voxloss.utilities.arrays import ClassIndices, Float32s, Integers, Mask
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder, write_json
from voxloss.utilities.machine import most_open_files

FORMAT = 1  # of the cache entries; a change of what is written or how it is computed raises it
FOREGROUND_VOXELS = 10_000  # per class, enough to draw patches from

Normalisation = Literal["zscore", "minmax", "none"]


@dataclass(frozen=True)
class Preparation:
    """The preparation of a volume before patches are cut, in this order (that of MIScnn, which the paper used).

    clip: lowest and highest grey value. spacing_mm: voxel sizes to resample to, per array axis of the data set's order
    (None: as stored). normalisation, per volume and channel: "zscore" is (x - mean) / std over all voxels, "minmax" is
    (x - min) / (max - min). Raises InputError for values that make no sense.
    """

    clip: tuple[float, float] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    normalisation: Normalisation = "zscore"

    def __post_init__(self) -> None:
        if self.clip is not None:
            object.__setattr__(self, "clip", tuple(float(value) for value in self.clip))
            if len(self.clip) != 2 or not all(map(math.isfinite, self.clip)) or self.clip[0] >= self.clip[1]:
                raise InputError(f"clip should be a lower and a higher grey value, but is {self.clip}")
        if self.spacing_mm is not None:
            object.__setattr__(self, "spacing_mm", tuple(float(value) for value in self.spacing_mm))
            if len(self.spacing_mm) != 3 or not all(math.isfinite(value) and value > 0 for value in self.spacing_mm):
                raise InputError(f"spacing_mm should be three positive sizes, but is {self.spacing_mm}")
        if self.normalisation not in get_args(Normalisation):
            raise InputError(
                f"normalisation should be one of {', '.join(get_args(Normalisation))}, not {self.normalisation!r}"
            )


class _OpenArray:
    """The open file of an array, which can be mapped without asking a file server again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        version = np.lib.format.read_magic(self._file)
        if version != (1, 0):
            raise ValueError(f"{path} has version {version} of NumPy's format")
        self._shape, fortran, self._dtype = np.lib.format.read_array_header_1_0(self._file)
        self._order: Literal["C", "F"] = "F" if fortran else "C"
        self._offset = self._file.tell()
        if self._dtype.hasobject:
            raise ValueError(f"{path} holds Python objects")

    def mapped(self) -> Any:
        return np.memmap(self._file, self._dtype, "r", self._offset, self._shape, self._order)

    def __del__(self) -> None:  # when it leaves the cache; a map has a descriptor of its own
        if hasattr(self, "_file"):
            self._file.close()


@lru_cache(maxsize=most_open_files() // 2)
def _opened_array(path: Path) -> _OpenArray:
    """Return an array's file, open: patches are cut from it at every step.

    Processes that are forked have it too; nothing depends on the position in it, which they share.
    """
    return _OpenArray(path)


@dataclass(frozen=True)
class PreparedCase:
    """A case in the cache. shape is the prepared one; original is the geometry of the files, with the axes turned.

    digests are those of the case's files that it was prepared from (empty in entries of earlier versions).
    The arrays are memory maps, made when asked for, so that a PreparedCase is cheap to keep and to send, and that what
    was read does not count as the process's memory. Their files stay open (`_opened_array`).
    """

    case_id: str
    folder: Path
    shape: tuple[int, int, int]
    original: Geometry
    digests: tuple[str, ...] = ()

    @property
    def image(self) -> Float32s:
        """The prepared channels, float32 (C, *shape), read-only."""
        image: Float32s = _opened_array(self.folder / "image.npy").mapped()
        return image

    @property
    def label(self) -> ClassIndices:
        """The class indices, uint8 (*shape), read-only."""
        label: ClassIndices = _opened_array(self.folder / "label.npy").mapped()
        return label

    @cached_property
    def foreground(self) -> dict[int, Integers]:
        """Class index (without background) -> int32 (n, 3) voxel coordinates, at most 10,000, drawn once for all."""
        with np.load(self.folder / "foreground.npz", allow_pickle=False) as arrays:
            return {int(index): arrays[index] for index in arrays.files}

    def has_class(self, index: int) -> bool:
        """Whether a foreground class has a voxel, by the header of its coordinates alone."""
        with zipfile.ZipFile(self.folder / "foreground.npz") as arrays, arrays.open(f"{index}.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
        return shape[0] > 0

    @cached_property
    def inside(self) -> Integers | None:
        """Voxels of the region of interest, int32 (n, 3), at most 10,000; None if the case has no region."""
        path = self.folder / "inside.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The exact spacing of the prepared grid: the field of view is kept, so it is near the one asked for."""
        first, second, third = (
            spacing * before / after
            for spacing, before, after in zip(self.original.spacing_mm, self.original.shape, self.shape, strict=True)
        )
        return first, second, third


def prepare_image(image: Float32s, spacing_mm: tuple[float, float, float], preparation: Preparation) -> Float32s:
    """Clip, resample and normalise an image (C, *shape) of the given spacing; returns float32 (C, *prepared_shape).

    The prepared shape is max(1, round(shape · spacing / target)) over the same field of view; a single slice stays one.
    Interpolation is linear between the two nearest voxels along each axis, without smoothing beforehand when the grid
    gets coarser.
    """
    shape = resampled_shape(image.shape[1:], spacing_mm, preparation.spacing_mm)
    prepared = np.empty((image.shape[0], *shape), dtype=np.float32)
    for channel, target in zip(image, prepared, strict=True):
        resample_image(channel, target, preparation.clip)
        _normalise(target, preparation.normalisation)
    return prepared


def _normalise(volume: Float32s, normalisation: Normalisation) -> None:
    """Normalise in place, slice by slice where float64 is needed: a large volume in float64 takes 2 GB."""
    if normalisation == "zscore":
        volume -= np.float32(volume.mean(dtype=np.float64))
        variance = sum(float(np.square(part, dtype=np.float64).sum()) for part in volume) / volume.size
        if variance > 0:  # a constant volume becomes 0
            volume /= np.float32(math.sqrt(variance))
    elif normalisation == "minmax":
        low, high = volume.min(), volume.max()
        volume -= low
        if high > low:
            volume /= high - low


def prepare_case(case: Case, dataset: Dataset, preparation: Preparation, cache: Path) -> PreparedCase:
    """Prepare a case, or open it if the cache has it with the same settings and files.

    A case that is stored along other axes than `dataset.axes` is turned, and its prepared arrays are along those axes.

    The entry is the folder CASE-KEY, where the key is a digest of the settings, the label values, and the content of
    the source files. It appears whole or not at all; one that was cut short since is made again.
    The label is resampled so that each class keeps its size: see resample_classes.
    Raises InputError naming the file when the case cannot be read.
    """
    digests = _digests(case)
    folder = Path(cache) / f"{case.case_id}-{_key(digests, case, dataset, preparation)}"
    entry = _opened(folder)
    if entry is None:
        try:
            _write_entry(folder, case, dataset, preparation, digests)
        except OSError:  # the disk is full, or another process put the same entry in place meanwhile
            if _opened(folder) is None:
                raise
        entry = open_prepared(folder)
    return entry


def prepare_again(folder: Path, case: Case, dataset: Dataset, preparation: Preparation) -> None:
    """Write the entry of a case anew where it was, whatever settings and content its name stands for.

    Raises InputError naming the file when the case cannot be read.
    """
    _write_entry(folder, case, dataset, preparation, _digests(case))


def _opened(folder: Path) -> PreparedCase | None:
    try:
        return open_prepared(folder)
    except InputError:
        return None


def _digests(case: Case) -> tuple[str, ...]:
    if case.label is None:
        raise InputError(f"case {case.case_id} has no mask")
    return tuple(map(content_digest, case.files))


def _key(digests: tuple[str, ...], case: Case, dataset: Dataset, preparation: Preparation) -> str:
    made_by: dict[str, Any] = {
        "format": FORMAT,
        "preparation": asdict(preparation),
        "label_values": sorted(dataset.label_values.items()),
        "classes": len(dataset.classes),
        "sources": digests,
    }
    turn = turn_of(read_geometry(case.images[0]), dataset)
    if turn != Turn():
        made_by["turn"] = asdict(turn)
    if case.spacing_mm is not None:
        made_by["spacing_mm"] = case.spacing_mm
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]


def _write_entry(
    folder: Path, case: Case, dataset: Dataset, preparation: Preparation, digests: tuple[str, ...]
) -> None:
    original_label, _ = read_label(case, dataset.label_values, dataset.value_hints)
    image, stored = read_image(case)
    turn = turn_of(stored, dataset)
    original = turn.geometry(stored)
    prepared = prepare_image(turn.turned(image), original.spacing_mm, preparation)
    del image
    label = resample_classes(turn.turned(original_label), prepared.shape[1:])
    foreground = {str(index): _coordinates(label, index) for index in range(1, len(dataset.classes))}
    _opened_array.cache_clear()  # Windows replaces no open file
    with atomic_folder(folder) as partial:
        np.save(partial / "image.npy", prepared, allow_pickle=False)
        np.save(partial / "label.npy", label, allow_pickle=False)
        # mypy: NumPy's `allow_pickle` is a keyword too, which a class's number cannot be.
        np.savez(partial / "foreground.npz", **foreground)  # type: ignore[arg-type]
        if case.region is not None:
            np.save(partial / "inside.npy", _sample(label != IGNORED, IGNORED), allow_pickle=False)
        description = {
            "case_id": case.case_id,
            "shape": list(label.shape),
            "channels": prepared.shape[0],
            "original": asdict(original),
            "preparation": asdict(preparation),
            "digests": list(digests),
            "bytes": {path.name: path.stat().st_size for path in sorted(partial.iterdir())},
        }
        write_json(partial / "geometry.json", description)


def _coordinates(label: ClassIndices, index: int) -> Integers:
    """Return coordinates of a class, int32 (n, 3); of many voxels, an even sample that depends only on the label."""
    return _sample(label == index, index)


def _sample(mask: Mask, seed: int) -> Integers:
    flat = np.flatnonzero(mask)
    if flat.size > FOREGROUND_VOXELS:
        flat = np.sort(np.random.default_rng(seed).choice(flat, FOREGROUND_VOXELS, replace=False))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int32)


def open_prepared(folder: Path) -> PreparedCase:
    """Open a cache entry. Raises InputError if it is absent, or a file has another length or shape than recorded."""
    folder = Path(folder)
    _opened_array.cache_clear()  # the entry may have been prepared again
    try:
        description = json.loads((folder / "geometry.json").read_text(encoding="utf-8"))
        prepared = PreparedCase(
            description["case_id"],
            folder,
            _three(description["shape"]),
            _geometry(description["original"]),
            tuple(description.get("digests", ())),
        )
        for name, size in description["bytes"].items():
            if (folder / name).stat().st_size != size:
                raise InputError(f"{folder / name} is not {size:,} bytes long as it was written, so prepare it again")
        image, label = prepared.image, prepared.label
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a prepared case ({Path(error.filename).name} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is not a prepared case or is damaged ({error})") from error
    expected = (description["channels"], *prepared.shape)
    types = (np.dtype(np.float32), np.dtype(np.uint8))
    if (image.shape, label.shape, image.dtype, label.dtype) != (expected, expected[1:], *types):
        raise InputError(f"{folder} has arrays of other shapes or types than its geometry.json says")
    return prepared


def _three(values: list[Any]) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third


def _geometry(values: dict[str, Any]) -> Geometry:
    affine = tuple((row[0], row[1], row[2], row[3]) for row in values["affine"])
    return Geometry(
        _three(values["shape"]),
        _three(values["spacing_mm"]),
        affine,
        values.get("axes", ""),
        "pixel" if values.get("unit") == "pixel" else "mm",
    )
