"""The catalogue's texts: what every loss computes, where it is from, and how the print was read."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from voxloss.losses import functional, modules
from voxloss.losses.modules import VoxelLoss
from voxloss.losses.options import Options

PAPER = (
    'Yeung, Sala, Schönlieb, Rundo, "A Mixed Focal Loss Function for Handling Class Imbalanced Medical Image '
    'Segmentation", arXiv 2102.04525v1'
)
UNIFIED = (
    'Yeung, Sala, Schönlieb, Rundo, "Unified Focal loss: Generalising Dice and cross entropy-based losses to handle '
    'class imbalanced medical image segmentation", Computerized Medical Imaging and Graphics 95, 102026, 2022'
)
SUDRE = (
    'Sudre et al., "Generalised Dice Overlap as a Deep Learning Loss Function for Highly Unbalanced Segmentations", '
    "DLMIA 2017, arXiv 1707.03237"
)
JADON = 'Jadon, "A survey of loss functions for semantic segmentation", CIBCB 2020, arXiv 2006.14822'
ZHU = (
    'Zhu et al., "AnatomyNet: Deep learning for fast and fully automated whole-volume segmentation of head and neck '
    'anatomy", Medical Physics 46, 2019'
)
NNUNET = 'Isensee et al., "nnU-Net", Nature Methods 18, 2021; its version 2 source, DC_and_CE_loss'

DELTA = (
    "δ weighs the false negatives. Eqs. 9 and 12 as printed put it on p0·g1, a false positive; the text, Salehi et al. "
    "(2017) and the authors' released code put δ = 0.7 on false negatives."
)
SUMMED = (
    "The sum over all classes, background included, averaged over the batch, as the paper prints it. The released code "
    'divides by the number of classes: class_reduction="mean".'
)
SMOOTHING = "Smoothing 1e-6 and sums per sample are the released code's; the paper writes neither."
ONE_OVER_GAMMA = (
    "The exponent is 1/γ, as in Eq. 14. Other libraries and the authors' later code call the exponent itself γ: their "
    "0.75 is γ = 4/3 here."
)
SCALAR_ALPHA = (
    "α = 0.25 multiplies every class, as the protocol gives a scalar; Eq. 7 calls α a vector of class weights (give "
    "one per class), and the released code has none, which makes the focal part four times as large."
)
BETA = (
    "Eq. 17 prints t - log(p) for t·log(p). Read as class weights, 1-β for the background and β for all other classes, "
    "it extends to several classes. The released code puts β on the background channel."
)
ONE_MINUS_GAMMA = (
    "The exponent of the region term is 1-γ, as in L_maFT and the released code. (The symmetric form prints γ there "
    "and 1-γ in the pixelwise term; at the published γ = 0.5 all agree.)"
)
ASYMMETRIC = (
    "Channel 0 is the background, every other class is rare. With sigmoid every channel is foreground, its negative "
    "side the background."
)
DELTA_CLASS = (
    "In the pixelwise term δ is the weight of the foreground classes and 1-δ that of the background (with sigmoid of "
    "the positive and negative sides); in the region term it weighs the false negatives."
)
UNIFIED_WEIGHT = (
    "λ weighs the pixelwise side, as in the paper; the released code weighs the focal Tversky side by it. At the "
    "published 0.5 both agree."
)
MEAN_INDEX = (
    "For several classes the Dice index of Combo is the mean over classes, as in the released code, so the loss lies "
    "in [-1, ∞). A negative loss upsets schedules with a relative threshold."
)


@dataclass(frozen=True)
class Entry:
    """One loss of the catalogue. In its texts C is the number of classes."""

    name: str
    title: str
    family: Literal["distribution", "region", "compound"]
    module: type[VoxelLoss]
    function: Callable[..., Tensor]
    equation: str
    equations: str
    value_range: str
    notes: tuple[str, ...]
    source: str = PAPER

    @property
    def parameters(self) -> dict[str, Any]:
        """The loss's own parameters and their defaults, which are the published values."""
        return {name: value for name, value in self.accepted.items() if name not in Options.__annotations__}

    @property
    def accepted(self) -> dict[str, Any]:
        """Everything that `get_loss` takes for it, with defaults: own parameters, then the shared options."""
        return {name: shown.default for name, shown in inspect.signature(self.module).parameters.items()}


ENTRIES = (
    Entry(
        "cross_entropy",
        "Cross entropy",
        "distribution",
        modules.CrossEntropyLoss,
        functional.cross_entropy_loss,
        "mean of -w_y log p_y; w_0 = 1-β, w_c = β for c > 0; β = None: w = 1",
        "Eqs. 2, 17",
        "[0, ∞)",
        (BETA,),
    ),
    Entry(
        "focal",
        "Focal loss",
        "distribution",
        modules.FocalLoss,
        functional.focal_loss,
        "mean of α_y w_y (1-p_y)^γ (-log p_y), w as in the cross entropy",
        "Eqs. 6, 7, 21",
        "[0, ∞)",
        (SCALAR_ALPHA, "Eq. 21 prints one minus sign too many: the modified cross entropy is positive already.", BETA),
    ),
    Entry(
        "dice",
        "Soft Dice loss",
        "region",
        modules.DiceLoss,
        functional.dice_loss,
        "Σ_c (1 - index_c(1/2)), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "Eq. 11",
        "[0, C]",
        (SUMMED, SMOOTHING),
    ),
    Entry(
        "tversky",
        "Tversky loss",
        "region",
        modules.TverskyLoss,
        functional.tversky_loss,
        "Σ_c (1 - index_c(δ)), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "Eqs. 13, 19",
        "[0, C]",
        (DELTA, SUMMED, SMOOTHING),
    ),
    Entry(
        "focal_tversky",
        "Focal Tversky loss",
        "region",
        modules.FocalTverskyLoss,
        functional.focal_tversky_loss,
        "Σ_c (1 - index_c(δ))^(1/γ), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "Eqs. 14, 22",
        "[0, C]",
        (ONE_OVER_GAMMA, DELTA, "In Eq. 22, mD means the index mDSC.", SUMMED, SMOOTHING),
    ),
    Entry(
        "cosine_tversky",
        "Cosine Tversky loss",
        "region",
        modules.CosineTverskyLoss,
        functional.cosine_tversky_loss,
        "Σ_c cos^γ(π/2 · index_c(δ)), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "Eq. 15",
        "[0, C]",
        (
            "The released code's is inverted at γ = 1 (a perfect prediction costs 2, the worst 0); this is Eq. 15.",
            DELTA,
            SUMMED,
            SMOOTHING,
        ),
    ),
    Entry(
        "combo",
        "Combo loss",
        "compound",
        modules.ComboLoss,
        functional.combo_loss,
        "α·mCE(β) - (1-α)·mean_c index_c(1/2); α = None: mCE(β) - mean_c index_c(1/2)",
        "Eqs. 16, 18",
        "[-1, ∞)",
        ("α = None is the simplified form, Eq. 18; Eq. 16 is published with α = β = 0.5.", MEAN_INDEX, BETA, SMOOTHING),
    ),
    Entry(
        "modified_combo",
        "Modified Combo loss",
        "compound",
        modules.ModifiedComboLoss,
        functional.modified_combo_loss,
        "α·mCE(β) + (1-α)·Σ_c (1 - index_c(δ))",
        "Eq. 20",
        "[0, ∞)",
        (
            "Eq. 20 prints a minus before (1-α); it must be plus, as what follows is a loss already.",
            "The paper leaves α, β and δ free: the defaults are Combo's α = β = 0.5 and Tversky's δ = 0.7.",
            BETA,
            DELTA,
            SUMMED,
            SMOOTHING,
        ),
    ),
    Entry(
        "mixed_focal",
        "Mixed Focal loss",
        "compound",
        modules.MixedFocalLoss,
        functional.mixed_focal_loss,
        "λ·focal(α, β, γ_focal) + (1-λ)·focal Tversky(δ, γ_tversky), λ = weight; None: the plain sum",
        "Eqs. 23, 24",
        "[0, ∞)",
        (
            "weight = None is Eq. 24, the paper's experiments. λ weighs the focal side, as in the paper; the released "
            "code weighs the focal Tversky side by it.",
            SCALAR_ALPHA,
            ONE_OVER_GAMMA,
            BETA,
            DELTA,
            SUMMED,
            SMOOTHING,
        ),
    ),
    Entry(
        "asymmetric_focal_tversky",
        "Asymmetric Focal Tversky loss",
        "region",
        modules.AsymmetricFocalTverskyLoss,
        functional.asymmetric_focal_tversky_loss,
        "(1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "L_maFT; δ and γ are the released code's",
        "[0, C]",
        (ONE_MINUS_GAMMA, ASYMMETRIC, DELTA, SUMMED, SMOOTHING),
        UNIFIED,
    ),
    Entry(
        "generalised_dice",
        "Generalised Dice loss",
        "region",
        modules.GeneralisedDiceLoss,
        functional.generalised_dice_loss,
        "1 - (Σ_c w_c TP_c + s) / (Σ_c w_c (TP_c + (FN_c + FP_c)/2) + s), w_c = (V_min / V_c)^power, V_c = TP_c + FN_c",
        "its GDL",
        "[0, 1]",
        (
            "Sudre et al. print w_c = 1 / V_c². The factor V_min², with V_min the smallest volume that is not 0, "
            "cancels in the index but for s, which so stays small beside the weighted sums, whatever the volumes.",
            "They do not say what w is for an absent class. Here it is that of the rarest class present, 1: its false "
            'positives cost most. absent_class="skip" leaves it out.',
            "One index for all classes together: class_reduction has no effect, and the loss does not grow with C.",
            "The volumes are of each sample, or of the batch as pooled.",
            "Smoothing 1e-6 and sums per sample are those of the other losses here.",
        ),
        SUDRE,
    ),
    Entry(
        "log_cosh_dice",
        "Log-cosh Dice loss",
        "region",
        modules.LogCoshDiceLoss,
        functional.log_cosh_dice_loss,
        "Σ_c log(cosh(1 - index_c(1/2))), index_c(δ) = (TP + s) / (TP + δ·FN + (1-δ)·FP + s)",
        "L_lc-dce",
        "[0, 0.434·C]",
        (
            "Jadon takes the log cosh of the Dice loss of a single structure; for several classes it is taken of each "
            "class's Dice loss, and these are added up.",
            "The largest value of a class is log(cosh(1)) = 0.434, and its slope there 0.762 of that of Dice.",
            "Smoothing 1e-6 and sums per sample are those of the other losses here.",
        ),
        JADON,
    ),
    Entry(
        "unified_focal",
        "Unified Focal loss, symmetric",
        "compound",
        modules.UnifiedFocalLoss,
        functional.unified_focal_loss,
        "λ·mean of w_y (1-p_y)^γ (-log p_y) + (1-λ)·Σ_c (1 - index_c(δ))^(1-γ), w_0 = 1-δ, w_c = δ for c > 0",
        "L_sUF",
        "[0, ∞)",
        (UNIFIED_WEIGHT, DELTA_CLASS, ONE_MINUS_GAMMA, SUMMED, SMOOTHING),
        UNIFIED,
    ),
    Entry(
        "asymmetric_unified_focal",
        "Unified Focal loss, asymmetric",
        "compound",
        modules.AsymmetricUnifiedFocalLoss,
        functional.asymmetric_unified_focal_loss,
        "λ·mean of [(1-δ) (1-p_0)^γ (-log p_0) where y = 0, δ (-log p_y) elsewhere] "
        "+ (1-λ)·[(1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ)]",
        "L_aUF",
        "[0, ∞)",
        (UNIFIED_WEIGHT, DELTA_CLASS, ONE_MINUS_GAMMA, ASYMMETRIC, SUMMED, SMOOTHING),
        UNIFIED,
    ),
    Entry(
        "dice_focal",
        "Dice and focal loss",
        "compound",
        modules.DiceFocalLoss,
        functional.dice_focal_loss,
        "λ·mean of α_y w_y (1-p_y)^γ (-log p_y) + (1-λ)·mean_c (1 - index_c(1/2)), λ = weight; None: the plain sum",
        "Dice plus focal; their Dice part is summed over classes, and their λ is a factor of the focal part alone",
        "[0, ∞)",
        (
            "The region term is the mean over classes, the background included, as in MONAI's loss of this name.",
            "α = 1, unlike in the focal loss of the 2021 paper.",
            "Smoothing 1e-6 and sums per sample are those of the other losses here.",
        ),
        ZHU,
    ),
    Entry(
        "dice_cross_entropy",
        "Dice and cross entropy (nnU-Net)",
        "compound",
        modules.DiceCrossEntropyLoss,
        functional.dice_cross_entropy_loss,
        "CE - mean_{c>0} (2·TP + s) / (2·TP + FP + FN + s), TP, FP, FN over the batch, s = 1e-5",
        "not in the paper",
        "[-1, ∞)",
        (
            "nnU-Net v2's defaults: batch Dice, no Dice term of the background, its smoothing.",
            "With sigmoid every channel has its Dice term and the cross entropy is averaged over channels, as there.",
            'The batch is this process\'s; nnU-Net adds up the Dice sums of all processes: pool="world".',
        ),
        NNUNET,
    ),
)
