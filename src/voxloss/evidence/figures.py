"""Forest pictures of comparisons over all studies, and curves against rarity."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from voxloss.evaluation.joined import Joined
from voxloss.evaluation.verdict import MARGIN
from voxloss.evidence.comparisons import Difference, Slope, ended
from voxloss.report.figures.charts import round_numbers
from voxloss.report.figures.scores import PALETTE, STYLE, loss_colour
from voxloss.report.names import loss_name
from voxloss.utilities.files import atomic_path

GREY = "0.55"
LEAST_GAP = 0.15  # of an axis between two numbers, which would touch


def forest(rows: Sequence[tuple[Difference, str, bool]], together: Joined | None, path: Path) -> None:
    """Draw a comparison as SVG: studies that are joined and what is joined above, the others in grey below.

    Each part has an axis of its own: beside the intervals of phantoms, those of real data sets would be points.

    Args:
        rows: Difference, label, and whether it is joined, of every study, those that are joined first.
        together: What is joined; None with fewer than two data sets.
        path: The file.
    """
    first, second = loss_name(rows[0][0].first), loss_name(rows[0][0].second)
    joined = [(one, label) for one, label, counts in rows if counts]
    others = [(one, label) for one, label, counts in rows if not counts]
    ends = 0 if together is None else 1 if together.predicted is None else 2
    heights = [len(part) + extra for part, extra in ((joined, ends), (others, 0)) if part]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 0.45 + 0.4 * len(heights) + 0.32 * sum(heights)), layout="constrained")
        parts = list(
            figure.subplots(len(heights), squeeze=False, height_ratios=[height + 1 for height in heights])[:, 0]
        )
        axes = parts[0]
        if joined:
            weights = together.weights if together else [0.0] * len(joined)
            labels = _squares(axes, joined, PALETTE[0], PALETTE[0], [4 + 6 * weight**0.5 for weight in weights])
            labels += _joined(axes, together, len(joined)) if together else []
            _rows(axes, labels)
        if others:
            axes = parts[-1]
            _rows(axes, _squares(axes, others, GREY, "white", [4.5] * len(others)))
        axes.set_xlabel(f"Mean Dice: {first} minus {second}")
        _save(figure, path)


def _squares(
    axes: Axes, rows: Sequence[tuple[Difference, str]], colour: str, face: str, sizes: Sequence[float]
) -> list[str]:
    """Draw a row per study; return the labels."""
    for place, ((one, _), size) in enumerate(zip(rows, sizes, strict=True)):
        ends = [[one.mean - one.low], [one.high - one.mean]]
        axes.errorbar(one.mean, place, xerr=ends, color=colour, capsize=2.5, lw=1.3)
        axes.plot(one.mean, place, "s", color=colour, markerfacecolor=face, markersize=size)
    return [label for _, label in rows]


def _joined(axes: Axes, together: Joined, place: int) -> list[str]:
    """Draw what is joined as a diamond, and below it the interval of a new data set; return the labels."""
    (low, high), top = ended(together.low, together.high), 0.22
    axes.fill(
        [low, together.mean, high, together.mean], [place, place - top, place, place + top], color=PALETTE[1], zorder=3
    )
    labels = [f"joined, {together.n} data sets"]
    if together.predicted is not None:
        axes.plot(ended(*together.predicted), [place + 1] * 2, color=PALETTE[1], lw=3, solid_capstyle="butt")
        labels.append("a new data set")
    return labels


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.axvspan(-MARGIN, MARGIN, color="0.93", linewidth=0, zorder=0)
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def dose_response(slopes: Sequence[Slope], path: Path) -> None:
    """Draw the differences of several losses from one loss along a series, with their intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.5", linewidth=0.8)
        for place, one in enumerate(slopes):
            colour, line = loss_colour(place)
            places = [share * (1 + 0.03 * (place - (len(slopes) - 1) / 2)) for share, _ in one.steps]
            means = [step.mean for _, step in one.steps]
            ends = [[step.mean - step.low for _, step in one.steps], [step.high - step.mean for _, step in one.steps]]
            label = f"{loss_name(one.first)} minus {loss_name(one.second)}"
            axes.errorbar(
                places, means, yerr=ends, fmt=f"o{line}", color=colour, capsize=2.5, lw=1.2, ms=4, label=label
            )
        _rarity_axis(axes, [share for one in slopes for share, _ in one.steps])
        axes.set_ylabel("Difference in mean Dice")
        figure.legend(loc="outside upper center", frameon=False, fontsize=8)
        _save(figure, path)


def scores_by_rarity(rows: pd.DataFrame, path: Path) -> None:
    """Draw Dice, recall of lesions and collapse of every loss against rarity (`series_frame`)."""
    scores = {
        "dice": "Mean Dice",
        "lesion_recall": "Recall of lesions",
        "empty": "Cases with nothing predicted",
        "collapsed": "Collapsed networks",
    }
    panels = [(column, label) for column, label in scores.items() if rows[column].notna().any()]
    losses = list(dict.fromkeys(rows["loss"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.5 + 2.6 * math.ceil(len(panels) / 2)), layout="constrained")
        for number, (column, label) in enumerate(panels, start=1):
            axes = figure.add_subplot(math.ceil(len(panels) / 2), 2, number)
            for place, loss in enumerate(losses):
                own = rows[rows["loss"] == loss]
                colour, line = loss_colour(place)
                shares = own["share"] * (1 + 0.03 * (place - (len(losses) - 1) / 2))
                ends = None
                if f"{column}_low" in own:
                    ends = [own[column] - own[f"{column}_low"], own[f"{column}_high"] - own[column]]
                axes.errorbar(
                    shares,
                    own[column],
                    yerr=ends,
                    fmt=f".{line}",
                    color=colour,
                    capsize=2,
                    lw=1.2,
                    label=loss_name(loss),
                )
            _rarity_axis(axes, rows["share"])
            axes.set_ylim(-0.03, 1.03)
            axes.set_ylabel(label)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(losses)), frameon=False, fontsize=8)
        _save(figure, path)


def _rarity_axis(axes: Axes, shares: Sequence[float]) -> None:
    axes.set_xscale("log")
    low, high = min(shares) / 1.2, max(shares) * 1.2
    ticks: list[float] = []
    for tick in reversed(round_numbers(low, high)):
        if not ticks or math.log(ticks[-1] / tick) > LEAST_GAP * math.log(high / low):
            ticks.append(tick)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.invert_xaxis()
    axes.set_xlabel("Share of the class, rarer to the right")


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
