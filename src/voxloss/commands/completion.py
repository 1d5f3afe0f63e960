"""`voxloss completion`: words that a shell completes when Tab is pressed."""

import argparse

from voxloss.commands.shared import Parsers, add_command
from voxloss.utilities.errors import InputError
from voxloss.utilities.install import install_command

SHELLS = ("bash", "zsh")  # of those that shtab knows, the ones in which it completes the options of a command


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss completion`."""
    summary = "print a script with which a shell completes commands and options"
    parser = add_command(parsers, "completion", completion, summary)
    parser.epilog = 'For bash, add this line to ~/.bashrc: eval "$(voxloss completion bash)"'
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash or zsh")


def completion(arguments: argparse.Namespace) -> int:
    """Run `voxloss completion` and return its exit status."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise InputError(
            f"this command needs the package 'shtab'; install it with: {install_command('completion')}"
        ) from error
    print(shtab.complete(arguments.all_commands, arguments.shell))
    return 0
