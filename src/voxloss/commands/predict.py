"""`voxloss predict`: masks of new images by the finished runs of a loss, or by one run."""

import argparse
import sys
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss predict`."""
    summary = "segment images with the trained networks of a loss, or with the network of one run"
    parser = add_command(parsers, "predict", predict, summary)
    parser.add_argument(
        "trained", type=existing_path, metavar="STUDY",
        help="a study, whose folds and seeds are averaged, or one run: STUDY/runs/LOSS/fold-K/seed-S (of several "
             "networks STUDY/networks/NETWORK/runs/LOSS/fold-K/seed-S)",
    )  # fmt: skip
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="a file, the files of several channels separated by commas, the folder of a DICOM series, or a folder of "
             "images",
    )  # fmt: skip
    parser.add_argument("--loss", help="the loss of the study, as `voxloss status` names it")
    parser.add_argument("--network", help="where the study compares networks, the one that segments")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for one mask per image")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are in the folder already")
    parser.add_argument(
        "--probabilities", action="store_true", help="also write the probability of every foreground class, as NIfTI"
    )
    parser.add_argument("--device", help="cpu, cuda or another device of PyTorch (default: the study's)")


def predict(arguments: argparse.Namespace) -> int:
    """Run `voxloss predict` and return its exit status."""
    # torch
    from voxloss.study.folder import StudyFolder
    from voxloss.study.predict import networks_of, segment_files

    folders = [arguments.trained]
    if StudyFolder(arguments.trained).is_study():
        folders, missing = networks_of(arguments.trained, arguments.loss, arguments.network)
        without = f"; not finished: {'; '.join(map(str, missing))}" if missing else ""
        print(f"mean of {count_of(len(folders), 'network')}{without}", file=sys.stderr)
    elif arguments.loss is not None or arguments.network is not None:
        what = "loss" if arguments.loss is not None else "network"
        raise InputError(
            f"--{what}: {arguments.trained} is not a study, whose {what} could be chosen; name the study's folder, or "
            f"that of a run (STUDY/runs/LOSS/fold-K/seed-S, or STUDY/networks/NETWORK/runs/LOSS/fold-K/seed-S) without "
            f"--{what}."
        )
    cases = [_files(image) for image in arguments.images]
    written = segment_files(
        folders,
        cases,
        arguments.output,
        arguments.device,
        overwrite=arguments.overwrite,
        probabilities=arguments.probabilities,
    )
    for path in written:
        print(path)
    return 0


def _files(image: str) -> list[Path]:
    """The files of one case: a file whose name has commas, or several files separated by them."""
    return [Path(image)] if Path(image).exists() else [Path(part) for part in image.split(",")]
