"""Losses of a single region term."""

from voxloss.losses.conventions import (
    ABHISHEK,
    ASYMMETRIC,
    DELTA,
    JADON,
    ONE_MINUS_GAMMA,
    ONE_OVER_GAMMA,
    OUR_SMOOTHING,
    PAPER,
    RAHMAN,
    SMOOTHING,
    SUDRE,
    SUMMED,
    UNIFIED,
)
from voxloss.losses.curves import Cosine, LogCosh, OfUnion, Power
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import (
    Fraction,
    FractionBelowOne,
    NonNegative,
    OptionalSwitch,
    Pool,
    Positive,
    Reduction,
)
from voxloss.losses.terms import GeneralisedDice, Matthews, Region


class DiceLoss(Loss):
    """Dice loss.

        Σ_c (1 - index_c(1/2))

    Missed voxels and false positives weigh the same.

    Example:
        >>> loss = voxloss.DiceLoss(class_reduction="mean")
        >>> round(loss(logits, labels).item(), 4)
        0.6762
    """

    source = PAPER
    equations = "Eq. 11"
    value_range = "[0, C]"
    conventions = (SUMMED, SMOOTHING)

    def terms(self) -> Region:
        return self.region(0.5)


class TverskyLoss(Loss):
    """Tversky loss.

        Σ_c (1 - index_c(δ))

    Args:
        delta: δ, weight of missed voxels (false negatives); false positives weigh 1-δ.

    Example:
        >>> loss = voxloss.TverskyLoss(delta=0.7)
        >>> round(loss(logits, labels).item(), 4)
        2.0236
    """

    delta: Fraction = 0.7

    source = PAPER
    equations = "Eqs. 13, 19"
    value_range = "[0, C]"
    conventions = (
        DELTA,
        "The modified Dice loss of the paper (Eq. 19) is the same function.",
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(self.delta)


class FocalTverskyLoss(Loss):
    """Focal Tversky loss.

        Σ_c (1 - index_c(δ))^(1/γ)

    Args:
        delta: δ, weight of missed voxels (false negatives); false positives weigh 1-δ.
        gamma: γ, the inverse of the exponent. Above 1 classes that are predicted well keep a larger gradient; 1 is the
            Tversky loss. Other libraries call the exponent itself γ: their 0.75 is 4/3 here.

    Example:
        >>> loss = voxloss.FocalTverskyLoss(gamma=1)
        >>> round(loss(logits, labels).item(), 4)
        2.0236
    """

    delta: Fraction = 0.7
    gamma: Positive = 4 / 3

    source = PAPER
    equations = "Eqs. 14, 22"
    value_range = "[0, C]"
    conventions = (
        ONE_OVER_GAMMA,
        DELTA,
        "In Eq. 22, mD means the index mDSC. The modified focal Dice loss defined there is the same function.",
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(self.delta, Power(1 / self.gamma))


class CosineTverskyLoss(Loss):
    """Cosine Tversky loss.

        Σ_c cos^γ(π/2 · index_c(δ))

    Args:
        delta: δ, weight of missed voxels (false negatives); false positives weigh 1-δ.
        gamma: γ, the exponent of the cosine. Above 1 classes that are predicted well cost less.

    Example:
        >>> loss = voxloss.CosineTverskyLoss(delta=0.5)
        >>> round(loss(logits, labels).item(), 4)
        2.611
    """

    delta: Fraction = 0.7
    gamma: Positive = 1.0

    source = PAPER
    equations = "Eq. 15"
    value_range = "[0, C]"
    conventions = (
        "The released code is inverted at γ = 1 (a perfect prediction costs 2, the worst 0). Here Eq. 15 is computed, "
        "which is 0 for a perfect prediction.",
        DELTA,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(self.delta, Cosine(self.gamma))


class AsymmetricFocalTverskyLoss(Loss):
    """Asymmetric Focal Tversky loss.

        (1 - index_0(δ)) + Σ_{c>0} (1 - index_c(δ))^(1-γ)

    The exponent enhances the foreground alone. With sigmoid every channel is foreground.

    Args:
        delta: δ, weight of missed voxels (false negatives); false positives weigh 1-δ.
        gamma: γ, where 1-γ is the exponent (unlike 1/γ in the focal Tversky loss). Above 0 foreground classes that are
            predicted well keep a larger gradient; 0 is the Tversky loss.

    Example:
        >>> loss = voxloss.AsymmetricFocalTverskyLoss(gamma=0)
        >>> round(loss(logits, labels).item(), 4)
        2.0236
    """

    delta: Fraction = 0.7
    gamma: FractionBelowOne = 0.75

    source = UNIFIED
    equations = "L_maFT; δ and γ are the released code's"
    value_range = "[0, C]"
    conventions = (
        ONE_MINUS_GAMMA,
        ASYMMETRIC,
        DELTA,
        SUMMED,
        SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(self.delta, Power(1 - self.gamma), background_curve=Power(1.0))


class GeneralisedDiceLoss(Loss):
    """Generalised Dice loss.

        1 - (Σ_c w_c·TP_c + s) / (Σ_c w_c·(TP_c + (FN_c + FP_c)/2) + s)

    The index is one for all classes, so `class_reduction` has no effect. Missed voxels and false positives weigh the
    same.

    Where:
        w_c: (V_min / V_c)^power, the weight of class c; 1, the largest, for an absent class, and 0 with
            absent_class="skip"
        V_c: TP_c + FN_c, the volume of class c in the labels
        V_min: the smallest V_c that is not 0
        Σ_c: sum over the classes of a sample

    Args:
        power: Exponent of the weights: 2 as published, 1 for weights by volume, 0 for equal weights. A larger one makes
            missed voxels and false positives of rare classes cost more.

    Example:
        >>> loss = voxloss.GeneralisedDiceLoss(power=0)
        >>> round(loss(logits, labels).item(), 4)
        0.6667
    """

    power: NonNegative = 2.0

    source = SUDRE
    equations = "its GDL"
    value_range = "[0, 1]"
    conventions = (
        "Sudre et al. print w_c = 1 / V_c². The additional factor V_min², with V_min the smallest volume that is not "
        "0, cancels in the index except beside s. It keeps s small beside the weighted sums, whatever the volumes.",
        "Sudre et al. do not define w for an absent class. Here it is 1, the weight of the rarest class present, so "
        'that its false positives cost most. absent_class="skip" leaves the class out.',
        "There is one index for all classes together: class_reduction has no effect, and the loss does not grow with "
        "C.",
        "The volumes are those of each sample, or of the whole batch as `pool` says.",
        OUR_SMOOTHING,
    )

    def terms(self) -> GeneralisedDice:
        if self.class_reduction == "none" or self.class_weight is not None:
            raise ValueError(
                "the generalised Dice loss has one index for all classes, weighted by `power`: class_reduction='none' "
                "and class_weight do not apply to it"
            )
        return GeneralisedDice(
            self.power, self.smooth, self.include_background, self.absent_class, self.ignored_samples, self.overlap
        )


class LogCoshDiceLoss(Loss):
    """Log-cosh Dice loss.

        Σ_c log(cosh(1 - index_c(1/2)))

    Missed voxels and false positives weigh the same.

    Example:
        >>> loss = voxloss.LogCoshDiceLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.6421
    """

    source = JADON
    equations = "L_lc-dce"
    value_range = "[0, 0.434·C]"
    conventions = (
        "Jadon takes the log cosh of the Dice loss of a single structure. For several classes it is taken of each "
        "class's Dice loss, and these values are added.",
        "The largest value of a class is log(cosh(1)) = 0.434, and the slope there is 0.762 times that of Dice.",
        OUR_SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(0.5, LogCosh())


class JaccardLoss(Loss):
    """Jaccard loss.

        Σ_c (1 - (TP_c + s) / (TP_c + FN_c + FP_c + s))

    One minus the intersection over the union. Missed voxels and false positives weigh the same. It orders predictions
    of one structure as the Dice loss D does, as it is 2D / (1 + D), with a larger gradient where D is small.

    Example:
        >>> loss = voxloss.JaccardLoss(class_reduction="mean")
        >>> round(loss(logits, labels).item(), 4)
        0.8056
    """

    source = RAHMAN
    equations = "its IoU loss"
    value_range = "[0, C]"
    conventions = (
        "Rahman and Wang have one structure. For several classes it is taken of each class, and the values are added.",
        OUR_SMOOTHING,
    )

    def terms(self) -> Region:
        return self.region(0.5, OfUnion())


class MccLoss(Loss):
    """Matthews correlation loss.

        mean_{c>0} (1 - (TP_c·TN_c - FP_c·FN_c) / √((TP_c + FP_c)·(TP_c + FN_c)·(TN_c + FP_c)·(TN_c + FN_c) + s))

    One minus the correlation of p and t, 0 where FP_c and FN_c are 0. Unlike the Dice index it counts the true
    negatives too. Missed voxels and false positives weigh the same.

    Where:
        TN_c: Σ (1-p_c)·(1-t_c): the true negatives of class c
        mean_{c>0}: mean over the foreground classes (see `include_background`)

    Args:
        smooth: s, added under the root.

    Example:
        >>> loss = voxloss.MccLoss()
        >>> round(loss(logits, labels).item(), 4)
        1.0
    """

    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 1e-7

    source = ABHISHEK
    equations = "Eqs. 3 to 5"
    value_range = "[0, 2]"
    conventions = (
        "The paper has one structure. With several, each is taken against the rest, and the classes are averaged; for "
        "two classes that of the background would be the same.",
        'The sums of the whole batch and s = 1e-7 are the defaults of the released code; pool="sample" takes those of '
        "each sample.",
        "A class without errors costs 0, also where it is absent, or everywhere, and the correlation is 0 / 0, as in "
        "the released code. Elsewhere an absent class costs 1, without a gradient.",
        '`overlap` must be "product", as true negatives have no other form.',
    )

    def terms(self) -> Matthews:
        if self.overlap != "product":
            raise ValueError(f"overlap must be 'product' in the Matthews correlation loss, received {self.overlap!r}")
        return Matthews(**self.of_classes())
