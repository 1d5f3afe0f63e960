"""The page of dose and response: what happens to the losses as the class gets rarer."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from voxloss.evidence.advice import percent
from voxloss.evidence.claims import Claim, Judgement
from voxloss.evidence.comparisons import Slope
from voxloss.evidence.kinds import KIND_TEXTS, Kind
from voxloss.evidence.pages.text import FIGURES, interval_text, listed, table
from voxloss.report.names import loss_name
from voxloss.report.tables.formats import escape_markdown
from voxloss.utilities.text import count_of

LEAD = """\
"Robust to class imbalance" as a measurement: in a series, each step is a study of its own, in which the class is rarer
than in the step before, with the same test cases and the same settings. So that no step is picked, all
steps that are complete are here, with the losses that are complete at each. Numbers: [series.csv](series.csv).
"""
CURVES = """\
Points are means over folds, bars their 95 % intervals (of Student's t over the folds; with three folds they are wide).
*Cases with nothing predicted*: of the test cases that have the class, the share in which none of it is predicted.
*Collapsed networks*: the share of trainings that never predict the class. Points are moved a little apart. A step in
which neither of two losses has learned to find the class says nothing about how their difference changes, so it is left
out of that line.
"""
SYNTHETIC = "The images are synthetic: a demonstration, which no joint result and no advice rests on."
NONE = "No study is exported as a step of a series, so nothing is known about rarity."


def rarity_page(
    series: pd.DataFrame,
    slopes: dict[str, list[Slope]],
    claims: Sequence[Claim],
    judgements: dict[str, list[Judgement]],
) -> str:
    """Return a section per series: its curves, their numbers, and what it says of the claims about rarity.

    Args:
        series: Of `series_frame`.
        slopes: The changes of differences along each series.
        claims: All claims.
        judgements: What the evidence says of each.
    """
    parts = ["# Dose and response: rarer and rarer structures\n", LEAD]
    if series.empty:
        return "\n".join([*parts, NONE + "\n"])
    about = [claim for claim in claims if claim.measure == "dice_by_rarity"]
    parts.append(CURVES)
    for name, rows in series.groupby("series", sort=False):
        kinds: list[Kind] = list(dict.fromkeys(rows["kind"]))
        studies = list(dict.fromkeys(rows["study"]))
        lead = f"{listed([KIND_TEXTS[kind] for kind in kinds]).capitalize()}. {count_of(len(studies), 'step')}: "
        lead += f"{listed(studies)}."
        if rows["dice_low"].isna().all():
            lead += " With one fold and one seed, there are no intervals."
        parts += [f"## {name}\n", f"{lead} {SYNTHETIC}\n" if "phantom" in kinds else f"{lead}\n"]
        parts.append(f"![Scores by rarity, series {name}]({FIGURES}/series-{name}.svg)\n")
        parts += ["Mean Dice, and its interval:\n", _table(rows, _dice)]
        parts += ["Cases with nothing predicted, and collapsed networks:\n", _table(rows, _collapse)]
        for claim in about:
            found = next((one for one in judgements[claim.name] if one.place == name), None)
            none = "no answer, since fewer than two steps have an interval for a difference between its losses"
            answer = none if found is None else f"**{found.answer}**"
            parts.append(f"{escape_markdown(claim.claim)} By this series: {answer}.\n")
        if slopes.get(name):
            parts.append("\n".join(f"- {_slope_sentence(one, len(studies))}" for one in slopes[name]) + "\n")
            parts.append(f"![Difference in mean Dice against rarity, series {name}]({FIGURES}/slopes-{name}.svg)\n")
    return "\n".join(parts)


Row = Mapping[Hashable, Any]


def _table(rows: pd.DataFrame, cell: Callable[[Row], str]) -> str:
    losses = list(dict.fromkeys(rows["loss"]))
    lines = []
    for share, step in rows.groupby("share", sort=False):
        of_loss = {row["loss"]: row for row in step.to_dict("records")}
        cells = (cell(of_loss[loss]) if loss in of_loss else "–" for loss in losses)
        lines.append([percent(float(str(share))), *cells])
    return table(("share of the class", *(escape_markdown(loss_name(loss)) for loss in losses)), lines)


def _dice(row: Row) -> str:
    if math.isnan(row["dice_low"]):
        return f"{row['dice']:.3f}"
    return f"{row['dice']:.3f} ({row['dice_low']:.3f} to {row['dice_high']:.3f})"


def _collapse(row: Row) -> str:
    networks = f"{round(row['collapsed'] * row['runs'])} of {count_of(row['runs'], 'network')}"
    return f"{100 * row['empty']:.0f} % of {count_of(row['cases'], 'case')}; {networks}"


def _slope_sentence(one: Slope, n_steps: int) -> str:
    first, second = escape_markdown(loss_name(one.first)), escape_markdown(loss_name(one.second))
    return (
        f"{first} minus {second}: {one.mean:+.3f} Dice ({interval_text(one.low, one.high)}) for each tenfold rarer "
        f"class, by {len(one.steps)} of {count_of(n_steps, 'step')}; a change below about {one.detectable:.3f} would "
        "probably not have been seen."
    )
