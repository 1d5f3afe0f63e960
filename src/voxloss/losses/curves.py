"""Curves of region terms: the cost of a class as a function of its index.

The pass over the voxels runs in float32 at least and the sums in float64; `Index` keeps 1 - index beside the index, as
the difference of the two has no digits left where the prediction is nearly perfect.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Below this x the gradient of a power x^e with e < 1 is that of its chord, see `_power`.
SMALLEST_ERROR = 1e-30


class Index(NamedTuple):
    """An index in [0, 1] of each sample and class, and `error` = 1 - index computed from the errors."""

    value: Tensor
    error: Tensor


class Curve(Protocol):
    """The cost of an index."""

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""


@dataclass(frozen=True)
class Power:
    """(1 - index)^exponent: Dice and Tversky (exponent 1), focal Tversky (1/γ)."""

    exponent: float = 1.0

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""
        return _power(index.error, self.exponent)


@dataclass(frozen=True)
class Cosine:
    """cos^exponent(π/2 · index), computed as the sine of the complement, which is exact where the cosine is small."""

    exponent: float = 1.0

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""
        return _power(torch.sin(math.pi / 2 * index.error), self.exponent)


@dataclass(frozen=True)
class LogCosh:
    """log cosh(1 - index), computed as log1p(2 sinh²(x/2)), which is exact where it is small."""

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""
        return torch.log1p(2 * torch.sinh(index.error / 2) ** 2)


@dataclass(frozen=True)
class OfUnion:
    """2 (1 - index) / (2 - index), which makes the Dice index D the Jaccard index J = D / (2 - D), costing 1 - J."""

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""
        return 2 * index.error / (1 + index.error)


@dataclass(frozen=True)
class Negative:
    """-index: what Combo subtracts."""

    def __call__(self, index: Index, /) -> Tensor:
        """Return the cost, of the shape of the index."""
        return -index.value


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^e for x ≥ 0 with a finite gradient at 0.

    For e < 1 the derivative e·x^(e-1) is infinite at 0 (a perfect prediction), and infinity times the zero that
    follows in the softmax is NaN. Below SMALLEST_ERROR the gradient is therefore that of the chord to 0, whose slope
    is finite. The value is x^e everywhere.
    """
    chord = x * torch.pow(SMALLEST_ERROR, x.new_full((), exponent - 1))  # a tensor's power is also a symbol's
    exact = x.detach().clamp_min(0) ** exponent
    return torch.where(x < SMALLEST_ERROR, chord + (exact - chord.detach()), x.clamp_min(SMALLEST_ERROR) ** exponent)
