"""The convention card of a loss, as Markdown."""

from typing import Any

from voxloss.losses.catalogue import get_entry
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
    same = "No setting of ours reproduces it."
    if peer.ours is not None:
        settings = ", ".join(f"{key}={_number(value)}" for key, value in peer.ours.items())
        same = f"Ours with `{settings}` gives the same." if settings else "Ours gives the same with its defaults."
    return [f"- **{peer.library}**, `{peer.function}`: {peer.difference} {same}"]


def _number(value: Any) -> str:
    return "4/3" if value == 4 / 3 else repr(value)
