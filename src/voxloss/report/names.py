"""Display names, and file names derived from them."""

import functools
import re
import unicodedata
from collections.abc import Iterable

METRIC_NAMES = {
    "dice": "DSC",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95, mm",
    "assd": "ASSD, mm",
    "nsd": "NSD",
    "volume_difference": "Volume difference, ml",
    "lesion_recall": "Lesion recall",
    "lesion_precision": "Lesion precision",
    "lesion_f1": "Lesion F1",
    "lesion_dice": "Lesion Dice",
    "panoptic_quality": "PQ",
    "segmentation_quality": "SQ",
    "recognition_quality": "RQ",
    "false_positive_lesions": "False positives per case",
    "false_positive_lesions_negative": "False positives per negative case",
    "case_sensitivity": "Case sensitivity",
    "case_specificity": "Case specificity",
    "lesion_recall_small": "Recall of small lesions",
    "lesion_recall_middle": "Recall of middle lesions",
    "lesion_recall_large": "Recall of large lesions",
}

SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "weight": "λ"}

# A parameter's value ends where the next "-name=" begins, so that a negative value keeps its sign.
PARAMETER = re.compile(r"-([A-Za-z_]\w*)=(.*?)(?=-[A-Za-z_]\w*=|$)", re.DOTALL)


@functools.cache
def loss_titles() -> dict[str, str]:
    """Return the display names of the losses from their classes."""
    from voxloss.losses.catalogue import CATALOGUE  # here, as it imports torch, which other commands must not wait for

    return {name: loss.documentation.title for name, loss in CATALOGUE.items()}


def loss_name(key: str) -> str:
    """Return the display name of a loss's key: "focal-gamma=3" is "Focal loss (γ = 3)"; unknown keys do not change."""
    name, dash, rest = key.partition("-")
    parameters = PARAMETER.findall(dash + rest)
    titles = loss_titles()
    if name == "compound" and parameters and parameters[0][0] == "losses":
        titles = titles | {name: " + ".join(titles.get(part, part) for part in parameters.pop(0)[1].split("+"))}
        dash, rest = "", "".join(f"-{p}={v}" for p, v in parameters)
    if name not in titles or "".join(f"-{p}={v}" for p, v in parameters) != dash + rest:
        return key
    if not parameters:
        return titles[name]
    settings = ", ".join(f"{SYMBOLS.get(parameter, parameter)} = {value}" for parameter, value in parameters)
    return f"{titles[name]} ({settings})"


def metric_name(metric: str) -> str:
    """Return the display name of a metric; unknown ones do not change."""
    return METRIC_NAMES.get(metric, metric)


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Return a part of a file name for every name: lower-case ASCII letters, digits and hyphens, all different."""
    result: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "class"
        number = 2
        while slug in result.values():
            slug, number = f"{base}-{number}", number + 1
        result[name] = slug
    return result
