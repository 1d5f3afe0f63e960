"""KiTS19: case_NNNNN folders with imaging.nii.gz and segmentation.nii.gz (Heller et al. 2019).

Source: github.com/neheller/kits19. Arrays are stored (slice, row, column) and are left so.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.classes import ClassValues, declared_classes, without_ignored
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.utilities.errors import InputError

CLASSES = ("background", "kidney", "tumour")  # of the values 0, 1 and 2
TRAINING_CASES = 210  # cases 210 to 299 are the challenge's test set, whose masks are not public

# Yeung et al. 2021 leave these out for concern over the quality of the ground truth.
PAPER_EXCLUDED = ("case_00015", "case_00023", "case_00037", "case_00068", "case_00125", "case_00133")


def is_case(folder: Path) -> bool:
    """Return whether a folder is a case of the KiTS19 layout, by its name."""
    return folder.is_dir() and re.fullmatch(r"case_\d{5}", folder.name) is not None


def load(
    root: Path,
    exclude: Collection[str] = (),
    classes: ClassValues | None = None,
    ignore: int | Iterable[int] | None = None,
) -> Dataset:
    """List the cases of a folder in KiTS19's layout.

    exclude: ids to leave out, such as PAPER_EXCLUDED. classes: name -> value, or values, in the masks, by default
    CLASSES. ignore: value, or values, of voxels that count in no loss and no score. Expected files that are absent are
    listed all the same. Cases of the challenge's test set without a mask are dropped. Raises InputError when the folder
    holds no case_NNNNN.
    """
    root = Path(root)
    folders = sorted(folder for folder in root.iterdir() if is_case(folder)) if root.is_dir() else []
    if not folders:
        raise InputError(f"{root} holds no case_NNNNN folders, so it is not KiTS19's layout")
    cases, dropped = without_excluded(map(_case, folders), exclude)
    unlabelled = [case for case in cases if _is_test_case(case)]
    own = {name: value for value, name in enumerate(CLASSES)}
    names, label_values = declared_classes(classes or without_ignored(own, ignore), ignore)
    return Dataset(
        # A phantom comes in this layout, and its scores must not pass for those of KiTS19.
        name="phantom" if (root / "PHANTOM.json").is_file() else "kits19",
        cases=tuple(case for case in cases if case not in unlabelled),
        classes=names,
        label_values=label_values,
        dropped=(*dropped, *((case.case_id, "no mask: of the challenge's test set") for case in unlabelled)),
    )


def _case(folder: Path) -> Case:
    return Case(folder.name, (_file(folder, "imaging"),), _file(folder, "segmentation"))


def _file(folder: Path, name: str) -> Path:
    plain = folder / f"{name}.nii"
    return plain if plain.is_file() else folder / f"{name}.nii.gz"


def _is_test_case(case: Case) -> bool:
    number = int(case.case_id.removeprefix("case_"))
    return number >= TRAINING_CASES and case.label is not None and not case.label.is_file()
