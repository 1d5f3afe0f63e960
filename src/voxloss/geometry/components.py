"""Connected components of masks, and the boxes around structures."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxloss.utilities.arrays import AnyArray, Labels, Mask

Box = tuple[slice, ...]  # one slice per axis, as an array's index

# Which voxels are neighbours: in three dimensions the 6 that share a face, or the 26 that share a face, edge or corner.
Neighbours = Literal["faces", "corners"]


def label_components(mask: Mask, neighbours: Neighbours = "corners") -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: Mask of bool, of any dimension; may be empty.
        neighbours: Which voxels are connected.

    Returns:
        The component of every voxel, 1 to n in the order of their first voxels, 0 outside the mask; and n.
    """
    structure = ndimage.generate_binary_structure(mask.ndim, 1 if neighbours == "faces" else mask.ndim)
    components, count = ndimage.label(mask, structure)
    return components, int(count)


def count_components(mask: Mask) -> int:
    """Count the components of a mask, connected by face, edge or corner."""
    box = bounding_box(mask)
    return 0 if box is None else label_components(mask[box])[1]


def count_touched(mask: Mask, other: Mask) -> tuple[int, int]:
    """Count the components of a mask, and those that share at least one voxel with another mask.

    Components are connected by face, edge or corner.
    """
    components, count = label_components(mask)
    touched = np.zeros(count + 1, dtype=bool)
    touched[components[other]] = True
    return count, int(touched[1:].sum())


def largest_component(mask: Mask, neighbours: Neighbours = "corners") -> tuple[Mask, int]:
    """Return the largest component as a mask (the first of equal ones) and its number of voxels; 0 if it is empty."""
    components, count = label_components(mask, neighbours)
    if count == 0:
        return np.zeros_like(mask), 0
    sizes = np.bincount(components.ravel())[1:]
    largest = int(sizes.argmax())
    return components == largest + 1, int(sizes[largest])


def component_at(mask: Mask, voxel: tuple[Any, ...], neighbours: Neighbours = "corners") -> Mask:
    """Return the component with a given voxel of the mask."""
    assert mask[voxel], "the voxel must lie in the mask"
    components, _ = label_components(mask, neighbours)
    return np.asarray(components == components[voxel])


def bounding_box(mask: AnyArray) -> Box | None:
    """Return the smallest box around the voxels that are not 0; None if all are 0."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def enclosing_box(boxes: Iterable[Box | None]) -> Box | None:
    """Return the smallest box around several boxes; None without any. A None among them is ignored."""
    present = [box for box in boxes if box is not None]
    if not present:
        return None
    return tuple(slice(min(p.start for p in axis), max(p.stop for p in axis)) for axis in zip(*present, strict=True))


def class_boxes(label_maps: Sequence[Labels], n_classes: int) -> list[Box]:
    """Return, for every class index, the smallest box around it in all label maps; an empty box if it is in none.

    The background, class 0, has an empty box.
    """
    empty: Box = (slice(0, 0),) * label_maps[0].ndim
    in_each = [
        ndimage.find_objects(labels.view(np.uint8) if labels.dtype == bool else labels, max_label=n_classes - 1)
        for labels in label_maps
    ]
    return [empty, *(enclosing_box(boxes) or empty for boxes in zip(*in_each, strict=True))]
