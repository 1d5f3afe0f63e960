"""Classes that a network predicted and then lost while it is trained, with what its history says of the cause."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxloss.training.history import Epoch

STEADY = 3  # epochs in a row in which a class must have been predicted: at the start any class may come and go
AROUND = 3  # epochs up to the loss of the class over which shares are averaged

RARE = 0.1  # share of the patches with a class below which it is seldom seen
ALONE = 0.9  # share of the gradient above which a term decides nearly alone
EARLY, LATE = 0.5, 0.1  # shares of the first learning rate, above which steps are large and below which they are small


@dataclass(frozen=True)
class LostClass:
    """A class that was steadily predicted in the validation patches and is no longer.

    Args:
        name: The class.
        last: The last epoch in which it was predicted.
        now: The last finished epoch.
        patches: Share of the training patches that had it, over the epochs around its loss; NaN where unknown.
        learning_rate: In the first epoch without it; NaN where unknown.
        first_learning_rate: In the first epoch of the run.
        term: The term with the largest share of the gradient in these epochs; empty where unknown or the only one.
        share: Its share.
    """

    name: str
    last: int
    now: int
    patches: float
    learning_rate: float
    first_learning_rate: float
    term: str
    share: float

    def sentences(self) -> str:
        """Say what happened, what the history has of it, and what that points to."""
        since = f"is not in epoch {self.now}"
        if self.now - self.last > 1:
            since = f"is not in the {self.now - self.last} epochs since"
        facts = []
        if not math.isnan(self.patches):
            facts.append(f"{_percent(self.patches)} of the training patches had it")
        if self.term:
            facts.append(f"{self.term} had {_percent(self.share)} of the gradient")
        if not math.isnan(self.learning_rate):
            facts.append(f"the learning rate was {self.learning_rate:.3g}")
        known = f" Around then, {_joined(facts)}." if facts else ""
        causes = "; ".join(self._causes())
        points = f" Possible causes: {causes}." if causes else ""
        late = self.learning_rate <= LATE * self.first_learning_rate
        hope = " The steps were already small, so it will hardly come back." if late else ""
        return (
            f"{self.name} was predicted in validation patches until epoch {self.last} and {since}.{known}{points}{hope}"
        )

    def _causes(self) -> Iterator[str]:
        """Yield what the history points to, each with the setting that would change it."""
        if self.patches < RARE:
            yield "the class is seldom seen (raise patches.foreground_share, or take patches.sampling: classes)"
        if self.share > ALONE:
            yield f"{self.term} decides nearly alone (change the weights of the loss's terms)"
        if self.learning_rate > EARLY * self.first_learning_rate:
            yield "the steps were large (if it does not come back, lower training.learning_rate)"


def lost_classes(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, bool]:
    """Return for each class that was missing in some epoch whether it is lost now (`LostClass`).

    Args:
        rows: The run's rows of history.csv so far.
        classes: All classes, the background first.
    """
    lacking = [f"; {row.get('not_predicted') or ''}; " for row in rows]
    found = {}
    for name in classes[1:]:
        missing = [f"; {name}; " in text for text in lacking]
        if any(missing):
            found[name] = missing[-1] and _was_steady(missing)
    return found


def alarms(epochs: Sequence[Epoch], classes: Sequence[str]) -> list[LostClass]:
    """Return the foreground classes that a run predicted in `STEADY` epochs in a row and not in its last one.

    A class that no validation patch has cannot be told from one that is predicted, and gives no alarm.

    Args:
        epochs: The run's finished epochs.
        classes: All classes, the background first.
    """
    found = []
    for name in classes[1:]:
        missing = [epoch.lacks(name) for epoch in epochs]
        if missing and missing[-1] and _was_steady(missing):
            found.append(_lost(name, epochs, max(place for place, lacks in enumerate(missing) if not lacks)))
    return found


def _was_steady(missing: Sequence[bool]) -> bool:
    return any(not any(missing[first : first + STEADY]) for first in range(len(missing) - STEADY))


def _lost(name: str, epochs: Sequence[Epoch], last: int) -> LostClass:
    around = epochs[max(0, last + 2 - AROUND) : last + 2]  # up to the first epoch without it
    shares = [epoch.patches_with_class[name] for epoch in around if name in epoch.patches_with_class]
    terms: dict[str, list[float]] = {}
    for epoch in around:
        for term, share in epoch.gradient_shares.items():
            terms.setdefault(term, []).append(share)
    means = {term: sum(values) / len(values) for term, values in terms.items()}
    largest = max(means, key=lambda term: means[term]) if len(means) > 1 else ""
    return LostClass(
        name=name,
        last=epochs[last].number,
        now=epochs[-1].number,
        patches=sum(shares) / len(shares) if shares else math.nan,
        learning_rate=epochs[last + 1].learning_rate,
        first_learning_rate=epochs[0].learning_rate,
        term=largest,
        share=means.get(largest, math.nan),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.01 or share == 0 else 1}f} %"


def _joined(facts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(facts[:-1]), facts[-1])))
