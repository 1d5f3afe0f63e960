"""Decide a race: after each round, which losses leave.

The state of a race is its looks alone (race.json), so that it resumes wherever it was interrupted: a round without a
look is executed as far as its runs are missing, and then looked at.
"""

import math

from voxloss.evaluation.learned import learned_classes
from voxloss.evaluation.race import Look, Outcome, look_at
from voxloss.evaluation.scores import merge_scores
from voxloss.evaluation.verdict import case_table
from voxloss.study.claims import RACE, Heart, Worker, of_study, take
from voxloss.study.folder import FINISHED, Run
from voxloss.study.rounds import Race, plain_look
from voxloss.study.study import Study


def next_round(study: Study) -> tuple[int, list[Run]] | None:
    """Return the number of the round that the losses are looked at next, and all runs up to it; None: it is over."""
    race = study.race()
    number = race.next_round
    return None if number is None else (number, race.runs(number))


def decide(study: Study, worker: Worker | None = None) -> bool:
    """Decide which losses leave, if every run of the next round is finished and nobody else is deciding.

    A failed run decides nothing: a loss must not leave for a full disk or too little memory.

    Args:
        study: The study.
        worker: Who decides; None: this process.

    Returns:
        Whether there is a new decision, or another process is about to write one.
    """
    claim = take(of_study(study.folder, RACE), worker or Worker())
    if claim is None:
        return True
    try:
        with Heart(claim):
            upcoming = next_round(study)
            if upcoming is None or any(study.status(run).state not in FINISHED for run in upcoming[1]):
                return False
            race = study.race()
            look = _look(study, race, upcoming[0])
            claim.check()
            study.files.write_looks([plain_look(each) for each in (*race.looks, look)])
            return True
    finally:
        claim.release()


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
