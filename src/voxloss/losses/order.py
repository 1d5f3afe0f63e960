"""Losses of the order of errors: which of two errors is larger decides how much they count."""

from voxloss.losses.conventions import BERMAN
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import AbsentClass, Pool, Reduction
from voxloss.losses.terms import Lovasz
from voxloss.losses.voxel_pass.further.passes import JaccardPass


class LovaszLoss(Loss):
    """Lovász-softmax loss.

        mean_c Σ_k e_k·(J_k - J_{k-1})

    The Jaccard loss 1 - TP / (TP + FP + FN) of a prediction of 0 and 1, continued to probabilities by its Lovász
    extension, which is convex in the errors. A class is scored relative to its size, so a small structure counts as
    much as a large one. A missed voxel always counts as much as any other, a false positive less the more there are.

    Where:
        e_k: the k-th largest error of class c: 1-p_c of a voxel of the class, p_c of another voxel
        J_k: the Jaccard loss of class c of a prediction that is wrong in the voxels of the k largest errors alone: (m +
            f) / (V + f) for m missed voxels and f false positives among them, and V the volume of the class; J_0 = 0
        mean_c: mean over the classes that the labels have

    Example:
        >>> loss = voxloss.LovaszLoss()
        >>> round(loss(logits, labels).item(), 4)
        0.6667
    """

    class_reduction: Reduction = "mean"
    pool: Pool = "batch"
    absent_class: AbsentClass = "skip"

    source = BERMAN
    equations = "its Lovász-Softmax loss, and the released code"
    value_range = "[0, C]"
    conventions = (
        "The defaults are those of the released code: the errors of the whole batch are ordered together "
        '(pool="sample" is its per_image=True) and classes that the batch does not have are left out '
        '(absent_class="keep" is its classes="all").',
        'With activation="sigmoid" it is what the authors call Lovász-sigmoid: each channel by itself.',
        "The order of equal errors changes the gradient but not the value; in the released code it is up to the sort. "
        "Here those of the class come first and equal errors share their slopes: the order of the voxels "
        "has no effect.",
        "The errors of each class are sorted, as the definition needs, which takes most of its time: digit by digit in "
        "O(n) on a CPU with a C compiler, elsewhere in O(n log n).",
        "A voxel weight multiplies the voxel's part of m, f and V. In soft targets a voxel of 1/2 or more is of the "
        "class.",
        'pool="world" is refused: the order of all ranks\' errors would need all of them in one place.',
    )

    def terms(self) -> Lovasz:
        if self.pool == "world":
            raise ValueError(
                'pool="world" needs the errors of all ranks in one place, which the Lovász loss does not gather: use '
                'pool="batch", the batch of each rank'
            )
        if isinstance(self.class_weight, str):
            raise ValueError(f"class_weight must be numbers in the Lovász loss, received {self.class_weight!r}")
        order = JaccardPass(self.pool == "sample" or self.reduction != "mean")
        return Lovasz(order=order, **self.of_classes())
