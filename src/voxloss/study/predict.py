"""Segment new images with the network of a finished run."""

from collections.abc import Sequence
from pathlib import Path

import torch

from voxloss.data.case import Case, read_image, write_label
from voxloss.data.dataset import to_file_values
from voxloss.data.nifti import read_geometry
from voxloss.data.prepare.case import prepare_image, restore_label
from voxloss.study.folder import Study
from voxloss.study.settle import preparation_of
from voxloss.training.checkpoint import load_state
from voxloss.training.device import resolve_device
from voxloss.training.networks import make_network
from voxloss.training.precision import place
from voxloss.training.predict import predict_probabilities
from voxloss.utilities.errors import InputError


def segment_files(
    run_folder: Path, cases: Sequence[Sequence[Path]], output: Path, device: str | None = None
) -> list[Path]:
    """Segment images as the run's own cases were segmented; each mask lies on its image's grid.

    Args:
        run_folder: STUDY/runs/LOSS/fold-K/seed-S of a finished run.
        cases: for each case the NIfTI files of its channels, in the study's order.
        output: folder for the masks, each named like its case's first file.
        device: where the network works; None: as the study's `execution.device` says.

    Returns:
        The masks' paths.

    Raises:
        InputError: no finished run, a file is missing or unreadable, channels are too few or many, or a mask would
            overwrite an image.
    """
    folder = run_folder.resolve()
    if len(folder.parents) < 4 or not (folder / "checkpoint.pt").is_file():
        raise InputError(f"{run_folder} is not the folder of a trained run (STUDY/runs/LOSS/fold-K/seed-S).")
    study = Study.open(folder.parents[3])
    config = study.config
    state = load_state(folder / "checkpoint.pt")
    if state["epoch"] < config.training.epochs:
        raise InputError(f"{run_folder} was trained for {state['epoch']} of {config.training.epochs} epochs only.")
    channels = state["channels"]
    if config.training.selection != "last":
        state = load_state(folder / "best.pt")
    targets = _check_files(cases, output, channels)
    network = make_network(config, channels, len(study.dataset.classes))
    network.load_state_dict(state["network"])
    place(network, torch.device(resolve_device(device or config.execution.device)), config)
    preparation = preparation_of(config)
    for files, target in zip(cases, targets, strict=True):
        image, geometry = read_image(Case(_stem(files[0]), tuple(files), None))
        if len(image) != channels:
            raise InputError(f"{files[0]}: the network takes {channels} channels per case; received {len(image)}.")
        prepared = prepare_image(image, geometry.spacing_mm, preparation)
        probabilities = predict_probabilities(network, prepared, config)
        label = restore_label(probabilities, geometry.shape)
        write_label(target, to_file_values(label, study.dataset), like=files[0])
    return targets


def _check_files(cases: Sequence[Sequence[Path]], output: Path, channels: int) -> list[Path]:
    """The masks' paths, after all images were looked at, so that no mask is written where one of them is wrong."""
    targets = [output / f"{_stem(files[0])}.nii.gz" for files in cases]
    for files, target in zip(cases, targets, strict=True):
        for file in files:
            read_geometry(file)
            if target.resolve() == file.resolve():
                raise InputError(f"The mask {target} would overwrite its image; name another --output folder.")
        if targets.count(target) > 1:
            raise InputError(f"Two images would both get the mask {target}; segment them into different folders.")
        if len(files) not in (1, channels):  # a single file may hold all channels; reading it tells
            raise InputError(f"{files[0]}: the network takes {channels} channels per case; received {len(files)}.")
    return targets


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
