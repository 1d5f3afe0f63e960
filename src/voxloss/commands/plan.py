"""`voxloss plan`: what a study would cost on this machine."""

import argparse

from voxloss.commands.shared import Parsers, add_command, add_study_options, study_config


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss plan`."""
    summary = "estimate the time, memory and disk space that a study needs on this machine"
    add_study_options(add_command(parsers, "plan", plan, summary, overrides=True))


def plan(arguments: argparse.Namespace) -> int:
    """Run `voxloss plan` and return its exit status."""
    # torch, rich
    from rich.console import Console

    from voxloss.commands.display.plan_table import plan_table
    from voxloss.study.plan import plan as plan_study

    console = Console()
    with console.status("reading the headers") as status:
        planned = plan_study(study_config(arguments), status.update)
    console.print(plan_table(planned))
    for warning in planned.survey.config.warnings():
        console.print(f"[yellow]note[/]: {warning}", highlight=False)
    if planned.advice is not None:
        console.print(f"[red]not enough memory[/]: {planned.advice}", highlight=False)
        return 1
    return 0
