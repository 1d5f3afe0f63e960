"""Write the card of a loss as Markdown: the text of `help()`, its conventions, and how other libraries differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxloss.losses.cards.peers import PEERS, Peer
from voxloss.losses.catalogue import CATALOGUE, loss_class
from voxloss.losses.conventions import SYMBOLS
from voxloss.losses.loss import Loss, argument_text, reference, value_text
from voxloss.losses.terms import (
    Boundary,
    Calibration,
    CentreLine,
    Hausdorff,
    Lovasz,
    Matthews,
    OfClasses,
    PerLesion,
    Pixelwise,
    Recall,
    Sum,
)


def describe(loss: str | type[Loss]) -> str:
    """Return the card of a loss: the text of `help()`, its conventions, and how other libraries differ.

    Args:
        loss: One of `list_losses()`, or the class of a loss of which every parameter has a default.

    Raises:
        ValueError: The name is unknown.
    """
    chosen = loss_class(loss) if isinstance(loss, str) else loss
    documentation = chosen.documentation
    own = [_argument(chosen, name) for name, argument in chosen.arguments.items() if not argument.shared]
    shared = [_argument(chosen, name) for name, argument in chosen.arguments.items() if argument.shared]
    peers = [_peer(peer) for peer in PEERS.get(chosen.name, ())]
    sections = {
        "Parameters": own or ["None of its own."],
        "Shared parameters": shared,
        "Shapes": _entries(documentation.shape),
        "Errors": _entries(documentation.raises),
        "Example": [f"    {line}".rstrip() for line in documentation.example.splitlines()],
        "Conventions": [f"- {note}" for note in (*chosen.conventions, *_of_terms(chosen))],
        "In other libraries": peers or ["None known."],
    }
    lines = [f"# {documentation.title} (`{chosen.name}`)", ""]
    if documentation.equation:
        lines += [f"    {line}" for line in documentation.equation.splitlines()] + [""]
    lines += _entries(documentation.where)
    lines += ["", documentation.text] if documentation.text else []
    lines += ["", f"Range: {chosen.value_range or 'not stated'}. Family: {family(chosen)}."]
    lines += ["", f"Source: {reference(chosen) or 'not stated.'}"]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def write_cards(folder: Path) -> None:
    """Write all cards as NAME.md into `folder`, and a README.md that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUE:
        (folder / f"{name}.md").write_text(describe(name), encoding="utf-8")
    rows = [
        f"| [`{name}`]({name}.md) | {loss.documentation.title} | {family(loss)} | "
        f"`{' '.join(loss.documentation.equation.split())}` |"
        for name, loss in CATALOGUE.items()
    ]
    symbols = [f"- `{symbol.name}`: {symbol.meaning}" for symbol in SYMBOLS]
    parts = [_INDEX, *symbols, "", "| name | loss | family | equation |", "|---|---|---|---|", *rows]
    (folder / "README.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


_INDEX = """# The losses

One card per loss: equation, parameters, conventions, and how losses of the same name in other libraries differ. The
command `voxloss losses --write docs/losses` writes these files; `voxloss losses NAME` prints one card. Symbols of the
equations, unless a card defines its own:
"""


def family(loss: type[Loss]) -> str:
    """Return "distribution", "region", "distance", "order" or, for a loss with terms of two kinds, "compound"."""
    kinds = {part.kind for part in _formula(loss).parts}
    names = {"pixelwise": "distribution", "boundary": "distance", "order": "order"}
    return "compound" if len(kinds) > 1 else names.get(kinds.pop(), "region")


def _formula(loss: type[Loss]) -> Sum:
    formula = loss().formula
    assert isinstance(formula, Sum)
    return formula


def _argument(loss: type[Loss], name: str) -> str:
    return f"- `{name}`: {argument_text(loss, name)}"


def _entries(entries: Mapping[str, str]) -> list[str]:
    return [f"- `{name}`: {text}" for name, text in entries.items()]


def _of_terms(loss: type[Loss]) -> list[str]:
    """Describe what follows from the terms at the defaults: means and sums, background, absent class, classes."""
    formula = _formula(loss)
    lines = []
    for part in formula.parts:
        if isinstance(part, Pixelwise):
            channels = "averaged" if part.channel_mean else "summed"
            voxels = "counted" if part.hardest is None else "hardest"
            lines.append(
                f"Pixelwise term: the mean over the {voxels} voxels of the batch, including those of the background. A "
                "class without voxels adds nothing, and more classes do not change the scale. With sigmoid the term is "
                f"{channels} over the channels."
            )
    pixelwise = bool(lines)
    for part in formula.parts:
        if isinstance(part, Recall | CentreLine):
            lines.append("Term of skeletons: it is averaged and reduced as the region term is.")
        elif isinstance(part, Calibration):
            lines.append("Term of calibration: it is averaged and reduced as the region term is, absent classes apart.")
        elif isinstance(part, Boundary | Hausdorff | Lovasz):
            lines += _of_costs(part, formula.pool)
        elif isinstance(part, OfClasses):
            lines += _of_region(part, formula.pool, pixelwise)
        if isinstance(part, PerLesion):
            lines.append(
                "Term of lesions: the mean over the lesions of each class of a sample, then over the classes, then "
                "over the samples, however region sums are pooled. Regions that are given (`regions=` at the call) "
                "save making them in every step; those without a voxel of their lesion are left out. Lesions of soft "
                "targets are where the target is 1/2 or more."
            )
    return [*lines, _soft_targets(formula)]


def _of_costs(term: Boundary | Hausdorff | Lovasz, pool: str) -> list[str]:
    """Describe how the costs of the classes become the value, and maps that can be given."""
    pooled = {"sample": "each sample, then averaged over the batch", "batch": "the whole batch"}[pool]
    background = {True: "included", False: "excluded", None: "excluded under softmax"}[term.include_background]
    lines = [
        f"The value is the {term.class_reduction} over the classes of {pooled}; the background is {background}. It "
        'does not grow with C; with class_reduction="sum" it does.'
    ]
    if isinstance(term, Boundary):
        lines.append(
            "Distances that are given (`distances=` at the call) save measuring them in every step. "
            "`voxloss.transforms.DistanceMaps` makes them in a loader, `voxloss.distance_maps` on the device."
        )
    return lines


def _soft_targets(formula: Sum) -> str:
    """Say whether the loss suits soft targets: whether it is least where the probabilities equal them."""
    region = any(not isinstance(part, Pixelwise) for part in formula.parts)
    focal = any(part.gamma != 0 for part in formula.parts if isinstance(part, Pixelwise))
    weighted = any(part.beta is not None for part in formula.parts if isinstance(part, Pixelwise))
    sentences = []
    if any(isinstance(part, Boundary | Hausdorff | Lovasz) for part in formula.parts):
        sentences.append("only whether the target is 1/2 or more matters")
    elif any(isinstance(part, PerLesion) for part in formula.parts):
        sentences.append("the sums of products are least at p = 0 or 1 (for a target of 0.6 at 1)")
    elif any(isinstance(part, Matthews) for part in formula.parts):
        sentences.append("the correlation is largest where every p is 0 or 1, not at p = t")
    elif region:
        sentences.append(
            "the sums of products of the region term are least at p = 0 or 1 (for a target of 0.6 at 1); "
            'overlap="minimum" makes the term least at p = t (Wang et al., arXiv 2302.05666 and 2303.16296)'
        )
    if focal:
        sentences.append("the focal term has its minimum between t and 1/2, as the factor (1-p)^γ is not proper")
    elif weighted:
        sentences.append("the pixelwise term is least at p = t only where β weighs both sides equally")
    elif any(isinstance(part, Pixelwise) for part in formula.parts):
        sentences.append("the cross entropy is least at p = t")
    return f"Soft targets: {'; '.join(sentences)}."


def _of_region(term: OfClasses, pool: str, pixelwise: bool) -> list[str]:
    pooled = {"sample": "of each sample, then averaged over the batch", "batch": "of the whole batch"}
    background = {True: "included", False: "excluded", None: "excluded under softmax"}[term.include_background]
    lines = [
        f"Region term: the {term.class_reduction} over the classes {pooled.get(pool, 'of the batches of all ranks')}; "
        f"the background is {background}.",
    ]
    if not isinstance(term, Matthews):
        lines.append(
            'Absent class: with absent_class="keep" its index is s / ((1-δ)·FP + s), so the class costs its full worst '
            'value as soon as (1-δ)·FP is far above s, with almost no gradient; "skip" leaves the class out.'
        )
    if term.class_reduction == "sum" and pixelwise:
        lines.append(
            "The region term is a sum of C parts and the pixelwise term is not: from 2 to C classes the share of the "
            'region term grows by C/2. class_reduction="mean" keeps the balance the same for every C.'
        )
    elif term.class_reduction == "sum":
        lines.append('The loss is a sum of C parts and grows with C; class_reduction="mean" divides by C.')
    elif pixelwise:
        lines.append('The balance of the terms is the same for every C; with class_reduction="sum" it changes with C.')
    else:
        lines.append('The loss does not grow with C; with class_reduction="sum" it does.')
    return lines


def _peer(peer: Peer) -> str:
    same = "No equivalent settings."
    if peer.ours is not None:
        settings = settings_text(peer.ours)
        same = f"Equal to voxloss with `{settings}`" if settings else "Equal to voxloss with its defaults"
        same += f", times {peer.scale:g}" if peer.scale != 1 else ""
        same += f", plus {peer.offset:g}" if peer.offset > 0 else f", minus {-peer.offset:g}" if peer.offset else ""
        same += "."
    return f"- **{peer.library}**, `{peer.function}`: {peer.difference} {same}"


def settings_text(settings: dict[str, Any]) -> str:
    """Return keyword arguments as they are written in a call, thirds as fractions."""
    return ", ".join(f"{key}={value_text(value)}" for key, value in settings.items())
