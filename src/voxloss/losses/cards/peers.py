"""Losses of the same name or purpose in other libraries, where they differ, and which settings of ours give the same.

Every entry with settings is compared in value and gradient by a test, on three classes unless it says otherwise, with
MONAI 1.6, segmentation_models.pytorch 0.6, nnU-Net 2.8, kornia 0.9, exacta 0.0.1a5; the authors' Keras code was read.
Authors' codes that are in no package index were run beside ours once, in float64, and agreed; SegLossOdyssey's were
read.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    """`function` is the call as its users write it; its value is `scale` · (ours with the settings `ours`) + `offset`.

    `ours` is None if no settings are equivalent.
    """

    library: str
    function: str
    ours: dict[str, Any] | None
    difference: str
    scale: float = 1.0
    offset: float = 0.0


MONAI, SMP, NNUNET, KORNIA, EXACTA = "MONAI", "segmentation_models.pytorch", "nnU-Net", "kornia", "exacta"
KERAS = "the authors' Keras code"
SURFACE = "boundary-loss (Kervadec et al.)"
SEGLOSS = "SegLossOdyssey (Ma et al.)"
LOVASZ = "LovaszSoftmax (Berman et al.)"
CLOSER, BLOBS = "Learning to Look Closer (Bouteille et al.)", "blob_loss (Kofler et al.)"
MCC_LOSS = "MCC-Loss (Abhishek and Hamarneh)"
SKELETON_RECALL = "Skeleton-Recall (Kirchhoff et al.)"
CL_DICE = "clDice (Shit et al.)"
ACE = "Average-Calibration-Losses (Barfoot et al.)"
NOT_INSTALLED = (KERAS, CLOSER, BLOBS, SURFACE, SEGLOSS, LOVASZ, MCC_LOSS, SKELETON_RECALL, CL_DICE, ACE)
MEAN = {"class_reduction": "mean"}

PEERS: dict[str, tuple[Peer, ...]] = {
    "cross_entropy": (
        Peer(
            "torch",
            "torch.nn.CrossEntropyLoss()",
            {},
            "The same. Its class `weight` also divides by the sum of the weights of all labels; β here does not.",
        ),
        Peer("torch", "torch.nn.CrossEntropyLoss(label_smoothing=0.1)", {"label_smoothing": 0.1}, "The same."),
    ),
    "focal": (
        Peer(
            MONAI,
            "FocalLoss(to_onehot_y=True)",
            {"activation": "sigmoid", "alpha": 1 / 3},
            "Its default is the sigmoid of every channel, not the softmax; the mean is over voxels and channels, so "
            "that the loss shrinks as C grows (α = 1/C here).",
        ),
        Peer(
            MONAI,
            "FocalLoss(to_onehot_y=True, use_softmax=True)",
            {"alpha": 1 / 3},
            "The mean over voxels and channels, of which all but the label's are 0: 1/C of the mean over voxels.",
        ),
        Peer(
            MONAI,
            "FocalLoss(to_onehot_y=True, use_softmax=True, alpha=0.25)",
            {"alpha": [0.75 / 3, 0.25 / 3, 0.25 / 3]},
            "A scalar α weighs the foreground and 1-α the background; here a scalar weighs every class.",
        ),
        Peer(
            SMP,
            'FocalLoss("multiclass")',
            {"activation": "sigmoid", "alpha": 1 / 3},
            'Its "multiclass" mode is the sigmoid of every channel against the rest, averaged over channels, without '
            "a softmax.",
        ),
        Peer(
            KORNIA,
            'focal_loss(alpha=None, reduction="mean")',
            {"alpha": 1 / 3},
            "The mean over voxels and channels, as in MONAI. A scalar α weighs the foreground and 1-α the background; "
            "ignored voxels stay in the denominator.",
        ),
        Peer(EXACTA, "FocalLoss()", {"alpha": 1.0}, "No α. A scalar one weighs the foreground and 1-α the background."),
        Peer(KERAS, "focal_loss()", {"alpha": 1.0}, "No α; probabilities are clipped to [1e-7, 1 - 1e-7]."),
    ),
    "jaccard": (
        Peer(
            MONAI,
            "DiceLoss(jaccard=True, to_onehot_y=True, softmax=True)",
            {**MEAN, "smooth": 5e-6},
            "The mean over classes; its smoothing 1e-5 is added to 2·TP, twice what it is added to here.",
        ),
    ),
    "dice": (
        Peer(
            MONAI,
            "DiceLoss(to_onehot_y=True, softmax=True)",
            {**MEAN, "smooth": 5e-6},
            "The mean over classes; its smoothing 1e-5 is added to 2·TP, twice what it is added to here.",
        ),
        Peer(
            MONAI,
            "DiceLoss(squared_pred=True, to_onehot_y=True, softmax=True)",
            {**MEAN, "overlap": "squared", "smooth": 5e-6},
            "The squares of p and t in the denominator.",
        ),
        Peer(
            MONAI,
            "DiceLoss(soft_label=True, to_onehot_y=True, softmax=True)",
            {**MEAN, "overlap": "minimum", "smooth": 5e-6},
            "Its form for soft labels, equal to the usual one for labels.",
        ),
        Peer(
            SMP,
            'DiceLoss("multiclass")',
            {**MEAN, "pool": "batch", "smooth": 0.0},
            "Sums over the batch, no smoothing. An absent class costs 0 whatever is predicted, but still counts in the "
            "mean over classes; where all are present ours is the same.",
        ),
        Peer(
            NNUNET,
            "MemoryEfficientSoftDiceLoss(softmax_helper_dim1)",
            {**MEAN, "smooth": 0.5},
            "Minus the mean index instead of 1 less it; its smoothing 1 is added to 2·TP.",
            offset=-1.0,
        ),
        Peer(
            KORNIA,
            'dice_loss(average="macro")',
            {**MEAN, "absent_class": "skip", "smooth": 0.0},
            "The mean over the classes present in a sample; 1e-8 is added to the denominator alone. Images only.",
        ),
        Peer(EXACTA, "DiceLoss()", {**MEAN, "smooth": 5e-6}, "The mean over classes; smoothing as in MONAI."),
        Peer(KERAS, "dice_loss()", MEAN, "The mean over classes."),
    ),
    "tversky": (
        Peer(
            MONAI,
            "TverskyLoss(to_onehot_y=True, softmax=True, alpha=0.3, beta=0.7)",
            {**MEAN, "smooth": 1e-5},
            "α weighs the false positives and β, δ here, the false negatives; both are 0.5 by default and need not add "
            "up to 1, which they do here. The mean over classes, smoothing 1e-5.",
        ),
        Peer(
            SMP,
            'TverskyLoss("multiclass", alpha=0.3, beta=0.7)',
            {**MEAN, "pool": "batch", "smooth": 0.0},
            "α weighs the false positives and β the false negatives. Sums over the batch, no smoothing, an absent "
            "class costs 0 and still counts in the mean.",
        ),
        Peer(
            KORNIA,
            "tversky_loss(alpha=0.3, beta=0.7)",
            {**MEAN, "absent_class": "skip", "smooth": 0.0},
            "α weighs the false positives and β the false negatives; the mean over the classes present in a sample.",
        ),
        Peer(
            EXACTA,
            "TverskyLoss(alpha=0.3, beta=0.7)",
            {**MEAN, "smooth": 1e-5},
            "α weighs the false positives and β the false negatives; the mean over classes.",
        ),
        Peer(KERAS, "tversky_loss()", MEAN, "The mean over classes."),
    ),
    "focal_tversky": (
        Peer(
            SMP,
            'TverskyLoss("multiclass", alpha=0.3, beta=0.7, gamma=0.75)',
            None,
            "Its γ is the exponent itself, taken of the mean over classes instead of each class.",
        ),
        Peer(
            EXACTA,
            "FocalTverskyLoss()",
            {**MEAN, "smooth": 1e-5},
            "Its γ = 0.75 is the exponent itself, 1/γ here; the mean over classes.",
        ),
        Peer(
            KERAS, "focal_tversky_loss()", MEAN, "Its γ = 0.75 is the exponent itself, 1/γ here; the mean over classes."
        ),
    ),
    "asymmetric_focal_tversky": (
        Peer(
            MONAI,
            "unified_focal_loss.AsymmetricFocalTverskyLoss(to_onehot_y=True)",
            {**MEAN, "smooth": 1e-7},
            "Takes probabilities, and only channels 0 and 1: further classes are silently ignored. The same for "
            "two classes.",
        ),
        Peer(KERAS, "asymmetric_focal_tversky_loss()", {**MEAN, "smooth": 1e-7}, "Two classes, and the mean of them."),
    ),
    "cosine_tversky": (
        Peer(KERAS, "cosine_tversky_loss()", None, "Inverted at γ = 1: a perfect prediction costs 2, the worst 0."),
    ),
    "generalised_dice": (
        Peer(
            MONAI,
            "GeneralizedDiceLoss(to_onehot_y=True, softmax=True, smooth_nr=0, smooth_dr=0)",
            {"smooth": 0.0},
            "The same without smoothing. Its default 1e-5 is added to sums weighted by 1/V², and outweighs them where "
            "all structures are large: with half a million voxels each a prediction wrong everywhere costs 0.44.",
        ),
        Peer(
            EXACTA,
            "GeneralizedDiceLoss(smooth=0)",
            {"smooth": 0.0},
            "The same without smoothing; with it as in MONAI. A sample with none of the classes costs 0 by default.",
        ),
        Peer(
            KORNIA,
            "dice_loss()",
            {"power": 0.0, "smooth": 0.0},
            "Its default, the sums over all classes in one index, is that of equal weights.",
        ),
    ),
    "combo": (
        Peer(
            KERAS,
            "combo_loss()",
            {"alpha": 0.5, "beta": 0.5},
            "α = β = 0.5 by default; β is on the background channel (two classes), 1-β on the other.",
        ),
    ),
    "mixed_focal": (
        Peer(
            KERAS,
            "mixed_focal_loss()",
            None,
            "λ weighs the focal Tversky side, β the background; no α, which makes the focal part four times as large.",
        ),
    ),
    "mcc": (
        Peer(
            MONAI,
            "MCCLoss(to_onehot_y=True, softmax=True)",
            {"pool": "sample", "include_background": True, "smooth": 1e-5},
            "The background is included, the sums are of each sample, and 1e-5 is added under the root.",
        ),
        Peer(
            MCC_LOSS,
            "MCCLoss(from_logits=True)",
            {"activation": "sigmoid"},
            "Only one channel.",
        ),
    ),
    "unified_focal": (
        Peer(
            KERAS,
            "sym_unified_focal_loss()",
            {**MEAN, "smooth": 1e-7},
            "Two classes, the mean of their region terms; λ weighs the region side.",
        ),
    ),
    "asymmetric_unified_focal": (
        Peer(
            MONAI,
            "AsymmetricUnifiedFocalLoss(to_onehot_y=True, delta=0.6)",
            {"smooth": 1e-7},
            "Takes probabilities, and only channels 0 and 1: further classes are silently ignored. For two "
            "classes half of ours, as both terms are averaged over them; δ = 0.7 by default.",
            scale=0.5,
        ),
        Peer(
            KERAS,
            "asym_unified_focal_loss()",
            {**MEAN, "smooth": 1e-7},
            "Two classes, the mean of their region terms; λ weighs the region side.",
        ),
    ),
    "dice_focal": (
        Peer(
            MONAI,
            "DiceFocalLoss(to_onehot_y=True, softmax=True)",
            None,
            "The softmax is of the Dice part alone; the focal part takes the sigmoid of every channel.",
        ),
        Peer(
            MONAI,
            "DiceFocalLoss(to_onehot_y=True, sigmoid=True)",
            {"activation": "sigmoid", "alpha": 1 / 3, "smooth": 5e-6},
            "The focal part is a mean over voxels and channels.",
        ),
    ),
    "dice_cross_entropy": (
        Peer(
            NNUNET,
            "DC_and_CE_loss",
            {},
            "The same, with the arguments that its trainer gives: batch Dice, smoothing 1e-5, no background.",
        ),
        Peer(
            NNUNET,
            "DC_and_BCE_loss",
            {"activation": "sigmoid"},
            "The same, with the arguments that its trainer gives for regions: batch Dice, smoothing 1e-5, all "
            "channels. With an ignore label its cross entropy is summed over channels, without one averaged.",
        ),
        Peer(
            MONAI,
            "DiceCELoss(to_onehot_y=True, softmax=True)",
            {"pool": "sample", "include_background": True},
            "1 minus the mean index, of each sample, the background included.",
            offset=1.0,
        ),
        Peer(
            EXACTA,
            "DiceCELoss()",
            {"pool": "sample", "include_background": True},
            "1 minus the mean index, of each sample, the background included.",
            offset=1.0,
        ),
    ),
    "ml1_ace": (
        Peer(
            ACE,
            "HardL1ACEandDiceCELoss(ace_weight=1, dice_weight=1, ce_weight=1, ...)",
            None,
            "The calibration error is the same where the target has all classes; an absent one counts as 0 in the "
            "mean, here it is left out. Its Dice loss adds 1e-5 to the denominator alone.",
        ),
    ),
    "skeleton_recall": (
        Peer(
            SKELETON_RECALL,
            "nnUNetTrainerSkeletonRecall",
            {},
            'With batch Dice in nnU-Net\'s plan; without it, pool="sample". Its skeletons take ignored voxels for '
            "foreground; it has no regions.",
        ),
    ),
    "cl_dice": (
        Peer(
            CL_DICE,
            "soft_dice_cldice()",
            {"activation": "sigmoid"},
            "Only one channel: of several it adds up the sums. It takes minima 10 times, whatever `iter_` is.",
        ),
        Peer(
            MONAI,
            "SoftDiceclDiceLoss(to_onehot_y=True, softmax=True)",
            None,
            "The background is included, and the centre lines of all classes have one index for each sample; minima "
            "are taken 3 times; 1e-4 is added to a + b. With two classes, include_background=False and almost nothing "
            'added it is equal to pool="sample".',
        ),
    ),
    "cc_dice_ce": (
        Peer(
            CLOSER,
            "nnUNetTrainerGlobalCCDiceCE",
            {"pool": "sample"},
            'Only two classes. With batch Dice in nnU-Net\'s plan it is pool="batch".',
        ),
        Peer(CLOSER, "nnUNetTrainerCCDiceCE", {"global_weight": 0}, "Only two classes."),
    ),
    "blob": (
        Peer(
            CLOSER,
            "nnUNetTrainerBlobDiceCE",
            {"global_weight": 0, "smooth": 0},
            "Only two classes. A sample without a lesion costs 1 plus its cross entropy; here it is left out.",
        ),
        Peer(
            BLOBS,
            'compute_loss({"main_weight": 2, "blob_weight": 1}, ...)',
            {"activation": "sigmoid", "entropy_weight": 0, "global_weight": 2},
            "Only one channel, and the Dice loss of sigmoid outputs. A cross entropy there keeps the voxels of the "
            "other lesions, with outputs of 0.",
        ),
    ),
    "boundary": (
        Peer(
            SURFACE,
            "BoundaryLoss(idc=[1, 2])",
            {},
            "Takes probabilities and maps that a loader makes. Inside a structure they are 1 less than the "
            "distance whatever the spacing, here the smallest spacing: the same for a spacing of 1.",
        ),
        Peer(SEGLOSS, "BDLoss()", {}, "Volumes alone, with maps that a loader makes."),
    ),
    "hausdorff": (
        Peer(
            MONAI,
            "HausdorffDTLoss(to_onehot_y=True, softmax=True)",
            {},
            "The same, with SciPy's distances, for which the tensors go to the CPU.",
        ),
        Peer(
            SURFACE,
            "HausdorffLoss(idc=[1, 2])",
            None,
            "Its distances are those inside of a structure alone and 0 outside, where false positives then cost "
            "nothing by the labels.",
        ),
        Peer(SEGLOSS, "HDDTBinaryLoss()", {}, "Two classes, volumes alone."),
    ),
    "topk": (
        Peer(NNUNET, "TopKLoss(k=10)", {}, "The same. Its number of voxels counts ignored ones, of a loss of 0."),
        Peer(
            NNUNET,
            "TopKLoss(k=10, label_smoothing=0.1)",
            {"label_smoothing": 0.1},
            "The same, with smoothed labels.",
        ),
        Peer(SEGLOSS, "TopKLoss(k=10)", {}, "The same."),
    ),
    "dice_topk": (
        Peer(
            NNUNET,
            "DC_and_topk_loss",
            {},
            "The same, with the arguments that its trainer gives: batch Dice, smoothing 1e-5, no background.",
        ),
    ),
    "lovasz": (
        Peer(LOVASZ, "lovasz_softmax()", {}, "Takes probabilities, of images alone."),
        Peer(
            LOVASZ, 'lovasz_softmax(classes="all")', {"absent_class": "keep"}, "Takes probabilities, of images alone."
        ),
        Peer(
            LOVASZ,
            "lovasz_softmax(per_image=True)",
            {"pool": "sample"},
            "Takes probabilities, of images alone.",
        ),
        Peer(
            SMP,
            'LovaszLoss("multiclass")',
            {},
            "The same. In its binary mode it is the Lovász hinge.",
        ),
    ),
}
