"""Thresholds and temperatures of runs, chosen on cases that they do not score, and the scores at these thresholds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from voxloss.evaluation.metrics import OVERLAP_METRICS
from voxloss.evaluation.probabilities.calibration import best_temperature
from voxloss.evaluation.probabilities.counts import ProbabilityCounts, RunCounts
from voxloss.evaluation.probabilities.thresholds import best_threshold, scores_at
from voxloss.evaluation.scores import score_rows, score_table

RunKey = tuple[str, int, int]  # loss, fold, seed
Source = Literal["folds", "inner"]

UNTUNED = 0.5  # where no case that a threshold may be chosen on has the class

POINT_COLUMNS = ("loss", "fold", "seed", "class", "threshold", "temperature", "cases")


def tuning_cases(
    runs: Mapping[RunKey, RunCounts], key: RunKey, class_name: str, source: Source
) -> list[ProbabilityCounts]:
    """Return the counts of the cases on which a run's threshold may be chosen, never one that it scores.

    Args:
        runs: The counts of the runs.
        key: The run.
        class_name: The class.
        source: "folds": the cases that the runs of the same loss and seed on the other folds score, each predicted by
            a network that was not trained on it. "inner": the run's own inner cases.
    """
    if source == "inner":
        return list(runs[key].of_class(class_name, inner=True).values())
    loss, fold, seed = key
    others = [run for (name, other, number), run in runs.items() if (name, number) == (loss, seed) and other != fold]
    return [counts for run in others for counts in run.of_class(class_name).values()]


def tuned_points(runs: Mapping[RunKey, RunCounts], classes: Sequence[str], source: Source) -> pd.DataFrame:
    """Choose the threshold with the highest mean Dice, and the temperature with the lowest log score, of every run.

    Args:
        runs: The counts of the runs.
        classes: The classes.
        source: As of `tuning_cases`.

    Returns:
        A row per run and class: threshold and temperature, NaN where none can be chosen, and the number of cases.
    """
    rows = []
    for key in runs:
        for name in classes:
            cases = tuning_cases(runs, key, name, source)
            threshold = best_threshold(cases)
            temperature = best_temperature(pooled(cases)) if cases else None
            values = (math.nan if value is None else value for value in (threshold, temperature))
            rows.append((*key, name, *values, len(cases)))
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def tuned_scores(runs: Mapping[RunKey, RunCounts], points: pd.DataFrame, argmax: pd.DataFrame) -> pd.DataFrame:
    """Return Dice, precision and recall at each run's threshold, of exactly the cases and classes of other scores.

    Args:
        runs: The counts of the runs.
        points: Their `tuned_points`. Without a threshold, `UNTUNED` is taken.
        argmax: The scores of the classes with the largest probability, as of `read_scores`. Failed scores stay failed.

    Returns:
        A table of the same form. Scores of runs without counts are not in it.
    """
    wanted = argmax[argmax["metric"].isin(OVERLAP_METRICS)]
    thresholds = points.set_index(["loss", "fold", "seed", "class"])["threshold"].fillna(UNTUNED).to_dict()
    rows: list[dict[str, Any]] = []
    for (loss, fold, seed, name), group in wanted.groupby(["loss", "fold", "seed", "class"], sort=False):
        failed = group["status"] == "failed"
        rows += group[failed].to_dict("records")
        key = (loss, fold, seed)
        if key not in runs or (*key, name) not in thresholds:
            continue
        of_case = runs[key].of_class(name)
        for dataset, case in group.loc[~failed, ["dataset", "case"]].drop_duplicates().itertuples(index=False):
            if case in of_case:
                scores = scores_at(of_case[case], thresholds[(*key, name)], name)
                rows += score_rows(scores, dataset=dataset, fold=fold, seed=seed, loss=loss, case=case)
    return score_table(rows, source="the scores at tuned thresholds")


def pooled(cases: Sequence[ProbabilityCounts]) -> ProbabilityCounts:
    """Return the counts of all cases together."""
    total, *others = cases
    for counts in others:
        total = total + counts
    return total


def pooled_runs(runs: Mapping[RunKey, RunCounts], class_name: str) -> Iterator[tuple[RunKey, ProbabilityCounts]]:
    """Yield every run with the counts of a class over the cases that it scores."""
    for key, run in runs.items():
        cases = list(run.of_class(class_name).values())
        if cases:
            yield key, pooled(cases)
