"""Read one case: its grid, its structures, and what is wrong with its files."""

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from nibabel.openers import ImageOpener

from voxloss.data.case import UNDECLARED, Case, map_label
from voxloss.data.check.findings import Finding, Severity
from voxloss.data.check.patches import share_of_patches_without
from voxloss.data.dataset import Dataset
from voxloss.data.nifti import Geometry, check_same_geometry, geometry_of, grey_values, open_nifti, volume_shape
from voxloss.geometry.components import count_components
from voxloss.utilities.errors import InputError

SQUARE = 1e-3  # cosine of the angle between two axes, beyond which they are not at right angles


@dataclass(frozen=True)
class Patch:
    """The patch that a study would draw: its size in voxels of a spacing in mm (None: each case's own spacing)."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None

    def on(self, geometry: Geometry) -> list[int]:
        """Return its size in voxels of a case's own grid."""
        spacing = self.spacing_mm or geometry.spacing_mm
        return [
            max(1, round(size * wanted / own))
            for size, wanted, own in zip(self.size, spacing, geometry.spacing_mm, strict=True)
        ]


USUAL_PATCH = Patch((96, 96, 96))


@dataclass
class Inspection:
    """The result of reading one case."""

    case_id: str
    findings: list[Finding] = field(default_factory=list)
    geometry: Geometry | None = None
    axes: str = ""
    channels: int = 0
    image_digest: tuple[object, ...] | None = None
    class_voxels: list[int] | None = None
    components: list[int] = field(default_factory=list)
    patches_without: list[float] = field(default_factory=list)

    def add(self, severity: Severity, message: str) -> None:
        """Add a finding about this case."""
        self.findings.append(Finding(severity, self.case_id, message))


def inspect(case: Case, dataset: Dataset, patch: Patch) -> Inspection:
    """Read the image and the mask of a case, and return what was measured and found."""
    inspection = Inspection(case.case_id)
    first: Path | None = None
    for number, path in enumerate(case.images, start=1):
        if not path.is_file():
            which = "" if len(case.images) == 1 else f" {number} of {len(case.images)}"
            inspection.add("error", f"no image{which}")
            continue
        try:
            _inspect_image(path, first, inspection)
            first = first or path
        except InputError as error:
            inspection.add("error", str(error))
    if not case.images:
        inspection.add("error", "no image")
    if case.label is None or not case.label.is_file():
        inspection.add("error", "no mask")
        return inspection
    try:
        _inspect_label(case.label, first, inspection, dataset, patch)
    except InputError as error:
        inspection.add("error", str(error))
    return inspection


def _inspect_image(path: Path, first: Path | None, inspection: Inspection) -> None:
    file = open_nifti(path)
    _inspect_grid(path, file, first, inspection)
    inspection.channels += volume_shape(path, file)[1]
    not_finite, low, high, checksum = 0, math.inf, -math.inf, 0
    for piece in grey_values(path, file):
        checksum = zlib.crc32(piece.view(np.uint8).data, checksum)
        finite = piece[np.isfinite(piece)]
        not_finite += piece.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if not_finite:
        inspection.add("error", f"{path} has {not_finite:,} values that are not finite")
    if low == high:
        inspection.add("warning", f"{path} has the same value {low:g} everywhere")
    else:
        inspection.image_digest = (*(inspection.image_digest or ()), file.shape, low, high, checksum)


def _inspect_label(path: Path, image: Path | None, inspection: Inspection, dataset: Dataset, patch: Patch) -> None:
    file = open_nifti(path)
    if volume_shape(path, file)[1] != 1:
        raise InputError(f"{path} has shape {tuple(file.shape)} where a mask has three axes")
    _inspect_grid(path, file, image, inspection)
    if file.get_data_dtype() != np.uint8:
        inspection.add("note", f"mask stored as {file.get_data_dtype().newbyteorder('=')}, read as whole values")
    voxels = [0] * len(dataset.classes)
    declared = ", ".join(map(str, sorted(dataset.label_values)))
    label, counts = map_label(path, file, dataset.label_values)
    for value, count in counts.items():
        if value in dataset.label_values:
            voxels[dataset.label_values[value]] += count
        else:
            hint = dataset.value_hints.get(value)
            inspection.add(
                "error",
                f"undeclared value {value} in the mask (declared are {declared})" + (f": {hint}" if hint else ""),
            )
    label[label == UNDECLARED] = 0
    size = patch.on(geometry_of(path, file))
    for index in range(len(dataset.classes)):
        chosen = label == index
        # The background is everywhere, and its pieces tell nothing.
        inspection.components.append(count_components(chosen) if index else 0)
        inspection.patches_without.append(share_of_patches_without(chosen, size) if index else 0.0)
    inspection.class_voxels = voxels
    if not any(voxels[1:]):
        inspection.add("warning", "empty mask: nothing but background")
        return
    for name, count in zip(dataset.classes[1:], voxels[1:], strict=True):
        if count == 0:
            inspection.add("note", f"no {name} in the mask")


def _inspect_grid(path: Path, file: nibabel.Nifti1Image, first: Path | None, inspection: Inspection) -> None:
    """Keep the first file's geometry, and compare the other files of the case with it."""
    geometry = geometry_of(path, file)
    if first is not None and inspection.geometry is not None:
        try:
            check_same_geometry(path, geometry, first, inspection.geometry)
        except InputError as error:  # the values are still worth reading
            inspection.add("error", str(error))
        return
    inspection.geometry = geometry
    inspection.axes = "".join(code or "?" for code in nibabel.orientations.aff2axcodes(file.affine))
    _inspect_header(path, file, geometry, inspection)


def _inspect_header(path: Path, file: nibabel.Nifti1Image, geometry: Geometry, inspection: Inspection) -> None:
    """Compare the voxel sizes as stored, before nibabel's repairs, with those that are used."""
    with ImageOpener(str(path), "rb") as stream:
        stored = type(file.header).from_fileobj(stream, check=False)
    sizes = [float(size) for size in stored["pixdim"][1:4]]
    text = " × ".join(f"{size:g}" for size in sizes)
    placed = int(stored["sform_code"]) > 0
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        inspection.add("warning" if placed else "error", f"voxel sizes of {text} mm in the header of {path.name}")
    elif not np.allclose(sizes, geometry.spacing_mm, rtol=1e-3):
        used = " × ".join(f"{size:g}" for size in geometry.spacing_mm)
        inspection.add("warning", f"{path.name} gives voxel sizes of {text} mm, its affine {used}, which are used")
    axes = np.asarray(file.affine)[:3, :3] / np.asarray(geometry.spacing_mm)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > SQUARE:
        degrees = math.degrees(math.acos(min(1.0, float(cosines.max()))))
        inspection.add("warning", f"the axes of {path.name} meet at {degrees:.3g}°, so volumes and distances are wrong")
    if not placed and int(stored["qform_code"]) == 0:
        inspection.add("note", "neither qform nor sform is set, so where left and right are is not known")
