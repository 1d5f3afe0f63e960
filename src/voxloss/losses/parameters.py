"""Checks of the numbers that losses are given: ValueError with the value received."""

import math
from numbers import Real
from typing import Any

PerClass = float | tuple[float, ...]  # one number for all classes, or one per class


def per_class(name: str, value: Any) -> PerClass:
    """A finite number not below 0 as float, or several (sequence, array or tensor; one per class) as tuple."""
    plain = value if isinstance(value, Real) or not hasattr(value, "tolist") else value.tolist()
    several = isinstance(plain, list | tuple)
    numbers = tuple(plain) if several else (plain,)
    if not numbers or not all(_is_number(number) and 0 <= number < math.inf for number in numbers):
        raise ValueError(f"{name} must be a finite number not below 0, or one per class, received {value!r}")
    return tuple(map(float, numbers)) if several else float(plain)


def check_fraction(name: str, value: Any, *, optional: bool = False, below_one: bool = False) -> None:
    """Raise ValueError unless `value` is in [0, 1] (with `below_one` in [0, 1)), or None where that is allowed."""
    if optional and value is None:
        return
    if not _is_number(value) or not 0 <= value <= 1 or (below_one and value == 1):
        allowed = ("[0, 1)" if below_one else "[0, 1]") + (" or None" if optional else "")
        raise ValueError(f"{name} must be in {allowed}, received {value!r}")


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Raise ValueError unless `value` is finite and above 0, or 0 where that is allowed."""
    if not _is_number(value) or not 0 <= value < math.inf or (value == 0 and not or_zero):
        raise ValueError(f"{name} must be a finite number {'not below' if or_zero else 'above'} 0, received {value!r}")


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in allowed):
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, received {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
