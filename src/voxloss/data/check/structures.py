"""How the structures of a mask lie: how many pieces a class has, and how often a random patch misses it."""

from collections.abc import Sequence

import numpy as np

DRAWS = 200  # random patches per case


def bounding_box(chosen: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box around the True voxels; None where there are none."""
    box = []
    for axis in range(chosen.ndim):
        others = tuple(other for other in range(chosen.ndim) if other != axis)
        places = np.flatnonzero(chosen.any(axis=others))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def components(chosen: np.ndarray) -> int:
    """Connected pieces of True voxels, touching by face, edge or corner."""
    from scipy import ndimage

    box = bounding_box(chosen)
    return 0 if box is None else int(ndimage.label(chosen[box], np.ones((3,) * chosen.ndim))[1])


def share_of_patches_without(chosen: np.ndarray, size: Sequence[int]) -> float:
    """The share of patches at uniformly random places that hold no True voxel, estimated by `DRAWS` of them.

    A patch longer than the volume covers it. The places are the same at every call.
    """
    box = bounding_box(chosen)
    if box is None:
        return 1.0
    extents = [min(length, extent) for length, extent in zip(size, chosen.shape, strict=True)]
    generator = np.random.default_rng(0)
    room = [extent - length + 1 for length, extent in zip(extents, chosen.shape, strict=True)]
    missed = 0
    for start in generator.integers(0, room, size=(DRAWS, chosen.ndim)).tolist():
        patch = [slice(first, first + length) for first, length in zip(start, extents, strict=True)]
        common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(patch, box, strict=True))
        missed += any(part.start >= part.stop for part in common) or not chosen[common].any()
    return missed / DRAWS
