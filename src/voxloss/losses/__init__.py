"""Losses for segmenting rare structures in volumes. Stands alone: imports torch, nothing else of this package."""

from voxloss.losses import functional
from voxloss.losses.catalogue import CATALOGUE, Entry, describe, get_loss, list_losses
from voxloss.losses.modules import (
    ComboLoss,
    CosineTverskyLoss,
    CrossEntropyLoss,
    DiceCrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    MixedFocalLoss,
    ModifiedComboLoss,
    TverskyLoss,
    VoxelLoss,
)
from voxloss.losses.statistics import VoxelStatistics, voxel_statistics

__all__ = [
    "CATALOGUE",
    "ComboLoss",
    "CosineTverskyLoss",
    "CrossEntropyLoss",
    "DiceCrossEntropyLoss",
    "DiceLoss",
    "Entry",
    "FocalLoss",
    "FocalTverskyLoss",
    "MixedFocalLoss",
    "ModifiedComboLoss",
    "TverskyLoss",
    "VoxelLoss",
    "VoxelStatistics",
    "describe",
    "functional",
    "get_loss",
    "list_losses",
    "voxel_statistics",
]
