"""Dose and response: scores of every loss along a series, against how rare the class is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.scores import worst_filled
from voxloss.evidence.comparisons import Judged, series_steps
from voxloss.evidence.export import Export

CONFIDENCE = 0.95
METRICS = ("dice", "lesion_recall")
SCORES = (*METRICS, "empty")
COLUMNS = (
    "series",
    "study",
    "kind",
    "share",
    "loss",
    "cases",
    "runs",
    "collapsed",
    *(f"{score}{end}" for score in SCORES for end in ("", "_low", "_high")),
)


def series_frame(studies: Sequence[Judged]) -> pd.DataFrame:
    """Return a row per series, step and loss.

    `share` is how common the class is at the step; `cases` the number of scored cases that have it. `runs` is the
    number of trainings (folds × seeds), `collapsed` the share of them that never predict the class, and `empty` the
    share of the cases with the class in which none of it is predicted. `dice`, `lesion_recall` and `empty` are means
    over folds of the means over a fold's runs and cases, each with its 95 % interval `low` to `high`: t(0.975, n - 1)
    times the standard error over the n folds, or over the seeds where there is one fold, and not beyond 0 and 1.
    Undefined and failed scores are those of `worst_filled`; a failed run has collapsed.
    """
    rows = []
    for name, steps in series_steps(studies).items():
        for judged, share in sorted(steps, key=lambda step: -step[1]):
            export = judged.export
            for row in _of_losses(export).to_dict("records"):
                rows.append({"series": name, "study": export.name, "kind": export.kind, "share": share, **row})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_losses(export: Export) -> pd.DataFrame:
    scores = export.judged_scores()
    scores = worst_filled(scores[scores["class"] == export.class_name])
    of_run, of_case = ["loss", "fold", "seed"], ["loss", "fold", "seed", "case"]
    # A prediction of the class has a precision, right or wrong. A class that is there has a recall.
    precision, recall = (scores[scores["metric"] == metric].set_index(of_case) for metric in ("precision", "recall"))
    predicted = precision["status"] == "ok"
    has_class = recall["value"].notna()  # of a failed run as other losses say of the case
    table = pd.DataFrame({"collapsed": 1.0 - predicted.groupby(of_run).any().astype(float)})
    table["empty"] = (~predicted[has_class.reindex(predicted.index)]).groupby(of_run).mean()
    for metric in METRICS:
        table[metric] = scores[scores["metric"] == metric].groupby(of_run)["value"].mean()
    by_loss = table.groupby("loss")
    result = pd.DataFrame({"runs": by_loss.size(), "collapsed": by_loss["collapsed"].mean()})
    cases = recall[has_class].reset_index().groupby("loss")["case"].nunique()
    result.insert(0, "cases", cases.reindex(result.index, fill_value=0))
    for score in SCORES:
        result[[score, f"{score}_low", f"{score}_high"]] = [
            _interval(values.droplevel("loss").dropna()) for _, values in by_loss[score]
        ]
    return result.reset_index()


def _interval(of_runs: pd.Series) -> tuple[float, float, float]:
    """The mean over folds, or of one fold over seeds, with the ends of its interval."""
    of_folds = of_runs.groupby("fold").mean()
    values = (of_folds if len(of_folds) > 1 else of_runs).to_numpy(dtype=float)
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    if n < 2:
        return mean, np.nan, np.nan
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    low, high = np.clip((mean - half_width, mean + half_width), 0, 1)
    return mean, float(low), float(high)
