"""Whether the order of the losses changes between networks, in words and as tables."""

import math
from collections.abc import Sequence

import pandas as pd

from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.orders import Orders, PairOrder
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Shade, Table
from voxloss.report.tables.scores import interval_text
from voxloss.report.tables.verdict import difference_interval
from voxloss.utilities.text import count_of

NAMED = 3  # pairs that a sentence names
WORDS = {
    "same": "same order",
    "changes": "order changes",
    "size changes": "size changes",
    "open": "not distinguishable",
}


def order_sentence(orders: Orders) -> str:
    """Say whether the order of the losses changes between the networks."""
    changed, same = ([pair for pair in orders.pairs if pair.order == kind] for kind in ("changes", "same"))
    if changed:
        named = "; ".join(_reversal(orders, pair) for pair in changed[:NAMED])
        return f"The order of the losses changes clearly between the networks: {named}{_more(changed)}."
    if len(same) == len(orders.pairs):
        where = "" if len(same) == 1 else "in every pair "
        return f"The order of the losses is the same with every network: {where}the same loss is clearly better."
    if same:
        return (
            f"The order is clearly the same with every network for {len(same)} of {count_of(len(orders.pairs), 'pair')}"
            " of losses; for the others this number of runs cannot tell."
        )
    return "This number of runs cannot tell whether the order of the losses changes between the networks."


def order_details(orders: Orders) -> tuple[str, ...]:
    """Return the sentences that follow: differences that change in size, what could be detected, rank correlations."""
    sentences = []
    sized = [pair for pair in orders.pairs if pair.order == "size changes"]
    if sized:
        pairs = "; ".join(f"{loss_name(pair.loss)} and {loss_name(pair.other)}" for pair in sized[:NAMED])
        sentences.append(
            f"The difference clearly changes in size, but not clearly in its direction, for {pairs}{_more(sized)}."
        )
    if not math.isinf(orders.detectable):
        sentences.append(f"This study could only detect changes of a difference above about {orders.detectable:.3f}.")
    known = [
        f"{value:.2f} ({first} and {second})"
        for (first, second), value in orders.correlations.items()
        if not math.isnan(value)
    ]
    if known:
        sentences.append(f"Kendall's rank correlation of the means, without a test: {', '.join(known)}.")
    return tuple(sentences)


def means_frame(orders: Orders) -> pd.DataFrame:
    """Return the means of the losses with every network, and whether each may be the best: a row per both."""
    return pd.DataFrame(
        [
            {"network": network, "loss": loss, "mean": mean, "may_be_best": loss in verdict.may_be_best}
            for network, means, verdict in zip(orders.networks, orders.means, orders.verdicts, strict=True)
            for loss, mean in zip(orders.losses, means, strict=True)
        ]
    )


def means_table(orders: Orders, class_name: str, metric: str, losses: Sequence[str]) -> Table:
    """Return the means of some losses with every network, and which of them may be the best."""
    rows = []
    for place, loss in enumerate(orders.losses):
        if loss in losses:
            cells = [Cell(loss_name(loss))]
            for means, verdict in zip(orders.means, orders.verdicts, strict=True):
                may = "yes" if loss in verdict.may_be_best else "no"
                cells += [Cell(f"{means[place]:.3f}", bold=loss == verdict.losses[0]), Cell(may)]
            rows.append(tuple(cells))
    return Table(
        title=f"{metric_name(metric)} of {class_name} with every network",
        caption=f"Means over the folds of the {count_of(orders.n_cases, 'case')} and "
        f"{count_of(orders.n_seeds, 'seed')} that all networks and losses have; a network's own page may show more. "
        "Bold: the best mean with a network.",
        header=("Loss", *("Mean", "May be best") * len(orders.networks)),
        groups=tuple((network, 2) for network in orders.networks),
        rows=tuple(rows),
    )


def order_table(orders: Orders, class_name: str, metric: str, losses: Sequence[str]) -> Table:
    """Return the differences of every two of some losses with every network, and whether their order changes."""
    two = len(orders.networks) == 2
    rows = []
    for pair in orders.pairs:
        if not {pair.loss, pair.other} <= set(losses):
            continue
        cells = [Cell(f"{loss_name(pair.loss)} − {loss_name(pair.other)}")]
        for difference, half_width, clear in zip(pair.differences, pair.half_widths, pair.clear, strict=True):
            shade: Shade = "" if not clear else "positive" if difference > 0 else "negative"
            ends = difference_interval(difference, half_width, metric)
            cells.append(Cell(interval_text(difference, half_width, *ends), shade=shade))
        if two:
            cells.append(_change_cell(orders, pair, metric))
        cells.append(Cell(WORDS[pair.order], bold=pair.order == "changes"))
        rows.append(tuple(cells))
    changes = (
        "Change: the first network's difference minus the second's, bold where its interval excludes 0."
        if two
        else "The changes between every two networks, with their intervals, are in the CSV file."
    )
    return Table(
        title=f"Does the order change? {metric_name(metric)} of {class_name}",
        caption="A row is two losses, first the one with the better mean over the networks: their difference with "
        "every network, above 0 where the first is better, with its simultaneous 95 % interval; coloured where this "
        f"excludes 0. {changes} Same order: with every network the same loss is clearly better. Order changes: a loss "
        "is clearly better with one network and clearly worse with another, and the interval of the change between "
        "these two excludes 0. Size changes: the interval of a change excludes 0, but no change of order is shown. "
        "Not distinguishable: none of these is shown. All intervals of changes hold at once in 95 % of studies.",
        header=("Losses", *orders.networks, *(("Change",) if two else ()), "Result"),
        rows=tuple(rows),
    )


def _change_cell(orders: Orders, pair: PairOrder, metric: str) -> Cell:
    changes = orders.changes
    row = changes[(changes["loss"] == pair.loss) & (changes["other"] == pair.other)].iloc[0]
    limit = 2 * metric_of(metric).largest_difference
    low, high = max(-limit, row["change"] - row["half_width"]), min(limit, row["change"] + row["half_width"])
    return Cell(interval_text(row["change"], row["half_width"], low, high), bold=bool(row["differ"]))


def _reversal(orders: Orders, pair: PairOrder) -> str:
    """Say with which networks a loss is better and worse than another: those of the largest clear differences."""
    places = range(len(orders.networks))
    best = max(places, key=lambda place: pair.differences[place] * pair.clear[place])
    worst = min(places, key=lambda place: pair.differences[place] * pair.clear[place])
    return (
        f"{loss_name(pair.loss)} is better than {loss_name(pair.other)} with {orders.networks[best]} and worse with "
        f"{orders.networks[worst]}"
    )


def _more(pairs: Sequence[PairOrder]) -> str:
    return f"; and {count_of(len(pairs) - NAMED, 'more pair')}" if len(pairs) > NAMED else ""
