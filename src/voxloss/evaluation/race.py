"""A race of losses: after each round, losses that cannot be the best any more leave.

A round is one fold and seed for every loss that is still in; the folds of the first seed come first, then those of the
next seed. With F folds, a pass is F rounds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from voxloss.evaluation.fold_model import Interim, moderated_variances
from voxloss.evaluation.planning import LASTING
from voxloss.evaluation.verdict import MARGIN, Verdict, judge
from voxloss.utilities.arrays import Float64s, Integers

LEVEL = 0.05  # probability that the best loss leaves, over all rounds
ADDED_SEEDS = 0.05  # share of the level for seeds that are added after the planned ones
ADDED_LOSSES = 0.05  # share for looks that are repeated because losses were added after the end
LEAST_LEVEL = 1e-5  # at a look that has less to spend, no loss leaves
LEAST_DEGREES = 2  # of the variance of a loss that left, below which it says nothing about the others'
STEEPNESS = 3.0  # of the spending within a pass: most of it at the pass's end, where the folds are complete
FUTILE = 0.1  # chance of a decision below which the race stops
SEED_SHARE = 0.3  # of the variance of cases that further seeds average out, where it cannot be estimated

# Why a race ends: one loss is left; all that are left are equivalent; the remaining rounds are unlikely to single out
# one; the planned rounds are over.
Outcome = Literal["one", "equivalent", "futile", "rounds"]


@dataclass(frozen=True)
class Departure:
    """Why a loss left.

    Args:
        loss: The loss.
        beaten_by: The loss whose mean was better by the largest multiple of what is needed.
        difference: By how much it was better.
        needed: The difference above which this loss cannot be the best.
        own_variance: The variance of the loss's fold means, before moderation.
    """

    loss: str
    beaten_by: str
    difference: float
    needed: float
    own_variance: float


@dataclass(frozen=True)
class Look:
    """What was seen and decided after a round.

    Args:
        round: The round, from 1.
        n_folds: Folds with a case so far.
        losses: The losses in the round, the best mean first.
        means: Their means over all rounds so far.
        level: The level that was spent at this look.
        departures: The losses that leave.
        chance: The chance that the remaining planned rounds single out one loss; NaN within a pass.
        outcome: Why the race ends here; None: it goes on.
        family: Number of losses that had been in the race.
        passes: Number of planned passes; the race goes on if seeds are added to them.
    """

    round: int
    n_folds: int
    losses: tuple[str, ...]
    means: tuple[float, ...]
    level: float
    departures: tuple[Departure, ...]
    chance: float
    outcome: Outcome | None
    family: int
    passes: int

    @property
    def staying(self) -> tuple[str, ...]:
        """The losses that are still in after the round."""
        left = {departure.loss for departure in self.departures}
        return tuple(loss for loss in self.losses if loss not in left)


def spent(round: int, n_folds: int, passes: int) -> float:
    """Return the share of the level that is spent by the end of a round.

    At the end of pass p of P planned ones it is 0.9 (1 - 2^-p) / (1 - 2^-P), and the k-th further pass spends
    0.05 · 2^-k: seeds can be added at any time. The remaining 0.05 is for repeated looks (`interim_of`). Within a pass
    the share grows with the cube of the rounds. The shares are fixed beforehand, so that their sum over the looks
    bounds the probability of an error whatever the rounds have in common (an alpha-spending function, Lan and DeMets
    1983, without the gain from the correlation of the looks).

    Args:
        round: The round, from 0.
        n_folds: Number of folds F.
        passes: Number of planned passes P, one per seed.
    """

    def by_end_of(p: int) -> float:
        planned = 1 - ADDED_SEEDS - ADDED_LOSSES
        if p <= passes:
            return planned * (1 - 0.5**p) / (1 - 0.5**passes)
        return planned + ADDED_SEEDS * (1 - 0.5 ** (p - passes))

    complete, rounds = divmod(round, n_folds)
    begun = by_end_of(complete)
    return begun + (by_end_of(complete + 1) - begun) * math.pow(rounds / n_folds, STEEPNESS)


def interim_of(looks: Sequence[Look], round: int, n_folds: int, passes: int, family: int) -> Interim:
    """Return what the look after a round knows beyond the scores.

    Args:
        looks: The looks before it.
        round: The round.
        n_folds: Number of folds of the study.
        passes: Number of planned passes; those planned at the first look decide how the level is spent. A look that
            is repeated for losses that were added after the end takes its share of the reserve for that: for the k-th
            repetition after round r, 2^-k of what the look at round r alone would spend.
        family: Number of losses that have been in the race.
    """
    passes = looks[0].passes if looks else passes
    rounds = [look.round for look in looks]
    before = rounds[-1] if rounds else 0
    if before == round:
        repetition = 1 + len(rounds) - len(set(rounds))
        share = ADDED_LOSSES * 0.5**repetition
        level = LEVEL * share * (spent(round, n_folds, passes) - spent(round - 1, n_folds, passes))
    else:
        level = LEVEL * (spent(round, n_folds, passes) - spent(before, n_folds, passes))
    level = max(level, LEAST_LEVEL)
    left = [(departure, look.n_folds - 1) for look in looks for departure in look.departures]
    left = [(one, degrees) for one, degrees in left if degrees >= LEAST_DEGREES and one.own_variance > 0]
    return Interim(level, family, tuple(one.own_variance for one, _ in left), tuple(degrees for _, degrees in left))


def look_at(
    values: Float64s,
    folds: Integers,
    losses: Sequence[str],
    looks: Sequence[Look],
    *,
    round: int,
    n_folds: int,
    passes: int,
    family: int,
    margin: float = MARGIN,
    higher_is_better: bool = True,
) -> Look:
    """Judge the losses of a round and decide which of them leave, and whether the race ends.

    A loss leaves if another one's mean exceeds its own by more than Hsu's comparison with the best allows at the level
    of this look (`judge` with `interim_of`); the point is that of all losses that have been in the race. The race ends
    if one loss is left, if all that are left are equivalent, if the planned rounds are over, or, at the end of a pass,
    if the remaining ones would single out one loss with a probability below 10 % (`decision_chance`).

    That the best loss leaves with a probability of at most 5 % holds for any one loss that is the best, and where the
    runs of a loss vary about its mean. A loss whose training collapses may leave after collapses in a row, which say
    nothing of how it varies.

    Args:
        values: Scores, of shape (cases, losses), averaged over the seeds that each fold has, finite.
        folds: The fold of each case, numbered from 0.
        losses: The names of the columns, those that have not left.
        looks: The looks before this one.
        round: The round, from 2; that of the last look again if losses were added after it had ended the race.
        n_folds: Number of folds of the study.
        passes: Number of planned passes, one per seed.
        family: Number of losses that have been in the race.
        margin: Differences below it do not matter in practice.
        higher_is_better: Whether larger values are better.

    Raises:
        ValueError: As `judge`.
    """
    interim = interim_of(looks, round, n_folds, passes, family)
    seeds = -(-round // n_folds)
    verdict = judge(values, folds, losses, seeds, margin, higher_is_better=higher_is_better, interim=interim)
    staying = verdict.may_be_best if interim.level > LEAST_LEVEL else verdict.losses
    among = verdict.pairs[verdict.pairs["better"].isin(staying) & verdict.pairs["worse"].isin(staying)]
    chance = math.nan
    outcome: Outcome | None = None
    if len(staying) == 1:
        outcome = "one"
    elif among["same"].all():
        outcome = "equivalent"
    elif round >= n_folds * passes:
        outcome = "rounds"
    elif round % n_folds == 0:
        chance = decision_chance(verdict, staying, round // n_folds, passes)
        outcome = "futile" if chance < FUTILE else None
    return Look(
        round=round,
        n_folds=verdict.n_folds,
        losses=verdict.losses,
        means=verdict.means,
        level=interim.level,
        departures=tuple(_departures(verdict, staying, values, folds, losses, interim)),
        chance=chance,
        outcome=outcome,
        family=family,
        passes=passes,
    )


def _departures(
    verdict: Verdict,
    staying: Sequence[str],
    values: Float64s,
    folds: Integers,
    losses: Sequence[str],
    interim: Interim,
) -> Iterator[Departure]:
    leaving = [loss for loss in verdict.losses if loss not in staying]
    if not leaving:
        return
    sizes = np.bincount(folds)
    fold_means = np.stack([np.bincount(folds, column) / sizes for column in values.T])
    own = dict(zip(losses, moderated_variances(fold_means, interim=interim).own, strict=True))
    for loss in leaving:
        pairs = verdict.pairs[verdict.pairs["worse"] == loss]
        evidence = pairs.loc[(pairs["difference"] / pairs["needed"].clip(lower=1e-12)).idxmax()]
        yield Departure(
            loss=loss,
            beaten_by=str(evidence["better"]),
            difference=float(evidence["difference"]),
            needed=float(evidence["needed"]),
            own_variance=float(own[loss]),
        )


def decision_chance(verdict: Verdict, staying: Sequence[str], passes_so_far: int, passes: int) -> float:
    """Return the chance that further passes show the closest rival of the head to be worse.

    The difference d of the two means so far has the variance V = v + r, v from the cases and r from the runs. Further
    seeds average out a part of it: with s seeds V(s) = v (0.7 + 0.3 / s) + r (0.5 + 0.5 / s), scaled to V at the seeds
    so far. The final difference is then normal about d with the variance V(now) - V(final), and it must exceed what is
    needed now, times √(V(final) / V(now)).

    Args:
        verdict: The verdict so far, with `needed` of its look.
        staying: The losses that are still in, the head among them.
        passes_so_far: Number of seeds so far.
        passes: Number of planned seeds.
    """
    head = verdict.losses[0]
    of_head = verdict.pairs[(verdict.pairs["better"] == head) & verdict.pairs["worse"].isin(staying)]
    closest = of_head.sort_values("difference").iloc[0]
    total = float(closest["standard_error"]) ** 2
    case_sd = float(np.nan_to_num(closest["case_sd"]))
    of_cases = min(total, case_sd**2 / verdict.n_cases)
    if total == 0:
        return 0.0

    def lasting(share: float) -> float:
        return (1 - share + share / passes) / (1 - share + share / passes_so_far)

    final = of_cases * lasting(SEED_SHARE) + (total - of_cases) * lasting(1 - LASTING)
    needed = float(closest["needed"]) * math.sqrt(final / total)
    return float(stats.norm.sf((needed - float(closest["difference"])) / math.sqrt(max(total - final, 1e-12 * total))))
