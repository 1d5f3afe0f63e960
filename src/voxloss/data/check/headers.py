"""Judge one case by the headers of its files: grids, voxel sizes, units, axes and channels."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voxloss.data.case import Case, require_one_channel
from voxloss.data.check.findings import Finding, Severity
from voxloss.data.dataset import Dataset
from voxloss.data.formats import exists, open_image, open_mask
from voxloss.data.formats.geometry import Geometry, check_same_geometry, times
from voxloss.data.formats.volume import Volume, absent
from voxloss.data.grid import turn_of
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
        names: The names that the mask gives to its values.
    """

    case_id: str
    findings: list[Finding] = field(default_factory=list)
    stored: Geometry | None = None
    geometry: Geometry | None = None
    channels: int = 0
    readable: list[Path] = field(default_factory=list)
    label: Path | None = None
    region: Path | None = None
    names: dict[int, str] = field(default_factory=dict)

    def add(self, severity: Severity, message: str) -> None:
        """Add a finding about this case."""
        self.findings.append(Finding(severity, self.case_id, message))


def inspect_headers(case: Case, dataset: Dataset) -> HeaderInspection:
    """Read the headers of the images, of the mask and of the region of interest of a case."""
    inspection = HeaderInspection(case.case_id)
    for number, path in enumerate(case.images, start=1):
        if not exists(path):
            which = "" if len(case.images) == 1 else f" (image {number} of {len(case.images)})"
            inspection.add("error", f"{absent(path)}{which}")
            continue
        try:
            file = open_image(path)
            _inspect_grid(file, case, inspection, dataset)
            inspection.channels += file.channels
            inspection.readable.append(path)
        except InputError as error:
            inspection.add("error", str(error))
    if not case.images:
        inspection.add("error", "no image")
    if case.label in case.images:
        inspection.add("error", f"{case.label} is both an image and the mask")
    like = inspection.readable[0] if inspection.readable else None
    mask = _inspect_mask(case.label, "mask", like, case, inspection, dataset)
    if mask is not None:
        inspection.label, inspection.names = case.label, mask.names
    region = case.region
    if region is not None and _inspect_mask(region, "region of interest", like, case, inspection, dataset):
        inspection.region = region
    return inspection


def _inspect_mask(
    path: Path | None, what: str, like: Path | None, case: Case, inspection: HeaderInspection, dataset: Dataset
) -> Volume | None:
    """Return the open file if it is a volume of one channel, whose grid is compared with that of the first image."""
    if path is None or not exists(path):
        inspection.add("error", f"no {what}" if path is None else absent(path))
        return None
    try:
        file = open_mask(path, like=like)
        require_one_channel(file, what)
        _inspect_grid(file, case, inspection, dataset)
    except InputError as error:
        inspection.add("error", str(error))
        return None
    return file


def _inspect_grid(file: Volume, case: Case, inspection: HeaderInspection, dataset: Dataset) -> None:
    """Keep the first image's geometry, and compare the other files of the case with it."""
    geometry = case.placed(file.geometry)
    if inspection.readable and inspection.stored is not None:
        try:
            check_same_geometry(file.path, geometry, inspection.readable[0], inspection.stored)
        except InputError as error:  # the values are still worth reading
            inspection.add("error", str(error))
        return
    inspection.stored, inspection.geometry = geometry, turn_of(geometry, dataset).geometry(geometry)
    for severity, message in file.remarks():
        inspection.add(severity, message)
    _inspect_voxels(file.path, geometry, inspection)


def _inspect_voxels(path: Path, geometry: Geometry, inspection: HeaderInspection) -> None:
    """Judge sizes and axes of the voxels."""
    if geometry.unit == "pixel":
        return
    spacing = geometry.spacing_mm
    if not PLAUSIBLE_MM[0] <= min(spacing) <= max(spacing) <= PLAUSIBLE_MM[1]:
        inspection.add(
            "warning", f"{path.name} has voxels of {times(spacing)} mm; are unit and sizes in its header right?"
        )
    axes = np.asarray(geometry.affine)[:3, :3] / np.asarray(spacing)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > SQUARE:
        degrees = math.degrees(math.acos(min(1.0, float(cosines.max()))))
        inspection.add("warning", f"the axes of {path.name} meet at {degrees:.3g}°, so volumes and distances are wrong")
