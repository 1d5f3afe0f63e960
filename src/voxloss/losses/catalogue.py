"""Every loss by name: what it computes, the published parameters, where it is from, and how the print was read."""

import difflib
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


_ENTRIES = (
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
            "With sigmoid every channel has its Dice term, as there; the cross entropy is summed over channels, where "
            "nnU-Net averages.",
            "The batch is this process's: sums are not gathered over distributed processes, as nnU-Net does.",
        ),
        NNUNET,
    ),
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def list_losses() -> list[str]:
    """The names that `get_loss` takes."""
    return list(CATALOGUE)


def get_entry(name: str) -> Entry:
    """The catalogue's entry of this name; ValueError that suggests the closest and lists all where there is none."""
    if name not in CATALOGUE:
        raise ValueError(f"unknown loss {name!r}{_closest(name, CATALOGUE)}; the losses are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def get_loss(name: str, **parameters: Any) -> VoxelLoss:
    """The loss module of this name, called as `loss(logits, labels, voxel_weight=None)`.

    Args:
        name: one of `list_losses()`.
        parameters: the loss's own parameters (published values where not given) and the shared options.

    Raises:
        ValueError: unknown name, unknown parameter, or a value that a parameter cannot have.
    """
    entry = get_entry(name)
    for parameter in parameters:
        if parameter not in entry.accepted:
            raise ValueError(
                f"loss {name!r} has no parameter {parameter!r}{_closest(parameter, entry.accepted)}; "
                f"it accepts {', '.join(entry.accepted)}"
            )
    return entry.module(**parameters)


def _closest(word: str, words: Any) -> str:
    matches = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def describe(name: str) -> str:
    """The loss's convention card as Markdown: equation, parameters, range, source, and how the print was read."""
    entry = get_entry(name)
    parameters = [f"- `{parameter}` = {_number(value)}" for parameter, value in entry.parameters.items()]
    options = ", ".join(f"{option}={entry.accepted[option]!r}" for option in Options.__annotations__)
    return "\n".join(
        [
            f"# {entry.title} (`{name}`)",
            "",
            f"    {entry.equation}",
            "",
            f"Range: {entry.value_range}. Family: {entry.family}.",
            f"Source: {entry.source} ({entry.equations}).",
            "",
            "## Parameters",
            "",
            *(parameters or ["None of its own."]),
            "",
            f"Shared options: {options}.",
            "",
            "## Conventions",
            "",
            *(f"- {note}" for note in entry.notes),
            "",
        ]
    )


def _number(value: Any) -> str:
    return "4/3" if value == 4 / 3 else str(value)
