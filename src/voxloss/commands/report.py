"""`voxloss report`: the report of a study, rebuilt from its files."""

import argparse

from voxloss.commands.shared import Parsers, add_command, existing_path, show_report, whole_number
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss report`."""
    parser = add_command(parsers, "report", report, "rebuild a study's tables, figures and page from its files")
    parser.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")
    parser.add_argument(
        "--losses",
        help="show only these losses, separated by commas; intervals and tests remain those of all compared losses",
    )
    parser.add_argument(
        "--viewer-cases", type=whole_number, metavar="N",
        help="copy the volumes of the N cases on which the losses disagree most into the viewer (default: 12)",
    )  # fmt: skip


def report(arguments: argparse.Namespace) -> int:
    """Run `voxloss report` and return its exit status."""
    # pandas, rich
    from rich.console import Console

    from voxloss.study.study import Study

    if arguments.viewer_cases is not None and arguments.viewer_cases < 0:
        raise InputError(f"--viewer-cases must be 0 or more; received {arguments.viewer_cases}.")
    losses = None if arguments.losses is None else [name.strip() for name in arguments.losses.split(",")]
    Study.open(arguments.study).merge_scores()
    show_report(arguments.study, Console(), arguments.viewer_cases, losses)
    return 0
