"""The findings of a check, and their text for a terminal."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxloss.geometry.units import PIXELS, VOLUMES, Units

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
NAMED_CASES = 5  # per line of the printed report
ALIKE = 3  # messages that differ only in the case or in numbers; of more only the first is printed


@dataclass(frozen=True)
class Finding:
    """One finding about a case, or about the data set if case_id is empty. Only errors stop a study."""

    severity: Severity
    case_id: str
    message: str


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest value of a measure; NaN if nothing was measured."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassFingerprint:
    """How rare a class is.

    Args:
        cases: That have it; the spreads are over these.
        voxel_fraction: Its share of the volume's voxels, ignored ones left out.
        volume_ml: Its size; of images the area in mm², or pixels.
        components: Its connected pieces (voxels that touch by face, edge or corner); NaN for the background.
        patches_without: The share of random patches of a random case that hold no voxel of it; NaN for the background.
    """

    name: str
    cases: int
    voxel_fraction: Spread
    volume_ml: Spread
    components: Spread
    patches_without: float


@dataclass(frozen=True)
class CaseRecord:
    """Grid and structures of a case.

    Args:
        case_id: The case.
        shape: Voxels per axis.
        spacing_mm: Voxel size per axis.
        volume_ml: Volume of each class, background first; of images the area in mm², or pixels.
        components: Connected components of each class, background (0) first.
    """

    case_id: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    volume_ml: tuple[float, ...]
    components: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """The result of `check`.

    `shape` and `spacing_mm` are spreads per array axis, turned to the data set's. `patch` is the size that
    `patches_without` is about, in voxels of `patch_spacing_mm` (None: of each case's own spacing). `flat_axis` is that
    of images, and `units` are those of lengths and sizes. `fewer_folds` is the number of folds that the cases allow
    where a study has more by default, else None.
    """

    dataset: str
    cases: int
    masks_read: int
    findings: tuple[Finding, ...]
    classes: tuple[ClassFingerprint, ...]
    shape: tuple[Spread, ...]
    spacing_mm: tuple[Spread, ...]
    dropped: tuple[tuple[str, str], ...]
    patch: tuple[int, int, int]
    patch_spacing_mm: tuple[float, float, float] | None
    records: tuple[CaseRecord, ...]
    flat_axis: int | None = None
    units: Units = VOLUMES
    fewer_folds: int | None = None

    @property
    def readiness(self) -> str:
        """Whether a study can be run, and with which option."""
        if not self.ok:
            return "fix the errors first"
        if self.fewer_folds is None:
            return "ready to run"
        if self.fewer_folds < 2:
            return "too few for a study, which needs two or more"
        return f"ready to run with --splits.folds {self.fewer_folds}"

    @property
    def ok(self) -> bool:
        """Whether no finding would stop a study."""
        return not any(finding.severity == "error" for finding in self.findings)


def format_report(report: Report) -> str:
    """Return the report as plain text, with equal findings on one line."""
    lines = [f"{report.dataset}: {_plural(report.cases, 'case')}, {_plural(report.masks_read, 'mask')} read"]
    if report.shape and math.isfinite(report.shape[0].median):
        lines.append(f"  shape    {by_axis(report, report.shape, _range)} {report.units.element}s")
        lines.append(f"  spacing  {spacing_text(report, _range)}")
    lines += ["", *_class_lines(report)]
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for case_id, reason in report.dropped:
        reasons[reason].append(case_id)
    if reasons:
        lines += ["", "not used", *(f"  {reason}: {_cases(ids)}" for reason, ids in reasons.items())]
    for severity in grouped(report):
        lines += ["", f"{severity}s"]
        lines += [f"  {line}" for line in grouped_lines([one for one in report.findings if one.severity == severity])]
    listed = grouped(report)
    summary = ", ".join(_plural(len(listed.get(kind, {})), kind) for kind in SEVERITIES)
    return "\n".join([*lines, "", f"{summary}: {report.readiness}"]) + "\n"


def by_axis(report: Report, values: Sequence[Any], write: Callable[[Any], str]) -> str:
    """Write a value for every axis; of images for the two of their plane."""
    return " × ".join(write(value) for axis, value in enumerate(values) if axis != report.flat_axis)


def spacing_text(report: Report, write: Callable[[Spread], str]) -> str:
    """Write the spacing of the cases, or say that it is not known."""
    if report.units == PIXELS:
        return "not known: sizes and distances are in pixels"
    return f"{by_axis(report, report.spacing_mm, write)} mm"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cases(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return ids[0]
    more = f" and {len(ids) - NAMED_CASES} more" if len(ids) > NAMED_CASES else ""
    return f"{len(ids)} cases ({', '.join(ids[:NAMED_CASES])}{more})"


def grouped(report: Report) -> dict[Severity, dict[str, list[str]]]:
    """Return severity -> message -> cases, the most severe first, only severities that occur."""
    groups: dict[Severity, dict[str, list[str]]] = {severity: {} for severity in SEVERITIES}
    for finding in report.findings:
        groups[finding.severity].setdefault(finding.message, []).append(finding.case_id)
    return {severity: group for severity, group in groups.items() if group}


def grouped_lines(findings: Sequence[Finding]) -> list[str]:
    """Return a line per message, with the cases that it is about; of many messages of one kind only the first."""
    kinds: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for finding in findings:
        kinds[_kind(finding)].setdefault(finding.message, []).append(finding.case_id)
    lines = []
    for group in kinds.values():
        shown = list(group)[: None if len(group) <= ALIKE else 1]
        lines += [f"{message}: {_cases(group[message])}" if any(group[message]) else message for message in shown]
        if rest := list(group)[len(shown) :]:
            ids = list(dict.fromkeys(case_id for message in rest for case_id in group[message] if case_id))
            lines[-1] += f"; {len(rest)} more like it" + (f": {_cases(ids)}" if ids else "")
    return lines


def _kind(finding: Finding) -> str:
    """Return the message without its case's name and numbers, which messages of one kind share."""
    text = finding.message
    if finding.case_id:
        text = re.sub(rf"(?<![^\W_]){re.escape(finding.case_id)}(?![^\W_])", "*", text)
    return re.sub(r"\d+", "#", text)


def class_table(report: Report) -> list[list[str]]:
    """Return the rarity of each class as text, with a header row."""
    units = report.units
    rows = [["class", "cases", f"% of {units.element}s", units.size, "pieces", "% of patches without"]]
    for item in report.classes:
        percent = Spread(
            *(100 * value for value in (item.voxel_fraction.median, item.voxel_fraction.low, item.voxel_fraction.high))
        )
        spreads = (percent, item.volume_ml, item.components)
        shown = [_median_range(spread) if math.isfinite(spread.median) else "-" for spread in spreads]
        missed = number_text(100 * item.patches_without) if math.isfinite(item.patches_without) else "-"
        rows.append([item.name, str(item.cases), *shown, missed])
    return rows


def patch_text(report: Report) -> str:
    """Say which patches the last column of the table is about."""
    size = f"{by_axis(report, report.patch, str)} {report.units.element}s"
    if report.patch_spacing_mm is None:
        return f"patches of {size} as stored"
    return f"patches of {size} of {by_axis(report, report.patch_spacing_mm, number_text)} mm"


def _class_lines(report: Report) -> list[str]:
    rows = class_table(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  " + "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)) for row in rows]
    return [
        *(line.rstrip() for line in lines),
        f"  median (range) over the cases that have the class; {patch_text(report)}",
    ]


def _median_range(spread: Spread) -> str:
    return f"{number_text(spread.median)} ({number_text(spread.low)} to {number_text(spread.high)})"


def _range(spread: Spread) -> str:
    low, high = number_text(spread.low), number_text(spread.high)
    return low if low == high else f"{low}–{high}"


def number_text(value: float) -> str:
    """Write three significant digits, without an exponent."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else np.format_float_positional(value, precision=3, fractional=False, trim="-")
    )
