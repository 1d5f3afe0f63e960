"""Charts: precision against recall, score against volume, ranks, time and memory."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.scores import seed_means
from voxloss.evaluation.significance import case_values
from voxloss.evaluation.verdict import Verdict
from voxloss.report.comparison import Comparison
from voxloss.report.figures.labels import label_of, row_inches
from voxloss.report.figures.scores import PALETTE, STYLE, FigureFile, loss_colour, save_figure
from voxloss.report.names import loss_name, metric_name
from voxloss.report.record import StudyRecord

GROUPS = 5  # of cases by volume, of equal number
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def precision_recall_figure(comparison: Comparison, class_name: str, name: str, folder: Path) -> FigureFile | None:
    """Draw mean precision against mean recall of every loss, with curves of equal DSC; None without values."""
    table = comparison.intervals
    table = table[(table["class"] == class_name) & table["metric"].isin(("precision", "recall"))]
    wide = table.pivot(index="loss", columns="metric", values=["mean", "low", "high"])
    wide.columns = [f"{metric}_{value}" for value, metric in wide.columns]
    wide = wide.reindex([loss for loss in comparison.losses if loss in wide.index]).reset_index()
    if (
        not {"precision_mean", "recall_mean"} <= set(wide)
        or wide.dropna(subset=["precision_mean", "recall_mean"]).empty
    ):
        return None
    means = wide[["recall_mean", "precision_mean"]].min()
    left, bottom = (max(0.0, float(lowest) - 0.12) for lowest in means)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        recall = np.linspace(0.001, 1, 400)
        for dice in np.arange(0.1, 1, 0.1):
            with np.errstate(divide="ignore"):
                precision = dice * recall / (2 * recall - dice)
            inside = (precision > 0) & (precision <= 1)
            axes.plot(recall[inside], precision[inside], color="0.88", linewidth=0.8, zorder=0)
            at = dice / (2 - dice)  # the recall at which precision is 1
            if at >= left:
                axes.text(
                    at, 1 + 0.01 * (1 - bottom), f"{dice:.1f}", fontsize=6.5, color="0.55", ha="center", va="bottom"
                )
        for row in wide.to_dict("records"):
            place = comparison.losses.index(row["loss"])
            colour, line = loss_colour(place)
            x, y = row["recall_mean"], row["precision_mean"]
            if math.isnan(x) or math.isnan(y):
                continue
            if not math.isnan(row["recall_low"]):
                axes.plot([row["recall_low"], row["recall_high"]], [y, y], line, color=colour, linewidth=1, alpha=0.6)
            if not math.isnan(row["precision_low"]):
                axes.plot([x, x], [row["precision_low"], row["precision_high"]], line, color=colour, lw=1, alpha=0.6)
            marker = MARKERS[place % len(MARKERS)]
            axes.scatter([x], [y], s=34, color=colour, marker=marker, zorder=3, label=label_of(row["loss"]))
        axes.set_xlim(left, 1.0)
        axes.set_ylim(bottom, 1.0)
        axes.set_xlabel(f"Mean recall of {class_name}")
        axes.set_ylabel("Mean precision")
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            "Marks: the means of the main table; lines: their 95 % intervals; grey: combinations of precision and "
            f"recall with equal DSC. Right: fewer missed {comparison.units.element}s; up: fewer false positives."
        )
        lacking = wide[["precision_mean", "recall_mean"]].isna().any(axis=1)
        without = [loss_name(loss) for loss in wide.loc[lacking, "loss"]]
        if without:
            caption += f" Not shown (no mean precision or recall): {', '.join(without)}."
        return save_figure(figure, folder, name, f"Precision against recall of {class_name}", caption, wide)


def volume_table(comparison: Comparison, class_name: str) -> pd.DataFrame:
    """Return loss, case, volume_ml, value of the primary metric as ranked, and the case's group by volume, from 1."""
    scores = comparison.scores
    volumes = seed_means(scores[(scores["class"] == class_name) & (scores["metric"] == "reference_volume")])
    volumes = volumes.groupby(["dataset", "case"])["value"].mean().rename("volume_ml")
    volumes = volumes[volumes > 0]
    wide = case_values(scores, class_name, comparison.primary_metric)
    if volumes.empty or wide.empty:
        return pd.DataFrame(columns=["loss", "case", "volume_ml", "value", "group"])
    groups = min(GROUPS, max(1, len(volumes) // 3))
    group = (volumes.rank(method="first") - 1) * groups // len(volumes) + 1
    long = wide.stack().rename("value").reset_index()
    long = long.merge(pd.DataFrame({"volume_ml": volumes, "group": group.astype(int)}).reset_index())
    return long[["loss", "case", "volume_ml", "value", "group"]].dropna()


def volume_figure(comparison: Comparison, class_name: str, name: str, folder: Path) -> FigureFile | None:
    """Draw the primary metric against the structure's volume: every case, and the mean of every loss by group."""
    table = volume_table(comparison, class_name)
    if table.empty:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss in enumerate(comparison.losses):
            own = table[table["loss"] == loss]
            colour, line = loss_colour(place)
            axes.scatter(own["volume_ml"], own["value"], s=7, color=colour, alpha=0.35, linewidths=0)
            means = own.groupby("group").agg(volume_ml=("volume_ml", "median"), value=("value", "mean"))
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(means["volume_ml"], means["value"], line, color=colour, marker=marker, markersize=4, lw=1.4,
                      label=label_of(loss))  # fmt: skip
        axes.set_xscale("log")
        ticks = round_numbers(*axes.get_xlim())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])  # matplotlib's are formulas, which `STYLE` turns off
        axes.xaxis.set_minor_formatter("")
        axes.set_ylim(-0.02, 1.02)
        units = comparison.units
        axes.set_xlabel(f"{units.extent.capitalize()} of {class_name} in the reference, {units.size}")
        axes.set_ylabel(metric_name(comparison.primary_metric))
        axes.grid(color="0.92", linewidth=0.8)
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        groups = table["group"].nunique()
        caption = (
            f"Dots: cases (averaged over the seeds where there are several); lines: means in {groups} groups of "
            f"cases of equal number by {units.extent}, at the group's median. Empty predictions, failed runs: 0."
        )
        title = f"{metric_name(comparison.primary_metric)} against {units.extent} of {class_name}"
        return save_figure(figure, folder, name, title, caption, table.rename(columns={"volume_ml": units.column}))


def round_numbers(low: float, high: float) -> list[float]:
    """Return a few round numbers between two positive ones, for a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leading in ((1,), (1, 3), (1, 2, 5)):
        numbers = [first * 10.0**power for power in powers for first in leading if low <= first * 10.0**power <= high]
        if len(numbers) >= 3:
            return numbers
    return [float(value) for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]


def forest_figure(verdict: Verdict, class_name: str, metric: str, name: str, folder: Path) -> FigureFile:
    """Draw every loss's difference from the best mean with its simultaneous interval, and the margin as a band."""
    of_best = verdict.pairs[verdict.pairs["better"] == verdict.losses[0]].set_index("worse")
    sign = -1 if verdict.higher_is_better else 1
    largest = metric_of(metric).largest_difference
    table = pd.DataFrame(
        [
            {
                "loss": loss,
                "difference": sign * float(of_best["difference"].get(loss, 0.0)),
                "half_width": float(of_best["half_width"].get(loss, 0.0)),
                "may_be_best": loss in verdict.may_be_best,
                "clearly_worse": bool(of_best["differ"].get(loss, False)),
            }
            for loss in verdict.losses
        ]
    )
    table.insert(3, "low", (table["difference"] - table["half_width"]).clip(lower=-largest))
    table.insert(4, "high", (table["difference"] + table["half_width"]).clip(upper=largest))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 1.0 + row_inches(table["loss"], 0.34) * len(table)), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-verdict.margin, verdict.margin, color="0.92", linewidth=0, zorder=0)
        axes.axvline(0, color="0.5", linewidth=0.8, zorder=1)
        for place, row in enumerate(table.to_dict("records")):
            colour = PALETTE[1] if row["clearly_worse"] else PALETTE[0] if row["may_be_best"] else "0.45"
            if place and math.isfinite(row["half_width"]):
                ends = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                axes.errorbar(row["difference"], place, xerr=ends, color=colour, capsize=2.5, lw=1.4)
            face = colour if row["may_be_best"] else "white"
            axes.plot(row["difference"], place, "o", color=colour, markerfacecolor=face, markersize=5.5, zorder=3)
        axes.set_yticks(range(len(table)), [label_of(loss) for loss in table["loss"]])
        axes.invert_yaxis()
        axes.margins(x=0.04, y=0.08)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))  # labels such as -0.0075 do not touch
        axes.set_xlabel(textwrap.fill(f"{metric_name(metric)} minus that of {loss_name(verdict.losses[0])}", 42))
        axes.grid(axis="x", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        caption = (
            "Differences from the best mean with simultaneous 95 % intervals. Filled: may be the best; orange: clearly "
            f"worse; grey band: within the margin of {verdict.margin:g}."
        )
        title = f"Difference from the best: {metric_name(metric)} of {class_name}"
        return save_figure(figure, folder, name, title, caption, table)


def ranks_figure(stability: pd.DataFrame, class_name: str, metric: str, name: str, folder: Path) -> FigureFile:
    """Draw how often each loss has each rank, as one bar per loss."""
    places = [column for column in stability.columns if column not in ("loss", "mean_rank")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 0.9 + row_inches(stability["loss"], 0.36) * len(stability)), layout="constrained")
        axes = figure.subplots()
        colours = mpl.colormaps["cividis_r"]
        left = [0.0] * len(stability)
        for place, column in enumerate(places):
            shade = colours(1 - place / max(1, len(places) - 1))
            axes.barh(range(len(stability)), stability[column], left=left, color=shade, height=0.7, label=column)
            ink = "white" if sum(shade[:3]) < 1.5 else "black"
            for row, share in enumerate(stability[column]):
                if share >= 0.08:
                    middle = left[row] + share / 2
                    axes.text(middle, row, column, ha="center", va="center", fontsize=7.5, color=ink)
            left = [start + share for start, share in zip(left, stability[column], strict=True)]
        axes.set_yticks(range(len(stability)), [label_of(loss) for loss in stability["loss"]])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes.set_xlabel("Share of repetitions")
        axes.tick_params(axis="y", length=0)
        figure.legend(title="Rank", loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            "How often each loss has each rank in repetitions of the study, drawn from the verdict's model; equal "
            "losses share the better rank."
        )
        title = f"Stability of the ranking by {metric_name(metric)} of {class_name}"
        return save_figure(figure, folder, name, title, caption, stability)


def cost_table(record: StudyRecord, losses: Sequence[str]) -> pd.DataFrame:
    """Return, per loss, the median seconds of an epoch and the peak memory of its runs in GB."""
    rows: list[dict[str, Any]] = []
    for loss in losses:
        runs = [run for run in record.runs if run.loss == loss]
        epochs = [epoch for run in runs for epoch in record.study.run_folder(run.run).history()]
        seconds = [epoch.seconds for epoch in epochs if not math.isnan(epoch.seconds)]
        memory = [run.peak_memory / 1e9 for run in runs if run.peak_memory]
        rows.append(
            {
                "loss": loss,
                "runs": len(runs),
                "seconds_per_epoch": median(seconds) if seconds else math.nan,
                "peak_memory_gb": max(memory) if memory else math.nan,
            }
        )
    return pd.DataFrame(rows)


def cost_figure(record: StudyRecord, losses: Sequence[str], folder: Path) -> FigureFile | None:
    """Draw training time and memory of every loss; None if no run has recorded any."""
    table = cost_table(record, losses)
    columns = [
        (column, label, form)
        for column, label, form in (
            ("seconds_per_epoch", "Seconds per epoch (median)", "{:.3g}"),
            ("peak_memory_gb", "Peak memory, GB", "{:.2f}"),
        )
        if table[column].notna().any()
    ]
    if not columns:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(3.4 + 1.8 * len(columns), 0.8 + row_inches(losses, 0.32) * len(losses)), layout="constrained"
        )
        panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, (column, label, form) in zip(panels, columns, strict=True):
            colours = [loss_colour(place)[0] for place in range(len(losses))]
            bars = axes.barh(range(len(losses)), table[column].fillna(0), color=colours, height=0.6, alpha=0.85)
            texts = ["" if math.isnan(value) else form.format(value) for value in table[column]]
            axes.bar_label(bars, texts, padding=3, fontsize=7.5)
            axes.set_xlabel(label)
            axes.margins(x=0.2)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(losses)), [label_of(loss) for loss in losses])
        panels[0].invert_yaxis()
        caption = (
            "Times and memory are of the whole training, not of the loss alone: median seconds of an epoch with its "
            "validation, and the largest memory that any run of the loss took (of the device on CUDA, else of its "
            "process). Runs that are executed at the same time slow each other down."
        )
        return save_figure(figure, folder, "cost", "Time and memory", caption, table)


def race_figure(looks: pd.DataFrame, class_name: str, metric: str, name: str, folder: Path) -> FigureFile:
    """Draw the mean of every loss after each round of a race, until it left (`looks_frame`)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss in enumerate(dict.fromkeys(looks["loss"])):
            own = looks[looks["loss"] == loss]
            colour, line = loss_colour(place)
            axes.plot(own["round"], own["mean"], line, color=colour, marker=".", label=label_of(loss))
            gone = own[own["leaves"]]
            axes.scatter(gone["round"], gone["mean"], marker="x", s=40, color=colour, zorder=3)
        axes.set_xlabel("Round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"Mean {metric_name(metric)} of {class_name} so far")
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = "The mean over all rounds so far of every loss still in. A cross: the loss left after this round."
        return save_figure(
            figure, folder, name, f"The race: mean {metric_name(metric)} of {class_name}", caption, looks
        )
