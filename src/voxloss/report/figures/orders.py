"""The means of the losses with every network: lines that cross show where their order may change."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from voxloss.evaluation.orders import Orders
from voxloss.report.figures.charts import MARKERS
from voxloss.report.figures.labels import label_of
from voxloss.report.figures.scores import STYLE, FigureFile, loss_colour, save_figure
from voxloss.report.names import metric_name
from voxloss.report.tables.orders import means_frame

LONGEST = 18  # characters of a network's name on the axis


def orders_figure(
    orders: Orders, losses: Sequence[str], class_name: str, metric: str, name: str, folder: Path
) -> FigureFile:
    """Draw the mean of every loss with every network, a line per loss.

    Args:
        orders: The orders.
        losses: The losses to show, in the study's order, which decides their colours.
        class_name: The class.
        metric: The metric.
        name: Of the files.
        folder: Where they are written.
    """
    table = means_frame(orders)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 + 1.1 * len(orders.networks), 3.4), layout="constrained")
        axes = figure.subplots()
        for place, loss in enumerate(losses):
            means = table.loc[table["loss"] == loss, "mean"]
            colour, line = loss_colour(place)
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(range(len(means)), means, line, color=colour, marker=marker, ms=5, label=label_of(loss))
        axes.set_xticks(range(len(orders.networks)), [_short(network) for network in orders.networks])
        axes.set_xlim(-0.25, len(orders.networks) - 0.75)
        axes.set_ylabel(f"Mean {metric_name(metric)} of {class_name}")
        figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
        caption = (
            "Means of the table. Lines that cross are not yet a change of the order: the table says which are clear."
        )
        title = f"Mean {metric_name(metric)} of {class_name} with every network"
        return save_figure(figure, folder, name, title, caption, table[table["loss"].isin(losses)])


def _short(network: str) -> str:
    return network if len(network) <= LONGEST else f"{network[: LONGEST - 1]}…"
