"""`voxloss race`: a study whose losses leave as soon as they cannot be the best any more."""

import argparse

from voxloss.commands.run import add_detach, run_study
from voxloss.commands.shared import Parsers, add_command, add_study_folder, add_study_options, study_and_config


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss race`."""
    summary = "run a study as a race: losses that cannot be the best any more leave after each round"
    parser = add_command(parsers, "race", race, summary, overrides=True, resumable=True)
    add_study_options(parser)
    add_study_folder(parser)
    parser.add_argument("--no-report", action="store_true", help="do not write the report (`voxloss report` does)")
    add_detach(parser)


def race(arguments: argparse.Namespace) -> int:
    """Run `voxloss race` and return its exit status."""
    folder, config = study_and_config(arguments, "--comparison.design", "race")
    return run_study(config, folder, report=not arguments.no_report, detach=arguments.detach)
