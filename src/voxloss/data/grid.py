"""The grid that the cases of a data set share: order and direction of their axes, and their spacing.

Some data sets store half of the cases as (x, y, z) and half as (z, y, x), or some with the left and some with the right
first. Networks see arrays, so such cases are turned to the order that most have, and predictions are turned back.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.formats import read_geometry
from voxloss.data.formats.geometry import OPPOSITE, Geometry, are_axes
from voxloss.utilities.arrays import AnyArray
from voxloss.utilities.errors import InputError

SAME_SPACING = 1e-3  # relative; no case is resampled for less


@dataclass(frozen=True)
class Turn:
    """Axis i of a turned volume is axis order[i] of the stored one, reversed if reverse[i]."""

    order: tuple[int, int, int] = (0, 1, 2)
    reverse: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def between(cls, stored: str, wanted: str | None) -> "Turn":
        """Return the turn from axes such as "LPS" to others; no turn if one of both is not known."""
        if not stored or not wanted:
            return cls()
        first, second, third = (
            next(axis for axis, letter in enumerate(stored) if letter in (code, OPPOSITE[code])) for code in wanted
        )
        order = (first, second, third)
        a, b, c = (stored[axis] != code for axis, code in zip(order, wanted, strict=True))
        return cls(order, (a, b, c))

    def turned(self, volume: AnyArray) -> AnyArray:
        """Return a view of a stored volume (..., *shape) with turned axes."""
        lead = volume.ndim - 3
        view = volume.transpose(*range(lead), *(lead + axis for axis in self.order))
        return view[(..., *self._steps())]

    def stored(self, volume: AnyArray) -> AnyArray:
        """Return a view of a turned volume (..., *shape) in the stored order: the inverse of `turned`."""
        lead = volume.ndim - 3
        back = np.argsort(self.order)
        return volume[(..., *self._steps())].transpose(*range(lead), *(lead + int(axis) for axis in back))

    def geometry(self, geometry: Geometry) -> Geometry:
        """Return the geometry of the turned volume; each voxel stays where it is in the world."""
        if self == Turn():
            return geometry
        shape = tuple(geometry.shape[axis] for axis in self.order)
        spacing = tuple(geometry.spacing_mm[axis] for axis in self.order)
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for new, (old, reverse) in enumerate(zip(self.order, self.reverse, strict=True)):
            to_stored[old, new] = -1 if reverse else 1
            to_stored[old, 3] = geometry.shape[old] - 1 if reverse else 0
        affine = np.asarray(geometry.affine) @ to_stored
        rows = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in affine)
        letters = zip((geometry.axes[axis] for axis in self.order), self.reverse, strict=True)
        axes = "".join(OPPOSITE[letter] if reverse else letter for letter, reverse in letters)
        return replace(
            geometry,
            shape=(shape[0], shape[1], shape[2]),
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            affine=rows,
            axes=axes,
        )

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if reverse else None) for reverse in self.reverse)
        return first, second, third


def turn_of(geometry: Geometry, dataset: Dataset) -> Turn:
    """Return the turn from a case's stored axes to those of its data set."""
    return Turn.between(geometry.axes, dataset.axes)


def turned_geometry(case: Case, dataset: Dataset) -> Geometry:
    """Return the geometry of a case's first image along the data set's axes. Raises InputError as `read_geometry`."""
    geometry = case.placed(read_geometry(case.images[0]))
    return turn_of(geometry, dataset).geometry(geometry)


def with_common_grid(dataset: Dataset, axes: str = "common") -> Dataset:
    """Return the data set with the axes, the spacing and the flat axis of its cases, from their headers.

    Args:
        dataset: The data set. Images that cannot be read have no part in it; whoever reads the case names the fault.
        axes: "common" turns every case to the order and direction that most cases are stored in (of equally many, the
            first case's); "stored" turns none; or three letters such as "RAS", the ends towards which the axes count.

    Raises:
        InputError: `axes` is none of these.
    """
    if not isinstance(axes, str) or (axes not in ("common", "stored") and not are_axes(axes)):
        raise InputError(f'axes should be "common", "stored" or three letters such as "RAS", but is {axes!r}')
    geometries = [geometry for case in dataset.cases if (geometry := _readable(case)) is not None]
    if axes == "common":
        known = Counter(geometry.axes for geometry in geometries if geometry.axes)
        common = max(known, key=lambda name: known[name]) if known else None
    else:
        common = None if axes == "stored" else axes
    turned = [Turn.between(geometry.axes, common).geometry(geometry) for geometry in geometries]
    flat_axis = common_flat_axis([geometry.shape for geometry in turned])
    # The thickness of a single slice has no part in what is common to all.
    spacings = [
        tuple(
            turned[0].spacing_mm[axis] if axis == flat_axis else side for axis, side in enumerate(geometry.spacing_mm)
        )
        for geometry in turned
    ]
    return replace(
        dataset,
        axes=common,
        spacing_mm=common_spacing(spacings),
        flat_axis=flat_axis,
        unit="pixel" if turned and all(geometry.unit == "pixel" for geometry in turned) else "mm",
    )


def common_flat_axis(shapes: Sequence[tuple[int, int, int]]) -> int | None:
    """Return the axis along which all cases have one voxel, the last if several have; None without one."""
    return next((axis for axis in (2, 1, 0) if shapes and all(shape[axis] == 1 for shape in shapes)), None)


def stored_flat_axis(geometry: Geometry, dataset: Dataset) -> int | None:
    """Return the axis of a case's stored arrays that is the flat axis of its data set; None for volumes."""
    return None if dataset.flat_axis is None else turn_of(geometry, dataset).order[dataset.flat_axis]


def flattened(array: AnyArray, flat_axis: int | None) -> AnyArray:
    """Return a view of an image (n0, n1, n2) as the plane that it is; of a volume the volume."""
    return array if flat_axis is None else array.squeeze(flat_axis)


def in_plane(values: Sequence[float], flat_axis: int | None) -> tuple[float, ...]:
    """Return the values of a plane's two axes; of a volume those of all three."""
    return tuple(value for axis, value in enumerate(values) if axis != flat_axis)


def only_axes(dataset: Dataset) -> str | None:
    """Return the axes that all images are stored along, as far as they can be read; None if they differ."""
    axes = {geometry.axes for case in dataset.cases if (geometry := _readable(case)) is not None}
    return axes.pop() or None if len(axes) == 1 else None


def common_spacing(spacings: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """Return the spacing that all cases have, None if they differ."""
    if not spacings:
        return None
    first, second, third = (float(statistics.median(axis)) for axis in zip(*spacings, strict=True))
    same = all(same_spacing((first, second, third), other) for other in spacings)
    return (first, second, third) if same else None


def same_spacing(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two spacings are so close that nothing is resampled from one to the other."""
    return bool(np.allclose(one, other, rtol=SAME_SPACING, atol=0))


def _readable(case: Case) -> Geometry | None:
    try:
        return case.placed(read_geometry(case.images[0])) if case.images else None
    except InputError:
        return None
