"""The verdict in words and as a table."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from voxloss.evaluation.effects import Friedman
from voxloss.evaluation.verdict import Verdict
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Table
from voxloss.report.tables.scores import p_text
from voxloss.utilities.text import count_of

NAMED = 3  # losses that a sentence names of the first tier, and of the others


def verdict_sentence(verdict: Verdict, class_name: str, metric: str) -> str:
    """Say which losses lead, how certain that is, and which differences the study could detect."""
    measure = f"mean {metric_name(metric)} of {class_name}"
    best, top, count = verdict.losses[0], verdict.tiers[0], len(verdict.losses)
    lead = f"{loss_name(best)} has the highest {measure}, {verdict.means[0]:.3f}"
    if verdict.n_folds < 2 or math.isnan(verdict.detectable):
        return f"{lead}, but the study has too few folds and cases to judge any difference between losses."
    limit = f"this study could only detect differences above about {verdict.detectable:.3f}"
    if len(top) == count:
        if verdict.pairs["same"].all():
            every = "Both losses" if count == 2 else f"All {count} losses"
            return f"{every} are equivalent (within {verdict.margin:g}) in {measure}, about {verdict.means[0]:.3f}."
        others = "the other loss" if count == 2 else f"any of the {count - 1} others"
        return f"{lead}, but it is not distinguishable from {others}: {limit}."
    if len(top) == 1:
        others = "the other loss" if count == 2 else f"each of the {count - 1} others"
        row = _between(verdict, best, verdict.losses[1])
        gap = f"by {row.difference:.3f} ± {row.half_width:.3f}{'' if count == 2 else ' for the next'}"
        return f"{lead}, and is clearly better than {others} ({gap}, simultaneous 95 % interval)."
    worse = [loss for loss in verdict.losses if loss not in top]
    verb = "is" if len(worse) == 1 else "are"
    return f"{lead}; it is not distinguishable from {_names(top[1:])}. {_names(worse)} {verb} clearly worse; {limit}."


def verdict_table(
    verdict: Verdict,
    class_name: str,
    metric: str,
    effects: pd.DataFrame | None = None,
    friedman: Friedman | None = None,
    parts: dict[str, float] | None = None,
) -> Table:
    """Return the verdict as a table with a row per loss, the best first: its tier, mean and distance to the best.

    Args:
        verdict: The verdict on this class and metric.
        class_name: The class.
        metric: The metric.
        effects: `paired_effects` of this class and metric; adds the median difference over the cases and the share of
            cases on which the loss beats the best one.
        friedman: Friedman's test of this class and metric, for the caption.
        parts: `variance_parts` of this class and metric, for the caption.
    """
    best = verdict.losses[0]
    tier_of = {loss: str(number) for number, tier in enumerate(verdict.tiers, start=1) for loss in tier}
    rows = []
    for loss, mean in zip(verdict.losses, verdict.means, strict=True):
        cells = [Cell(loss_name(loss), bold=loss == best), Cell(tier_of[loss])]
        if loss == best:
            cells += [Cell("best mean"), Cell(f"{mean:.3f}"), *[Cell("–")] * (1 if effects is None else 3)]
        else:
            row = _between(verdict, best, loss)
            meaning = "clearly worse" if row.differ else "equivalent" if row.same else "not distinguishable"
            cells.append(Cell(meaning, shade="negative", strong=True) if row.differ else Cell(meaning))
            width = f" ± {row.half_width:.3f}" if math.isfinite(row.half_width) else ""
            cells += [Cell(f"{mean:.3f}"), Cell(f"{row.difference:.3f}{width}")]
            if effects is not None:
                cells += _effect_cells(effects, best, loss)
        rows.append(tuple(cells))
    by_case = () if effects is None else ("Median by case", "Better on")
    return Table(
        title=f"Verdict: {metric_name(metric)} of {class_name}",
        caption=_caption(verdict, effects is not None, friedman, parts),
        header=("Loss", "Tier", "Result", "Mean", "Difference from the best", *by_case),
        rows=tuple(rows),
    )


def _effect_cells(effects: pd.DataFrame, best: str, loss: str) -> list[Cell]:
    """Cells with the median difference from the best loss, and the share of cases on which this loss beats it."""
    forward = effects[(effects["row"] == best) & (effects["column"] == loss)]
    backward = effects[(effects["row"] == loss) & (effects["column"] == best)]
    if len(forward):
        row = next(forward.itertuples())
        median, low, high, better = row.median, row.low, row.high, 1 - row.superiority
    else:
        row = next(backward.itertuples())
        median, low, high, better = -row.median, -row.high, -row.low, row.superiority
    interval = f" ({low + 0.0:.3f} to {high + 0.0:.3f})" if math.isfinite(low) else ""
    return [Cell(f"{median + 0.0:.3f}{interval}"), Cell(f"{better:.0%}")]


def stability_table(stability: pd.DataFrame, class_name: str, metric: str) -> Table:
    """Return a table of how often each loss has each rank, in per cent."""
    places = [column for column in stability.columns if column not in ("loss", "mean_rank")]
    rows = []
    for row in stability.to_dict("records"):
        shares = [row[place] for place in places]
        cells = [
            Cell(f"{share:.0%}" if share else "", bold=share == max(shares), shade="positive" if share >= 0.05 else "",
                 strong=share >= 0.5)
            for share in shares
        ]  # fmt: skip
        rows.append((Cell(loss_name(row["loss"])), Cell(f"{row['mean_rank']:.1f}"), *cells))
    return Table(
        title=f"Stability of the ranking: {metric_name(metric)} of {class_name}",
        caption=(
            "How often a loss has each rank in bootstrap resamples of folds and cases; equal losses share the better "
            "rank."
        ),
        header=("Loss", "Mean rank", *places),
        rows=tuple(rows),
    )


def _caption(verdict: Verdict, with_effects: bool, friedman: Friedman | None, parts: dict[str, float] | None) -> str:
    basis = ", ".join(
        count_of(number, noun)
        for number, noun in ((verdict.n_cases, "case"), (verdict.n_folds, "fold"), (verdict.n_seeds, "seed"))
    )
    text = (
        f"Based on {basis} and a model of case, fold and run. The intervals are simultaneous 95 % intervals: the "
        "chance of one or more false differences is about 5 %. The losses of a tier are not distinguishable from its "
        "first loss; all losses of the next tier are clearly worse than it. The difference from the best is the best "
        f"mean minus the loss's mean. Equivalent: within {verdict.margin:g}."
    )
    if math.isfinite(verdict.detectable):
        text += f" This study detects a difference of {verdict.detectable:.3f} with a probability of 80 %."
    if math.isfinite(verdict.case_sd):
        text += (
            f" Standard deviations: {verdict.case_sd:.3f} of a loss's score of a case, {verdict.run_sd:.3f} of a run's "
            "mean."
        )
    if with_effects:
        text += (
            " Median by case: the median of the paired differences, with a distribution-free 95 % interval. Better on: "
            "the share of cases on which the loss beats the best one."
        )
    if friedman is not None and math.isfinite(friedman.p):
        text += (
            f" Friedman's test over {count_of(friedman.n, 'case')}: p = {p_text(friedman.p)}, Kendall's W = "
            f"{friedman.kendall_w:.2f}."
        )
    if parts is not None:
        text += f" Standard deviations between runs: {', '.join(f'{name} {part:.3f}' for name, part in parts.items())}."
    return text


def _between(verdict: Verdict, better: str, worse: str) -> Any:
    """Return the row of `Verdict.pairs` about two losses, its columns as attributes."""
    pairs = verdict.pairs
    return next(pairs[(pairs["better"] == better) & (pairs["worse"] == worse)].itertuples())


def _names(losses: Sequence[str]) -> str:
    names = [loss_name(loss) for loss in losses]
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
