"""The command line: the parser of all commands, and what happens when one of them fails.

Exit statuses: 0 success; 1 `check` or `plan` found problems; 2 wrong input, a missing package or a failed run;
130 interrupted.

A command is a file with `add_parser`, which names the function that does the work; `_COMMANDS` lists the files.
Packages that take long to import, or may be absent, are imported when a command runs, so that `--help` answers at
once; a comment at the imports names them.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from voxloss.commands import (
    advise,
    check,
    completion,
    config,
    demo,
    evidence,
    import_results,
    losses,
    nnunet_trainers,
    plan,
    predict,
    quick,
    race,
    report,
    retire,
    run,
    status,
    stop,
    view,
)
from voxloss.commands.shared import Parser, fail
from voxloss.commands.version import Version
from voxloss.utilities.errors import InputError
from voxloss.utilities.install import install_command

# In the order of `voxloss --help`.
_COMMANDS = (
    demo,
    quick,
    run,
    race,
    plan,
    config,
    status,
    stop,
    retire,
    report,
    view,
    predict,
    losses,
    import_results,
    nnunet_trainers,
    evidence,
    check,
    advise,
    completion,
)

_DESCRIPTION = (
    "Loss functions for segmenting rare structures in medical volumes, and a tool that compares them on your data."
)
_EPILOG = """\
Exit status:
  0    success
  1    `check` or `plan` found problems
  2    wrong input, a missing package or a failed run
  130  interrupted (Ctrl-C)"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the status that the module's docstring lists."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a mistake of the user is printed as one sentence.

    Args:
        arguments: The words after `voxloss`; None for those of this process.

    Raises:
        SystemExit: The words cannot be parsed (status 2), or ask for help (status 0).
    """
    parser, words = _parser(), sys.argv[1:] if arguments is None else arguments
    if not words:
        parser.print_help()
        return 0
    parsed, unknown = parser.parse_known_args(words)
    parsed.parser.refuse_unknown(unknown)
    parsed.overrides, parsed.all_commands = unknown, parser
    if (here := str(Path.cwd())) not in sys.path:  # networks of the user's own; last, so that they hide no other module
        sys.path.append(here)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        exit_status: int = parsed.action(parsed)
        sys.stdout.flush()
        return exit_status
    except InputError as error:
        return fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "voxloss").split(".")[0]
        if package == "voxloss":  # our own mistake
            raise
        return fail(f"this command needs the package {package!r}; install it with: {install_command('bench')}")
    except BrokenPipeError:  # the reader of a pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("Stopped." + (" Run the same command to resume." if parsed.resumable else ""), file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> Parser:
    parser = Parser(prog="voxloss", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=Version, nargs=0, help="print versions and the device, and exit")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(parsers)
    return parser
