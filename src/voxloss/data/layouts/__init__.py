"""Layouts of data sets on disk, by name."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from voxloss.data.dataset import Dataset
from voxloss.data.grid import with_common_grid
from voxloss.data.layouts import brats20, decathlon, folder, kits19
from voxloss.utilities.errors import InputError

LayoutName = Literal["kits19", "brats20", "decathlon", "folder"]

LAYOUTS: dict[str, Callable[..., Dataset]] = {
    "kits19": kits19.load,
    "brats20": brats20.load,
    "decathlon": decathlon.load,
    "folder": folder.load,
}


def load_dataset(
    layout: str,
    root: Path,
    axes: str = "common",
    exclude: Collection[str] = (),
    *,
    must_exist: bool = True,
    **options: Any,
) -> Dataset:
    """List the cases of a folder in one of LAYOUTS, or "auto", and find the grid that they share.

    Args:
        layout: One of LAYOUTS, or "auto".
        root: The folder.
        axes: The order and direction that arrays are turned to, as for `with_common_grid`.
        exclude: Ids of cases to leave out.
        must_exist: Whether each of them must be there; not in a folder that only used cases have moved to.
        options: Those of the layout's `load`; each has `classes` and `ignore`.

    Raises:
        InputError: An unknown layout or option, a folder without the layout, an excluded id that no case has (if
            it must), or no case is left.
    """
    root = Path(root)
    if layout == "auto":
        layout = detect_layout(root)
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}, and auto")
    known = list(inspect.signature(LAYOUTS[layout]).parameters)[1:]
    for option in options:
        if option not in known:
            raise InputError(f"the layout {layout} has no option {option!r}; it has {', '.join([*known, 'axes'])}")
    dataset = LAYOUTS[layout](root, exclude=exclude, **options)
    if must_exist:
        _require_cases(dataset, exclude)
    if not dataset.cases:
        raise InputError(f"no case of {root} is left: all {len(dataset.dropped)} are dropped")
    return with_common_grid(dataset, axes)


def _require_cases(dataset: Dataset, exclude: Collection[str]) -> None:
    """Raise InputError for an excluded id that no case has; the paper's exclusions also serve a part of KiTS19."""
    ids = {case.case_id for case in dataset.cases} | {case_id for case_id, _ in dataset.dropped}
    names = ids | {re.sub(r"_\d{4}$", "", name) for name in ids}  # of images without a mask, whose channels are dropped
    for case_id in exclude:
        if case_id not in names and case_id not in kits19.PAPER_EXCLUDED:
            near = difflib.get_close_matches(case_id, sorted(ids), 1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"data.exclude names {case_id!r}, but {dataset.name} has no such case{hint}")


def detect_layout(root: Path) -> LayoutName:
    """Return the layout of a folder, from the names in it. Raises InputError if it has none of LAYOUTS."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    if any(map(kits19.is_case, root.iterdir())):
        return "kits19"
    if any(map(brats20.is_case, root.iterdir())):
        return "brats20"
    if (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir():
        return "decathlon"
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return "folder"
    raise InputError(
        f"{root} has no known layout: case_NNNNN folders (kits19), BraTS20_Training_NNN folders (brats20), "
        "imagesTr and labelsTr (decathlon), or images and masks (folder)"
    )
