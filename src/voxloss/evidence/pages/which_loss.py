"""The page "Which loss should I start with?": the advice as a map."""

import math

import pandas as pd

from voxloss.config.schema import DEFAULT_LOSSES
from voxloss.evidence.advice import LEAST_SETS, Target, advise, percent, range_text
from voxloss.evidence.pages.text import table
from voxloss.report.names import loss_name
from voxloss.report.tables.formats import escape_markdown

# The map of advice: lower ends of the classes' shares of the voxels, and numbers of pieces.
SHARES = ((0.03, 1.0), (0.01, 0.03), (0.003, 0.01), (0.001, 0.003), (0.0003, 0.001), (0.0001, 0.0003))
PIECES = ((1, "1 piece"), (3, "2 to 4 pieces"), (8, "5 to 15 pieces"), (40, "more pieces"))

LEAD = """\
By the structure's share of the voxels and its number of connected pieces, as `voxloss check DATA` measures them in
the cases that have it: the losses that similar real data sets do not show to be worse than the best one, the best
mean first. `voxloss advise DATA` says the same for your data, with differences and errors, and also takes into account
in how many cases the structure is absent, which the map does not.
"""


NOTHING_YET = """\
**No part of this map has evidence yet.** Start with {first}, the baseline, and compare it on your data
(`voxloss quick DATA`, then `voxloss run`) with {others}.
"""


def which_loss_page(estimates: pd.DataFrame) -> str:
    """Return the map: losses to start with, by how rare a structure is and in how many pieces."""
    rows, known_somewhere = [], False
    for pieces, label in PIECES:
        cells = []
        for low, high in SHARES:
            advice = advise(Target("structure", math.sqrt(low * high), pieces), estimates)
            names = ", ".join(loss_name(one.loss).removesuffix(" loss") for one in advice.suggestions)
            known_somewhere = known_somewhere or bool(names)
            cells.append(escape_markdown(names) if names else f"no evidence ({len(advice.near)} of {LEAST_SETS})")
        rows.append([f"**{label}**", *cells])
    header = ("pieces, by share of the voxels", *(f"{100 * low:g} to {100 * high:g} %" for low, high in SHARES))
    real = estimates[estimates["joined"].astype(bool) & estimates["voxel_fraction"].notna()]
    sets = real[["data_set", "class", "voxel_fraction", "pieces", "absent_share"]].drop_duplicates()
    known = [
        [escape_markdown(str(row["data_set"])), escape_markdown(str(row["class"])), percent(row["voxel_fraction"]),
         f"{row['pieces']:g}", percent(row["absent_share"])]
        for row in sets.sort_values("voxel_fraction", ascending=False).to_dict("records")
    ]  # fmt: skip
    first, *others = (loss_name(loss) for loss in DEFAULT_LOSSES)
    losses = ", ".join([first, *others])
    parts = [
        "# Which loss should I start with?\n",
        *(
            []
            if known_somewhere
            else [NOTHING_YET.format(first=first, others=" and ".join((", ".join(others[:-1]), others[-1])))]
        ),
        LEAD,
        table(header, rows),
        f"*No evidence*: fewer than {LEAST_SETS} real data sets lie within the range ({range_text(absent=False)}). "
        f"Then start with what a study compares by default: {losses}.\n",
        "The map rests on these classes of real data sets:\n"
        if known
        else "No study of real images is exported yet.\n",
    ]
    if known:
        parts.append(table(("data set", "class", "share of the voxels", "pieces", "absent in"), known))
    parts.append(
        "[The evidence](index.md) has the studies, and [how to add yours](https://voxloss.github.io/voxloss/evidence/format/).\n"
    )
    return "\n".join(parts)
