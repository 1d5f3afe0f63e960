"""`voxloss run`: a whole study, from the data to the report."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.commands.shared import (
    Parsers,
    add_command,
    add_study_folder,
    add_study_options,
    fail,
    show_report,
    study_and_config,
    whole_numbers,
)
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of

if TYPE_CHECKING:
    from voxloss.config.schema import StudyConfig

FEW_LEFT_OUT = 10  # cases that are named one by one


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss run`."""
    summary = "run a study: train every loss on every fold, score, test and report"
    parser = add_command(parsers, "run", run, summary, overrides=True, resumable=True)
    add_study_options(parser)
    add_study_folder(parser)
    parser.add_argument("--folds", help="train only these folds, numbers separated by commas")
    parser.add_argument("--no-report", action="store_true", help="do not write the report (`voxloss report` does)")


def run(arguments: argparse.Namespace) -> int:
    """Run `voxloss run` and return its exit status."""
    folder, config = study_and_config(arguments)
    folds = None if arguments.folds is None else whole_numbers("--folds", arguments.folds)
    return run_study(config, folder, folds, report=not arguments.no_report)


def _left_out(dropped: Sequence[tuple[str, str]]) -> list[str]:
    """Say which cases are left out and why; where many are for the same reason, how many."""
    reasons: dict[str, list[str]] = {}
    for case_id, reason in dropped:
        reasons.setdefault(reason, []).append(case_id)
    return [
        f"left out: {count_of(len(ids), 'case')} ({reason})"
        if len(ids) > FEW_LEFT_OUT
        else f"left out: {one}: {reason}"
        for reason, ids in reasons.items()
        for one in (ids if len(ids) <= FEW_LEFT_OUT else ids[:1])
    ]


def run_study(config: "StudyConfig", folder: Path, folds: Sequence[int] | None = None, *, report: bool = True) -> int:
    """Execute the missing runs, merge the scores and write the report; the exit status says whether a run failed.

    Args:
        config: The configuration; losses and seeds that the study lacks are added to it.
        folder: The study's folder, new or not.
        folds: The folds to train; None: all.
        report: Whether to write the report and print its tables.

    Raises:
        InputError: The study does not have one of the folds, or as `open_study`.
    """
    # pandas, rich
    from rich.console import Console
    from rich.markup import escape

    from voxloss.commands.display.plan_table import estimate_sentence, load_sentence
    from voxloss.commands.display.preparation import preparation_bar
    from voxloss.commands.display.race import look_text, round_text
    from voxloss.commands.display.runs import run_display
    from voxloss.commands.display.search import search_text, trials_sentence
    from voxloss.study.create import open_study, run_warnings
    from voxloss.study.estimate import estimate
    from voxloss.study.executors import execute_locally
    from voxloss.study.folder import FINISHED, Run, RunStatus
    from voxloss.study.race import none_learned, run_race
    from voxloss.study.search import is_ready, places_of, run_searches

    raced = config.comparison.design == "race"
    if raced and folds is not None:
        raise InputError("--folds: a race chooses the folds of its rounds itself; leave --folds out.")
    console = Console()
    with ExitStack() as held:
        with preparation_bar(console) as bar:
            notices: list[str] = []
            study = held.enter_context(open_study(config, folder, bar, notices.append, folds or ()))
        taken, dropped = len(study.dataset.cases), study.dataset.dropped
        of_look = f"the quick look takes {taken} of {count_of(taken + len(dropped), 'case')}"
        for line in [of_look] if config.comparison.look and dropped else _left_out(dropped):
            console.print(line, markup=False, highlight=False)

        unfinished_trials: list[RunStatus] = []

        def execute_all(runs: Sequence[Run], what: str) -> None:
            console.print(f"{folder}: {what}", highlight=False)
            with run_display(study, runs, console) as display:
                execute_locally(study, runs, display.changed, display.poll, display.stopping)

        def execute(runs: Sequence[Run], what: str) -> None:
            """Execute the runs of losses as listed, then what is searched for the others, then these."""
            if listed := [run for run in runs if not run.loss.tuned]:
                execute_all(listed, f"{what}, {count_of(len(listed), 'run')} left")
            places = places_of(runs)
            unfinished_trials.extend(
                run_searches(
                    study,
                    places,
                    lambda trials: execute_all(
                        trials, f"{count_of(len(trials), 'trial')} of {search_text(study, places)}"
                    ),
                )
            )
            if tuned := [run for run in runs if run.loss.tuned and is_ready(study, run)]:
                execute_all(tuned, f"{what}, {count_of(len(tuned), 'tuned run')} left")

        # Only this call's losses, seeds and folds: an earlier call may have asked for others.
        keys, seeds = [choice.key for choice in config.comparison.compared()], config.comparison.seeds
        runs = [
            run
            for run in study.runs()
            if run.loss.key in keys and run.seed in seeds and (folds is None or run.fold in folds)
        ]
        waiting = [run for run in runs if study.status(run).state not in FINISHED]
        notices += [
            f"{key} is retired and not trained; to train it again: voxloss retire {folder} {key} --undo"
            for key in keys
            if key in study.retired
        ]
        notices += (*study.config.warnings(), *run_warnings(study, waiting))
        for note in notices:
            console.print(f"[yellow]note[/]: {escape(note)}", highlight=False, soft_wrap=True)
        if raced:
            race = study.race()
            waiting = [run for run in race.runs() if not race.ended and study.status(run).state not in FINISHED]
        if waiting:
            expected = estimate(study, waiting)
            parallel = study.config.execution.parallel
            console.print(estimate_sentence(expected, len(waiting), parallel, raced), highlight=False, soft_wrap=True)
            if sentence := trials_sentence(study, waiting, expected):
                console.print(sentence, highlight=False, soft_wrap=True)
            if expected.probe is not None and expected.probe.busy:
                console.print(f"[yellow]note[/]: {load_sentence(expected.probe)}", highlight=False, soft_wrap=True)
        cases, losses = count_of(len(study.dataset.cases), "case"), count_of(len(config.comparison.losses), "loss")
        if raced:
            run_race(
                study,
                lambda number, runs: execute(runs, f"{cases}, {losses}, {round_text(study.race(), number)}"),
                lambda look: console.print(
                    look_text(look, study.comparison.primary_class if none_learned(study, look) else None),
                    markup=False,
                    highlight=False,
                ),
            )
            runs = study.runs()
        elif waiting:
            execute(waiting, f"{cases}, {losses}")
        study.merge_scores()
        if report:  # while the study is held: another `voxloss run` would remove what is half written
            show_report(folder, console)
    failed = [*(status.run for status in unfinished_trials), *runs]
    failed = [run for run in failed if study.status(run).state == "failed"]
    if failed:
        reason = study.status(failed[0]).reason or "no reason is recorded"
        first = f"{failed[0]}: {reason.rstrip('.')}"
        which = first if len(failed) == 1 else f"the first: {first}"
        what = (
            "run"
            if all(run.trial is None for run in failed)
            else "run or trial"
            if len(failed) == 1
            else "runs or trial"
        )
        return fail(f"{count_of(len(failed), what)} failed ({which}). Run the same command to try again.")
    return 0
