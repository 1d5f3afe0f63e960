"""The losses of a study's configuration: their names, parameters and keys."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class LossChoice:
    """A loss of the study.

    Args:
        name: Its catalogue name.
        parameters: Those that differ from the loss's defaults.
    """

    name: str
    parameters: dict[str, Any]

    @classmethod
    def of(cls, entry: str | dict[str, Any]) -> Self:
        """From an entry of `comparison.losses`: a name, or a mapping with `name` and parameters.

        Raises:
            InputError: A mapping without a name.
        """
        if isinstance(entry, str):
            return cls(entry, {})
        if not isinstance(entry.get("name"), str):
            raise InputError(f"A loss is a name or a mapping with `name` and its parameters; received {entry!r}.")
        return cls(entry["name"], {key: value for key, value in entry.items() if key != "name"})

    @property
    def key(self) -> str:
        """Its folder's name and its value in the tables' `loss` column: focal, focal-gamma=3."""
        parts = [self.name, *(f"{name}={_short(value)}" for name, value in sorted(self.parameters.items()))]
        return "-".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        named = [str(value["name"])] if "name" in value else []
        return ",".join([*named, *(f"{key}={_short(item)}" for key, item in value.items() if key != "name")])
    if isinstance(value, list | tuple):
        return "+".join(_short(item) for item in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_")


def loss_choices(entries: Sequence[str | dict[str, Any]]) -> list[LossChoice]:
    """The losses that `comparison.losses` lists, in order; names and parameters are not checked.

    Raises:
        InputError: An entry without a name, or the same loss twice.
    """
    choices = [LossChoice.of(entry) for entry in entries]
    keys = [choice.key for choice in choices]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"The loss {key!r} is listed twice in comparison.losses.")
    return choices


def check_losses(choices: Sequence[LossChoice]) -> None:
    """Build every loss once, to check its name and parameters.

    Raises:
        InputError: An unknown loss, a parameter that is unknown or has a value that it cannot have, or a package that
            the loss needs is not installed.
    """
    from voxloss.losses import Compound, Loss, get_loss  # imports torch, which listing losses need not wait for

    for choice in choices:
        try:
            loss = get_loss(choice.name, **choice.parameters)
            if loss.name != choice.name:
                raise ValueError(f"the loss {choice.name!r} is called {loss.name!r} in a study")
            parts = [part for part in loss.modules() if isinstance(part, Loss) and not isinstance(part, Compound)]
            if any(part.reduction != "mean" or part.class_reduction == "none" for part in parts):
                raise ValueError(f"the loss {choice.key!r} gives several values, but training needs one")
            if loss.formula.tubes and importlib.util.find_spec("skimage") is None:
                raise ValueError(
                    f"the loss {choice.key!r} needs scikit-image, which is not installed: "
                    "pip install 'voxloss[skeletons]'"
                )
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error
