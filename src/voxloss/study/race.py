"""Run a race: execute its rounds, and after each decide which losses leave.

The state of a race is its looks alone (race.json), so that it resumes wherever it was interrupted: a round without a
look is executed as far as its runs are missing, and then looked at.
"""

import math
from collections.abc import Callable, Sequence

from voxloss.evaluation.learned import learned_classes
from voxloss.evaluation.race import Look, Outcome, look_at
from voxloss.evaluation.scores import merge_scores
from voxloss.evaluation.verdict import case_table
from voxloss.study.folder import FINISHED, Run
from voxloss.study.rounds import Race, plain_look
from voxloss.study.study import Study


def run_race(
    study: Study, execute: Callable[[int, Sequence[Run]], None], looked: Callable[[Look], None] = lambda _: None
) -> None:
    """Execute the rounds of a race until it is over, or until a run fails.

    The study must be held (`open_study`).

    Args:
        study: The study.
        execute: Executes the missing runs of a round, of which it gets the number.
        looked: Called after each round with what was decided.
    """
    while True:
        race = study.race()
        number = race.next_round
        if number is None:
            return
        runs = race.runs(number)
        waiting = [run for run in runs if study.status(run).state not in FINISHED]
        if waiting:
            execute(number, waiting)
        if any(study.status(run).state not in FINISHED for run in waiting):
            return  # a loss must not leave for a full disk or too little memory
        look = _look(study, race, number)
        study.files.write_looks([plain_look(each) for each in (*race.looks, look)])
        looked(look)


def none_learned(study: Study, look: Look) -> bool:
    """Whether no loss of a look has learned the primary class, so that their order or equality says nothing."""
    runs = [run for run in study.race().runs(look.round) if run.loss.key in look.losses]
    scores = merge_scores(study.run_folder(run).scores_file for run in runs)
    learned = learned_classes(scores, study.blind)
    return not any(one.learned for one in learned if one.class_name == study.comparison.primary_class)


def _look(study: Study, race: Race, number: int) -> Look:
    staying = [loss.key for loss in race.staying]
    runs = [run for run in race.runs(number) if run.loss.key in staying]
    scores = merge_scores(study.run_folder(run).scores_file for run in runs)
    comparison = study.comparison
    found = case_table(scores, comparison.primary_class, comparison.primary_metric, every_seed=True)
    if found is None:  # no case has a value for every loss, for example where none has the class
        nothing = tuple(math.nan for _ in staying)
        outcome: Outcome | None = "rounds" if number == len(race.rounds) else None
        return Look(number, 0, tuple(staying), nothing, 0.0, (), math.nan, outcome, len(race.losses), race.passes)
    table, folds, _ = found
    return look_at(
        table.to_numpy(dtype=float),
        folds,
        list(table.columns),
        race.looks,
        round=number,
        n_folds=race.n_folds,
        passes=race.passes,
        family=len(race.losses),
    )
