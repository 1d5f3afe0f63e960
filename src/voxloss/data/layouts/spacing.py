"""The size of a voxel of files that do not tell it, such as pictures."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from voxloss.data.case import Case
from voxloss.data.formats import read_geometry
from voxloss.utilities.errors import InputError


def with_picture_spacing(cases: Sequence[Case], spacing_mm: Sequence[float] | None) -> tuple[Case, ...]:
    """Return the cases with the size of a voxel that their files do not tell; None: it stays unknown.

    Args:
        cases: The cases.
        spacing_mm: Three sizes, or the two sides of a pixel, in the order of the arrays (of pictures: x, y, slices).

    Raises:
        InputError: `spacing_mm` is no such list, or the first image that can be read tells its own size.
    """
    if spacing_mm is None:
        return tuple(cases)
    if not isinstance(spacing_mm, list | tuple) or len(spacing_mm) not in (2, 3) or not all(map(_is_size, spacing_mm)):
        raise InputError(
            "data.options.picture_spacing_mm takes two or three positive sizes in mm, such as [0.5, 0.5], but is "
            f"{spacing_mm!r}"
        )
    sizes = [float(size) for size in spacing_mm]
    x, y, z = sizes if len(sizes) == 3 else [*sizes, 1.0]
    known = next((case for case in cases if _unit(case) is not None), None)
    if known is not None and _unit(known) == "mm":
        raise InputError(
            f"data.options.picture_spacing_mm is set, but {known.images[0]} tells the size of its voxels; leave the "
            "option out"
        )
    return tuple(replace(case, spacing_mm=(x, y, z)) for case in cases)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _unit(case: Case) -> str | None:
    """Return the unit of a case's first image; None if its header cannot be read, which whoever reads it tells."""
    try:
        return read_geometry(case.images[0]).unit if case.images else None
    except InputError:
        return None
