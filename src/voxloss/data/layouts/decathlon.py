"""The Medical Segmentation Decathlon's layout (Antonelli et al. 2022), which nnU-Net also reads: imagesTr, labelsTr."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from voxloss.data.case import Case
from voxloss.data.classes import ClassValues, declared_classes, found_classes, without_ignored
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.data.formats import is_image, stem
from voxloss.data.layouts.folder import pair_by_name
from voxloss.utilities.errors import InputError


def load(
    root: Path,
    exclude: Collection[str] = (),
    classes: ClassValues | None = None,
    ignore: int | Iterable[int] | None = None,
) -> Dataset:
    """List the training cases of ROOT/imagesTr and ROOT/labelsTr.

    With ROOT/dataset.json, its "training" list gives the cases and its "labels" the classes (value -> name as the
    Decathlon writes, or name -> value, or several, as nnU-Net does; voxels of nnU-Net's "ignore" count in no loss and
    no score). An image that nnU-Net lists without the numbers of its channels is found as NAME_0000, NAME_0001, ...
    Without a list the files are paired by name; without labels the classes are those found in the masks. classes:
    name -> value, or values, instead of both. ignore: further values that count in no loss and no score. Images
    without a mask are dropped. Raises InputError for a folder without the layout or a dataset.json at fault.
    """
    root = Path(root)
    for name in ("imagesTr", "labelsTr"):
        if not (root / name).is_dir():
            raise InputError(f"{root} has no folder {name}, so it is not the Decathlon's layout")
    description = _description(root / "dataset.json")
    if "training" in description:
        cases, unlabelled = _listed(root, description["training"])
    else:
        cases, images = pair_by_name(root / "imagesTr", root / "labelsTr")
        unlabelled = [(stem(path), "no mask") for path in images]
        cases = tuple(
            case if case.images else Case(case.case_id, (root / "imagesTr" / f"{case.case_id}.nii.gz",), case.label)
            for case in cases
        )
    if not cases:
        raise InputError(f"{root} holds no image with a mask in imagesTr and labelsTr")
    cases, dropped = without_excluded(cases, exclude)
    if classes:
        names, label_values = declared_classes(classes, ignore)
    elif "labels" in description:
        labels = _label_names(root / "dataset.json", description["labels"])
        names, label_values = declared_classes(without_ignored(labels, ignore), ignore)
    else:
        names, label_values = found_classes(cases, ignore)
    title = str(description.get("name") or root.resolve().name)
    return Dataset(title, cases, names, label_values, (*dropped, *unlabelled))


def _description(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(description, dict):
        raise InputError(
            f"{path} should be a JSON object with labels and training, but is a {type(description).__name__}"
        )
    return description


def _listed(root: Path, training: Any) -> tuple[tuple[Case, ...], list[tuple[str, str]]]:
    """Return the cases in the list of dataset.json, and (id, reason) of images without a mask or not in the list."""
    cases, unlabelled = [], []
    channels, listed = _channels(root / "imagesTr"), set[str]()
    if not isinstance(training, list):
        raise InputError(f"{root / 'dataset.json'} should have a list as training, but has {training!r}")
    for entry in training:
        if not (isinstance(entry, dict) and isinstance(entry.get("image"), str)):
            raise InputError(f"{root / 'dataset.json'} lists {entry!r} where an entry names an image and a label")
        image = root / entry["image"]
        if not is_image(image):
            continue
        files = (image,) if image.is_file() else channels.get(stem(image), (image,))
        listed.update(stem(file) for file in files)
        if isinstance(entry.get("label"), str):
            cases.append(Case(stem(image), files, root / entry["label"]))
        else:
            unlabelled.append((stem(image), "no mask"))
    for path in sorted((root / "imagesTr").iterdir()):
        if is_image(path) and stem(path) not in listed:
            unlabelled.append((stem(path), "not in the training list of dataset.json"))
    return tuple(sorted(cases, key=lambda case: case.case_id)), unlabelled


def _channels(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return NAME -> its files NAME_0000, NAME_0001, ... in a folder; a case whose numbers have a gap is left out."""
    numbered: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    for path in folder.iterdir():
        if is_image(path) and (match := re.fullmatch(r"(.+)_(\d{4})", stem(path))):
            numbered[match[1]][int(match[2])] = path
    return {
        name: tuple(files[number] for number in sorted(files))
        for name, files in numbered.items()
        if sorted(files) == list(range(len(files)))
    }


def _label_names(path: Path, labels: Any) -> dict[str, int | list[int]]:
    """Return name -> values of dataset.json's labels, which the Decathlon and nnU-Net write in opposite directions."""
    if not isinstance(labels, dict):
        raise InputError(f"{path} should have an object as labels, but has {labels!r}")
    names: dict[str, int | list[int]] = {}
    for key, value in labels.items():
        name, number = (value, key) if str(key).isdigit() else (key, value)
        numbers = number if isinstance(number, list) else [number]
        if not isinstance(name, str) or not numbers or not all(str(one).isdigit() for one in numbers):
            raise InputError(f"{path} has the label {key!r}: {value!r} where a name and a whole value should be")
        values = [int(one) for one in numbers]
        names["background" if values == [0] else name] = values
    return names
