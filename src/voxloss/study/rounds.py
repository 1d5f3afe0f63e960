"""The rounds of a race: which runs it needs next, from what race.json says of the rounds before.

A round is one fold and seed for every loss that is still in.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from voxloss.study.folder import Run
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from voxloss.config.losses import LossChoice
    from voxloss.evaluation.race import Look

FIRST_LOOK = (
    3  # of a loss that collapsed in two trainings, the next ones may be as usual; two folds are looked at whole
)


@dataclass(frozen=True)
class Race:
    """The state of a race.

    Args:
        looks: The looks so far.
        rounds: Seed and fold of every planned round.
        losses: The study's losses.
        n_folds: Number of folds with cases.
    """

    looks: "tuple[Look, ...]"
    rounds: tuple[tuple[int, int], ...]
    losses: "tuple[LossChoice, ...]"
    n_folds: int

    @property
    def passes(self) -> int:
        """Number of planned passes over the folds, one per seed."""
        return len(self.rounds) // self.n_folds

    @property
    def left(self) -> dict[str, int]:
        """The round after which each loss left, for those that did."""
        return {departure.loss: look.round for look in self.looks for departure in look.departures}

    @property
    def staying(self) -> "tuple[LossChoice, ...]":
        """The losses that are still in."""
        return tuple(loss for loss in self.losses if loss.key not in self.left)

    @property
    def ended(self) -> bool:
        """Whether the race is over; it goes on if losses are added, or seeds where more than one loss is left."""
        if not self.looks or self.looks[-1].outcome is None or self.looks[-1].family < len(self.losses):
            return False
        return self.looks[-1].outcome == "one" or self.looks[-1].passes >= self.passes

    @property
    def next_round(self) -> int | None:
        """The round after which the losses are looked at next; None if the race is over.

        Where losses were added to a race that had ended, that is the last round again, once they have caught up.
        """
        if self.looks and self.looks[-1].outcome is not None and self.looks[-1].family < len(self.losses):
            return self.looks[-1].round
        following = self.looks[-1].round + 1 if self.looks else min(FIRST_LOOK, self.n_folds)
        return None if self.ended or following > len(self.rounds) else following

    def runs(self, up_to: int | None = None) -> list[Run]:
        """Return the runs that the race has had and may still have, round by round.

        Args:
            up_to: The last round; None: the last one planned, or the one that ended the race.
        """
        last = up_to or (self.looks[-1].round if self.ended else len(self.rounds))
        left = self.left
        return [
            Run(loss, fold, seed)
            for number, (seed, fold) in enumerate(self.rounds[:last], start=1)
            for loss in self.losses
            if number <= left.get(loss.key, last)
        ]


def looks_of(content: Sequence[dict[str, Any]], source: object) -> "tuple[Look, ...]":
    """Return the looks that race.json holds.

    Raises:
        InputError: A value is missing or has the wrong type; the message names the file.
    """
    if not content:
        return ()
    from voxloss.evaluation.race import Departure, Look  # pandas, which `voxloss status` need not wait for

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    try:
        return tuple(
            Look(
                **(
                    look
                    | {
                        "losses": tuple(look["losses"]),
                        "means": tuple(map(number, look["means"])),
                        "departures": tuple(Departure(**departure) for departure in look["departures"]),
                        "chance": number(look["chance"]),
                    }
                )
            )
            for look in content
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged: {error!r}.") from None


def plain_look(look: "Look") -> dict[str, Any]:
    """Return a look as race.json holds it: NaN is null."""
    content = asdict(look)
    content["means"] = [None if math.isnan(value) else value for value in content["means"]]
    content["chance"] = None if math.isnan(look.chance) else look.chance
    return content
