"""Figures of operating points: Dice by threshold, precision against recall, reliability, and FROC."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxloss.evaluation.probabilities.calibration import RELIABILITY_BINS, reliability
from voxloss.evaluation.probabilities.counts import THRESHOLDS, RunCounts
from voxloss.evaluation.probabilities.froc import LESION_THRESHOLDS, froc
from voxloss.evaluation.probabilities.thresholds import overlaps, precision_at
from voxloss.evaluation.probabilities.tuning import RunKey, pooled_runs
from voxloss.report.comparison import Comparison
from voxloss.report.figures.labels import label_of
from voxloss.report.figures.scores import STYLE, FigureFile, loss_colour, save_figure
from voxloss.report.names import metric_name
from voxloss.report.operating import OperatingPoints
from voxloss.utilities.arrays import Float64s

RECALLS = np.linspace(0, 1, 101)
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
BAND = "Band: ± one standard deviation over the runs (folds and seeds)."


def threshold_figure(
    comparison: Comparison, points: OperatingPoints, class_name: str, name: str, folder: Path
) -> FigureFile:
    """Draw mean Dice by threshold, with every loss's median threshold."""
    shown = np.flatnonzero((TICKS[0] / 2 <= THRESHOLDS) & (1 - TICKS[0] / 2 >= THRESHOLDS))
    odds = np.log(THRESHOLDS[shown] / (1 - THRESHOLDS[shown]))
    parts = []
    own = points.points[points.points["class"] == class_name]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss, curves in _by_loss(comparison, _mean_dice(points.runs, class_name)):
            mean, deviation = _summary(curves[:, shown])
            colour, line = loss_colour(place)
            _draw(axes, odds, mean, deviation, colour, line, loss)
            threshold = own.loc[own["loss"] == loss, "threshold"].median()
            if not math.isnan(threshold):
                at = math.log(threshold / (1 - threshold))
                axes.plot(at, np.interp(at, odds, mean), "o", color=colour, markersize=5)
            parts.append(_table(loss, {"threshold": THRESHOLDS[shown]}, mean, deviation, "mean_dice"))
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.set_xticks([math.log(tick / (1 - tick)) for tick in TICKS], [f"{tick:g}" for tick in TICKS])
        axes.set_xlabel("Threshold of the probability (log odds)")
        axes.set_ylabel(f"Mean {metric_name('dice')} of {class_name}")
        axes.set_ylim(-0.02, 1.02)
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            "Mean over the cases that have the class or a prediction. Marks: median of the tuned thresholds; grey "
            f"line: a half, which with two classes is the largest probability. {BAND}"
        )
        return save_figure(figure, folder, name, f"DSC by threshold: {class_name}", caption, pd.concat(parts))


def precision_recall_curves(
    comparison: Comparison, points: OperatingPoints, class_name: str, name: str, folder: Path
) -> FigureFile:
    """Draw precision against recall over all thresholds."""
    by_run = {key: precision_at(counts, RECALLS) for key, counts in pooled_runs(points.runs, class_name)}
    parts = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss, curves in _by_loss(comparison, by_run):
            mean, deviation = _summary(curves)
            _draw(axes, RECALLS, mean, deviation, *loss_colour(place), loss)
            parts.append(_table(loss, {"recall": RECALLS}, mean, deviation, "mean_precision"))
        axes.set_xlabel(f"Recall of {class_name}")
        axes.set_ylabel("Precision")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            f"Over the {comparison.units.element}s of all cases that a run scores, so large structures weigh most; the "
            f"mean over the runs at every recall. {BAND}"
        )
        return save_figure(figure, folder, name, f"Precision–recall: {class_name}", caption, pd.concat(parts))


def reliability_figure(
    comparison: Comparison, points: OperatingPoints, class_name: str, name: str, folder: Path
) -> FigureFile:
    """Draw the observed share of a class against its predicted probability, before and after the scaling."""
    own = points.points[points.points["class"] == class_name].set_index(["loss", "fold", "seed"])["temperature"]
    parts = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, scaled in zip(panels, (False, True), strict=True):
            predicted, observed = {}, {}
            for key, counts in pooled_runs(points.runs, class_name):
                temperature = float(own[key]) if scaled else 1.0
                if not math.isnan(temperature):
                    bins = reliability(counts, temperature)
                    predicted[key], observed[key] = bins.predicted, bins.observed
            axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
            for place, loss, curves in _by_loss(comparison, observed):
                mean, deviation = _summary(curves)
                middles, _ = _summary(np.stack([predicted[key] for key in predicted if key[0] == loss]))
                colour, line = loss_colour(place)
                _draw(axes, middles, mean, deviation, colour, line, loss if not scaled else None, marker=".")
                table = _table(loss, {"predicted": middles}, mean, deviation, "observed")
                parts.append(table.assign(scaled=scaled, bin=np.arange(RELIABILITY_BINS)))
            axes.set_title("After temperature scaling" if scaled else "As predicted", fontsize=9)
            axes.set_xlabel(f"Probability of {class_name}")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
        panels[0].set_ylabel(f"Share of the {comparison.units.element}s that have the class")
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            f"{RELIABILITY_BINS} bins of equal width; the mean over the runs of each bin. Below the diagonal, the "
            f"network is too sure of the class; above it, not sure enough. {BAND}"
        )
        return save_figure(figure, folder, name, f"Reliability: {class_name}", caption, pd.concat(parts))


def froc_figure(
    comparison: Comparison, points: OperatingPoints, class_name: str, name: str, folder: Path
) -> FigureFile | None:
    """Draw detected lesions against false positives per case; None if no run has lesions of the class."""
    rates, shares = {}, {}
    for key, run in points.runs.items():
        lesions = run.lesions[~np.array(run.inner)]
        if run.lesion_class == class_name and lesions[..., 0].any():
            rates[key], shares[key] = froc(lesions)
    if not rates:
        return None
    parts = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss, curves in _by_loss(comparison, shares):
            mean, deviation = _summary(curves)
            false, _ = _summary(np.stack([rates[key] for key in rates if key[0] == loss]))
            colour, line = loss_colour(place)
            _draw(axes, false, mean, deviation, colour, line, loss, marker=".")
            columns = {"threshold": np.array(LESION_THRESHOLDS), "false_positives_per_case": false}
            parts.append(_table(loss, columns, mean, deviation, "sensitivity"))
        axes.set_xscale("symlog", linthresh=0.125)
        ticks = [tick for tick in (0, 0.125, 0.5, 2, 8, 32, 128, 512) if tick <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("False positive lesions per case")
        axes.set_ylabel(f"Share of the lesions of {class_name} detected")
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            f"At the thresholds {', '.join(f'{threshold:g}' for threshold in LESION_THRESHOLDS)} (marks, from right "
            "to left), over all lesions of a run's cases, matched as for the scores of lesions; means over the runs. "
            f"{BAND}"
        )
        return save_figure(figure, folder, name, f"FROC: {class_name}", caption, pd.concat(parts))


def _mean_dice(runs: Mapping[RunKey, RunCounts], class_name: str) -> dict[RunKey, Float64s]:
    curves = {}
    for key, run in runs.items():
        dice = np.stack([overlaps(counts).dice() for counts in run.of_class(class_name).values()])
        known = ~np.isnan(dice)
        with np.errstate(invalid="ignore"):
            curves[key] = np.where(known, dice, 0).sum(axis=0) / known.sum(axis=0)
    return curves


def _by_loss(comparison: Comparison, by_run: Mapping[RunKey, Float64s]) -> Iterator[tuple[int, str, Float64s]]:
    """Yield place, loss and the curves of its runs, for every loss that has some."""
    for place, loss in enumerate(comparison.losses):
        curves = [curve for (name, _, _), curve in by_run.items() if name == loss]
        if curves:
            yield place, loss, np.stack(curves)


def _summary(curves: Float64s) -> tuple[Float64s, Float64s]:
    """Return mean and standard deviation over the runs with a value; NaN where no run has one, or one alone."""
    known = ~np.isnan(curves)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, curves, 0).sum(axis=0) / count
        squares = np.where(known, np.square(curves - mean), 0).sum(axis=0)
        deviation = np.where(count > 1, np.sqrt(squares / (count - 1)), math.nan)
    return mean, deviation


def _draw(
    axes: Axes, x: Float64s, mean: Float64s, deviation: Float64s, colour: str, line: str, loss: str | None, **style: Any
) -> None:
    known = ~(np.isnan(x) | np.isnan(mean))
    label = None if loss is None else label_of(loss)
    axes.plot(x[known], mean[known], line, color=colour, linewidth=1.4, label=label, **style)
    low, high = np.clip(mean - deviation, 0, 1), np.clip(mean + deviation, 0, 1)
    axes.fill_between(x[known], low[known], high[known], color=colour, alpha=0.12, linewidth=0)


def _table(loss: str, columns: Mapping[str, Float64s], mean: Float64s, deviation: Float64s, name: str) -> pd.DataFrame:
    return pd.DataFrame({"loss": loss, **columns, name: mean, "standard_deviation": deviation})
