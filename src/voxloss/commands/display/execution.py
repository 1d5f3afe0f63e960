"""What `voxloss run` shows while workers execute the runs of a study."""

from collections.abc import Callable, Sequence

from rich.console import Console

from voxloss.commands.display.race import look_text, round_text
from voxloss.commands.display.runs import run_display
from voxloss.commands.display.search import search_text
from voxloss.study.execution.executor import Executor
from voxloss.study.execution.follow import executed, follow, not_retired
from voxloss.study.execution.request import Request, not_ended
from voxloss.study.folder import ENDED, Run
from voxloss.study.race import none_learned
from voxloss.study.search import Place, failed_trials, is_ready, places_of, trials_of
from voxloss.study.study import Study
from voxloss.utilities.text import count_of


def show_execution(
    study: Study,
    executor: Executor,
    request: Request,
    runs: Sequence[Run],
    console: Console,
    *,
    started: bool = False,
) -> None:
    """Have runs executed, and show them until they have ended; of a race also its decisions.

    Args:
        study: The study.
        executor: Starts the workers.
        request: What they are asked to do.
        runs: The runs to do; of a race all that it may still have.
        console: Where they are shown.
        started: Whether the workers are there already.

    Raises:
        InputError: The workers cannot do the work.
        KeyboardInterrupt: Ctrl-C was pressed or the study was stopped. The runs at work have stopped.
    """
    losses = len(study.losses) if study.comparison.design == "race" else len(request.losses)
    what = f"{count_of(len(study.dataset.cases), 'case')}, {count_of(losses, 'loss')}"
    if request.networks is not None:
        what += f", {count_of(len(request.networks), 'network')}"
    known = len(study.race().looks)  # before the workers start, like what has ended
    trials = [] if started else trials_of(study, places_of(runs))
    shown = {*map(str, trials)} - {*map(str, not_ended(study, trials))}
    with executed(study, executor, request, len(runs), lambda: _say_stopping(console), started=started):
        if study.comparison.design == "race":
            _show_race(study, executor, request, runs, shown, console, what, known)
        else:
            _show_grid(study, executor, request, runs, shown, console, what)


def _show_grid(
    study: Study,
    executor: Executor,
    request: Request,
    runs: Sequence[Run],
    shown: set[str],
    console: Console,
    what: str,
    ended: Callable[[], bool] = lambda: True,
) -> None:
    """Show the losses as listed, then the searches for settings round by round, then the tuned losses."""
    listed, others = [run for run in runs if not run.loss.tuned], [run for run in runs if run.loss.tuned]
    if listed:
        _show_runs(study, executor, request, listed, console, what, ended if not others else lambda: True)
    _show_searches(study, executor, request, others, shown, console)
    if tuned := [run for run in others if is_ready(study, run)]:
        _show_runs(study, executor, request, tuned, console, f"{what} as tuned", ended)
    if not runs:
        follow(study, executor, request, [], ended=ended)


def _show_searches(
    study: Study, executor: Executor, request: Request, runs: Sequence[Run], shown: set[str], console: Console
) -> None:
    """Show the trials that runs wait for but those in `shown`, until each search has a setting or a failed trial."""

    def places() -> list[Place]:
        return places_of(not_retired(study, runs))

    def open_trials() -> list[Run]:
        return not_ended(study, trials_of(study, places()))

    def unseen() -> list[Run]:
        """Also those that began and ended since the last look, and those that another command repeats."""
        at_work = set(map(str, open_trials()))
        return [one for one in trials_of(study, places()) if str(one) not in shown or str(one) in at_work]

    def settled() -> bool:
        undecided = [place for place in places() if study.search(*place).chosen is None]
        return all(failed_trials(study, [place]) for place in undecided)

    def ended() -> bool:
        return bool(open_trials()) or settled()

    while (trials := unseen()) or not settled():
        if trials:
            at_work = _show_runs(study, executor, request, trials, console, search_text(study, places()), ended)
            shown.update(map(str, trials))
        else:
            at_work = follow(study, executor, request, [], ended=ended)
        if not at_work:
            break


def _say_stopping(console: Console) -> None:
    console.print("Stopping after the current training step.", highlight=False)


def _show_runs(
    study: Study,
    executor: Executor,
    request: Request,
    runs: Sequence[Run],
    console: Console,
    what: str,
    ended: Callable[[], bool] = lambda: True,
) -> bool:
    """Show runs until they have ended and `ended` says yes; False if the workers have left before."""
    noun = "run" if runs[0].trial is None else "trial"
    if left := len(not_ended(study, runs)):
        console.print(f"{study.folder}: {what}, {count_of(left, noun)} left", highlight=False)
    with run_display(study, runs, console) as display:
        return follow(study, executor, request, runs, display.changed, display.poll, ended)


def _show_race(
    study: Study,
    executor: Executor,
    request: Request,
    asked: Sequence[Run],
    shown: set[str],
    console: Console,
    what: str,
    known: int,
) -> None:
    """Show a race round by round; it ends early when a run fails, which decides nothing."""
    waiting = {*map(str, asked)}
    while (number := (race := study.race()).next_round) is not None:
        runs, before = race.runs(number), len(race.looks)
        known = _show_looks(study, console, known)

        def decided(before: int = before, runs: Sequence[Run] = runs) -> bool:
            failed = any(study.status(run).state == "failed" for run in (*runs, *failed_trials(study, places_of(runs))))
            return failed or len(study.race().looks) > before

        text = f"{what}, {round_text(race, number)}"
        of_round = [run for run in runs if str(run) in waiting]
        waiting -= {*map(str, of_round)}
        _show_grid(study, executor, request, of_round, shown, console, text, decided)
        if len(study.race().looks) == before:
            break
    else:  # it was over before its last rounds were looked at
        done = [run for run in asked if str(run) in waiting and study.status(run).state in ENDED]
        _show_grid(study, executor, request, done, shown, console, what)
    _show_looks(study, console, known)


def _show_looks(study: Study, console: Console, known: int) -> int:
    """Print the looks after the first `known` ones, and return how many there are."""
    looks = study.race().looks
    for look in looks[known:]:
        unlearned = study.comparison.primary_class if none_learned(study, look) else None
        console.print(look_text(look, unlearned), markup=False, highlight=False)
    return len(looks)
