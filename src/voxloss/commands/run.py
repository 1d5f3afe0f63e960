"""`voxloss run`: a whole study, from the data to the report."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.commands.shared import (
    Parser,
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
from voxloss.utilities.text import count_of, shell_word

if TYPE_CHECKING:
    from voxloss.config.schema import StudyConfig
    from voxloss.study.study import Study

FEW_LEFT_OUT = 10  # cases that are named one by one


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss run`."""
    summary = "run a study: train every loss on every fold, score, test and report"
    parser = add_command(parsers, "run", run, summary, overrides=True, resumable=True)
    add_study_options(parser)
    add_study_folder(parser)
    parser.add_argument("--folds", help="train only these folds, numbers separated by commas")
    parser.add_argument("--no-report", action="store_true", help="do not write the report (`voxloss report` does)")
    add_detach(parser)


def add_detach(parser: Parser) -> None:
    """Add the option to leave the work to other processes, which `run_study` gets."""
    parser.add_argument(
        "--detach", action="store_true",
        help="return once the workers are started; `voxloss status` follows them, `voxloss stop` stops them",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run `voxloss run` and return its exit status."""
    folder, config = study_and_config(arguments)
    folds = None if arguments.folds is None else whole_numbers("--folds", arguments.folds)
    return run_study(config, folder, folds, report=not arguments.no_report, detach=arguments.detach)


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


def _retired_where(study: "Study", key: str) -> str | None:
    """Say for which networks a loss is retired: "" for all; None if for none."""
    retired = [part.files.network for part in study.parts() if key in part.retired]
    if not retired:
        return None
    return "" if len(retired) == len(study.parts()) else f" for {', '.join(map(str, retired))}"


def run_study(
    config: "StudyConfig",
    folder: Path,
    folds: Sequence[int] | None = None,
    *,
    report: bool = True,
    detach: bool = False,
) -> int:
    """Execute the missing runs, merge the scores and write the report; the exit status says whether a run failed.

    Args:
        config: The configuration; losses and seeds that the study lacks are added to it.
        folder: The study's folder, new or not.
        folds: The folds to train; None: all.
        report: Whether to write the report and print its tables.
        detach: Whether to return once workers are started.

    Raises:
        InputError: The study does not have one of the folds, or as `open_study`.
    """
    # pandas, rich
    from rich.console import Console
    from rich.markup import escape

    from voxloss.commands.display.execution import show_execution
    from voxloss.commands.display.plan_table import estimate_sentence, load_sentence
    from voxloss.commands.display.preparation import preparation_bar, working
    from voxloss.commands.display.search import trials_sentence
    from voxloss.study.create import open_study, run_warnings
    from voxloss.study.estimate import estimate
    from voxloss.study.execution.executor import executor_of
    from voxloss.study.execution.follow import Helpers
    from voxloss.study.execution.request import Request, unfinished
    from voxloss.study.folder import StudyFolder
    from voxloss.study.search import failed_trials, places_of
    from voxloss.study.study import Study

    raced = config.comparison.design == "race"
    if raced and folds is not None:
        raise InputError("--folds: a race chooses the folds of its rounds itself; leave --folds out.")
    executor = executor_of(config.execution, detached=detach)
    console = Console()
    # Only this call's losses, networks, seeds and folds: an earlier call may have asked for others.
    keys, seeds = [choice.key for choice in config.comparison.compared()], config.comparison.seeds
    networks = tuple(choice.key for choice in config.networks()) or None
    request = Request(
        losses=tuple(keys),
        seeds=tuple(seeds),
        folds=None if folds is None else tuple(folds),
        networks=networks,
        stop_token=StudyFolder(folder).stop_token(),
        report=detach and report,
        detached=detach,
    )
    helpers = Helpers(executor, folder, request) if executor.elsewhere else None
    with ExitStack() as held:
        with preparation_bar(console) as bar:
            notices: list[str] = []
            study = held.enter_context(open_study(config, folder, bar, notices.append, folds or (), helpers))
        taken, dropped = len(study.dataset.cases), study.dataset.dropped
        of_look = f"the quick look takes {taken} of {count_of(taken + len(dropped), 'case')}"
        for line in [of_look] if config.comparison.look and dropped else _left_out(dropped):
            console.print(line, markup=False, highlight=False)

        runs = [
            run
            for run in study.runs()
            if run.loss.key in keys
            and run.seed in seeds
            and (folds is None or run.fold in folds)
            and (run.network is None or networks is None or run.network in networks)
        ]
        waiting = unfinished(study, runs)
        notices += [
            f"{key} is retired{where} and not trained; to train it again: "
            f"voxloss retire {shell_word(folder)} {shell_word(key)} --undo"
            for key in keys
            if (where := _retired_where(study, key)) is not None
        ]
        notices += (*study.config.warnings(), *run_warnings(study, waiting))
        for note in notices:
            console.print(f"[yellow]note[/]: {escape(note)}", highlight=False, soft_wrap=True)
        if raced:
            race = study.race()
            waiting = [] if race.ended else unfinished(study, race.runs())
        for run in (*waiting, *failed_trials(study, places_of(waiting))):
            if study.status(run).state == "failed":
                study.write_status(run, state="pending")  # for the workers, who repeat nothing by themselves
    if waiting:
        settings, started = study.config.execution, helpers is not None and helpers.started
        what = "" if helpers is None else helpers.what
        if settings.executor == "local":  # else this machine's time says nothing
            for part in study.parts():
                own = [run for run in waiting if run.network == part.files.network]
                if not own:
                    continue
                with working(console, "estimating the time"):
                    expected = estimate(part, own)
                name = "" if part.files.network is None else f"{part.files.network}: "
                sentence = name + estimate_sentence(expected, len(own), settings.parallel, raced)
                console.print(sentence, markup=False, highlight=False, soft_wrap=True)
                if sentence := trials_sentence(part, own, expected):
                    console.print(sentence, highlight=False, soft_wrap=True)
                if expected.probe is not None and expected.probe.busy:
                    console.print(f"[yellow]note[/]: {load_sentence(expected.probe)}", highlight=False, soft_wrap=True)
        if detach:
            if not started:
                what = executor.start(folder, settings, len(waiting), request)
            console.print(f"{what}.", markup=False, highlight=False, soft_wrap=True)
            for name in ("status", "stop"):
                console.print(f"voxloss {name} {folder}", markup=False, highlight=False, soft_wrap=True)
            return 0
        show_execution(study, executor, request, waiting, console, started=started)
    study = Study.open(folder)  # another command may have added losses, seeds or networks, and merged their scores
    if raced:
        runs = study.runs()
    study.merge_scores()
    if report:
        show_report(folder, console)
    failed = [run for run in runs if study.status(run).state == "failed"]
    failed += failed_trials(study, places_of(unfinished(study, runs)))
    if failed:
        reason = study.status(failed[0]).reason or "no reason is recorded"
        first = f"{failed[0]}: {reason.rstrip('.')}"
        which = first if len(failed) == 1 else f"the first: {first}"
        noun = "run" if all(run.trial is None for run in failed) else "training"
        return fail(f"{count_of(len(failed), noun)} failed ({which}). Run the same command to try again.")
    return 0
