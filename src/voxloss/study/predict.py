"""Segment cases with the network of a run: its own held-out cases, or new images."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from voxloss.config.settled import SettledConfig
from voxloss.data.case import Case, may_replace, read_image, write_label
from voxloss.data.dataset import Dataset, channels_of, file_values, to_file_values
from voxloss.data.formats import is_image, mask_ending, read_geometry, stem
from voxloss.data.formats.slices import is_stack
from voxloss.data.grid import only_axes, same_spacing, turn_of
from voxloss.data.layouts.names import walk
from voxloss.data.prepare.case import PreparedCase, open_prepared, prepare_image
from voxloss.data.prepare.resample import Watch
from voxloss.data.probabilities import write_probabilities
from voxloss.study.folder import Run, StudyFolder
from voxloss.study.probabilities import KeptProbabilities
from voxloss.study.settle import preparation_of, spacing_of_all
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.training.device import resolve_device
from voxloss.training.networks import make_network
from voxloss.training.precision import place
from voxloss.training.predict import predict_label
from voxloss.utilities.arrays import Float32s
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import did_you_mean, shell_word

Grid = Literal["prepared", "original"]  # of kept probabilities


def predict_mask(
    network: torch.nn.Module | Sequence[torch.nn.Module],
    prepared: np.ndarray,
    config: SettledConfig,
    dataset: Dataset,
    like: Path,
    output: Path,
    before_windows: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
    probabilities: tuple[Path, Grid] | None = None,
) -> np.ndarray:
    """Segment a prepared volume and write the mask, with the data set's own values, on the grid of an image.

    Args:
        network: The trained network; of several the mean of the probabilities is taken.
        prepared: Float32 (channels, *prepared_shape), along the data set's axes.
        config: The study's configuration.
        dataset: Tells the mask values and the axes.
        like: The image whose grid and format the mask gets.
        output: The mask's path.
        before_windows: Called before every few windows; what it raises ends the prediction.
        watch: Gets the probabilities on the image's grid, turned to the data set's axes.
        probabilities: Where to write those of the foreground classes, and on which grid; None: they are not kept.

    Returns:
        Class indices uint8 (*shape) on the grid of `like`.
    """
    geometry = read_geometry(like)
    turn = turn_of(geometry, dataset)
    shape = turn.geometry(geometry).shape
    classes = range(1, len(dataset.classes))
    watchers = {"original": [] if watch is None else [watch], "prepared": []}
    if probabilities is not None:
        grid = probabilities[1]
        kept = KeptProbabilities(shape if grid == "original" else prepared.shape[1:], classes)
        watchers[grid].append(kept.watch)
    on_grid, on_prepared = (_together(of_grid) for of_grid in watchers.values())
    turned = predict_label(network, prepared, config, shape, len(dataset.classes), before_windows, on_grid, on_prepared)
    label = np.ascontiguousarray(turn.stored(turned))
    names = dict(zip(file_values(dataset)[1:], dataset.classes[1:], strict=True))
    write_label(output, to_file_values(label, dataset), like=like, names=names)
    if probabilities is not None:
        write_probabilities(probabilities[0], turn.stored(kept.values), like, dataset.cases[0].spacing_mm)
    return label


def _together(watchers: Sequence[Watch]) -> Watch | None:
    if len(watchers) < 2:
        return watchers[0] if watchers else None

    def watch(index: int, box: tuple[slice, slice, slice], values: Float32s) -> None:
        for each in watchers:
            each(index, box, values)

    return watch


def networks_of(folder: Path, loss: str | None = None, network: str | None = None) -> tuple[list[Path], list[Run]]:
    """Return the folders of a loss's finished runs, of all folds and seeds, and the runs that are not finished.

    Args:
        folder: The study's.
        loss: The loss's key, as `voxloss status` names it; None where the study has only one.
        network: Where the study compares networks, the key of one.

    Raises:
        InputError: The folder is no study, the loss or network is none of its, or none of its runs is finished.
    """
    study = Study.open(folder).part(network)
    keys = study.loss_keys
    if loss is None and len(keys) > 1:
        raise InputError(f"{folder} has several losses; name one with --loss: {', '.join(keys)}.")
    loss = loss or keys[0]
    if loss not in keys:
        raise InputError(f"{folder} has no loss {loss!r}; it has {', '.join(keys)}{did_you_mean(loss, keys) or '.'}")
    runs = [run for run in study.runs() if run.loss.key == loss]
    done = [run for run in runs if study.status(run).state == "done"]
    if not done:
        raise InputError(f"{folder} has no finished run of {loss}; train it with: voxloss run {shell_word(folder)}.")
    return [study.run_folder(run).path for run in done], [run for run in runs if run not in done]


def segment_files(
    run_folders: Path | Sequence[Path],
    cases: Sequence[Sequence[Path]],
    output: Path,
    device: str | None = None,
    *,
    overwrite: bool = False,
    probabilities: bool = False,
) -> list[Path]:
    """Segment images as the study's own cases were segmented; each mask lies on its image's grid.

    An image that is stored along other axes than the study's is turned, and one of another spacing resampled, before
    the networks see it. Of several runs the mean of the class probabilities is taken.

    Args:
        run_folders: Folder of a finished run: STUDY/runs/LOSS/fold-K/seed-S; or those of several runs of one study.
        cases: For each case the files of its channels, in the study's order. A folder in the place of a case stands for
            all cases in it: a file each, or, for several channels, files NAME_0000, NAME_0001, ...; the folder of a
            DICOM series is an image.
        output: Folder for the masks, each named like its case (of several files: like the first), in the format of the
            image (`mask_ending`).
        device: Where the networks work; None: as the study's `execution.device` says.
        overwrite: Whether a mask may replace a file, other than the image itself.
        probabilities: Also write the probabilities of the foreground classes, NAME_probabilities.nii.gz beside each
            mask (`voxloss.data.probabilities.write_probabilities`).

    Returns:
        The masks' paths, each followed by that of its probabilities.

    Raises:
        InputError: No finished run, a file is missing or unreadable, channels are too few or many, or a mask would
            overwrite a file. No mask is written then.
    """
    folders = [run_folders] if isinstance(run_folders, Path) else list(run_folders)
    study = _study_of(folders[0])
    config = study.config
    where = torch.device(resolve_device(device or config.execution.device))
    networks, channels = [], 0
    for folder in folders:
        weights, channels = _trained(folder, config)
        network = make_network(config.network, config.patches.size, channels, len(study.dataset.classes))
        network.load_state_dict(weights)
        place(network, where, config)
        networks.append(network)
    dataset = _with_axes(study)
    cases = [case for given in cases for case in _cases(given, channels, study.dataset.flat_axis is None)]
    targets = _check_files(cases, output, channels, dataset, config.patches.size, overwrite, probabilities)
    written: list[Path] = []
    preparation = preparation_of(config.preparation)
    common = spacing_of_all(config, dataset, _prepared(study))
    for images, target in zip(cases, targets, strict=True):
        image, stored = read_image(_case(images, dataset))
        turn = turn_of(stored, dataset)
        spacing = turn.geometry(stored).spacing_mm
        resampled = common is not None and not same_spacing(spacing, common)
        setting = replace(preparation, spacing_mm=common) if resampled else preparation
        prepared = prepare_image(turn.turned(image), spacing, setting)
        kept = probabilities_beside(target) if probabilities else None
        predict_mask(
            networks, prepared, config, dataset, like=images[0], output=target,
            probabilities=None if kept is None else (kept, "original"),
        )  # fmt: skip
        written += [target] if kept is None else [target, kept]
    return written


def probabilities_beside(mask: Path) -> Path:
    """Return where the probabilities of a mask are written."""
    return mask.with_name(f"{stem(mask)}_probabilities.nii.gz")


def _study_of(run_folder: Path) -> Study:
    files = StudyFolder.around(run_folder)
    if files is None or not (run_folder.resolve() / "checkpoint.pt").is_file():
        raise InputError(
            f"{run_folder} is neither a study nor the folder of a trained run: name a study's folder, whose networks "
            "are averaged, or STUDY/runs/LOSS/fold-K/seed-S (where it compares networks, "
            "STUDY/networks/NETWORK/runs/LOSS/fold-K/seed-S)."
        )
    return Study.open(files.path).part(files.network_of(run_folder))


def _trained(run_folder: Path, config: SettledConfig) -> tuple[dict[str, torch.Tensor], int]:
    """Return the weights of a finished run and the number of channels that they take."""
    state = load_state(run_folder / "checkpoint.pt")
    if state["epoch"] < config.training.epochs:
        raise InputError(f"{run_folder} was trained for only {state['epoch']} of {config.training.epochs} epochs.")
    channels = state["channels"]
    if config.training.selection != "last":
        state = load_state(run_folder / "best.pt")
    return state["network"], channels


def _cases(files: Sequence[Path], channels: int, volumes: bool) -> list[Sequence[Path]]:
    """Return a case, or the cases of a folder. In a study of volumes, the pictures in a folder are slices of one."""
    folder = files[0]
    if len(files) > 1 or not folder.is_dir() or _is_case(folder, volumes):
        return [files]
    cases: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if _is_case(path, volumes)):
        numbered = re.fullmatch(r"(.+)_\d{4}", stem(path)) if channels > 1 else None
        cases.setdefault(numbered[1] if numbered else stem(path), []).append(path)
    if not cases:
        inner = sorted({path.parent for path in walk(folder) if is_image(folder / path)})
        where = f"; name the folder, or folders, that hold some, such as {folder / inner[0]}" if inner else ""
        raise InputError(f"{folder} holds no images in a format that voxloss reads{where}.")
    return list(cases.values())


def _is_case(path: Path, volumes: bool) -> bool:
    return is_image(path) or (volumes and is_stack(path))


def _with_axes(study: Study) -> Dataset:
    """The study's data set; if an earlier version wrote it, with the axes of the cases, which were used as stored."""
    dataset = study.dataset
    if dataset.axes is not None or "axes" in study.parsed.data.options:
        return dataset
    return replace(dataset, axes=only_axes(dataset))


def _prepared(study: Study) -> list[PreparedCase]:
    """The study's prepared cases; none if they were removed, which does not keep its networks from being used."""
    try:
        return [open_prepared(folder) for folder in study.files.read_prepared().values()]
    except InputError:
        return []


def _check_files(
    cases: Sequence[Sequence[Path]],
    output: Path,
    channels: int,
    dataset: Dataset,
    size: Sequence[int],
    overwrite: bool,
    probabilities: bool,
) -> list[Path]:
    """The masks' paths, after all images were read once, so that no mask is written where one of them is wrong."""
    targets = [output / f"{_mask_name(files)}{mask_ending(files[0])}" for files in cases]
    images = {file.resolve() for files in cases for file in files}  # of any case, as a later one is read later
    for files, target in zip(cases, targets, strict=True):
        beside = probabilities_beside(target)
        if target.resolve() in images or (probabilities and beside.resolve() in images):
            raise InputError(f"The mask {target} would overwrite its image; name another --output folder.")
        if target.exists() and not overwrite:
            raise InputError(
                f"The mask {target} would overwrite a file; name another --output folder or add --overwrite."
            )
        if not may_replace(target, files[0]):
            raise InputError(f"{target} is no mask that could be replaced; name another --output folder.")
        if targets.count(target) > 1:
            raise InputError(f"Two images would both get the mask {target}; segment them into different folders.")
        if probabilities and (beside in targets or (beside.exists() and not overwrite)):
            raise InputError(f"The probabilities {beside} would overwrite a file; name another --output folder.")
    for files in cases:
        received = channels_of(_case(files, dataset))
        if received != channels:
            raise InputError(f"{files[0]}: the network takes {channels} channels per case; received {received}.")
    for files in cases:
        _, geometry = read_image(_case(files, dataset))
        shape = turn_of(geometry, dataset).geometry(geometry).shape
        if dataset.flat_axis is None and any(extent == 1 < length for extent, length in zip(shape, size, strict=True)):
            raise InputError(f"{files[0]} is a single slice, but the study's cases are volumes.")
        if geometry.unit != dataset.unit:
            known, of_study = ("not known", "is") if geometry.unit == "pixel" else ("known", "is not")
            raise InputError(
                f"{files[0]}: its pixel size is {known}, but that of the study's images {of_study}; save it in their "
                "format."
            )
    return targets


def _mask_name(files: Sequence[Path]) -> str:
    """Name a mask like its image; of several files, without the number of the channel."""
    name = stem(files[0])
    return re.sub(r"_0000$", "", name) if len(files) > 1 else name


def _case(files: Sequence[Path], dataset: Dataset) -> Case:
    """Return a new case, whose voxels have the study's size if its files do not tell one."""
    return Case(stem(files[0]), tuple(files), None, spacing_mm=dataset.cases[0].spacing_mm)
