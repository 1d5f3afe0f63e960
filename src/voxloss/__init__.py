"""voxloss: losses for segmenting rare structures in medical volumes.

    loss = voxloss.get_loss("mixed_focal")
    loss(logits, labels).backward()  # logits (B, C, *spatial), labels (B, *spatial) or (B, 1, *spatial)

The losses, and torch with them, are imported when one of the names below is first used, so that commands which need
neither start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from voxloss.losses import (
        AsymmetricFocalTverskyLoss,
        AsymmetricUnifiedFocalLoss,
        ComboLoss,
        Compound,
        CosineTverskyLoss,
        CrossEntropyLoss,
        DeepSupervision,
        DiceCrossEntropyLoss,
        DiceFocalLoss,
        DiceLoss,
        FocalLoss,
        FocalTverskyLoss,
        GeneralisedDiceLoss,
        LogCoshDiceLoss,
        MixedFocalLoss,
        ModifiedComboLoss,
        TverskyLoss,
        UnifiedFocalLoss,
        VoxelLoss,
        VoxelStatistics,
        functional,
        get_loss,
        list_losses,
        voxel_statistics,
    )

__all__ = [
    "AsymmetricFocalTverskyLoss",
    "AsymmetricUnifiedFocalLoss",
    "ComboLoss",
    "Compound",
    "CosineTverskyLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceCrossEntropyLoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralisedDiceLoss",
    "LogCoshDiceLoss",
    "MixedFocalLoss",
    "ModifiedComboLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "VoxelLoss",
    "VoxelStatistics",
    "__version__",
    "functional",
    "get_loss",
    "list_losses",
    "voxel_statistics",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("voxloss.losses"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
