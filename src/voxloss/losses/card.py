"""The convention card of a loss, as Markdown."""

from pathlib import Path
from typing import Any

from voxloss.losses.catalogue import CATALOGUE, get_entry
from voxloss.losses.entries import Entry
from voxloss.losses.options import Options
from voxloss.losses.peers import PEERS, Peer


def describe(name: str) -> str:
    """The convention card: equation, parameters, conventions, and where other libraries' loss of that name differs.

    Raises:
        ValueError: an unknown name.
    """
    entry = get_entry(name)
    options = ", ".join(f"{option}={entry.accepted[option]!r}" for option in Options.__annotations__)
    sections = {
        "Parameters": [f"- `{name}` = {_number(value)}" for name, value in entry.parameters.items()]
        or ["None of its own."],
        "Shared options and their defaults": [options],
        "Conventions": [f"- {note}" for note in (*entry.notes, *_reductions(entry))],
        "In other libraries": [line for peer in PEERS.get(name, ()) for line in _peer(peer)] or ["None known."],
    }
    lines = [f"# {entry.title} (`{name}`)", "", f"    {entry.equation}", ""]
    lines += [f"Range: {entry.value_range}. Family: {entry.family}.", f"Source: {entry.source} ({entry.equations})."]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def write_cards(folder: Path) -> None:
    """All cards as NAME.md in `folder`, and a README.md that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUE:
        (folder / f"{name}.md").write_text(describe(name), encoding="utf-8")
    rows = [
        f"| [`{entry.name}`]({entry.name}.md) | {entry.title} | {entry.family} | `{entry.equation}` |"
        for entry in CATALOGUE.values()
    ]
    (folder / "README.md").write_text("\n".join([_INDEX, *rows]) + "\n", encoding="utf-8")


_INDEX = """# The losses

One card each: equation, parameters, conventions, and where other libraries' loss of that name differs. Written by
`voxloss losses --write docs/losses`; `voxloss losses NAME` prints one. In the equations p is the probability of a
voxel, y its label, C the number of classes, and per sample and class TP = Σ p·t, FP = Σ p·(1-t), FN = Σ (1-p)·t with
t = 1 where the label is the class.

| name | loss | family | equation |
|---|---|---|---|"""


def _reductions(entry: Entry) -> list[str]:
    """Mean or sum, background, absent class and the number of classes, from the loss's own defaults."""
    lines = []
    defaults = entry.accepted
    if entry.family != "region":
        channels = "averaged" if entry.name == "dice_cross_entropy" else "summed"
        lines.append(
            "Pixelwise term: the mean over the counted voxels of the batch, those of the background included. A class "
            "without voxels adds nothing, and more classes do not change its scale. With sigmoid it is "
            f"{channels} over channels."
        )
    if entry.family == "distribution" or entry.name == "generalised_dice":
        return lines
    reduction = "sum" if defaults["class_reduction"] == "sum" else "mean"
    pooled = "of each sample, then averaged over the batch" if defaults["pool"] == "sample" else "of the whole batch"
    background = {True: "included", False: "left out", None: "left out under softmax"}[defaults["include_background"]]
    lines.append(f"Region term: the {reduction} over classes {pooled}; the background is {background}.")
    lines.append(
        'Absent class: with absent_class="keep" its index is s / ((1-δ)·FP + s), so that it costs its full worst value '
        'as soon as (1-δ)·FP is far above s, with almost no gradient; "skip" leaves it out.'
    )
    if reduction == "sum" and entry.family == "compound":
        lines.append(
            "The region term is a sum of C parts and the pixelwise term is not: from 2 to C classes the region's share "
            'grows by C/2. class_reduction="mean" keeps the balance the same for every C.'
        )
    elif reduction == "sum":
        lines.append('The loss is a sum of C parts and grows with C; class_reduction="mean" divides by C.')
    else:
        lines.append('The balance of the terms is the same for every C; class_reduction="sum" lets it grow with C.')
    return lines


def _peer(peer: Peer) -> list[str]:
    same = "No settings of ours give the same."
    if peer.ours is not None:
        settings = settings_text(peer.ours)
        same = f"Ours with `{settings}`" if settings else "Ours with its defaults"
        same += f", times {peer.scale:g}" if peer.scale != 1 else ""
        same += f", plus {peer.offset:g}" if peer.offset > 0 else f", less {-peer.offset:g}" if peer.offset else ""
        same += " gives the same."
    return [f"- **{peer.library}**, `{peer.function}`: {peer.difference} {same}"]


def settings_text(settings: dict[str, Any]) -> str:
    """Keyword arguments as they are written in a call, thirds as fractions."""
    return ", ".join(f"{key}={_number(value)}" for key, value in settings.items())


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    return {4 / 3: "4/3", 1 / 3: "1/3", 0.25 / 3: "1/12"}.get(value, repr(value))
