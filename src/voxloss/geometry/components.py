"""Connected components of masks, and the boxes around structures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from voxloss.utilities.arrays import AnyArray, Labels, Mask

Box = tuple[slice, ...]  # one slice per axis, as an array's index

# Which voxels are neighbours: in three dimensions the 6 that share a face, the 18 that share a face or edge, or the 26
# that share a face, edge or corner.
Neighbours = Literal["faces", "edges", "corners"]

# Where fewer than one voxel in so many is set, components are found from voxel to voxel, without a pass over the grid.
SPARSE = 50


def label_components(mask: Mask, neighbours: Neighbours = "corners") -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: Mask of bool, of any dimension; may be empty.
        neighbours: Which voxels are connected.

    Returns:
        The component of every voxel, 1 to n in the order of their first voxels, 0 outside the mask; and n.
    """
    components, count = ndimage.label(mask, _structure(mask.ndim, neighbours))
    return components, int(count)


def _structure(ndim: int, neighbours: Neighbours) -> Mask:
    order = {"faces": 1, "edges": 2, "corners": 3}[neighbours]
    structure: Mask = ndimage.generate_binary_structure(ndim, order)
    return structure


@dataclass(frozen=True)
class Components:
    """The components of a mask by its voxels: flat indices in C order, ascending; of each its component, 0 to n - 1."""

    voxels: NDArray[np.intp]
    numbers: NDArray[np.intp]
    count: int

    def at(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the components of voxels of the mask."""
        return self.numbers[np.searchsorted(self.voxels, voxels)]

    def sizes(self) -> NDArray[np.intp]:
        """Return the number of voxels of every component."""
        return np.bincount(self.numbers, minlength=self.count)


def find_components(mask: Mask, neighbours: Neighbours = "corners") -> Components:
    """Return the components of a mask in the order of `label_components`; of a nearly empty mask much faster."""
    voxels = np.flatnonzero(mask)
    if len(voxels) * SPARSE > mask.size:
        components, count = label_components(mask, neighbours)
        return Components(voxels, components.ravel()[voxels].astype(np.intp) - 1, count)
    # Indices in a grid with a margin, in which the neighbours of a row's end are not the next row's beginning.
    padded = [extent + 2 for extent in mask.shape]
    places = np.ravel_multi_index([axis + 1 for axis in np.unravel_index(voxels, mask.shape)], padded)
    strides = np.cumprod([1, *padded[:0:-1]])[::-1]
    steps = (np.argwhere(_structure(mask.ndim, neighbours)) - 1) @ strides
    pairs = []
    for step in steps[steps > 0]:
        found = np.searchsorted(places, places + step)
        found[found == len(places)] = 0
        there = np.flatnonzero(places[found] == places + step)
        pairs.append(np.stack([there, found[there]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(voxels), len(voxels)))
    count, numbers = sparse.csgraph.connected_components(graph, directed=False)
    return Components(voxels, numbers.astype(np.intp), int(count))


def dilated(components: Components, shape: Sequence[int], steps: int) -> Iterator[tuple[Box, Mask]]:
    """Yield for every component the box around its dilation, and its dilation by itself in this box.

    Each step adds the voxels that share a face or edge. Boxes end at the grid's border.
    """
    structure = _structure(len(shape), "edges")
    order = np.argsort(components.numbers, kind="stable")
    groups = np.split(components.voxels[order], np.cumsum(components.sizes())[:-1])
    for voxels in groups if components.count else []:
        places = np.stack(np.unravel_index(voxels, tuple(shape)))
        starts = np.maximum(places.min(axis=1) - steps, 0)
        stops = np.minimum(places.max(axis=1) + steps + 1, shape)
        part = np.zeros(stops - starts, dtype=bool)
        part[tuple(places - starts[:, None])] = True
        box = tuple(slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
        yield box, ndimage.binary_dilation(part, structure, iterations=steps)


def merge_close(components: Components, shape: Sequence[int], steps: int, neighbours: Neighbours) -> Components:
    """Merge the components whose dilations are connected: see `dilated`."""
    grown = np.zeros(tuple(shape), dtype=bool)
    for box, part in dilated(components, shape, steps):
        grown[box] |= part
    merged = find_components(grown, neighbours)
    return Components(components.voxels, merged.at(components.voxels), merged.count)


def count_components(mask: Mask) -> int:
    """Count the components of a mask, connected by face, edge or corner."""
    box = bounding_box(mask)
    return 0 if box is None else label_components(mask[box])[1]


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
