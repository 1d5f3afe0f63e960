"""A preset's results beside the paper's: means with intervals, and the tests' p-values."""

from collections.abc import Sequence

import pandas as pd

from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Table
from voxloss.report.tables.paper_numbers import METRICS, PAPER_ORDER, PAPER_P, PAPER_RESULTS
from voxloss.report.tables.scores import interval_text, p_text, stars

TABLES = {"kits19": ("Table 1", "Table 2"), "brats20": ("Table 3", "Table 4")}


def beside_paper(intervals: pd.DataFrame, losses: Sequence[str], classes: Sequence[str], preset: str) -> pd.DataFrame:
    """Return means and intervals of a reproduction and of the paper, for the losses that both have.

    Columns: loss, class, metric, mean, half_width, low, high, paper, paper_half_width.
    """
    published = pd.DataFrame(
        [
            (loss, class_name, metric, *value)
            for loss in losses
            for class_name, values in zip(classes, PAPER_RESULTS[preset].get(loss, ()), strict=False)
            for metric, value in zip(METRICS, values, strict=True)
        ],
        columns=["loss", "class", "metric", "paper", "paper_half_width"],
    )
    key, ours = ["loss", "class", "metric"], ["mean", "half_width", "low", "high"]
    joined = published.merge(intervals[[*key, *ours]], on=key, how="left")
    return joined[[*key, *ours, "paper", "paper_half_width"]]


def paper_table(beside: pd.DataFrame, classes: Sequence[str], preset: str) -> Table:
    """Return the result of `beside_paper` as a table with two rows per loss: this study's and the paper's."""
    rows = []
    for loss, entries in beside.groupby("loss", sort=False):
        name, ours, theirs = loss_name(str(loss)), [], []
        for entry in entries.to_dict("records"):
            ours.append(Cell(interval_text(entry["mean"], entry["half_width"], entry["low"], entry["high"])))
            theirs.append(Cell(interval_text(entry["paper"], entry["paper_half_width"])))
        rows += [(Cell(name), *ours), (Cell(f"{name}, paper"), *theirs)]
    return Table(
        title="Comparison with the paper",
        caption=(
            f"Means of this study, and below each the mean of Yeung et al. 2021 ({TABLES[preset][0]}), which does not "
            "say whether its 95 % intervals are over folds or cases."
        ),
        groups=tuple((class_name, len(METRICS)) for class_name in classes),
        header=("Loss", *(metric_name(metric) for _ in classes for metric in METRICS)),
        rows=tuple(rows),
    )


def beside_paper_tests(rank_sum: pd.DataFrame, classes: Sequence[str], preset: str) -> pd.DataFrame:
    """Return this study's Holm-adjusted rank-sum p of DSC and the paper's, for pairs of losses that both have.

    Columns: class, row, column (in the paper's order), statistic (row minus column), p_holm, paper.
    """
    by_pair = {
        (entry["class"], entry["row"], entry["column"]): (entry["statistic"], entry["p_holm"])
        for entry in rank_sum[rank_sum["metric"] == "dice"].to_dict("records")
    }
    order, rows = PAPER_ORDER[preset], []
    for class_name, triangle in zip(classes, PAPER_P[preset], strict=False):
        for row, values in zip(order, triangle, strict=True):
            for column, paper in zip(order, values, strict=False):
                if (class_name, row, column) in by_pair:
                    statistic, p = by_pair[class_name, row, column]
                elif (class_name, column, row) in by_pair:
                    statistic, p = by_pair[class_name, column, row]
                    statistic = -statistic
                else:
                    continue
                rows.append((class_name, row, column, statistic, p, paper))
    return pd.DataFrame(rows, columns=["class", "row", "column", "statistic", "p_holm", "paper"])


def paper_tests_table(beside: pd.DataFrame, class_name: str, preset: str) -> Table:
    """Return the lower triangle of one class: this study's p, and in brackets the paper's."""
    own = beside[beside["class"] == class_name]
    by_pair = {(entry["row"], entry["column"]): entry for entry in own.to_dict("records")}
    losses = [loss for loss in PAPER_ORDER[preset] if loss in {*own["row"], *own["column"]}]
    rows = []
    for place, loss in enumerate(losses):
        cells = [Cell(f"{place + 1} {loss_name(loss)}")]
        for other in losses[:place]:
            entry = by_pair[loss, other]
            ours, paper = (p_text(p) + stars(p) for p in (entry["p_holm"], entry["paper"]))
            cells.append(Cell(f"{ours} ({paper})"))
        rows.append((*cells, Cell("–"), *[Cell("")] * (len(losses) - place - 1)))
    return Table(
        title=f"Comparison with the paper: rank-sum tests on DSC of {class_name}",
        caption=(
            f"Holm-adjusted p of this study, and in brackets that of Yeung et al. 2021 ({TABLES[preset][1]}), which "
            "does not state the family of tests. Here the family is all pairs of losses."
        ),
        header=("", *(str(place + 1) for place in range(len(losses)))),
        rows=tuple(rows),
    )
