"""`voxloss retire`: stop training losses of a study."""

import argparse

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.utilities.text import shell_word


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss retire`."""
    summary = "stop training losses of a study, and record when and with which scores"
    parser = add_command(parsers, "retire", retire, summary)
    parser.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")
    parser.add_argument("losses", nargs="+", metavar="LOSS", help="as `voxloss status` names it")
    parser.add_argument("--network", help="only for this network (default: for all that the study compares)")
    parser.add_argument("--undo", action="store_true", help="train the losses again")


def retire(arguments: argparse.Namespace) -> int:
    """Run `voxloss retire` and return its exit status."""
    # pandas
    from voxloss.study import standing
    from voxloss.study.claims import STUDY, hold, of_study
    from voxloss.study.study import Study

    Study.open(arguments.study)  # before a claim is made in a folder that is no study
    with hold(of_study(arguments.study, STUDY)):
        study = Study.open(arguments.study)
        parts = study.parts() if arguments.network is None else [study.part(arguments.network)]
        if arguments.undo:
            standing.restore(parts, arguments.losses)
            print(f"To train them: voxloss run {shell_word(arguments.study)}")
        else:
            for part, one in standing.retire(parts, arguments.losses):
                where = "" if part.files.network is None else f"{part.files.network}, "
                print(f"{where}{one.loss}: retired {one.evidence}")
    return 0
