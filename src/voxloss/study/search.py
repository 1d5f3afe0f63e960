"""The search for the setting of a loss on a fold: which trials come next, and which setting is chosen.

A search goes on in rounds. The trials of a round are chosen at once, by the scores of the rounds before alone, and are
executed by whoever claims them, like runs. So the same seed and scores give the same trials however many workers there
are, and a search resumes at any moment: a round is chosen, by whoever claims that, when all trials of the rounds before
have finished.
"""

import importlib.util
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxloss.config.losses import LossChoice, listed_value, takes_whole_numbers
from voxloss.config.tuning import LEARNING_RATE, Choices, Dimension, Setting, Tuning
from voxloss.study.claims import Claim, Heart, Worker, of_study, take
from voxloss.study.folder import FINISHED, Run, RunStatus
from voxloss.study.searches import Search, Trial
from voxloss.study.study import Study
from voxloss.study.trial import remove_weights
from voxloss.training.batches import seed_of
from voxloss.utilities.errors import InputError
from voxloss.utilities.install import install_command

if TYPE_CHECKING:
    import optuna

Place = tuple[LossChoice, int, str | None]  # a loss, a fold and, where several are compared, a network

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
    places = [(run.loss.listed, run.fold, run.network) for run in runs if run.loss.tuned]
    by_name = {(loss.key, fold, network): (loss, fold, network) for loss, fold, network in places}
    return sorted(by_name.values(), key=lambda place: place[1])


def is_ready(study: Study, run: Run) -> bool:
    """Whether a run has its setting: it is of a loss as listed, or the search is finished."""
    return not run.loss.tuned or study.search(run.loss, run.fold, run.network).chosen is not None


def executable(study: Study, runs: Sequence[Run]) -> list[Run]:
    """Return what of some runs can be executed now: those that have their setting, and the trials that others wait for.

    Losses as listed come first, then trials, then tuned losses.
    """
    ready = [run for run in runs if is_ready(study, run)]
    waiting = [run for run in runs if not is_ready(study, run)]
    listed = [run for run in ready if not run.loss.tuned]
    return [*listed, *trials_of(study, places_of(waiting)), *(run for run in ready if run.loss.tuned)]


def trials_of(study: Study, places: Sequence[Place]) -> list[Run]:
    """Return all trials of some searches that are known now."""
    return [
        study.trial_run(loss, fold, trial, network)
        for loss, fold, network in places
        for trial in study.search(loss, fold, network).trials
    ]


def failed_trials(study: Study, places: Sequence[Place]) -> list[Run]:
    """Return the trials of some searches that failed, so that the searches wait until they are tried again."""
    return [run for run in trials_of(study, places) if study.status(run).state == "failed"]


def decide_searches(study: Study, runs: Sequence[Run], worker: Worker | None = None) -> bool:
    """Decide the searches that runs wait for and whose trials have all finished, unless others are deciding.

    Args:
        study: The study.
        runs: The runs.
        worker: Who decides; None: this process.

    Returns:
        Whether there is a new round of trials or a setting, or another process is about to write one.
    """
    decided = False
    for loss, fold, network in places_of([run for run in runs if not is_ready(study, run)]):
        if any(study.status(run).state not in FINISHED for run in trials_of(study, [(loss, fold, network)])):
            continue
        decided = True
        of_network = "" if network is None else f"{network}-"
        claim = take(of_study(study.folder, f"search-{of_network}{loss.key}-{fold}"), worker or Worker())
        if claim is None:
            continue
        try:
            with Heart(claim):
                _decide(study.part(network), loss, fold, claim)
        finally:
            claim.release()
    return decided


def _decide(study: Study, loss: LossChoice, fold: int, claim: Claim) -> None:
    """Write the next round of a search, or its setting, if all known trials have finished."""
    tuning, search = study.tuning, study.search(loss, fold)
    assert tuning is not None
    statuses = [study.status(run) for run in trials_of(study, [(loss, fold, study.files.network)])]
    if search.chosen is not None or any(status.state not in FINISHED for status in statuses):
        return  # another process has decided meanwhile
    for status in statuses:  # of a worker that was killed after a trial
        remove_weights(study, status.run)
    if len(search.trials) >= tuning.trials:
        search = replace(search, chosen=best_trial(statuses, _listed(study, loss)))
    else:
        search = replace(search, trials=(*search.trials, *_next_round(study, loss, fold, search, statuses)))
    claim.check()
    study.files.write_search(loss, fold, search)


def best_trial(statuses: Sequence[RunStatus], listed: Setting | None = None) -> int:
    """Return the number of the trial with the highest score; those that diverged have 0.

    Args:
        statuses: The trials, all of which have finished.
        listed: The setting of the loss as listed, which is chosen before equal ones; else the first of these is.
    """

    def standing(number: int) -> tuple[float, bool, int]:
        return _score(statuses[number]), statuses[number].setting == listed, -number

    return max(range(len(statuses)), key=standing)


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
    listed = _listed(study, loss)
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


def _listed(study: Study, loss: LossChoice) -> Setting:
    """The values of what is searched without a search."""
    assert study.tuning is not None
    rate = study.config.training.learning_rate
    return {name: listed_value(loss, name, rate) for name in study.tuning.space(loss)}


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
