"""Open a study, or create it from a configuration and images."""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from voxloss.config.axes import patch_size, with_three_axes
from voxloss.config.losses import check_losses, loss_choices
from voxloss.config.metrics import settled_metrics
from voxloss.config.schema import Size, StudyConfig
from voxloss.config.settled import SettledConfig
from voxloss.config.tuning import check_tuning
from voxloss.data.check.rules import untrained_class
from voxloss.data.dataset import Dataset, channels_of
from voxloss.data.formats import exists
from voxloss.data.prepare.case import PreparedCase, open_prepared, prepare_again
from voxloss.data.prepare.cases import prepare_cases
from voxloss.evaluation.lesion_list import read_lesions
from voxloss.evaluation.probabilities.counts import read_counts
from voxloss.evaluation.scores import read_scores
from voxloss.study.blind import write_blind
from voxloss.study.claims import (
    CLAIMS,
    PARTIAL,
    STUDY,
    LostClaimError,
    Standing,
    hold,
    live_claims,
    of_study,
    time_of_scan,
)
from voxloss.study.folder import FINISHED, Run, StudyFolder
from voxloss.study.own import own_records, try_own_losses, try_own_metrics
from voxloss.study.preparation import announced, forget_claims, memory_limit, prepared_cases
from voxloss.study.search import require_sampler
from voxloss.study.settle import (
    JudgedData,
    judged_data,
    preparation_of,
    rarest_class,
    settle_patch_size,
    settle_precision,
    settle_sizes,
    settle_spacing,
    settled_layout,
    settled_splits,
)
from voxloss.study.sources import Sources, find_sources, require_files
from voxloss.study.study import Study, extended, rewrite_config, write_study
from voxloss.training.batches import shared_memory_warning
from voxloss.training.checkpoint import load_state
from voxloss.training.device import resolve_device
from voxloss.training.history import write_history
from voxloss.training.networks import check_network
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import make_folder
from voxloss.utilities.text import count_of

Progress = Callable[[int, int, str], None]  # (finished, of, what)

# What the folder of a study that is not created yet may hold: interrupted preparation, or the demonstration's images.
UNFINISHED = (
    "prepared", "phantom", "dataset.json", "folds.json", "blind.json", "learned.json", "losses.json",
    CLAIMS, ".execution", ".stop", ".lock", ".report.lock",  # the locks are of earlier versions
)  # fmt: skip


class Helpers(Protocol):
    """Workers that are started before a new study is created, so that they help to prepare it."""

    def start(self, config: StudyConfig) -> None:
        """Start them; the folds and cases of the study are known now."""

    def stop(self) -> None:
        """Stop them, as the study will not be created; does nothing where none were started."""


@contextmanager
def open_study(
    config: StudyConfig,
    folder: Path,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
    folds: Sequence[int] = (),
    helpers: Helpers | None = None,
) -> Iterator[Study]:
    """Open the study in `folder`, extend it by new losses and seeds of `config`, or create it.

    No other process changes it within the block.

    The data of a new study are read, checked and prepared first. If anything goes wrong, prepared cases are kept and
    the same call resumes with them; if no case is prepared yet, nothing is left behind. The images and masks of an
    existing study must have the content that it was created from; they may be in another folder. Its damaged files are
    rebuilt.

    Args:
        config: The configuration.
        folder: The study's folder.
        progress: Called with (finished, of, what) as cases are read and prepared.
        notice: Called with each warning of `voxloss check` about the data of a new study, as far as headers tell, with
            each note on how its files were understood, and with a sentence on cases that were added or removed since a
            study was created.
        folds: The folds that are to be trained, which the study must have.
        helpers: Workers on other machines that help to prepare a new study; None: none do.

    Raises:
        InputError: Wrong data or a wrong configuration (the message names the file, key or value), or images or masks
            of the study changed or are missing.
    """
    files = StudyFolder(folder)
    foreign = _foreign_name(folder)  # before it is asked whether it is a study, which others may be about to create
    exists = files.is_study()
    # Before anything in the folder is changed, a later version's study is refused.
    if exists and files.read_description().imported is not None:
        _ = Study.open(folder).config  # which says that imported scores cannot be run
    choices = loss_choices(config.comparison.losses)
    # Of an existing study only the own losses with runs left must be there (`_resume`).
    check_losses([choice for choice in choices if not (choice.own and exists)])
    check_tuning(choices, config.comparison.search())
    require_sampler(config.comparison.search())
    if config.evaluation.metrics and not exists:
        settled = settled_metrics(config.evaluation.metrics)
        config = replace(config, evaluation=replace(config.evaluation, metrics=settled))
    if config.execution.executor == "local":  # the machines of a cluster may have devices that this one lacks
        resolve_device(config.execution.device)
    if config.data.root:
        root = str(Path(config.data.root).expanduser().resolve())
        config = replace(config, data=replace(config.data, root=root))
    if foreign is not None and not exists:
        raise InputError(f"{folder} is not empty and not a study (it holds {foreign}); name another folder.")
    new = _first_missing(folder)
    make_folder(folder)

    def waiting(other: Standing) -> None:
        progress(0, 1, f"waiting for process {other.record.pid} on {other.record.host}, which opens the study")

    try:
        # Several processes may prepare the cases of a study together; the first that is ready creates it.
        with ExitStack() as announcing:
            own: set[Path] = set()

            def begin(config: StudyConfig, dataset: Dataset) -> None:
                if helpers is not None:
                    own.add(announcing.enter_context(announced(files, config, dataset)))
                    helpers.start(config)

            ready = None if exists else _prepared_study(config, files, progress, notice, folds, begin)
            with hold(of_study(folder, STUDY), waiting=waiting) as claim:
                _remove_partial_files(folder, {claim.place, *own})
                if ready is None or files.is_study():
                    if ready is not None:  # another process was faster, and this one may have claimed cases since
                        forget_claims(files)
                    study = _resume(config, folder, progress, notice, folds, claim.check)
                else:
                    study = ready.create()
                yield study
    except BaseException as error:
        if helpers is not None:
            helpers.stop()
        if new is not None:
            _remove_unused(files, new)
        if isinstance(error, LostClaimError):
            raise InputError(
                f"{folder} was taken over by another process while this one was halted; run the same command again."
            ) from error
        raise


def _remove_unused(files: StudyFolder, new: Path) -> None:
    """Remove the folder of a study that could not be created, and folders above it up to `new`, unless they are used.

    A process claims before it writes, and no folder is removed that holds something: what others have written after the
    files were listed stays, and so do other studies.
    """
    left = _paths_in(files.path)
    if files.is_study() or _has_prepared(files) or live_claims(files.path):
        return
    for path in reversed(left):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
    with suppress(OSError):
        for folder in (files.path, *files.path.parents):
            folder.rmdir()
            if folder == new:
                return


def _paths_in(folder: Path) -> list[Path]:
    """Return all that is in a folder, each after what it is in; what others remove meanwhile may be among it."""
    return [Path(place, name) for place, folders, names in os.walk(folder) for name in (*folders, *names)]


def _remove_partial_files(folder: Path, own: Collection[Path]) -> None:
    """Remove what writers that were killed left half written, if nobody is at work but the owner of some places.

    A process claims before it writes, so none of those that begin after the files were listed has written them. What is
    written without a claim, to stop the study and by executors, is left.
    """
    files = StudyFolder(folder)
    written = [
        path
        for path in _paths_in(folder)
        if path.name.startswith(PARTIAL)
        and not path.name.endswith(files.stop_file.name)
        and files.execution not in path.parents
    ]
    if written and all(claim.place in own for claim in live_claims(folder, time_of_scan(folder))):
        for path in written:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _has_prepared(files: StudyFolder) -> bool:
    return any(not name.startswith(".") for name in _names_in(files.prepared))


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, which others may remove in this moment; none where it is missing."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []


def _resume(
    config: StudyConfig,
    folder: Path,
    progress: Progress,
    notice: Callable[[str], None],
    asked: Iterable[int],
    check: Callable[[], None],
) -> Study:
    """Open a study, extend it, compare its images and masks with those it was created from, and repair its files.

    `check` raises LostClaimError if another process may change the study now.
    """
    opened = Study.open(folder)
    _require_folds(asked, len(opened.folds))
    study = extended(opened, config)
    left = {run.loss.key for run in study.runs() if study.status(run).state not in FINISHED}
    own = [choice for choice in study.losses if choice.own and choice.key in left]
    check_losses(own)
    records = own_records(study, left, notice)
    try_own_losses(study.config, study.dataset, own)
    if left:
        try_own_metrics(study.config.evaluation.metrics, study.dataset)
    root = Path(config.data.root or study.config.data.root)
    sources = find_sources(study, root, progress)
    check()
    for sentence in sources.notices:
        notice(sentence)
    if len(study.networks) > len(opened.networks):
        channels = channels_of(sources.dataset.cases[0])  # where the images are now
        check_networks(study.config, study.config.patches.size, channels, len(study.dataset.classes))
    if bare := _repair_runs(study):
        notice(
            f"{count_of(len(bare), 'finished run')} (the first: {bare[0]}) lack predictions, and weights to make them "
            "with; their scores are kept. To train a run again, remove its folder, such as "
            f"{study.run_folder(bare[0]).path}"
        )
    if any(study.status(run).state not in FINISHED for run in study.runs()):
        require_files(sources.missing, folder)
    # Only now, so that a refused call changes nothing; and a place where files are missing is not adopted.
    if sources.digests is not None:
        data = replace(study.config.data, root=str(root))
        study = replace(study, dataset=sources.dataset, parsed=replace(study.config, data=data))
        if sources.dataset != opened.dataset or not opened.digests:
            study.files.write_dataset(study.dataset, sources.digests)
    study = rewrite_config(opened, study)
    study.files.write_own_losses(records)
    _repair_prepared(study, sources, progress)
    if not study.files.blind_file.is_file() and not sources.missing:  # as in studies of earlier versions
        write_blind(study)
    return study


def check_networks(config: StudyConfig, size: Size | None, channels: int | None, classes: int) -> None:
    """Try every network of a configuration, as `check_network`."""
    for one in config.per_network():
        check_network(one.network, size, channels, classes)


def _require_folds(asked: Iterable[int], number: int) -> None:
    for fold in asked:
        if fold not in range(number):
            raise InputError(f"--folds: there is no fold {fold}; the study has folds 0 to {number - 1}.")


def _repair_runs(study: Study) -> list[Run]:
    """Restore histories of finished runs, and set runs to pending if their scores or predictions are missing.

    Such a run predicts and scores again with the weights of its checkpoint; nothing is trained.

    Returns:
        The runs whose predictions cannot be made again, as in a study that was copied without its large files. They
        stay finished, since their scores are whole.
    """
    bare = []
    for run in study.runs():
        if study.status(run).state == "done":
            _repair_history(study, run)
            damaged, missing = _damaged_table(study, run), _missing_prediction(study, run)
            if damaged is None and missing is not None and not study.run_folder(run).checkpoint_file.is_file():
                bare.append(run)
            elif (reason := damaged or missing) is not None:
                study.write_status(run, state="pending", reason=f"{reason.name} was missing or damaged")
    return bare


def _repair_history(study: Study, run: Run) -> None:
    files = study.run_folder(run)
    try:
        whole = len(files.history()) >= study.config.training.epochs
    except InputError:
        whole = False
    if not whole and files.checkpoint_file.is_file():
        write_history(files.history_file, load_state(files.checkpoint_file)["history"])


def _repair_prepared(study: Study, sources: Sources, progress: Progress) -> None:
    """Prepare cases again whose prepared files are missing or damaged, each in the folder that it had."""
    if sources.missing:  # no run needs them, or `require_files` would have refused
        return
    preparation = preparation_of(study.config.preparation)
    try:
        folders = study.files.read_prepared()
    except InputError:  # without the index the folders of the cases are unknown
        folders = {}
    cases = study.dataset.cases
    damaged = [case for case in cases if case.case_id in folders and not _is_prepared(folders[case.case_id])]
    for number, case in enumerate(damaged):
        progress(number, len(damaged), f"preparing {case.case_id} again")
        prepare_again(folders[case.case_id], case, study.dataset, preparation)
    lost = [case for case in cases if case.case_id not in folders]
    if lost:
        progress(0, len(lost), "preparing again")
        limit = memory_limit(study.config.execution)
        prepared = prepare_cases(
            lost, study.dataset, preparation, study.files.prepared, os.cpu_count() or 1, limit, progress
        )
        study.files.write_prepared(folders | {case.case_id: case.folder for case in prepared})


def _is_prepared(folder: Path) -> bool:
    try:
        open_prepared(folder)
    except InputError:
        return False
    return True


def run_warnings(study: Study, runs: Sequence[Run]) -> list[str]:
    """Return sentences on runs that are to be executed: what will slow them down, and what they cannot learn."""
    if not runs:
        return []
    prepared = {case_id: open_prepared(folder) for case_id, folder in study.files.read_prepared().items()}
    channels = next(iter(prepared.values())).image.shape[0]
    execution, memory = study.config.execution, None
    if execution.executor == "local":
        memory = shared_memory_warning(study.config, channels, torch.device(resolve_device(execution.device)))
    folds = sorted({run.fold for run in runs})
    return [*([] if memory is None else [memory]), *_untrained_classes(study, prepared, folds)]


def _untrained_classes(study: Study, prepared: Mapping[str, PreparedCase], folds: Iterable[int]) -> list[str]:
    """Return a sentence for each fold and class that none of the fold's training cases has."""
    classes = list(enumerate(study.dataset.classes))[1:]
    present = {case_id: {index for index, _ in classes if case.has_class(index)} for case_id, case in prepared.items()}
    return [
        untrained_class(fold, name, len(study.split(fold).training))
        for fold in folds
        for index, name in classes
        if not any(index in present[case_id] for case_id in study.split(fold).training)
    ]


def _missing_prediction(study: Study, run: Run) -> Path | None:
    files = study.run_folder(run)
    kept = study.config.evaluation.probabilities != "none"
    for case_id in study.split(run.fold).validation:
        wanted = [files.prediction(case_id), *([files.probabilities(case_id)] if kept else [])]
        if missing := [path for path in wanted if not exists(path)]:
            return missing[0]
    return None


def _damaged_table(study: Study, run: Run) -> Path | None:
    files = study.run_folder(run)
    try:
        read_scores(files.scores_file)
    except InputError:
        return files.scores_file
    for path, read in ((files.counts_file, read_counts), (files.lesions_file, read_lesions)):
        try:
            if path.is_file():  # earlier versions wrote none
                read(path)
        except InputError:
            return path
    return None


def _foreign_name(folder: Path) -> str | None:
    """Return the first name in a folder that no study has before it is created."""
    try:
        names = _names_in(folder)
    except NotADirectoryError:
        raise InputError(f"{folder} is a file, not a folder for a study.") from None
    own = UNFINISHED if _names_in(folder / "runs") else (*UNFINISHED, "runs")  # it is made just before study.yaml
    return next((name for name in names if name not in own and not name.startswith(PARTIAL)), None)


def _first_missing(folder: Path) -> Path | None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


@dataclass(frozen=True)
class _Settled:
    """A study that is ready to be created."""

    files: StudyFolder
    config: SettledConfig
    data: JudgedData
    prepared: Sequence[PreparedCase]

    def create(self) -> Study:
        self.files.write_prepared({case.case_id: case.folder for case in self.prepared})
        digests = {case.case_id: case.digests for case in self.prepared}
        data = self.data
        study = write_study(self.files.path, self.config, data.dataset, data.folds, data.patients, digests)
        write_blind(study)
        study.files.write_own_losses(own_records(study, study.loss_keys))
        forget_claims(self.files)
        return study


def _prepared_study(
    config: StudyConfig,
    files: StudyFolder,
    progress: Progress,
    notice: Callable[[str], None],
    asked: Iterable[int],
    begin: Callable[[StudyConfig, Dataset], None],
) -> _Settled:
    """Read and check the data of a new study, prepare its cases, and settle its configuration."""
    config = replace(config, data=settled_layout(config.data))
    data = judged_data(config)
    dataset = data.dataset
    for warning in data.warnings:
        notice(warning)
    classes = len(dataset.classes)
    config = with_three_axes(config, dataset.flat_axis)
    preparation = settle_spacing(config.preparation, dataset)
    config = replace(config, preparation=preparation, splits=settled_splits(config, dataset))
    _require_folds(asked, config.splits.folds)
    # What can be checked before hours of preparation.
    check_networks(config, patch_size(config, dataset.flat_axis), None, classes)
    try_own_losses(config, dataset)
    try_own_metrics(config.evaluation.metrics, dataset)
    progress(0, len(dataset.cases), "preparing")
    begin(config, dataset)
    prepared = prepared_cases(files, config, dataset, progress)
    rarest = rarest_class(dataset, prepared)
    comparison = replace(
        config.comparison,
        primary_class=config.comparison.primary_class or rarest,
        demonstration=config.comparison.demonstration or dataset.name == "phantom",
    )
    patches = settle_patch_size(config, [case.shape for case in prepared], dataset.flat_axis)
    evaluation = replace(config.evaluation, lesions=settle_sizes(config.evaluation.lesions, dataset, prepared))
    training = settle_precision(config.training, config.execution)
    settled = SettledConfig.of(
        replace(config, patches=patches, training=training, comparison=comparison, evaluation=evaluation)
    )
    check_networks(settled, settled.patches.size, prepared[0].image.shape[0], classes)
    if config.patches.size is None:
        try_own_losses(settled, dataset)
    return _Settled(files, settled, data, prepared)
