"""Operating points and calibration as sentences and tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from voxloss.evaluation.probabilities.calibration import CONSIDERED, RELIABILITY_BINS, calibration
from voxloss.evaluation.probabilities.thresholds import average_precision
from voxloss.evaluation.probabilities.tuning import UNTUNED, pooled_runs
from voxloss.report.comparison import Comparison
from voxloss.report.names import loss_name, metric_name
from voxloss.report.operating import OperatingPoints
from voxloss.report.tables.formats import Cell, Table, distinguishing
from voxloss.report.tables.scores import interval_text
from voxloss.report.tables.verdict import names_of, verdict_sentence
from voxloss.utilities.text import count_of

SOURCES = {
    "folds": "those that the other folds' runs of the same loss and seed scored",
    "inner": "inner cases, which were set aside from its training",
}
MEASURES = ("ece", "ece_foreground", "brier", "log_score")


def disagreement_sentence(points: OperatingPoints | None, class_name: str) -> str:
    """Say how the verdict on Dice changes at tuned thresholds; nothing if the losses that may be the best are the same.

    If a loss may be the best only with its own threshold, its difference by the largest probability is one of
    thresholds.
    """
    if points is None:
        return ""
    entered, left = points.disagreement(class_name)
    sentences = []
    if entered:
        threshold = "its own tuned threshold" if len(entered) == 1 else "their own tuned thresholds"
        sentences.append(
            f"With {threshold}, {names_of(entered, 'and')} may be the best by {metric_name('dice')} of {class_name} "
            "too: there the threshold differs, not the loss."
        )
    if left:
        sentences.append(
            f"With tuned thresholds, {names_of(left, 'and')} can no longer be the best by {metric_name('dice')} of "
            f"{class_name}."
        )
    return " ".join(sentences)


def operating_sentences(points: OperatingPoints, class_name: str) -> Iterator[str]:
    """Yield the verdict on Dice by the largest probability, that at tuned thresholds, and whether they agree."""
    if class_name not in points.verdicts:
        return
    argmax, tuned = points.verdicts[class_name]
    yield f"Largest probability: {verdict_sentence(argmax, class_name, 'dice')}"
    yield f"Tuned thresholds: {verdict_sentence(tuned, class_name, 'dice')}"
    changed = disagreement_sentence(points, class_name)
    yield changed or "The same losses may be the best with both."


def operating_frame(comparison: Comparison, points: OperatingPoints, class_name: str) -> pd.DataFrame:
    """Return a row per loss: thresholds over its runs, average precision, and both kinds of scores."""
    precisions: dict[str, list[float]] = {}
    for (loss, _, _), counts in pooled_runs(points.runs, class_name):
        precisions.setdefault(loss, []).append(average_precision(counts))
    own = points.points[points.points["class"] == class_name]
    rows = []
    for loss in comparison.losses:
        thresholds = own.loc[own["loss"] == loss, "threshold"]
        known = thresholds.dropna()
        row = {
            "loss": loss,
            "runs": len(thresholds),
            "runs_without_threshold": int(thresholds.isna().sum()),
            "threshold_median": known.median() if len(known) else math.nan,
            "threshold_low": known.min() if len(known) else math.nan,
            "threshold_high": known.max() if len(known) else math.nan,
            "average_precision": _mean(precisions.get(loss, [])),
        }
        for kind, table in (("argmax", comparison.intervals), ("tuned", points.intervals)):
            chosen = table[(table["loss"] == loss) & (table["class"] == class_name)].set_index("metric")
            for metric in ("dice", "precision", "recall"):
                for value in ("mean", "half_width", "low", "high", "ranking_mean"):
                    row[f"{metric}_{kind}_{value}"] = (
                        float(chosen.loc[metric, value]) if metric in chosen.index else math.nan
                    )
        rows.append(row)
    return pd.DataFrame(rows)


def operating_table(comparison: Comparison, points: OperatingPoints, class_name: str, frame: pd.DataFrame) -> Table:
    """Return scores by the largest probability and at tuned thresholds, side by side."""
    best = {
        column: frame[column].max()
        for column in frame
        if column.endswith("ranking_mean") or column == "average_precision"
    }
    rows = []
    for row in frame.to_dict("records"):
        text = "–"
        if not math.isnan(row["threshold_median"]):
            text = threshold_text(row["threshold_median"])
            if row["threshold_low"] < row["threshold_high"]:
                text += f" ({threshold_text(row['threshold_low'])} to {threshold_text(row['threshold_high'])})"
        cells = [Cell(loss_name(row["loss"])), Cell(text)]
        for metric in ("dice", "precision", "recall"):
            for kind in ("argmax", "tuned"):
                name = f"{metric}_{kind}"
                values = (row[f"{name}_{part}"] for part in ("mean", "half_width", "low", "high"))
                is_best = len(frame) > 1 and row[f"{name}_ranking_mean"] == best[f"{name}_ranking_mean"]
                cells.append(Cell(interval_text(*values), bold=is_best))
        precision = row["average_precision"]
        is_best = len(frame) > 1 and precision == best["average_precision"]
        cells.append(Cell("n/a" if math.isnan(precision) else f"{precision:.3f}", bold=is_best))
        rows.append(tuple(cells))
    without = int(frame["runs_without_threshold"].sum())
    untuned = (
        f" {count_of(without, 'run')} had no case to choose on that has {class_name}, and took {UNTUNED:g}."
        if without
        else ""
    )
    element = comparison.units.element
    caption = (
        f"Threshold: the median over the runs, and the range. A {element} is predicted where the class's probability "
        "is at least the threshold, whatever the other classes have. Each run's threshold has the highest mean DSC on "
        f"cases that it does not score: {SOURCES[points.source]}.{untuned} AP: average precision, the area under the "
        f"curve of precision against recall over all {element}s of a run's cases, averaged over the runs."
    )
    names = [metric_name(metric) for metric in ("dice", "precision", "recall")]
    return Table(
        title=f"Largest probability and tuned thresholds: {class_name}",
        caption=caption,
        header=("Loss", "Threshold", *("largest", "tuned") * 3, "AP"),
        rows=distinguishing(rows),
        groups=(("Tuned", 1), *((name, 2) for name in names), ("All", 1)),
    )


def threshold_text(threshold: float) -> str:
    """Write a threshold with as many digits as it needs near 0 and 1."""
    distance = min(threshold, 1 - threshold)
    return f"{threshold:.{2 if distance >= 0.1 else 3 if distance >= 0.01 else 5}f}"


def calibration_frame(comparison: Comparison, points: OperatingPoints, class_name: str) -> pd.DataFrame:
    """Return a row per run: its measures of calibration, the temperature, and the measures after the scaling."""
    temperatures = points.points[points.points["class"] == class_name].set_index(["loss", "fold", "seed"])[
        "temperature"
    ]
    rows = []
    for key, counts in pooled_runs(points.runs, class_name):
        temperature = float(temperatures[key])
        scaled = calibration(counts, temperature) if not math.isnan(temperature) else None
        row = dict(zip(("loss", "fold", "seed"), key, strict=True)) | asdict(calibration(counts))
        row["temperature"] = temperature
        row |= {f"{name}_scaled": getattr(scaled, name) if scaled else math.nan for name in MEASURES}
        rows.append(row)
    frame = pd.DataFrame(rows)
    order = {loss: place for place, loss in enumerate(comparison.losses)}
    return frame.sort_values(["loss", "fold", "seed"], key=lambda column: column.map(order).fillna(column))


def calibration_table(comparison: Comparison, class_name: str, frame: pd.DataFrame) -> Table:
    """Return the means over runs of every measure, before and after the scaling by a temperature."""
    columns = [name for measure in MEASURES for name in (measure, f"{measure}_scaled")]
    means = frame.groupby("loss")[[*columns, "temperature"]].mean().reindex(list(comparison.losses))
    rows = []
    for loss, row in zip(means.index, means.to_dict("records"), strict=True):
        temperature = row["temperature"]
        cells = [Cell(loss_name(loss)), Cell("–" if math.isnan(temperature) else f"{temperature:.2f}")]
        for name in columns:
            is_best = len(means) > 1 and row[name] == means[name].min()
            cells.append(Cell("n/a" if math.isnan(row[name]) else f"{row[name]:.3g}", bold=is_best))
        rows.append(tuple(cells))
    element = comparison.units.element
    caption = (
        f"Means over the runs; lower is better. ECE: expected calibration error of the class against all others in "
        f"{RELIABILITY_BINS} bins, over all {element}s; likely {element}s: over those with a probability of at least "
        f"{CONSIDERED:g}. Brier: mean squared error of the probability. Log score: mean of −log of the probability of "
        f"what is there, in nats; one {element} counts at most 11.8. Scaled: after the log odds were divided by a "
        "temperature T, chosen for each run on the cases that its threshold is chosen on."
    )
    names = ("ECE", f"ECE, likely {element}s", "Brier", "Log score")
    return Table(
        title=f"Calibration of {class_name}",
        caption=caption,
        header=("Loss", "mean", *("as is", "scaled") * len(names)),
        rows=distinguishing(rows),
        groups=(("T", 1), *((name, 2) for name in names)),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
