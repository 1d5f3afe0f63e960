"""A race in words and as a table."""

import math

import pandas as pd

from voxloss.evaluation.race import FUTILE, LEVEL
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Table
from voxloss.study.rounds import Race
from voxloss.utilities.text import count_of


def race_sentence(race: Race, nothing: bool = False) -> str:
    """Say how far a race is or how it ended, and how many of the grid's runs it took.

    Args:
        race: The race.
        nothing: Whether no loss has learned to find the class, so that equal means say nothing of the losses.
    """
    if not race.looks:
        return "A race whose first rounds are in progress."
    last = race.looks[-1]
    grid = len(race.losses) * len(race.rounds)
    runs = len(race.runs(last.round))
    share = f"{100 * runs / grid:.0f} % of the {grid} runs of the full grid"
    left, staying = count_of(len(race.left), "loss"), count_of(len(race.staying), "loss")
    if not race.ended:
        done = f"{last.round} of at most {count_of(len(race.rounds), 'round')}"
        may = "are still in" if nothing else "may still be the best"
        return f"A race in progress: after {done}, {left} left and {staying} {may} ({share})."
    ends = {
        "one": "every other loss left",
        "equivalent": f"the {staying} still in " + ("have learned nothing" if nothing else "are equivalent"),
        "futile": f"the remaining rounds would single out one of the {staying} still in with a probability below "
        f"{100 * FUTILE:.0f} %",
        "rounds": f"the planned rounds were over with {staying} still in",
    }
    return f"A race: it ended after round {last.round} because {ends[str(last.outcome)]}; it took {share}."


def looks_frame(race: Race) -> pd.DataFrame:
    """Return a row per look and loss: round, loss, mean, leaves, beaten_by, difference, needed, level."""
    rows = []
    for look in race.looks:
        departures = {departure.loss: departure for departure in look.departures}
        for loss, mean in zip(look.losses, look.means, strict=True):
            one = departures.get(loss)
            rows.append({
                "round": look.round, "loss": loss, "mean": mean, "leaves": one is not None,
                "beaten_by": "" if one is None else one.beaten_by,
                "difference": math.nan if one is None else one.difference,
                "needed": math.nan if one is None else one.needed, "level": look.level,
            })  # fmt: skip
    return pd.DataFrame(rows)


def race_table(race: Race, class_name: str, metric: str) -> Table:
    """Return a row per loss: when it left and on what evidence; those still in first."""
    last = race.looks[-1]
    rows = [
        (
            Cell(loss_name(loss)),
            Cell("still in", shade="positive"),
            Cell(str(last.round)),
            Cell(f"{mean:.3f}"),
            Cell("–"),
        )
        for loss, mean in zip(last.losses, last.means, strict=True)
        if loss in last.staying
    ]
    waiting = [loss.key for loss in race.staying if loss.key not in last.losses]
    rows += [
        (Cell(loss_name(loss)), Cell("added, not looked at yet"), Cell("–"), Cell("–"), Cell("–")) for loss in waiting
    ]
    for look in reversed(race.looks):
        means = dict(zip(look.losses, look.means, strict=True))
        for one in look.departures:
            evidence = f"{one.difference:.3f} below {loss_name(one.beaten_by)}; {one.needed:.3f} is enough"
            rows.append((
                Cell(loss_name(one.loss)), Cell(f"left after round {look.round}", shade="negative"),
                Cell(str(look.round)), Cell(f"{means[one.loss]:.3f}"), Cell(evidence),
            ))  # fmt: skip
    measure = f"{metric_name(metric)} of {class_name}"
    return Table(
        title=f"The race by mean {measure}",
        caption=(
            f"A round is one fold and seed of every loss still in; {race.n_folds} rounds are a pass over the folds, "
            f"and {count_of(race.passes, 'pass')} were planned. After each round from the third on, a loss left if "
            "another one's mean was better by more than Hsu's comparison with the best allows, among all losses of the "
            f"race. The level of {100 * LEVEL:.0f} % is spent over the rounds, most of it at the end of each pass, and "
            "a part is kept for seeds that are added later: the best loss leaves in at most that share of studies. "
            "Means are over all rounds of the loss, so those of losses that left are over fewer cases. The verdict and "
            "all other tables are of the last round's losses, with intervals that hold whenever the race ends "
            "(Jennison and Turnbull 1989)."
        ),
        header=("Loss", "State", "Rounds", "Mean", "Evidence"),
        rows=tuple(rows),
    )
