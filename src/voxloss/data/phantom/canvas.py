"""Tools to draw the phantom: sampled axes in mm, smooth random fields, signed distances, soft painting."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from voxloss.geometry.components import component_at
from voxloss.utilities.arrays import Floats, Mask

Point = tuple[float, float, float]  # (z, y, x) in mm
Box = tuple[slice, slice, slice]


class SmoothField:
    """A random field of zero mean and unit variance: cubic B-splines on a lattice of noise every `length_mm`."""

    def __init__(self, rng: np.random.Generator, axes: Sequence[Floats], length_mm: float):
        self.length_mm = length_mm
        self.start = [float(axis[0]) for axis in axes]
        size = [int((axis[-1] - axis[0]) / length_mm) + 5 for axis in axes]
        variance_per_axis = 151 / 315  # of the spline's four weights: the integral of the squared cubic B-spline
        self.lattice = rng.standard_normal(size, dtype=np.float32) * np.float32(variance_per_axis**-1.5)

    def __call__(self, axes: Sequence[Floats]) -> Floats:
        """Return the field at the points of three axes (mm)."""
        field = self.lattice
        for dimension, axis in enumerate(axes):
            position = (axis - self.start[dimension]) / self.length_mm
            cell = np.floor(position).astype(np.intp)
            t = (position - cell).astype(np.float32)
            weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            shape = [-1 if d == dimension else 1 for d in range(3)]
            terms = [w.reshape(shape) / 6 * field.take(cell + k, dimension) for k, w in enumerate(weights)]
            field = terms[0] + terms[1] + terms[2] + terms[3]
        return field


class Canvas:
    """Voxel centres in mm along each axis, the image in HU (air at first), and fields for roughness and texture."""

    def __init__(self, rng: np.random.Generator, axes: Sequence[Floats]):
        self.axes = [axis.astype(np.float32) for axis in axes]
        self.steps_mm = tuple(float(axis[1] - axis[0]) for axis in self.axes)
        self.hu = np.full([len(axis) for axis in axes], -1000.0, np.float32)
        self.fields = {length: SmoothField(rng, self.axes, length) for length in (40.0, 14.0, 9.0, 6.0)}

    def box(self, low: ArrayLike, high: ArrayLike) -> Box:
        """Return the voxels whose centres lie between two corners; the box may be empty."""
        ends = [
            np.searchsorted(axis, pair)
            for axis, *pair in zip(self.axes, np.asarray(low), np.asarray(high), strict=True)
        ]
        z, y, x = (slice(int(a), int(b)) for a, b in ends)
        return z, y, x

    def around(self, centre: ArrayLike, reach: ArrayLike) -> Box:
        """Return the box around a point."""
        return self.box(np.subtract(centre, reach), np.add(centre, reach))

    def grid(self, box: Box, origin: Sequence[float] = (0, 0, 0)) -> list[Floats]:
        """Return coordinates in mm from `origin`, one array per axis, ready to broadcast."""
        return list(np.ix_(*(axis[part] - np.float32(o) for axis, part, o in zip(self.axes, box, origin, strict=True))))

    def field(self, length_mm: float, box: Box) -> Floats:
        """Return a random field with this correlation length in a box."""
        return self.fields[length_mm]([axis[part] for axis, part in zip(self.axes, box, strict=True)])

    def share(self, distance: Floats) -> Floats:
        """Return how much of each voxel lies inside: 1 half a voxel within the surface, 0 half a voxel beyond."""
        share: Floats = np.clip(0.5 - distance / self.steps_mm[2], 0, 1)
        return share

    def paint(self, box: Box, distance: Floats, hu: float | Floats) -> None:
        """Blend a structure of this CT value into the image."""
        self.hu[box] += self.share(distance) * (hu - self.hu[box])


def ellipsoid(local: Sequence[Floats], radii: Iterable[float]) -> Floats:
    """Return the distance in mm to an ellipsoid, to first order at its surface; `local`: offsets from its centre."""
    radii = [float(r) for r in radii]
    pairs = list(zip(local, radii, strict=True))
    unit = np.sqrt(np.asarray(sum((c / r) ** 2 for c, r in pairs)))
    slope = np.sqrt(np.asarray(sum((c / r**2) ** 2 for c, r in pairs)))
    # The very centre, where both vanish, is the smallest radius away.
    distance: Floats = np.maximum(unit, 1e-6) * (unit - 1) / np.maximum(slope, 1e-6 / min(radii))
    return distance


def segment(grid: Sequence[Floats], start: Point, end: Point) -> Floats:
    """Return the distance in mm to the straight line between two points."""
    along = np.subtract(end, start).astype(np.float32)
    local = [axis - np.float32(a) for axis, a in zip(grid, start, strict=True)]
    t = np.clip(sum(c * a for c, a in zip(local, along, strict=True)) / (along @ along), 0, 1)
    distance: Floats = np.sqrt(np.asarray(sum((c - t * a) ** 2 for c, a in zip(local, along, strict=True))))
    return distance


def grow(size: Floats, voxels: int) -> tuple[float, Mask]:
    """Return the level at which the component around the smallest value has at least `voxels` voxels, and it.

    Infinite values are never taken. Islands that a rough level set leaves beside the component do not count.
    """
    ordered = np.sort(size[np.isfinite(size)])
    seed = np.unravel_index(np.argmin(size), size.shape)
    wanted = voxels
    while True:
        level = ordered[min(wanted, len(ordered)) - 1]
        inside = component_at(size <= level, seed, "faces")
        missing = voxels - int(inside.sum())
        if missing <= 0 or wanted >= len(ordered):
            return float(level), inside
        wanted += missing
