"""Soft skeletons of probabilities, by minima and maxima over neighbours.

Minima and maxima are taken of whole tensors moved by one voxel, axis by axis, which on a CPU takes a tenth of the time
of torch's pooling. The gradient is made of the values again. A minimum of minima is the value of one voxel, wherever it
got to, so each value travels with the number of its voxel, and its gradient is added there at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, max_pool2d, max_pool3d, relu

_VOXELS = 2**32  # that can be numbered in half a key
_LARGE = 0x40000000 << 32  # the key of voxel 0 with the value 2, which is above all values
_TINY = 1e-30  # far below 1 - d of any d < 1 in float32


def soft_skeleton(values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the soft skeleton of values (B, C, *spatial) in [0, 1], by Shit et al.'s algorithm 1.

    What an opening (a minimum over each voxel and its neighbours by faces, and then a maximum over its neighbours by
    corners) takes off the values, and off their minima, `iterations` times. Voxels that do not count are as beyond the
    border: neither a minimum nor a maximum sees them.
    """
    values = values.contiguous()  # the layout that the operator has promised to torch.compile
    skeleton = torch.zeros_like(values)
    if values.numel() == 0:
        return skeleton
    for own, opened in _turns(values, counts, iterations, 1):
        difference = torch.sub(own, opened, out=opened).relu_()
        skeleton += difference.sub_(skeleton * difference).relu_()
    return skeleton


def gradient(upstream: Tensor, values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return d(Σ upstream·soft_skeleton)/d(values).

    The skeleton is 1 - Π (1 - d) of the differences d of all turns, so that the slope of each is the product of the
    others. Of equal values the first voxel has the gradient of their minimum, and the last that of their maximum.
    Keys are for float32; float64, in which hardly anybody trains, takes the gradient of the pooling.
    """
    if values.dtype != torch.float32 or not 0 < values.numel() <= _VOXELS:
        return composite_gradient(upstream, values, counts, iterations).contiguous()
    slope = upstream.double()
    for own, opened in _turns(values, counts, iterations, 1):
        slope *= _rest(torch.sub(own, opened, out=opened).relu_())
    gained, lost = (torch.zeros(values.numel(), dtype=torch.float64) for _ in range(2))
    for keys, of_opened in _turns(_keys(values), counts, iterations, _LARGE):
        difference = _value(keys).sub_(_value(of_opened)).relu_()
        change = torch.where(difference > 0, slope / _rest(difference), 0).flatten()
        gained.scatter_add_(0, _voxel(keys).flatten(), change)
        lost.scatter_add_(0, _voxel(of_opened).flatten(), change)
    return gained.sub_(lost).to(values.dtype).view(values.shape)


def composite(values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the same as `soft_skeleton`, in operations that torch differentiates by itself.

    Equal values along an axis leave their gradient to the first of them, and those of different axes share it.
    """
    if values.numel() == 0:  # which pooling refuses
        return values
    skeleton = None
    for _ in range(iterations + 1):
        eroded = _pooled_minimum(_filled(values, counts, 1))
        opened = _pooled_maximum(_filled(eroded, counts, 0))
        difference = relu(values - opened)
        skeleton = difference if skeleton is None else skeleton + relu(difference - skeleton * difference)
        values = eroded
    assert skeleton is not None
    return skeleton


def composite_gradient(upstream: Tensor, values: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
    """Return the same as `gradient`, differentiable with respect to `upstream` and `values`."""

    def total(values: Tensor) -> Tensor:
        return (upstream * composite(values, counts, iterations)).sum()

    result: Tensor = torch.func.grad(total)(values)
    return result


def _filled(values: Tensor, counts: Tensor | None, beyond: int) -> Tensor:
    return values if counts is None else values.masked_fill(~counts, beyond)


def _turns(values: Tensor, counts: Tensor | None, iterations: int, largest: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The values of every turn and what an opening makes of them; the next turn writes over both."""
    rooms = [torch.empty_like(values) for _ in range(4)]
    for turn in range(iterations + 1):
        eroded = _minimum(_filled(values, counts, largest), rooms[turn % 2])
        yield values, _maximum(_filled(eroded, counts, 0), rooms[2:])
        values = eroded


def _minimum(values: Tensor, least: Tensor) -> Tensor:
    """Over each voxel and its neighbours by faces, in `least`."""
    so_far = values
    for axis in range(2, values.ndim):
        so_far = _with_neighbours(torch.minimum, so_far, values, axis, least)
    return so_far


def _maximum(values: Tensor, rooms: list[Tensor]) -> Tensor:
    """Over each voxel and its neighbours by corners, one axis after the other, in one of two rooms."""
    for axis in range(2, values.ndim):
        values = _with_neighbours(torch.maximum, values, values, axis, rooms[axis % 2])
    return values


def _with_neighbours(
    extreme: Callable[..., Tensor], these: Tensor, others: Tensor, axis: int, result: Tensor
) -> Tensor:
    """The extreme of each voxel and of the other tensor's voxels before and after it along an axis, in `result`."""
    most = these.shape[axis] - 1
    result.narrow(axis, 0, 1).copy_(these.narrow(axis, 0, 1))
    extreme(these.narrow(axis, 1, most), others.narrow(axis, 0, most), out=result.narrow(axis, 1, most))
    own = result.narrow(axis, 0, most)
    extreme(own, others.narrow(axis, 1, most), out=own)
    return result


def _rest(difference: Tensor) -> Tensor:
    """1 - d, above 0 so that a product of it can be divided by it."""
    return difference.double().neg_().add_(1).clamp_min_(_TINY)


def _keys(values: Tensor) -> Tensor:
    """Integers in the order of values in float32 that are not below 0, and in that of the voxels where those are equal.

    The upper half of a key has the bits of the value, which are in the same order, and the lower half the voxel.
    """
    keys = values.contiguous().view(torch.int32).to(torch.int64) << 32
    return keys.add_(torch.arange(values.numel(), device=values.device).view(values.shape))


def _value(keys: Tensor) -> Tensor:
    return (keys >> 32).to(torch.int32).view(torch.float32)


def _voxel(keys: Tensor) -> Tensor:
    return keys & (_VOXELS - 1)


_POOLS = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


def _pooled_minimum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    least, negative = None, -values
    for axis in range(axes):
        size = tuple(3 if other == axis else 1 for other in range(axes))
        found = -_POOLS[axes](negative, size, 1, tuple(length // 2 for length in size))
        least = found if least is None else torch.minimum(least, found)
    assert least is not None
    return least


def _pooled_maximum(values: Tensor) -> Tensor:
    axes = values.ndim - 2
    largest: Tensor = _POOLS[axes](values, (3,) * axes, 1, (1,) * axes)
    return largest
