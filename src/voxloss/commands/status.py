"""`voxloss status`: how far a study is."""

import argparse

from voxloss.commands.shared import Parsers, add_command, existing_path


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss status`."""
    summary = "show the progress of every run of a study, live while the study is running"
    parser = add_command(parsers, "status", status, summary)
    parser.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")
    parser.add_argument("--once", action="store_true", help="print it once instead of following it")


def status(arguments: argparse.Namespace) -> int:
    """Run `voxloss status` and return its exit status."""
    # NumPy, rich
    from rich.console import Console

    from voxloss.commands.display.status_view import queues_of, status_view, watch
    from voxloss.study.progress import run_progress
    from voxloss.study.study import Study

    study, console = Study.open(arguments.study), Console()
    if console.file.isatty() and not arguments.once and study.is_at_work():
        watch(lambda: Study.open(arguments.study), console)
    else:
        console.print(status_view(study, run_progress(study), queues_of(study)))
    return 0
