"""Losses for segmenting rare structures in volumes. Stands alone: imports torch, nothing else of this package.

A loss is one class (`distribution`, `region`, `mixed`); `loss` has their base, `functional` their functional forms.
"""

from typing import Any

from voxloss.losses import functional
from voxloss.losses.cards.card import describe
from voxloss.losses.catalogue import get_loss, list_losses
from voxloss.losses.compound import Compound, DeepSupervision
from voxloss.losses.deprecated import renamed
from voxloss.losses.distribution import CrossEntropyLoss, FocalLoss
from voxloss.losses.loss import Loss
from voxloss.losses.mixed import (
    AsymmetricUnifiedFocalLoss,
    ComboLoss,
    DiceCrossEntropyLoss,
    DiceFocalLoss,
    MixedFocalLoss,
    Ml1AceLoss,
    ModifiedComboLoss,
    UnifiedFocalLoss,
)
from voxloss.losses.per_lesion import BlobLoss, CcDiceCeLoss
from voxloss.losses.region import (
    AsymmetricFocalTverskyLoss,
    CosineTverskyLoss,
    DiceLoss,
    FocalTverskyLoss,
    GeneralisedDiceLoss,
    JaccardLoss,
    LogCoshDiceLoss,
    MccLoss,
    TverskyLoss,
)
from voxloss.losses.thin import ClDiceLoss, SkeletonRecallLoss
from voxloss.losses.voxel_pass.lesions.maps import lesion_regions
from voxloss.losses.voxel_pass.skeletons import skeleton_tubes
from voxloss.losses.voxel_pass.statistics import VoxelStatistics, voxel_statistics

__all__ = [
    "AsymmetricFocalTverskyLoss",
    "AsymmetricUnifiedFocalLoss",
    "BlobLoss",
    "CcDiceCeLoss",
    "ClDiceLoss",
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
    "JaccardLoss",
    "LogCoshDiceLoss",
    "Loss",
    "MccLoss",
    "MixedFocalLoss",
    "Ml1AceLoss",
    "ModifiedComboLoss",
    "SkeletonRecallLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "VoxelStatistics",
    "describe",
    "functional",
    "get_loss",
    "lesion_regions",
    "list_losses",
    "skeleton_tubes",
    "voxel_statistics",
]


def __getattr__(name: str) -> Any:
    if name == "GeneralizedDiceLoss":  # in American English
        return GeneralisedDiceLoss
    if name != "VoxelLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed(name, "Loss")
    return Loss
