"""The losses as functions: `f(logits, labels, *, parameters, voxel_weight=None, options) -> scalar`.

Notation: p probability, y label, t = 1 where the label is c, TP = Σ p·t, FP = Σ p·(1-t), FN = Σ (1-p)·t per sample and
class, index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s). Region terms are summed over classes and averaged over the
batch; pixelwise terms are divided by the number of counted voxels of the batch, and are 0 where none is counted. With
sigmoid, pixelwise terms have the negative side too and are summed over channels (in dice_cross_entropy averaged).

For every function:
    logits: (B, C, *spatial), any floating type.
    labels: (B, *spatial) or (B, 1, *spatial), whole numbers of any type, or targets (B, C, *spatial) in [0, 1].
    voxel_weight: (B, *spatial), multiplies every voxel's part of the sums, but not the number of voxels.
    Returns a scalar, float32 for logits of float32 or less, else float64. It can be differentiated once.
    Raises ValueError where a shape, a label or a parameter does not fit.

Source of the equations: Yeung, Sala, Schönlieb, Rundo, "A Mixed Focal Loss Function for Handling Class Imbalanced
Medical Image Segmentation", arXiv 2102.04525v1. Where its print errs, `voxloss.losses.describe` says how it is read.
"""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from voxloss.losses import builders
from voxloss.losses.evaluate import evaluate_named
from voxloss.losses.options import Options, show_options


@show_options(builders.cross_entropy)
def cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    beta: float | None = None,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Mean of -w_y log p_y; w_0 = 1-β, w_c = β for c > 0, or 1 for all where β is None. Eqs. 2 and 17.

    beta: in [0, 1]; above 1/2 missed foreground costs more than missed background.
    """
    return evaluate_named(builders.cross_entropy, logits, labels, voxel_weight, options, beta=beta)


@show_options(builders.focal)
def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float | Sequence[float] = 0.25,
    gamma: float | Sequence[float] = 2.0,
    beta: float | None = None,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Mean of α_y w_y (1-p_y)^γ (-log p_y), w as in the cross entropy. Eqs. 6, 7 and 21.

    alpha: weight ≥ 0 of all classes, or one per class; with sigmoid it goes with both sides of its channel.
    gamma: exponent ≥ 0 for all classes, or one per class; 0 is the cross entropy.
    """
    return evaluate_named(builders.focal, logits, labels, voxel_weight, options, alpha=alpha, gamma=gamma, beta=beta)


@show_options(builders.dice)
def dice_loss(
    logits: Tensor, labels: Tensor, *, voxel_weight: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """Σ_c (1 - index_c(1/2)), the soft Dice loss. Eq. 11."""
    return evaluate_named(builders.dice, logits, labels, voxel_weight, options)


@show_options(builders.tversky)
def tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    delta: float = 0.7,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Σ_c (1 - index_c(δ)). Eqs. 13 and 19 (the modified Dice is the same function).

    delta: weight of false negatives in [0, 1]; that of false positives is 1-δ.
    """
    return evaluate_named(builders.tversky, logits, labels, voxel_weight, options, delta=delta)


@show_options(builders.focal_tversky)
def focal_tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    delta: float = 0.7,
    gamma: float = 4 / 3,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Σ_c (1 - index_c(δ))^(1/γ). Eqs. 14 and 22 (the modified focal Dice is the same function).

    gamma: > 0; the exponent is 1/γ. Other libraries call the exponent itself γ: their 0.75 is 4/3 here.
    """
    return evaluate_named(builders.focal_tversky, logits, labels, voxel_weight, options, delta=delta, gamma=gamma)


@show_options(builders.cosine_tversky)
def cosine_tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    delta: float = 0.7,
    gamma: float = 1.0,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Σ_c cos^γ(π/2 · index_c(δ)), 0 for a perfect prediction. Eq. 15.

    gamma: > 0, the exponent of the cosine.
    """
    return evaluate_named(builders.cosine_tversky, logits, labels, voxel_weight, options, delta=delta, gamma=gamma)


@show_options(builders.combo)
def combo_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """α·mCE(β) - (1-α)·mean_c index_c(1/2), or mCE(β) - mean_c index_c(1/2) where α is None. Eqs. 16 and 18.

    alpha: in [0, 1], the share of the cross entropy; None for the plain difference (simplified Combo).
    beta: of the cross entropy, as there.
    """
    return evaluate_named(builders.combo, logits, labels, voxel_weight, options, alpha=alpha, beta=beta)


@show_options(builders.modified_combo)
def modified_combo_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.5,
    beta: float | None = 0.5,
    delta: float = 0.7,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """α·mCE(β) + (1-α)·Σ_c (1 - index_c(δ)). Eq. 20.

    alpha: in [0, 1], the share of the cross entropy.
    beta: of the cross entropy, as there.
    delta: weight of false negatives in [0, 1].
    """
    return evaluate_named(
        builders.modified_combo, logits, labels, voxel_weight, options, alpha=alpha, beta=beta, delta=delta
    )


@show_options(builders.mixed_focal)
def mixed_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: float | None = None,
    alpha: float | Sequence[float] = 0.25,
    beta: float | None = None,
    delta: float = 0.7,
    gamma_focal: float | Sequence[float] = 2.0,
    gamma_tversky: float = 4 / 3,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """λ·focal(α, β, γ_focal) + (1-λ)·focal Tversky(δ, γ_tversky), or their plain sum. Eqs. 23 and 24.

    weight: λ in [0, 1], on the focal side; None for the plain sum of the paper's experiments.
    alpha, beta, gamma_focal: of the focal loss; delta, gamma_tversky: of the focal Tversky loss.
    """
    return evaluate_named(
        builders.mixed_focal,
        logits,
        labels,
        voxel_weight,
        options,
        weight=weight,
        alpha=alpha,
        beta=beta,
        delta=delta,
        gamma_focal=gamma_focal,
        gamma_tversky=gamma_tversky,
    )


@show_options(builders.asymmetric_focal_tversky)
def asymmetric_focal_tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    delta: float = 0.7,
    gamma: float = 0.75,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """(1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ): the exponent enhances the foreground alone.

    With sigmoid every channel is foreground. Yeung et al. 2022, L_maFT.

    delta: weight of false negatives in [0, 1].
    gamma: in [0, 1); the exponent is 1-γ, unlike 1/γ in the focal Tversky loss.
    """
    return evaluate_named(
        builders.asymmetric_focal_tversky, logits, labels, voxel_weight, options, delta=delta, gamma=gamma
    )


@show_options(builders.generalised_dice)
def generalised_dice_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    power: float = 2.0,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """1 - (Σ_c w_c TP_c + s) / (Σ_c w_c (TP_c + (FN_c + FP_c) / 2) + s), w_c = (V_min / V_c)^power. Sudre et al. 2017.

    V_c = TP_c + FN_c is the volume of class c in the labels, V_min the smallest that is not 0. A class that is absent
    has the weight 1, the largest, or with absent_class="skip" none. class_reduction has no effect: the index is one.

    power: ≥ 0; 2 as published, 1 for weights by volume, 0 for equal weights.
    """
    return evaluate_named(builders.generalised_dice, logits, labels, voxel_weight, options, power=power)


@show_options(builders.log_cosh_dice)
def log_cosh_dice_loss(
    logits: Tensor, labels: Tensor, *, voxel_weight: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """Σ_c log(cosh(1 - index_c(1/2))). Jadon 2020."""
    return evaluate_named(builders.log_cosh_dice, logits, labels, voxel_weight, options)


@show_options(builders.unified_focal)
def unified_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: float | None = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """λ·mean of w_y (1-p_y)^γ (-log p_y) + (1-λ)·Σ_c (1 - index_c(δ))^(1-γ), w_0 = 1-δ, w_c = δ for c > 0.

    The symmetric Unified Focal loss of Yeung et al. 2022.

    weight: λ in [0, 1], on the pixelwise side; None for the plain sum.
    delta: in [0, 1], of foreground against background in the pixelwise and of false negatives in the region term.
    gamma: in [0, 1), the exponent of the pixelwise term; that of the region term is 1-γ.
    """
    return evaluate_named(
        builders.unified_focal, logits, labels, voxel_weight, options, weight=weight, delta=delta, gamma=gamma
    )


@show_options(builders.asymmetric_unified_focal)
def asymmetric_unified_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: float | None = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """The Unified Focal loss that suppresses the background alone and enhances the foreground alone.

    The pixelwise exponent is γ for the background and 0 for the other classes (with sigmoid for the negative and the
    positive sides), that of the region term 1 for the background and 1-γ for the others. Yeung et al. 2022.

    weight, delta, gamma: as of the Unified Focal loss.
    """
    return evaluate_named(
        builders.asymmetric_unified_focal,
        logits,
        labels,
        voxel_weight,
        options,
        weight=weight,
        delta=delta,
        gamma=gamma,
    )


@show_options(builders.dice_focal)
def dice_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: float | None = None,
    alpha: float | Sequence[float] = 1.0,
    beta: float | None = None,
    gamma: float | Sequence[float] = 2.0,
    voxel_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """λ·focal(α, β, γ) + (1-λ)·mean_c (1 - index_c(1/2)), or their plain sum. Zhu et al. 2019.

    weight: λ in [0, 1], on the focal side; None for the plain sum.
    alpha, beta, gamma: of the focal loss.
    """
    return evaluate_named(
        builders.dice_focal,
        logits,
        labels,
        voxel_weight,
        options,
        weight=weight,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
    )


@show_options(builders.dice_cross_entropy)
def dice_cross_entropy_loss(
    logits: Tensor, labels: Tensor, *, voxel_weight: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """Cross entropy - mean_{c>0} (2·TP + s) / (2·TP + FP + FN + s), TP, FP, FN over the batch, s = 1e-5.

    The default loss of nnU-Net v2 (its DC_and_CE_loss), in [-1, ∞). As there, channel 0 has no Dice term under softmax
    and has one with sigmoid, where the cross entropy is averaged over channels.
    """
    return evaluate_named(builders.dice_cross_entropy, logits, labels, voxel_weight, options)
