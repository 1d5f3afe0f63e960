"""Critical points of simultaneous comparisons: Tukey's studentised range for all pairs, Dunnett's for the best."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import interpolate, optimize, special, stats

from voxloss.utilities.arrays import Float64s

# The points are computed at these degrees of freedom and interpolated in between; the last stands for infinity.
DEGREES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0, 60.0, 200.0, 1e5)

# Nodes of the two integrals, over the normal variable that all comparisons share and over the estimated variance.
NORMAL_NODES, CHI_NODES = 80, 200


def tukey_points(count: int, degrees: Float64s, level: float) -> Float64s:
    """Return the points c with P(|x_i - x_j| ≤ c · s √2 for all pairs of `count` means) = 1 - level.

    s² is an estimate with `degrees` degrees of freedom of the variance of every independent normal x. c is the point of
    the studentised range divided by √2 (Tukey 1953).

    Args:
        count: The number of means, at least 2.
        degrees: Degrees of freedom, at least 1, of any shape.
        level: The probability of one or more false differences, between 0 and 1.

    Returns:
        The points, of the shape of `degrees`, with a relative error below 0.1 %.
    """
    return _interpolated("tukey", count, level)(1 / np.maximum(degrees, 1.0))


def dunnett_points(comparisons: int, degrees: Float64s, level: float) -> Float64s:
    """Return the points c with P(x_j - x_0 ≤ c · s √2 for all `comparisons` values of j) = 1 - level.

    One-sided, for equal variances, as in `tukey_points` (Dunnett 1955; Hsu 1996 for the comparison with the best).

    Args:
        comparisons: The number of means compared with one other, at least 1.
        degrees: Degrees of freedom, at least 1, of any shape.
        level: The probability of one or more false differences, between 0 and 1.

    Returns:
        The points, of the shape of `degrees`, with a relative error below 0.1 %.
    """
    return _interpolated("dunnett", comparisons, level)(1 / np.maximum(degrees, 1.0))


@lru_cache
def _interpolated(kind: str, count: int, level: float) -> Callable[[Float64s], Float64s]:
    x, weights = np.polynomial.legendre.leggauss(NORMAL_NODES)
    z, density = 9 * x, 9 * weights * np.exp(-((9 * x) ** 2) / 2) / np.sqrt(2 * np.pi)
    # Small estimated variances decide, so that the nodes are dense there.
    places = (np.arange(CHI_NODES) + 0.5) / CHI_NODES
    uniform, chances = places**3, 3 * places**2 / CHI_NODES

    def excess(logarithm: float, deviation: Float64s) -> float:
        shift = np.sqrt(2) * np.exp(logarithm) * deviation[:, None]
        if kind == "tukey":
            inner = count * (special.ndtr(z) - special.ndtr(z - shift)) ** (count - 1)
        else:
            inner = special.ndtr(z + shift) ** count
        return float(inner @ density @ chances) - (1 - level)

    points = [
        optimize.brentq(excess, -5.0, 14.0, args=(np.sqrt(stats.chi2.ppf(uniform, degrees) / degrees),), xtol=1e-6)
        for degrees in DEGREES
    ]
    inverse = 1 / np.array(DEGREES)
    curve = interpolate.PchipInterpolator(inverse[::-1], points[::-1])
    return lambda values: np.asarray(np.exp(curve(values)), dtype=float)
