"""Losses for segmenting rare structures in volumes. Stands alone: imports torch, nothing else of this package.

A loss is one class (`distribution`, `region`, `mixed`); `loss` has their base, `functional` their functional forms.
"""

from typing import Any

from voxloss.losses import functional
from voxloss.losses.boundary import BoundaryLoss, HausdorffLoss
from voxloss.losses.cards.card import describe
from voxloss.losses.catalogue import closest_public, get_loss, list_losses
from voxloss.losses.compound import Compound, DeepSupervision
from voxloss.losses.deprecated import renamed
from voxloss.losses.distribution import CrossEntropyLoss, FocalLoss, TopkLoss
from voxloss.losses.label_maps import LabelMaps
from voxloss.losses.loss import Loss
from voxloss.losses.mixed import (
    AsymmetricUnifiedFocalLoss,
    ComboLoss,
    DiceCrossEntropyLoss,
    DiceFocalLoss,
    DiceTopkLoss,
    MixedFocalLoss,
    Ml1AceLoss,
    ModifiedComboLoss,
    UnifiedFocalLoss,
)
from voxloss.losses.order import LovaszLoss
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
from voxloss.losses.schedules import CosineSchedule, LinearSchedule
from voxloss.losses.thin import ClDiceLoss, SkeletonRecallLoss
from voxloss.losses.voxel_pass.further.distances import distance_maps
from voxloss.losses.voxel_pass.lesions.maps import lesion_regions
from voxloss.losses.voxel_pass.skeletons import skeleton_tubes
from voxloss.losses.voxel_pass.statistics import VoxelStatistics, voxel_statistics

__all__ = [
    "AsymmetricFocalTverskyLoss",
    "AsymmetricUnifiedFocalLoss",
    "BlobLoss",
    "BoundaryLoss",
    "CcDiceCeLoss",
    "ClDiceLoss",
    "ComboLoss",
    "Compound",
    "CosineSchedule",
    "CosineTverskyLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceCrossEntropyLoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceTopkLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralisedDiceLoss",
    "HausdorffLoss",
    "JaccardLoss",
    "LabelMaps",
    "LinearSchedule",
    "LogCoshDiceLoss",
    "Loss",
    "LovaszLoss",
    "MccLoss",
    "MixedFocalLoss",
    "Ml1AceLoss",
    "ModifiedComboLoss",
    "SkeletonRecallLoss",
    "TopkLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "VoxelStatistics",
    "describe",
    "distance_maps",
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
        meant = closest_public(name, __all__)  # with `name=` Python adds no suggestion of its own
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}", name=name)
    renamed(name, "Loss")
    return Loss
