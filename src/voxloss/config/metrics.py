"""Metrics of the user's own in a study's configuration: `evaluation.metrics`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from voxloss.utilities.errors import InputError
from voxloss.utilities.imports import import_attribute

KEYS = ("name", "title", "range", "higher_is_better", "unit")


@dataclass(frozen=True)
class MetricChoice:
    """A metric of the user's own.

    Args:
        name: Its import path, which is its name in scores.csv.
        title: What tables call it.
        range: Its least and largest value; the largest may be infinite.
        higher_is_better: Whether larger values are better.
        unit: Of its values; empty for a share.
    """

    name: str
    title: str
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    unit: str = ""

    @classmethod
    def of(cls, entry: str | dict[str, Any], part: Any = None) -> Self:
        """From an entry of `evaluation.metrics`, an import path or a mapping with `name`.

        Args:
            entry: The entry.
            part: The function, whose attributes of the same names say what the entry leaves open.

        Raises:
            InputError: An entry without a name, an unknown key or a value that makes no sense.
        """
        given = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = given.get("name")
        if not isinstance(name, str) or "." not in name:
            raise InputError(
                "evaluation.metrics takes import paths such as mypackage.my_metric, or mappings with `name`; received "
                f"{entry!r}."
            )
        for key in given:
            if key not in KEYS:
                raise InputError(f"evaluation.metrics: {name} has no key {key!r}; its keys are {', '.join(KEYS)}.")
        values = {key: getattr(part, key) for key in KEYS[1:] if hasattr(part, key)} | given
        title, unit, higher = values.get("title"), values.get("unit", ""), values.get("higher_is_better", True)
        for key, value, kind in (("title", title or "x", str), ("unit", unit, str), ("higher_is_better", higher, bool)):
            if not isinstance(value, kind):
                wanted = "true or false" if kind is bool else "a text"
                raise InputError(f"evaluation.metrics: {key} of {name} should be {wanted}; received {value!r}.")
        return cls(name, title or name.rpartition(".")[2], _range(name, values.get("range", (0.0, 1.0))), higher, unit)

    @property
    def may_be_primary(self) -> bool:
        """Whether losses can be compared by it: a share of which more is better, like the package's."""
        return self.range == (0.0, 1.0) and self.higher_is_better

    def plain(self) -> dict[str, Any]:
        """The entry with nothing left open, for study.yaml."""
        return {
            "name": self.name, "title": self.title, "range": list(self.range),
            "higher_is_better": self.higher_is_better, "unit": self.unit,
        }  # fmt: skip

    def function(self) -> Callable[..., Any]:
        """Import it. Raises InputError if it cannot be imported or called."""
        part = import_attribute(self.name, "the metric")
        if not callable(part):
            raise InputError(f"the metric {self.name} is a {type(part).__name__}, not a function.")
        function: Callable[..., Any] = part
        return function


def metric_choices(entries: Sequence[str | dict[str, Any]]) -> list[MetricChoice]:
    """The metrics that `evaluation.metrics` lists, nothing imported. Raises InputError as `MetricChoice.of`."""
    choices = [MetricChoice.of(entry) for entry in entries]
    names = [choice.name for choice in choices]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The metric {name!r} is listed twice in evaluation.metrics.")
    return choices


def settled_metrics(entries: Sequence[str | dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The entries with what the functions' attributes say of range, direction, unit and title."""
    imported = [(entry, choice.function()) for entry, choice in zip(entries, metric_choices(entries), strict=True)]
    return tuple(MetricChoice.of(entry, part).plain() for entry, part in imported)


def agree(settled: Sequence[str | dict[str, Any]], entries: Sequence[str | dict[str, Any]]) -> bool:
    """Whether entries name the metrics of settled ones, and say nothing else than these."""
    known, said = (
        [{"name": entry} if isinstance(entry, str) else entry for entry in those] for those in (settled, entries)
    )
    return len(known) == len(said) and all(
        key in one and (list(one[key]) == list(value) if key == "range" else one[key] == value)
        for one, other in zip(known, said, strict=True)
        for key, value in other.items()
    )


def _range(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and low < high):
        raise InputError(
            f"evaluation.metrics: range of {name} should be a finite least and a larger largest value, such as [0, 1] "
            f"or [0, .inf]; received {value!r}."
        )
    return low, high
