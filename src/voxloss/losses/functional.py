"""The losses as functions of logits, labels and the parameters of the loss: one line per loss.

    tversky_loss(logits, labels, voxel_weight=None, *, mask=None, sample_weight=None, delta=0.7, ...) -> scalar

The order is that of `voxloss.list_losses()`.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, Protocol, cast

from torch import Tensor

from voxloss.losses import documentation
from voxloss.losses.boundary import BoundaryLoss, HausdorffLoss
from voxloss.losses.distribution import CrossEntropyLoss, FocalLoss, TopkLoss
from voxloss.losses.loss import FIRST_CALLS, Loss, argument_text, reference
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

P = ParamSpec("P")


class LossFunction(Protocol[P]):
    """The functional form of a loss; `loss` is its class."""

    loss: type[Loss]

    def __call__(
        self, logits: Tensor, labels: Tensor, voxel_weight: Tensor | None = None, *args: P.args, **kwargs: P.kwargs
    ) -> Tensor:
        """Return the value of the loss."""


def as_function(loss: Callable[P, Loss]) -> LossFunction[P]:
    """Return the functional form of a loss's class, with its parameters and its docstring."""
    cls = cast(type[Loss], loss)

    def function(
        logits: Tensor,
        labels: Tensor,
        voxel_weight: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
        regions: Tensor | None = None,
        distances: Tensor | None = None,
        skeletons: Tensor | None = None,
        **parameters: Any,
    ) -> Tensor:
        loss = cls(**parameters)
        loss.__dict__["_calls"] = FIRST_CALLS  # each call has a new module
        given = {"mask": mask, "sample_weight": sample_weight}
        given |= {"regions": regions, "distances": distances, "skeletons": skeletons}
        value: Tensor = loss(logits, labels, voxel_weight, **given)
        return value

    function.__name__ = function.__qualname__ = f"{cls.name}_loss"
    function.__module__ = __name__
    function.__doc__ = _docstring(cls)
    function.__signature__ = _signature(cls)  # type: ignore[attr-defined]
    function.loss = cls  # type: ignore[attr-defined]
    return cast(LossFunction[P], function)


def _signature(loss: type[Loss]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    call = [inspect.Parameter(name, kind, annotation=Tensor) for name in ("logits", "labels")]
    weight = inspect.Parameter("voxel_weight", kind, default=None, annotation=Tensor | None)
    parameters = list(inspect.signature(loss).parameters.values())
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Tensor | None)
        for name in ("mask", "sample_weight", "regions", "distances", "skeletons")
    ]
    return inspect.Signature([*call, weight, *named, *parameters], return_annotation=Tensor)


def _docstring(loss: type[Loss]) -> str:
    """Return the class's docstring with the arguments of the call first, and its example as a call of the function."""
    parts = loss.documentation
    shape = dict(parts.shape)
    value = shape.pop("value", "")
    example = parts.example
    call = f"voxloss.{loss.__name__}("
    if call in example:
        before, _, rest = example.partition(f">>> loss = {call}")
        written, _, after = rest.partition(")\n")
        arguments = f"logits, labels, {written}" if written else "logits, labels"
        example = before + after.replace("loss(logits, labels)", f"voxloss.functional.{loss.name}_loss({arguments})")
    arguments_of_loss = {name: argument_text(loss, name) for name in loss.arguments}
    changed = replace(parts, arguments=shape | arguments_of_loss, shape={"value": value}, example=example)
    return documentation.write(changed, reference(loss))


cross_entropy_loss = as_function(CrossEntropyLoss)
focal_loss = as_function(FocalLoss)
dice_loss = as_function(DiceLoss)
tversky_loss = as_function(TverskyLoss)
focal_tversky_loss = as_function(FocalTverskyLoss)
cosine_tversky_loss = as_function(CosineTverskyLoss)
combo_loss = as_function(ComboLoss)
modified_combo_loss = as_function(ModifiedComboLoss)
mixed_focal_loss = as_function(MixedFocalLoss)
asymmetric_focal_tversky_loss = as_function(AsymmetricFocalTverskyLoss)
generalised_dice_loss = as_function(GeneralisedDiceLoss)
log_cosh_dice_loss = as_function(LogCoshDiceLoss)
jaccard_loss = as_function(JaccardLoss)
mcc_loss = as_function(MccLoss)
unified_focal_loss = as_function(UnifiedFocalLoss)
asymmetric_unified_focal_loss = as_function(AsymmetricUnifiedFocalLoss)
dice_focal_loss = as_function(DiceFocalLoss)
dice_cross_entropy_loss = as_function(DiceCrossEntropyLoss)
ml1_ace_loss = as_function(Ml1AceLoss)
skeleton_recall_loss = as_function(SkeletonRecallLoss)
cl_dice_loss = as_function(ClDiceLoss)
cc_dice_ce_loss = as_function(CcDiceCeLoss)
blob_loss = as_function(BlobLoss)
boundary_loss = as_function(BoundaryLoss)
hausdorff_loss = as_function(HausdorffLoss)
topk_loss = as_function(TopkLoss)
dice_topk_loss = as_function(DiceTopkLoss)
lovasz_loss = as_function(LovaszLoss)

generalized_dice_loss = generalised_dice_loss  # in American English
