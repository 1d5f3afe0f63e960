"""Probabilities on disk: one NIfTI file per case, a byte per voxel and class, which every viewer opens."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from voxloss.data.formats import NIFTI, ending_of, read_geometry
from voxloss.data.formats.geometry import sized
from voxloss.data.formats.nifti import open_nifti
from voxloss.utilities.arrays import ClassIndices, Float32s
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_path

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

STEPS = 255  # rounding to steps of 1/255 errs by at most 1/510


def to_bytes(probabilities: Float32s) -> ClassIndices:
    """Round probabilities to steps of 1/255, given as bytes; what is not a number becomes 0."""
    scaled = np.clip(np.nan_to_num(probabilities, nan=0.0) * np.float32(STEPS) + np.float32(0.5), 0, STEPS)
    rounded: ClassIndices = scaled.astype(np.uint8)
    return rounded


def write_probabilities(
    path: Path, values: ClassIndices, like: Path, spacing_mm: tuple[float, float, float] | None = None
) -> None:
    """Write the probabilities of the foreground classes, whole or not at all.

    The file has the four axes (X, Y, Z, class) and the scaling 1/255, so that readers return values from 0 to 1.

    Args:
        path: The file, *.nii.gz.
        values: In steps of 1/255, (classes, *shape), along the axes that `like` is stored in.
        like: The image, with the same field of view. If its shape is another one, so are its voxel sizes.
        spacing_mm: The size of its voxels if it does not tell it.

    Raises:
        InputError: `like` is unreadable.
    """
    import nibabel  # imports SciPy, and the commands that write none import this module

    geometry = sized(read_geometry(like), like, spacing_mm)
    factors = np.array([old / new for old, new in zip(geometry.shape, values.shape[1:], strict=True)])
    affine = np.asarray(geometry.affine) @ np.diag([*factors, 1.0])
    affine[:3, 3] += np.asarray(geometry.affine)[:3, :3] @ (factors - 1) / 2  # from border to border, not centre
    stored = np.moveaxis(values, 0, -1)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(stored.shape)
    header.set_zooms((*(np.array(geometry.spacing_mm) * factors), 1.0))
    header.set_xyzt_units("mm")
    # Without a code the file says nothing about its place in the world.
    codes = [int(bool(geometry.axes))] * 2
    if ending_of(like) in NIFTI:
        codes = [int(open_nifti(like).header[f"{kind}_code"]) for kind in ("sform", "qform")]
    for code, kind in zip(codes, ("sform", "qform"), strict=True):
        if code:
            getattr(header, f"set_{kind}")(affine, code)
    header.set_slope_inter(1 / STEPS, 0)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset  # where `write_to` ends
    # nibabel writes scaled integers from floating arrays alone, of four times the size.
    with atomic_path(path) as partial, partial.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as file:
        header.write_to(file)
        for place in range(stored.shape[3]):
            file.write(stored[..., place].tobytes(order="F"))


def read_probability(path: Path, place: int, shape: Sequence[int] | None = None) -> ClassIndices:
    """Read the probabilities of one class, in steps of 1/255, (*shape).

    Args:
        path: A file of `write_probabilities`.
        place: The place of the class among the foreground classes, from 0.
        shape: The shape of the grid that they are wanted on, which has the same field of view; None: as stored.

    Raises:
        InputError: The file is missing or damaged, or has fewer classes.
    """
    file = open_nifti(path)
    if len(file.shape) != 4 or not 0 <= place < file.shape[3]:
        raise InputError(f"{path} has the shape {tuple(file.shape)}, which has no probabilities of class {place + 1}")
    try:
        stored = cast("ArrayProxy", file.dataobj).get_unscaled()
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    values: ClassIndices = np.asarray(stored[..., place], dtype=np.uint8)
    if shape is None or tuple(shape) == values.shape:
        return values
    from voxloss.data.prepare.resample import resample_image  # torch

    resampled = np.empty(tuple(shape), dtype=np.float32)
    resample_image(values, resampled)
    return to_bytes(resampled / np.float32(STEPS))
