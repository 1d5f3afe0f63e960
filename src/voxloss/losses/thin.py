"""Losses for thin structures such as vessels, which look at their centre lines."""

from dataclasses import replace

from voxloss.losses.conventions import KIRCHHOFF, SHIT
from voxloss.losses.curves import Negative
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import Fraction, Iterations, NonNegative, OptionalSwitch, Pool, Reduction
from voxloss.losses.terms import CentreLine, OfClasses, Pixelwise, Recall, Term
from voxloss.losses.voxel_pass.further.passes import CentreLines


class SkeletonRecallLoss(Loss):
    """Skeleton Recall loss.

        mean_v[-log p_y] - mean_{c>0} (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s)
        - r·mean_{c>0} (Σ k·p_c·t_c + s) / (Σ k·t_c + s)

    Dice + cross entropy, and the recall of the skeleton of each structure, a little widened: a voxel that is missed
    there, where a thin structure would break, costs more than one at its border. False positives cost what they do in
    Dice + cross entropy.

    Where:
        k: 1 within two voxels of the skeleton of the foreground, else 0; with sigmoid, of that of each channel
        mean_v: mean over the counted voxels v of the batch; with sigmoid the negative side (1-p, 1-t) is added, and the
            channels are averaged
        mean_{c>0}: mean over the foreground classes (see `include_background`)

    Args:
        recall_weight: r, weight of the recall beside Dice + cross entropy.

    Example:
        >>> loss = voxloss.SkeletonRecallLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.4796
    """

    recall_weight: NonNegative = 1.0
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 1e-5

    source = KIRCHHOFF
    equations = "its released code"
    value_range = "[-2, ∞)"
    conventions = (
        "The defaults are those of the released trainer: all three parts with weight 1, smoothing 1e-5, no background, "
        'and the indices of the batch; it takes them as nnU-Net\'s plan says, as pool="sample" does for those of each '
        "sample.",
        "Skeletons are those of scikit-image, widened by two steps along the axes and cut to the structure, as in the "
        "released code; with several classes that of all foreground together. With sigmoid, which that code does not "
        "have, each channel has its own.",
        "Voxels with an ignored label belong to no structure. The released code takes them for foreground where it "
        "makes skeletons, and calls this experimental.",
        "A class without a skeleton in the labels has a recall of s / s = 1, as in the released code. "
        'absent_class="skip" leaves it out.',
        "`skeletons=` at the call gives the widened skeletons, which `voxloss.transforms.Skeletons` makes in a loader. "
        "Without them they are made in every call, on the CPU: scikit-image must be installed "
        '(`pip install "voxloss[skeletons]"`).',
    )

    def terms(self) -> tuple[Term, ...]:
        # The Dice index adds its smoothing to 2·TP and to 2·TP + FP + FN, which are twice the parts of the index.
        dice = replace(self.region(0.5, Negative()), smooth=self.smooth / 2)
        recall = Recall(scale=self.recall_weight, **self.of_classes() | {"overlap": "product"})
        return Pixelwise(channel_mean=True), dice, recall


class ClDiceLoss(Loss):
    """Soft clDice loss.

        (1-α)·mean_{c>0} (1 - (2·TP_c + s) / (2·TP_c + FP_c + FN_c + s)) + α·mean_{c>0} (1 - 2·a_c·b_c / (a_c + b_c))

    Dice, and the Dice of centre lines: how much of the prediction's centre line is in the structure, and how much of
    the structure's centre line is predicted. A break of a thin structure costs more than as many voxels at its border.
    Missed voxels and false positives weigh the same.

    Where:
        S: the soft skeleton: what an opening takes off the values, and off their minima over neighbours, `iterations`
            times
        a_c: (Σ S(p_c)·t_c + s) / (Σ S(p_c) + s), the precision of the predicted centre line
        b_c: (Σ S(t_c)·p_c + s) / (Σ S(t_c) + s), the sensitivity to the centre line of the target
        mean_{c>0}: mean over the foreground classes (see `include_background`)

    Args:
        alpha: α, share of the centre lines against Dice; the paper has 0 to 1/2.
        iterations: How often minima are taken: at least the largest radius of a structure, in voxels.

    Example:
        >>> loss = voxloss.ClDiceLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.35
    """

    alpha: Fraction = 0.5
    iterations: Iterations = 10
    include_background: OptionalSwitch = None
    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    smooth: NonNegative = 1.0

    source = SHIT
    equations = "algorithms 1 and 2, its L_c, and its released code"
    value_range = "[0, 1]"
    conventions = (
        "The defaults are those of the released code: α = 1/2, s = 1, sums over the batch. Its `iter_` has no effect: "
        "it always takes minima 10 times.",
        "With several classes the released code adds up the sums of all channels and has one index; here each class "
        "has its own, and they are averaged.",
        "In 3D the minimum is over the six neighbours by faces, as in the released PyTorch code; the Keras code has "
        "the eighteen by faces and edges.",
        "Voxels that are ignored are as beyond the border of the volume.",
        "A prediction of the structure in every voxel has an empty soft skeleton, so its centre lines cost nothing and "
        "Dice alone speaks against it. Where structures are compact, an alpha below 1/2, or a cross entropy beside "
        "it in a `Compound`, keeps a training from ending there.",
        "Of equal probabilities, which a subgradient may choose among, the first voxel has the gradient of their "
        "minimum and the last that of their maximum. On a GPU and in float64 it is as in torch's pooling: the first "
        "along an axis, and axes share it.",
        "On a GPU it takes a copy of the probabilities, and of indices, for every iteration, about as much memory as "
        "the released code; on a CPU a fifth of it. Skeleton Recall needs neither this time nor this memory.",
    )

    def terms(self) -> tuple[OfClasses, ...]:
        dice = replace(self.region(0.5, scale=1 - self.alpha), smooth=self.smooth / 2)  # as in nnU-Net
        shared = self.of_classes() | {"overlap": "product"}
        skeletons = CentreLines(self.iterations, self.includes_background())
        return dice, CentreLine(skeletons=skeletons, scale=self.alpha, **shared)
