"""Segment new images with the network of a finished run."""

from collections.abc import Sequence
from pathlib import Path

import torch

from voxloss.data.case import Case, read_image, write_label
from voxloss.data.preprocess import Preparation, prepare_image, restore_label
from voxloss.errors import InputError
from voxloss.experiment import resolve_device, to_file_values
from voxloss.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.training.predict import predict_probabilities
from voxloss.training.train import make_network


def segment_files(run_folder: Path, cases: Sequence[Sequence[Path]], output: Path) -> list[Path]:
    """Segment images as the run's own cases were segmented; each mask lies on its image's grid.

    Args:
        run_folder: STUDY/runs/LOSS/fold-K/seed-S of a finished run.
        cases: for each case the NIfTI files of its channels, in the study's order.
        output: folder for the masks, each named like its case's first file.

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
    channels = len(study.dataset.cases[0].images)
    targets = [output / f"{_stem(files[0])}.nii.gz" for files in cases]
    for files, target in zip(cases, targets, strict=True):
        if len(files) != channels:
            raise InputError(f"{files[0]}: the network takes {channels} channels per case; received {len(files)}.")
        if any(target.resolve() == file.resolve() for file in files):
            raise InputError(f"The mask {target} would overwrite its image; name another --output folder.")
        if targets.count(target) > 1:
            raise InputError(f"Two images would both get the mask {target}; segment them into different folders.")
    state = load_state(folder / "checkpoint.pt")
    if state["epoch"] < config.training.epochs:
        raise InputError(f"{run_folder} is not trained to its end; finish it with voxloss run.")
    if config.training.selection != "last":
        state = load_state(folder / "best.pt")
    network = make_network(config, state["network"]["encoder.0.0.weight"].shape[1], len(study.dataset.classes))
    network.load_state_dict(state["network"])
    network.to(resolve_device(config.execution.device), memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    setting = config.preparation
    assert not isinstance(setting.spacing_mm, str)
    preparation = Preparation(setting.clip, setting.spacing_mm, setting.normalisation)
    for files, target in zip(cases, targets, strict=True):
        image, geometry = read_image(Case(_stem(files[0]), tuple(files), None))
        prepared = prepare_image(image, geometry.spacing_mm, preparation)
        probabilities = predict_probabilities(network, prepared, config.patches, config.training.precision)
        label = restore_label(probabilities, geometry.shape)
        write_label(target, to_file_values(label, study.dataset), like=files[0])
    return targets


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
