"""`voxloss losses`: the list of losses, the card of one, or the cards of all as files."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss losses`."""
    summary = "list the losses, or explain one: equation, conventions, parameters"
    parser = add_command(parsers, "losses", losses, summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the loss to explain (default: list all)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the cards of all losses there, as Markdown")


def losses(arguments: argparse.Namespace) -> int:
    """Run `voxloss losses` and return its exit status."""
    # torch
    from voxloss.losses import list_losses
    from voxloss.losses.cards.card import describe, family, write_cards
    from voxloss.losses.catalogue import loss_class

    if arguments.write is not None:
        write_cards(arguments.write)
    elif arguments.name is None:
        width = max(map(len, list_losses()))
        for name in list_losses():
            loss = loss_class(name)
            print(f"{name:{width}}  {loss.documentation.title} ({family(loss)})")
        print("\n`voxloss losses NAME` explains one of them.")
    else:
        try:
            print(describe(arguments.name))
        except ValueError as error:  # an unknown name; the losses know no InputError
            raise InputError(str(error)) from error
    return 0
