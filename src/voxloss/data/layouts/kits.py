"""KiTS: case_NNNNN folders with imaging.nii.gz and a segmentation (Heller et al. 2019), of 2019, 2021 and 2023.

Source: github.com/neheller/kits19, kits21 and kits23. Arrays are stored (slice, row, column) and are left so.
"""

import re
from functools import lru_cache
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.formats import count_label_values
from voxloss.data.layouts.listing import Listing
from voxloss.data.layouts.names import name_of, subfolders, volumes
from voxloss.utilities.errors import InputError

CLASSES = {"background": 0, "kidney": 1, "tumour": 2}
CYST = {"cyst": 3}  # since 2021
TEST_CASES = range(210, 300)  # of the challenge of 2019, whose masks are not public
NEW_CASES = range(400, 600)  # since 2023

# Yeung et al. 2021 leave these out for concern over the quality of the ground truth.
PAPER_EXCLUDED = ("case_00015", "case_00023", "case_00037", "case_00068", "case_00125", "case_00133")

AGGREGATIONS = ("MAJ", "AND", "OR")  # of the readers' masks of 2021: the majority, what all drew, what any drew
MASKS_READ = 8  # to tell 2023 from 2019: about half of the cases have a cyst


def matches_2019(root: Path) -> bool:
    """Return whether a folder holds cases, and not those of a later release."""
    return bool(_folders(root)) and not matches_2021(root) and not matches_2023(root)


def matches_2021(root: Path) -> bool:
    """Return whether a case has an aggregated segmentation."""
    return any(name_of(path).lower().startswith("aggregated_") for one in _folders(root) for path in volumes(one))


def matches_2023(root: Path) -> bool:
    """Return whether cases are of 2023, by a number that is new there, or by a cyst in one of the first masks."""
    cases = [_case(folder, "segmentation") for folder in _folders(root)]
    masks = [case.label for case in cases if case.label is not None and case.label.is_file()]
    new = any(_number(case) in NEW_CASES for case in cases)
    return bool(masks) and (new or any(map(_has_cyst, masks[:MASKS_READ])))


def load_2019(root: Path) -> Listing:
    """List the cases of a folder in KiTS19's layout.

    Expected files that are absent are listed all the same. Cases of the challenge's test set without a mask are
    dropped. Raises InputError when the folder holds no case_NNNNN.
    """
    cases = _cases(root, "segmentation")
    unlabelled = [case for case in cases if _number(case) >= TEST_CASES.start and not _has_mask(case)]
    return Listing(
        # A phantom comes in this layout, and its scores must not pass for those of KiTS19.
        "phantom" if (root / "PHANTOM.json").is_file() else "kits19",
        [case for case in cases if case not in unlabelled],
        CLASSES,
        [(case.case_id, "no mask: of the challenge's test set") for case in unlabelled],
        value_hints={3: "KiTS21 and KiTS23 write cysts as 3, so set data.layout to kits21 or kits23"},
    )


def load_2021(root: Path, aggregation: str = "MAJ") -> Listing:
    """List the cases of a folder in KiTS21's layout; aggregation: how the readers' masks are joined (AGGREGATIONS).

    Expected files that are absent are listed all the same. Raises InputError when the folder holds no case_NNNNN, or
    for an unknown aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise InputError(f"aggregation should be one of {', '.join(AGGREGATIONS)}, but is {aggregation!r}")
    return Listing("kits21", _cases(root, f"aggregated_{aggregation}_seg"), CLASSES | CYST)


def load_2023(root: Path) -> Listing:
    """List the cases of a folder in KiTS23's layout, as `load_2019` does, with cysts."""
    return Listing("kits23", _cases(root, "segmentation"), CLASSES | CYST)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return [folder for folder in subfolders(root) if re.fullmatch(r"(?i)case_\d{5}", folder.name)]


def _cases(root: Path, mask: str) -> list[Case]:
    folders = _folders(root)
    if not folders:
        raise InputError(f"{root} holds no case_NNNNN folders, so it is not the layout of KiTS")
    return [_case(folder, mask) for folder in folders]


def _case(folder: Path, mask: str) -> Case:
    """Return the case of a folder, with the files that it should have."""
    return Case(folder.name, (_file(folder, "imaging"),), _file(folder, mask))


def _file(folder: Path, name: str) -> Path:
    found = [path for path in volumes(folder) if name_of(path).lower() == name.lower()]
    return found[0] if found else folder / f"{name}.nii.gz"


def _number(case: Case) -> int:
    return int(case.case_id[-5:])


def _has_mask(case: Case) -> bool:
    return case.label is not None and case.label.is_file()


def _has_cyst(mask: Path) -> bool:
    try:
        return _values_include(mask, CYST["cyst"], mask.stat().st_mtime_ns)
    except (InputError, OSError):
        return False


@lru_cache(maxsize=100)  # each of the three releases asks, and a mask takes a second
def _values_include(mask: Path, value: int, _changed: int) -> bool:
    return value in count_label_values(mask)
