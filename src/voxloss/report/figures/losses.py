"""Figures of the losses themselves, like the paper's Figures 1 and 2: their relations, and their curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.figure import Figure

from voxloss.losses.curves import Cosine, Index, Power
from voxloss.report.figures.scores import LINES, PALETTE, STYLE, FigureFile, save_figure
from voxloss.report.names import SYMBOLS, loss_titles

FAMILIES = {
    "Distribution": ("cross_entropy", "focal"),
    "Compound": ("combo", "modified_combo", "dice_cross_entropy", "mixed_focal"),
    "Region": ("dice", "tversky", "focal_tversky", "cosine_tversky"),
}


@dataclass(frozen=True)
class Edge:
    """`general` with `setting` is the loss `special` (with its own `special_setting`), or has it as a term."""

    general: str
    special: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    special_setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The setting in symbols; empty for a term of a sum."""
        return ", ".join(f"{SYMBOLS.get(name, name)} = {_short(value)}" for name, value in self.setting.items())


# Each with a setting is an identity that the tests check on random logits.
EDGES = (
    Edge("focal", "cross_entropy", {"alpha": 1.0, "gamma": 0.0}),
    Edge("tversky", "dice", {"delta": 0.5}),
    Edge("focal_tversky", "tversky", {"gamma": 1.0}),
    Edge("cosine_tversky", "tversky"),
    Edge("combo", "cross_entropy"),
    Edge("combo", "dice"),
    Edge("modified_combo", "tversky", {"alpha": 0.0}, {"delta": 0.5}),
    Edge("modified_combo", "cross_entropy", {"alpha": 1.0, "beta": None}),
    Edge("dice_cross_entropy", "cross_entropy"),
    Edge("dice_cross_entropy", "dice"),
    Edge("mixed_focal", "focal", {"weight": 1.0}),
    Edge("mixed_focal", "focal_tversky", {"weight": 0.0}),
)


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:g}"


def family_figure(folder: Path) -> FigureFile:
    """Draw the losses by family, with an arrow from each to the losses that it contains (Figure 1)."""
    columns = {"Distribution": 0.0, "Compound": 1.0, "Region": 2.0}
    colours = dict(zip(columns, PALETTE, strict=False))
    place, family_of, titles = {}, {}, loss_titles()
    for family, names in FAMILIES.items():
        for row, name in enumerate(names):
            place[name] = (columns[family], -(row + 0.5) * 4 / len(names))
            family_of[name] = family
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        axes = figure.subplots()
        boxes = {}
        for name, (x, y) in place.items():
            box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": colours[family_of[name]], "lw": 1.4}
            label = axes.text(x, y, titles[name], ha="center", va="center", fontsize=8.5, bbox=box, zorder=3)
            boxes[name] = label.get_bbox_patch()
        axes.set_xlim(-0.5, 2.5)
        axes.set_ylim(-4.1, 0.5)
        axes.set_axis_off()
        figure.draw_without_rendering()  # arrows end at boxes, which have a size once they have been drawn
        for edge in EDGES:
            start, end = place[edge.general], place[edge.special]
            same = start[0] == end[0]
            bend = "arc3,rad=0.35" if same and abs(start[1] - end[1]) > 1.2 else "arc3,rad=0"
            axes.annotate(
                "", xy=end, xytext=start,
                arrowprops={
                    "arrowstyle": "-|>", "color": "0.45", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 2,
                    "patchA": boxes[edge.general], "patchB": boxes[edge.special],
                    "linestyle": "-" if edge.setting else (0, (3, 2)), "connectionstyle": bend,
                },
            )  # fmt: skip
            if edge.label:
                along = 0.5 if same else 0.62
                x, y = (a + (b - a) * along for a, b in zip(start, end, strict=True))
                axes.text(x, y, edge.label, fontsize=6.5, ha="center", va="center", color="0.25",
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        for family, x in columns.items():
            text = f"{family}-based" if family != "Compound" else family
            axes.text(x, 0.25, text, ha="center", fontsize=9, weight="bold", color=colours[family])
        caption = (
            "An arrow leads from a loss to a loss that it contains: solid, at the setting written on it; dashed, as a "
            "term or as the index that it uses. All other parameters are equal on both sides."
        )
        table = pd.DataFrame(
            [
                (edge.general, edge.special, edge.label, family_of[edge.general], family_of[edge.special])
                for edge in EDGES
            ],
            columns=["general", "special", "setting", "general_family", "special_family"],
        )
        return save_figure(figure, folder, "losses_graph", "Which loss generalises which", caption, table)


CURVES = (
    ("focal", "Focal loss", "Probability of the true class", (0.0, 0.5, 1.0, 2.0, 5.0)),
    ("focal_tversky", "Focal Tversky loss", "Tversky index", (1.0, 4 / 3, 2.0, 3.0)),
    ("cosine_tversky", "Cosine Tversky loss", "Tversky index", (0.5, 1.0, 2.0, 3.0)),
)


def curve_values(name: str, x: Any, gamma: float) -> Any:
    """Return a loss as a function of one variable in [0, 1]: the true class's probability, or a class's Tversky index.

    Args:
        name: "focal" (α = 1), "focal_tversky" or "cosine_tversky".
        x: float64 tensor.
        gamma: As published: the exponent of focal and cosine Tversky, its inverse for focal Tversky.
    """
    if name == "focal":
        return (1 - x) ** gamma * -torch.log(x)
    if name == "focal_tversky":
        return Power(1 / gamma)(Index(x, 1 - x))
    return Cosine(gamma)(Index(x, 1 - x))


def curves_of_losses_figure(folder: Path) -> FigureFile:
    """Draw focal, focal Tversky and cosine Tversky loss against their variable, for several γ (Figure 2)."""
    x = torch.linspace(0.005, 1, 200, dtype=torch.float64)
    parts = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.9), layout="constrained")
        for axes, (name, title, label, gammas) in zip(figure.subplots(1, 3), CURVES, strict=True):
            for place, gamma in enumerate(gammas):
                values = curve_values(name, x, gamma)
                parts.append(pd.DataFrame({"loss": name, "gamma": gamma, "x": x.numpy(), "value": values.numpy()}))
                line = LINES[place % len(LINES)]
                axes.plot(x, values, line, color=PALETTE[place], lw=1.4, label=f"γ = {gamma:.3g}")
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(label)
            axes.set_ylim(0, 4 if name == "focal" else 1.02)
            axes.set_xlim(0, 1)
            axes.legend(frameon=False, fontsize=7)
            axes.grid(color="0.92", linewidth=0.8)
        caption = (
            "One voxel's focal loss (α = 1; γ = 0 is the cross entropy) and one class's focal and cosine Tversky loss. "
            "γ is written as published: the exponent of the focal and the cosine Tversky loss, 1/γ that of the "
            "focal Tversky loss."
        )
        return save_figure(figure, folder, "losses_curves", "The losses' curves", caption, pd.concat(parts))
