"""The tables of lesions: how many are found and how well outlined, false positives, and recall by size."""

from collections.abc import Iterator, Sequence

import pandas as pd

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import LESION_METRICS, SIZE_METRICS
from voxloss.geometry.units import VOLUMES, Units
from voxloss.report.comparison import Comparison
from voxloss.report.tables import scores as tables
from voxloss.report.tables.formats import Table
from voxloss.report.tables.main import scores_caption
from voxloss.utilities.text import count_of

IN_PLANE = {26: 8, 18: 8, 6: 4}  # neighbours of a pixel, by those of a voxel

BY_CASE = ("false_positive_lesions", "false_positive_lesions_negative", "case_sensitivity", "case_specificity")
BY_LESION = tuple(metric for metric in LESION_METRICS if metric not in BY_CASE)


def lesion_tables(
    comparison: Comparison,
    class_name: str,
    rules: LesionRules | None,
    units: Units = VOLUMES,
    reader: pd.DataFrame | None = None,
) -> Iterator[tuple[str, Sequence[str], Table]]:
    """Yield name, metrics and table of what the scores have of a class: lesions, detection by case, recall by size.

    Args:
        comparison: The results.
        class_name: The class.
        rules: The rules by which lesions were found and matched; None: they are not known.
        units: The unit of their sizes.
        reader: The intervals of a second reader, for a last row.
    """
    if rules is not None and units != VOLUMES:
        rules = rules.of_areas()
    matching = "" if rules is None else f" {rules_sentences(rules, units)}"
    kinds = (
        (
            "lesions",
            BY_LESION,
            f"Lesions of {class_name}",
            "Lesion Dice: mean Dice of the reference's lesions and the false positives, which count as 0. PQ = SQ × "
            f"RQ: panoptic, segmentation and recognition quality.{matching}{panoptic_sentence(rules)}",
        ),
        (
            "cases_with_lesions",
            BY_CASE,
            f"Detection of {class_name} by case",
            "A negative case has no lesion in the reference. Case sensitivity: share of the cases with lesions in "
            "which one or more are detected; case specificity: share of the negative cases in which none is "
            f"predicted.{matching}",
        ),
        (
            "lesion_sizes",
            SIZE_METRICS,
            f"Lesion recall of {class_name} by size",
            "Share of the lesions of each size that are detected, averaged over the cases that have some."
            f"{sizes_sentence(rules, class_name, units)}{matching}",
        ),
    )
    for name, metrics, title, meaning in kinds:
        there = _with_values(comparison, class_name, metrics)
        if there:
            caption = f"{scores_caption(comparison)} {meaning}"
            nothing = [class_name] if comparison.none_learned(class_name) else []
            table = tables.scores_table(
                comparison.intervals,
                comparison.losses,
                [class_name],
                there,
                title,
                caption,
                reader=reader,
                without_best=nothing,
            )
            yield name, there, table


def _with_values(comparison: Comparison, class_name: str, metrics: Sequence[str]) -> list[str]:
    """Return the metrics that are defined in some case; without a negative case, for example, two of them are not."""
    own = comparison.intervals[comparison.intervals["class"] == class_name]
    defined = set(own.loc[own["n_cases"] > 0, "metric"])
    return [metric for metric in metrics if metric in defined]


def rules_sentences(rules: LesionRules, units: Units = VOLUMES) -> str:
    """Say what a lesion is and when two match; of images by the rules of areas (`LesionRules.of_areas`)."""
    element = units.element
    neighbours = rules.connectivity if units == VOLUMES else IN_PLANE[rules.connectivity]
    lesion = f"A lesion is a connected component ({neighbours} neighbours)"
    if rules.dilation:
        dilation = count_of(rules.dilation, element)
        lesion += f"; those of the reference that touch after a dilation by {dilation} are one"
    if rules.minimum_volume_ml:
        lesion += f"; smaller ones than {rules.minimum_volume_ml:g} {units.size} are not counted"
    enough = f"they share a {element}"
    if rules.threshold:
        enough = f"the intersection over union exceeds {rules.threshold:g}"
    elif rules.dilation:
        enough += " after the dilation"
    once = ", each with one at most" if rules.match == "one_to_one" else ""
    return f"{lesion}. Lesions of reference and prediction match if {enough}{once}."


def panoptic_sentence(rules: LesionRules | None) -> str:
    """Say when lesions match for panoptic quality; nothing if it is not known."""
    if rules is None:
        return ""
    return (
        " For PQ, SQ and RQ each matches one at most, if the intersection over union exceeds "
        f"{rules.panoptic_threshold:g}; without a match SQ is undefined, and for bold counts as the worst."
    )


def sizes_sentence(rules: LesionRules | None, class_name: str, units: Units = VOLUMES) -> str:
    """Say which sizes are small, middle and large; nothing if it is not known."""
    limits = None if rules is None else rules.limits_of(class_name)
    if limits is None:
        return ""
    small, middle = (f"{f'{limit:,.0f}' if limit >= 1000 else f'{limit:.3g}'} {units.size}" for limit in limits)
    return f" Small: up to {small}; middle: up to {middle}; large: above."
