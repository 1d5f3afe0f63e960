"""The units in which the structures of a data set are measured: of volumes mm and ml, of images mm or pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """Names of units, for titles and tables.

    Args:
        length: Of distances: "mm" or "pixels".
        size: Of structures: "ml", "mm²" or "pixels".
        extent: The size's name: "volume" or "area".
        element: The grid's: "voxel" or "pixel".
        column: The size's name in the header of a table of numbers.
    """

    length: str
    size: str
    extent: str
    element: str
    column: str


VOLUMES = Units("mm", "ml", "volume", "voxel", "volume_ml")
AREAS = Units("mm", "mm²", "area", "pixel", "area_mm2")
PIXELS = Units("pixels", "pixels", "area", "pixel", "area_pixels")  # images whose pixel size is not known


def element_size(spacing_mm: Sequence[float]) -> float:
    """Return the size of one voxel in ml from three spacings, of one pixel in mm² from two."""
    return math.prod(spacing_mm) / (1000 if len(spacing_mm) == 3 else 1)
