"""Display names, and file names derived from them."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from voxloss.config.losses import TUNED, LossChoice
from voxloss.evaluation.metrics import METRICS
from voxloss.geometry.units import VOLUMES, Units
from voxloss.study.study import Study

METRIC_NAMES = {
    "dice": "DSC",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": "NSD",
    "volume_difference": "Volume difference",
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


_own: ContextVar[Mapping[str, str]] = ContextVar("own", default={})  # noqa: B039 - never changed in place


@contextmanager
def names_of(study: Study) -> Iterator[None]:
    """Let `loss_name` and `metric_name` know the titles of a study's own losses and metrics, as its folder has them."""
    records = study.files.read_own_losses() if not study.imported else {}
    plain = {choice.key: _own_title(choice, records.get(choice.key, {})) for choice in study.losses if choice.own}
    taken = Counter([*plain.values(), *loss_titles().values()])
    names = {
        choice.key: f"{plain[choice.key]} [{choice.name}]" if taken[plain[choice.key]] > 1 else plain[choice.key]
        for choice in study.losses
        if choice.own
    }
    names |= {metric.name: metric.title + (f", {metric.unit}" if metric.unit else "") for metric in study.own_metrics}
    with own_names({} if study.imported else names):
        yield


@contextmanager
def own_names(names: Mapping[str, str]) -> Iterator[None]:
    """Let `loss_name` and `metric_name` know the titles of these own losses and metrics."""
    token = _own.set(names)
    try:
        yield
    finally:
        _own.reset(token)


def _own_title(choice: LossChoice, record: Mapping[str, Any]) -> str:
    if choice.tuned:
        return f"{_own_title(choice.listed, record)}, tuned"
    title = choice.title or str(record.get("title") or choice.name.rpartition(".")[2])
    if not choice.parameters or choice.title:
        return title
    settings = ", ".join(f"{SYMBOLS.get(name, name)} = {value}" for name, value in sorted(choice.parameters.items()))
    return f"{title} ({settings})"


def loss_name(key: str) -> str:
    """Return the display name of a loss's key: "focal-gamma=3" is "Focal loss (γ = 3)"; unknown keys do not change.

    Within `names_of`, own losses have their titles.
    """
    if key in _own.get():
        return _own.get()[key]
    if key.endswith(TUNED):
        return f"{loss_name(key.removesuffix(TUNED))}, tuned"
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


def metric_name(metric: str, units: Units = VOLUMES) -> str:
    """Return the display name of a metric with its unit, such as "HD95, mm"; unknown ones do not change."""
    if metric not in METRIC_NAMES:
        return _own.get().get(metric, metric)
    name = f"{units.extent.capitalize()} difference" if metric == "volume_difference" else METRIC_NAMES[metric]
    return name + {"mm": f", {units.length}", "ml": f", {units.size}"}.get(METRICS[metric].unit, "")


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
