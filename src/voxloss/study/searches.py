"""The record of a search for settings: which settings its trials have, and which of them was chosen.

The record is the only state of a search. It is rewritten whole, by the one process that chooses settings, and the
sampler is rebuilt from it and from the trials' own statuses. A journal to which every worker appends would be a second
state, whose last line is cut off where a worker is killed or the file server loses a write.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from voxloss.config.tuning import Setting


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Args:
        number: From 0.
        round: Trials of a round are chosen at once, by the scores of those of earlier rounds.
        setting: Values of what is searched.
        source: What chose it: "listed" (the loss as the study lists it), "grid", or the sampler and its version.
    """

    number: int
    round: int
    setting: Setting
    source: str


@dataclass(frozen=True)
class Search:
    """The trials of a loss and fold.

    Args:
        trials: In order.
        chosen: The number of the trial whose setting the runs of the tuned loss have; None: still searching.
    """

    trials: tuple[Trial, ...] = ()
    chosen: int | None = None

    @property
    def setting(self) -> Setting | None:
        """The chosen setting; None: still searching."""
        return None if self.chosen is None else self.trials[self.chosen].setting

    def before(self, trial: Trial) -> tuple[Trial, ...]:
        """The trials of earlier rounds, whose scores are known when a trial begins."""
        return tuple(other for other in self.trials if other.round < trial.round)

    def to_plain(self) -> dict[str, Any]:
        """As mappings and lists, for JSON."""
        return {"trials": [asdict(trial) for trial in self.trials], "chosen": self.chosen}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """From the content of search.json. Raises KeyError, TypeError or ValueError where it is no search."""
        trials = tuple(Trial(**trial) for trial in content["trials"])
        chosen = content["chosen"]
        whole = all(trial.number == place and isinstance(trial.setting, dict) for place, trial in enumerate(trials))
        if not whole or (chosen is not None and chosen not in range(len(trials))):
            raise ValueError(f"its trials are not numbered 0 to {len(trials) - 1}, or the chosen one is missing")
        return cls(trials, chosen)
