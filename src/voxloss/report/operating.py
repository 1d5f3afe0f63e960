"""The losses at other thresholds than the largest probability, computed once from the runs' counts."""

from dataclasses import dataclass

import pandas as pd

from voxloss.evaluation.fold_model import Interim
from voxloss.evaluation.probabilities.counts import RunCounts, read_counts
from voxloss.evaluation.probabilities.tuning import RunKey, Source, tuned_points, tuned_scores
from voxloss.evaluation.significance import intervals
from voxloss.evaluation.verdict import Verdict, case_table, verdict
from voxloss.report.record import StudyRecord


@dataclass(frozen=True)
class OperatingPoints:
    """The losses of a comparison at thresholds that were chosen on cases that are not scored.

    Args:
        runs: The counts of every run of the comparison that has not failed.
        source: Where the thresholds were chosen.
        points: `voxloss.evaluation.probabilities.tuning.tuned_points`.
        scores: The scores at these thresholds.
        intervals: `voxloss.evaluation.significance.intervals` of these, over the units of the comparison.
        verdicts: By class the verdict on Dice where the largest probability decides, and that at the thresholds, on
            the same cases; without classes that cannot be judged.
    """

    runs: dict[RunKey, RunCounts]
    source: Source
    points: pd.DataFrame
    scores: pd.DataFrame
    intervals: pd.DataFrame
    verdicts: dict[str, tuple[Verdict, Verdict]]

    def disagreement(self, class_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the losses that may be the best only at the thresholds, and those only by the largest probability."""
        if class_name not in self.verdicts:
            return (), ()
        argmax, tuned = (set(found.may_be_best) for found in self.verdicts[class_name])
        order = self.verdicts[class_name][1].losses
        return tuple(x for x in order if x in tuned - argmax), tuple(x for x in order if x in argmax - tuned)


def operating_points(
    record: StudyRecord, scores: pd.DataFrame, classes: tuple[str, ...], over: str, interim: Interim | None
) -> OperatingPoints | None:
    """Compute the operating points of a comparison; None if a run has no counts, or no threshold can be chosen.

    Args:
        record: The study.
        scores: The scores of the comparison.
        classes: Its classes.
        over: The units of intervals.
        interim: Of a race.

    Raises:
        InputError: A file of counts is damaged.
    """
    if record.study.imported:
        return None
    wanted = scores.loc[scores["status"] != "failed", ["loss", "fold", "seed"]].drop_duplicates()
    keys = set(wanted.itertuples(index=False, name=None))
    runs: dict[RunKey, RunCounts] = {}
    for status in record.runs:
        key = (status.loss, status.fold, status.seed)
        file = record.study.run_folder(status.run).counts_file
        if key in keys and file.is_file():
            runs[key] = read_counts(file)
    source = record.study.config.evaluation.thresholds_from
    points = tuned_points(runs, classes, source)
    if keys - set(runs) or points["threshold"].isna().all():
        return None
    tuned = tuned_scores(runs, points, scores)
    pairs = {}
    for name in classes:
        parts = on_shared_cases(scores, tuned, name)
        pairs[name] = tuple(verdict(part, name, "dice", interim=interim) for part in parts)
    return OperatingPoints(
        runs=runs,
        source=source,
        points=points,
        scores=tuned,
        intervals=intervals(tuned, over="case" if over == "case" else "fold"),
        verdicts={name: (first, second) for name, (first, second) in pairs.items() if first and second},
    )


def on_shared_cases(first: pd.DataFrame, second: pd.DataFrame, class_name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tables of scores on the cases that a verdict on the Dice of a class has in both.

    A case without the class has no Dice for a loss that predicts nothing there. Which losses do so depends on the
    threshold, so that otherwise two verdicts would be on different cases.
    """
    tables = [case_table(scores, class_name, "dice") for scores in (first, second)]
    if tables[0] is None or tables[1] is None:
        return first, second
    shared = tables[0][0].index.droplevel("fold").intersection(tables[1][0].index.droplevel("fold"))
    kept = [pd.MultiIndex.from_frame(scores[["dataset", "case"]]).isin(shared) for scores in (first, second)]
    return first[kept[0]], second[kept[1]]
