"""`voxloss demo`: a study of a small synthetic CT."""

import argparse
from pathlib import Path

from voxloss.commands.run import run_study
from voxloss.commands.shared import Parsers, add_command
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss demo`."""
    summary = "compare three losses on a small synthetic CT, in minutes on two cores"
    parser = add_command(parsers, "demo", demo, summary, resumable=True)
    parser.add_argument(
        "--study", type=Path, default=Path("studies/demo"), help="folder of the study (default: %(default)s)"
    )


def demo(arguments: argparse.Namespace) -> int:
    """Run `voxloss demo` and return its exit status."""
    # SciPy, jsonargparse
    from voxloss.config.files import load_config
    from voxloss.data.phantom.write import write_phantom

    config = load_config("demo", ["--data.root", str(arguments.study / "phantom")])
    _refuse_foreign_folder(arguments.study)
    write_phantom(arguments.study / "phantom", cases=12, seed=0, setting="demo")
    return run_study(config, arguments.study)


def _refuse_foreign_folder(study: Path) -> None:
    """Before the phantom is written into it: a folder that is neither a study nor empty is somebody's.

    So is a study that this version cannot read.
    """
    from voxloss.study.folder import StudyFolder  # NumPy

    if StudyFolder(study).is_study():
        StudyFolder(study).read_description()
    own = ("study.yaml", "phantom", "prepared")
    if study.is_dir() and any(study.iterdir()) and not any((study / name).exists() for name in own):
        raise InputError(f"{study} is not empty and is not a study; name another folder with --study.")
