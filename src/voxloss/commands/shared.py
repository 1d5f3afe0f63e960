"""What several commands need: a parser of their own, lists of numbers, the configuration and the report."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from voxloss.config.schema import StudyConfig

OVERRIDES = """\
Any value of the configuration is an option, --SECTION.KEY VALUE, for example
  --training.epochs 50 --patches.size "[96,96,96]" --comparison.seeds "[0,1,2]"
`voxloss config CONFIG` prints all keys with the values that a study would have."""


def fail(message: str) -> int:
    """Print a mistake as one sentence and return the exit status 2."""
    sentence = " ".join(message.split()).rstrip(".")
    print(f"voxloss: {sentence}{'' if sentence.endswith('?') else '.'}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake as one sentence, as every other mistake is reported."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with status 2."""
        sys.exit(fail(f"{message}; see `{self.prog} --help`"))


Parsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(
    parsers: Parsers,
    name: str,
    action: Callable[[argparse.Namespace], int],
    summary: str,
    *,
    overrides: bool = False,
    resumable: bool = False,
) -> Parser:
    """Add the parser of a command.

    Args:
        parsers: Where it is added.
        name: What users type.
        action: Receives the parsed arguments and returns the exit status.
        summary: One line of `voxloss --help`, and the description of the command's own help.
        overrides: `action` finds the arguments that the parser does not know in `arguments.overrides`.
        resumable: The same command resumes the work when it was interrupted.
    """
    epilog = [OVERRIDES] if overrides else []
    if resumable:
        epilog.append("You can stop the command at any moment with Ctrl-C. Run the same command to resume.")
    parser = parsers.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog="\n".join(epilog) or None
    )
    parser.set_defaults(parser=parser, action=action, takes_overrides=overrides, resumable=resumable)
    return parser


def add_study_options(parser: Parser) -> None:
    """Add what `run` and `plan` take, which `study_config` reads."""
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, a preset (`voxloss config` lists them), or a study"
    )
    parser.add_argument("--data", type=Path, help="folder of the data (data.root)")
    parser.add_argument("--losses", help="train only these losses, separated by commas (comparison.losses)")
    parser.add_argument("--seeds", help="use only these seeds, separated by commas (comparison.seeds)")


def study_config(arguments: argparse.Namespace) -> "StudyConfig":
    """Load the configuration that the arguments of `run` and `plan` describe."""
    from voxloss.config.files import load_config  # jsonargparse

    overrides = list(arguments.overrides)
    if arguments.data is not None:
        overrides += ["--data.root", str(arguments.data)]
    if arguments.losses is not None:
        names = [name.strip() for name in arguments.losses.split(",")]
        overrides += ["--comparison.losses", json.dumps(names)]
    if arguments.seeds is not None:
        overrides += ["--comparison.seeds", json.dumps(whole_numbers("--seeds", arguments.seeds))]
    return load_config(arguments.config, overrides)


def whole_numbers(option: str, text: str) -> list[int]:
    """Read "0,1,2".

    Raises:
        InputError: Naming the option and the text.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes whole numbers separated by commas; received {text!r}.") from None


def show_report(
    study: Path, console: "Console", viewer_cases: int | None = None, losses: Sequence[str] | None = None
) -> None:
    """Build the study's report, of some of its losses or all, print its tables and where its page is."""
    from voxloss.report import VIEWER_CASES, build_report, print_tables  # pandas

    page = build_report(study, VIEWER_CASES if viewer_cases is None else viewer_cases, losses)
    print_tables(study, console, losses)
    print(f"\nReport: {page}")
