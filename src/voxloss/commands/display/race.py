"""What `voxloss race` prints between its rounds."""

from voxloss.evaluation.race import FUTILE, Look
from voxloss.study.rounds import Race
from voxloss.utilities.text import count_of


def round_text(race: Race, number: int) -> str:
    """Say which round begins, and with how many losses."""
    seed, fold = race.rounds[number - 1]
    staying = count_of(len(race.staying), "loss")
    first = f"rounds 1 to {number}" if not race.looks else f"round {number} (fold {fold}, seed {seed})"
    return f"{first} of at most {len(race.rounds)}, {staying} still in"


def look_text(look: Look, unlearned: str | None = None) -> str:
    """Say which losses leave after a round, why, and whether the race ends.

    Args:
        look: The look after the round.
        unlearned: The class, if no loss of the round has learned to find it.
    """
    lines = []
    for one in look.departures:
        evidence = f"{one.difference:.3f} below {one.beaten_by}"
        lines.append(f"{one.loss} leaves after round {look.round}: its mean is {evidence}.")
    names = ", ".join(look.staying)
    if look.outcome == "one":
        lines.append(f"The race is over: only {names} is still in.")
    elif look.outcome == "equivalent" and unlearned is not None:
        lines.append(f"The race is over, undecided: {names} have learned nothing.")
    elif look.outcome == "equivalent":
        lines.append(f"The race is over: {names} are equivalent.")
    elif look.outcome == "futile":
        lines.append(
            f"The race is over, undecided: {names} are still in, and the remaining rounds would single out one of them "
            f"with a probability below {FUTILE:.0%}.".replace("%", " %")
        )
    elif look.outcome == "rounds":
        lines.append(f"The race is over, undecided: {names} are still in after the last round.")
    elif not lines:
        lines.append(f"No loss leaves after round {look.round}.")
    if unlearned is not None:
        lines.append(f"No network has learned to find {unlearned} so far, so the order of the losses says nothing.")
    return "\n".join(lines)
