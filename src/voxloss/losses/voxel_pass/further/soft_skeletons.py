"""Soft skeletons of probabilities, by minima and maxima over neighbours."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, max_pool2d, max_pool3d, relu


def soft_skeleton(values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the soft skeleton of values (B, C, *spatial) in [0, 1], by Shit et al.'s algorithm 1.

    What an opening (a minimum over each voxel and its neighbours by faces, and then a maximum over its neighbours by
    corners) takes off the values, and off their minima, `iterations` times. Voxels that do not count are as beyond the
    border: neither a minimum nor a maximum sees them.
    """
    if values.numel() == 0:  # which pooling refuses
        return values
    outside = None if counts is None else ~counts
    skeleton = None
    for _ in range(iterations + 1):
        eroded = _minimum(values if outside is None else values.masked_fill(outside, 1))
        opened = _maximum(eroded if outside is None else eroded.masked_fill(outside, 0))
        difference = relu(values - opened)
        skeleton = difference if skeleton is None else skeleton + relu(difference - skeleton * difference)
        values = eroded
    assert skeleton is not None
    return skeleton


_POOLS = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


def _minimum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    least, negative = None, -values
    for axis in range(axes):
        size = tuple(3 if other == axis else 1 for other in range(axes))
        found = -_POOLS[axes](negative, size, 1, tuple(length // 2 for length in size))
        least = found if least is None else torch.minimum(least, found)
    assert least is not None
    return least


def _maximum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    largest: Tensor = _POOLS[axes](values, (3,) * axes, 1, (1,) * axes)
    return largest
