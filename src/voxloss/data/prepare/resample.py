"""Linear resampling between grids over the same field of view, in slabs so that large volumes fit in memory."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from voxloss.utilities.arrays import AnyArray, ClassIndices, Float32s, Integers

SLAB_VOXELS = 2**24  # of the finer grid at a time: 64 MB of float32

Columns = tuple[slice, slice]  # a part of every plane, by the second and third axis

# Receives a class, a box of the grid, and the class's probabilities there.
Watch = Callable[[int, tuple[slice, slice, slice], Float32s], None]


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float] | None
) -> tuple[int, int, int]:
    """max(1, round(size · spacing / target)) along each axis; the same shape without a target.

    An axis of one voxel stays as it is: a single slice has nothing to interpolate with, and would only be repeated.
    """
    target = spacing_mm if target_mm is None else target_mm
    first, second, third = (
        max(1, round(size * old / new)) if size > 1 else 1
        for size, old, new in zip(shape, spacing_mm, target, strict=True)
    )
    return first, second, third


def _slabs(shape: Sequence[int], target: Sequence[int]) -> Iterator[slice]:
    """Ranges of the target's first axis whose work on the larger of both planes stays within SLAB_VOXELS."""
    plane = max(math.prod(shape[1:]), math.prod(target[1:]))
    rows = max(1, SLAB_VOXELS // plane)
    for start in range(0, target[0], rows):
        yield slice(start, min(start + rows, target[0]))


def _neighbours(source: int, target: int, chosen: slice) -> tuple[Integers, Integers, Float32s]:
    """Of voxels of an axis with `target` voxels: the two nearest of `source` voxels, and the weight of the upper one.

    Voxel k of n along an axis has its centre at (k + 1/2) / n of the field of view, so the target's voxel lies at
    source index (k + 1/2) · n_source / n_target - 1/2, held within the outermost centres.
    """
    position = (np.arange(chosen.start, chosen.stop) + 0.5) * (source / target) - 0.5
    position = np.maximum(position, 0)
    lower = position.astype(np.int64)
    return lower, np.minimum(lower + 1, source - 1), (position - lower).astype(np.float32)


def columns_of(source: Sequence[int], shape: Sequence[int], part: Columns) -> Columns:
    """Return the part of a volume's planes that decides a part of the planes of a grid with this shape."""
    if _is_whole(shape, part):
        return slice(0, source[1]), slice(0, source[2])
    ranges = (_neighbours(*axis) for axis in zip(source[1:], shape[1:], part, strict=True))
    first, second = (slice(int(lower[0]), int(upper[-1]) + 1) for lower, upper, _ in ranges)
    return first, second


def _is_whole(shape: Sequence[int], part: Columns) -> bool:
    return part == (slice(0, shape[1]), slice(0, shape[2]))


def _resample_slab(
    volume: AnyArray,
    target: Sequence[int],
    rows: slice,
    values: Callable[[AnyArray], Float32s],
    source: int | None = None,
    first: int = 0,
) -> Float32s:
    """Rows of `volume` resampled to shape `target`, float32; `values` turns slices as stored into float32.

    `volume` may be a part of the rows of a volume with `source` rows, from the row `first` on. This is
    torch.nn.functional.interpolate(mode="trilinear", align_corners=False), of which the first axis is done by hand
    because torch would need the whole volume in float32.
    """
    import torch  # takes seconds, and only resampling needs it

    lower, upper, weights = _neighbours(source or volume.shape[0], target[0], rows)
    weight = weights[:, None, None]
    slab = values(volume[lower - first])
    if weight.any():
        slab = slab + weight * (values(volume[upper - first]) - slab)
    if tuple(volume.shape[1:]) == tuple(target[1:]):
        return slab
    planes = torch.from_numpy(np.ascontiguousarray(slab))[:, None]
    planes = torch.nn.functional.interpolate(planes, size=tuple(target[1:]), mode="bilinear", align_corners=False)
    return planes[:, 0].numpy()


def resample_image(volume: AnyArray, out: Float32s, clip: tuple[float, float] | None = None) -> None:
    """Clip a volume and resample it linearly onto the grid of `out` (float32), which has the same field of view."""

    def values(part: AnyArray) -> Float32s:
        part = part.astype(np.float32, copy=False)
        return part if clip is None else np.clip(part, np.float32(clip[0]), np.float32(clip[1]))

    if volume.flags.f_contiguous:  # as read from a file: its slowest axis first makes slabs that lie together
        volume, out = volume.T, out.T
    for rows in _slabs(volume.shape, out.shape):
        out[rows] = _resample_slab(volume, out.shape, rows, values)


def resample_classes(label: ClassIndices, shape: Sequence[int]) -> ClassIndices:
    """Resample class indices: each class's indicator linearly, then the class with the largest share of the voxel.

    A class index cannot be interpolated itself (between background and tumour would lie kidney). Taking the nearest
    voxel's class moves borders by up to half a voxel; here a border lies where the interpolated share crosses 1/2, so
    a structure keeps its volume to a few per cent while it is several voxels thick. One much thinner than the new
    spacing can vanish. Of equal shares the lower class wins.
    A label whose shape does not change is copied exactly.
    """
    if tuple(label.shape) == tuple(shape):
        return np.ascontiguousarray(label)
    resampled = np.empty(tuple(shape), dtype=np.uint8)
    present = _classes_in(label)
    source, out = (label.T, resampled.T) if label.flags.f_contiguous else (label, resampled)
    for rows in _slabs(source.shape, out.shape):
        out[rows] = _largest(
            (index, _resample_slab(source, out.shape, rows, partial(_indicator, index=index))) for index in present
        )
    return resampled


def _classes_in(label: ClassIndices) -> list[int]:
    flat = label.reshape(-1, order="A")
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, flat.size, SLAB_VOXELS // 4):  # bincount makes an int64 copy of what it counts
        counts += np.bincount(flat[start : start + SLAB_VOXELS // 4], minlength=256)
    return [int(index) for index in np.flatnonzero(counts)]


def _indicator(part: ClassIndices, index: int) -> Float32s:
    indicator: Float32s = (part == index).astype(np.float32)
    return indicator


def resample_probabilities(probabilities: Float32s, shape: Sequence[int]) -> ClassIndices:
    """Class indices uint8 (*shape): each class's map (n_classes, ...) resampled linearly, then the largest's class."""
    label = np.empty(tuple(shape), dtype=np.uint8)
    whole = (slice(0, label.shape[1]), slice(0, label.shape[2]))
    label_of_rows([probabilities.astype(np.float32, copy=False)], probabilities.shape[1:], shape, whole, label)
    return label


def label_of_rows(
    pieces: Iterable[Float32s],
    source: Sequence[int],
    shape: Sequence[int],
    part: Columns,
    out: ClassIndices,
    watch: Watch | None = None,
) -> None:
    """As `resample_probabilities`, of probabilities that come piece by piece.

    Args:
        pieces: Float32 (n_classes, rows, ...): consecutive rows of a volume of shape `source`, of whose planes they
            hold what decides `part` (`columns_of`). A piece is not used after the next is asked for.
        source: Shape of the whole volume.
        shape: Shape of the whole grid.
        part: The part of the grid's planes that is wanted.
        out: Gets the class indices, uint8 (shape[0], *part).
        watch: Gets every class's resampled probabilities, each voxel of the part once.
    """
    lower, upper, _ = _neighbours(source[0], shape[0], slice(0, shape[0]))
    written, seen = 0, 0
    kept: Float32s | None = None  # the last row of the piece before, which the next rows may need
    for piece in pieces:
        first = seen if kept is None else seen - 1
        seen += piece.shape[1]
        ready = int(np.searchsorted(upper, seen))  # output rows whose neighbours are all there

        def volume(index: int, piece: Float32s = piece, kept: Float32s | None = kept) -> Float32s:
            return piece[index] if kept is None else np.concatenate((kept[index], piece[index]))

        for rows in _slabs(piece.shape[1:], (ready - written, *out.shape[1:])):
            chosen = slice(written + rows.start, written + rows.stop)
            if _is_whole(shape, part):
                maps = (
                    _resample_slab(volume(index), shape, chosen, lambda values: values, source[0], first)
                    for index in range(len(piece))
                )
            else:
                maps = (
                    _resample_part(volume(index), source, shape, (chosen, *part), first) for index in range(len(piece))
                )
            indexed = enumerate(maps)
            out[chosen] = _largest(indexed if watch is None else _watched(indexed, (chosen, *part), watch))
        written = ready
        kept = piece[:, -1:].copy()
    assert written == len(lower)


def _resample_part(
    volume: Float32s, source: Sequence[int], shape: Sequence[int], box: tuple[slice, slice, slice], first: int
) -> Float32s:
    """Return a box of the resampled volume; `volume` has its rows from `first` on, of which it has `columns_of`."""
    starts = (first, *(columns.start for columns in columns_of(source, shape, box[1:])))
    for axis, start in enumerate(starts):
        lower, upper, weights = _neighbours(source[axis], shape[axis], box[axis])
        along = [1, 1, 1]
        along[axis] = -1
        below = volume.take(lower - start, axis)
        volume = below + weights.reshape(along) * (volume.take(upper - start, axis) - below)
    return volume


def _watched(
    maps: Iterable[tuple[int, Float32s]], box: tuple[slice, slice, slice], watch: Watch
) -> Iterator[tuple[int, Float32s]]:
    for index, values in maps:
        watch(index, box, values)
        yield index, values


def _largest(maps: Iterator[tuple[int, Float32s]]) -> ClassIndices:
    """The index of the largest map per voxel, the lower of equals. Maps come one at a time, by rising index."""
    first, best = next(maps)
    winner = np.full(best.shape, first, dtype=np.uint8)
    for index, values in maps:
        larger = values > best
        winner[larger] = index
        best = np.where(larger, values, best)
    return winner
