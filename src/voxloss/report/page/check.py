"""Write the check of a data set as a page and as JSON."""

import json
import math
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import voxloss
from voxloss.data.check.findings import (
    CaseRecord,
    Report,
    Spread,
    by_axis,
    class_table,
    grouped,
    number_text,
    patch_text,
    spacing_text,
)
from voxloss.report.page.templates import page_environment
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder
from voxloss.utilities.text import count_of

SCALE = (1e-6, 1.0)  # ends of the bars, as shares of a volume


def write_check(report: Report, folder: Path) -> Path:
    """Write FOLDER/index.html and FOLDER/check.json, whole or not at all, and return the page's path.

    Raises:
        InputError: The folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "check.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty and is not a `check` report; name another folder.")
    with atomic_folder(folder) as partial:
        content = json.dumps(_as_json(report), ensure_ascii=False, indent=1, allow_nan=False)
        (partial / "check.json").write_text(content + "\n", encoding="utf-8")
        (partial / "index.html").write_text(render_check(report), encoding="utf-8")
    return folder / "index.html"


def render_check(report: Report) -> str:
    """Return the page as HTML; names and messages in it are escaped."""
    dropped: dict[str, list[str]] = defaultdict(list)
    for case_id, reason in report.dropped:
        dropped[reason].append(case_id)
    return (
        page_environment()
        .get_template("check.html")
        .render(
            report=report,
            headline=_headline(report),
            facts=_facts(report),
            table=class_table(report),
            bars=[
                _bar(item.voxel_fraction.low, item.voxel_fraction.median, item.voxel_fraction.high)
                for item in report.classes
            ],
            ticks=("one in a million", f"the whole {_whole(report)}"),
            whole=_whole(report),
            connected="face, edge or corner" if report.flat_axis is None else "side or corner",
            patch=patch_text(report),
            groups=grouped(report),
            dropped=dict(dropped),
            classes=[item.name for item in report.classes[1:]],
            records=[_row(report, record) for record in report.records],
            version=voxloss.__version__,
        )
    )


def _headline(report: Report) -> str:
    listed = grouped(report)
    errors = len(listed.get("error", {}))
    if errors:
        return f"{count_of(errors, 'problem')} must be fixed before a study."
    rarest = min(report.classes[1:], key=lambda item: item.voxel_fraction.median)
    share = rarest.voxel_fraction.median
    warnings = len(listed.get("warning", {}))
    lead = f"Ready to run, with {count_of(warnings, 'warning')}." if warnings else "No problems found."
    if report.fewer_folds is not None:
        lead = f"No errors; {report.readiness}."
    return (
        f"{lead} The rarest class, {rarest.name}, fills one {report.units.element} in {round(1 / share):,} "
        "(the median of the cases that have it)."
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = [("Cases", str(report.cases)), ("Masks read", str(report.masks_read))]
    if report.shape and math.isfinite(report.shape[0].median):
        elements = f"{report.units.element.capitalize()}s"
        facts.append((f"{elements}, median", by_axis(report, report.shape, _median)))
        facts.append(("Spacing, median", spacing_text(report, _median).partition(":")[0]))
    return facts


def _median(spread: Spread) -> str:
    return number_text(spread.median)


def _whole(report: Report) -> str:
    return "volume" if report.flat_axis is None else "image"


def _bar(low: float, median: float, high: float) -> tuple[str, str, str] | None:
    """Return left end, width and median of a bar, in per cent of the scale."""
    if not math.isfinite(median):
        return None
    start, middle, end = (
        100 * math.log(min(max(value, SCALE[0]), SCALE[1]) / SCALE[0]) / math.log(SCALE[1] / SCALE[0])
        for value in (low, median, high)
    )
    return f"{start:.2f}", f"{end - start:.2f}", f"{middle:.2f}"


def _row(report: Report, record: CaseRecord) -> list[str]:
    cells = [record.case_id, by_axis(report, record.shape, str), by_axis(report, record.spacing_mm, "{:.3g}".format)]
    for volume, pieces in zip(record.volume_ml[1:], record.components[1:], strict=True):
        cells += [number_text(volume), str(pieces)]
    return cells


def _as_json(report: Report) -> dict[str, Any]:
    """Return the report's fields; sizes in images are named by their unit."""
    return {**_plain(asdict(report), report.units.column), "ok": report.ok}


def _plain(value: Any, size: str) -> Any:
    """Replace NaN, which JSON does not have, by null, and the name of sizes by `size`."""
    if isinstance(value, dict):
        return {size if key == "volume_ml" else str(key): _plain(item, size) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, size) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
