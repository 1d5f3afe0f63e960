"""Figures of a search for settings: the score against its budget, and the response of each loss to its settings."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxloss.config.losses import LossChoice
from voxloss.config.tuning import LEARNING_RATE, Dimension, Range, number_text
from voxloss.report.figures.scores import PALETTE, STYLE, FigureFile, loss_colour, save_figure
from voxloss.report.names import loss_name
from voxloss.report.tables.tuning import parameter_name
from voxloss.report.tuning import TuningResults, best_so_far
from voxloss.utilities.arrays import Float64s

SLICES = 6  # panels of a figure; the table has every value
GRID = 41  # points along each axis of a smoothed surface
REACH = 0.15  # standard deviation of the smoothing, as a share of the searched range
SCORE = "Mean foreground Dice on inner cases"


def budget_figure(results: TuningResults, folder: Path) -> FigureFile | None:
    """Draw the best score on inner cases against the number of trials; None before a search is finished."""
    table = best_so_far(results)
    if table.empty:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.3), layout="constrained")
        axes = figure.subplots()
        for place, loss in enumerate(results.losses):
            own = table[(table["loss"] == loss.key) & np.isfinite(table["best"])]
            colour, line = loss_colour(place)
            axes.plot(own["trials"], own["best"], line, color=colour, marker=".", lw=1.4, label=loss_name(loss.key))
        axes.set_xlabel("Trials")
        axes.set_ylabel("Best Dice on inner cases so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.92", linewidth=0.8)
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        order = "expected over all orders of the grid" if results.tuning.grid else "in the order of the trials"
        caption = (
            f"The best mean foreground Dice on inner cases among the first trials, {order}, averaged over the folds. "
            "The best of many trials is too high for new cases; the table compares both settings on scored cases."
        )
        return save_figure(figure, folder, "tuning_budget", "Score against tuning budget", caption, table)


def response_figure(results: TuningResults, loss: LossChoice, name: str, folder: Path) -> FigureFile | None:
    """Draw the score of the trials of a loss over what was searched, as slices of two dimensions where there are more.

    Args:
        results: The searches.
        loss: The loss as listed.
        name: Name of the files.
        folder: Where they are written.

    Returns:
        The figure; None before a trial has a score.
    """
    trials, space = results.of_loss(loss), results.space(loss)
    scored = trials[trials["value"].notna()].copy()
    if scored.empty:
        return None
    # Folds differ in how hard their inner cases are, which is no response to a setting.
    centred = scored["value"] - scored.groupby("fold")["value"].transform("mean") + scored["value"].mean()
    scored.insert(scored.columns.get_loc("value") + 1, "centred", centred)
    pruned = trials[trials["state"] == "pruned"]
    title = f"Response of {loss_name(loss.key)}"
    with mpl.rc_context(STYLE):
        if len(space) == 1:
            (dimension,) = space
            figure = Figure(figsize=(4.8, 3.2), layout="constrained")
            _draw_line(figure.subplots(), scored, pruned, dimension, space[dimension])
            caption = (
                f"{SCORE}, a dot per trial, coloured by fold; ring: chosen; cross: stopped early. Line: mean over the "
                "folds, smoothed where their trials differ."
            )
        else:
            pairs = list(itertools.combinations(space, 2))
            figure = _draw_slices(scored, pruned, space, pairs[:SLICES])
            caption = (
                f"{SCORE} over each pair of searched values, whatever the others are. A dot per trial, with the fold's "
                "mean replaced by that of all folds; ring: chosen; cross: stopped early. Ground: the dots, smoothed, "
                "where there are some."
            )
            if len(pairs) > SLICES:
                caption += f" The first {SLICES} of {len(pairs)} pairs are drawn; the CSV file has all trials."
        return save_figure(figure, folder, name, title, caption, pd.concat([scored, pruned], ignore_index=True))


def _draw_line(axes: Axes, scored: pd.DataFrame, pruned: pd.DataFrame, name: str, dimension: Dimension) -> None:
    scale = _Scale(name, dimension)
    for place, (_, own) in enumerate(scored.groupby("fold")):
        axes.scatter(scale(own[name]), own["value"], s=18, color=PALETTE[place % len(PALETTE)], alpha=0.8, linewidths=0)
    chosen = scored[scored["chosen"]]
    axes.scatter(scale(chosen[name]), chosen["value"], s=70, facecolors="none", edgecolors="0.2", linewidths=1.1)
    if isinstance(dimension, Range):
        x = np.linspace(0, 1, 5 * GRID)
        y, weight = smoothed([x], [scale(scored[name])], scored["centred"].to_numpy(dtype=float))
        axes.plot(np.where(weight > math.exp(-2), x, np.nan), y, color="0.35", linewidth=1.2, zorder=0)
    else:
        means = scored.assign(place=scale(scored[name])).groupby("place")["centred"].mean()
        axes.plot(means.index, means, color="0.35", linewidth=1.2, zorder=0)
    if len(pruned):
        axes.plot(scale(pruned[name]), [0.02] * len(pruned), "x", color="0.5", transform=axes.get_xaxis_transform())
    axes.set_xlabel(parameter_name(name))
    axes.set_ylabel(SCORE)
    scale.label(axes.xaxis)
    axes.set_xlim(-0.06, 1.06)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_slices(
    scored: pd.DataFrame, pruned: pd.DataFrame, space: dict[str, Dimension], pairs: Sequence[tuple[str, str]]
) -> Figure:
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(1.0 + 2.75 * columns, 2.6 * rows + 0.2), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    values = scored["centred"].to_numpy(dtype=float)
    colours = {"cmap": "viridis", "vmin": values.min(), "vmax": max(values.max(), values.min() + 1e-6)}
    marks: Any = None
    for axes, (first, second) in zip(panels, pairs, strict=False):
        x, y = _Scale(first, space[first]), _Scale(second, space[second])
        if isinstance(space[first], Range) and isinstance(space[second], Range):
            ends = np.linspace(0, 1, GRID)
            points = np.meshgrid(ends, ends)
            surface, weight = smoothed([axis.ravel() for axis in points], [x(scored[first]), y(scored[second])], values)
            surface = np.where(weight > math.exp(-2), surface, np.nan).reshape(GRID, GRID)
            axes.imshow(surface, origin="lower", extent=(0, 1, 0, 1), aspect="auto", alpha=0.45, **colours)
        marks = axes.scatter(
            x(scored[first]), y(scored[second]), c=values, s=34, edgecolors="0.25", linewidths=0.5, zorder=3, **colours
        )
        chosen = scored[scored["chosen"]]
        axes.scatter(
            x(chosen[first]), y(chosen[second]), s=95, facecolors="none", edgecolors="#D55E00", linewidths=1.4, zorder=4
        )
        axes.plot(x(pruned[first]), y(pruned[second]), "x", color="0.45", markersize=5)
        axes.set_xlabel(parameter_name(first))
        axes.set_ylabel(parameter_name(second))
        x.label(axes.xaxis)
        y.label(axes.yaxis)
        axes.set_xlim(-0.05, 1.05)
        axes.set_ylim(-0.05, 1.05)
    for axes in panels[len(pairs) :]:
        axes.set_axis_off()
    figure.colorbar(marks, ax=panels, label="Dice on inner cases", shrink=0.9)
    return figure


class _Scale:
    """The place of a searched value between 0 and 1, so that all dimensions are drawn and smoothed alike."""

    def __init__(self, name: str, dimension: Dimension) -> None:
        self.dimension = dimension
        numbers = not isinstance(dimension, Range) and all(_is_number(value) for value in dimension.values)
        self.log = dimension.log if isinstance(dimension, Range) else numbers and name == LEARNING_RATE
        if isinstance(dimension, Range):
            self.ticks: list[Any] = _ticks(dimension)
            self.low, self.high = self._number(dimension.low), self._number(dimension.high)
        elif numbers and len(dimension.values) > 1:
            self.ticks = sorted(dimension.values)
            self.low, self.high = self._number(self.ticks[0]), self._number(self.ticks[-1])
        else:  # names, lists: in the order of the list
            self.ticks = [_hashable(value) for value in dimension.values]
            self.low, self.high = 0.0, max(1.0, len(self.ticks) - 1.0)
        self.by_name = not isinstance(dimension, Range) and not (numbers and len(dimension.values) > 1)

    def _number(self, value: Any) -> float:
        return math.log10(value) if self.log else float(value)

    def _place(self, value: Any) -> float:
        number = float(self.ticks.index(_hashable(value))) if self.by_name else self._number(value)
        return (number - self.low) / (self.high - self.low)

    def __call__(self, values: Sequence[Any]) -> Float64s:
        return np.array([self._place(value) for value in values], dtype=float)

    def label(self, axis: Any) -> None:
        axis.set_ticks([self._place(tick) for tick in self.ticks], [number_text(tick) for tick in self.ticks])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ticks(dimension: Range) -> list[Any]:
    low, high = dimension.low, dimension.high
    if not dimension.log:
        return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return powers if len(powers) > 1 else [low, high]


def smoothed(points: Sequence[Float64s], known: Sequence[Float64s], values: Float64s) -> tuple[Float64s, Float64s]:
    """Return the mean of known values around points, weighted by a Gaussian of their distance, and the largest weight.

    Args:
        points: The coordinates of the points, an array per axis.
        known: Those of the known values.
        values: The known values.
    """
    squares = sum((axis[:, None] - own[None, :]) ** 2 for axis, own in zip(points, known, strict=True))
    weights = np.exp(-squares / (2 * REACH**2))
    total = weights.sum(axis=1)
    return (weights @ values) / np.maximum(total, 1e-300), weights.max(axis=1)
