"""The best mask that does not look at the image: what a network must exceed to have learned anything from it."""

import math
from collections.abc import Sequence

import numpy as np

from voxloss.utilities.arrays import ClassIndices, Float64s, Integers, Mask

MOST_CELLS = 32  # along an axis
MOST_COUNTS = 1 << 27  # over all cases, classes and cells; 4 bytes each


def cell_grid(shapes: Sequence[Sequence[int]], n_classes: int) -> tuple[int, ...]:
    """Return the number of cells along each axis into which every volume is divided, whatever its size.

    At most 32, and not more than the smallest volume has voxels, so that small grids that agree are compared voxel by
    voxel.

    Args:
        shapes: The shapes of all volumes.
        n_classes: Number of classes, background included.
    """
    smallest = [min(extents) for extents in zip(*shapes, strict=True)]
    most = MOST_CELLS
    while most > 1 and len(shapes) * n_classes * math.prod(min(n, most) for n in smallest) > MOST_COUNTS:
        most //= 2
    return tuple(min(extent, most) for extent in smallest)


def cell_counts(label: ClassIndices, n_classes: int, cells: Sequence[int]) -> Integers:
    """Count the voxels of every class in every cell of a volume.

    Args:
        label: Class indices, three-dimensional, may be memory-mapped; other values are ignored voxels.
        n_classes: Number of classes, background included.
        cells: Number of cells along each axis, not more than voxels.

    Returns:
        int32 (n_classes, *cells).
    """
    starts = [np.arange(count) * extent // count for count, extent in zip(cells, label.shape, strict=True)]
    ends = [*starts[0][1:].tolist(), label.shape[0]]
    counts = np.zeros((n_classes, *cells), dtype=np.int32)
    for row, (first, last) in enumerate(zip(starts[0].tolist(), ends, strict=True)):
        slab = np.asarray(label[first:last])
        for index in np.unique(slab).tolist():
            if index < n_classes:
                plane = np.count_nonzero(slab == index, axis=0)
                by_cell = np.add.reduceat(np.add.reduceat(plane, starts[1], axis=0), starts[2], axis=1)
                counts[index, row] = by_cell
    return counts


def blind_dice(structure: Integers, counted: Integers, training: Mask) -> Float64s:
    """Return the Dice of the best mask that does not look at the image, for every case that has the structure.

    The mask is the same for all cases, in relative coordinates of the volume: the cells in which the structure is most
    frequent in the training cases, so many of them that their mean Dice is largest; or every voxel, if that has the
    larger mean Dice on the other cases. Its Dice is 2v / (1 + v), v being the structure's share of the volume.

    Args:
        structure: Voxels of the structure in every cell, (cases, cells).
        counted: All voxels in every cell that are not ignored, (cases, cells).
        training: Which cases the mask may be derived from, (cases,).

    Returns:
        The Dice of every case, training cases too; NaN for a case without the structure.
    """
    totals = structure.sum(axis=1).astype(float)
    usable = training & (totals > 0)
    inside = counted[training].sum(axis=0)
    share = structure[training].sum(axis=0) / np.maximum(inside, 1)
    order = np.argsort(-share, kind="stable")
    number = len(order)
    if usable.any():
        hits = np.cumsum(structure[usable][:, order], axis=1, dtype=float)
        sizes = np.cumsum(counted[usable][:, order], axis=1, dtype=float)
        number = 1 + int((2 * hits / (sizes + totals[usable, None])).mean(axis=0).argmax())
    held_out = ~training & (totals > 0)
    masks = []
    for chosen in (order[:number], order):
        hit, size = structure[:, chosen].sum(axis=1), counted[:, chosen].sum(axis=1)
        masks.append(np.where(totals > 0, 2 * hit / np.maximum(size + totals, 1), math.nan))
    best: Float64s = max(masks, key=lambda dice: float(dice[held_out].mean()) if held_out.any() else 0.0)
    return best


def every_voxel_dice(share: float) -> float:
    """Return the Dice of a mask of every voxel, 2v / (1 + v), for a structure with the share v of the volume."""
    return 2 * share / (1 + share)
