"""The images and masks of a study: where they are now, and whether they are those that it was created from."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxloss.data.case import Case, read_image, read_label
from voxloss.data.dataset import Dataset, data_digest, file_values
from voxloss.data.formats import content_digest, exists
from voxloss.data.grid import turn_of
from voxloss.data.layouts import load_dataset
from voxloss.data.prepare.case import open_prepared, prepare_image
from voxloss.data.prepare.resample import resample_classes
from voxloss.data.readers import OPTION
from voxloss.study.settle import preparation_of
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, shell_word


class SourceError(InputError):
    """An image or mask of a study is missing, or no longer the one that the study was created from."""


@dataclass(frozen=True)
class Sources:
    """The images and masks of a study as they are now.

    Args:
        dataset: The study's data set, with the paths of today.
        digests: The digests of all files; None if some are missing.
        missing: The files that are not there.
        notices: Sentences on cases that were added or removed since the study was created.
    """

    dataset: Dataset
    digests: dict[str, tuple[str, ...]] | None
    missing: tuple[Path, ...]
    notices: tuple[str, ...]


def find_sources(study: Study, root: Path, progress: Callable[[int, int, str], None] = lambda *_: None) -> Sources:
    """Compare the images and masks in a folder with those that a study was created from, by their content.

    Args:
        study: The study.
        root: Where its data are now.
        progress: Called with (finished, of, what) as files are read.

    Raises:
        SourceError: A file has another content; the message names the first.
        InputError: `root` is another folder than the study's, and lacks one of its cases.
    """
    listed, notices = _listed(study, root)
    dataset = study.dataset
    if root != Path(study.config.data.root):
        dataset = replace(dataset, cases=tuple(_moved(case, listed or {}, root) for case in dataset.cases))
    missing = tuple(path for case in dataset.cases for path in case.files if not exists(path))
    digests = _digests(dataset, missing, progress)
    _require_unchanged(study, dataset, digests, complete=not missing)
    if listed is not None:
        known = {case.case_id for case in dataset.cases}
        notices += _membership(root, study, [case for case in listed if case not in known], known - set(listed))
    return Sources(dataset, None if missing else digests, missing, tuple(notices))


def require_files(missing: Sequence[Path], study: Path) -> None:
    """Raise SourceError if files of a study are missing; the message names the first and the way out."""
    if missing:
        several = len(missing) > 1
        more = f" and {count_of(len(missing) - 1, 'more file')} of the study" if several else ""
        raise SourceError(
            f"{missing[0]}{more} {'do' if several else 'does'} not exist; restore {'them' if several else 'it'}, or "
            f"name the folder that the data have moved to: voxloss run {shell_word(study)} --data FOLDER"
        )


def require_case(study: Study, case_id: str) -> None:
    """Raise SourceError if a file of a case is missing or has another content than when the study was created."""
    case, recorded = study.case(case_id), study.digests.get(case_id)
    require_files([path for path in case.files if not exists(path)], study.folder)
    for path, digest in zip(case.files, recorded or (), strict=False):
        if content_digest(path) != digest:
            raise _changed([path], study)


def _listed(study: Study, root: Path) -> tuple[dict[str, Case] | None, list[str]]:
    """Return the cases in a folder by id; None if that of the study can no longer be listed, with a sentence why."""
    data = study.config.data
    options = {name: value for name, value in data.options.items() if name != OPTION}
    if "classes" not in options:  # else a layout without classes of its own reads all masks
        values = zip(study.dataset.classes, file_values(study.dataset), strict=True)
        options["classes"] = {name: value for name, value in values if name != "background"}
        options.pop("ignore", None)
    try:
        found = load_dataset(data.layout, root, exclude=tuple(data.exclude), must_exist=False, **options)
    except InputError as error:
        if root != Path(data.root):
            raise
        return None, [f"new cases cannot be looked for: {str(error).rstrip('.')}"] if root.exists() else []
    return {case.case_id: case for case in found.cases}, []


def _moved(case: Case, listed: dict[str, Case], root: Path) -> Case:
    there = listed.get(case.case_id)
    if there is None or len(there.files) != len(case.files):
        what = "no case" if there is None else f"{count_of(len(there.files), 'file')} for the case"
        raise SourceError(f"{root} has {what} {case.case_id}; name a folder with the same data as the study's.")
    return there


def _digests(
    dataset: Dataset, missing: Iterable[Path], progress: Callable[[int, int, str], None]
) -> dict[str, tuple[str, ...]]:
    """Return the digests of every case; an empty text for a missing file."""
    absent = set(missing)

    def digests(case: Case) -> tuple[str, ...]:
        return tuple("" if path in absent else content_digest(path) for path in case.files)

    found, what = {}, "comparing the images with those of the study"
    progress(0, len(dataset.cases), what)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing runs outside the interpreter's lock
        for number, (case, of_case) in enumerate(zip(dataset.cases, pool.map(digests, dataset.cases), strict=True), 1):
            found[case.case_id] = of_case
            progress(number, len(dataset.cases), what)
    return found


def _require_unchanged(study: Study, dataset: Dataset, digests: dict[str, tuple[str, ...]], complete: bool) -> None:
    recorded = study.digests
    if recorded:
        changed = [
            path
            for case in dataset.cases
            for path, now, before in zip(case.files, digests[case.case_id], recorded[case.case_id], strict=True)
            if now not in ("", before)
        ]
        if changed:
            raise _changed(changed, study)
    elif complete and study.data_digest is not None and data_digest(digests) != study.data_digest:
        # A study of an earlier version has one digest for all files; its prepared cases tell which one changed.
        raise _changed([path for case in dataset.cases for path in _differing(study, dataset, case)], study)


def _differing(study: Study, dataset: Dataset, case: Case) -> list[Path]:
    """Return the files of a case from which its prepared arrays cannot have come."""
    try:
        prepared = open_prepared(study.files.read_prepared()[case.case_id])
        image, stored = read_image(case)
        turn = turn_of(stored, dataset)
        spacing = turn.geometry(stored).spacing_mm
        image = prepare_image(turn.turned(image), spacing, preparation_of(study.config.preparation))
        label, _ = read_label(case, dataset.label_values, dataset.value_hints)
        label = turn.turned(label)
    except (InputError, KeyError):
        return list(case.files)
    changed = [] if np.array_equal(image, prepared.image) else list(case.images)
    if case.label is not None and not np.array_equal(resample_classes(label, prepared.shape), prepared.label):
        changed.append(case.label)
    return changed


def _changed(paths: list[Path], study: Study) -> SourceError:
    more = f"; so do {count_of(len(paths) - 1, 'more file')}" if len(paths) > 1 else ""
    first = paths[0] if paths else f"A file in {study.config.data.root}"
    return SourceError(
        f"{first} differs from the file that {study.folder} was created from{more}. Restore the old content, or create "
        "a new study in another folder"
    )


def _membership(root: Path, study: Study, added: list[str], removed: Iterable[str]) -> list[str]:
    notices = []
    if added:
        notices.append(
            f"{count_of(len(added), 'case')} in {root} {'is' if len(added) == 1 else 'are'} not part of the study: "
            f"{_names(added)}. A study keeps its cases; to include new ones, create another study"
        )
    if gone := sorted(removed):
        notices.append(f"{count_of(len(gone), 'case')} of the study {'is' if len(gone) == 1 else 'are'} no longer in "
                       f"{root}: {_names(gone)}")  # fmt: skip
    return notices


def _names(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
