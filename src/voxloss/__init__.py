"""voxloss: losses for segmenting rare structures in medical volumes.

    loss = voxloss.get_loss("mixed_focal")
    loss(logits, labels).backward()  # logits (B, C, *spatial), labels (B, *spatial) or (B, 1, *spatial)

The names of `voxloss.losses` are names of this package. They, and torch with them, are imported when one of them is
first used, so that commands which need neither start at once.
"""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from voxloss.losses import *  # noqa: F403


# What `voxloss.losses` exports beside the classes of the losses, whose names end in "Loss". Any other name, which tools
# that look through packages ask for, must not import torch.
_OTHER_NAMES = (
    "__all__",
    "Compound",
    "CosineSchedule",
    "DeepSupervision",
    "LabelMaps",
    "LinearSchedule",
    "VoxelStatistics",
    "describe",
    "distance_maps",
    "functional",
    "get_loss",
    "lesion_regions",
    "list_losses",
    "skeleton_tubes",
    "voxel_statistics",
)


def __getattr__(name: str) -> Any:
    if name.endswith("Loss") or name in _OTHER_NAMES:
        losses = importlib.import_module("voxloss.losses")
        if name == "__all__":
            return ["__version__", *losses.__all__]
        if name in losses.__all__ or name == "GeneralizedDiceLoss":
            return getattr(losses, name)
        if name == "VoxelLoss":
            importlib.import_module("voxloss.losses.deprecated").renamed(name, "Loss")
            return losses.Loss
        meant = losses.closest_public(name, losses.__all__)
    else:
        near = [] if name.startswith("_") else difflib.get_close_matches(name, _OTHER_NAMES, 1, 0.75)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
    # With `name=` Python adds no suggestion of its own.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
