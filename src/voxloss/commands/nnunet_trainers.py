"""`voxloss nnunet-trainers`: where nnU-Net finds the trainers with these losses."""

import argparse

from voxloss.commands.shared import Parsers, add_command


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss nnunet-trainers`."""
    summary = "print the folder for nnU-Net's environment variable nnUNet_extTrainer"
    add_command(parsers, "nnunet-trainers", nnunet_trainers, summary)


def nnunet_trainers(arguments: argparse.Namespace) -> int:
    """Run `voxloss nnunet-trainers` and return its exit status."""
    from voxloss.nnunet.names import trainers_folder

    print(trainers_folder())
    return 0
