"""Types of parameters of losses. Each has a check, which also converts a value to its stored form."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_origin

from torch import Tensor

PerClass = float | tuple[float, ...]  # one number for all classes, or one per class


@dataclass(frozen=True)
class Check:
    """Metadata of an annotated parameter.

    Attributes:
        allowed: Which values the parameter takes, to be read after "must be".
        convert: Returns the value to store; raises TypeError or ValueError for a value that is not allowed.
    """

    allowed: str
    convert: Callable[[Any], Any]

    def __call__(self, name: str, value: Any) -> Any:
        """The value to store.

        Raises:
            ValueError: A value that is not allowed; the message quotes it.
        """
        if _learns(value):
            raise ValueError(
                f"{name} is a tensor that requires a gradient, but a loss does not learn its parameters: give its "
                "numbers, tensor.detach(), and multiply the loss by what is to be learnt"
            )
        try:
            return self.convert(value)
        except (TypeError, ValueError, OverflowError):  # the last: a whole number too large for a float
            raise ValueError(f"{name} must be {self.allowed}, received {value!r}") from None


def _learns(value: Any) -> bool:
    """Whether a value, or one of a list or tuple, is a tensor that requires a gradient."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(one, Tensor) and one.requires_grad for one in values)


def _number(value: Any) -> float:
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError
    return float(value)


def _require(fulfilled: bool) -> None:
    if not fulfilled:
        raise ValueError


def _fraction(value: Any) -> float:
    _require(0 <= _number(value) <= 1)
    return float(value)


def _fraction_below_one(value: Any) -> float:
    _require(0 <= _number(value) < 1)
    return float(value)


def _positive(value: Any) -> float:
    _require(0 < _number(value) < math.inf)
    return float(value)


def _not_negative(value: Any) -> float:
    _require(0 <= _number(value) < math.inf)
    return float(value)


def _per_class(value: Any) -> PerClass:
    plain = value if isinstance(value, Real) or not hasattr(value, "tolist") else value.tolist()
    if isinstance(plain, Sequence) and not isinstance(plain, (str, bytes)):
        _require(len(plain) > 0)
        return tuple(_not_negative(number) for number in plain)
    return _not_negative(plain)


def _several(value: Any) -> tuple[float, ...]:
    weights = _per_class(tuple(value) if isinstance(value, Iterator) else value)
    if not isinstance(weights, tuple):
        raise TypeError
    return weights


def _percent(value: Any) -> float:
    _require(0 < _number(value) <= 100)
    return float(value)


def _spacing(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    sizes = _several(value)
    _require(all(sizes))
    return sizes


def _whole(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError
    return int(value)


def _not_negative_whole(value: Any) -> int:
    _require(_whole(value) >= 0)
    return int(value)


def _positive_whole(value: Any) -> int:
    _require(_whole(value) > 0)
    return int(value)


def _optional(check: Check) -> Check:
    return Check(f"{check.allowed} or None", lambda value: None if value is None else check.convert(value))


def one_of(*choices: Any) -> Check:
    """Return a check for one of `choices`: strings by equality, True, False and None by identity."""

    def convert(value: Any) -> Any:
        for choice in choices:
            if value is choice or (isinstance(choice, str) and isinstance(value, str) and value == choice):
                return choice
        raise ValueError

    return Check(" or ".join(map(repr, choices)), convert)


FRACTION = Check("in [0, 1]", _fraction)
POSITIVE = Check("a finite number above 0", _positive)
NOT_NEGATIVE = Check("a finite number not below 0", _not_negative)


def _region_weights(value: Any) -> tuple[float, ...] | str | None:
    if value is None or (isinstance(value, str) and value == INVERSE_VOLUME):
        return value
    return _several(value)


INVERSE_VOLUME = "inverse_volume"

PER_CLASS = Check("a finite number not below 0, or one per class", _per_class)
WEIGHTS = Check("finite numbers not below 0, one for each loss or output", _several)
ANYTHING = Check("any value", lambda value: value)

Fraction = Annotated[float, FRACTION]
OptionalFraction = Annotated[float | None, _optional(FRACTION)]
FractionBelowOne = Annotated[float, Check("in [0, 1)", _fraction_below_one)]
Positive = Annotated[float, POSITIVE]
NonNegative = Annotated[float, NOT_NEGATIVE]
Percent = Annotated[float, Check("in (0, 100]", _percent)]
Spacing = Annotated[Sequence[float] | None, Check("finite numbers above 0, one per axis, or None", _spacing)]
Iterations = Annotated[int, Check("a whole number not below 0", _not_negative_whole)]
PositiveWhole = Annotated[int, Check("a whole number above 0", _positive_whole)]
ClassWeights = Annotated[float | Sequence[float], PER_CLASS]  # any sequence, array or tensor; stored as a tuple
RegionWeights = Annotated[
    Sequence[float] | Literal["inverse_volume"] | None,
    Check("finite numbers not below 0, one per class, or 'inverse_volume' or None", _region_weights),
]
OptionalInteger = Annotated[int | None, _optional(Check("a whole number", _whole))]
OptionalSwitch = Annotated[bool | None, one_of(True, False, None)]
Activation = Literal["softmax", "sigmoid"]
Reduction = Literal["sum", "mean", "none"]
BatchReduction = Literal["mean", "sum", "none"]
Pool = Literal["sample", "batch", "world"]
AbsentClass = Literal["keep", "skip"]
Overlap = Literal["product", "minimum", "squared"]
Inputs = Literal["logits", "probabilities"]
IgnoreScope = Literal["voxel", "channel"]
IgnoredSamples = Literal["skip", "keep"]


def check_of(hint: Any) -> Check:
    """Return the check of a field's type: of an `Annotated` type, of the choices of a `Literal`, or none."""
    for metadata in getattr(hint, "__metadata__", ()):
        if isinstance(metadata, Check):
            return metadata
    return one_of(*get_args(hint)) if get_origin(hint) is Literal else ANYTHING
