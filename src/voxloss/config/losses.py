"""The losses of a study's configuration."""

from dataclasses import dataclass
from typing import Any

from voxloss.config.schema import StudyConfig
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class LossChoice:
    """A loss of the study: its catalogue name and the parameters that differ from its defaults."""

    name: str
    parameters: dict[str, Any]

    @property
    def key(self) -> str:
        """Its folder's name and its value in the tables' `loss` column: focal, focal-gamma=3."""
        parts = [self.name, *(f"{name}={_short(value)}" for name, value in sorted(self.parameters.items()))]
        return "-".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(_short(item) for item in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_")


def loss_choices(config: StudyConfig) -> list[LossChoice]:
    """The losses of a study, in order, each made once to check its name and parameters (this imports torch).

    Raises:
        InputError: an unknown loss, an unknown or unusable parameter, or the same loss twice.
    """
    from voxloss import get_loss

    choices: list[LossChoice] = []
    for entry in config.comparison.losses:
        if isinstance(entry, str):
            choice = LossChoice(entry, {})
        else:
            if not isinstance(entry.get("name"), str):
                raise InputError(f"A loss is a name or a mapping with `name` and its parameters; received {entry!r}.")
            choice = LossChoice(entry["name"], {key: value for key, value in entry.items() if key != "name"})
        try:
            get_loss(choice.name, **choice.parameters)
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error
        if choice.key in [other.key for other in choices]:
            raise InputError(f"The loss {choice.key!r} is listed twice in comparison.losses.")
        choices.append(choice)
    return choices
