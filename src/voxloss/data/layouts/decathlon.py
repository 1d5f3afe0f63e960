"""The layout of the Medical Segmentation Decathlon (Antonelli et al. 2022) and of nnU-Net 1 and 2: imagesTr, labelsTr.

nnU-Net writes the folds of a data set as splits_final.json (version 2) or splits_final.pkl (version 1).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxloss.data.case import Case
from voxloss.data.folds import OwnFolds
from voxloss.data.formats import exists
from voxloss.data.layouts.folder import pair_folders
from voxloss.data.layouts.listing import Listing, complete, listed_path, read_json, read_object
from voxloss.data.layouts.names import is_volume, name_of, named, volumes
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of

SPLITS = "splits_final"


def matches(root: Path) -> bool:
    """Return whether a folder has imagesTr and labelsTr, or a dataset.json that maps cases to files as nnU-Net 2 may.

    A dataset.json that is not readable is named by `load`.
    """
    if named(root, ["imagesTr"]) and named(root, ["labelsTr"]):
        return True
    try:
        return "dataset" in _description(root)
    except InputError:
        return False


def load(root: Path, splits: str | None = None) -> Listing:
    """List the training cases of ROOT/imagesTr and ROOT/labelsTr.

    With ROOT/dataset.json, its "training" list (or nnU-Net's "dataset") gives the cases and its "labels" the classes
    (value -> name as the Decathlon writes, or name -> value, or several, as nnU-Net does; voxels of nnU-Net's "ignore"
    count in no loss and no score), and files with another ending than "file_ending" are no images. An image that
    nnU-Net lists without the numbers of its channels is found as NAME_0000, NAME_0001, ... Without a list the files are
    paired by name; without labels the classes are those found in the masks. Images without a mask are dropped.

    Args:
        root: The folder.
        splits: File with nnU-Net's folds, relative to `root`; None: splits_final.json, if there is one.

    Raises:
        InputError: A folder without the layout, or a dataset.json or file of folds at fault.
    """
    description = _description(root)
    notes: list[str] = []
    dropped: list[tuple[str, str]] = []
    if "dataset" in description:
        cases = _mapped(root, description["dataset"])
        faults: list[tuple[str, str]] = []
    else:
        images, labels = (_folder(root, name) for name in ("imagesTr", "labelsTr"))
        if "training" in description:
            cases, dropped = _listed(root, images, labels, description["training"])
            faults = []
        else:
            ending = description.get("file_ending", "")
            if not isinstance(ending, str) or (ending and not is_volume(Path(f"x{ending}"))):
                raise InputError(f"{root / 'dataset.json'} has the file_ending {ending!r}, which voxloss does not read")
            found, unlabelled, notes = pair_folders(images, labels, ending)
            lone = [
                Case(one.case_id, (images / f"{one.case_id}{ending or '.nii.gz'}",), one.label)
                for one in found
                if not one.channels
            ]
            whole, faults = complete([one for one in found if one.channels])
            cases = [*whole, *lone]  # the missing image is named by whoever reads the case
            dropped = [(name, "no mask") for name, _ in unlabelled]
        if not cases and not faults:
            files = f"{ending} file" if (ending := description.get("file_ending")) else "image"
            raise InputError(f"{root} holds no {files} with a mask in imagesTr and labelsTr")
    classes = None
    if "labels" in description:
        classes, of_labels = label_classes(root / "dataset.json", description["labels"])
        notes += of_labels
    notes += _miscounted(description, cases)
    own_folds, of_splits = _own_folds(root, splits)
    return Listing(
        str(description.get("name") or root.resolve().name),
        sorted(cases, key=lambda case: case.case_id),
        classes,
        dropped,
        faults,
        own_folds=own_folds,
        notes=[*notes, *of_splits],
    )


def _miscounted(description: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Return notes where a dataset.json counts other cases or channels than there are, as after a partial copy."""
    notes = []
    if (number := description.get("numTraining")) != len(cases) and isinstance(number, int):
        notes.append(f"dataset.json counts {number} training cases (numTraining), but {len(cases)} are there")
    names = description.get("channel_names", description.get("modality"))
    numbered = all(name_of(case.images[0]).endswith("_0000") for case in cases)  # else a file may have all channels
    channels = {len(case.images) for case in cases}
    if isinstance(names, dict) and numbered and len(channels) == 1 and len(names) not in channels:
        notes.append(f"dataset.json names {count_of(len(names), 'channel')}, but every case has {channels.pop()}")
    return notes


def _folder(root: Path, name: str) -> Path:
    found = named(root, [name])
    if not found:
        raise InputError(f"{root} has no folder {name}, so it is not the Decathlon's or nnU-Net's layout")
    return found[0]


def _description(root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    return read_object(path) if path.is_file() else {}


def _mapped(root: Path, content: Any) -> list[Case]:
    """Return the cases of nnU-Net 2's `dataset`: id -> images and label, anywhere."""
    if not isinstance(content, dict):
        raise InputError(f"{root / 'dataset.json'} should map cases to files in dataset, but has {content!r}")
    cases = []
    for case_id, entry in content.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if (
            not isinstance(images, list)
            or not all(isinstance(one, str) for one in images)
            or not isinstance(label, str)
        ):
            raise InputError(f"{root / 'dataset.json'}: the case {case_id!r} should have images and a label")
        cases.append(Case(case_id, tuple(listed_path(root, one) for one in images), listed_path(root, label)))
    return cases


def _listed(root: Path, images: Path, labels: Path, training: Any) -> tuple[list[Case], list[tuple[str, str]]]:
    """Return the cases in the list of dataset.json, and (id, reason) of images without a mask or not in the list."""
    if not isinstance(training, list):
        raise InputError(f"{root / 'dataset.json'} should have a list as training, but has {training!r}")
    cases, unlabelled = [], []
    by_name, channels = {name_of(path): path for path in volumes(images)}, _channels(images)
    masks, listed = {name_of(path): path for path in volumes(labels)}, set[str]()
    for entry in training:
        if not (isinstance(entry, dict) and isinstance(entry.get("image"), str)):
            raise InputError(f"{root / 'dataset.json'} lists {entry!r} where an entry names an image and a label")
        image = listed_path(root, entry["image"])
        name = name_of(image)
        if name.startswith("."):  # of macOS
            continue
        known = (by_name[name],) if name in by_name else channels.get(name, (image,))
        files = (image,) if exists(image) else known
        listed.update(name_of(file) for file in files)
        if isinstance(entry.get("label"), str):
            label = listed_path(root, entry["label"])
            cases.append(Case(name, files, label if exists(label) else masks.get(name_of(label), label)))
        else:
            unlabelled.append((name, "no mask"))
    unlabelled += [(name, "not in the training list of dataset.json") for name in by_name if name not in listed]
    return cases, unlabelled


def _channels(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return NAME -> its files NAME_0000, NAME_0001, ... in a folder; a case whose numbers have a gap is left out."""
    numbered: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    for path in volumes(folder):
        if match := re.fullmatch(r"(.+)_(\d{4})", name_of(path)):
            numbered[match[1]][int(match[2])] = path
    return {
        name: tuple(files[number] for number in sorted(files))
        for name, files in numbered.items()
        if sorted(files) == list(range(len(files)))
    }


def label_classes(path: Path, labels: Any) -> tuple[dict[str, list[int]], list[str]]:
    """Return name -> values of a list's "labels", which the Decathlon and nnU-Net 2 write in opposite directions.

    Values with one name are one class; notes say so.
    """
    if not isinstance(labels, dict):
        raise InputError(f"{path} should have an object as labels, but has {labels!r}")
    by_value = all(key.isdigit() and isinstance(name, str) for key, name in labels.items())
    names: dict[str, list[int]] = {}
    for key, value in labels.items():
        name, number = (value, key) if by_value else (key, value)
        numbers = number if isinstance(number, list) else [number]
        if not numbers or not all(isinstance(one, int | str) and str(one).isdigit() for one in numbers):
            raise InputError(f"{path} has the label {key!r}: {value!r} where a name and a whole value should be")
        values = [int(one) for one in numbers]
        names.setdefault("background" if values == [0] else name, []).extend(values)
    merged = {name: values for name, values in names.items() if by_value and len(values) > 1}
    return names, [
        f"{path.name} calls the values {' and '.join(map(str, values))} {name}, so they are one class"
        for name, values in merged.items()
    ]


def _own_folds(root: Path, splits: str | None) -> tuple[OwnFolds | None, list[str]]:
    """Return nnU-Net's folds, and a note where they are only in a pickle."""
    path = root / (splits if splits is not None else f"{SPLITS}.json")
    if path.suffix == ".pkl" or (splits is None and not path.is_file()):
        pickled = path.with_suffix(".pkl")
        if splits is None and not pickled.is_file():
            return None, []
        sentence = (
            f"{pickled} is a pickle, which can run a program as it is read, so it is not read; write its folds as "
            f"{SPLITS}.json, a list of folds with the names of cases as train and val"
        )
        if splits is not None:
            raise InputError(sentence)
        return None, [sentence]
    return read_splits(path), []


def read_splits(path: Path) -> OwnFolds:
    """Read nnU-Net's splits_final.json: a list of folds, each with the names of its `train` and `val` cases."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    content = read_json(path)
    parts: dict[str, list[tuple[str, ...]]] = {"train": [], "val": []}
    for number, fold in enumerate(content if isinstance(content, list) and content else [None]):
        for name, folds in parts.items():
            ids = fold.get(name) if isinstance(fold, dict) else None
            if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
                raise InputError(
                    f"{path} should list folds with the names of cases as train and val; fold {number} does not"
                )
            folds.append(tuple(ids))
    return OwnFolds(path.name, tuple(parts["val"]), tuple(parts["train"]))
