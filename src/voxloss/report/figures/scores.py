"""Charts of the scores: box plots with every case, and learning curves; each is an SVG, a PNG and a CSV of its data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxloss.evaluation.scores import seed_means
from voxloss.report.comparison import Comparison
from voxloss.report.figures.labels import fonts, label_of, row_inches, unreadable, without_notices
from voxloss.report.names import metric_name
from voxloss.report.record import StudyRecord
from voxloss.training.history import selected_epoch
from voxloss.utilities.arrays import Float64s

# Okabe and Ito's colours, told apart in every common kind of colour blindness, with grey for their yellow, which is
# too faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
LINES = ("-", "--", ":", "-.")

STYLE: Any = {
    "font.family": fonts(),
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a class may be called "$"
    "svg.hashsalt": "voxloss",  # the same data give the same file
}

DPI = 300


@dataclass(frozen=True)
class FigureFile:
    """A saved figure: `name` plus .svg, .png and .csv, with its size in pixels at 96 per inch."""

    name: str
    title: str
    caption: str
    width: int
    height: int


def save_figure(figure: Figure, folder: Path, name: str, title: str, caption: str, data: pd.DataFrame) -> FigureFile:
    """Write a figure and its data into `folder`, and return its description.

    If no installed font has some of its characters, the caption says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE), without_notices():
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        figure.savefig(folder / f"{name}.svg", dpi=DPI, metadata={"Date": None})
    data.to_csv(folder / f"{name}.csv", index=False, encoding="utf-8", lineterminator="\n")
    if lacking := unreadable(figure):
        caption += f" Boxes: no font on the machine that drew this has {lacking}; install one, such as Noto Sans CJK."
    width, height = figure.get_size_inches()
    return FigureFile(name, title, caption, round(width * 96), round(height * 96))


def loss_colour(place: int) -> tuple[str, str]:
    """Return colour and line style of a loss by its place in the study's order."""
    return PALETTE[place % len(PALETTE)], LINES[place // len(PALETTE) % len(LINES)]


def score_figure(comparison: Comparison, class_name: str, name: str, folder: Path) -> FigureFile:
    """Draw the primary metric of every case as box and strip plot, one row per loss, for one class."""
    metric = comparison.primary_metric
    scores = comparison.scores
    chosen = scores[(scores["class"] == class_name) & (scores["metric"] == metric)]
    means = seed_means(chosen)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(4.8, 0.9 + row_inches(comparison.losses, 0.38) * len(comparison.losses)), layout="constrained"
        )
        axes = figure.subplots()
        for place, loss in enumerate(comparison.losses):
            values = means.loc[means["loss"] == loss, "value"].dropna().to_numpy()
            if len(values):
                _box_and_strip(axes, values, place, loss_colour(place)[0])
            else:
                axes.text(0.02, place, "no score", va="center", color="0.4", transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(comparison.losses)), [label_of(loss) for loss in comparison.losses])
        axes.set_ylim(len(comparison.losses) - 0.4, -0.6)
        lowest = means["value"].min()
        axes.set_xlim(-0.02 if not lowest > 0.1 else lowest - 0.05, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        reader = _reader_mean(comparison, class_name, metric)
        if reader is not None:
            axes.axvline(reader, color="0.35", linestyle="--", linewidth=1)
        axes.set_xlabel(f"{metric_name(metric)} of {class_name}, per case")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        caption = (
            "One dot per case (averaged over the seeds where there are several); box: quartiles and median; whiskers: "
            "the furthest case within 1.5 box lengths; diamond: mean of the cases."
        )
        if reader is not None:
            caption += f" Dashed: the second reader's mean, {reader:.3f}."
        return save_figure(figure, folder, name, f"{metric_name(metric)} of {class_name} per case", caption, means)


def _reader_mean(comparison: Comparison, class_name: str, metric: str) -> float | None:
    if comparison.reader is None:
        return None
    chosen = (comparison.reader["class"] == class_name) & (comparison.reader["metric"] == metric)
    means = comparison.reader.loc[chosen, "mean"].dropna()
    return None if means.empty else float(means.iloc[0])


def _box_and_strip(axes: Axes, values: Float64s, place: int, colour: str) -> None:
    box = boxplot_stats(values)[0]
    axes.barh(place, box["q3"] - box["q1"], left=box["q1"], height=0.56, color=colour, alpha=0.18, linewidth=0)
    axes.barh(place, box["q3"] - box["q1"], left=box["q1"], height=0.56, fill=False, edgecolor=colour, linewidth=1)
    for end, quartile in ((box["whislo"], box["q1"]), (box["whishi"], box["q3"])):
        axes.plot([end, quartile], [place, place], color=colour, linewidth=1)
    axes.plot([box["med"], box["med"]], [place - 0.28, place + 0.28], color=colour, linewidth=2.2)
    jitter = np.random.default_rng(place).uniform(-0.2, 0.2, len(values))
    size = 14 if len(values) <= 60 else 6
    axes.scatter(values, place + jitter, s=size, color=colour, alpha=0.65, linewidths=0, zorder=3)
    axes.scatter([values.mean()], [place], s=30, marker="D", color="white", edgecolors=colour, linewidths=1.3, zorder=4)


def curves_table(record: StudyRecord, losses: Sequence[str]) -> pd.DataFrame:
    """Return validation Dice per loss and epoch, averaged over the runs that reached the epoch.

    Also the number of these runs, and the number of runs that selected the weights of this epoch.
    """
    rows = []
    for run in record.runs:
        if run.loss in losses:
            history = record.study.run_folder(run.run).history()
            done = run.state == "done" and not record.study.imported
            chosen = selected_epoch(history, record.study.config.training.selection) if done else None
            for epoch in history:
                rows.append((run.loss, epoch.number, epoch.validation_dice, int(epoch.number == chosen)))
    table = pd.DataFrame(rows, columns=["loss", "epoch", "validation_dice", "chosen"]).dropna()
    grouped = table.groupby(["loss", "epoch"])
    return grouped.agg(
        validation_dice=("validation_dice", "mean"), runs=("validation_dice", "count"), chosen=("chosen", "sum")
    ).reset_index()


def curves_figure(record: StudyRecord, losses: Sequence[str], folder: Path) -> FigureFile | None:
    """Draw mean foreground Dice on the validation batches by epoch and the selected epochs; None without a history."""
    table = curves_table(record, losses)
    if table.empty:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.3), layout="constrained")
        axes = figure.subplots()
        for place, loss in enumerate(losses):
            curve = table[table["loss"] == loss]
            colour, line = loss_colour(place)
            axes.plot(curve["epoch"], curve["validation_dice"], line, color=colour, lw=1.5, label=label_of(loss))
            chosen = curve[curve["chosen"] > 0]
            size = 14 + 10 * chosen["chosen"]
            axes.scatter(chosen["epoch"], chosen["validation_dice"], s=size, color=colour, zorder=3, clip_on=False)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Mean foreground Dice")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9", linewidth=0.8)
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        caption = (
            "Mean foreground Dice on the validation batches after every epoch, averaged over the runs that reached it. "
            "Dots: the epochs whose weights were selected, larger for more runs. The values of the losses are not "
            "shown because their scales differ."
        )
        return save_figure(figure, folder, "learning_curves", "Learning curves", caption, table)
