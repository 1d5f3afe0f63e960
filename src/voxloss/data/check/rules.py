"""The rules by which `check`, `plan` and `run` judge a data set, as far as headers and the assignment to folds tell.

`check` applies them besides what only the values of all voxels tell, which `run` finds as it prepares the cases.
"""

import statistics
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from voxloss.data.case import Case
from voxloss.data.check.findings import Finding
from voxloss.data.check.headers import HeaderInspection, inspect_headers
from voxloss.data.dataset import Dataset
from voxloss.data.formats import open_image
from voxloss.data.grid import common_flat_axis
from voxloss.data.patients import by_patient
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, excluding

COMMON_SHARE = 0.8  # an axis size that this share of the cases has is expected of the others
FEWEST_TO_COMPARE = 5


def header_findings(
    dataset: Dataset, patients: Mapping[str, str] | None = None, folds: Sequence[Sequence[str]] = ()
) -> list[Finding]:
    """Judge a data set by the headers of its files, and by its folds.

    Args:
        dataset: The data set.
        patients: The patient of each case id.
        folds: The case ids of each fold of a study.
    """
    inspections = [inspect_headers(case, dataset) for case in dataset.cases]
    findings = [finding for inspection in inspections for finding in inspection.findings]
    return [*findings, *compared(inspections, dataset), *split_findings(dataset, patients or {}, folds)]


def compared(inspections: Sequence[HeaderInspection], dataset: Dataset) -> list[Finding]:
    """Find cases that differ from the others in size, axes or channels."""
    findings = []
    known = [inspection for inspection in inspections if inspection.geometry is not None]
    for axis in range(3):
        sizes = {inspection.case_id: inspection.geometry.shape[axis] for inspection in known if inspection.geometry}
        for case_id, size, usual in _unusual(sizes):
            findings.append(
                Finding(
                    "note",
                    case_id,
                    f"{size} {dataset.units.element}s along axis {axis}, where nearly all others have {usual}",
                )
            )
    findings += _axes(known, dataset)
    findings += _names(inspections)
    findings += _shared(dataset.cases)
    findings += _dimensions(known, dataset)
    findings += _unknown_size(known, dataset)
    channels = {inspection.case_id: inspection.channels for inspection in known if inspection.channels}
    usual_channels = statistics.mode(channels.values()) if channels else 0
    for case_id, number in channels.items():
        if number != usual_channels:
            findings.append(Finding("error", case_id, f"{number} channels, where most cases have {usual_channels}"))
    return findings


def _dimensions(inspections: Sequence[HeaderInspection], dataset: Dataset) -> Iterator[Finding]:
    """Find images among volumes, volumes among images, and cases whose pixel size is known among others."""
    grids = {one.case_id: one.geometry for one in inspections if one.geometry is not None}
    if not grids:
        return
    flat = {case_id: common_flat_axis([grid.shape]) for case_id, grid in grids.items()}
    if dataset.flat_axis is None and any(axis is not None for axis in flat.values()):
        usual = Counter(flat.values()).most_common(1)[0][0]
        others = "volumes" if usual is None else f"single slices across axis {usual}"
        for case_id, axis in flat.items():
            if axis != usual:
                shape = " × ".join(map(str, grids[case_id].shape))
                own = (
                    "a volume" if axis is None else "a single slice" if usual is None else f"a slice across axis {axis}"
                )
                message = f"{own} of {shape} voxels, where most cases are {others}; a study takes one kind"
                yield Finding("error", case_id, message)
    units = Counter(grid.unit for grid in grids.values())
    if len(units) > 1:
        usual_unit = units.most_common(1)[0][0]
        known = {"mm": "its pixel size is known", "pixel": "its pixel size is not known"}
        for case_id, grid in grids.items():
            if grid.unit != usual_unit:
                message = f"{known[grid.unit]}, unlike that of most cases; a study needs all pixel sizes or none"
                yield Finding("error", case_id, message)


def absent_class(name: str) -> str:
    """Return the sentence about a class that no mask has: its scores would be undefined, and nothing would train it."""
    if name == "background":
        return (
            "no mask has the value 0, the background; if another value is it, say so in data.options.classes, such as "
            "{background: [0, 1], lesion: 2}"
        )
    return f"no case has the class {name}; name only classes that the masks have (data.options.classes)"


def untrained_class(fold: int, name: str, cases: int) -> str:
    """Return the sentence about a class that none of a fold's training cases has."""
    return (
        f"fold {fold} trains without {name}: none of its {count_of(cases, 'training case')} has the class, so its "
        "networks cannot learn it"
    )


def _axes(inspections: Iterable[HeaderInspection], dataset: Dataset) -> Iterator[Finding]:
    """Find cases that are stored in another order or direction of axes than most."""
    axes = {one.case_id: one.stored.axes for one in inspections if one.stored is not None and one.stored.axes}
    counts = Counter(axes.values())
    usual = dataset.axes or max(counts, key=lambda name: counts[name], default="")
    for case_id, own in axes.items():
        if own == usual:
            continue
        if dataset.axes is None:
            others = f"{counts[usual]} of {len(axes)} cases are stored as {usual}"
            yield Finding("warning", case_id, f"axes stored as {own}, where {others}; each stays as it is stored")
        else:
            yield Finding("warning", case_id, f"axes stored as {own}, which are turned to the study's {usual}")


def _names(inspections: Iterable[HeaderInspection]) -> Iterator[Finding]:
    """Find masks that give a value another name than a mask before."""
    first: dict[int, tuple[str, str]] = {}
    for one in inspections:
        for value, name in one.names.items():
            other, its_name = first.setdefault(value, (one.case_id, name))
            if name != its_name:
                message = f"the value {value} is called {name}, but {its_name} in {other}; number the segments alike"
                yield Finding("error", one.case_id, message)


def _shared(cases: Sequence[Case]) -> Iterator[Finding]:
    """Find cases with one mask file, and ids that a file system may take for one."""
    masks: dict[Path, str] = {}
    ids: dict[str, str] = {}
    for case in cases:
        if case.label is not None and (first := masks.setdefault(case.label.resolve(), case.case_id)) != case.case_id:
            yield Finding("warning", case.case_id, f"the same mask file as {first}")
        if (other := ids.setdefault(case.case_id.casefold(), case.case_id)) != case.case_id:
            message = f"differs from {other} in capitals alone, so Windows and macOS would keep results of one only"
            yield Finding("note", case.case_id, message)


def _unknown_size(inspections: Iterable[HeaderInspection], dataset: Dataset) -> Iterator[Finding]:
    """Say if the size of a pixel is not known, so that nobody takes the numbers for mm."""
    units = {one.stored.unit for one in inspections if one.stored is not None}
    if units == {"pixel"}:
        measure = "1 mm stands for one pixel, 1 ml for 1,000" if dataset.flat_axis is None else "sizes are in pixels"
        yield Finding("note", "", f"the files do not say how large a pixel is: {measure}")


def _unusual(values: dict[str, int]) -> list[tuple[str, int, int]]:
    """Return (case id, value, common value) of the cases without a value that nearly all others have."""
    if len(values) < FEWEST_TO_COMPARE:
        return []
    (usual, number), *_ = Counter(values.values()).most_common(1)
    if number < COMMON_SHARE * len(values):
        return []
    return [(case_id, value, usual) for case_id, value in values.items() if value != usual]


def split_findings(dataset: Dataset, patients: Mapping[str, str], folds: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Find images and patients that would be in both training and test."""
    fold_of = {case_id: number for number, fold in enumerate(folds) for case_id in fold}
    for case_id, first in same_images(dataset.cases):
        if not fold_of:
            yield Finding("warning", case_id, f"the same image as {first}: it may be in both training and test")
        elif fold_of[case_id] == fold_of[first]:
            yield Finding("warning", case_id, f"the same image as {first}, so it counts twice")
        else:
            yield Finding(
                "error",
                case_id,
                f"the same image as {first}, so it would be in both training and test; give both the "
                f"same patient (splits.patients), or leave one out: {excluding([case_id])}",
            )
    yield from _split_patients([case.case_id for case in dataset.cases], patients, fold_of)


def _split_patients(ids: Sequence[str], patients: Mapping[str, str], fold_of: Mapping[str, int]) -> Iterator[Finding]:
    if not patients:
        return
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


def same_images(cases: Iterable[Case]) -> list[tuple[str, str]]:
    """Return (case id, id of an earlier case with the same grey values), however the files are named and compressed.

    Of an image whose beginning no other image has, only the beginning is read. Images that cannot be read, or with one
    value everywhere, are passed over.
    """
    alike: defaultdict[tuple[object, ...], list[Case]] = defaultdict(list)
    for case in cases:
        if (beginning := _checksums(case, whole=False)) is not None:
            alike[beginning].append(case)
    pairs = []
    for group in alike.values():
        first: dict[tuple[object, ...], str] = {}
        for case in group if len(group) > 1 else ():
            if (content := _checksums(case, whole=True)) is not None:
                if content in first:
                    pairs.append((case.case_id, first[content]))
                first.setdefault(content, case.case_id)
    return pairs


def _checksums(case: Case, whole: bool) -> tuple[object, ...] | None:
    """Return shape and checksum of each image: of all grey values, or of those up to the first that differ."""
    checksums: list[object] = []
    varies = False
    try:
        for path in case.images:
            file = open_image(path)
            checksum, first = 0, None
            for piece in file.grey_values():
                checksum = zlib.crc32(piece.view(np.uint8).data, checksum)
                first = piece[0] if first is None else first
                if bool((piece != first).any()):
                    varies = True
                    if not whole:
                        break
            checksums.append((file.shape, checksum))
    except InputError:
        return None
    return tuple(checksums) if varies else None
