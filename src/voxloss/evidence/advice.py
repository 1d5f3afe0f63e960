"""Which losses to put into a study first, by studies of data sets with a similar imbalance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from voxloss.config.schema import DEFAULT_LOSSES
from voxloss.evaluation.joined import Joined, join
from voxloss.evidence.comparisons import BASELINE
from voxloss.evidence.fingerprint import Fingerprint
from voxloss.report.names import loss_name
from voxloss.utilities.text import count_of

LEAST_SETS = 3  # real data sets within the range, below which there is no evidence
RARITY_FACTOR = math.sqrt(10)  # the range: at most this many times rarer or more common,
PIECES_FACTOR = 3.0  # this many times more or fewer pieces,
ABSENT_RANGE = 0.3  # and this much more or less often absent
MOST_NAMED = 4  # losses that are suggested


@dataclass(frozen=True)
class Target:
    """The class that advice is asked for.

    Args:
        name: The class.
        voxel_fraction: Its median share of the voxels, over the cases that have it.
        pieces: Its median number of connected pieces.
        absent_share: The share of cases without it; NaN: any.
    """

    name: str
    voxel_fraction: float
    pieces: float
    absent_share: float = math.nan


@dataclass(frozen=True)
class Neighbour:
    """A class of a real data set in the evidence.

    Args:
        study: The study.
        data_set: Its data set.
        class_name: The class.
        voxel_fraction: Its median share of the voxels.
        pieces: Its median number of pieces.
        absent_share: The share of cases without it.
        distance: From the target; up to 1 along each measure within the range.
        near: Whether it lies within the range.
    """

    study: str
    data_set: str
    class_name: str
    voxel_fraction: float
    pieces: float
    absent_share: float
    distance: float
    near: bool

    def __str__(self) -> str:
        return (
            f"{self.class_name} of {self.data_set} ({percent(self.voxel_fraction)} of the voxels, "
            f"{_pieces_text(self.pieces)}, absent in {percent(self.absent_share)} of the cases; study {self.study})"
        )


@dataclass(frozen=True)
class Suggestion:
    """A loss to put into the study.

    Args:
        loss: The loss.
        gain: Its mean Dice minus the baseline's, joined over the data sets within the range; None for the baseline.
        error: The mean absolute error of that difference for a data set that is left out, predicted from the others.
    """

    loss: str
    gain: Joined | None
    error: float


@dataclass(frozen=True)
class Advice:
    """Which losses to put into a study first.

    Args:
        target: The class.
        neighbours: The nearest class of every real data set, the nearest first.
        suggestions: The losses not shown to be worse than the best within the range, the best first; empty without
            evidence.
        left_out_cost: What the suggested loss costs in Dice against the best one, on average over data sets that are
            left out in turn; NaN without evidence.
    """

    target: Target
    neighbours: tuple[Neighbour, ...]
    suggestions: tuple[Suggestion, ...]
    left_out_cost: float

    @property
    def near(self) -> tuple[Neighbour, ...]:
        """The neighbours within the range."""
        return tuple(one for one in self.neighbours if one.near)

    @property
    def evidence(self) -> bool:
        """Whether enough data sets lie within the range."""
        return len(self.suggestions) > 0


def target_of(fingerprint: Fingerprint, class_name: str | None = None) -> Target:
    """Return the class of a fingerprint that advice is asked for; None: the rarest."""
    rarity = fingerprint.rarest if class_name is None else fingerprint.of(class_name)
    share = fingerprint.absent_share(rarity.name)
    return Target(rarity.name, rarity.voxel_fraction.median, rarity.pieces.median, share)


def advise(target: Target, estimates: pd.DataFrame) -> Advice:
    """Return which losses to put into a study first.

    Of every real data set the class that is nearest to the target counts. With three or more within the range, the
    losses that all of them have are compared by their differences from the baseline, joined over the data sets.

    Args:
        target: The class.
        estimates: Of `estimates_table`.
    """
    known = estimates[
        estimates["joined"].astype(bool) & estimates["voxel_fraction"].notna() & (estimates["standard_error"] > 0)
    ]
    neighbours = _neighbours(target, known)
    near = [one for one in neighbours if one.near]
    tables = [known[(known["study"] == one.study) & (known["class"] == one.class_name)] for one in near]
    differences = [_differences(table) for table in tables]
    losses = _common(differences)
    if len(near) < LEAST_SETS or BASELINE not in losses or len(losses) < 2:
        return Advice(target, neighbours, (), math.nan)
    gains = {loss: join(*_known(differences, loss, BASELINE)) for loss in losses if loss != BASELINE}
    means = {BASELINE: 0.0} | {loss: gain.mean for loss, gain in gains.items()}
    order = sorted(losses, key=lambda loss: -means[loss])
    best = order[0]
    kept = [loss for loss in order if loss == best or not _worse(differences, loss, best)][:MOST_NAMED]
    if BASELINE not in kept:
        kept.append(BASELINE)
    errors, costs = _left_out(differences, losses)
    suggestions = tuple(Suggestion(loss, gains.get(loss), errors.get(loss, 0.0)) for loss in kept)
    return Advice(target, neighbours, suggestions, costs)


Differences = dict[tuple[str, str], tuple[float, float]]  # of one data set: first and second loss -> difference, SE


def _neighbours(target: Target, known: pd.DataFrame) -> tuple[Neighbour, ...]:
    nearest: dict[str, Neighbour] = {}
    columns = ["study", "data_set", "class", "voxel_fraction", "pieces", "absent_share"]
    for row in known[columns].drop_duplicates().to_dict("records"):
        parts = (
            abs(math.log(row["voxel_fraction"] / target.voxel_fraction)) / math.log(RARITY_FACTOR),
            abs(math.log(row["pieces"] / target.pieces)) / math.log(PIECES_FACTOR),
            0.0 if math.isnan(target.absent_share) else abs(row["absent_share"] - target.absent_share) / ABSENT_RANGE,
        )
        near = max(parts) <= 1 + 1e-9
        one = Neighbour(
            row["study"], row["data_set"], row["class"], row["voxel_fraction"], row["pieces"], row["absent_share"],
            sum(parts), near,
        )  # fmt: skip
        known_one = nearest.get(one.data_set)
        if known_one is None or (not one.near, one.distance) < (not known_one.near, known_one.distance):
            nearest[one.data_set] = one
    return tuple(sorted(nearest.values(), key=lambda one: (not one.near, one.distance, one.data_set)))


def _differences(table: pd.DataFrame) -> Differences:
    found: Differences = {}
    for row in table.to_dict("records"):
        first, second = row["first"], row["second"]
        found[first, second] = row["difference"], row["standard_error"]
        found[second, first] = -row["difference"], row["standard_error"]
    return found


def _common(differences: Sequence[Differences]) -> list[str]:
    """The losses whose difference from the baseline every data set knows, in the order of the first; the baseline too.

    Of two losses that never vary, as they find nothing, no standard error is known.
    """
    if not differences:
        return []
    found = dict.fromkeys(first for first, _ in differences[0])
    return [loss for loss in found if loss == BASELINE or all((loss, BASELINE) in one for one in differences)]


def _known(differences: Sequence[Differences], first: str, second: str) -> tuple[list[float], list[float]]:
    """The differences between two losses that are known, and their standard errors."""
    pairs = [one[first, second] for one in differences if (first, second) in one]
    return [mean for mean, _ in pairs], [error for _, error in pairs]


def _worse(differences: Sequence[Differences], loss: str, best: str) -> bool:
    means, errors = _known(differences, best, loss)
    return len(means) > 1 and join(means, errors).low > 0


def _left_out(differences: Sequence[Differences], losses: Sequence[str]) -> tuple[dict[str, float], float]:
    """Leave out each data set in turn: the mean errors of predicted gains, and the mean cost of the loss chosen."""
    others = [loss for loss in losses if loss != BASELINE]
    errors: dict[str, list[float]] = {loss: [] for loss in others}
    costs = []
    for place, left in enumerate(differences):
        rest = [one for index, one in enumerate(differences) if index != place]
        predicted = {BASELINE: 0.0} | {loss: join(*_known(rest, loss, BASELINE)).mean for loss in others}
        seen = {BASELINE: 0.0} | {loss: left[loss, BASELINE][0] for loss in others}
        for loss in others:
            errors[loss].append(abs(predicted[loss] - seen[loss]))
        costs.append(max(seen.values()) - seen[max(predicted, key=lambda loss: predicted[loss])])
    return {loss: float(np.mean(values)) for loss, values in errors.items()}, float(np.mean(costs))


def percent(share: float) -> str:
    """Write a share in per cent with two significant digits: "0.25 %"."""
    return f"{100 * share:.2g} %"


def _pieces_text(pieces: float, which: str = "") -> str:
    return f"{pieces:g} {which}{'piece' if pieces == 1 else 'pieces'}"


def range_text(absent: bool = True) -> str:
    """Say which data sets lie within the range, also by the cases without the class or not."""
    rarity = f"at most {RARITY_FACTOR:.1f} times rarer or more common"
    pieces = f"{PIECES_FACTOR:g} times more or fewer pieces"
    if not absent:
        return f"{rarity}, and {pieces}"
    return (
        f"{rarity}, {pieces}, and absent in at most {100 * ABSENT_RANGE:g} percentage points more or fewer of the cases"
    )


def advice_sentences(advice: Advice) -> list[str]:
    """Return the advice in sentences, each with the studies that it rests on."""
    target = advice.target
    absent = "" if math.isnan(target.absent_share) else f", absent in {percent(target.absent_share)} of the cases"
    pieces = _pieces_text(target.pieces, "connected ")
    lead = f"{target.name}: {percent(target.voxel_fraction)} of the voxels and {pieces} where it is present{absent}."
    default = ", ".join(loss_name(loss) for loss in DEFAULT_LOSSES)
    if not advice.evidence:
        count = len(advice.near)
        sentences = [
            lead,
            f"No evidence: {count_of(count, 'real data set')} of the {LEAST_SETS} that advice needs "
            f"{'lies' if count == 1 else 'lie'} within the range ({range_text()}).",
        ]
        if advice.near:
            sentences.append(f"Within the range: {'; '.join(map(str, advice.near))}.")
        elif advice.neighbours:
            sentences.append(f"The nearest is {advice.neighbours[0]}.")
        return [*sentences, f"Start with the losses that a study has by default: {default}."]
    studies = ", ".join(dict.fromkeys(one.study for one in advice.near))
    sentences = [lead, f"Put into the study first, by {count_of(len(advice.near), 'real data set')} ({studies}):"]
    for one in advice.suggestions:
        if one.gain is None:
            sentences.append(f"- {loss_name(one.loss)}: the baseline, from which differences are measured.")
            continue
        low, high = one.gain.low, one.gain.high
        says = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        sentences.append(
            f"- {loss_name(one.loss)}: mean Dice {one.gain.mean:+.3f} ({low:+.3f} to {high:+.3f}) against the "
            f"baseline, {says} it; for a data set left out, this is wrong by {one.error:.3f} on average ({studies})."
        )
    sentences.append(
        f"The loss that the other data sets suggest costs {advice.left_out_cost:.3f} Dice against the best one of the "
        "data set left out, on average."
    )
    return sentences
