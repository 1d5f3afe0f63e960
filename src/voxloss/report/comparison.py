"""Compute all results of a report once; tables, figures and headline use them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from voxloss.evaluation.fold_model import Interim
from voxloss.evaluation.learned import Learned, learned_classes
from voxloss.evaluation.metrics import METRICS, metric_of
from voxloss.evaluation.race import interim_of
from voxloss.evaluation.scores import common_scores, complete_check
from voxloss.evaluation.significance import intervals, pairwise_rank_sum, pairwise_signed_rank
from voxloss.evaluation.verdict import Verdict, of_some, verdict
from voxloss.geometry.units import VOLUMES, Units
from voxloss.report.operating import OperatingPoints, operating_points
from voxloss.report.record import StudyRecord
from voxloss.study.readers import reader_scores
from voxloss.study.rounds import Race
from voxloss.study.standing import LossStanding, require_losses, standings
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """Results of the finished losses over all cases; before two are, over the cases that every loss in progress has.

    Of a race: over the losses, folds and seeds of the last look, so that the verdict is that look.

    Args:
        scores: The scores of these cases.
        losses: The losses, in the study's order.
        classes: The classes without the background, in the study's order.
        primary_class: The class of the headline.
        primary_metric: The metric of the headline and of the tests.
        metrics: The metrics of the table, in the order of `METRICS`.
        over: The units of the printed intervals, "fold" or "case".
        intervals: `voxloss.evaluation.significance.intervals` over these units.
        other_intervals: The same over the other units.
        rank_sum: `pairwise_rank_sum` of the primary metric.
        signed_rank: `pairwise_signed_rank` of the primary metric.
        verdicts: The verdict on the primary metric by class, without classes that cannot be judged.
        n_cases: Number of cases.
        n_folds: Number of folds.
        n_seeds: Number of seeds.
        partial: Class and metric of scores that only some cases have, which are therefore left out.
        race: The state of the race; None for a grid.
        interim: Of the last look of a race, for `voxloss.evaluation.verdict.verdict`.
        standings: How far each loss of the study is.
        units: The units of distances and sizes.
        reader: `intervals` of a second reader on the compared cases with a second mask; None without one.
        reader_fault: Why the second reader could not be scored; None without a fault.
        operating: The losses at thresholds that were chosen on other cases; None if a run has no counts of voxels by
            probability, as in a study of an earlier version, or if `losses` were chosen afterwards.
        learned: What each loss, also one that left a race, has learned of each class.
        family_scores: The scores of all losses that the critical values are for. `losses` may be some of them, which
            were chosen afterwards.
    """

    scores: pd.DataFrame
    losses: tuple[str, ...]
    classes: tuple[str, ...]
    primary_class: str
    primary_metric: str
    metrics: tuple[str, ...]
    over: str
    intervals: pd.DataFrame
    other_intervals: pd.DataFrame
    rank_sum: pd.DataFrame
    signed_rank: pd.DataFrame
    verdicts: dict[str, Verdict]
    n_cases: int
    n_folds: int
    n_seeds: int
    partial: tuple[tuple[str, str], ...] = ()
    race: Race | None = None
    interim: Interim | None = None
    standings: tuple[LossStanding, ...] = ()
    units: Units = VOLUMES
    reader: pd.DataFrame | None = None
    reader_fault: str | None = None
    operating: OperatingPoints | None = None
    learned: tuple[Learned, ...] = ()
    family_scores: pd.DataFrame = field(default_factory=pd.DataFrame)

    def unlearned(self, class_name: str) -> tuple[Learned, ...]:
        """The losses that have not learned a class."""
        return tuple(one for one in self.learned if one.class_name == class_name and not one.learned)

    def none_learned(self, class_name: str) -> bool:
        """Whether no compared loss has learned a class, so that nothing can be announced about it."""
        unlearned = {one.loss for one in self.unlearned(class_name)}
        return bool(self.losses) and unlearned.issuperset(self.losses)

    @property
    def family_losses(self) -> tuple[str, ...]:
        """All losses that the critical values are for."""
        return tuple(dict.fromkeys(self.family_scores["loss"])) if len(self.family_scores) else self.losses


def compare(record: StudyRecord, chosen_losses: Sequence[str] | None = None) -> Comparison:
    """Compute intervals and tests of a study, which may be in progress.

    Args:
        record: The study.
        chosen_losses: The keys of the losses to show, at least two; None: all that are compared. Intervals, tests and
            critical values remain those of all compared losses, as these were chosen after the results were known.

    Raises:
        InputError: No run is finished, or the losses have no case in common yet; or a chosen loss is not in the study,
            has no scores, or left a race.
    """
    if record.scores.empty:
        raise InputError(f"{record.study.folder} has no finished run yet; a report needs at least one")
    race = record.study.race() if record.study.comparison.design == "race" else None
    interim, compared = None, record.scores
    progress = standings(record.study)
    if chosen_losses is not None:
        _require_chosen(record, chosen_losses, race)
    if race is not None and race.looks:
        interim, compared = _last_look(race, record.scores)
    elif race is None:
        compared = _of_compared(record.scores, progress, chosen_losses or ())
    everything = common_scores(compared)
    if everything.empty:
        raise InputError(
            f"{record.study.folder} has no case yet that is scored for all of its losses with a finished run"
        )
    complete_check(everything)
    metric = record.study.comparison.primary_metric
    everything, partial = _whole_metrics(everything, metric)
    present = list(dict.fromkeys(everything["loss"]))
    family = [loss for loss in record.study.loss_keys if loss in present]
    family += [loss for loss in present if loss not in family]
    losses = family if chosen_losses is None else [loss for loss in family if loss in chosen_losses]
    scores = everything[everything["loss"].isin(losses)].reset_index(drop=True)
    scored = set(scores["class"])
    over = record.study.comparison.interval
    classes = tuple(name for name in record.study.dataset.classes[1:] if name in scored)
    reader, fault = _second_reader(record, scores, over)
    verdicts = {name: verdict(everything, name, metric, interim=interim) for name in classes}
    operating = None
    if len(losses) < len(family):
        verdicts = {name: found and of_some(found, losses) for name, found in verdicts.items()}
    else:
        operating = operating_points(record, scores, classes, over, interim)
    rank_sum, signed_rank = (
        pairs[pairs["row"].isin(losses) & pairs["column"].isin(losses)].reset_index(drop=True)
        for pairs in (
            pairwise_rank_sum(everything, [metric], family),
            pairwise_signed_rank(everything, [metric], family),
        )
    )
    gone = record.scores[record.scores["loss"].isin(race.left)] if race is not None else record.scores.iloc[:0]
    return Comparison(
        scores=scores,
        losses=tuple(losses),
        classes=classes,
        primary_class=record.study.comparison.primary_class,
        primary_metric=metric,
        metrics=_metrics(scores),
        over=over,
        intervals=intervals(scores, over=over),
        other_intervals=intervals(scores, over="case" if over == "fold" else "fold"),
        rank_sum=rank_sum,
        signed_rank=signed_rank,
        verdicts={name: found for name, found in verdicts.items() if found is not None},
        n_cases=scores["case"].nunique(),
        n_folds=scores["fold"].nunique(),
        n_seeds=scores["seed"].nunique(),
        partial=partial,
        race=race,
        interim=interim,
        standings=tuple(progress),
        units=record.study.dataset.units,
        reader=reader,
        reader_fault=fault,
        operating=operating,
        learned=tuple(learned_classes(pd.concat([scores, gone], ignore_index=True), record.study.blind)),
        family_scores=everything,
    )


def _second_reader(
    record: StudyRecord, scores: pd.DataFrame, over: Literal["fold", "case"]
) -> tuple[pd.DataFrame | None, str | None]:
    """Return the intervals of the second reader on the compared cases, or why there are none."""
    try:
        of_reader = reader_scores(record.study)
    except InputError as error:
        return None, f"The second reader is not shown: {str(error).rstrip('.')}."
    if of_reader is None:
        return None, None
    of_reader = of_reader[of_reader["case"].isin(scores["case"])]
    return (None if of_reader.empty else intervals(of_reader, over=over)), None


def _metrics(scores: pd.DataFrame) -> tuple[str, ...]:
    """The metrics of a table in the order of `METRICS`, then the user's own; without measures of the case."""
    there = list(dict.fromkeys(scores["metric"]))
    own = [name for name in there if name not in METRICS]
    return tuple(name for name in (*METRICS, *own) if name in there and metric_of(name).worst is not None)


def _require_chosen(record: StudyRecord, chosen: Sequence[str], race: Race | None) -> None:
    require_losses(record.study, chosen)
    if len(set(chosen)) < 2:
        raise InputError(f"--losses takes two or more losses to compare; received {', '.join(chosen)}.")
    scored = set(record.scores["loss"])
    for loss in chosen:
        if loss not in scored:
            raise InputError(f"--losses: {loss} has no finished run yet.")
    if race is not None and race.looks:
        last = race.looks[-1]
        for loss in chosen:
            if loss not in last.losses:
                when = f"left after round {race.left[loss]}" if loss in race.left else "was added and not looked at yet"
                raise InputError(f"--losses: {loss} {when}; the last round compared {', '.join(last.losses)}.")


def _of_compared(scores: pd.DataFrame, progress: Sequence[LossStanding], chosen: Sequence[str]) -> pd.DataFrame:
    """Return the scores of the losses that are compared: those that are finished, so that no other cuts their cases.

    Before two are finished, those in progress are compared with them on the cases that all of them have; so are losses
    that were chosen although they are not finished.
    """
    of = {one.loss: one.standing for one in progress}
    finished = [loss for loss in scores["loss"].unique() if of.get(loss) == "finished"]
    active = [loss for loss in scores["loss"].unique() if of.get(loss) == "in progress"]
    compared = {*(finished if len(finished) > 1 else [*finished, *active]), *chosen}
    return scores[scores["loss"].isin(compared)]


def _last_look(race: Race, scores: pd.DataFrame) -> tuple[Interim, pd.DataFrame]:
    """Return what the last look of a race knew, and its scores."""
    *before, last = race.looks
    interim = interim_of(before, last.round, race.n_folds, last.passes, last.family)
    runs = pd.MultiIndex.from_tuples(
        [(loss, seed, fold) for seed, fold in race.rounds[: last.round] for loss in last.losses]
    )
    return interim, scores[pd.MultiIndex.from_frame(scores[["loss", "seed", "fold"]]).isin(runs)]


def _whole_metrics(scores: pd.DataFrame, primary: str) -> tuple[pd.DataFrame, tuple[tuple[str, str], ...]]:
    """Drop metrics of a class that only some of its cases have, for example if another version began the study.

    Their means would be of other cases than those beside them. The primary metric is kept in any case.
    """
    sizes = scores.groupby(["class", "metric"], sort=False)["case"].transform("size")
    largest = sizes.groupby(scores["class"]).transform("max")
    whole = (sizes == largest) | (scores["metric"] == primary)
    left_out = scores.loc[~whole, ["class", "metric"]].drop_duplicates()
    return scores[whole].reset_index(drop=True), tuple(left_out.itertuples(index=False, name=None))
