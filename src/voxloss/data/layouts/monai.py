"""MONAI's data lists: a JSON file with "training": [{"image": ..., "label": ..., "fold": ...}, ...].

Source: monai.data.load_decathlon_datalist and the data lists of Auto3DSeg.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxloss.data.case import Case
from voxloss.data.layouts import decathlon
from voxloss.data.layouts.listing import Listing, folds_by_number, listed_path, read_object
from voxloss.data.layouts.names import clean_id, name_of, without_common_words
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of

LISTS = ("training", "validation")

Entry = tuple[tuple[Path, ...], Path | None, int | None]


def matches(root: Path) -> bool:
    """Return whether a path is such a list, or a folder that holds one beside no other layout of a dataset.json."""
    return bool(_lists(root))


def load(root: Path, base: str | None = None) -> Listing:
    """List the cases of a data list, ROOT itself or the only one in ROOT.

    An image is a path or a list of paths, one for each channel. With "fold" in every entry these are the study's folds.
    A case has the name of its image (of several: of its label), and where entries share a name, that of their folders.
    "labels" names the classes, as the Decathlon's dataset.json does. Cases of the list "validation" are further cases.
    An entry without a label is dropped. base: the folder that paths are relative to, if it is not the list's own.
    Raises InputError for a list at fault, and if ROOT has several.
    """
    lists = _lists(root)
    if len(lists) != 1:
        several = ", ".join(path.name for path in lists)
        raise InputError(
            f"{root} holds several data lists ({several}); give one as the data"
            if lists
            else f'{root} is no data list of MONAI, a JSON object with "training": [{{"image": ..., "label": ...}}]'
        )
    (path,) = lists
    content = read_object(path)
    folder = path.parent / base if base is not None else path.parent
    entries = []
    for key in LISTS:
        listed = content.get(key, [])
        if not isinstance(listed, list):
            raise InputError(f"{path} should have a list as {key}, but has {listed!r}")
        for number, entry in enumerate(listed):
            where = f"{key}, entry {number}"
            entries.append((where, *_entry(path, folder, where, entry)))
    cases, dropped, folds, places = [], [], {}, dict[str, str]()
    for case_id, (where, files, mask, fold) in zip(_case_ids(folder, entries), entries, strict=True):
        if case_id in places:
            raise InputError(f"{path}, {where}: the case {case_id} is in {places[case_id]} already")
        places[case_id] = where
        case = Case(case_id, files, mask)
        if mask is None:
            dropped.append((case_id, "no label in the data list"))
            continue
        cases.append(case)
        if fold is not None:
            folds[case_id] = fold
    classes, notes = None, list[str]()
    if "labels" in content:
        classes, notes = decathlon.label_classes(path, content["labels"])
    if folds and len(folds) < len(cases):
        missing = next(case.case_id for case in cases if case.case_id not in folds)
        raise InputError(f"{path}: the case {missing} has no fold, but others have; give every entry a fold, or none")
    if content.get("validation") and not folds:
        number = len(content["validation"])
        notes.append(
            f'{count_of(number, "entry")} of the list "validation" are cases like the others: a study has folds'
        )
    own, of_folds = folds_by_number(path.name, folds)
    name = path.stem if path == root else root.resolve().name
    return Listing(name, cases, classes, dropped, own_folds=own, notes=[*notes, *of_folds])


def _lists(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    if not root.is_dir():
        return []
    own = root / "dataset.json" if decathlon.matches(root) else None  # which is the other layout's
    files = sorted(path for path in root.glob("*.json") if not path.name.startswith(".") and path != own)
    return [path for path in files if _is_list(path)]


def _is_list(path: Path) -> bool:
    try:
        training = read_object(path).get("training")
    except InputError:
        return False
    return isinstance(training, list) and any(isinstance(entry, dict) and "image" in entry for entry in training)


def _entry(path: Path, folder: Path, where: str, entry: Any) -> Entry:
    """Return the images, the mask and the fold of an entry."""
    entry = entry if isinstance(entry, dict) else {}
    images, label, fold = entry.get("image"), entry.get("label"), entry.get("fold")
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images or not all(isinstance(one, str) and one for one in images):
        raise InputError(f"{path}, {where}: image should be a path or a list of paths, but is {entry.get('image')!r}")
    if label is not None and not isinstance(label, str):
        raise InputError(f"{path}, {where}: label should be a path, but is {label!r}")
    if fold is not None and (not isinstance(fold, int) or isinstance(fold, bool)):
        raise InputError(f"{path}, {where}: fold should be a whole number, but is {fold!r}")
    return tuple(listed_path(folder, one) for one in images), listed_path(folder, label) if label else None, fold


def _case_ids(folder: Path, entries: Sequence[tuple[str, *Entry]]) -> list[str]:
    """Return the id of every entry: the name of a single image, else that of the mask, as channels differ in name.

    Where entries share a name, as those in a folder for each patient do, the words of their paths that differ are it.
    """
    files = [images[0] if len(images) == 1 or label is None else label for _, images, label, _ in entries]
    ids = [clean_id(name_of(file)) for file in files]
    if len({*ids}) == len(ids):
        return ids
    longer = [clean_id(Path(os.path.relpath(file, folder)).with_name(name_of(file)).as_posix()) for file in files]
    shorter = without_common_words(list(dict.fromkeys(longer)))
    return [shorter[name] for name in longer]
