"""The search for the setting of a loss on a fold: which trials come next, and which setting is chosen.

A search goes on in rounds. The trials of a round are chosen at once, by the scores of the rounds before alone, and are
executed by whoever executes runs. So the same seed and scores give the same trials however many workers there are, and
a search resumes at any moment: a round is asked for when all trials of the rounds before have finished.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxloss.config.losses import LossChoice, listed_value, takes_whole_numbers
from voxloss.config.tuning import LEARNING_RATE, Choices, Dimension, Setting, Tuning
from voxloss.study.folder import FINISHED, Run, RunStatus
from voxloss.study.searches import Search, Trial
from voxloss.study.study import Study
from voxloss.training.batches import seed_of
from voxloss.utilities.errors import InputError
from voxloss.utilities.install import install_command

if TYPE_CHECKING:
    import optuna

Place = tuple[LossChoice, int]  # a loss and a fold

STARTUP = 1 / 3  # share of the trials that are drawn at random before the sampler models the scores
_SAMPLER = 5  # a stream of random numbers; 0 to 4 are those of training


def require_sampler(tuning: Tuning | None) -> None:
    """Raise InputError if trials are to be chosen by a sampler that is not installed."""
    if tuning is not None and not tuning.grid and importlib.util.find_spec("optuna") is None:
        raise InputError(
            f"comparison.tuning with trials: N needs Optuna, which is not installed: {install_command('search')}; a "
            "grid of lists without trials needs nothing"
        )


def places_of(runs: Sequence[Run]) -> list[Place]:
    """Return the searches that runs need, fold by fold."""
    places = {(run.fold, run.loss.listed.key): (run.loss.listed, run.fold) for run in runs if run.loss.tuned}
    return sorted(places.values(), key=lambda place: place[1])


def is_ready(study: Study, run: Run) -> bool:
    """Whether a run has its setting: it is of a loss as listed, or the search is finished."""
    return not run.loss.tuned or study.search(run.loss, run.fold).chosen is not None


def run_searches(study: Study, places: Sequence[Place], execute: Callable[[Sequence[Run]], None]) -> list[RunStatus]:
    """Execute trials until every search is finished or has a trial that failed; return the failed trials.

    The study must be held (`open_study`).

    Args:
        study: The study.
        places: The searches.
        execute: Executes trials.
    """
    going, failed = list(places), list[RunStatus]()
    while going:
        trials = [(place, runs) for place in going if (runs := next_trials(study, *place))]
        if trials:
            execute([run for _, runs in trials for run in runs])
        going = []
        for place, runs in trials:
            unfinished = [status for run in runs if (status := study.status(run)).state not in FINISHED]
            failed += unfinished
            if not unfinished:
                going.append(place)
    return failed


def next_trials(study: Study, loss: LossChoice, fold: int) -> list[Run]:
    """Return the trials of a search that can be executed now; none when it is finished.

    Where all known trials have finished, the next round is chosen and written, or the best setting. Whoever calls this
    must be the only one that does for this search.
    """
    tuning, search = study.tuning, study.search(loss, fold)
    assert tuning is not None
    if search.chosen is not None:
        return []
    statuses = [study.status(study.trial_run(loss, fold, trial)) for trial in search.trials]
    if waiting := [status.run for status in statuses if status.state not in FINISHED]:
        return waiting
    if len(search.trials) >= tuning.trials:
        study.files.write_search(loss, fold, replace(search, chosen=best_trial(statuses)))
        return []
    new = _next_round(study, loss, fold, search, statuses)
    study.files.write_search(loss, fold, replace(search, trials=(*search.trials, *new)))
    return [study.trial_run(loss, fold, trial) for trial in new]


def best_trial(statuses: Sequence[RunStatus]) -> int:
    """Return the number of the trial with the highest score, the first of equal ones; those that diverged have 0."""
    return max(range(len(statuses)), key=lambda number: (_score(statuses[number]), -number))


def _score(status: RunStatus) -> float:
    """The score of a finished trial; a pruned one is below all others, since its score is unknown."""
    return -math.inf if status.state == "pruned" else status.value or 0.0


def _next_round(
    study: Study, loss: LossChoice, fold: int, search: Search, statuses: Sequence[RunStatus]
) -> list[Trial]:
    tuning, first = study.tuning, len(search.trials)
    assert tuning is not None
    number = 1 + search.trials[-1].round if search.trials else 0
    if tuning.grid:
        combinations = tuning.combinations(loss)
        of_round = combinations[first : first + tuning.batch] if tuning.prune else combinations[first:]
        return [Trial(first + place, number, setting, "grid") for place, setting in enumerate(of_round)]
    space, count = tuning.space(loss), min(tuning.batch, tuning.trials - first)
    settings: list[tuple[Setting, str]] = []
    listed = {name: listed_value(loss, name, study.config.training.learning_rate) for name in space}
    if not first and all(dimension.has(listed[name]) for name, dimension in space.items()):
        settings.append((listed, "listed"))
    seed = seed_of(study.comparison.seeds[0], fold, number, _SAMPLER)
    whole = {name for name in space if name != LEARNING_RATE and takes_whole_numbers(loss, name)}
    known = [
        (trial.setting, status, _dice(study, status)) for trial, status in zip(search.trials, statuses, strict=True)
    ]
    sampled, sampler = _sample(space, whole, known, count - len(settings), seed, math.ceil(STARTUP * tuning.trials))
    settings += [(setting, sampler) for setting in sampled]
    return [Trial(first + place, number, *setting) for place, setting in enumerate(settings)]


def _dice(study: Study, status: RunStatus) -> dict[int, float]:
    """The mean Dice of a pruned trial by epoch, by which the sampler places it below those that went on."""
    if status.state != "pruned":
        return {}
    history = study.run_folder(status.run).history()
    return {epoch.number: 0.0 if math.isnan(epoch.validation_dice) else epoch.validation_dice for epoch in history}


def _sample(
    space: Mapping[str, Dimension],
    whole: set[str],
    known: Sequence[tuple[Setting, RunStatus, Mapping[int, float]]],
    count: int,
    seed: int,
    startup: int,
) -> tuple[list[Setting], str]:
    """Ask Optuna's TPE sampler, rebuilt from the trials so far, for settings; also returns what chose them."""
    import optuna
    from optuna.trial import TrialState, create_trial

    distributions = {name: _distribution(dimension, name in whole) for name, dimension in space.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `multivariate` and `constant_liar` are called experimental
            sampler = optuna.samplers.TPESampler(
                seed=seed % 2**32, n_startup_trials=startup, multivariate=True, constant_liar=True
            )
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for setting, status, dice in known:
                pruned = status.state == "pruned"
                study.add_trial(
                    create_trial(
                        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                        value=None if pruned else _score(status),
                        params={name: _encoded(space[name], name in whole, setting[name]) for name in space},
                        distributions=distributions,
                        intermediate_values=dict(dice),
                    )
                )
            asked = [study.ask(distributions).params for _ in range(count)]
    finally:
        optuna.logging.set_verbosity(verbosity)
    settings = [{name: _decoded(space[name], params[name]) for name in space} for params in asked]
    return settings, f"TPE of Optuna {optuna.__version__}"


def _distribution(dimension: Dimension, whole: bool) -> "optuna.distributions.BaseDistribution":
    from optuna import distributions

    if isinstance(dimension, Choices):  # by place, since Optuna takes no lists as values
        return distributions.CategoricalDistribution(range(len(dimension.values)))
    if whole:
        return distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _encoded(dimension: Dimension, whole: bool, value: Any) -> Any:
    if isinstance(dimension, Choices):
        return next(place for place, one in enumerate(dimension.values) if _plain(one) == _plain(value))
    return int(value) if whole else float(value)


def _decoded(dimension: Dimension, value: Any) -> Any:
    return _plain(dimension.values[value]) if isinstance(dimension, Choices) else value


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
