"""The classes of a data set: which values of its masks belong to each, and which values are ignored."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from voxloss.data.case import IGNORED, MAX_LABEL_VALUE, Case
from voxloss.data.formats import count_label_values, value_names
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of

MOST_CLASSES = IGNORED - 1  # besides the background: the indices below that of ignored voxels

FEW_STRAYS = 3  # values outside the range that are a slip in a mask; more of them are those of an image

# The name that nnU-Net gives, in dataset.json, to the value of voxels that nobody annotated.
IGNORED_NAME = "ignore"

ClassValues = Mapping[str, int | Iterable[int]]  # a class's name -> its value in the masks, or several


def declared_classes(
    classes: ClassValues, ignore: int | Iterable[int] | None = None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return names by class index, and value -> index, from name -> value or values.

    The background has the value 0 and may be omitted. A class with several values is their union. Voxels with a value
    of `ignore`, or of a class called "ignore" as in nnU-Net, get the index `IGNORED`.

    Raises:
        InputError: `classes` has another form, a value is not whole or out of range, two classes share a value, or no
            class is left.
    """
    if not isinstance(classes, Mapping) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"`classes` takes names with their values, such as {{tumour: 1}}; received {classes!r}")
    values = {name: _values_of(name, value) for name, value in classes.items()}
    ignored = [] if ignore is None else _values_of(IGNORED_NAME, ignore)
    for name in [name for name in values if name.casefold() == IGNORED_NAME]:
        ignored += values.pop(name)
    background = values.pop("background", [0])
    if not values:
        raise InputError("`classes` has no class besides the background")
    if len(values) > MOST_CLASSES:
        raise InputError(f"`classes` has {len(values)} classes besides the background; {MOST_CLASSES} are possible")
    names = ("background", *values)
    label_values: dict[int, int] = {}
    for index, (name, members) in [*enumerate([("background", background), *values.items()]), (IGNORED, ("", ignored))]:
        for value in members:
            if label_values.setdefault(value, index) != index:
                other = names[label_values[value]]
                raise InputError(
                    f"the value {value} is that of {other} and is also ignored; name it once"
                    if index == IGNORED
                    else f"{other} and {name} both have the value {value}, but a voxel has one class; name classes "
                    "without a common value in data.options.classes"
                )
    if 0 not in label_values:
        raise InputError(f"the class background has the value 0 in masks, not {background}")
    return names, label_values


def without_ignored(classes: ClassValues, ignore: int | Iterable[int] | None) -> dict[str, list[int]]:
    """Return a data set's own classes without the values that the settings ignore; a class without values goes."""
    ignored = [] if ignore is None else _values_of(IGNORED_NAME, ignore)
    kept = {name: [v for v in _values_of(name, values) if v not in ignored] for name, values in classes.items()}
    return {name: values for name, values in kept.items() if values}


def found_classes(
    cases: Iterable[Case], ignore: int | Iterable[int] | None = None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return names, and value -> index, of all values in the cases' masks.

    The value 1 is called "class 1", unless the masks themselves name it, as DICOM segmentations do.
    Masks that cannot be read are passed over here, since whoever reads the case names the fault; if none can be read,
    the first fault is raised. Raises InputError naming the file for values that are no classes.
    """
    cases = tuple(case for case in cases if case.label is not None)
    labels = [case.label for case in cases if case.label is not None]
    ignored = [] if ignore is None else _values_of(IGNORED_NAME, ignore)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(_values_in, labels))
    by_mask = {label: values for label, values in zip(labels, found, strict=True) if isinstance(values, set)}
    faults = [fault for fault in found if isinstance(fault, InputError)]
    if faults and not by_mask:
        raise InputError(f"{faults[0]}{_swapped_hint(cases) or _and_others(labels[1:])}")
    values = sorted(set().union(*by_mask.values()) - {0, *ignored})
    if not values:
        where = labels[0].parent if labels else "the data set"
        others = " and ".join(map(str, sorted({0, *ignored})))
        which, why = ("that can be read ", f"; {faults[0]}") if faults else ("", "")
        raise InputError(f"no mask of {where} {which}holds a value other than {others}, so there is no class{why}")
    outside = [value for value in values if not 0 <= value <= MAX_LABEL_VALUE]
    if len(values) > MOST_CLASSES or len(outside) > FEW_STRAYS:
        most = max(by_mask, key=lambda label: len(by_mask[label]))
        raise InputError(
            f"the masks of {most.parent} hold {len(values)} values from {values[0]} to {values[-1]}, which look like "
            f"grey values ({most.name} has most of them); classes are up to {MOST_CLASSES} values from 0 to "
            f"{MAX_LABEL_VALUE}{_swapped_hint(cases)}"
        )
    if outside:
        first, *further = [label for label, own in by_mask.items() if not own.isdisjoint(outside)]
        value = next(value for value in outside if value in by_mask[first])
        raise InputError(
            f"{first} holds the value {value}; the values of a mask lie in 0 to {MAX_LABEL_VALUE}{_and_others(further)}"
        )
    return declared_classes(_named(values, by_mask), ignore)


def _values_of(name: str, values: Any) -> list[int]:
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else [values]
    for value in listed:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value <= MAX_LABEL_VALUE or listed.count(value) > 1:
            raise InputError(f"{name} takes different whole values from 0 to {MAX_LABEL_VALUE}, not {values!r}")
    if not listed:
        raise InputError(f"{name}: a class needs a value in the masks")
    return listed


def _values_in(label: Path) -> set[int] | InputError:
    try:
        return set(count_label_values(label))
    except InputError as fault:
        return fault


def _named(values: Sequence[int], masks: Iterable[Path]) -> dict[str, int]:
    found: dict[int, str] = {}
    for mask in masks:
        found = value_names(mask) | found
    names = [found.get(value, f"class {value}") for value in values]
    usable = len(set(names)) == len(names) and "background" not in names
    return dict(zip(names if usable else (f"class {value}" for value in values), values, strict=True))


def _and_others(labels: Iterable[Path]) -> str:
    """Return the end of a sentence about a mask at fault, if other masks are too."""
    names = [label.name for label in labels]
    more = ", …" if len(names) > 3 else ""
    return f"; {count_of(len(names), 'other mask')} with a fault: {', '.join(names[:3])}{more}" if names else ""


def _swapped_hint(cases: Sequence[Case]) -> str:
    """Return the end of a sentence about masks that are none, if the images look as masks do."""
    first = next((case for case in cases if case.images and case.label is not None), None)
    if first is None or first.label is None:
        return ""
    values = _values_in(first.images[0])
    if isinstance(values, InputError) or not {0} < values or len(values) > MOST_CLASSES or min(values) < 0:
        return ""
    return f"; {first.images[0].parent.name} and {first.label.parent.name} seem to be swapped"
