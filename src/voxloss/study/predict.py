"""Segment cases with the network of a run: its own held-out cases, or new images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from voxloss.config.settled import SettledConfig
from voxloss.data.case import Case, read_image, write_label
from voxloss.data.dataset import Dataset, to_file_values
from voxloss.data.nifti import read_geometry
from voxloss.data.prepare.case import prepare_image
from voxloss.study.folder import StudyFolder
from voxloss.study.settle import preparation_of
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.training.device import resolve_device
from voxloss.training.networks import make_network
from voxloss.training.precision import place
from voxloss.training.predict import predict_label
from voxloss.utilities.errors import InputError


def predict_mask(
    network: torch.nn.Module,
    prepared: np.ndarray,
    config: SettledConfig,
    dataset: Dataset,
    like: Path,
    output: Path,
    before_windows: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Segment a prepared volume and write the mask, with the data set's own values, on the grid of an image.

    Args:
        network: The trained network.
        prepared: Float32 (channels, *prepared_shape).
        config: The study's configuration.
        dataset: Tells the mask values.
        like: NIfTI file whose grid the mask gets.
        output: The mask's path.
        before_windows: Called before every few windows; what it raises ends the prediction.

    Returns:
        Class indices uint8 (*shape) on the grid of `like`.
    """
    shape = read_geometry(like).shape
    label = predict_label(network, prepared, config, shape, len(dataset.classes), before_windows)
    write_label(output, to_file_values(label, dataset), like=like)
    return label


def segment_files(
    run_folder: Path, cases: Sequence[Sequence[Path]], output: Path, device: str | None = None
) -> list[Path]:
    """Segment images as the run's own cases were segmented; each mask lies on its image's grid.

    Args:
        run_folder: Folder of a finished run: STUDY/runs/LOSS/fold-K/seed-S.
        cases: For each case the NIfTI files of its channels, in the study's order.
        output: Folder for the masks, each named like its case's first file.
        device: Where the network works; None: as the study's `execution.device` says.

    Returns:
        The masks' paths.

    Raises:
        InputError: No finished run, a file is missing or unreadable, channels are too few or many, or a mask would
            overwrite an image.
    """
    folder, files = run_folder.resolve(), StudyFolder.around(run_folder)
    if files is None or not (folder / "checkpoint.pt").is_file():
        raise InputError(f"{run_folder} is not the folder of a trained run (STUDY/runs/LOSS/fold-K/seed-S).")
    study = Study.open(files.path)
    config = study.config
    state = load_state(folder / "checkpoint.pt")
    if state["epoch"] < config.training.epochs:
        raise InputError(f"{run_folder} was trained for only {state['epoch']} of {config.training.epochs} epochs.")
    channels = state["channels"]
    if config.training.selection != "last":
        state = load_state(folder / "best.pt")
    targets = _check_files(cases, output, channels)
    network = make_network(config.network, config.patches.size, channels, len(study.dataset.classes))
    network.load_state_dict(state["network"])
    place(network, torch.device(resolve_device(device or config.execution.device)), config)
    preparation = preparation_of(config.preparation)
    for images, target in zip(cases, targets, strict=True):
        image, geometry = read_image(Case(_stem(images[0]), tuple(images), None))
        if len(image) != channels:
            raise InputError(f"{images[0]}: the network takes {channels} channels per case; received {len(image)}.")
        prepared = prepare_image(image, geometry.spacing_mm, preparation)
        predict_mask(network, prepared, config, study.dataset, like=images[0], output=target)
    return targets


def _check_files(cases: Sequence[Sequence[Path]], output: Path, channels: int) -> list[Path]:
    """The masks' paths, after a look at all images, so that no mask is written where one of them is wrong."""
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
