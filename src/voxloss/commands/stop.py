"""`voxloss stop`: stop the work on a study, wherever it is done."""

import argparse
import time
import uuid

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.utilities.text import count_of, shell_word

PAUSE = 1.0


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss stop`."""
    summary = "stop the work on a study, wherever it is done; `voxloss run` resumes it"
    parser = add_command(parsers, "stop", stop, summary)
    parser.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")


def stop(arguments: argparse.Namespace) -> int:
    """Run `voxloss stop` and return its exit status."""
    # NumPy
    from voxloss.study.claims import live_claims, time_of_scan
    from voxloss.study.execution.executor import noted_executors
    from voxloss.study.study import Study
    from voxloss.utilities.files import write_text

    study = Study.open(arguments.study)
    write_text(study.files.stop_file, f"{uuid.uuid4().hex}\n")
    for executor in noted_executors(study.folder):
        executor.stop(study.folder)
    told = -1
    while working := live_claims(study.folder, time_of_scan(study.folder)):
        if len(working) != told:
            told = len(working)
            hosts = ", ".join(sorted({claim.record.host for claim in working}))
            print(f"waiting for {count_of(told, 'process')} on {hosts}", flush=True)
        time.sleep(PAUSE)
    print(f"Stopped. To resume: voxloss run {shell_word(arguments.study)}")
    return 0
