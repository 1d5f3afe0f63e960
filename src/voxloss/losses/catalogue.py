"""The losses of this package by name: those that `functional` exports. Other subclasses of `Loss` are not listed."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from voxloss.losses import functional
from voxloss.losses.loss import Loss, closest, way_out

if TYPE_CHECKING:  # for the types of `get_loss`; a loss is exported by `functional` and the package alone
    from voxloss.losses.boundary import BoundaryLoss, HausdorffLoss
    from voxloss.losses.distribution import CrossEntropyLoss, FocalLoss, TopkLoss
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
    from voxloss.losses.thin import ClDiceLoss, SkeletonRecallLoss

CATALOGUE: dict[str, type[Loss]] = {
    function.loss.name: function.loss for function in vars(functional).values() if hasattr(function, "loss")
}

# Losses that `get_loss` builds of others by their names; `compound` adds itself.
BUILDERS: dict[str, Callable[..., Loss]] = {}

# Names that other libraries and American English have for them.
ALIASES = {
    "ce": "cross_entropy",
    "cldice": "cl_dice",
    "dice_ce": "dice_cross_entropy",
    "generalized_dice": "generalised_dice",
    "dice_top_k": "dice_topk",
    "iou": "jaccard",
    "logcosh_dice": "log_cosh_dice",
    "lovasz_softmax": "lovasz",
    "top_k": "topk",
    "matthews": "mcc",
}


def _plain(name: object) -> str:
    """A name without what libraries write differently: case, separators and "Loss" at the end."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower()).removesuffix("loss")


_NAMES = {_plain(name): ALIASES.get(name, name) for name in (*CATALOGUE, *ALIASES)}


def list_losses() -> list[str]:
    """Return the names that `get_loss` takes."""
    return list(CATALOGUE)


def loss_class(name: str) -> type[Loss]:
    """Return the class of a loss by its name or an alias of it (`ALIASES`), in any case and with any separators.

    Raises:
        ValueError: An unknown name; the message suggests the closest one and lists all.
    """
    known = _NAMES.get(_plain(name))
    if known is None:
        suggestion = closest(str(name).lower(), [*CATALOGUE, *ALIASES])
        raise ValueError(f"unknown loss {name!r}{suggestion}; the losses are {', '.join(CATALOGUE)}")
    return CATALOGUE[known]


def closest_public(name: str, names: Iterable[str]) -> str:
    """Return the question which public name was meant by one that a module does not have; empty where none is close."""
    known = _NAMES.get(_plain(name))
    if known is not None and name.endswith("Loss"):
        return f" (did you mean {CATALOGUE[known].__name__!r}?)"
    return "" if name.startswith("_") else closest(name, names, cutoff=0.75)


@overload
def get_loss(name: Literal["cross_entropy"], **parameters: Any) -> "CrossEntropyLoss": ...
@overload
def get_loss(name: Literal["focal"], **parameters: Any) -> "FocalLoss": ...
@overload
def get_loss(name: Literal["dice"], **parameters: Any) -> "DiceLoss": ...
@overload
def get_loss(name: Literal["tversky"], **parameters: Any) -> "TverskyLoss": ...
@overload
def get_loss(name: Literal["focal_tversky"], **parameters: Any) -> "FocalTverskyLoss": ...
@overload
def get_loss(name: Literal["cosine_tversky"], **parameters: Any) -> "CosineTverskyLoss": ...
@overload
def get_loss(name: Literal["combo"], **parameters: Any) -> "ComboLoss": ...
@overload
def get_loss(name: Literal["modified_combo"], **parameters: Any) -> "ModifiedComboLoss": ...
@overload
def get_loss(name: Literal["mixed_focal"], **parameters: Any) -> "MixedFocalLoss": ...
@overload
def get_loss(name: Literal["asymmetric_focal_tversky"], **parameters: Any) -> "AsymmetricFocalTverskyLoss": ...
@overload
def get_loss(name: Literal["generalised_dice"], **parameters: Any) -> "GeneralisedDiceLoss": ...
@overload
def get_loss(name: Literal["log_cosh_dice"], **parameters: Any) -> "LogCoshDiceLoss": ...
@overload
def get_loss(name: Literal["jaccard"], **parameters: Any) -> "JaccardLoss": ...
@overload
def get_loss(name: Literal["mcc"], **parameters: Any) -> "MccLoss": ...
@overload
def get_loss(name: Literal["unified_focal"], **parameters: Any) -> "UnifiedFocalLoss": ...
@overload
def get_loss(name: Literal["asymmetric_unified_focal"], **parameters: Any) -> "AsymmetricUnifiedFocalLoss": ...
@overload
def get_loss(name: Literal["dice_focal"], **parameters: Any) -> "DiceFocalLoss": ...
@overload
def get_loss(name: Literal["dice_cross_entropy"], **parameters: Any) -> "DiceCrossEntropyLoss": ...
@overload
def get_loss(name: Literal["ml1_ace"], **parameters: Any) -> "Ml1AceLoss": ...
@overload
def get_loss(name: Literal["skeleton_recall"], **parameters: Any) -> "SkeletonRecallLoss": ...
@overload
def get_loss(name: Literal["cl_dice"], **parameters: Any) -> "ClDiceLoss": ...
@overload
def get_loss(name: Literal["cc_dice_ce"], **parameters: Any) -> "CcDiceCeLoss": ...
@overload
def get_loss(name: Literal["blob"], **parameters: Any) -> "BlobLoss": ...
@overload
def get_loss(name: Literal["boundary"], **parameters: Any) -> "BoundaryLoss": ...
@overload
def get_loss(name: Literal["hausdorff"], **parameters: Any) -> "HausdorffLoss": ...
@overload
def get_loss(name: Literal["topk"], **parameters: Any) -> "TopkLoss": ...
@overload
def get_loss(name: Literal["dice_topk"], **parameters: Any) -> "DiceTopkLoss": ...
@overload
def get_loss(name: Literal["lovasz"], **parameters: Any) -> "LovaszLoss": ...
@overload
def get_loss(name: str, **parameters: Any) -> Loss: ...


def get_loss(name: str, **parameters: Any) -> Loss:
    """Return the loss of this name, called as `loss(logits, labels, voxel_weight=None)`.

    Args:
        name: One of `list_losses()`, or an American or usual name such as "generalized_dice", "dice_ce" or "DiceCE";
            or "compound", whose parameters are those of `Compound`.
        parameters: Of the loss, shared ones included; published values by default.

    Raises:
        ValueError: Unknown name, unknown parameter, or a value that a parameter cannot have.
    """
    if (builder := BUILDERS.get(_plain(name))) is not None:
        return builder(**parameters)
    loss = loss_class(name)
    for parameter in parameters:
        if parameter not in loss.arguments:
            raise ValueError(f"loss {name!r} has no parameter {parameter!r}{way_out(loss, parameter)}")
    return loss(**parameters)
