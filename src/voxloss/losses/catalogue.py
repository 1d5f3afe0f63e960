"""Every loss by name."""

import difflib
from typing import Any

from voxloss.losses.entries import ENTRIES, Entry
from voxloss.losses.modules import VoxelLoss

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


def list_losses() -> list[str]:
    """The names that `get_loss` takes."""
    return list(CATALOGUE)


def get_entry(name: str) -> Entry:
    """The catalogue's entry of this name; ValueError that suggests the closest and lists all where there is none."""
    if name not in CATALOGUE:
        raise ValueError(f"unknown loss {name!r}{_closest(name, CATALOGUE)}; the losses are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def get_loss(name: str, **parameters: Any) -> VoxelLoss:
    """The loss module of this name, called as `loss(logits, labels, voxel_weight=None)`.

    Args:
        name: one of `list_losses()`.
        parameters: the loss's own parameters (published values where not given) and the shared options.

    Raises:
        ValueError: unknown name, unknown parameter, or a value that a parameter cannot have.
    """
    entry = get_entry(name)
    for parameter in parameters:
        if parameter not in entry.accepted:
            raise ValueError(
                f"loss {name!r} has no parameter {parameter!r}{_closest(parameter, entry.accepted)}; "
                f"it accepts {', '.join(entry.accepted)}"
            )
    return entry.module(**parameters)


def _closest(word: str, words: Any) -> str:
    matches = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
