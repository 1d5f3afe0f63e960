"""`voxloss predict`: masks of new images by a finished run."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss predict`."""
    parser = add_command(parsers, "predict", predict, "segment images with the network of a finished run")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder: STUDY/runs/LOSS/fold-K/seed-S")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file or a DICOM folder; several channels separated by commas",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for one mask per image")
    parser.add_argument(
        "--probabilities", action="store_true", help="also write the probability of every foreground class, as NIfTI"
    )
    parser.add_argument("--device", help="cpu, cuda or another device of PyTorch (default: the study's)")


def predict(arguments: argparse.Namespace) -> int:
    """Run `voxloss predict` and return its exit status."""
    from voxloss.study.predict import segment_files  # torch

    cases = [_files(image) for image in arguments.images]
    paths = segment_files(
        arguments.run, cases, arguments.output, arguments.device, probabilities=arguments.probabilities
    )
    for path in paths:
        print(path)
    return 0


def _files(image: str) -> list[Path]:
    """The files of one case: a file whose name has commas, or several files separated by them."""
    return [Path(image)] if Path(image).exists() else [Path(part) for part in image.split(",")]
