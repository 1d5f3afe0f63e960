"""The search for a learning rate and for parameters of losses: what `comparison.tuning` says, checked."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from voxloss.config.losses import LossChoice, check_losses, loss_choices
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import did_you_mean

LEARNING_RATE = "learning_rate"
SETTINGS = ("trials", "batch", "epochs", "prune")
BATCH = 4
LOG = "log"

Setting = dict[str, Any]  # the values of a trial: `learning_rate`, and parameters of its loss by name


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all of them are possible."""
        return self.low, self.high

    def has(self, value: Any) -> bool:
        """Whether a value is in the range."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """The values of a list."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all of them are possible."""
        return self.values

    def has(self, value: Any) -> bool:
        """Whether a value is in the list."""
        return value in self.values


Dimension = Range | Choices


@dataclass(frozen=True)
class Tuning:
    """How learning rates and parameters of losses are searched for.

    Args:
        trials: Number of trials for each loss and fold.
        grid: Whether every combination of the lists' values is tried; else a sampler chooses.
        batch: Trials of a search that are chosen at once, and may run at the same time; later ones know their scores.
        epochs: Epochs of a trial; None: as many as a run has.
        prune: Whether a trial stops early when it is worse than most before it.
        learning_rate: The learning rates; None: that of the study.
        parameters: By the name of a loss, what is searched for each of its parameters.
    """

    trials: int
    grid: bool
    batch: int = BATCH
    epochs: int | None = None
    prune: bool = True
    learning_rate: Dimension | None = None
    parameters: Mapping[str, Mapping[str, Dimension]] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any], losses: Sequence[str | dict[str, Any]]) -> Self | None:
        """From `comparison.tuning` and `comparison.losses`; None where the former is empty.

        Raises:
            InputError: An unknown key, loss or form of values, an empty range, or losses with different numbers of
                trials. The message names the key.
        """
        if not entry:
            return None
        entry = dict(_flat(entry))
        names = list(dict.fromkeys(choice.name for choice in loss_choices(losses)))
        grid = "trials" not in entry
        rate: Dimension | None = None
        parameters: dict[str, dict[str, Dimension]] = {name: {} for name in names}
        for key, values in entry.items():
            if key in SETTINGS:
                continue
            loss, _, parameter = str(key).rpartition(".")
            if key == LEARNING_RATE:
                rate = _dimension(LEARNING_RATE, values, grid)
                if any(not isinstance(end, int | float) or isinstance(end, bool) or end <= 0 for end in rate.ends):
                    raise InputError(f"{_key(key)} takes positive numbers; received {values!r}.")
            elif loss in parameters:
                if parameter == LEARNING_RATE:
                    raise InputError(
                        f"{_key(key)}: the learning rate is searched for all losses; write {LEARNING_RATE}."
                    )
                parameters[loss][parameter] = _dimension(str(key), values, grid)
            else:
                raise InputError(_unknown(str(key), loss, names))
        trials = _trials(entry, grid, rate, parameters)
        batch, epochs, prune = entry.get("batch", BATCH), entry.get("epochs"), entry.get("prune", not grid)
        _require("batch", _is_whole(batch) and batch >= 1, batch, "a whole number of at least 1")
        _require("epochs", epochs is None or (_is_whole(epochs) and epochs >= 1), epochs, "a whole number or null")
        _require("prune", isinstance(prune, bool), prune, "true or false")
        return cls(trials, grid, batch, epochs, prune, rate, parameters)

    def space(self, loss: LossChoice) -> dict[str, Dimension]:
        """Return what is searched for a loss: the learning rate, if it is, then its parameters."""
        rate = {} if self.learning_rate is None else {LEARNING_RATE: self.learning_rate}
        return rate | dict(self.parameters.get(loss.name, {}))

    def combinations(self, loss: LossChoice) -> list[Setting]:
        """Return every combination of the values of a grid, the last dimension changing fastest."""
        space = self.space(loss)
        lists = [dimension.values for dimension in space.values() if isinstance(dimension, Choices)]
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys with LOSS: {PARAMETER: values} written as LOSS.PARAMETER: values."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", values) for name, values in value.items())
        else:
            yield str(key), value


def _trials(
    entry: Mapping[str, Any], grid: bool, rate: Dimension | None, parameters: Mapping[str, Mapping[str, Dimension]]
) -> int:
    """Return the number of trials of every loss. Raises InputError if they differ."""
    dimensions = {name: [*([] if rate is None else [rate]), *own.values()] for name, own in parameters.items()}
    without = [name for name, searched in dimensions.items() if not searched]
    if len(without) == len(dimensions):
        raise InputError(
            f"comparison.tuning searches nothing; list values of {LEARNING_RATE}, or of a parameter (LOSS.PARAMETER)."
        )
    if without:
        others = [name for name in dimensions if name not in without]
        raise InputError(
            f"comparison.tuning tunes {_list(others)} but not {_list(without)}, so their budgets would differ; add "
            f"{LEARNING_RATE}, or a parameter of {without[0]}."
        )
    if not grid:
        trials = entry["trials"]
        _require("trials", _is_whole(trials) and trials >= 1, trials, "a whole number of at least 1")
        return int(trials)
    counts = {
        name: math.prod(len(each.values) for each in searched if isinstance(each, Choices))
        for name, searched in dimensions.items()
    }
    if len(set(counts.values())) > 1:
        raise InputError(
            f"comparison.tuning gives {_list([f'{name} {count}' for name, count in counts.items()])} trials, so their "
            "budgets would differ; list as many combinations for each, or set trials: N, which each loss then has."
        )
    return next(iter(counts.values()))


def _dimension(key: str, values: Any, grid: bool) -> Dimension:
    if not isinstance(values, list | tuple) or not values:
        raise InputError(f"{_key(key)} takes a list of values, or [low, high] with trials: N; received {values!r}.")
    values = list(values)
    log = values[-1] == LOG
    if log and grid:
        raise InputError(f"{_key(key)} is a range, so say how many trials each loss has: trials: N.")
    bounds = values[:-1] if log else values
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in bounds)
    if log or (not grid and numbers and len(values) == 2):
        if not numbers or len(bounds) != 2:
            raise InputError(f"{_key(key)} takes [low, high] or [low, high, log]; received {values!r}.")
        low, high = bounds
        if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
            raise InputError(
                f"{_key(key)} is an empty range: it must go from a lower to a higher number; received {values!r}."
            )
        if log and low <= 0:
            raise InputError(
                f"{_key(key)} cannot begin at {low:g} on a logarithmic scale; begin above 0, or leave log out."
            )
        return Range(low, high, log)
    if any(value in values[:place] for place, value in enumerate(values)):
        raise InputError(f"{_key(key)} lists a value twice; received {values!r}.")
    return Choices(tuple(tuple(value) if isinstance(value, list) else value for value in values))


def _unknown(key: str, loss: str, names: Sequence[str]) -> str:
    if not loss:
        known = (*SETTINGS, LEARNING_RATE)
        return (
            f"comparison.tuning has no key {key!r}; its keys are {', '.join(known)} and LOSS.PARAMETER"
            f"{did_you_mean(key, known) or '.'}"
        )
    meant = did_you_mean(loss, names) or "."
    return f"{_key(key)}: {loss!r} is not in comparison.losses, which are {', '.join(names)}{meant}"


def _require(key: str, good: bool, value: Any, allowed: str) -> None:
    if not good:
        raise InputError(f"{_key(key)} must be {allowed}; received {value!r}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _key(key: str) -> str:
    return f"comparison.tuning {key}"


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def check_tuning(choices: Sequence[LossChoice], tuning: Tuning | None) -> None:
    """Build every loss with the ends of what is searched for its parameters.

    Raises:
        InputError: A loss has no such parameter, or it cannot have such a value; the message names both.
    """
    parameters = {} if tuning is None else tuning.parameters
    for choice in choices:
        for name, dimension in parameters.get(choice.name, {}).items():
            for value in dimension.ends:
                try:
                    check_losses([replace(choice, parameters=choice.parameters | {name: value})])
                except InputError as error:
                    raise InputError(f"comparison.tuning {choice.name}.{name}: {error}") from error


def setting_text(setting: Mapping[str, Any]) -> str:
    """Write a setting: "learning_rate=0.0003, weight=0.5"."""
    return ", ".join(f"{name}={number_text(value)}" for name, value in setting.items())


def number_text(value: Any) -> str:
    """Write a value of a setting with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
