"""Whether the order of the losses is the same with several networks.

A pair of losses has a difference with every network. Whether the difference is another one with another network is the
interaction of loss and network, a difference of differences, which is judged on the same cases, folds and seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.scores import common_scores
from voxloss.evaluation.verdict import RESOLUTION, Verdict, case_table, judge, of_some
from voxloss.utilities.arrays import Float64s, Integers

Order = Literal["same", "changes", "size changes", "open"]

CHANGE_COLUMNS = (
    "loss", "other", "network", "other_network", "difference", "other_difference", "change", "half_width", "differ",
)  # fmt: skip


@dataclass(frozen=True)
class PairOrder:
    """Two losses with all networks.

    Args:
        loss: The loss that is better by the mean over the networks.
        other: The other one.
        differences: With every network, by how much the loss is better than the other; below 0 where it is worse.
        half_widths: With every network, that of the simultaneous interval of the difference (`judge`).
        clear: With every network, whether that interval excludes 0.
        order: "same": one of the two is clearly better with every network, and the same one. "changes": one is clearly
            better with a network and clearly worse with another one, and the interval of the change between these two
            networks excludes 0. "size changes": the interval of a change excludes 0, but the order is not shown to
            change. "open": none of these is shown.
    """

    loss: str
    other: str
    differences: tuple[float, ...]
    half_widths: tuple[float, ...]
    clear: tuple[bool, ...]
    order: Order


@dataclass(frozen=True)
class Orders:
    """The order of the losses with every network.

    Args:
        networks: The networks, in the given order.
        losses: The losses, the best by the mean over the networks first.
        means: The losses' means with every network, of shape (networks, losses): the means over the folds' means over
            their cases, seeds averaged.
        verdicts: The verdict of every network on these cases.
        pairs: Every two losses.
        changes: A row per two losses and two networks: the differences of the losses (`loss` minus `other`, above 0
            where `loss` is better) with the two networks, the change (the first minus the second), the half width of
            its interval, which holds for all rows at once in 95 % of studies, and whether it excludes 0.
        detectable: The true change that these intervals exclude with a probability of 80 %, averaged over pairs of
            losses (`Verdict.detectable`); of the two networks for which it is largest.
        correlations: For every two networks Kendall's rank correlation of the losses' means; NaN for equal means.
        n_cases: Number of cases that all networks and losses have.
        n_folds: Number of folds.
        n_seeds: Number of seeds.
    """

    networks: tuple[str, ...]
    losses: tuple[str, ...]
    means: Float64s
    verdicts: tuple[Verdict, ...]
    pairs: tuple[PairOrder, ...]
    changes: pd.DataFrame
    detectable: float
    correlations: dict[tuple[str, str], float]
    n_cases: int
    n_folds: int
    n_seeds: int


def orders(scores: Mapping[str, pd.DataFrame], class_name: str, metric: str) -> Orders | None:
    """Compare the order of the losses between networks by a class and a metric.

    Args:
        scores: For every network a table as of `read_scores`, of the same folds. Losses, cases and seeds that not every
            network has are left out.
        class_name: The class.
        metric: The metric, of which every prediction has a finite value (`verdict`).

    Returns:
        The orders (`judge_orders`); None if there are fewer than two networks or losses in common, or no case has a
        value for all.
    """
    shared = set.intersection(*(set(table["loss"]) for table in scores.values())) if scores else set()
    losses = [loss for loss in dict.fromkeys(next(iter(scores.values()))["loss"]) if loss in shared] if scores else []
    if len(scores) < 2 or len(losses) < 2:
        return None
    names = {(network, loss): f"{place}/{loss}" for place, network in enumerate(scores) for loss in losses}
    parts = [
        table.loc[table["loss"].isin(losses)].assign(
            loss=lambda rows, network=network: [names[network, loss] for loss in rows["loss"]]
        )
        for network, table in scores.items()
    ]
    found = case_table(common_scores(pd.concat(parts, ignore_index=True)), class_name, metric)
    if found is None or len(found[0].columns) < len(names):
        return None
    table, folds, n_seeds = found
    values = table[list(names.values())].to_numpy(dtype=float).reshape(len(table), len(scores), len(losses))
    better = metric_of(metric).higher_is_better
    return judge_orders(values, folds, list(scores), losses, n_seeds, higher_is_better=better)


def judge_orders(
    values: Float64s,
    folds: Integers,
    networks: Sequence[str],
    losses: Sequence[str],
    n_seeds: int,
    *,
    higher_is_better: bool = True,
) -> Orders:
    """Compare the order of losses between networks by their case scores.

    With d_ija the difference of the losses i and j with network a, the change of the pair between the networks a and b
    is d_ija - d_ijb. It equals the difference of the losses i and j in what every loss gains by network a over network
    b. So the changes between two networks are judged as losses are (`judge`), by the cases' differences between the
    two networks, on the same cases, folds and seeds: what a case, a fold or a loss has in common with both networks
    cancels, every loss has a variance of its own, and the intervals of all pairs of losses are simultaneous. With more
    than two networks the levels are divided by the number of pairs of networks.

    Args:
        values: Scores, of shape (cases, networks, losses), averaged over seeds, finite.
        folds: The fold of each case, from 0 on, of shape (cases,).
        networks: At least two names.
        losses: At least two names.
        n_seeds: The number of seeds that were averaged.
        higher_is_better: Whether larger values are better.
    """
    sign = 1 if higher_is_better else -1
    verdicts = [
        judge(values[:, place], folds, losses, n_seeds, higher_is_better=higher_is_better)
        for place in range(len(networks))
    ]
    means = np.array([[dict(zip(one.losses, one.means, strict=True))[loss] for loss in losses] for one in verdicts])
    order = np.argsort(-sign * means.mean(axis=0), kind="stable")
    values, means, losses = values[:, :, order], means[:, order], [losses[place] for place in order]
    between = list(combinations(range(len(networks)), 2))
    judged = {
        (a, b): judge(values[:, a] - values[:, b], folds, losses, n_seeds, comparisons=len(between)) for a, b in between
    }
    gains = {places: _signed(one) for places, one in judged.items()}
    rows, pairs = [], []
    clear_of = [_signed(one) for one in verdicts]
    for i, j in combinations(range(len(losses)), 2):
        pair = losses[i], losses[j]
        differences = sign * (means[:, i] - means[:, j])
        clear = [bool(abs(d) > max(of[pair][1], RESOLUTION)) for d, of in zip(differences, clear_of, strict=True)]
        changed = {}
        for (a, b), of in gains.items():
            change, half_width = sign * of[pair][0], of[pair][1]
            changed[a, b] = bool(abs(change) > max(half_width, RESOLUTION))
            row = (*pair, networks[a], networks[b], differences[a], differences[b], change, half_width, changed[a, b])
            rows.append(row)
        kind = _order(differences, clear, changed)
        widths = tuple(float(of[pair][1]) for of in clear_of)
        pairs.append(PairOrder(*pair, tuple(map(float, differences)), widths, tuple(clear), kind))
    return Orders(
        networks=tuple(networks),
        losses=tuple(losses),
        means=means,
        verdicts=tuple(verdicts),
        pairs=tuple(pairs),
        changes=pd.DataFrame(rows, columns=list(CHANGE_COLUMNS)),
        detectable=max(one.detectable for one in judged.values()),
        correlations={(networks[a], networks[b]): _kendall(means[a], means[b]) for a, b in between},
        n_cases=len(values),
        n_folds=len(np.unique(folds)),
        n_seeds=n_seeds,
    )


def orders_of_some(found: Orders, losses: Collection[str]) -> Orders | None:
    """Return the orders of some of the losses, chosen afterwards: intervals and what is detectable stay those of all.

    Args:
        found: The orders of all losses.
        losses: Those to keep.

    Returns:
        Their orders; None if fewer than two of them are there.
    """
    places = [place for place, loss in enumerate(found.losses) if loss in losses]
    if len(places) < 2:
        return None
    names = tuple(found.losses[place] for place in places)
    means = dict(zip(found.networks, found.means[:, places], strict=True))
    changes = found.changes[found.changes["loss"].isin(names) & found.changes["other"].isin(names)]
    return replace(
        found,
        losses=names,
        means=found.means[:, places],
        verdicts=tuple(of_some(verdict, names) for verdict in found.verdicts),
        pairs=tuple(pair for pair in found.pairs if {pair.loss, pair.other} <= set(names)),
        changes=changes.reset_index(drop=True),
        correlations={(a, b): _kendall(means[a], means[b]) for a, b in found.correlations},
    )


def _signed(found: Verdict) -> dict[tuple[str, str], tuple[float, float]]:
    """For every two losses, in both orders, the difference of their means and its half width."""
    means = dict(zip(found.losses, found.means, strict=True))
    widths = {(row.better, row.worse): row.half_width for row in found.pairs.itertuples()}
    return {
        (one, two): (means[one] - means[two], width)
        for (first, second), width in widths.items()
        for one, two in ((first, second), (second, first))
    }


def _order(differences: Float64s, clear: Sequence[bool], changed: Mapping[tuple[int, int], bool]) -> Order:
    if all(clear) and len(set(np.sign(differences))) == 1:
        return "same"
    if any(
        changes and clear[a] and clear[b] and differences[a] * differences[b] < 0 for (a, b), changes in changed.items()
    ):
        return "changes"
    return "size changes" if any(changed.values()) else "open"


def _kendall(first: Float64s, second: Float64s) -> float:
    return float(stats.kendalltau(first, second).statistic)
