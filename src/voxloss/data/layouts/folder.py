"""Read a plain folder: ROOT/images and ROOT/masks, paired by file name."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from voxloss.data.case import MAX_LABEL_VALUE, Case
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.data.nifti import count_label_values, is_nifti_name, stem
from voxloss.utilities.errors import InputError

MOST_CLASSES = 254
FEW_STRAYS = 3  # values outside the range that are a slip in a mask; more of them are those of an image


def load(root: Path, classes: Mapping[str, int] | None = None, exclude: Collection[str] = ()) -> Dataset:
    """List the cases of ROOT/images and ROOT/masks, paired by name up to .nii or .nii.gz.

    An image of several channels is one four-dimensional file, or files NAME_0000, NAME_0001, ... for the mask NAME.
    classes: name -> value in the masks, in the order wanted; by default every value found in the masks is a class
    ("class 1", ...), which reads them all. exclude: ids to leave out. Raises InputError naming an image without a
    mask, a mask without an image, a gap in the channels, or a case with more or fewer channels than the others.
    """
    root = Path(root)
    for name in ("images", "masks"):
        if not (root / name).is_dir():
            raise InputError(f"{root} has no folder {name}; your data folder needs `images/` and `masks/`")
    cases, unlabelled = pair_by_name(root / "images", root / "masks")
    if unlabelled:
        raise InputError(f"{unlabelled[0]} has no mask of the same name in {root / 'masks'}")
    for case in cases:
        if not case.images:
            raise InputError(f"{case.label} has no image of the same name in {root / 'images'}")
        if len(case.images) != len(cases[0].images):
            raise InputError(
                f"case {case.case_id} has {len(case.images)} image files, but {cases[0].case_id} has "
                f"{len(cases[0].images)}"
            )
    if not cases:
        raise InputError(f"{root / 'images'} holds no .nii or .nii.gz files")
    cases, dropped = without_excluded(cases, exclude)
    names, label_values = declared_classes(classes) if classes else found_classes(cases)
    return Dataset(root.resolve().name, cases, names, label_values, dropped)


def pair_by_name(images: Path, masks: Path) -> tuple[tuple[Case, ...], list[Path]]:
    """Pair the images of one folder with the masks of another by name, and list the images without a mask.

    A mask's name decides: scan_0001 is the single image of a mask scan_0001, and the second channel of a mask scan.
    A mask without an image gives a case without images.
    """
    labels = _by_stem(masks)
    channels: dict[str, dict[int, Path]] = {name: {} for name in labels}
    unlabelled = []
    for name, path in _by_stem(images).items():
        numbered = re.fullmatch(r"(.+)_(\d{4})", name)
        if name in labels:
            channels[name][-1] = path  # a plain name; it cannot stand beside numbered channels
        elif numbered and numbered[1] in labels:
            channels[numbered[1]][int(numbered[2])] = path
        else:
            unlabelled.append(path)
    return tuple(Case(name, _in_order(channels[name]), labels[name]) for name in sorted(labels)), unlabelled


def _in_order(channels: dict[int, Path]) -> tuple[Path, ...]:
    numbers = sorted(channels)
    if numbers not in ([-1], list(range(len(numbers)))):
        names = ", ".join(channels[number].name for number in numbers)
        raise InputError(
            f"{channels[numbers[0]].parent} has {names} for one case; channels count from 0000 without gap"
        )
    return tuple(channels[number] for number in numbers)


def _by_stem(folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_nifti_name(path):
            if stem(path) in paths:
                raise InputError(
                    f"{path} and {paths[stem(path)].name} have the same name; rename or remove one of them"
                )
            paths[stem(path)] = path
    return paths


def declared_classes(classes: Mapping[str, int]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return names by class index, and value -> index, from name -> value; background is 0 and may be omitted."""
    named = {name: value for name, value in classes.items() if name != "background"}
    if classes.get("background", 0) != 0:
        raise InputError(f"the class background has the value 0 in masks, not {classes['background']}")
    values = [0, *named.values()]
    for value in values:
        if not isinstance(value, int) or not 0 <= value <= MAX_LABEL_VALUE or values.count(value) > 1:
            raise InputError(f"each class needs a whole value of its own from 1 to {MAX_LABEL_VALUE}, not {value!r}")
    if not named:
        raise InputError("`classes` has no class besides the background")
    return ("background", *named), {value: index for index, value in enumerate(values)}


def found_classes(cases: Iterable[Case]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return names ("class 1" for the value 1), and value -> index, of all values in the cases' masks.

    Masks that cannot be read are passed over here, since whoever reads the case names the fault; if none can be read,
    the first fault is raised. Raises InputError naming the file for values that are no classes.
    """
    cases = tuple(case for case in cases if case.label is not None)
    labels = [case.label for case in cases if case.label is not None]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(_values, labels))
    by_mask = {label: values for label, values in zip(labels, found, strict=True) if isinstance(values, set)}
    faults = [fault for fault in found if isinstance(fault, InputError)]
    if faults and not by_mask:
        raise InputError(f"{faults[0]}{_swapped_hint(cases)}")
    values = sorted(set().union(*by_mask.values()) - {0})
    if not values:
        where = labels[0].parent if labels else "the data set"
        raise InputError(f"no mask of {where} that can be read holds a value other than 0, so there is no class")
    outside = [value for value in values if not 0 <= value <= MAX_LABEL_VALUE]
    if len(values) > MOST_CLASSES or len(outside) > FEW_STRAYS:
        most = max(by_mask, key=lambda label: len(by_mask[label]))
        raise InputError(
            f"the masks of {most.parent} hold {len(values)} values from {values[0]} to {values[-1]}, which look like "
            f"grey values ({most.name} has most of them); classes are up to {MOST_CLASSES} values from 0 to "
            f"{MAX_LABEL_VALUE}{_swapped_hint(cases)}"
        )
    if outside:
        label = next(label for label, own in by_mask.items() if outside[0] in own)
        raise InputError(f"{label} holds the value {outside[0]}; the values of a mask lie in 0 to {MAX_LABEL_VALUE}")
    return declared_classes({f"class {value}": value for value in values})


def _values(label: Path) -> set[int] | InputError:
    try:
        return set(count_label_values(label))
    except InputError as fault:
        return fault


def _swapped_hint(cases: Sequence[Case]) -> str:
    """Return the end of a sentence about masks that are none, if the images look as masks do."""
    first = next((case for case in cases if case.images and case.label is not None), None)
    if first is None or first.label is None:
        return ""
    values = _values(first.images[0])
    if isinstance(values, InputError) or not {0} < values or len(values) > MOST_CLASSES or min(values) < 0:
        return ""
    return f"; {first.images[0].parent.name} and {first.label.parent.name} seem to be swapped"
