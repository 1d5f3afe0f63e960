"""Layouts of data sets on disk, by name."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voxloss.data.dataset import Dataset
from voxloss.data.layouts import brats20, decathlon, folder, kits19
from voxloss.utilities.errors import InputError

LAYOUTS: dict[str, Callable[..., Dataset]] = {
    "kits19": kits19.load,
    "brats20": brats20.load,
    "decathlon": decathlon.load,
    "folder": folder.load,
}


def load_dataset(layout: str, root: Path, **options: Any) -> Dataset:
    """List the cases of a folder in one of LAYOUTS, or "auto"; the options are those of the layout's `load`.

    Raises InputError for an unknown layout or option, a folder without the layout, and when no case is left.
    """
    root = Path(root)
    if layout == "auto":
        layout = detect_layout(root)
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}, and auto")
    known = list(inspect.signature(LAYOUTS[layout]).parameters)[1:]
    for option in options:
        if option not in known:
            raise InputError(f"the layout {layout} has no option {option!r}; it has {', '.join(known)}")
    dataset = LAYOUTS[layout](root, **options)
    if not dataset.cases:
        raise InputError(f"no case of {root} is left: all {len(dataset.dropped)} are dropped")
    return dataset


def detect_layout(root: Path) -> str:
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
