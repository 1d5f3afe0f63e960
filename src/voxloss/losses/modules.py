"""The losses as modules: arguments checked and stored once, then `loss(logits, labels, voxel_weight=None)`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from voxloss.losses import builders
from voxloss.losses.evaluate import evaluate
from voxloss.losses.formulas import Formula
from voxloss.losses.options import Options, show_options, split


class VoxelLoss(nn.Module):
    """Base of the losses. `formula` is the loss as a function of `VoxelStatistics`, for sharing a pass over the voxels.

    The arguments given are attributes of the same names, and there is nothing in its state dict.
    """

    build: ClassVar[Callable[..., Formula]]

    def __init__(self, options: Options, **parameters: Any) -> None:
        super().__init__()
        of_formula, self.reading = split(options)
        self.formula: Formula = type(self).build(**parameters, **of_formula)
        shown = inspect.signature(type(self)).parameters
        self.arguments: dict[str, Any] = {name: shown[name].default for name in shown} | parameters | dict(options)
        for name, value in self.arguments.items():
            setattr(self, name, value)

    def forward(self, logits: Tensor, labels: Tensor, voxel_weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in `voxloss.functional`."""
        return evaluate(self.formula, logits, labels, voxel_weight=voxel_weight, **self.reading)

    def extra_repr(self) -> str:
        """The loss's own parameters, and the shared options that differ from its defaults."""
        shown = inspect.signature(type(self)).parameters
        own = [name for name in self.arguments if name not in Options.__annotations__]
        changed = [name for name in self.arguments if name not in own and self.arguments[name] != shown[name].default]
        return ", ".join(f"{name}={self.arguments[name]!r}" for name in own + changed)


@show_options(builders.cross_entropy)
class CrossEntropyLoss(VoxelLoss):
    """Mean of -w_y log p_y (Eqs. 2, 17); see `voxloss.functional.cross_entropy_loss`."""

    build = staticmethod(builders.cross_entropy)

    def __init__(self, *, beta: float | None = None, **options: Unpack[Options]) -> None:
        super().__init__(options, beta=beta)


@show_options(builders.focal)
class FocalLoss(VoxelLoss):
    """Mean of α_y w_y (1-p_y)^γ (-log p_y) (Eqs. 6, 7, 21); see `voxloss.functional.focal_loss`."""

    build = staticmethod(builders.focal)

    def __init__(
        self,
        *,
        alpha: float | Sequence[float] = 0.25,
        gamma: float | Sequence[float] = 2.0,
        beta: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(options, alpha=alpha, gamma=gamma, beta=beta)


@show_options(builders.dice)
class DiceLoss(VoxelLoss):
    """Σ_c (1 - index_c(1/2)) (Eq. 11); see `voxloss.functional.dice_loss`."""

    build = staticmethod(builders.dice)

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(options)


@show_options(builders.tversky)
class TverskyLoss(VoxelLoss):
    """Σ_c (1 - index_c(δ)), δ on the false negatives (Eqs. 13, 19); see `voxloss.functional.tversky_loss`."""

    build = staticmethod(builders.tversky)

    def __init__(self, *, delta: float = 0.7, **options: Unpack[Options]) -> None:
        super().__init__(options, delta=delta)


@show_options(builders.focal_tversky)
class FocalTverskyLoss(VoxelLoss):
    """Σ_c (1 - index_c(δ))^(1/γ) (Eqs. 14, 22); see `voxloss.functional.focal_tversky_loss`."""

    build = staticmethod(builders.focal_tversky)

    def __init__(self, *, delta: float = 0.7, gamma: float = 4 / 3, **options: Unpack[Options]) -> None:
        super().__init__(options, delta=delta, gamma=gamma)


@show_options(builders.cosine_tversky)
class CosineTverskyLoss(VoxelLoss):
    """Σ_c cos^γ(π/2 · index_c(δ)) (Eq. 15); see `voxloss.functional.cosine_tversky_loss`."""

    build = staticmethod(builders.cosine_tversky)

    def __init__(self, *, delta: float = 0.7, gamma: float = 1.0, **options: Unpack[Options]) -> None:
        super().__init__(options, delta=delta, gamma=gamma)


@show_options(builders.combo)
class ComboLoss(VoxelLoss):
    """α·mCE(β) - (1-α)·mean_c index_c(1/2) (Eqs. 16, 18); see `voxloss.functional.combo_loss`."""

    build = staticmethod(builders.combo)

    def __init__(self, *, alpha: float | None = None, beta: float | None = None, **options: Unpack[Options]) -> None:
        super().__init__(options, alpha=alpha, beta=beta)


@show_options(builders.modified_combo)
class ModifiedComboLoss(VoxelLoss):
    """α·mCE(β) + (1-α)·Σ_c (1 - index_c(δ)) (Eq. 20); see `voxloss.functional.modified_combo_loss`."""

    build = staticmethod(builders.modified_combo)

    def __init__(
        self, *, alpha: float = 0.5, beta: float | None = 0.5, delta: float = 0.7, **options: Unpack[Options]
    ) -> None:
        super().__init__(options, alpha=alpha, beta=beta, delta=delta)


@show_options(builders.mixed_focal)
class MixedFocalLoss(VoxelLoss):
    """Focal plus focal Tversky, λ·focal + (1-λ)·focal Tversky with `weight` = λ (Eqs. 23, 24).

    See `voxloss.functional.mixed_focal_loss`.
    """

    build = staticmethod(builders.mixed_focal)

    def __init__(
        self,
        *,
        weight: float | None = None,
        alpha: float | Sequence[float] = 0.25,
        beta: float | None = None,
        delta: float = 0.7,
        gamma_focal: float | Sequence[float] = 2.0,
        gamma_tversky: float = 4 / 3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            options,
            weight=weight,
            alpha=alpha,
            beta=beta,
            delta=delta,
            gamma_focal=gamma_focal,
            gamma_tversky=gamma_tversky,
        )


@show_options(builders.asymmetric_focal_tversky)
class AsymmetricFocalTverskyLoss(VoxelLoss):
    """(1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ); see `voxloss.functional.asymmetric_focal_tversky_loss`."""

    build = staticmethod(builders.asymmetric_focal_tversky)

    def __init__(self, *, delta: float = 0.7, gamma: float = 0.75, **options: Unpack[Options]) -> None:
        super().__init__(options, delta=delta, gamma=gamma)


@show_options(builders.generalised_dice)
class GeneralisedDiceLoss(VoxelLoss):
    """One Dice index of all classes, each weighted by 1/volume²; see `voxloss.functional.generalised_dice_loss`."""

    build = staticmethod(builders.generalised_dice)

    def __init__(self, *, power: float = 2.0, **options: Unpack[Options]) -> None:
        super().__init__(options, power=power)


@show_options(builders.log_cosh_dice)
class LogCoshDiceLoss(VoxelLoss):
    """Σ_c log(cosh(1 - index_c(1/2))); see `voxloss.functional.log_cosh_dice_loss`."""

    build = staticmethod(builders.log_cosh_dice)

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(options)


@show_options(builders.unified_focal)
class UnifiedFocalLoss(VoxelLoss):
    """The symmetric Unified Focal loss; see `voxloss.functional.unified_focal_loss`."""

    build = staticmethod(builders.unified_focal)

    def __init__(
        self, *, weight: float | None = 0.5, delta: float = 0.6, gamma: float = 0.5, **options: Unpack[Options]
    ) -> None:
        super().__init__(options, weight=weight, delta=delta, gamma=gamma)


@show_options(builders.asymmetric_unified_focal)
class AsymmetricUnifiedFocalLoss(VoxelLoss):
    """The asymmetric Unified Focal loss; see `voxloss.functional.asymmetric_unified_focal_loss`."""

    build = staticmethod(builders.asymmetric_unified_focal)

    def __init__(
        self, *, weight: float | None = 0.5, delta: float = 0.6, gamma: float = 0.5, **options: Unpack[Options]
    ) -> None:
        super().__init__(options, weight=weight, delta=delta, gamma=gamma)


@show_options(builders.dice_focal)
class DiceFocalLoss(VoxelLoss):
    """Focal plus the mean soft Dice loss; see `voxloss.functional.dice_focal_loss`."""

    build = staticmethod(builders.dice_focal)

    def __init__(
        self,
        *,
        weight: float | None = None,
        alpha: float | Sequence[float] = 1.0,
        beta: float | None = None,
        gamma: float | Sequence[float] = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(options, weight=weight, alpha=alpha, beta=beta, gamma=gamma)


@show_options(builders.dice_cross_entropy)
class DiceCrossEntropyLoss(VoxelLoss):
    """nnU-Net's cross entropy minus batch Dice without background; see `voxloss.functional.dice_cross_entropy_loss`."""

    build = staticmethod(builders.dice_cross_entropy)

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(options)
