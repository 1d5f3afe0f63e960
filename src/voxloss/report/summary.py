"""The headline of a study and its limits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from voxloss.config.losses import TUNED
from voxloss.evaluation.scores import seed_means, worst_filled
from voxloss.report.comparison import Comparison
from voxloss.report.names import loss_name, metric_name
from voxloss.report.record import StudyRecord
from voxloss.report.tables.learned import (
    REMEDIES,
    best_unlearned_sentence,
    nothing_learned_sentence,
    unlearned_sentence,
)
from voxloss.report.tables.main import primary_first
from voxloss.report.tables.operating import disagreement_sentence
from voxloss.report.tables.race import race_sentence
from voxloss.report.tables.tuning import tuning_sentence
from voxloss.report.tables.verdict import verdict_details, verdict_sentence
from voxloss.utilities.text import count_of

# States of runs whose scores are final; a pending, running or failed run may still change the numbers.
FINAL = ("done", "diverged")

FEW_CASES = 50  # below it, an order of methods is often another one on other cases (Christodoulou et al. 2024)


@dataclass(frozen=True)
class Summary:
    """The headline of a report, the sentences that follow it, and the limits that belong beside it."""

    headline: str
    details: tuple[str, ...]
    limits: tuple[str, ...]


def summarise(record: StudyRecord, comparison: Comparison) -> Summary:
    """Return the verdict on the primary class and metric as a sentence, and its limits.

    Failed runs and empty predictions count as 0. A higher mean alone does not prove that a loss is better. Where no
    loss has learned to find the class, that is the headline, and no loss is called better, the best or equivalent.
    """
    verdict, nothing = comparison.verdicts.get(comparison.primary_class), nothing_learned(comparison)
    details: tuple[str, ...] = ()
    if nothing:
        learned = [one for one in comparison.unlearned(comparison.primary_class) if one.loss in comparison.losses]
        details = (best_unlearned_sentence(learned), REMEDIES)
    elif verdict is not None:
        details = verdict_details(verdict, comparison.primary_metric)
        if changed := disagreement_sentence(comparison.operating, comparison.primary_class):
            details = (*details, changed)
    if comparison.race is not None:
        details = (*details, race_sentence(comparison.race, nothing))
    if record.study.tuning is not None and any(loss.endswith(TUNED) for loss in comparison.losses):
        details = (*details, tuning_sentence(record.study.tuning.trials))
    return Summary(_headline(comparison), details, tuple(_limits(record, comparison)))


def summary_sentence(record: StudyRecord, comparison: Comparison) -> str:
    """Return headline, details and limits in one line, for the console."""
    summary = summarise(record, comparison)
    return " ".join((summary.headline, *summary.details, *summary.limits))


def nothing_learned(comparison: Comparison) -> bool:
    """Whether no loss has learned the primary class, so that no verdict on it is announced."""
    return comparison.none_learned(comparison.primary_class)


def _headline(comparison: Comparison) -> str:
    if nothing_learned(comparison):
        return nothing_learned_sentence(comparison.primary_class, len(comparison.losses))
    verdict = comparison.verdicts.get(comparison.primary_class)
    if verdict is not None:
        left = comparison.interim is not None and comparison.interim.family > len(comparison.losses)
        return verdict_sentence(verdict, comparison.primary_class, comparison.primary_metric, others_left=left)
    measure = f"mean {metric_name(comparison.primary_metric)} of {comparison.primary_class}"
    table = comparison.intervals
    table = table[(table["class"] == comparison.primary_class) & (table["metric"] == comparison.primary_metric)]
    means = table.set_index("loss")["ranking_mean"].reindex(list(comparison.losses)).dropna()
    if means.empty:
        return f"No loss has a {measure}: it is undefined in every case."
    if len(means) > 1:
        return f"No case has a {metric_name(comparison.primary_metric)} of {comparison.primary_class} for every loss."
    return (
        f"{loss_name(means.index[0])} reaches a {measure} of {means.iloc[0]:.3f}; the study has no other loss to "
        "compare it with."
    )


def _without_evidence(record: StudyRecord) -> bool:
    return record.study.comparison.demonstration or record.study.comparison.look


def _limits(record: StudyRecord, comparison: Comparison) -> Iterator[str]:
    if record.study.comparison.demonstration:
        yield "Synthetic data: do not use this to choose a loss."
    if record.study.comparison.look:
        yield "A quick look (few cases, few training steps, one seed): do not use this to choose a loss."
    if record.study.dataset.has_regions:
        yield f"Training and scores count only the {comparison.units.element}s in each case's region of interest."
    yield from _unlearned_limits(comparison)
    yield from _cases_without_the_class(comparison)
    if len(comparison.losses) < len(comparison.family_losses):
        yield (
            f"These {len(comparison.losses)} of {len(comparison.family_losses)} compared losses were chosen "
            "afterwards; intervals and tests allow for all of them."
        )
    waiting = [run for run in record.runs if run.state not in FINAL]
    if waiting:
        finished = len(record.runs) - len(waiting)
        absent = [
            loss_name(one.loss)
            for one in comparison.standings
            if one.loss not in comparison.family_losses and one.standing in ("in progress", "finished")
        ]
        without = f" Not compared yet: {', '.join(absent)}." if absent else ""
        yield (
            f"In progress: {finished} of {count_of(len(record.runs), 'run')} finished; the comparison uses "
            f"the {count_of(comparison.n_cases, 'case')} that all compared losses have.{without}"
        )
    yield from _standing_limits(record, comparison)
    bad = [
        run
        for run in record.runs
        if run.state in ("failed", "diverged") and record.study.run_folder(run.run).scores_file.is_file()
    ]
    if bad:
        yield f"{count_of(len(bad), 'run')} failed or diverged; their scores count as 0 in rankings and tests."
    if comparison.partial:
        names = ", ".join(f"{metric_name(metric)} of {class_name}" for class_name, metric in comparison.partial)
        yield f"Not compared, because only some cases have a value: {names}."
    if comparison.n_cases < FEW_CASES and not _without_evidence(record):
        yield f"Only {count_of(comparison.n_cases, 'case')}: the order may well be different on other cases."
    if comparison.n_seeds == 1:
        yield "Only one seed: run-to-run variation is estimated from the folds."


def _cases_without_the_class(comparison: Comparison) -> Iterator[str]:
    """Say that the verdict leaves out cases in which some loss rightly predicts nothing; the table's means do not."""
    found = comparison.verdicts.get(comparison.primary_class)
    if found is None or found.n_cases == comparison.n_cases or comparison.none_learned(comparison.primary_class):
        return
    metric = metric_name(comparison.primary_metric)
    yield (
        f"The verdict is on the {found.n_cases} of {comparison.n_cases} cases for which every loss has a {metric} of "
        f"{comparison.primary_class}; without the class, a loss that predicts nothing has none. So its means are not "
        "those of the table."
    )


def _unlearned_limits(comparison: Comparison) -> Iterator[str]:
    """Name the losses that have not learned a class, the primary class first; the headline may have said it of all."""
    for class_name in primary_first(comparison):
        unlearned = comparison.unlearned(class_name)
        if class_name != comparison.primary_class and comparison.none_learned(class_name):
            yield f"No network learned to find {class_name}."
        elif unlearned and not comparison.none_learned(class_name):
            yield unlearned_sentence(unlearned)


def _with_display_name(evidence: str) -> str:
    """Call the metric of recorded means what the page calls it."""
    return re.sub(r"\bmean (\w+) of\b", lambda found: f"mean {metric_name(found[1])} of", evidence)


def _standing_limits(record: StudyRecord, comparison: Comparison) -> Iterator[str]:
    """Say what is known of losses that are not compared on all of their cases."""
    retired = [
        f"{loss_name(one.loss)} ({_with_display_name(one.evidence)})"
        for one in comparison.standings
        if one.standing == "retired" and one.loss not in comparison.family_losses
    ]
    if retired:
        yield f"Retired by the user and not compared: {'; '.join(retired)}."
    finished = [one.loss for one in comparison.standings if one.standing == "finished"]
    if comparison.race is not None or len(finished) != 1 or record.study.imported:
        return
    own = seed_means(worst_filled(record.scores[record.scores["loss"] == finished[0]]))
    own = own[(own["class"] == comparison.primary_class) & (own["metric"] == comparison.primary_metric)]
    if own["case"].nunique() > comparison.n_cases:
        measure = f"{metric_name(comparison.primary_metric)} of {comparison.primary_class}"
        yield (
            f"{loss_name(finished[0])} is finished: over all of its {own['case'].nunique()} cases its mean {measure} "
            f"is {own['value'].mean():.3f}."
        )
