"""What a study says in a sentence, and what it cannot tell."""

from dataclasses import dataclass

from voxloss.report.comparison import Comparison
from voxloss.report.names import loss_name, metric_name
from voxloss.report.record import StudyRecord
from voxloss.report.tables import count_of

SIGNIFICANT = 0.05

# What ends a run; a pending, running or failed one may still give other numbers.
OVER = ("done", "diverged")


@dataclass(frozen=True)
class Summary:
    """The headline, and the reservations that belong beside it."""

    headline: str
    limits: tuple[str, ...]


def summarise(record: StudyRecord, comparison: Comparison) -> Summary:
    """Name the loss with the best mean of the primary metric, the next one, and how many pairs differ.

    The order is by `ranking_mean` (failed runs and empty predictions count 0). Significance is that of the paired
    signed-rank test, Holm-adjusted. Nothing more than that is said: a higher mean is no proof of a better loss.
    """
    return Summary(_headline(comparison), tuple(_limits(record, comparison)))


def summary_sentence(record: StudyRecord, comparison: Comparison) -> str:
    """Headline and reservations in one line, for the console."""
    summary = summarise(record, comparison)
    return " ".join((summary.headline, *summary.limits))


def _headline(comparison: Comparison) -> str:
    measure = f"mean {metric_name(comparison.primary_metric)} of {comparison.primary_class}"
    table = comparison.intervals
    table = table[(table["class"] == comparison.primary_class) & (table["metric"] == comparison.primary_metric)]
    means = table.set_index("loss")["ranking_mean"].reindex(list(comparison.losses)).dropna()
    if means.empty:
        return f"No loss has a {measure}: it is undefined in every case."
    means = means.sort_values(ascending=False, kind="stable")
    best = means.index[0]
    if len(means) == 1:
        return (
            f"{loss_name(best)} reaches a {measure} of {means.iloc[0]:.3f}; there is no other loss to compare it with."
        )
    following = means.index[1]
    gap = means.iloc[0] - means.iloc[1]
    lead = f"{loss_name(best)} has the highest {measure}, {means.iloc[0]:.3f}, "
    if round(gap, 3) == 0:
        lead = f"{loss_name(best)} and {loss_name(following)} have the same highest {measure}, {means.iloc[0]:.3f}; "
    else:
        lead += f"{gap:.3f} above {loss_name(following)}; "
    return lead + _evidence(comparison, best, following)


def _evidence(comparison: Comparison, best: str, following: str) -> str:
    pairs = comparison.signed_rank
    pairs = pairs[pairs["class"] == comparison.primary_class]
    test = "Holm-adjusted signed-rank test"
    if pairs["p_holm"].isna().all():
        return f"there are too few cases for a {test}."
    n_significant = int((pairs["p_holm"] < SIGNIFICANT).sum())
    this = pairs[pairs["row"].isin([best, following]) & pairs["column"].isin([best, following])]
    significant = bool((this["p_holm"] < SIGNIFICANT).all())
    if len(pairs) == 1:
        return f"the difference is {'' if significant else 'not '}significant at 0.05 ({test})."
    if n_significant == 0:
        return f"none of the {len(pairs)} pairs of losses differs significantly at 0.05 ({test})."
    verb = "differs" if n_significant == 1 else "differ"
    this_pair = "this pair among them" if significant else "this pair not among them"
    return f"{n_significant} of {len(pairs)} pairs of losses {verb} significantly at 0.05 ({test}), {this_pair}."


def _limits(record: StudyRecord, comparison: Comparison):
    if record.setting("comparison", "demonstration", False):
        yield "Demonstration on a phantom, not evidence."
    waiting = [run for run in record.runs if run.state not in OVER]
    if waiting:
        over = len(record.runs) - len(waiting)
        absent = [loss_name(loss) for loss in record.losses if loss not in comparison.losses]
        without = f" Not compared yet: {', '.join(absent)}." if absent else ""
        yield (
            f"In progress: {over} of {count_of(len(record.runs), 'run')} finished; compared on the "
            f"{count_of(comparison.n_cases, 'case')} that all compared losses have.{without}"
        )
    bad = [run for run in record.runs if run.state in ("failed", "diverged")]
    if bad:
        yield f"{count_of(len(bad), 'run')} failed or diverged; their scores count as 0 in rankings and tests."
    if comparison.n_seeds == 1:
        yield "One seed: differences may be the training's own noise."
