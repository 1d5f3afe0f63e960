"""The grid of an image or mask, in one convention for all formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxloss.utilities.arrays import AnyArray
from voxloss.utilities.errors import InputError

GEOMETRY_TOLERANCE = 1e-3  # image and mask of public data sets agree to about this, not exactly

# The ends of a patient's three axes: right and left, anterior and posterior, superior and inferior.
OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Unit = Literal["mm", "pixel"]


def are_axes(text: str) -> bool:
    """Return whether a text names the directions of three axes, such as "LPS"."""
    return sorted(min(letter, OPPOSITE.get(letter, letter)) for letter in text) == ["A", "I", "L"]


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume.

    shape and spacing_mm are per stored array axis; affine is the 4×4 voxel-to-world matrix in mm. axes has a letter per
    array axis, the end of the patient towards which it counts: "LPS" is left, posterior, superior. It is empty if the
    file does not say where left and right are. unit is "pixel" if the file does not say how large a pixel is: every
    spacing is 1 then, and affine is in pixels too.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...]
    axes: str = ""
    unit: Unit = "mm"


def geometry_from(
    path: Path, shape: tuple[int, int, int], affine: AnyArray, *, placed: bool = True, unit: Unit = "mm"
) -> Geometry:
    """Return the geometry with a matrix. Raises InputError if a voxel has no positive finite size.

    Args:
        path: The file, for the message.
        shape: The three spatial sizes.
        affine: The 4×4 matrix from voxels to RAS+ millimetres.
        placed: Whether the file says where left and right are.
        unit: The unit of the matrix.
    """
    import nibabel  # imports SciPy, and commands that open no volume (status) import this module

    first, second, third = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    spacing = (first, second, third)
    if not (np.isfinite(affine).all() and min(spacing) > 0):
        raise InputError(f"{path} has voxels of {times(spacing)} mm; every side should be positive and finite")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise InputError(f"{path} has axes that lie in one plane, so its matrix places no volume")
    rows = [tuple(float(value) for value in row) for row in affine]
    codes = nibabel.orientations.aff2axcodes(affine) if placed else ()
    axes = "" if None in codes else "".join(codes)
    return Geometry(shape, spacing, tuple((row[0], row[1], row[2], row[3]) for row in rows), axes, unit)


def lps_affine(directions: AnyArray, spacing: AnyArray, origin: AnyArray) -> AnyArray:
    """Return the RAS+ matrix of a grid in the LPS convention of ITK and DICOM.

    Args:
        directions: The unit vectors of the array axes, as columns (3, 3).
        spacing: The three spacings.
        origin: The position of the first voxel.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = origin
    return LPS_TO_RAS @ affine + 0.0  # no -0


def picture_geometry(path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float] | None) -> Geometry:
    """Return the geometry of a picture, or of a stack of them, whose rows lie from top to bottom.

    The matrix is the one that SimpleITK gives to such a file, so the picture stands upright in a viewer.
    """
    affine = lps_affine(np.eye(3), np.array(spacing or (1.0, 1.0, 1.0)), np.zeros(3))
    return geometry_from(path, shape, affine, placed=False, unit="pixel" if spacing is None else "mm")


def sized(geometry: Geometry, path: Path, spacing_mm: tuple[float, float, float] | None) -> Geometry:
    """Return the grid of a file, with this size of a voxel if the file does not tell it."""
    if spacing_mm is None or geometry.unit == "mm":
        return geometry
    return picture_geometry(path, geometry.shape, spacing_mm)


def check_same_geometry(path: Path, geometry: Geometry, reference_path: Path, reference: Geometry) -> None:
    """Raise InputError unless shapes are equal and affines agree within 1e-3 mm (of tiny voxels, a hundredth).

    Of a file that does not say how large a pixel is, only the directions are compared.
    """
    if geometry.shape != reference.shape:
        raise InputError(
            f"{path} has shape {times(geometry.shape)} but {reference_path.name} of the same case has "
            f"{times(reference.shape)}"
        )
    if geometry.unit != reference.unit:
        one, other = (np.asarray(grid.affine)[:3, :3] / grid.spacing_mm for grid in (geometry, reference))
        if np.abs(one - other).max() > GEOMETRY_TOLERANCE:
            raise InputError(f"the axes of {path} and of {reference_path.name} of the same case point elsewhere")
        return
    difference = np.abs(np.asarray(geometry.affine) - np.asarray(reference.affine)).max()
    if difference > min(GEOMETRY_TOLERANCE, 0.01 * min(reference.spacing_mm)):
        turned = geometry.axes and reference.axes and geometry.axes != reference.axes
        stored = f" (their axes are stored as {geometry.axes} and {reference.axes})" if turned else ""
        raise InputError(
            f"{path} and {reference_path.name} of the same case are at different positions: their affines differ "
            f"by up to {difference:.3g} {reference.unit}{stored}"
        )


def times(sizes: tuple[float, ...]) -> str:
    """Write sizes: "0.8 × 0.8 × 3"."""
    return " × ".join(f"{size:g}" for size in sizes)
