"""The main table of a study, with its caption, and the table of the further metrics."""

from collections.abc import Sequence

from voxloss.evaluation.metrics import LESION_METRICS, METRICS, OVERLAP_METRICS, SIZE_METRICS
from voxloss.geometry.units import VOLUMES
from voxloss.report.comparison import Comparison
from voxloss.report.tables import scores as tables
from voxloss.report.tables.formats import Table
from voxloss.utilities.text import count_of

READER_SENTENCE = "Second reader: another person's masks against the reference; no loss is judged by them."


def primary_first(comparison: Comparison) -> list[str]:
    """Return the classes, the primary one first."""
    return sorted(comparison.classes, key=lambda name: name != comparison.primary_class)


def main_table(comparison: Comparison, classes: Sequence[str]) -> Table:
    """Return a table like the paper's Table 1 (or 3) for some classes; it always has the primary metric."""
    title = f"Scores of {classes[0]}" if len(classes) == 1 else "Scores"
    wanted = {*OVERLAP_METRICS, comparison.primary_metric}
    metrics = [metric for metric in comparison.metrics if metric in wanted]
    caption = scores_caption(comparison)
    if comparison.reader is not None:
        caption += f" {READER_SENTENCE}"
    return _scores_table(comparison, classes, metrics, title, caption)


def further_table(comparison: Comparison, class_name: str) -> Table | None:
    """Return distances and volumes of one class; None if the scores have none of them."""
    there = set(comparison.intervals.loc[comparison.intervals["class"] == class_name, "metric"])
    elsewhere = (*OVERLAP_METRICS, *LESION_METRICS, *SIZE_METRICS)
    metrics = [name for name in comparison.metrics if name in METRICS and name not in elsewhere and name in there]
    if not metrics:
        return None
    units = comparison.units
    surface = "surface" if units == VOLUMES else "contour"
    caption = (
        f"{scores_caption(comparison)} HD95: the larger of the two directed 95 % points of the {surface} distances; "
        f"ASSD: average symmetric surface distance; NSD: share of both {surface}s within the tolerance (normalised "
        "surface Dice)."
    )
    return _scores_table(
        comparison, [class_name], metrics, f"{surface.capitalize()}s and {units.extent}s of {class_name}", caption
    )


def own_table(comparison: Comparison, class_name: str) -> Table | None:
    """Return the user's own metrics of one class; None if the study has none."""
    there = set(comparison.intervals.loc[comparison.intervals["class"] == class_name, "metric"])
    metrics = [name for name in comparison.metrics if name not in METRICS and name in there]
    if not metrics:
        return None
    caption = f"{scores_caption(comparison)} Metrics of your own: {', '.join(metrics)}."
    return _scores_table(comparison, [class_name], metrics, f"Own metrics of {class_name}", caption)


def _scores_table(
    comparison: Comparison, classes: Sequence[str], metrics: Sequence[str], title: str, caption: str
) -> Table:
    return tables.scores_table(
        comparison.intervals,
        comparison.losses,
        classes,
        metrics,
        title,
        caption,
        comparison.units,
        comparison.reader,
        [name for name in classes if comparison.none_learned(name)],
    )


def scores_caption(comparison: Comparison) -> str:
    """Say which interval is printed, over which units, and what bold means."""
    cases, folds = count_of(comparison.n_cases, "case"), count_of(comparison.n_folds, "fold")
    seeds = count_of(comparison.n_seeds, "seed")
    if comparison.over == "fold":
        values = f"Mean ± 95 % confidence interval over {folds} (Student's t on the fold means; {cases}, {seeds})"
        if comparison.n_folds == 1:
            values = f"Mean over 1 fold, which gives no interval over folds ({cases}, {seeds})"
    else:
        values = f"Mean and 95 % confidence interval over {cases} (bootstrap, BCa; {folds}, {seeds})"
    bold = " Bold: the best mean of a column, failed runs and empty predictions counted as the worst."
    several = " A case's score is averaged over the seeds first." if comparison.n_seeds > 1 else ""
    return f"{values}.{several}{bold if len(comparison.losses) > 1 else ''}"
