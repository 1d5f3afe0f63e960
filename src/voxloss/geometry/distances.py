"""Distances on voxel grids."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from voxloss.utilities.arrays import Float64s, Mask

# Where more than one grid point in so many is set in the two masks (a surface of noise) the distance transform of the
# whole grid is quicker than a search from point to point, which otherwise takes a small part of its time and memory.
DENSE = 20


def nearest_distances(points: Mask, targets: Mask, spacing_mm: Sequence[float]) -> Float64s:
    """Return the Euclidean distance in mm from every set point of one mask to the nearest set point of another.

    Args:
        points: Mask of bool, of any dimension.
        targets: Mask of bool of the same shape.
        spacing_mm: Spacing along every axis.

    Returns:
        One distance per set point of `points`, in C order; infinite if `targets` is empty.
    """
    n_points, n_targets = np.count_nonzero(points), np.count_nonzero(targets)
    if n_targets == 0:  # SciPy's transform would measure to a voxel outside the grid
        return np.full(n_points, np.inf)
    if (n_points + n_targets) * DENSE > points.size:
        transform: Float64s = ndimage.distance_transform_edt(~targets, sampling=spacing_mm)
        return transform[points]
    # Balancing the tree costs more than it saves on a grid's points.
    tree = KDTree(np.argwhere(targets) * spacing_mm, balanced_tree=False, compact_nodes=False)
    distances: Float64s = tree.query(np.argwhere(points) * spacing_mm)[0]
    return distances


def signed_distances(inside: Mask, outside: Mask, spacing_mm: Sequence[float]) -> Float64s:
    """Return every voxel's Euclidean distance in mm to a structure, negative inside it.

    Outside it is the distance to the nearest voxel of the structure, inside minus that to the nearest voxel outside,
    less the smallest spacing, so that it is 0 in a voxel at the border.

    Args:
        inside: The voxels of the structure, of any dimension.
        outside: The voxels that are known not to be of the structure; those in neither mask are measured, but nothing
            is measured to them.
        spacing_mm: Spacing along every axis.

    Returns:
        The distances in the shape of the masks; 0 everywhere if either mask is empty.
    """
    if not (inside.any() and outside.any()):
        return np.zeros(inside.shape)
    to_inside: Float64s = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
    to_outside: Float64s = ndimage.distance_transform_edt(~outside, sampling=spacing_mm)
    return np.where(inside, min(spacing_mm) - to_outside, to_inside)


def innermost_voxel(mask: Mask) -> tuple[int, ...]:
    """Return the voxel furthest inside a mask (the first of equal ones); it is inside for any shape.

    Layers are counted by chessboard distance, voxels outside the array are outside the mask.
    """
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
    return tuple(int(place) for place in np.unravel_index(depth.argmax(), depth.shape))
