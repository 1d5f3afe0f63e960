"""Layouts of data sets on disk, by name."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxloss.data.classes import ClassValues, declared_classes, found_classes, without_ignored
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.data.grid import with_common_grid
from voxloss.data.layouts import bids, brats, decathlon, folder, kits, monai, pairs, patients, table
from voxloss.data.layouts.listing import Listing
from voxloss.data.layouts.names import subfolders
from voxloss.data.layouts.regions import with_regions
from voxloss.data.layouts.spacing import with_picture_spacing
from voxloss.data.layouts.unknown import not_recognised, several_fit
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, did_you_mean


@dataclass(frozen=True)
class Layout:
    """A layout.

    Args:
        matches: Whether a path has it, by the names of its files and folders. Parameters after the first are options.
        load: Lists its cases. The parameters after the first are options.
        common: Whether data sets of many kinds have it, so that every other layout that fits goes before it.
    """

    matches: Callable[..., bool]
    load: Callable[..., Listing]
    common: bool = False


LAYOUTS: dict[str, Layout] = {
    "csv": Layout(table.matches, table.load),
    "monai": Layout(monai.matches, monai.load),
    "kits19": Layout(kits.matches_2019, kits.load_2019),
    "kits21": Layout(kits.matches_2021, kits.load_2021),
    "kits23": Layout(kits.matches_2023, kits.load_2023),
    "brats": Layout(brats.matches, brats.load),
    "decathlon": Layout(decathlon.matches, decathlon.load),
    "bids": Layout(bids.matches, bids.load),
    "folder": Layout(folder.matches, folder.load, common=True),
    "patients": Layout(patients.matches, patients.load, common=True),
    "pairs": Layout(pairs.matches, pairs.load, common=True),
}
OTHER_NAMES = {"brats20": "brats", "nnunet": "decathlon"}

SLICES = "slices"  # the option by which a folder of pictures is a volume

# Options of every layout.
COMMON_OPTIONS = ("classes", "ignore", "region_of_interest", "axes", "picture_spacing_mm")


def load_dataset(
    layout: str,
    root: Path,
    axes: str = "common",
    exclude: Collection[str] = (),
    *,
    classes: ClassValues | None = None,
    ignore: int | Iterable[int] | None = None,
    region_of_interest: str | None = None,
    picture_spacing_mm: Sequence[float] | None = None,
    must_exist: bool = True,
    on_fault: Callable[[str, str], None] | None = None,
    **options: Any,
) -> Dataset:
    """List the cases of a folder in one of LAYOUTS, or "auto", and find the grid that they share.

    Args:
        layout: One of LAYOUTS, or "auto".
        root: The folder, or the file of a CSV table or data list.
        axes: The order and direction that arrays are turned to, as for `with_common_grid`.
        exclude: Ids of cases to leave out.
        classes: Name -> value in the masks, or several, in the order wanted; None: those that the layout knows, else
            every value found in the masks ("class 1", ...), which reads them all.
        ignore: Value, or values, of voxels that count in no loss and no score.
        region_of_interest: A folder with a mask for each case, or a pattern of such files ("*_fov.nii.gz"); voxels
            outside a case's mask count in no loss and no score.
        picture_spacing_mm: The size of a voxel, or the two sides of a pixel, of files that do not tell it.
        must_exist: Whether each excluded case must be there; not in a folder that only used cases have moved to.
        on_fault: Called with id and sentence of each case at fault that is not excluded, which is then left out.
        options: Those of the layout's `load`.

    Raises:
        InputError: An unknown layout or option, a folder without the layout, an excluded id that no case has (if
            it must), a case at fault that is not excluded (without `on_fault`), or no case is left.
    """
    root = Path(root)
    if layout == "auto":
        layout = detect_layout(root, options)
    listing = _load(layout, root, options)
    if must_exist:
        _require_cases(listing, exclude)
    cases, excluded = without_excluded(listing.cases, exclude)
    at_fault: list[tuple[str, str]] = []
    for case_id, sentence in listing.faults:
        if by := {case_id, re.sub(r"_\d{4}$", "", case_id)} & {*exclude}:
            excluded += tuple((name, "excluded by the settings") for name in by)
        else:
            at_fault.append((case_id, sentence))
    if at_fault and (on_fault is None or not cases):
        raise InputError(first_of(at_fault))
    if on_fault is not None:
        for case_id, sentence in at_fault:
            on_fault(case_id, sentence)
    dropped = tuple(dict.fromkeys((*excluded, *listing.dropped)))
    if not cases:
        raise InputError(f"no case of {root} is left" + (f": all {len(dropped)} are dropped" if dropped else ""))
    cases, notes = with_regions(cases, root, region_of_interest)
    cases = with_picture_spacing(cases, picture_spacing_mm)
    own = listing.classes if listing.classes is None else without_ignored(listing.classes, ignore)
    chosen = classes or own
    names, values = declared_classes(chosen, ignore) if chosen else found_classes(cases, ignore)
    of_patient = {case.case_id: listing.patients.get(case.case_id, case.case_id) for case in cases}
    several = len({*of_patient.values()}) < len(of_patient)  # scans of one patient
    dataset = Dataset(
        listing.name,
        cases,
        names,
        values,
        dropped,
        listing.value_hints,
        own_folds=listing.own_folds,
        patients=of_patient if several else {},
        notes=(*listing.notes, *notes),
    )
    if dataset.own_folds is not None:
        number = len(dataset.own_folds.validation)
        said = f"{count_of(number, 'fold')} from {dataset.own_folds.source}, which a study uses"
        dataset = replace(dataset, notes=(*dataset.notes, f"{said} unless splits.from_data is false"))
    return with_common_grid(dataset, axes)


def first_of(faults: Sequence[tuple[str, str]]) -> str:
    """Return the first fault, the number of cases that have one too, and the names of some of them."""
    first, sentence = faults[0]
    others = [name for name in dict.fromkeys(name for name, _ in faults) if name != first]
    if not others:
        return sentence
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{sentence}; {count_of(len(others), 'other case')} with a fault: {', '.join(others[:3])}{more}"


def _load(layout: str, root: Path, options: Mapping[str, Any]) -> Listing:
    name = OTHER_NAMES.get(layout, layout)
    if name not in LAYOUTS:
        near = did_you_mean(layout, (*LAYOUTS, *OTHER_NAMES, "auto"))
        raise InputError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}, and auto{near}")
    known = options_of(name)
    for option in options:
        if option not in known:
            raise InputError(
                f"the layout {layout} has no option {option!r}; it has {', '.join([*known, *COMMON_OPTIONS])}"
            )
    if not isinstance(options.get(SLICES, False), bool):
        raise InputError(f"data.options.{SLICES} should be true or false, but is {options[SLICES]!r}")
    if not root.exists():
        raise InputError(f"{root} does not exist")
    return LAYOUTS[name].load(root, **options)


def options_of(layout: str) -> list[str]:
    """Return the names of the options that a layout has besides those of all layouts."""
    return list(inspect.signature(LAYOUTS[layout].load).parameters)[1:]


def _require_cases(listing: Listing, exclude: Collection[str]) -> None:
    """Raise InputError for an excluded id that no case has; the paper's exclusions also serve a part of KiTS19."""
    ids = {case.case_id for case in listing.cases} | {case_id for case_id, _ in (*listing.dropped, *listing.faults)}
    names = ids | {re.sub(r"_\d{4}$", "", name) for name in ids}  # of images without a mask, whose channels are listed
    if isinstance(exclude, str):
        return  # refused by `without_excluded`
    for case_id in exclude:
        if case_id not in names and case_id not in kits.PAPER_EXCLUDED:
            near = difflib.get_close_matches(case_id, sorted(ids), 1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"data.exclude names {case_id!r}, but {listing.name} has no such case{hint}")


def detect_layout(root: Path, options: Mapping[str, Any] | None = None) -> str:
    """Return the layout of a folder or file, from the names in it.

    Args:
        root: The folder or file.
        options: Options for it; a layout without one of them is not considered.

    Raises:
        InputError: It has none of LAYOUTS, or several; the message says what is in it, and the ways out.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root} does not exist, so it is not a folder of data")
    names = [name for name in LAYOUTS if {*(options or ())} <= {*options_of(name)}]
    if options and not names:
        first = next((one for one in options if not any(one in options_of(name) for name in LAYOUTS)), None)
        if first is None:
            raise InputError(f"no layout has the options {' and '.join(options)} together; set data.layout")
        every = sorted({option for name in LAYOUTS for option in options_of(name)} | {*COMMON_OPTIONS})
        raise InputError(f"no layout has the option {first!r}; the options of all layouts are {', '.join(every)}")
    if options and len(names) == 1:
        return names[0]
    for common in (False, True):
        fitting = [name for name in names if LAYOUTS[name].common == common and _fits(name, root, options or {})]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise InputError(several_fit(root, fitting))
    if "csv" in names and root.is_file() and root.suffix.lower() in table.ENDINGS:
        return "csv"  # which says what the table lacks
    inner = {path: _fitting(path) for path in subfolders(root)} if root.is_dir() else {}
    known = {path: name for path, name in inner.items() if name is not None}
    raise InputError(not_recognised(root, known, fits_with_slices=_fitting(root, {SLICES: True}) is not None))


def _fits(name: str, root: Path, options: Mapping[str, Any]) -> bool:
    matches = LAYOUTS[name].matches
    known = list(inspect.signature(matches).parameters)[1:]
    return matches(root, **{option: value for option, value in options.items() if option in known})


def _fitting(root: Path, options: Mapping[str, Any] | None = None) -> str | None:
    try:
        return next((name for name in LAYOUTS if _fits(name, root, options or {})), None)
    except InputError:  # such as two files of one name, about which nobody asked
        return None
