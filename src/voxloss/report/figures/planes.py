"""The plane of a case that is drawn: its orientation, and its grey values or colours."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import ArrayLike

from voxloss.data.case import Case, read_image
from voxloss.report.record import StudyRecord
from voxloss.utilities.arrays import AnyArray, ClassIndices, Float32s

AXIAL = 2  # of the axes to the patient's right, front and head, the one that an axial slice lies across


def radiological_plane(volume: AnyArray, affine: ArrayLike, index: int, across: int = AXIAL) -> AnyArray:
    """Return a slice in radiological orientation: of an axial one the patient's right is on the left, front on top.

    Args:
        volume: The volume, in the stored axis order and any orientation.
        affine: 4 × 4 matrix from voxels to RAS+ millimetres.
        index: Number of the slice, counted from the feet; of a sagittal one from the left, of a coronal one from the
            back.
        across: The axis to the patient's right (0), front (1) or head (2) that the slice lies across.
    """
    plane: AnyArray = canonical(volume, affine).take(index, axis=across)
    return plane.T[::-1, ::-1]


def canonical(volume: AnyArray, affine: ArrayLike) -> AnyArray:
    """Return the same voxels with axes to the patient's right, front and head, as `nibabel.as_closest_canonical`."""
    turned: AnyArray = apply_orientation(volume, io_orientation(np.asarray(affine)))
    return turned


def plane_spacing_mm(spacing_mm: Sequence[float], affine: ArrayLike, across: int = AXIAL) -> tuple[float, float]:
    """Return height and width of a pixel of `radiological_plane`."""
    by_direction = dict(zip(io_orientation(np.asarray(affine))[:, 0].astype(int), spacing_mm, strict=True))
    width, height = (by_direction[direction] for direction in range(3) if direction != across)
    return height, width


def slice_across(shape: Sequence[int]) -> int:
    """Return the axis that the drawn slice lies across: axial, unless the volume is a single slice of another kind."""
    single = [direction for direction, extent in enumerate(shape) if extent == 1]
    return single[0] if len(single) == 1 else AXIAL


def drawn_plane(record: StudyRecord, case: Case, index: int, across: int) -> tuple[Float32s, tuple[float, float]]:
    """Return a slice of a case's first channel, or an image in colour if it is one file of three channels.

    Args:
        record: The study.
        case: The case.
        index: As for `radiological_plane`.
        across: As for `radiological_plane`.

    Returns:
        Values (rows, columns), or of red, green and blue (rows, columns, 3); and those that are drawn black and white.

    Raises:
        InputError: The image cannot be read.
    """
    image, geometry = read_image(replace(case, images=case.images[:1]))
    if record.study.dataset.flat_axis is not None and len(case.images) == 1 and len(image) == 3:
        colours = [radiological_plane(channel, geometry.affine, index, across) for channel in image]
        return np.stack(colours, axis=2), _colour_window(image)
    return radiological_plane(image[0], geometry.affine, index, across).copy(), grey_window(record, image[0])


def shades(values: Float32s, window: tuple[float, float]) -> ClassIndices:
    """Return values between black and white as 0 to 255."""
    low, high = window
    return np.asarray(np.clip((values - low) * (255 / (high - low)), 0, 255), dtype=np.uint8)


def grey_window(record: StudyRecord, image: Float32s) -> tuple[float, float]:
    """Return the clipping range of the preparation (CT), or the volume's 1st to 99th percentile without one.

    Voxels of the lowest value are left out of the percentiles: where a skull is stripped they are most of the volume.
    """
    clip = None if record.study.imported else record.study.config.preparation.clip
    if clip is not None:
        return clip
    sample = image.ravel(order="K")[:: max(1, image.size // 1_000_000)]
    inside = sample[sample > sample.min()]
    low, high = np.percentile(inside if len(inside) else sample, (1, 99))
    return float(low), float(high) if high > low else float(low) + 1.0


def _colour_window(image: Float32s) -> tuple[float, float]:
    """Return what is black and white: in photographs of 8 bits 0 and 255, so that dark ones stay dark."""
    low, high = min(float(image.min()), 0.0), float(image.max())
    if low == 0 and 1 < high <= 255:
        return 0.0, 255.0
    return low, high if high > low else low + 1.0
