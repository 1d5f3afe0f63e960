"""The verdict in words and as a table."""

import math
from collections.abc import Sequence

from voxloss.evaluation.verdict import Verdict
from voxloss.report.formats import Cell, Table
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables import count_of

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


def verdict_table(verdict: Verdict, class_name: str, metric: str) -> Table:
    """A row per loss, the best first: its tier, its mean, how far it is below the best, and what that means."""
    best = verdict.losses[0]
    tier_of = {loss: str(number) for number, tier in enumerate(verdict.tiers, start=1) for loss in tier}
    rows = []
    for loss, mean in zip(verdict.losses, verdict.means, strict=True):
        cells = [Cell(loss_name(loss), bold=loss == best), Cell(tier_of[loss]), Cell(f"{mean:.3f}")]
        if loss == best:
            cells += [Cell("–"), Cell("the highest mean")]
        else:
            row = _between(verdict, best, loss)
            width = f" ± {row.half_width:.3f}" if math.isfinite(row.half_width) else ""
            meaning = "lower" if row.differ else "the same within the margin" if row.same else "not told apart"
            shown = Cell(meaning, shade="negative", strong=True) if row.differ else Cell(meaning)
            cells += [Cell(f"{row.difference:.3f}{width}"), shown]
        rows.append(tuple(cells))
    return Table(
        title=f"Verdict: {metric_name(metric)} of {class_name}",
        caption=_caption(verdict),
        header=("Loss", "Tier", "Mean", "Below the best", "That is"),
        rows=tuple(rows),
    )


def _caption(verdict: Verdict) -> str:
    basis = ", ".join(
        count_of(number, noun)
        for number, noun in ((verdict.n_cases, "case"), (verdict.n_folds, "fold"), (verdict.n_seeds, "seed"))
    )
    text = (
        f"From {basis} by a model of case, fold and run; simultaneous 95 % intervals: the chance to call any two "
        "losses different that are not is about one in twenty. Losses of a tier are not shown to differ from its "
        f"first; those of the next tier are shown to be lower. Margin {verdict.margin:g}."
    )
    if math.isfinite(verdict.detectable):
        text += f" A difference of {verdict.detectable:.3f} would have been seen with a probability of 80 %."
    if math.isfinite(verdict.case_sd):
        text += f" Standard deviations: {verdict.case_sd:.3f} of a loss's case, {verdict.run_sd:.3f} of a run's mean."
    return text


def _between(verdict: Verdict, better: str, worse: str):
    pairs = verdict.pairs
    return next(pairs[(pairs["better"] == better) & (pairs["worse"] == worse)].itertuples())


def _names(losses: Sequence[str]) -> str:
    names = [loss_name(loss) for loss in losses]
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
