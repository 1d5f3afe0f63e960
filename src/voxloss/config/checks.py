"""The check that every value of a configuration passes when its section is created."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

from voxloss.utilities.errors import InputError


class Check(NamedTuple):
    """One key, whether its value makes sense, the value, and what is allowed, to complete the words "must be"."""

    key: str
    good: bool
    value: Any
    allowed: str


@dataclasses.dataclass(frozen=True)
class Section:
    """Base of the configuration's sections: values are checked when the section is created.

    Raises:
        InputError: A value has the right type and makes no sense; the message names the key, what is allowed and the
            value received.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for check in (*self.checks(), *self._finite()):
            if not check.good:
                key = f"{self.section}.{check.key}" if self.section else check.key
                raise InputError(f"{key} must be {check.allowed}; received {check.value!r}.")

    def checks(self) -> Iterable[Check]:
        """The section's own checks; numbers are checked to be finite anyway."""
        return ()

    def _finite(self) -> Iterable[Check]:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            numbers = value if isinstance(value, tuple) else (value,)
            yield Check(item.name, all(math.isfinite(n) for n in numbers if isinstance(n, float)), value, "finite")
