"""What is wrong with a data set, found before hours are spent on it."""

import math
import statistics
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxloss.data import kits19
from voxloss.data.case import Case, Dataset, Geometry
from voxloss.data.findings import SEVERITIES, ClassFingerprint, Finding, Report, Severity, Spread, format_report
from voxloss.data.nifti import (
    check_same_geometry,
    count_label_values,
    geometry_of,
    grey_values,
    open_nifti,
    volume_shape,
)
from voxloss.errors import InputError

if TYPE_CHECKING:
    import nibabel

__all__ = ["ClassFingerprint", "Finding", "Report", "Spread", "check", "format_report"]

COMMON_SHARE = 0.8  # an axis size or direction that this share of the cases has is expected of the others
FEWEST_TO_COMPARE = 5


@dataclass
class _Inspection:
    """What reading one case gave."""

    case_id: str
    findings: list[Finding] = field(default_factory=list)
    geometry: Geometry | None = None
    axes: str = ""
    channels: int = 0
    image_digest: tuple[object, ...] | None = None
    class_voxels: list[int] | None = None

    def add(self, severity: Severity, message: str) -> None:
        self.findings.append(Finding(severity, self.case_id, message))


def check(dataset: Dataset, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Report:
    """Read every file of a data set once, in pieces, and report what is wrong, odd, or worth knowing.

    Errors: a missing, damaged or foreign file, image and mask on different grids (1e-3 mm), grey values that are not
    finite, mask values that are not whole or not declared, impossible voxel sizes, a class that no case has.
    Warnings: an empty mask, a constant image, the same image twice, axes stored in another order than the others'.
    Notes: a class that a case lacks, a size unlike the others', cases that the paper excludes, odd headers.
    progress: called with (cases done, cases) after each. Memory does not grow with the size of the volumes.
    """
    inspections = []
    with ThreadPoolExecutor(workers) as pool:  # decompression runs outside the interpreter's lock
        for inspection in pool.map(lambda case: _inspect(case, dataset), dataset.cases):
            inspections.append(inspection)
            if progress is not None:
                progress(len(inspections), len(dataset.cases))
    findings = [finding for inspection in inspections for finding in inspection.findings]
    findings += _compare(inspections)
    findings += _absent_classes(inspections, dataset)
    if dataset.name == "kits19":
        findings += [
            Finding("note", case.case_id, "excluded by the paper: concern over ground truth quality")
            for case in dataset.cases
            if case.case_id in kits19.PAPER_EXCLUDED
        ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    grids = [inspection.geometry for inspection in inspections if inspection.geometry is not None]
    return Report(
        dataset=dataset.name,
        cases=len(dataset.cases),
        masks_read=sum(inspection.class_voxels is not None for inspection in inspections),
        findings=tuple(findings),
        classes=tuple(_fingerprint(inspections, index, name) for index, name in enumerate(dataset.classes)),
        shape=tuple(_spread([grid.shape[axis] for grid in grids]) for axis in range(3)),
        spacing_mm=tuple(_spread([grid.spacing_mm[axis] for grid in grids]) for axis in range(3)),
        dropped=dataset.dropped,
    )


def _inspect(case: Case, dataset: Dataset) -> _Inspection:
    inspection = _Inspection(case.case_id)
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
        _inspect_label(case.label, first, inspection, dataset)
    except InputError as error:
        inspection.add("error", str(error))
    return inspection


def _inspect_image(path: Path, first: Path | None, inspection: _Inspection) -> None:
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


def _inspect_label(path: Path, image: Path | None, inspection: _Inspection, dataset: Dataset) -> None:
    file = open_nifti(path)
    if volume_shape(path, file)[1] != 1:
        raise InputError(f"{path} has shape {tuple(file.shape)} where a mask has three axes")
    _inspect_grid(path, file, image, inspection)
    if file.get_data_dtype() != np.uint8:
        inspection.add("note", f"mask stored as {file.get_data_dtype().newbyteorder('=')}, read as whole values")
    voxels = [0] * len(dataset.classes)
    declared = ", ".join(map(str, sorted(dataset.label_values)))
    for value, count in count_label_values(path).items():
        if value in dataset.label_values:
            voxels[dataset.label_values[value]] += count
        else:
            hint = dataset.value_hints.get(value)
            inspection.add(
                "error",
                f"undeclared value {value} in the mask (declared are {declared})" + (f": {hint}" if hint else ""),
            )
    inspection.class_voxels = voxels
    if not any(voxels[1:]):
        inspection.add("warning", "empty mask: nothing but background")
        return
    for name, count in zip(dataset.classes[1:], voxels[1:], strict=True):
        if count == 0:
            inspection.add("note", f"no {name} in the mask")


def _inspect_grid(path: Path, file: "nibabel.Nifti1Image", first: Path | None, inspection: _Inspection) -> None:
    """Keep the first file's geometry, and compare the other files of the case with it."""
    import nibabel

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


def _inspect_header(path: Path, file: "nibabel.Nifti1Image", geometry: Geometry, inspection: _Inspection) -> None:
    """Compare the voxel sizes as stored, before nibabel's repairs, with those that are used."""
    from nibabel.openers import ImageOpener

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
    if not placed and int(stored["qform_code"]) == 0:
        inspection.add("note", "neither qform nor sform is set, so where left and right are is not known")


def _compare(inspections: Sequence[_Inspection]) -> list[Finding]:
    """Findings about cases that differ from most others, or do not differ at all."""
    findings = []
    known = [inspection for inspection in inspections if inspection.geometry is not None]
    for axis in range(3):
        sizes = {inspection.case_id: inspection.geometry.shape[axis] for inspection in known if inspection.geometry}
        for case_id, size, usual in _unusual(sizes):
            findings.append(
                Finding("note", case_id, f"{size} voxels along axis {axis}, where nearly all others have {usual}")
            )
    for case_id, axes, usual in _unusual({inspection.case_id: inspection.axes for inspection in known}):
        findings.append(
            Finding("warning", case_id, f"axes stored as {axes}, where nearly all others are stored as {usual}")
        )
    channels = {inspection.case_id: inspection.channels for inspection in known if inspection.channels}
    usual_channels = statistics.mode(channels.values()) if channels else 0
    for case_id, number in channels.items():
        if number != usual_channels:
            findings.append(Finding("error", case_id, f"{number} channels, where most cases have {usual_channels}"))
    same: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for inspection in inspections:
        if inspection.image_digest is not None:
            same[inspection.image_digest].append(inspection.case_id)
    for first, *others in same.values():
        findings += [
            Finding("warning", other, f"the same image as {first}: it may be in both parts of a fold")
            for other in others
        ]
    return findings


def _unusual(values: dict[str, int] | dict[str, str]) -> list[tuple[str, object, object]]:
    """(case id, value, common value) of the cases that lack a value which nearly all have."""
    if len(values) < FEWEST_TO_COMPARE:
        return []
    (usual, number), *_ = Counter(values.values()).most_common(1)
    if number < COMMON_SHARE * len(values):
        return []
    return [(case_id, value, usual) for case_id, value in values.items() if value != usual]


def _absent_classes(inspections: Sequence[_Inspection], dataset: Dataset) -> list[Finding]:
    read = [inspection.class_voxels for inspection in inspections if inspection.class_voxels is not None]
    return [
        Finding("error", "", f"no case has the class {name}")
        for index, name in enumerate(dataset.classes)
        if read and not any(voxels[index] for voxels in read)
    ]


def _fingerprint(inspections: Iterable[_Inspection], index: int, name: str) -> ClassFingerprint:
    fractions, volumes = [], []
    for inspection in inspections:
        if inspection.geometry is not None and inspection.class_voxels and inspection.class_voxels[index]:
            voxels = inspection.class_voxels[index]
            fractions.append(voxels / math.prod(inspection.geometry.shape))
            volumes.append(voxels * math.prod(inspection.geometry.spacing_mm) / 1000)
    return ClassFingerprint(name, len(fractions), _spread(fractions), _spread(volumes))


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values)) if values else Spread(*[math.nan] * 3)
