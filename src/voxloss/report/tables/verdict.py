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

NAMED = 3  # losses of the first tier that a sentence names


def verdict_sentence(verdict: Verdict, class_name: str, metric: str) -> str:
    """Which losses lead, how sure that is, and what the study could not have seen."""
    measure = f"mean {metric_name(metric)} of {class_name}"
    best, top, count = verdict.losses[0], verdict.tiers[0], len(verdict.losses)
    lead = f"{loss_name(best)} has the highest {measure}, {verdict.means[0]:.3f}"
    if verdict.n_folds < 2 or math.isnan(verdict.detectable):
        return f"{lead}, but from so few folds and cases no difference between losses can be judged."
    unseen = f"a difference below about {verdict.detectable:.3f} would probably have gone unseen"
    if len(top) == count:
        if verdict.pairs["same"].all():
            return (
                f"All {count} losses are the same within {verdict.margin:g} in {measure}, about {verdict.means[0]:.3f}."
            )
        everything = "the two losses" if count == 2 else f"any of the {count} losses"
        return f"{lead}, but no difference between {everything} is shown: {unseen}."
    if len(top) == 1:
        others = "the other loss" if count == 2 else f"each of the {count - 1} others"
        row = _between(verdict, best, verdict.losses[1])
        gap = f"by {row.difference:.3f} ± {row.half_width:.3f}{'' if count == 2 else ' for the next'}"
        return f"{lead}, and is shown to be above {others} ({gap}, simultaneous 95 % interval)."
    lower = count - len(top)
    verb = "is" if lower == 1 else "are"
    return (
        f"{lead}; it cannot be told from {_names(top[1:])}. {count_of(lower, 'loss').capitalize()} {verb} shown to be "
        f"lower; {unseen}."
    )


def verdict_table(
    verdict: Verdict,
    class_name: str,
    metric: str,
    effects: pd.DataFrame | None = None,
    friedman: Friedman | None = None,
    parts: dict[str, float] | None = None,
) -> Table:
    """A row per loss, the best first: its tier, its mean, how far it is below the best, and what that means.

    effects: `paired_effects` of this class and metric; adds the median difference over the cases and how often the loss
    does better than the best on a case. friedman and parts (`variance_parts`): are added to the caption.
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
            meaning = "lower" if row.differ else "the same" if row.same else "not told apart"
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
        header=("Loss", "Tier", "That is", "Mean", "Below the best", *by_case),
        rows=tuple(rows),
    )


def _effect_cells(effects: pd.DataFrame, best: str, loss: str) -> list[Cell]:
    """How far below the best a loss is on the median case, and on which share of the cases it does better."""
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
    """How often each loss has each rank, in per cent."""
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
            "How often a loss has each rank when folds, and the cases in them, are drawn anew with replacement; equal "
            "losses share the better rank."
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
        f"From {basis} by a model of case, fold and run; simultaneous 95 % intervals: the chance to call any two "
        "losses different that are not is about one in twenty. Losses of a tier are not shown to differ from its "
        f"first; those of the next tier are shown to be lower. The same: within {verdict.margin:g}."
    )
    if math.isfinite(verdict.detectable):
        text += f" A difference of {verdict.detectable:.3f} would have been seen with a probability of 80 %."
    if math.isfinite(verdict.case_sd):
        text += f" Standard deviations: {verdict.case_sd:.3f} of a loss's case, {verdict.run_sd:.3f} of a run's mean."
    if with_effects:
        text += (
            " Median by case: of the paired differences, with a distribution-free 95 % interval; better on: the share "
            "of cases on which the loss beats the best one."
        )
    if friedman is not None and math.isfinite(friedman.p):
        text += (
            f" Friedman's test over {count_of(friedman.n, 'case')}: p = {p_text(friedman.p)}, Kendall's W = "
            f"{friedman.kendall_w:.2f}."
        )
    if parts is not None:
        text += (
            f" Runs vary by {', '.join(f'{name} {part:.3f}' for name, part in parts.items())} (standard deviations)."
        )
    return text


def _between(verdict: Verdict, better: str, worse: str) -> Any:
    """The row of `Verdict.pairs` about two losses, its columns as attributes."""
    pairs = verdict.pairs
    return next(pairs[(pairs["better"] == better) & (pairs["worse"] == worse)].itertuples())


def _names(losses: Sequence[str]) -> str:
    names = [loss_name(loss) for loss in losses]
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
