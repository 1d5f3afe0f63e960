"""Losses of a pixelwise and a region term."""

from dataclasses import replace

from voxloss.losses.conventions import (
    ASYMMETRIC,
    BARFOOT,
    BETA,
    DELTA,
    DELTA_CLASS,
    HARDEST,
    MEAN_INDEX,
    NNUNET,
    NNUNET_TOPK,
    ONE_MINUS_GAMMA,
    ONE_OVER_GAMMA,
    OUR_SMOOTHING,
    PAPER,
    SCALAR_ALPHA,
    SHARE,
    SMOOTHING,
    SUMMED,
    UNIFIED,
    UNIFIED_WEIGHT,
    ZHU,
)
from voxloss.losses.curves import Negative, Power
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import (
    ClassWeights,
    Fraction,
    FractionBelowOne,
    NonNegative,
    OptionalFraction,
    OptionalSwitch,
    Overlap,
    Percent,
    Pool,
    Positive,
    PositiveWhole,
    Reduction,
)
from voxloss.losses.terms import Calibration, Pixelwise, Region, Term
from voxloss.losses.voxel_pass.statistics import Bins


def _shares(weight: float | None) -> tuple[float, float]:
    """The factors of a pixelwise and a region term for λ on the first; None: both 1."""
    return (1.0, 1.0) if weight is None else (weight, 1 - weight)


class ComboLoss(Loss):
    """Combo loss.

        α·mean_v[w_y·(-log p_y)] - (1-α)·mean_c index_c(1/2)

    Args:
        alpha: α, share of the cross entropy against the Dice index. None replaces both factors by 1 (simplified Combo).
        beta: β, class weight of every foreground class in the cross entropy, with 1-β for the background. Above 1/2
            missed voxels cost more than false positives. None weighs all classes by 1.

    Example:
        >>> loss = voxloss.ComboLoss(alpha=0.5)
        >>> round(loss(logits, labels).item(), 4)
        0.3874
    """

    alpha: OptionalFraction = None
    beta: OptionalFraction = None
    class_reduction: Reduction = "mean"

    source = PAPER
    equations = "Eqs. 16, 18"
    value_range = "[-1, ∞)"
    conventions = (
        "α = None is the simplified form, Eq. 18; Eq. 16 is published with α = β = 0.5.",
        MEAN_INDEX,
        BETA,
        SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        entropy, overlap = _shares(self.alpha)
        return Pixelwise(beta=self.beta, scale=entropy), self.region(0.5, Negative(), scale=overlap)


class ModifiedComboLoss(Loss):
    """Modified Combo loss.

        α·mean_v[w_y·(-log p_y)] + (1-α)·Σ_c (1 - index_c(δ))

    Args:
        alpha: α, share of the cross entropy against the Tversky loss.
        beta: β, class weight of every foreground class in the cross entropy, with 1-β for the background. Above 1/2
            missed voxels cost more than false positives. None weighs all classes by 1.
        delta: δ, weight of missed voxels (false negatives) in the Tversky loss; false positives weigh 1-δ.

    Example:
        >>> loss = voxloss.ModifiedComboLoss(beta=None)
        >>> round(loss(logits, labels).item(), 4)
        1.5611
    """

    alpha: Fraction = 0.5
    beta: OptionalFraction = 0.5
    delta: Fraction = 0.7

    source = PAPER
    equations = "Eq. 20"
    value_range = "[0, ∞)"
    conventions = (
        "Eq. 20 prints a minus before (1-α). It must be a plus, as the term that follows is a loss already.",
        "The paper leaves α, β and δ free. The defaults are α = β = 0.5 as in Combo and δ = 0.7 as in Tversky.",
        BETA,
        DELTA,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        return Pixelwise(beta=self.beta, scale=self.alpha), self.region(self.delta, scale=1 - self.alpha)


class MixedFocalLoss(Loss):
    """Mixed Focal loss.

        λ·mean_v[α_y·w_y·(1-p_y)^γ_focal·(-log p_y)] + (1-λ)·Σ_c (1 - index_c(δ))^(1/γ_tversky)

    The sum of the focal and the focal Tversky loss.

    Args:
        weight: λ, share of the focal term against the focal Tversky term. None replaces both factors by 1, which is the
            plain sum of the paper's experiments.
        alpha: α, weight of all classes in the focal term, or one per class; a larger one makes missed voxels of its
            class cost more.
        beta: β, class weight of every foreground class in the focal term, with 1-β for the background. Above 1/2
            missed voxels cost more than false positives. None weighs all classes by 1.
        delta: δ, weight of missed voxels (false negatives) in the focal Tversky term; false positives weigh 1-δ.
        gamma_focal: γ_focal, exponent of the focal term, or one per class. Above 0 voxels that are predicted well count
            less.
        gamma_tversky: γ_tversky, inverse of the exponent of the focal Tversky term. Above 1 classes that are predicted
            well keep a larger gradient.

    Example:
        >>> loss = voxloss.MixedFocalLoss(weight=0.5, gamma_tversky=1)
        >>> round(loss(logits, labels).item(), 4)
        1.0728
    """

    weight: OptionalFraction = None
    alpha: ClassWeights = 0.25
    beta: OptionalFraction = None
    delta: Fraction = 0.7
    gamma_focal: ClassWeights = 2.0
    gamma_tversky: Positive = 4 / 3

    source = PAPER
    equations = "Eqs. 23, 24"
    value_range = "[0, ∞)"
    conventions = (
        "weight = None is Eq. 24, the paper's experiments. λ weighs the focal side, as in the paper; in the released "
        "code λ weighs the focal Tversky side.",
        SCALAR_ALPHA,
        ONE_OVER_GAMMA,
        BETA,
        DELTA,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        focal, tversky = _shares(self.weight)
        return (
            Pixelwise(self.gamma_focal, self.alpha, self.beta, focal),
            self.region(self.delta, Power(1 / self.gamma_tversky), scale=tversky),
        )


class UnifiedFocalLoss(Loss):
    """Unified Focal loss.

        λ·mean_v[w_y·(1-p_y)^γ·(-log p_y)] + (1-λ)·Σ_c (1 - index_c(δ))^(1-γ)

    The symmetric form.

    Where:
        w_y: class weight: 1-δ for the background, δ for every other class

    Args:
        weight: λ, share of the pixelwise term against the region term. None replaces both factors by 1.
        delta: δ, weight of missed voxels (false negatives) in the region term, where false positives weigh 1-δ, and of
            the foreground classes in the pixelwise term, where the background weighs 1-δ.
        gamma: γ, exponent of the pixelwise term; the exponent of the region term is 1-γ. A larger one lets voxels that
            are predicted well count less and keeps a larger gradient for classes that are predicted well.

    Example:
        >>> loss = voxloss.UnifiedFocalLoss(weight=0, gamma=0)
        >>> round(loss(logits, labels).item(), 4)
        2.0271
    """

    weight: OptionalFraction = 0.5
    delta: Fraction = 0.6
    gamma: FractionBelowOne = 0.5

    source = UNIFIED
    equations = "L_sUF"
    value_range = "[0, ∞)"
    conventions = (
        UNIFIED_WEIGHT,
        DELTA_CLASS,
        ONE_MINUS_GAMMA,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        pixelwise, overlap = _shares(self.weight)
        return (
            Pixelwise(self.gamma, beta=self.delta, scale=pixelwise),
            self.region(self.delta, Power(1 - self.gamma), scale=overlap),
        )


class AsymmetricUnifiedFocalLoss(Loss):
    """Asymmetric Unified Focal loss.

        λ·mean_v[(1-δ)·(1-p_0)^γ·(-log p_0) where y = 0, δ·(-log p_y) elsewhere]
        + (1-λ)·[(1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ)]

    The pixelwise exponent suppresses the background alone, the exponent of the region term enhances the foreground
    alone. With sigmoid every channel is foreground, and its negative side the background.

    Args:
        weight: λ, share of the pixelwise term against the region term. None replaces both factors by 1.
        delta: δ, weight of missed voxels (false negatives) in the region term, where false positives weigh 1-δ, and of
            the foreground classes in the pixelwise term, where the background weighs 1-δ.
        gamma: γ, exponent of the background in the pixelwise term; the exponent of the foreground in the region term
            is 1-γ. A larger one lets background voxels that are predicted well count less, and keeps a larger gradient
            for foreground classes that are predicted well.

    Example:
        >>> loss = voxloss.AsymmetricUnifiedFocalLoss(weight=0, gamma=0)
        >>> round(loss(logits, labels).item(), 4)
        2.0271
    """

    weight: OptionalFraction = 0.5
    delta: Fraction = 0.6
    gamma: FractionBelowOne = 0.5

    source = UNIFIED
    equations = "L_aUF"
    value_range = "[0, ∞)"
    conventions = (
        UNIFIED_WEIGHT,
        DELTA_CLASS,
        ONE_MINUS_GAMMA,
        ASYMMETRIC,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        pixelwise, overlap = _shares(self.weight)
        return (
            Pixelwise(self.gamma, beta=self.delta, scale=pixelwise, foreground_gamma=0.0),
            self.region(self.delta, Power(1 - self.gamma), background_curve=Power(1.0), scale=overlap),
        )


class DiceFocalLoss(Loss):
    """Dice + focal.

        λ·mean_v[α_y·w_y·(1-p_y)^γ·(-log p_y)] + (1-λ)·mean_c (1 - index_c(1/2))

    Args:
        weight: λ, share of the focal term against the Dice term. None replaces both factors by 1.
        alpha: α, weight of all classes in the focal term, or one per class; a larger one makes missed voxels of its
            class cost more.
        beta: β, class weight of every foreground class in the focal term, with 1-β for the background. Above 1/2
            missed voxels cost more than false positives. None weighs all classes by 1.
        gamma: γ, exponent of the focal term, or one per class. Above 0 voxels that are predicted well count less.

    Example:
        >>> loss = voxloss.DiceFocalLoss(gamma=0)
        >>> round(loss(logits, labels).item(), 4)
        1.7748
    """

    weight: OptionalFraction = None
    alpha: ClassWeights = 1.0
    beta: OptionalFraction = None
    gamma: ClassWeights = 2.0
    class_reduction: Reduction = "mean"

    source = ZHU
    equations = "Dice plus focal"
    value_range = "[0, ∞)"
    conventions = (
        "The region term is the mean over classes, the background included, as in MONAI's loss of this name.",
        "Zhu et al. sum the Dice part over classes, and their λ is a factor of the focal part alone.",
        "α = 1, unlike in the focal loss of the 2021 paper.",
        OUR_SMOOTHING,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        focal, dice = _shares(self.weight)
        return Pixelwise(self.gamma, self.alpha, self.beta, focal), self.region(0.5, scale=dice)


class DiceCrossEntropyLoss(Loss):
    """Dice + cross entropy.

        mean_v[-log p_y] - mean_{c>0} (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s)

    The default loss of nnU-Net v2. The index is that of the whole batch. With sigmoid every channel has a Dice term.
    Missed voxels and false positives weigh the same.

    Where:
        mean_v: mean over the counted voxels v of the batch; with sigmoid the negative side (1-p, 1-t) is added, and the
            channels are averaged
        mean_{c>0}: mean over the foreground classes (see `include_background`)

    Example:
        >>> loss = voxloss.DiceCrossEntropyLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.8129
    """

    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 1e-5

    source = NNUNET
    equations = "its default loss"
    value_range = "[-1, ∞)"
    conventions = (
        "The defaults are those of nnU-Net v2: Dice over the batch, no Dice term of the background, its smoothing.",
        "With sigmoid every channel has its Dice term and the cross entropy is averaged over channels, as in nnU-Net.",
        'The batch is that of this process. nnU-Net adds the Dice sums of all processes: use pool="world" for this.',
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        # nnU-Net adds its smoothing to 2·TP and to 2·TP + FP + FN, which are twice the parts of the index.
        index = replace(self.region(0.5, Negative()), smooth=self.smooth / 2)
        return Pixelwise(channel_mean=True), index


class DiceTopkLoss(Loss):
    """Dice + top-k cross entropy.

        mean_{v∈K}[-log p_y] - mean_{c>0} (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s)

    Dice + cross entropy where the cross entropy is the mean over the hardest voxels alone. The index is that of the
    whole batch. With sigmoid every channel has a Dice term. Missed voxels and false positives weigh the same.

    Where:
        K: the `top_k` per cent of the counted voxels of the batch with the largest -log p_y
        mean_{v∈K}: mean over these voxels; with sigmoid the negative side (1-p, 1-t) is added, and the channels are
            averaged
        mean_{c>0}: mean over the foreground classes (see `include_background`)

    Args:
        top_k: Share of the voxels that count in the cross entropy, in per cent. 100 is Dice + cross entropy.

    Example:
        >>> loss = voxloss.DiceTopkLoss(top_k=25)
        >>> round(loss(logits, labels).item(), 4)
        0.8129
    """

    top_k: Percent = 10.0
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 1e-5

    source = NNUNET_TOPK
    equations = "Dice with TopK loss"
    value_range = "[-1, ∞)"
    conventions = (
        "The defaults are those of nnU-Net's trainer DiceTopK10: 10 per cent, Dice over the batch, no background.",
        *SHARE,
        HARDEST,
    )

    def terms(self) -> tuple[Pixelwise, Region]:
        index = replace(self.region(0.5, Negative()), smooth=self.smooth / 2)  # of twice the parts, as in nnU-Net
        return Pixelwise(channel_mean=True, hardest=self.hardest(self.top_k)), index


class Ml1AceLoss(Loss):
    """Average calibration error beside Dice + cross entropy.

        mean_v[-log p_y] + mean_c (1 - index_c(1/2)) + a·mean_{present c} mean_k |Σ_k (p_c-t_c)| / n_k

    Hard-binned mL1-ACE: among the voxels of similar p_c, the share of class c should be p_c, so that a probability is
    one. Bins with few voxels, which are those of doubt, count as much as others.

    Where:
        Σ_k, n_k: sum over the voxels whose p_c lies in bin k of `bins` equal ones, and their number (with a voxel
            weight, the sum of the weights)
        mean_k: mean over the bins with a voxel
        mean_{present c}: mean over the classes of a sample that its target has; the mean over the samples with one
            follows

    Args:
        ace_weight: a, weight of the calibration error beside Dice + cross entropy.
        bins: The number of bins.

    Example:
        >>> loss = voxloss.Ml1AceLoss()
        >>> round(loss(logits, labels).item(), 4)
        1.7202
    """

    ace_weight: NonNegative = 1.0
    bins: PositiveWhole = 20
    class_reduction: Reduction = "mean"
    overlap: Overlap = "squared"
    smooth: NonNegative = 1e-5

    source = BARFOOT
    equations = "its hard binning, and its released code"
    value_range = "[0, ∞)"
    conventions = (
        "The released settings are 20 bins, all classes, and Dice with squares in the denominator, of each sample; "
        "they multiply all three parts by 0.33. Their Dice adds 1e-5 to the denominator alone.",
        "The calibration error of a class that the target does not have is left out. The released code counts it as 0 "
        "in the mean over classes, or by an option as it is; absent_class is of Dice alone.",
        "A p on the border of two bins is in the lower one. The released code's borders are larger by a factor of "
        "1 + 1.2e-7.",
        "The number of a bin has no gradient, as in the released code.",
        "On a CPU it takes less than twice the time of Dice + cross entropy, both compiled from C "
        "(`benchmarks/further.py`).",
    )

    def terms(self) -> tuple[Term, ...]:
        shared = self.of_classes() | {"overlap": "product", "absent_class": "skip"}
        return (
            Pixelwise(channel_mean=True),
            self.region(0.5),
            Calibration(bins=Bins(self.bins), scale=self.ace_weight, **shared),
        )
