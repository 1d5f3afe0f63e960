"""voxloss: losses for segmenting rare structures in medical volumes.

    loss = voxloss.get_loss("mixed_focal")
    loss(logits, labels).backward()  # logits (B, C, *spatial), labels (B, *spatial) or (B, 1, *spatial)

The names of `voxloss.losses` are names of this package. They, and torch with them, are imported when one of them is
first used, so that commands which need neither start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from voxloss.losses import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":  # such as __path__, which must not import torch
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    losses = importlib.import_module("voxloss.losses")
    if name == "__all__":
        return ["__version__", *losses.__all__]
    if name not in (*losses.__all__, "VoxelLoss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(losses, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
