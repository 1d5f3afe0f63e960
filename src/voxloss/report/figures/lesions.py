"""The lesion view: every lesion a mark, by its volume and whether a loss found it."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from voxloss.evaluation.lesion_list import KINDS, read_lesions
from voxloss.report.comparison import Comparison
from voxloss.report.figures.charts import round_numbers
from voxloss.report.figures.labels import label_of, row_inches
from voxloss.report.figures.scores import PALETTE, STYLE, FigureFile, save_figure
from voxloss.report.record import StudyRecord

LANES = {"found": (-0.22, "o", PALETTE[0]), "missed": (0.0, "x", PALETTE[1]), "invented": (0.22, "+", "0.45")}


def lesions_of_losses(record: StudyRecord, comparison: Comparison) -> pd.DataFrame | None:
    """Return the lesions of every loss's runs with the first seed, with a column `loss`; None if a run has no list.

    Raises:
        InputError: A list is damaged.
    """
    seed, cases = record.shown_seed, set(comparison.scores["case"])
    parts = []
    for status in record.runs:
        if status.seed == seed and status.loss in comparison.losses and status.state == "done":
            file = record.study.run_folder(status.run).lesions_file
            if not file.is_file():
                return None
            own = read_lesions(file)
            parts.append(own[own["case"].isin(cases)].assign(loss=status.loss))
    return pd.concat(parts, ignore_index=True) if parts else None


def lesions_figure(
    comparison: Comparison, lesions: pd.DataFrame, class_name: str, name: str, folder: Path
) -> FigureFile | None:
    """Draw the lesions of a class by volume, found, missed and invented apart; None without any."""
    table = lesions[lesions["class"] == class_name]
    if table.empty:
        return None
    random = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(7.2, 0.9 + row_inches(comparison.losses, 0.55) * len(comparison.losses)), layout="constrained"
        )
        axes = figure.subplots()
        for place, loss in enumerate(comparison.losses):
            own = table[table["loss"] == loss]
            for kind, (shift, marker, colour) in LANES.items():
                volumes = own.loc[own["kind"] == kind, "volume_ml"]
                heights = place + shift + random.uniform(-0.07, 0.07, len(volumes))
                label = kind if place == 0 else None
                axes.scatter(
                    volumes, heights, s=14, marker=marker, color=colour, alpha=0.6, linewidths=0.9, label=label
                )
            counts = ", ".join(f"{(own['kind'] == kind).sum()} {kind}" for kind in KINDS)
            axes.text(1.01, place, counts, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
        axes.set_yticks(range(len(comparison.losses)), [label_of(loss) for loss in comparison.losses])
        axes.set_ylim(len(comparison.losses) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xscale("log")
        ticks = round_numbers(*axes.get_xlim())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(
            f"{comparison.units.extent.capitalize()} of the lesion of {class_name}, {comparison.units.size}"
        )
        figure.legend(loc="outside upper center", ncols=len(KINDS), frameon=False, fontsize=7.5)
        caption = (
            "Every lesion a mark: those of the reference that were found or missed, and predicted ones that match "
            "nothing, by the rules of the scores of lesions. Predictions of the first seed."
        )
        data = table[["loss", *(column for column in table if column != "loss")]]
        data = data.rename(columns={"volume_ml": comparison.units.column})
        return save_figure(figure, folder, name, f"Lesions of {class_name}", caption, data)
