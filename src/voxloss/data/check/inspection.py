"""Read one case: its grid, its structures, and what is wrong with its files."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voxloss.data.case import IGNORED, UNDECLARED, Case, map_label, read_region
from voxloss.data.check.headers import HeaderInspection, inspect_headers
from voxloss.data.check.patches import share_of_patches_without
from voxloss.data.dataset import Dataset
from voxloss.data.formats import open_image, open_mask
from voxloss.data.formats.geometry import Geometry
from voxloss.data.formats.volume import Volume
from voxloss.data.grid import turn_of
from voxloss.geometry.components import count_components
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, not_finite_values


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
USUAL_SIDE = 256  # of a patch of an image


def usual_patch(flat_axis: int | None) -> Patch:
    """Return the patch that studies of volumes, or of images with this flat axis, usually draw."""
    if flat_axis is None:
        return USUAL_PATCH
    first, second, third = (1 if axis == flat_axis else USUAL_SIDE for axis in range(3))
    return Patch((first, second, third))


@dataclass
class Inspection(HeaderInspection):
    """The result of reading one case: of its headers and of all voxels."""

    class_voxels: list[int] | None = None
    ignored_voxels: int = 0
    components: list[int] = field(default_factory=list)
    patches_without: list[float] = field(default_factory=list)


def inspect(case: Case, dataset: Dataset, patch: Patch) -> Inspection:
    """Read the image and the mask of a case, and return what was measured and found."""
    inspection = Inspection(**vars(inspect_headers(case, dataset)))
    try:
        for path in inspection.readable:
            _inspect_image(path, inspection)
    except InputError as error:
        inspection.add("error", str(error))
    try:
        if inspection.label is not None:
            like = inspection.readable[0] if inspection.readable else None
            _inspect_label(open_mask(inspection.label, like=like), like, inspection, dataset, patch)
    except InputError as error:
        inspection.add("error", str(error))
    return inspection


def _inspect_image(path: Path, inspection: Inspection) -> None:
    not_finite, low, high = 0, math.inf, -math.inf
    for piece in open_image(path).grey_values():
        finite = piece[np.isfinite(piece)]
        not_finite += piece.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if not_finite:
        inspection.add("error", f"{path} has {not_finite_values(not_finite)}")
    if low == high:
        inspection.add("warning", f"{path} has the same value {low:g} everywhere")


def _inspect_label(file: Volume, like: Path | None, inspection: Inspection, dataset: Dataset, patch: Patch) -> None:
    if file.dtype != np.uint8 or file.scaling:
        scaled = f"; {file.scaling}" if file.scaling else ""
        inspection.add("note", f"mask stored as {file.dtype.newbyteorder('=')}, read as whole values{scaled}")
    voxels = [0] * len(dataset.classes)
    declared = ", ".join(map(str, sorted(dataset.label_values)))
    label, counts = map_label(file, dataset.label_values)
    for value in counts:
        if value not in dataset.label_values:
            hint = dataset.value_hints.get(value)
            inspection.add(
                "error",
                f"undeclared value {value} in the mask (declared are {declared})" + (f": {hint}" if hint else ""),
            )
    label[label == UNDECLARED] = 0
    grid = file.geometry
    lost = 0
    region = inspection.region
    if region is not None and not any(str(region) in finding.message for finding in inspection.findings):
        outside = ~read_region(region, file.path, grid, like)
        lost = int(np.count_nonzero(label[outside]))
        label[outside] = IGNORED
    inspection.ignored_voxels = int(np.count_nonzero(label == IGNORED))
    turn = turn_of(grid, dataset)
    label, size = turn.turned(label), patch.on(turn.geometry(grid))
    for index in range(len(dataset.classes)):
        chosen = label == index
        voxels[index] = int(np.count_nonzero(chosen))
        # The background is everywhere, and its pieces tell nothing.
        inspection.components.append(count_components(chosen) if index else 0)
        inspection.patches_without.append(share_of_patches_without(chosen, size) if index else 0.0)
    inspection.class_voxels = voxels
    if not any(voxels):
        inspection.add("warning", "every voxel of the mask is ignored")
        return
    if not any(voxels[1:]):
        where = f" in the region of interest; {count_of(lost, 'voxel')} of classes outside" if lost else ""
        inspection.add("warning", f"empty mask: nothing but background{where}")
        return
    for name, count in zip(dataset.classes[1:], voxels[1:], strict=True):
        if count == 0:
            inspection.add("note", f"no {name} in the mask")
