"""`voxloss advise`: which losses to put into a study first, by studies of similar data sets."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, shell_word


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss advise`."""
    summary = "say which losses to put into a study first, by studies of data sets with a similar imbalance"
    parser = add_command(parsers, "advise", advise, summary, overrides=True)
    parser.add_argument(
        "data",
        type=existing_path,
        metavar="DATA",
        help="folder of the data, its table or data list, or a check's report",
    )
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="the class (default: the rarest)")
    parser.add_argument("--layout", default="auto", metavar="NAME", help="data.layout (default: the one recognised)")
    parser.add_argument(
        "--evidence", type=existing_path, metavar="FOLDER",
        help="exported studies of your own, beside those that come with voxloss",
    )  # fmt: skip


def advise(arguments: argparse.Namespace) -> int:
    """Run `voxloss advise` and return its exit status."""
    # jsonargparse, pandas, rich, nibabel
    from rich.console import Console

    from voxloss.commands.display.preparation import preparation_bar
    from voxloss.config.files import load_config
    from voxloss.evidence.add import fingerprint_of_data
    from voxloss.evidence.advice import advice_sentences, target_of
    from voxloss.evidence.advice import advise as advise_for
    from voxloss.evidence.estimates import all_estimates

    config = None
    if arguments.overrides:
        if other := next((word for word in arguments.overrides if word[:2] == "--" and word[:7] != "--data."), None):
            raise InputError(f"voxloss advise takes the keys --data.KEY alone; received {other}")
        config = load_config(None, ["--data.layout", arguments.layout, *arguments.overrides])
    estimates = all_estimates(arguments.evidence)
    with preparation_bar(Console(stderr=True)) as bar:
        data: Path = arguments.data
        fingerprint = fingerprint_of_data(
            data, arguments.layout, lambda finished, of: bar(finished, of, "reading"), config
        )
    if fingerprint is None:
        raise InputError(f"{data} has no mask with a structure, so there is nothing to give advice on")
    target = target_of(fingerprint, arguments.class_name)
    lead, *rest = advice_sentences(advise_for(target, estimates))
    if arguments.class_name is None and (
        others := [one.name for one in fingerprint.classes if one.name != target.name]
    ):
        classes, other = count_of(len(others) + 1, "class"), shell_word(others[0])
        lead += f"\n{target.name} is the rarest of {classes}; --class {other} asks about another."
    print("\n".join([lead, *rest]))
    return 0
