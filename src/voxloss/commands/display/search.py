"""What is printed of a search for settings: before it begins, between its rounds, and by `voxloss status`."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from voxloss.config.tuning import setting_text
from voxloss.study.estimate import Estimate
from voxloss.study.folder import FINISHED, Run
from voxloss.study.progress import SearchProgress, search_progress
from voxloss.study.search import Place, places_of, trials_of
from voxloss.study.study import Study
from voxloss.utilities.text import count_of, duration_text


def search_text(study: Study, places: Sequence[Place]) -> str:
    """Say how far the searches of some losses and folds are: "2 searches, 4 of 24 trials finished"."""
    finished, planned = _counts(study, places)
    return (
        f"{len(places)} search{'' if len(places) == 1 else 'es'}, {finished} of {count_of(planned, 'trial')} finished"
    )


def trials_sentence(study: Study, runs: Sequence[Run], expected: Estimate) -> str:
    """Say how many trials runs wait for, and how long these take, by the seconds of a run; "" where there are none."""
    tuning, places = study.tuning, places_of(runs)
    finished, planned = _counts(study, places)
    if tuning is None or planned == finished:
        return ""
    share = (tuning.epochs or study.config.training.epochs) / study.config.training.epochs
    seconds = expected.each * share * (planned - finished) / study.config.execution.parallel
    most = "at most " if tuning.prune else ""
    return (
        f"and {count_of(planned - finished, 'trial')} that search for the settings of the tuned ones: {most}about "
        f"{duration_text(seconds)}"
    )


def _counts(study: Study, places: Sequence[Place]) -> tuple[int, int]:
    """The number of finished and of all trials."""
    if study.tuning is None:
        return 0, 0
    statuses = [study.status(run) for run in trials_of(study, places)]
    return sum(status.state in FINISHED for status in statuses), study.tuning.trials * len(places)


def search_table(study: Study) -> Table:
    """Lay out the searches, a row per loss and a column per fold: trials, the best so far, and what was chosen."""
    at_work = study.is_at_work()
    table = Table(title="Search for settings", title_justify="left")
    progress = search_progress(study)
    folds = sorted({one.fold for one in progress})
    table.add_column("loss")
    for fold in folds:
        table.add_column(f"fold {fold}", overflow="fold")
    for loss in dict.fromkeys(one.loss for one in progress):
        cells = {one.fold: _cell(one, at_work) for one in progress if one.loss == loss}
        table.add_row(escape(loss), *(cells[fold] for fold in folds))
    return table


def _cell(one: SearchProgress, at_work: bool) -> str:
    lines = [f"{one.finished} of {one.planned}"]
    for state in (*(["running"] if at_work else []), "pruned", "diverged", "failed"):
        if number := sum(trial.state == state for trial in one.trials):
            lines[0] += f", {number} {state}"
    values = [trial.value for trial in one.trials if trial.value is not None]
    if values:
        lines.append(f"best Dice {max(values):.3f}")
    if one.chosen is not None:
        lines += setting_text(one.trials[one.chosen].setting or {}).split(", ")
    lines += [f"trial {trial.run.trial}: {trial.reason}" for trial in one.trials if trial.state == "failed"]
    return escape("\n".join(lines))
