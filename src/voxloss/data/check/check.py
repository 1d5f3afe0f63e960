"""Find what is wrong with a data set before hours of training."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from voxloss.data.case import IGNORED
from voxloss.data.check.findings import SEVERITIES, CaseRecord, ClassFingerprint, Finding, Report, Spread, format_report
from voxloss.data.check.inspection import Inspection, Patch, inspect, usual_patch
from voxloss.data.check.rules import absent_class, compared, split_findings, untrained_class
from voxloss.data.dataset import Dataset
from voxloss.data.formats import exists
from voxloss.data.grid import in_plane
from voxloss.data.layouts import kits
from voxloss.geometry.units import element_size

MANY = 8  # values besides 255 that masks of a single structure have where they are blurred

__all__ = ["ClassFingerprint", "Finding", "Patch", "Report", "Spread", "check", "format_report"]


def check(
    dataset: Dataset,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    patch: Patch | None = None,
    patients: Mapping[str, str] | None = None,
    folds: Sequence[Sequence[str]] = (),
    extra: Sequence[Finding] = (),
    fewer_folds: int | None = None,
) -> Report:
    """Read every file of a data set once and report what is wrong, odd, or worth knowing.

    Errors: a missing, damaged or foreign file, image and mask on different grids (1e-3 mm), grey values that are not
    finite, mask values that are not whole or not declared, impossible voxel sizes, a class that no case has, the same
    image in different folds.
    Warnings: an empty mask, a constant image, the same image twice, axes stored in another order or direction than most
    or not at right angles, implausible voxel sizes, scans of one patient in different folds.
    Notes: a class that a case lacks, ignored voxels, a size unlike the others', cases that the paper excludes, odd
    headers.

    Args:
        dataset: The data set.
        workers: Cases read at the same time. Each holds its mask (one or two bytes per voxel) and no image.
        progress: Called with (finished cases, cases) after each case.
        patch: The patch for which the share without a class is estimated; None: a usual one.
        patients: The patient of each case id.
        folds: The case ids of each fold of a study, to find patients whose scans are in different folds, and the same
            image in different folds.
        extra: Findings about the data set from elsewhere.
        fewer_folds: The number of folds that the cases allow, if a study has more by default.

    Returns:
        The findings, and how rare each class is.
    """
    patch = patch or usual_patch(dataset.flat_axis)
    inspections = []
    with ThreadPoolExecutor(workers) as pool:  # decompression runs outside the interpreter's lock
        for inspection in pool.map(lambda case: inspect(case, dataset, patch), dataset.cases):
            inspections.append(inspection)
            if progress is not None:
                progress(len(inspections), len(dataset.cases))
    findings = [finding for inspection in inspections for finding in inspection.findings]
    findings += compared(inspections, dataset)
    findings += _absent_classes(inspections, dataset)
    findings += _untrained_classes(inspections, dataset, folds)
    findings += _odd_values(inspections, dataset)
    findings += _ignored(inspections, dataset)
    findings += split_findings(dataset, patients or {}, folds)
    findings += _known_traps(dataset)
    findings += [Finding("note", "", note) for note in dataset.notes]
    findings += extra
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    grids = [inspection.geometry for inspection in inspections if inspection.geometry is not None]
    return Report(
        dataset=dataset.name,
        cases=len(dataset.cases),
        masks_read=sum(inspection.class_voxels is not None for inspection in inspections),
        findings=tuple(findings),
        classes=tuple(
            _fingerprint(inspections, index, name, dataset.flat_axis) for index, name in enumerate(dataset.classes)
        ),
        shape=tuple(_spread([grid.shape[axis] for grid in grids]) for axis in range(3)),
        spacing_mm=tuple(_spread([grid.spacing_mm[axis] for grid in grids]) for axis in range(3)),
        dropped=dataset.dropped,
        patch=patch.size,
        patch_spacing_mm=patch.spacing_mm,
        flat_axis=dataset.flat_axis,
        units=dataset.units,
        fewer_folds=fewer_folds,
        records=tuple(record for one in inspections if (record := _record(one, dataset.flat_axis)) is not None),
    )


def _absent_classes(inspections: Sequence[Inspection], dataset: Dataset) -> list[Finding]:
    read = [inspection.class_voxels for inspection in inspections if inspection.class_voxels is not None]
    return [
        Finding("error", "", absent_class(name))
        for index, name in enumerate(dataset.classes)
        if read and not any(voxels[index] for voxels in read)
    ]


def _untrained_classes(
    inspections: Sequence[Inspection], dataset: Dataset, folds: Sequence[Sequence[str]]
) -> Iterator[Finding]:
    """Find classes that are in one fold alone, which trains on the cases of the others."""
    fold_of = {case_id: number for number, fold in enumerate(folds) for case_id in fold}
    for index, name in enumerate(dataset.classes[1:], start=1):
        having = [one.case_id for one in inspections if one.class_voxels is not None and one.class_voxels[index]]
        numbers = {fold_of.get(case_id) for case_id in having}
        if len(numbers) == 1 and (fold := numbers.pop()) is not None:
            training = sum(map(len, folds)) - len(folds[fold])
            yield Finding("warning", "", untrained_class(fold, name, training))


def _odd_values(inspections: Sequence[Inspection], dataset: Dataset) -> Iterator[Finding]:
    """Find values, of which nobody said that they are classes, that are traces of how the masks were written."""
    classes = {name: index for index, name in enumerate(dataset.classes)}
    if "class 255" not in classes:
        return
    read = [inspection.class_voxels for inspection in inspections if inspection.class_voxels is not None]
    white = [voxels[classes["class 255"]] for voxels in read]
    if classes.keys() == {"background", "class 1", "class 255"}:
        ones = [voxels[classes["class 1"]] for voxels in read]
        if not any(one and other for one, other in zip(ones, white, strict=True)):
            message = "some masks have the value 1 and others 255, never both; if both are one class, say so: "
            yield Finding("warning", "", f"{message}--data.options '{{classes: {{structure: [1, 255]}}}}'")
    elif len(classes) > MANY and 2 * sum(white) > sum(sum(voxels[1:]) for voxels in read):
        message = (
            f"the masks have {len(classes) - 1} values besides 0, and most of these voxels are 255; were they resized "
            "with interpolation, or saved with loss? Every value is a class here"
        )
        yield Finding("warning", "", message)


def _ignored(inspections: Sequence[Inspection], dataset: Dataset) -> list[Finding]:
    if dataset.ignore_index is None:
        return []
    read = [inspection for inspection in inspections if inspection.class_voxels is not None]
    ignored = [inspection.ignored_voxels for inspection in read]
    voxels = sum(ignored) + sum(sum(inspection.class_voxels or ()) for inspection in read)
    which = ["outside the region of interest"] if dataset.has_regions else []
    values = " and ".join(str(value) for value, index in dataset.label_values.items() if index == IGNORED)
    which = [f"of value {values}", *which] if values else which
    share = f"{100 * sum(ignored) / voxels:.3g}" if voxels else "0"
    where = f"{sum(map(bool, ignored))} of {len(read)} masks, {share} % of all voxels"
    return [Finding("note", "", f"voxels {' and '.join(which)} are ignored: {where}")]


def _known_traps(dataset: Dataset) -> Iterator[Finding]:
    """Find known peculiarities of public data sets."""
    for case in dataset.cases:
        if dataset.name == "kits19" and case.case_id in kits.PAPER_EXCLUDED:
            yield Finding("note", case.case_id, "excluded by the paper: concern over ground truth quality")
        mask = case.label
        if dataset.name == "brats20" and mask is not None and exists(mask) and "_seg." not in mask.name:
            yield Finding("note", case.case_id, f"{mask.name}, the only other file, is read as the mask")


def _record(inspection: Inspection, flat_axis: int | None) -> CaseRecord | None:
    if inspection.geometry is None or inspection.class_voxels is None:
        return None
    per_voxel = element_size(in_plane(inspection.geometry.spacing_mm, flat_axis))
    return CaseRecord(
        inspection.case_id,
        inspection.geometry.shape,
        inspection.geometry.spacing_mm,
        tuple(voxels * per_voxel for voxels in inspection.class_voxels),
        tuple(inspection.components),
    )


def _fingerprint(inspections: Iterable[Inspection], index: int, name: str, flat_axis: int | None) -> ClassFingerprint:
    fractions, volumes, pieces, without = [], [], [], []
    for inspection in inspections:
        if index and inspection.class_voxels is not None:
            without.append(inspection.patches_without[index])
        if inspection.geometry is not None and inspection.class_voxels and inspection.class_voxels[index]:
            voxels = inspection.class_voxels[index]
            fractions.append(voxels / (math.prod(inspection.geometry.shape) - inspection.ignored_voxels))
            volumes.append(voxels * element_size(in_plane(inspection.geometry.spacing_mm, flat_axis)))
            if index:
                pieces.append(inspection.components[index])
    missed = statistics.fmean(without) if without else math.nan
    return ClassFingerprint(name, len(fractions), _spread(fractions), _spread(volumes), _spread(pieces), missed)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values)) if values else Spread(*[math.nan] * 3)
