"""`voxloss plan`: what a study would cost on this machine."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command, add_study_options, study_config, whole_number
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss plan`."""
    summary = "estimate the time, memory and disk space that a study needs on this machine, and what it will detect"
    parser = add_command(parsers, "plan", plan, summary, overrides=True)
    add_study_options(parser)
    parser.add_argument(
        "--pilot", type=Path, metavar="STUDY", help="assume the noise of this study, which may be in progress"
    )
    parser.add_argument(
        "--workers",
        type=whole_number,
        metavar="N",
        help="also project the study to N workers like this machine, of --execution.executor",
    )


def plan(arguments: argparse.Namespace) -> int:
    """Run `voxloss plan` and return its exit status."""
    # torch, rich
    from rich.console import Console
    from rich.markup import escape

    from voxloss.commands.display.plan_table import (
        design_table,
        load_sentence,
        networks_sentence,
        plan_table,
        workers_table,
    )
    from voxloss.commands.display.preparation import working
    from voxloss.commands.display.prices import gpu_sentence, price_table
    from voxloss.evaluation.planning import TYPICAL
    from voxloss.study.design import designs, pilot_noise
    from voxloss.study.plan import plan as plan_study
    from voxloss.study.prices import prices
    from voxloss.study.projection import projected

    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers must be 1 or more; received {arguments.workers}.")
    noises = TYPICAL if arguments.pilot is None else (pilot_noise(arguments.pilot),)
    console = Console()
    config = study_config(arguments)
    with working(console, "reading the headers") as say:
        planned = plan_study(config, say)
        say("simulating studies")
        table = design_table(designs(planned, noises), noises)
        say("measuring a quick look")
        offers = prices(planned, study_words(arguments))
    for network, part in planned.parts or ((None, planned),):
        console.print(plan_table(part, network))
    if planned.parts:
        console.print(networks_sentence(planned), highlight=False)
    if planned.probe.busy:
        console.print(f"[yellow]note[/]: {load_sentence(planned.probe)}", highlight=False)
    console.print(table)
    if arguments.workers is not None:
        executor = planned.survey.config.execution.executor
        console.print(workers_table(projected(planned, arguments.workers), executor))
    for warning in (*planned.survey.warnings, *planned.survey.config.warnings()):
        console.print(f"[yellow]note[/]: {escape(warning)}", highlight=False)
    console.print(price_table(offers), soft_wrap=True)
    if (sentence := gpu_sentence(offers)) is not None:
        console.print(sentence, highlight=False, soft_wrap=True)
    if planned.advice is not None:
        console.print(f"[red]not enough memory[/]: {planned.advice}", highlight=False)
        return 1
    return 0


def study_words(arguments: argparse.Namespace) -> list[str]:
    """Return the words that describe the planned study after `voxloss run`."""
    words = [str(arguments.config)]
    for option in ("data", "losses", "seeds", "networks"):
        if (value := getattr(arguments, option)) is not None:
            words += [f"--{option}", str(value)]
    return [*words, *arguments.overrides]
