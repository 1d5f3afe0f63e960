"""BraTS20: BraTS20_Training_NNN folders with one NIfTI file per modality and a segmentation (Bakas et al. 2018)."""

import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from voxloss.data.case import Case, undeclared_value
from voxloss.data.classes import ClassValues, declared_classes, without_ignored
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.data.formats import count_label_values, is_image_name
from voxloss.utilities.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
ENHANCING_LABELS = (3, 4)


def is_case(folder: Path) -> bool:
    """Return whether a folder is a case of the BraTS20 layout, by its name."""
    return folder.is_dir() and re.fullmatch(r"BraTS20_Training_\d{3}", folder.name) is not None


def load(
    root: Path,
    modalities: Sequence[str] = ("t1ce",),
    enhancing_label: int = 4,
    exclude: Collection[str] = (),
    require_enhancing: bool = False,
    classes: ClassValues | None = None,
    ignore: int | Iterable[int] | None = None,
) -> Dataset:
    """List the cases of a folder in BraTS20's layout; by default the other tumour parts count as background.

    modalities: the channels, of t1, t1ce, t2, flair. enhancing_label: 4, or 3 for releases since 2023.
    exclude: ids to leave out. require_enhancing: drop the cases without an enhancing tumour, as the paper does (27 of
    369); this reads every mask, and keeps the cases whose mask is missing or damaged so that the check can name them.
    classes: name -> value, or values, in the masks, such as {"whole tumour": [1, 2, 4]}. ignore: value, or values, of
    voxels that count in no loss and no score.
    Expected files that are absent are listed all the same. Raises InputError when the folder holds no
    BraTS20_Training_NNN, for an unknown modality or label, and, when it reads the masks, for an undeclared value.
    """
    root = Path(root)
    listed = isinstance(modalities, list | tuple) and all(isinstance(name, str) for name in modalities)
    if not listed or not modalities or len({*modalities}) < len(modalities) or not {*modalities} <= {*MODALITIES}:
        raise InputError(f"modalities should be some of {', '.join(MODALITIES)}, each once, but are {modalities}")
    modalities = tuple(modalities)
    if enhancing_label not in ENHANCING_LABELS:
        raise InputError(f"enhancing_label should be 4, or 3 for releases since 2023, but is {enhancing_label}")
    folders = sorted(folder for folder in root.iterdir() if is_case(folder)) if root.is_dir() else []
    if not folders:
        raise InputError(f"{root} holds no BraTS20_Training_NNN folders, so it is not BraTS20's layout")
    cases, dropped = without_excluded((_case(folder, modalities) for folder in folders), exclude)
    own: dict[str, int | list[int]] = {"background": [0, 1, 2], "enhancing tumour": enhancing_label}
    names, label_values = declared_classes(classes or without_ignored(own, ignore), ignore)
    hints = _hints(enhancing_label)
    if require_enhancing:
        with ThreadPoolExecutor(2) as pool:
            keep = pool.map(lambda case: _may_enhance(case, enhancing_label, label_values, hints), cases)
            kept = [case for case, kept in zip(cases, keep, strict=True) if kept]
        dropped += tuple((case.case_id, "no enhancing tumour") for case in cases if case not in kept)
        cases = tuple(kept)
    return Dataset("brats20", cases, names, label_values, dropped, hints)


def _case(folder: Path, modalities: tuple[str, ...]) -> Case:
    images = tuple(_file(folder, modality) for modality in modalities)
    return Case(folder.name, images, _segmentation(folder))


def _file(folder: Path, part: str) -> Path:
    plain = folder / f"{folder.name}_{part}.nii"
    return plain if plain.is_file() else folder / f"{folder.name}_{part}.nii.gz"


def _segmentation(folder: Path) -> Path:
    """Return the mask; that of case 355 is called W39_1998.09.19_Segm.nii, so a single extra file is taken for it."""
    expected = _file(folder, "seg")
    if expected.is_file():
        return expected
    known = {_file(folder, modality).name for modality in MODALITIES}
    extra = [path for path in sorted(folder.iterdir()) if is_image_name(path) and path.name not in known]
    return extra[0] if len(extra) == 1 else expected


def _hints(enhancing_label: int) -> dict[int, str]:
    if enhancing_label == 4:
        return {3: "BraTS releases since 2023 write the enhancing tumour as 3, so set enhancing_label to 3"}
    return {4: "BraTS releases before 2023 write the enhancing tumour as 4, so set enhancing_label to 4"}


def _may_enhance(case: Case, enhancing_label: int, label_values: dict[int, int], hints: dict[int, str]) -> bool:
    assert case.label is not None
    try:
        counts = count_label_values(case.label)
    except InputError:
        return True
    for value in counts:
        if value not in label_values:
            raise InputError(undeclared_value(case.label, value, label_values, hints))
    return enhancing_label in counts
