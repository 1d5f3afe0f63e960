"""Losses for segmenting rare structures in volumes. Stands alone: imports torch, nothing else of this package."""

from voxloss.losses import functional
from voxloss.losses.card import describe
from voxloss.losses.catalogue import CATALOGUE, get_loss, list_losses
from voxloss.losses.entries import Entry
from voxloss.losses.modules import (
    AsymmetricFocalTverskyLoss,
    AsymmetricUnifiedFocalLoss,
    ComboLoss,
    CosineTverskyLoss,
    CrossEntropyLoss,
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
)
from voxloss.losses.statistics import VoxelStatistics, voxel_statistics
from voxloss.losses.wrappers import Compound, DeepSupervision

__all__ = [
    "CATALOGUE",
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
    "Entry",
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
    "describe",
    "functional",
    "get_loss",
    "list_losses",
    "voxel_statistics",
]
