"""What a study says in a sentence, and what it cannot tell."""

from collections.abc import Iterator
from dataclasses import dataclass

from voxloss.report.comparison import Comparison
from voxloss.report.names import loss_name, metric_name
from voxloss.report.record import StudyRecord
from voxloss.report.tables.verdict import verdict_sentence
from voxloss.utilities.text import count_of

# What ends a run; a pending, running or failed one may still give other numbers.
OVER = ("done", "diverged")


@dataclass(frozen=True)
class Summary:
    """The headline, and the reservations that belong beside it."""

    headline: str
    limits: tuple[str, ...]


def summarise(record: StudyRecord, comparison: Comparison) -> Summary:
    """The verdict on the primary class and metric in a sentence, and what it cannot tell.

    Failed runs and empty predictions count 0. A higher mean alone is no proof of a better loss.
    """
    return Summary(_headline(comparison), tuple(_limits(record, comparison)))


def summary_sentence(record: StudyRecord, comparison: Comparison) -> str:
    """Headline and reservations in one line, for the console."""
    summary = summarise(record, comparison)
    return " ".join((summary.headline, *summary.limits))


def _headline(comparison: Comparison) -> str:
    verdict = comparison.verdicts.get(comparison.primary_class)
    if verdict is not None:
        return verdict_sentence(verdict, comparison.primary_class, comparison.primary_metric)
    measure = f"mean {metric_name(comparison.primary_metric)} of {comparison.primary_class}"
    table = comparison.intervals
    table = table[(table["class"] == comparison.primary_class) & (table["metric"] == comparison.primary_metric)]
    means = table.set_index("loss")["ranking_mean"].reindex(list(comparison.losses)).dropna()
    if means.empty:
        return f"No loss has a {measure}: it is undefined in every case."
    if len(means) > 1:
        return f"No case has a {metric_name(comparison.primary_metric)} of {comparison.primary_class} for every loss."
    return (
        f"{loss_name(means.index[0])} reaches a {measure} of {means.iloc[0]:.3f}; there is no other loss to compare it "
        "with."
    )


def _limits(record: StudyRecord, comparison: Comparison) -> Iterator[str]:
    if record.study.comparison.demonstration:
        yield "Demonstration on a phantom, not evidence."
    waiting = [run for run in record.runs if run.state not in OVER]
    if waiting:
        over = len(record.runs) - len(waiting)
        absent = [loss_name(loss) for loss in record.study.loss_keys if loss not in comparison.losses]
        without = f" Not compared yet: {', '.join(absent)}." if absent else ""
        yield (
            f"In progress: {over} of {count_of(len(record.runs), 'run')} finished; compared on the "
            f"{count_of(comparison.n_cases, 'case')} that all compared losses have.{without}"
        )
    bad = [run for run in record.runs if run.state in ("failed", "diverged")]
    if bad:
        yield f"{count_of(len(bad), 'run')} failed or diverged; their scores count as 0 in rankings and tests."
    if comparison.partial:
        names = ", ".join(f"{metric_name(metric)} of {class_name}" for class_name, metric in comparison.partial)
        yield f"Left out, since only some of the cases have it: {names}."
    if comparison.n_seeds == 1:
        yield "One seed: how much runs vary is known from the folds alone."
