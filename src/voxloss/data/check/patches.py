"""Estimate how often a random patch misses a structure."""

from collections.abc import Sequence

import numpy as np

from voxloss.geometry.components import bounding_box
from voxloss.utilities.arrays import Mask

DRAWS = 200  # random patches per case


def share_of_patches_without(mask: Mask, size: Sequence[int]) -> float:
    """Estimate the share of randomly placed patches without any True voxel, from `DRAWS` patches.

    A patch longer than the volume covers it. The places are the same at every call.
    """
    box = bounding_box(mask)
    if box is None:
        return 1.0
    extents = [min(length, extent) for length, extent in zip(size, mask.shape, strict=True)]
    generator = np.random.default_rng(0)
    room = [extent - length + 1 for length, extent in zip(extents, mask.shape, strict=True)]
    missed = 0
    for start in generator.integers(0, room, size=(DRAWS, mask.ndim)).tolist():
        patch = [slice(first, first + length) for first, length in zip(start, extents, strict=True)]
        common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(patch, box, strict=True))
        missed += any(part.start >= part.stop for part in common) or not mask[common].any()
    return missed / DRAWS
