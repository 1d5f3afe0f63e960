"""Find what is wrong with a data set before hours of training."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from voxloss.data.check.findings import SEVERITIES, CaseRecord, ClassFingerprint, Finding, Report, Spread, format_report
from voxloss.data.check.inspection import USUAL_PATCH, Inspection, Patch, inspect
from voxloss.data.dataset import Dataset
from voxloss.data.layouts import kits19
from voxloss.data.patients import by_patient

__all__ = ["ClassFingerprint", "Finding", "Patch", "Report", "Spread", "check", "format_report"]

COMMON_SHARE = 0.8  # an axis size or direction that this share of the cases has is expected of the others
FEWEST_TO_COMPARE = 5


def check(
    dataset: Dataset,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    patch: Patch = USUAL_PATCH,
    patients: Mapping[str, str] | None = None,
    folds: Sequence[Sequence[str]] = (),
) -> Report:
    """Read every file of a data set once and report what is wrong, odd, or worth knowing.

    Errors: a missing, damaged or foreign file, image and mask on different grids (1e-3 mm), grey values that are not
    finite, mask values that are not whole or not declared, impossible voxel sizes, a class that no case has.
    Warnings: an empty mask, a constant image, the same image twice, axes stored in another order than the others' or
    not at right angles, scans of one patient in different folds.
    Notes: a class that a case lacks, a size unlike the others', cases that the paper excludes, odd headers.

    Args:
        dataset: The data set.
        workers: Cases read at the same time. Each holds its mask (one or two bytes per voxel) and no image.
        progress: Called with (finished cases, cases) after each case.
        patch: The patch for which the share without a class is estimated.
        patients: The patient of each case id.
        folds: The case ids of each fold of a study, to find patients whose scans are in different folds.

    Returns:
        The findings, and how rare each class is.
    """
    inspections = []
    with ThreadPoolExecutor(workers) as pool:  # decompression runs outside the interpreter's lock
        for inspection in pool.map(lambda case: inspect(case, dataset, patch), dataset.cases):
            inspections.append(inspection)
            if progress is not None:
                progress(len(inspections), len(dataset.cases))
    findings = [finding for inspection in inspections for finding in inspection.findings]
    findings += _compare(inspections)
    findings += _absent_classes(inspections, dataset)
    findings += _split_patients([case.case_id for case in dataset.cases], patients or {}, folds)
    findings += _known_traps(dataset)
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
        patch=patch.size,
        patch_spacing_mm=patch.spacing_mm,
        records=tuple(record for inspection in inspections if (record := _record(inspection)) is not None),
    )


def _compare(inspections: Sequence[Inspection]) -> list[Finding]:
    """Find cases that differ from most others, and cases that do not differ at all."""
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
            Finding("warning", other, f"the same image as {first}: it may be in both training and test")
            for other in others
        ]
    return findings


def _unusual(values: dict[str, int] | dict[str, str]) -> list[tuple[str, object, object]]:
    """Return (case id, value, common value) of the cases without a value that nearly all others have."""
    if len(values) < FEWEST_TO_COMPARE:
        return []
    (usual, number), *_ = Counter(values.values()).most_common(1)
    if number < COMMON_SHARE * len(values):
        return []
    return [(case_id, value, usual) for case_id, value in values.items() if value != usual]


def _absent_classes(inspections: Sequence[Inspection], dataset: Dataset) -> list[Finding]:
    read = [inspection.class_voxels for inspection in inspections if inspection.class_voxels is not None]
    return [
        Finding("error", "", f"no case has the class {name}")
        for index, name in enumerate(dataset.classes)
        if read and not any(voxels[index] for voxels in read)
    ]


def _known_traps(dataset: Dataset) -> Iterator[Finding]:
    """Find known peculiarities of public data sets."""
    for case in dataset.cases:
        if dataset.name == "kits19" and case.case_id in kits19.PAPER_EXCLUDED:
            yield Finding("note", case.case_id, "excluded by the paper: concern over ground truth quality")
        mask = case.label
        if dataset.name == "brats20" and mask is not None and mask.is_file() and "_seg." not in mask.name:
            yield Finding("note", case.case_id, f"mask called {mask.name}, the only other file, taken for it")


def _split_patients(
    ids: Sequence[str], patients: Mapping[str, str], folds: Sequence[Sequence[str]]
) -> Iterator[Finding]:
    if not patients:
        return
    fold_of = {case_id: number for number, fold in enumerate(folds) for case_id in fold}
    for case_id in ids:
        if case_id not in patients:
            yield Finding("error", case_id, "not in the table of patients")
    for group in by_patient([case_id for case_id in ids if case_id in patients], patients):
        if len(group) == 1:
            continue
        name = f"{len(group)} scans of patient {patients[group[0]]} ({', '.join(group)})"
        apart = len({fold_of[case_id] for case_id in group if case_id in fold_of}) > 1
        if apart:
            yield Finding("warning", group[0], f"{name} are in different folds; name the table in splits.patients")
        else:
            yield Finding("note", group[0], name)


def _record(inspection: Inspection) -> CaseRecord | None:
    if inspection.geometry is None or inspection.class_voxels is None:
        return None
    per_voxel = math.prod(inspection.geometry.spacing_mm) / 1000
    return CaseRecord(
        inspection.case_id,
        inspection.geometry.shape,
        inspection.geometry.spacing_mm,
        tuple(voxels * per_voxel for voxels in inspection.class_voxels),
        tuple(inspection.components),
    )


def _fingerprint(inspections: Iterable[Inspection], index: int, name: str) -> ClassFingerprint:
    fractions, volumes, pieces, without = [], [], [], []
    for inspection in inspections:
        if index and inspection.class_voxels is not None:
            without.append(inspection.patches_without[index])
        if inspection.geometry is not None and inspection.class_voxels and inspection.class_voxels[index]:
            voxels = inspection.class_voxels[index]
            fractions.append(voxels / math.prod(inspection.geometry.shape))
            volumes.append(voxels * math.prod(inspection.geometry.spacing_mm) / 1000)
            if index:
                pieces.append(inspection.components[index])
    missed = statistics.fmean(without) if without else math.nan
    return ClassFingerprint(name, len(fractions), _spread(fractions), _spread(volumes), _spread(pieces), missed)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values)) if values else Spread(*[math.nan] * 3)
