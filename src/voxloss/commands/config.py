"""`voxloss config`: the presets, or a configuration with the origin of each value."""

import argparse

from voxloss.commands.shared import Parsers, add_command
from voxloss.utilities.errors import InputError


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss config`."""
    summary = "print a configuration and the origin of each value, or list the presets"
    parser = add_command(parsers, "config", config, summary, overrides=True)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file or a preset")


def config(arguments: argparse.Namespace) -> int:
    """Run `voxloss config` and return its exit status."""
    # PyYAML, jsonargparse
    from voxloss.config.files import load_config, preset_names
    from voxloss.config.origins import annotated_yaml

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
