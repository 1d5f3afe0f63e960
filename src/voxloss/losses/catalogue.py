"""The losses of this package by name: those that `functional` exports. Other subclasses of `Loss` are not listed."""

import difflib
from collections.abc import Iterable
from typing import Any

from voxloss.losses import functional
from voxloss.losses.loss import Loss

CATALOGUE: dict[str, type[Loss]] = {
    function.loss.name: function.loss for function in vars(functional).values() if hasattr(function, "loss")
}


def list_losses() -> list[str]:
    """Return the names that `get_loss` takes."""
    return list(CATALOGUE)


def loss_class(name: str) -> type[Loss]:
    """Return the class of a loss by its name.

    Raises:
        ValueError: An unknown name; the message suggests the closest one and lists all.
    """
    if name not in CATALOGUE:
        raise ValueError(f"unknown loss {name!r}{_closest(name, CATALOGUE)}; the losses are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def get_loss(name: str, **parameters: Any) -> Loss:
    """Return the loss of this name, called as `loss(logits, labels, voxel_weight=None)`.

    Args:
        name: One of `list_losses()`.
        parameters: Of the loss, shared ones included; published values by default.

    Raises:
        ValueError: Unknown name, unknown parameter, or a value that a parameter cannot have.
    """
    loss = loss_class(name)
    for parameter in parameters:
        if parameter not in loss.arguments:
            raise ValueError(
                f"loss {name!r} has no parameter {parameter!r}{_closest(parameter, loss.arguments)}; "
                f"it accepts {', '.join(loss.arguments)}"
            )
    return loss(**parameters)


def _closest(word: str, words: Iterable[str]) -> str:
    matches = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
