"""Losses that score every lesion by itself, beside the loss of the whole volume."""

from dataclasses import replace
from typing import Literal

from voxloss.losses.conventions import BOUTEILLE, BY_CLASS, KOFLER, NO_OPTIONS
from voxloss.losses.curves import Curve, Negative, Power
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import AbsentClass, NonNegative, OptionalSwitch, Pool, Reduction
from voxloss.losses.terms import PerLesion, Pixelwise, Term


class CcDiceCeLoss(Loss):
    """CC-DiceCE loss.

        g·(mean_v[-log p_y] - mean_{c>0} (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s))
        + l·mean_{c>0} mean_k [H_k + 1 - (2·TP_k + s) / (2·TP_k + FP_k + FN_k + s)]

    Dice + cross entropy, and the same for every lesion k in its own region, nearer to it than to other lesions: a small
    lesion counts as much as a large one. Missed voxels and false positives weigh the same, but a missed small lesion
    costs as much as a missed large one.

    Where:
        k: a lesion of class c in a sample: a connected component; its region has the voxels nearest to it
        TP_k, FP_k, FN_k: as TP_c, FP_c and FN_c, over the region of the lesion
        H_k: mean of -(t_c·log p_c + (1-t_c)·log(1-p_c)) over the counted voxels of the region of lesion k
        mean_k: mean over the lesions of class c of a sample; where there is none, the whole sample is the region
        mean_v: mean over the counted voxels v of the batch; with sigmoid the negative side (1-p, 1-t) is added, and the
            channels are averaged
        mean_{c>0}: mean over the foreground classes (see `include_background`); in the second line the mean over the
            samples follows

    Args:
        global_weight: g, weight of the loss of the whole volume. 0 leaves it out.
        lesion_weight: l, weight of the mean over the lesions. 0 leaves it out.

    Example:
        >>> loss = voxloss.CcDiceCeLoss()
        >>> round(loss(logits, labels).item(), 4)
        2.1059
    """

    global_weight: NonNegative = 1.0
    lesion_weight: NonNegative = 1.0
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 0.0

    source = BOUTEILLE
    equations = "its released code"
    value_range = "[-1, ∞)"
    conventions = (
        "The defaults are those of the released trainer: both parts with weight 1, no smoothing, lesions by 26 "
        "neighbours, regions by the distance in voxels.",
        "The Dice index of the whole volume is that of the batch, as in dice_cross_entropy; the released code takes it "
        'as nnU-Net\'s plan says. Use pool="sample" for that of each sample.',
        "A sample without a lesion costs 1 plus its cross entropy, as in the released code. Use "
        'absent_class="skip" to leave it out.',
        BY_CLASS,
        NO_OPTIONS,
    )

    def terms(self) -> tuple[Term, ...]:
        return _terms(self, "region", self.global_weight, self.lesion_weight, Negative(), 1.0, self.absent_class)


class BlobLoss(Loss):
    """Blob loss.

        g·(h·mean_v[-log p_y] + mean_{c>0} (1 - (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s)))
        + l·mean_{c>0} mean_k [h·H_k + 1 - (2·TP_k + s) / (2·TP_k + FP_k + FN_k + s)]

    Dice + cross entropy, and the same for every lesion k in the whole volume without the other lesions: a small lesion
    counts as much as a large one. Missed voxels and false positives weigh the same, but every false positive counts
    again for every lesion.

    Where:
        k: a lesion ("blob") of class c in a sample: a connected component; its domain has all voxels but those of the
            other lesions of the class
        TP_k, FP_k, FN_k: as TP_c, FP_c and FN_c, over the domain of the lesion
        H_k: mean of -(t_c·log p_c + (1-t_c)·log(1-p_c)) over the counted voxels of the domain of lesion k
        mean_k: mean over the lesions of class c of a sample
        mean_v: mean over the counted voxels v of the batch; with sigmoid the negative side (1-p, 1-t) is added, and the
            channels are averaged
        mean_{c>0}: mean over the foreground classes (see `include_background`); the mean over the samples follows, in
            the second line over those with a lesion

    Args:
        global_weight: g, weight of the loss of the whole volume (α of the paper). 0 leaves it out.
        lesion_weight: l, weight of the mean over the lesions (β of the paper). 0 leaves it out.
        entropy_weight: h, weight of the cross entropy beside the Dice loss, in both parts. 0 leaves it out.

    Example:
        >>> loss = voxloss.BlobLoss()
        >>> round(loss(logits, labels).item(), 4)
        3.1059
    """

    global_weight: NonNegative = 1.0
    lesion_weight: NonNegative = 1.0
    entropy_weight: NonNegative = 1.0
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    smooth: NonNegative = 1e-5

    source = KOFLER
    equations = "its released code"
    value_range = "[0, ∞)"
    conventions = (
        "The loss of each part is the example of the released code: Dice, with MONAI's smoothing, and cross entropy. "
        "That code takes any weights and has no default; here all are 1.",
        "The other lesions are left out of a lesion's domain, as in the blob loss of Bouteille et al.'s code. The "
        "released code multiplies the network's outputs there by 0 and keeps the voxels: for the Dice loss of sigmoid "
        "outputs this is the same, but its cross entropy is then a mean over all voxels, and where it takes logits the "
        "other lesions add log 2 each.",
        "Samples without a lesion are left out of the second line, as in the released code; absent_class is of the "
        "first line alone.",
        BY_CLASS,
        NO_OPTIONS,
    )

    def terms(self) -> tuple[Term, ...]:
        return _terms(self, "blob", self.global_weight, self.lesion_weight, Power(1.0), self.entropy_weight, "skip")


def _terms(
    loss: Loss,
    domain: Literal["region", "blob"],
    global_weight: float,
    lesion_weight: float,
    curve: Curve,
    entropy: float,
    absent_class: AbsentClass,
) -> tuple[Term, ...]:
    """Cross entropy and Dice of the whole volume, and of every lesion, as far as they have a weight."""
    for name, default in (("overlap", "product"), ("label_smoothing", 0)):
        if getattr(loss, name) != default:
            raise ValueError(f"{name} must be {default!r} in a loss per lesion, received {getattr(loss, name)!r}")
    if isinstance(loss.class_weight, str):
        raise ValueError(f"class_weight must be numbers in a loss per lesion, received {loss.class_weight!r}")
    smooth = loss.smooth / 2  # it is added to 2·TP and to 2·TP + FP + FN, which are twice the parts of the index
    of_lesions = PerLesion(
        domain,
        entropy,
        lesion_weight,
        smooth,
        loss.include_background,
        loss.class_reduction,
        absent_class,
        loss.ignored_samples,
        loss.class_weight,  # type: ignore[arg-type]  # stored as a tuple
    )
    terms: list[Term] = []
    if global_weight and entropy:
        terms.append(Pixelwise(channel_mean=True, scale=global_weight * entropy))
    if global_weight:
        terms.append(replace(loss.region(0.5, curve, scale=global_weight), smooth=smooth))
    if lesion_weight:
        terms.append(of_lesions)
    if not terms:
        raise ValueError("global_weight and lesion_weight must not both be 0")
    return tuple(terms)
