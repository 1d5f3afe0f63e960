"""Judge one case by the headers of its files: grids, voxel sizes, units, axes and channels."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from nibabel.openers import ImageOpener

from voxloss.data.case import Case
from voxloss.data.check.findings import Finding, Severity
from voxloss.data.dataset import Dataset
from voxloss.data.grid import turn_of
from voxloss.data.nifti import (
    GEOMETRY_TOLERANCE,
    UNIT_NAMES,
    Geometry,
    check_same_geometry,
    geometry_of,
    mm_per_unit,
    open_nifti,
    volume_shape,
)
from voxloss.utilities.errors import InputError

SQUARE = 1e-3  # cosine of the angle between two axes, beyond which they are not at right angles
PLAUSIBLE_MM = (1e-4, 50.0)  # voxel sizes from microscopy to the coarsest scans


@dataclass
class HeaderInspection:
    """The result of reading the headers of one case.

    Args:
        case_id: The case.
        findings: Findings about it.
        stored: The grid of its first image (without one, of its mask) as stored.
        geometry: The same with the axes turned to those of the data set.
        channels: Of its images.
        readable: Images whose header is a volume's.
        label: The mask, if its header is that of a volume of one channel.
        region: The region of interest, if its header is that of such a volume on the same grid.
    """

    case_id: str
    findings: list[Finding] = field(default_factory=list)
    stored: Geometry | None = None
    geometry: Geometry | None = None
    channels: int = 0
    readable: list[Path] = field(default_factory=list)
    label: Path | None = None
    region: Path | None = None

    def add(self, severity: Severity, message: str) -> None:
        """Add a finding about this case."""
        self.findings.append(Finding(severity, self.case_id, message))


def inspect_headers(case: Case, dataset: Dataset) -> HeaderInspection:
    """Read the headers of the images, of the mask and of the region of interest of a case."""
    inspection = HeaderInspection(case.case_id)
    for number, path in enumerate(case.images, start=1):
        if not path.is_file():
            which = "" if len(case.images) == 1 else f" {number} of {len(case.images)}"
            inspection.add("error", f"no image{which}")
            continue
        try:
            file = open_nifti(path)
            _inspect_grid(path, file, inspection, dataset)
            inspection.channels += volume_shape(path, file)[1]
            inspection.readable.append(path)
        except InputError as error:
            inspection.add("error", str(error))
    if not case.images:
        inspection.add("error", "no image")
    inspection.label = _inspect_mask(case.label, "mask", inspection, dataset)
    if case.region is not None:
        inspection.region = _inspect_mask(case.region, "region of interest", inspection, dataset)
    return inspection


def _inspect_mask(path: Path | None, what: str, inspection: HeaderInspection, dataset: Dataset) -> Path | None:
    """Return the path if it is a volume of one channel, whose grid is compared with that of the first image."""
    if path is None or not path.is_file():
        inspection.add("error", f"no {what}")
        return None
    try:
        file = open_nifti(path)
        if volume_shape(path, file)[1] != 1:
            raise InputError(f"{path} has shape {tuple(file.shape)} where a {what} has three axes")
        _inspect_grid(path, file, inspection, dataset)
    except InputError as error:
        inspection.add("error", str(error))
        return None
    return path


def _inspect_grid(path: Path, file: nibabel.Nifti1Image, inspection: HeaderInspection, dataset: Dataset) -> None:
    """Keep the first image's geometry, and compare the other files of the case with it."""
    geometry = geometry_of(path, file)
    if inspection.readable and inspection.stored is not None:
        try:
            check_same_geometry(path, geometry, inspection.readable[0], inspection.stored)
        except InputError as error:  # the values are still worth reading
            inspection.add("error", str(error))
        return
    inspection.stored, inspection.geometry = geometry, turn_of(geometry, dataset).geometry(geometry)
    _inspect_header(path, file, geometry, inspection)


def _inspect_header(path: Path, file: nibabel.Nifti1Image, geometry: Geometry, inspection: HeaderInspection) -> None:
    """Compare the voxel sizes as stored, before nibabel's repairs, with those that are used."""
    with ImageOpener(str(path), "rb") as stream:
        stored = type(file.header).from_fileobj(stream, check=False)
    unit = mm_per_unit(file)
    sizes = [float(size) * unit for size in stored["pixdim"][1 : min(4, len(file.shape) + 1)]]
    text, used = _by(sizes), _by(geometry.spacing_mm)
    placed = int(stored["sform_code"]) > 0
    agree = bool(np.allclose(sizes, geometry.spacing_mm[: len(sizes)], rtol=1e-3))
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        inspection.add("warning" if placed else "error", f"voxel sizes of {text} mm in the header of {path.name}")
    elif not agree:
        inspection.add("warning", f"{path.name} gives voxel sizes of {text} mm, its affine {used}, which are used")
    if unit != 1:
        name = UNIT_NAMES[int(stored["xyzt_units"]) & 7]
        inspection.add("note", f"the header's unit is the {name}, which is converted to mm")
    if not PLAUSIBLE_MM[0] <= min(geometry.spacing_mm) <= max(geometry.spacing_mm) <= PLAUSIBLE_MM[1]:
        inspection.add("warning", f"{path.name} has voxels of {used} mm; are unit and sizes in its header right?")
    axes = np.asarray(geometry.affine)[:3, :3] / np.asarray(geometry.spacing_mm)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > SQUARE:
        degrees = math.degrees(math.acos(min(1.0, float(cosines.max()))))
        inspection.add("warning", f"the axes of {path.name} meet at {degrees:.3g}°, so volumes and distances are wrong")
    if not placed and int(stored["qform_code"]) == 0:
        inspection.add("note", "neither qform nor sform is set, so where left and right are is not known")
    if placed and int(stored["qform_code"]) > 0 and agree:
        difference = _form_difference(file) * unit
        if not difference <= GEOMETRY_TOLERANCE:
            inspection.add("note", f"qform and sform differ by up to {difference:.3g} mm; the sform is used")


def _form_difference(file: nibabel.Nifti1Image) -> float:
    """Return the largest difference between the matrices of qform and sform; infinite if the qform is none."""
    try:
        return float(np.abs(file.header.get_qform() - file.header.get_sform()).max())
    except (ValueError, nibabel.spatialimages.HeaderDataError):  # a quaternion that is no rotation
        return math.inf


def _by(sizes: tuple[float, ...] | list[float]) -> str:
    return " × ".join(f"{size:g}" for size in sizes)
