"""Texts that losses share: sources, readings of their print, and symbols of the equations."""

import re
from dataclasses import dataclass

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
RAHMAN = (
    'Rahman, Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016, '
    "doi 10.1007/978-3-319-50835-1_22"
)
ZHU = (
    'Zhu et al., "AnatomyNet: Deep learning for fast and fully automated whole-volume segmentation of head and neck '
    'anatomy", Medical Physics 46, 2019'
)
BOUTEILLE = (
    'Bouteille, Jaus, Kleesiek, Stiefelhagen, Heine, "Learning to Look Closer: A New Instance-Wise Loss for Small '
    'Cerebral Lesion Segmentation", ISBI 2026, arXiv 2511.17146'
)
KOFLER = (
    'Kofler et al., "blob loss: instance imbalance aware loss functions for semantic segmentation", arXiv 2205.08209'
)
KERVADEC = (
    'Kervadec, Bouchtiba, Desrosiers, Granger, Dolz, Ben Ayed, "Boundary loss for highly unbalanced segmentation", '
    "MIDL 2019 and Medical Image Analysis 67, 2021, arXiv 1812.07032"
)
KARIMI = (
    'Karimi, Salcudean, "Reducing the Hausdorff Distance in Medical Image Segmentation with Convolutional Neural '
    'Networks", IEEE Transactions on Medical Imaging 39, 2020, arXiv 1904.10030'
)
BERMAN = (
    'Berman, Rannen Triki, Blaschko, "The Lovász-Softmax loss: A tractable surrogate for the optimization of the '
    'intersection-over-union measure in neural networks", CVPR 2018, arXiv 1705.08790'
)
ODYSSEY = 'Ma et al., "Loss odyssey in medical image segmentation", Medical Image Analysis 71, 2021'
KIRCHHOFF = (
    'Kirchhoff, Rokuss, Roy et al., "Skeleton Recall Loss for Connectivity Conserving and Resource Efficient '
    'Segmentation of Thin Tubular Structures", ECCV 2024, arXiv 2404.03010'
)
BARFOOT = (
    'Barfoot, Garcia-Peraza-Herrera, Akcay, Glocker, Vercauteren, "Average Calibration Losses for Reliable Uncertainty '
    'in Medical Image Segmentation", arXiv 2506.03942'
)
SHIT = (
    'Shit, Paetzold et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation", '
    "CVPR 2021, arXiv 2003.07311"
)
ABHISHEK = (
    'Abhishek, Hamarneh, "Matthews Correlation Coefficient Loss for Deep Convolutional Networks: Application to Skin '
    'Lesion Segmentation", ISBI 2021, arXiv 2010.13454'
)
NNUNET = 'Isensee et al., "nnU-Net", Nature Methods 18, 2021; its version 2 source, DC_and_CE_loss'

DELTA = (
    "δ weighs the false negatives. Eqs. 9 and 12 as printed put δ on p0·g1, a false positive; the text, Salehi et al. "
    "(2017) and the authors' released code put δ = 0.7 on the false negatives."
)
SUMMED = (
    "The loss is the sum over all classes, background included, averaged over the batch, as the paper prints it. The "
    'released code divides by the number of classes: use class_reduction="mean" for this.'
)
SMOOTHING = (
    "The smoothing 1e-6 and the sums per sample are those of the released code; the paper states neither of them."
)
OUR_SMOOTHING = "The smoothing 1e-6 and the sums per sample are the same as in the other losses of this package."
ONE_OVER_GAMMA = (
    "The exponent is 1/γ, as in Eq. 14. Other libraries and the authors' later code call the exponent itself γ: their "
    "0.75 is γ = 4/3 here."
)
SCALAR_ALPHA = (
    "α = 0.25 multiplies every class, because the paper's protocol uses a scalar. Eq. 7 calls α a vector of class "
    "weights (pass one number per class for this). The released code has no α, which makes its focal part four times "
    "as large."
)
BETA = (
    "Eq. 17 prints t - log(p) for t·log(p). Here β is read as a class weight, 1-β for the background and β for all "
    "other classes, so that it extends to several classes. The released code puts β on the background channel."
)
ONE_MINUS_GAMMA = (
    "The exponent of the region term is 1-γ, as in L_maFT and the released code. (The symmetric form prints γ there "
    "and 1-γ in the pixelwise term; at the published γ = 0.5 all agree.)"
)
ASYMMETRIC = (
    "Channel 0 is the background, every other class is rare. With sigmoid every channel is foreground and its negative "
    "side is the background."
)
DELTA_CLASS = (
    "In the pixelwise term δ is the weight of the foreground classes and 1-δ the weight of the background (with "
    "sigmoid, of the positive and the negative side); in the region term δ weighs the false negatives."
)
UNIFIED_WEIGHT = (
    "λ weighs the pixelwise side, as in the paper; in the released code λ weighs the focal Tversky side. At the "
    "published 0.5 both agree."
)
BY_CLASS = (
    "The released code is of one foreground class. With several, each is taken against the rest: under softmax its "
    "lesions have the sigmoid of its log odds, which is the softmax, and the classes are averaged, as Kundu et al. "
    "(arXiv 2604.24276) propose for both losses; their weights by inverse size inside a lesion are left out."
)
NO_OPTIONS = "`overlap` and `label_smoothing` must keep their defaults: terms of lesions take no other value."
NNUNET_TOPK = f"{ODYSSEY}; {NNUNET.replace('DC_and_CE_loss', 'TopKLoss and DC_and_topk_loss')}"
SHARE = (
    'The share is of the voxels of the whole batch, as in nnU-Net; with pool="sample" of each sample, and with '
    'pool="world" of the batches of all ranks.',
    "The number of voxels is rounded down, as in nnU-Net, but at least one. Ignored voxels are no part of it; in "
    "nnU-Net they are counted, with a loss of 0.",
)
HARDEST = (
    "Voxels with the same loss as the last that counts share what is left of the number; the released code takes any "
    "of them. They are found from counts of values, without sorting. A voxel weight multiplies the loss before the "
    "voxels are chosen."
)
MEAN_INDEX = (
    "For several classes the Dice index of Combo is the mean over classes, as in the released code, so the loss lies "
    "in [-1, ∞). A negative loss upsets learning-rate schedules with a relative threshold."
)


@dataclass(frozen=True)
class Symbol:
    """A symbol of the equations; `pattern` finds it in one."""

    name: str
    pattern: str
    meaning: str


SYMBOLS = (
    Symbol(
        "mean_v",
        r"mean_v",
        "mean over the counted voxels v of the batch; with sigmoid the negative side (1-p, 1-t) is added, and the "
        "channels are summed",
    ),
    Symbol("Σ_c", r"Σ_[{c]", "sum over the classes of a sample; the mean over the samples follows"),
    Symbol("mean_c", r"mean_[{c]", "mean over the classes of a sample; the mean over the samples follows"),
    Symbol(
        "index_c(δ)",
        r"index_",
        "(TP_c + s) / (TP_c + δ·FN_c + (1-δ)·FP_c + s), the Tversky index of class c; index_c(1/2) is the Dice index",
    ),
    Symbol("w_y", r"w_y", "class weight: 1-β for the background, β for every other class; 1 where β is None"),
    Symbol("TP_c", r"TP", "Σ p_c·t_c over the counted voxels of a sample: the true positives of class c"),
    Symbol("FP_c", r"FP", "Σ p_c·(1-t_c): the false positives of class c"),
    Symbol("FN_c", r"FN", "Σ (1-p_c)·t_c: the false negatives (missed voxels) of class c"),
    Symbol("p_y", r"p_y", "p_c of the class c = y that the voxel is labelled with"),
    Symbol("y", r"_y|y =", "label of the voxel"),
    Symbol("p_c", r"p_[c0]", "predicted probability of class c at a voxel: softmax or sigmoid of the logits"),
    Symbol("t_c", r"t_c", "1 where the label is c, else 0; with soft targets the target of class c"),
    Symbol("s", r"\bs\b", "the smoothing, `smooth`"),
    Symbol("c, C", r"_c|\bC\b", "a class (0 is the background), and the number of classes"),
)


def symbols_of(equation: str, defined: dict[str, str]) -> dict[str, str]:
    """Return the symbols of an equation and their meanings: those in `defined` first, then those used in meanings."""
    meanings, text = dict(defined), " ".join([equation, *defined.values()])
    for symbol in SYMBOLS:  # each meaning uses only symbols below it
        if symbol.name not in meanings and re.search(symbol.pattern, text):
            meanings[symbol.name] = symbol.meaning
            text += " " + symbol.meaning
    return meanings
