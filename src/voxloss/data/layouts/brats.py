"""BraTS, 2017 to 2024: a folder for each scan with one file per modality and a segmentation (Bakas et al. 2018).

| release | folder | modalities | enhancing tumour |
|---|---|---|---|
| 2017 to 2019 | HGG/BraTS19_CBICA_AAB_1 | _t1, _t1ce, _t2, _flair | 4 |
| 2020, 2021 | BraTS20_Training_001, BraTS2021_00000 | the same | 4 |
| 2023, 2024 | BraTS-GLI-00000-000 | -t1n, -t1c, -t2w, -t2f | 3 |
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.formats import count_label_values
from voxloss.data.layouts.listing import Listing
from voxloss.data.layouts.names import name_of, named, subfolders, volumes
from voxloss.utilities.errors import InputError

MODALITIES = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}  # until 2021 -> since 2023
ENHANCING_LABELS = (3, 4)
GRADES = ("HGG", "LGG")  # until 2019 the folders of scans lie in these

OLD = re.compile(r"brats1[789]_.+|brats20_training_\d{3}|brats2021_\d{5}", re.IGNORECASE)
NEW = re.compile(r"brats-[a-z]+-(\d{5})-\d{3}", re.IGNORECASE)


def matches(root: Path) -> bool:
    """Return whether a folder holds scans of a release of BraTS, by the names of folders."""
    return root.is_dir() and bool(_scans(root))


def load(
    root: Path,
    modalities: Sequence[str] = ("t1ce",),
    enhancing_label: int | None = None,
    require_enhancing: bool = False,
) -> Listing:
    """List the scans of a folder in BraTS's layout; the other tumour parts count as background.

    Expected files that are absent are listed all the same.

    Args:
        root: The folder; until 2019 the one that holds HGG and LGG.
        modalities: The channels, of t1, t1ce, t2, flair, or of t1n, t1c, t2w, t2f.
        enhancing_label: The value of the enhancing tumour; None: 3 for releases since 2023, else 4.
        require_enhancing: Drop the cases without an enhancing tumour, as the paper does (27 of 369). This reads every
            mask, and keeps the cases whose mask is missing or damaged so that the check can name them.

    Raises:
        InputError: The folder holds no scan, an unknown modality or label, scans of releases with different values,
            paediatric scans without `enhancing_label`, or, when it reads the masks, the value of another release.
    """
    modalities = _known(modalities)
    folders = _scans(root) if root.is_dir() else []
    if not folders:
        raise InputError(f"{root} holds no folders such as BraTS20_Training_NNN or BraTS-GLI-NNNNN-NNN")
    if enhancing_label is not None and enhancing_label not in ENHANCING_LABELS:
        raise InputError(f"enhancing_label should be 4, or 3 for releases since 2023, but is {enhancing_label}")
    value = enhancing_label if enhancing_label is not None else _enhancing(folders)
    cases = [_case(folder, modalities) for folder in folders]
    classes = {"background": [0, 1, 2], "enhancing tumour": [value]}
    hints = {7 - value: _hint(value)}
    if value == 3 and all(NEW.fullmatch(folder.name) for folder in folders):
        classes["background"].append(4)  # the resection cavity of scans after treatment, since 2024
        hints = {}
    dropped = []
    if require_enhancing:
        with ThreadPoolExecutor(2) as pool:
            keep = list(pool.map(lambda case: _may_enhance(case, value, hints), cases))
        dropped = [(case.case_id, "no enhancing tumour") for case, kept in zip(cases, keep, strict=True) if not kept]
        cases = [case for case, kept in zip(cases, keep, strict=True) if kept]
    patients = {folder.name: match[1] for folder in folders if (match := NEW.fullmatch(folder.name))}
    return Listing(_name(folders), cases, classes, dropped, value_hints=hints, patients=patients)


def _scans(root: Path) -> list[Path]:
    folders = [inner for parent in (root, *named(root, GRADES)) for inner in subfolders(parent)]
    return sorted(folder for folder in folders if OLD.fullmatch(folder.name) or NEW.fullmatch(folder.name))


def _known(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities by the names that they had until 2021."""
    older = {new: old for old, new in MODALITIES.items()}
    listed = isinstance(modalities, list | tuple) and all(isinstance(name, str) for name in modalities)
    known = tuple(older.get(name, name) for name in modalities) if listed else ()
    if not known or len({*known}) < len(known) or not {*known} <= {*MODALITIES}:
        raise InputError(
            f"modalities should be some of {', '.join(MODALITIES)} (or {', '.join(older)}), each once, but are "
            f"{modalities}"
        )
    return known


def _enhancing(folders: Sequence[Path]) -> int:
    new = [folder for folder in folders if NEW.fullmatch(folder.name)]
    if children := [folder for folder in new if folder.name.casefold().startswith("brats-ped")]:
        raise InputError(
            f"{children[0].name} is a paediatric scan, in which the enhancing tumour is 3 in the release of 2023 and 1 "
            "in that of 2024; set data.options.enhancing_label to 3, or name data.options.classes with the layout "
            "patients"
        )
    if new and len(new) < len(folders):
        other = next(folder for folder in folders if folder not in new)
        raise InputError(
            f"{new[0].name} and {other.name} are of releases that write the enhancing tumour as 3 and as 4; put them "
            "into folders of their own"
        )
    return 3 if new else 4


def _name(folders: Sequence[Path]) -> str:
    """Return the release, such as brats20 or brats-gli, or brats for several."""
    releases = {re.match(r"(?i)brats(\d+|-[a-z]+)", folder.name) for folder in folders}
    names = {match[0].lower() for match in releases if match}
    return names.pop() if len(names) == 1 else "brats"


def _case(folder: Path, modalities: tuple[str, ...]) -> Case:
    return Case(folder.name, tuple(_image(folder, modality) for modality in modalities), _segmentation(folder))


def _image(folder: Path, modality: str) -> Path:
    if (older := _file(folder, modality)) is not None:
        return older
    if (newer := _file(folder, MODALITIES[modality])) is not None:
        return newer
    if NEW.fullmatch(folder.name):
        return folder / f"{folder.name}-{MODALITIES[modality]}.nii.gz"
    return folder / f"{folder.name}_{modality}.nii.gz"


def _file(folder: Path, part: str) -> Path | None:
    wanted = {f"{folder.name}{separator}{part}".casefold() for separator in "_-"}
    return next((path for path in volumes(folder) if name_of(path).casefold() in wanted), None)


def _segmentation(folder: Path) -> Path:
    """Return the mask; that of case 355 is called W39_1998.09.19_Segm.nii, so a single extra file is taken for it."""
    expected = _file(folder, "seg")
    if expected is not None:
        return expected
    known = {_file(folder, name) for pair in MODALITIES.items() for name in pair}
    extra = [path for path in volumes(folder) if path not in known]
    separator = "-" if NEW.fullmatch(folder.name) else "_"
    return extra[0] if len(extra) == 1 else folder / f"{folder.name}{separator}seg.nii.gz"


def _hint(enhancing_label: int) -> str:
    if enhancing_label == 4:
        return "BraTS releases since 2023 write the enhancing tumour as 3, so set enhancing_label to 3"
    return "BraTS releases before 2023 write the enhancing tumour as 4, so set enhancing_label to 4"


def _may_enhance(case: Case, enhancing_label: int, hints: dict[int, str]) -> bool:
    assert case.label is not None
    try:
        counts = count_label_values(case.label)
    except InputError:
        return True
    for value, hint in hints.items():
        if value in counts:
            raise InputError(f"{case.label} holds the value {value}: {hint}")
    return enhancing_label in counts
