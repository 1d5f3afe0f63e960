"""Distances between the surfaces of two masks, in mm, weighted by the area (in 2D the length) of each piece."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloss.geometry.distances import nearest_distances
from voxloss.utilities.arrays import Float64s, Mask

# A distance on the tolerance's edge is within it, also where its last digit was rounded up.
ROUNDING = 1e-9


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from every surface element to the surface of the other mask, and the elements' areas.

    The surface of two-dimensional masks is their contour, and the areas of its elements are lengths in mm.

    Args:
        reference_mm: Distances of the reference's elements to the prediction's surface, mm.
        reference_area: Areas of the reference's elements, mm².
        prediction_mm: Distances of the prediction's elements to the reference's surface, mm.
        prediction_area: Areas of the prediction's elements, mm².
    """

    reference_mm: Float64s
    reference_area: Float64s
    prediction_mm: Float64s
    prediction_area: Float64s

    def hausdorff(self, share: float) -> float:
        """Return the larger of the two directed distances (mm) that this share of each surface does not exceed."""
        return max(
            _area_quantile(self.reference_mm, self.reference_area, share),
            _area_quantile(self.prediction_mm, self.prediction_area, share),
        )

    def average(self) -> float:
        """Return the mean distance over the area of both surfaces, mm."""
        # Not by `@`, whose last digits depend on the number of threads.
        total = (self.reference_mm * self.reference_area).sum() + (self.prediction_mm * self.prediction_area).sum()
        return float(total / (self.reference_area.sum() + self.prediction_area.sum()))

    def within(self, tolerance_mm: float) -> float:
        """Return the share of the area of both surfaces that is within the tolerance of the other surface."""
        limit = tolerance_mm * (1 + ROUNDING)
        close = self.reference_area[self.reference_mm <= limit].sum()
        close += self.prediction_area[self.prediction_mm <= limit].sum()
        return float(close / (self.reference_area.sum() + self.prediction_area.sum()))


def surface_distances(reference: Mask, prediction: Mask, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks that are not empty.

    The surface runs through the corners between voxels: a corner whose eight voxels are not all alike is an element of
    surface, and its area is that of the marching cubes' polygons for this pattern of eight. Voxels outside the
    arrays do not belong to the masks. Distances are Euclidean, from element to nearest element. In two dimensions it is
    the contour through the corners between four pixels, with the lengths of marching squares.

    Args:
        reference: Mask of bool, (n0, n1, n2) or (n0, n1).
        prediction: Mask of bool of the same shape.
        spacing_mm: Voxel sizes along the axes.

    Source: Nikolov et al. 2021 (J Med Internet Res 23(7) e26151), section "Performance Metrics"; their package
    surface-distance gives the same values. The tables of areas and lengths are MONAI's.
    """
    # MONAI takes seconds to import, and only surface distances need it.
    from monai.metrics import utils

    table = {
        2: utils.create_table_neighbour_code_to_contour_length,
        3: utils.create_table_neighbour_code_to_surface_area,
    }
    make = table[reference.ndim]
    area_of_code = make(tuple(map(float, spacing_mm)))[0].double().numpy()  # type: ignore[no-untyped-call]
    ours, theirs = _corner_codes(reference), _corner_codes(prediction)
    on_ours, on_theirs = ((codes != 0) & (codes != len(area_of_code) - 1) for codes in (ours, theirs))
    return SurfaceDistances(
        nearest_distances(on_ours, on_theirs, spacing_mm),
        area_of_code[ours[on_ours]],
        nearest_distances(on_theirs, on_ours, spacing_mm),
        area_of_code[theirs[on_theirs]],
    )


def _corner_codes(mask: Mask) -> NDArray[np.uint8]:
    """Return, for every corner between voxels, which of the eight (four) around it are in the mask, a bit for each."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([extent - 1 for extent in padded.shape], dtype=np.uint8)
    corners = list(np.ndindex((2,) * mask.ndim))
    for bit, corner in enumerate(corners):
        window = tuple(slice(start, start + extent) for start, extent in zip(corner, codes.shape, strict=True))
        codes |= padded[window] << (len(corners) - 1 - bit)
    return codes


def _area_quantile(distances: Float64s, areas: Float64s, share: float) -> float:
    order = np.argsort(distances, kind="stable")
    cumulated = np.cumsum(areas[order])
    place = int(np.searchsorted(cumulated / cumulated[-1], share))
    return float(distances[order][min(place, len(order) - 1)])
