"""What a check found, and how it reads in a terminal."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
NAMED_CASES = 5  # per line of the printed report


@dataclass(frozen=True)
class Finding:
    """One thing about one case, or about the data set where case_id is empty. Only errors stop a study."""

    severity: Severity
    case_id: str
    message: str


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of a measure; NaN where nothing was measured."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassFingerprint:
    """How rare a class is, over the cases that have it: its share of the volume's voxels and its size in ml."""

    name: str
    cases: int
    voxel_fraction: Spread
    volume_ml: Spread


@dataclass(frozen=True)
class Report:
    """What `check` found. shape and spacing_mm are spreads per stored array axis."""

    dataset: str
    cases: int
    masks_read: int
    findings: tuple[Finding, ...]
    classes: tuple[ClassFingerprint, ...]
    shape: tuple[Spread, ...]
    spacing_mm: tuple[Spread, ...]
    dropped: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that would stop a study."""
        return not any(finding.severity == "error" for finding in self.findings)


def format_report(report: Report) -> str:
    """The report as plain text, equal findings gathered on one line."""
    lines = [f"{report.dataset}: {_plural(report.cases, 'case')}, {_plural(report.masks_read, 'mask')} read"]
    if report.shape and math.isfinite(report.shape[0].median):
        lines.append(f"  shape    {' × '.join(map(_range, report.shape))} voxels")
        lines.append(f"  spacing  {' × '.join(map(_range, report.spacing_mm))} mm")
    lines += ["", *_class_table(report.classes)]
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for case_id, reason in report.dropped:
        reasons[reason].append(case_id)
    if reasons:
        lines += ["", "not used", *(f"  {reason}: {_cases(ids)}" for reason, ids in reasons.items())]
    grouped: defaultdict[tuple[Severity, str], list[str]] = defaultdict(list)
    for finding in report.findings:
        grouped[finding.severity, finding.message].append(finding.case_id)
    for severity in SEVERITIES:
        group = {message: ids for (kind, message), ids in grouped.items() if kind == severity}
        if group:
            lines += ["", f"{severity}s"]
            lines += [f"  {message}: {_cases(ids)}" if any(ids) else f"  {message}" for message, ids in group.items()]
    counts = Counter(finding.severity for finding in report.findings)
    summary = ", ".join(_plural(counts[kind], kind) for kind in SEVERITIES)
    return (
        "\n".join([*lines, "", f"{summary}: {'fit for a study' if report.ok else 'to be mended before a study'}"])
        + "\n"
    )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cases(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return ids[0]
    more = f" and {len(ids) - NAMED_CASES} more" if len(ids) > NAMED_CASES else ""
    return f"{len(ids)} cases ({', '.join(ids[:NAMED_CASES])}{more})"


def _class_table(classes: Sequence[ClassFingerprint]) -> list[str]:
    width = max(len("class"), *(len(item.name) for item in classes))
    rows = [f"  {'class':{width}}  {'cases':>5}  {'% of voxels: median (range)':<30}  ml: median (range)"]
    for item in classes:
        percent = Spread(
            *(100 * value for value in (item.voxel_fraction.median, item.voxel_fraction.low, item.voxel_fraction.high))
        )
        shown = (_median_range(percent), _median_range(item.volume_ml)) if item.cases else ("-", "-")
        rows.append(f"  {item.name:{width}}  {item.cases:>5}  {shown[0]:<30}  {shown[1]}")
    return rows


def _median_range(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _range(spread: Spread) -> str:
    low, high = _number(spread.low), _number(spread.high)
    return low if low == high else f"{low}–{high}"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else np.format_float_positional(value, precision=3, fractional=False, trim="-")
    )
