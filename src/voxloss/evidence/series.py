"""Dose and response: scores of every loss along a series, against how rare the class is."""

from collections.abc import Sequence

import pandas as pd

from voxloss.evaluation.scores import worst_filled
from voxloss.evidence.comparisons import Judged, series_steps
from voxloss.evidence.export import Export

METRICS = ("dice", "lesion_recall")
COLUMNS = (
    "series",
    "study",
    "kind",
    "share",
    "loss",
    "runs",
    "collapsed",
    *METRICS,
    *(f"{name}_se" for name in METRICS),
)


def series_frame(studies: Sequence[Judged]) -> pd.DataFrame:
    """Return a row per series, step and loss.

    `share` is how common the class is at the step; `runs` the number of trainings (folds × seeds), and `collapsed` the
    share of them that never predict the class. The scores are means over runs of the means over a run's cases, with
    the standard error over runs; undefined and failed scores as in `worst_filled`.
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
    scores = scores[scores["class"] == export.class_name]
    of_run = ["loss", "fold", "seed"]
    # A prediction of the class has a precision, right or wrong.
    precision = scores[scores["metric"] == "precision"]
    predicted = (precision["status"] == "ok").groupby([precision[name] for name in of_run]).any()
    table = pd.DataFrame({"collapsed": 1.0 - predicted.astype(float)})
    filled = worst_filled(scores)
    for metric in METRICS:
        table[metric] = filled[filled["metric"] == metric].groupby(of_run)["value"].mean()
    by_loss = table.groupby("loss")
    result = by_loss.mean()
    result.insert(0, "runs", by_loss.size())
    for metric in METRICS:
        result[f"{metric}_se"] = by_loss[metric].sem()
    return result.reset_index()
