"""Write the page "coming from other libraries" from the entries of the cards.

python -m voxloss.losses.cards.coming_from > docs/coming-from.md
"""

from voxloss.losses.cards.card import settings_text
from voxloss.losses.cards.peers import PEERS, Peer

_HEAD = """\
# Coming from other libraries

For each loss of another library: the voxloss loss and settings with the same value and gradient. `make test-peers`
tests every row against that library, except the authors' Keras code, which was only read, and authors' codes that are
in no package index, which were run beside ours once. The settings are for three classes: 1/3 is one divided by the
number of classes, and a list has one number per class. `python -m voxloss.losses.cards.coming_from` writes this page;
[the pages of the losses](losses/README.md) have the same facts.

For all losses: pass logits (the softmax or sigmoid is inside the loss); labels need no one-hot form; the defaults are
the published values, which few libraries use.

| there | here |
|---|---|
| `ignore_index`, an ignore label | `ignore_index=` |
| a mask of the voxels that count | `mask=` at the call (voxels of weight 0 in `voxel_weight` still count in means) |
| `include_background`, `do_bg` | `include_background=` (None: excluded under softmax only) |
| `batch`, `batch_dice` | `pool="batch"`; over all processes `pool="world"` |
| `reduction="mean"` over classes | `class_reduction="mean"` |
| `smooth_nr`, `smooth_dr` added to 2·TP | half of it as `smooth=` |
| `sigmoid=True`, "multilabel" | `activation="sigmoid"` |
| α on false positives and β on false negatives, α + β = 1 (Tversky) | `delta=` is that β |
| γ as the exponent itself (focal Tversky) | `gamma=` is 1/γ |
| `squared_pred=True` | `overlap="squared"` |
| `soft_label=True` | `overlap="minimum"` |
| losses of probabilities, `from_logits=False` | `inputs="probabilities"` |
| `weight` of classes | `alpha=[...]` of focal losses, one per class |
"""


def coming_from() -> str:
    """Return the page as Markdown: a table per library, in the order of the catalogue."""
    rows: dict[str, list[str]] = {}
    for name, peers in PEERS.items():
        for peer in peers:
            rows.setdefault(peer.library, []).append(f"| `{peer.function}` | {_ours(name, peer)} | {peer.difference} |")
    parts = [_HEAD]
    for library, lines in rows.items():
        title = library.replace("the ", "The ", 1)
        parts.append("\n".join([f"## {title}", "", "| there | here | |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


def _ours(name: str, peer: Peer) -> str:
    if peer.ours is None:
        return f"[`{name}`](losses/{name}.md), no equivalent settings"
    settings = settings_text(peer.ours)
    text = f'`get_loss("{name}"{f", {settings}" if settings else ""})`'
    text += f" × {peer.scale:g}" if peer.scale != 1 else ""
    return text + (f" {'+' if peer.offset > 0 else '-'} {abs(peer.offset):g}" if peer.offset else "")


if __name__ == "__main__":
    print(coming_from(), end="")
