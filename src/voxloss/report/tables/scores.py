"""Tables of scores (mean ± interval of every loss) and matrices of adjusted p-values."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from voxloss.evaluation.metrics import metric_of
from voxloss.geometry.units import VOLUMES, Units
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Shade, Table, distinguishing
from voxloss.utilities.text import count_of

STARS = ((0.001, "‡"), (0.01, "**"), (0.05, "*"))
STARS_KEY = "* p < 0.05, ** p < 0.01, ‡ p < 0.001"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

TEST_NAMES = {"rank_sum": "Wilcoxon rank-sum test", "signed_rank": "Wilcoxon signed-rank test"}
TEST_NOTES = {
    "rank_sum": "The paper's test; it treats the scores of two losses as independent although the cases are the same.",
    "signed_rank": "The test is paired by case.",
}


def interval_text(
    mean: float, half_width: float, low: float = math.nan, high: float = math.nan, digits: int = 3
) -> str:
    """Write a mean with its interval.

    Examples: "0.940 ± 0.020"; "0.940 (0.912 to 0.957)" if the interval is not symmetric, also because it ends where the
    metric's range does; "0.940" without an interval; "n/a" without a value.
    """
    if math.isnan(mean):
        return "n/a"
    ends_early = low > mean - half_width + 1e-12 or high < mean + half_width - 1e-12  # False where something is NaN
    if math.isinf(half_width):
        return f"{mean:.{digits}f}"
    if not math.isnan(half_width) and not ends_early:
        return f"{mean:.{digits}f} ± {half_width:.{digits}f}"
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if not math.isnan(low) else "")


def p_text(p: float) -> str:
    """Write p with three significant digits, as the paper: "1.00", "0.0962", "2.52 × 10⁻⁵"; "n/a" without a value."""
    if math.isnan(p):
        return "n/a"
    digits = f"{p:.2e}"
    if float(digits) >= 0.001 or p == 0:
        return f"{p:#.3g}"
    mantissa, exponent = digits.split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def short_p_text(p: float) -> str:
    """Write p with three decimals, for the console: "1.000", "0.005", "<0.001"; "n/a" without a value."""
    if math.isnan(p):
        return "n/a"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def stars(p: float) -> str:
    """Return the mark of a p-value, from the value and not from its rounding."""
    return next((mark for limit, mark in STARS if p < limit), "")


def scores_table(
    intervals: pd.DataFrame,
    losses: Sequence[str],
    classes: Sequence[str],
    metrics: Sequence[str],
    title: str,
    caption: str,
    units: Units = VOLUMES,
    reader: pd.DataFrame | None = None,
    without_best: Collection[str] = (),
) -> Table:
    """Return a table with a row per loss and a column per class and metric; the best of each column is bold.

    Not in the columns of classes `without_best`, which no loss has learned.

    Best is by `ranking_mean`, to the decimals printed, so that a failed run or an empty prediction cannot make a loss
    the best. † marks means that leave scores out; the notes say how many. The last row is that of a second reader, if
    `reader` has the intervals of one; it is never the best.
    """
    by_key = {(row["loss"], row["class"], row["metric"]): row for row in intervals.to_dict("records")}
    there = {key[1:] for key in by_key}
    columns = [(name, metric) for name in classes for metric in metrics if (name, metric) in there]
    widths = Counter(name for name, _ in columns)
    best = {column: _best([by_key[(loss, *column)] for loss in losses], column[1]) for column in columns}
    rows = []
    for loss in losses:
        cells = [Cell(loss_name(loss))]
        for column in columns:
            entry, digits = by_key[(loss, *column)], metric_digits(column[1])
            left_out = entry["n_undefined"] + entry["n_failed"] > 0
            text = interval_text(entry["mean"], entry["half_width"], entry["low"], entry["high"], digits)
            compared = len(losses) > 1 and column[0] not in without_best
            is_best = compared and round(entry["ranking_mean"], digits) == best[column]
            cells.append(Cell(text + ("†" if left_out else ""), bold=is_best and text != "n/a"))
        rows.append(tuple(cells))
    rows = list(distinguishing(rows))
    if reader is not None:
        rows.append(_reader_row(reader, columns))
    return Table(
        title=title,
        caption=caption,
        groups=tuple((class_name, widths[class_name]) for class_name in classes if widths[class_name]),
        header=("Loss", *(metric_name(metric, units) for _, metric in columns)),
        rows=tuple(rows),
        notes=tuple(_left_out_notes(by_key, losses, columns)),
    )


def _reader_row(reader: pd.DataFrame, columns: Sequence[tuple[str, str]]) -> tuple[Cell, ...]:
    by_key = {(row["class"], row["metric"]): row for row in reader.to_dict("records")}
    cells = [Cell(f"Second reader ({count_of(int(reader['n_cases'].max()), 'case')})")]
    for column in columns:
        row = by_key.get(column)
        text = "n/a"
        if row is not None:
            values = (row["mean"], row["half_width"], row["low"], row["high"])
            text = interval_text(*values, digits=metric_digits(column[1]))
        cells.append(Cell(text))
    return tuple(cells)


def metric_digits(metric: str) -> int:
    """Return the decimals of a metric: three for shares, two for millimetres and millilitres."""
    return 2 if metric_of(metric).unit else 3


def _best(entries: Sequence[dict[str, Any]], metric: str) -> float:
    means = [round(entry["ranking_mean"], metric_digits(metric)) for entry in entries]
    means = [mean for mean in means if math.isfinite(mean)]
    return (max if metric_of(metric).higher_is_better else min)(means, default=math.nan)


def _left_out_notes(
    by_key: dict[tuple[str, str, str], dict[str, Any]], losses: Sequence[str], columns: Sequence[tuple[str, str]]
) -> Iterable[str]:
    losses_by_counts: dict[str, list[str]] = {}  # what is left out of most columns is the same for every loss
    for loss in losses:
        counts = []
        for kind in ("undefined", "failed"):
            numbers = {column: by_key[(loss, *column)][f"n_{kind}"] for column in columns}
            if len(columns) > 1 and len(set(numbers.values())) == 1 and any(numbers.values()):
                counts.append(f"{next(iter(numbers.values()))} {kind} in every column")
            else:
                counts += [
                    f"{number} {kind} in {metric_name(metric)} of {class_name}"
                    for (class_name, metric), number in numbers.items()
                    if number
                ]
        if counts:
            losses_by_counts.setdefault(", ".join(counts), []).append(loss_name(loss))
    if losses_by_counts:
        parts = [
            f"{'Every loss' if len(names) == len(losses) > 1 else ', '.join(names)}: {counts}"
            for counts, names in losses_by_counts.items()
        ]
        yield f"† Undefined scores, not in the mean. {'; '.join(parts)}."


def significance_matrix(
    pairs: pd.DataFrame,
    class_name: str,
    metric: str,
    losses: Sequence[str],
    test: str,
    numbered: bool = False,
    p_format: Callable[[float], str] = p_text,
) -> Table:
    """Return the lower triangle of Holm-adjusted p-values; each row is compared with each column.

    Args:
        pairs: The result of `pairwise_rank_sum` or `pairwise_signed_rank` for the same order of losses.
        class_name: The class.
        metric: The metric.
        losses: The losses, in the order of rows and columns.
        test: The test, "rank_sum" or "signed_rank".
        numbered: Whether the columns are headed by the losses' numbers, to save width in print and on the console.
        p_format: Writes a p-value.
    """
    chosen = pairs[(pairs["class"] == class_name) & (pairs["metric"] == metric)]
    by_pair = {(row["row"], row["column"]): row for row in chosen.to_dict("records")}
    rows = []
    for place, loss in enumerate(losses):
        cells = [Cell(f"{place + 1} {loss_name(loss)}" if numbered else loss_name(loss))]
        cells += [_p_cell(by_pair[loss, other], p_format) for other in losses[:place]]
        cells += [Cell("–"), *[Cell("")] * (len(losses) - place - 1)]
        rows.append(tuple(cells))
    numbers = [entry["n"] for entry in by_pair.values()] or [0]
    cases = f"{min(numbers)} to {max(numbers)} cases" if len(set(numbers)) > 1 else count_of(numbers[0], "case")
    caption = (
        f"Holm-adjusted p-values of the two-sided {TEST_NAMES[test]} between every two losses on {cases} (one family: "
        f"the {count_of(len(by_pair), 'pair')} of this table). Each row is compared with each column. Green: the row's "
        f"scores are higher; red: lower. {STARS_KEY}. {TEST_NOTES[test]}"
    )
    header = [str(place + 1) if numbered else loss_name(loss) for place, loss in enumerate(losses)]
    title = f"{metric_name(metric)} of {class_name}: {TEST_NAMES[test]}"
    return Table(title=title, caption=caption, header=("", *header), rows=tuple(rows))


def _p_cell(entry: dict[str, Any], p_format: Callable[[float], str]) -> Cell:
    p, statistic = entry["p_holm"], entry["statistic"]
    mark = stars(p)
    shade: Shade = "positive" if statistic > 0 else "negative" if statistic < 0 else ""
    return Cell(p_format(p) + mark, shade=shade, strong=bool(mark))
