"""Small NIfTI files with known content, for the tests of this folder."""

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np

KITS_AFFINE = np.array([[0, 0, -0.7, 0], [0, -0.7, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])  # (slice, row, column)


def write_nifti(
    path: Path,
    values: np.ndarray,
    affine: np.ndarray | None = None,
    codes: tuple[int, int] = (1, 1),
    header: Mapping[str, object] | None = None,
) -> Path:
    """Write `values` as they are (their type too), with the given qform and sform codes and further header fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4) if affine is None else affine
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, code=codes[0], strip_shears=True)
    image.set_sform(affine, code=codes[1])
    for name, value in (header or {}).items():
        image.header[name] = value
    image.to_filename(path)
    return path


SCALING_AT, PIXDIM_AT, SROW_X_AT = 112, 76, 280  # byte offsets in the NIfTI-1 header


def patch_header(path: Path, offset: int, values: tuple[float, ...]) -> Path:
    """Overwrite float32 header fields of an uncompressed file, which nibabel would not write as they are."""
    content = bytearray(path.read_bytes())
    packed = np.array(values, "<f4").tobytes()
    content[offset : offset + len(packed)] = packed
    path.write_bytes(content)
    return path


def oblique_affine() -> np.ndarray:
    """Rotated about two axes, with unequal spacing: 0.8 × 0.9 × 2.5 mm."""
    about_x, about_z = 0.3, -0.4
    first = np.array([[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    second = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = first @ second @ np.diag([0.8, 0.9, 2.5])
    affine[:3, 3] = (-31.5, 12.25, 7)
    return affine


def box(shape: tuple[int, ...], corner: tuple[int, ...], size: tuple[int, ...], value: int = 1) -> np.ndarray:
    """A uint8 mask of one box."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))] = value
    return mask
