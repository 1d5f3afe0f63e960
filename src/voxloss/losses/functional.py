"""The losses as functions: `f(logits, labels, *, parameters, voxel_weight=None, options) -> scalar`.

Notation: p probability, y label, t = 1 where the label is c, TP = Σ p·t, FP = Σ p·(1-t), FN = Σ (1-p)·t per sample and
class, index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s). Region terms are summed over classes and averaged over the
batch; pixelwise terms are divided by the number of counted voxels of the batch, and are 0 where none is counted. With
sigmoid, pixelwise terms have the negative side too and are summed over channels.

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

import torch
from torch import Tensor

from voxloss.losses import formulas
from voxloss.losses.formulas import Formula
from voxloss.losses.options import Options, show_options, split
from voxloss.losses.statistics import voxel_statistics


def evaluate(
    formula: Formula,
    logits: Tensor,
    labels: Tensor,
    *,
    activation: str = "softmax",
    ignore_index: int | None = None,
    voxel_weight: Tensor | None = None,
    validate: bool | None = None,
) -> Tensor:
    """One pass over the voxels, and the formula over its sums, in the logits' type or float32 if that is more."""
    statistics = voxel_statistics(
        logits,
        labels,
        focal_exponents=formula.exponents,
        activation=activation,
        ignore_index=ignore_index,
        voxel_weight=voxel_weight,
        validate=validate,
    )
    return formula(statistics).to(torch.promote_types(logits.dtype, torch.float32))


@show_options(formulas.cross_entropy)
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
    region, reading = split(options)
    formula = formulas.cross_entropy(beta=beta, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.focal)
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
    region, reading = split(options)
    formula = formulas.focal(alpha=alpha, gamma=gamma, beta=beta, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.dice)
def dice_loss(
    logits: Tensor, labels: Tensor, *, voxel_weight: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """Σ_c (1 - index_c(1/2)), the soft Dice loss. Eq. 11."""
    region, reading = split(options)
    return evaluate(formulas.dice(**region), logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.tversky)
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
    region, reading = split(options)
    return evaluate(formulas.tversky(delta=delta, **region), logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.focal_tversky)
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
    region, reading = split(options)
    formula = formulas.focal_tversky(delta=delta, gamma=gamma, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.cosine_tversky)
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
    region, reading = split(options)
    formula = formulas.cosine_tversky(delta=delta, gamma=gamma, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.combo)
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
    region, reading = split(options)
    formula = formulas.combo(alpha=alpha, beta=beta, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.modified_combo)
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
    region, reading = split(options)
    formula = formulas.modified_combo(alpha=alpha, beta=beta, delta=delta, **region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.mixed_focal)
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
    region, reading = split(options)
    formula = formulas.mixed_focal(
        weight=weight,
        alpha=alpha,
        beta=beta,
        delta=delta,
        gamma_focal=gamma_focal,
        gamma_tversky=gamma_tversky,
        **region,
    )
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)


@show_options(formulas.dice_cross_entropy)
def dice_cross_entropy_loss(
    logits: Tensor, labels: Tensor, *, voxel_weight: Tensor | None = None, **options: Unpack[Options]
) -> Tensor:
    """Cross entropy - mean_{c>0} (2·TP + s) / (2·TP + FP + FN + s), TP, FP, FN over the batch, s = 1e-5.

    The default loss of nnU-Net v2 (its DC_and_CE_loss), in [-1, ∞). As there, channel 0 has no Dice term under softmax
    and has one with sigmoid; unlike there, the cross entropy with sigmoid is summed over channels.
    """
    region, reading = split(options)
    formula = formulas.dice_cross_entropy(**region)
    return evaluate(formula, logits, labels, voxel_weight=voxel_weight, **reading)
