"""Sums of values by the index of each, as many voxels with few indices need them."""

import torch
from torch import Tensor

LANES = 512  # sums for each index on a GPU, where additions to one place wait for each other
MOST_PLACES = 1 << 20


def add_by_index(values: Tensor, index: Tensor, number: int, kind: torch.dtype) -> Tensor:
    """Return the sums (number,) in type `kind` of values (n,) with the indices (n,) from 0 to number - 1."""
    lanes = 1 if index.device.type == "cpu" else max(1, min(LANES, MOST_PLACES // max(1, number)))
    if lanes > 1:
        index = index * lanes + torch.arange(len(index), device=index.device) % lanes
    sums = torch.zeros(number * lanes, dtype=kind, device=index.device).scatter_add(0, index, values.to(kind))
    return sums if lanes == 1 else sums.view(number, lanes).sum(1)
