"""`voxloss config`: the presets, or a configuration with the meaning of its keys and the origin of its values."""

import argparse

from voxloss.commands.shared import Parsers, add_command
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss config`."""
    summary = "print a configuration with the meaning of each key and the origin of each value, or list the presets"
    parser = add_command(parsers, "config", config, summary, overrides=True)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, a preset or a study")
    parser.add_argument("--keys", action="store_true", help="explain all keys instead, as a page in Markdown")


def config(arguments: argparse.Namespace) -> int:
    """Run `voxloss config` and return its exit status."""
    # PyYAML, jsonargparse
    from voxloss.config.files import load_config, preset_names
    from voxloss.config.keys import keys_page
    from voxloss.config.origins import annotated_yaml

    if arguments.keys:
        print(keys_page(), end="")
        return 0
    name, overrides = arguments.config, arguments.overrides
    if name is None:
        if overrides:
            raise InputError(
                f"voxloss config needs a preset or a YAML file before the options; received {' '.join(overrides)}."
            )
        print("\n".join(preset_names()))
        return 0
    print(annotated_yaml(load_config(name, overrides), name, overrides), end="")
    return 0
