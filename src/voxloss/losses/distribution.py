"""Losses of a single pixelwise term."""

from voxloss.losses.conventions import BETA, HARDEST, NNUNET_TOPK, PAPER, SCALAR_ALPHA, SHARE
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import ClassWeights, OptionalFraction, Percent, Pool
from voxloss.losses.terms import Pixelwise


class CrossEntropyLoss(Loss):
    """Cross entropy.

        mean_v[w_y·(-log p_y)]

    Args:
        beta: β, class weight of every foreground class, with 1-β for the background. Above 1/2 missed voxels cost more
            than false positives. None weighs all classes by 1.

    Example:
        >>> loss = voxloss.CrossEntropyLoss(beta=0.7)
        >>> round(loss(logits, labels).item(), 4)
        0.5493
    """

    beta: OptionalFraction = None

    source = PAPER
    equations = "Eqs. 2, 17"
    value_range = "[0, ∞)"
    conventions = (BETA,)

    def terms(self) -> Pixelwise:
        return Pixelwise(beta=self.beta)


class FocalLoss(Loss):
    """Focal loss.

        mean_v[α_y·w_y·(1-p_y)^γ·(-log p_y)]

    Args:
        alpha: α, weight of all classes, or one per class; a larger one makes missed voxels of its class cost more. With
            sigmoid it multiplies both sides of its channel.
        gamma: γ, exponent for all classes, or one per class. Above 0 voxels that are predicted well count less; 0 is
            the cross entropy.
        beta: β, class weight of every foreground class, with 1-β for the background. Above 1/2 missed voxels cost more
            than false positives. None weighs all classes by 1.

    Example:
        >>> loss = voxloss.FocalLoss(gamma=1)
        >>> round(loss(logits, labels).item(), 4)
        0.1831
    """

    alpha: ClassWeights = 0.25
    gamma: ClassWeights = 2.0
    beta: OptionalFraction = None

    source = PAPER
    equations = "Eqs. 6, 7, 21"
    value_range = "[0, ∞)"
    conventions = (
        SCALAR_ALPHA,
        "Eq. 21 prints one minus sign too many: the modified cross entropy is positive already.",
        BETA,
    )

    def terms(self) -> Pixelwise:
        return Pixelwise(self.gamma, self.alpha, self.beta)


class TopkLoss(Loss):
    """Top-k cross entropy.

        mean_{v∈K}[-log p_y]

    The mean over the hardest voxels, those with the largest cross entropy. Voxels that are predicted well do not count,
    however many there are.

    Where:
        K: the `top_k` per cent of the counted voxels of the batch with the largest -log p_y
        mean_{v∈K}: mean over these voxels; with sigmoid the negative side (1-p, 1-t) is added, and the channels are
            summed

    Args:
        top_k: Share of the voxels that count, in per cent. 100 is the cross entropy.

    Example:
        >>> loss = voxloss.TopkLoss(top_k=25)
        >>> round(loss(logits, labels).item(), 4)
        1.0986
    """

    top_k: Percent = 10.0
    pool: Pool = "batch"

    source = NNUNET_TOPK
    equations = "TopK loss"
    value_range = "[0, ∞)"
    conventions = (*SHARE, HARDEST)

    def terms(self) -> Pixelwise:
        return Pixelwise(hardest=self.hardest(self.top_k))
