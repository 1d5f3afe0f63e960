"""The masks of a second reader, which say how well people agree on a data set."""

import re
from collections.abc import Sequence
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.formats import is_image, stem
from voxloss.data.formats.slices import is_stack
from voxloss.utilities.errors import InputError

OPTION = "second_reader"  # of data.options


def second_masks(cases: Sequence[Case], root: Path, where: object) -> dict[str, Path]:
    """Find the second reader's masks: case id -> file, of the cases that have one.

    A file belongs to the case whose id is its name, or stands in it apart from other letters and digits.

    Args:
        cases: The cases.
        root: The data set's folder, or the table or list in it, whose folder a relative name begins at.
        where: A folder, or a pattern of files such as "second/*_manual2.nii.gz".

    Raises:
        InputError: `where` is no such text, no file of a case is there, or two files belong to one case.
    """
    if not isinstance(where, str) or not where.strip():
        raise InputError(f"data.options.second_reader takes a folder or a pattern of files, but is {where!r}")
    root = root.parent if root.is_file() else root
    base = Path(where).expanduser()
    if "*" in where:
        anchor = Path(base.anchor) if base.is_absolute() else root
        files = sorted(anchor.glob(str(base.relative_to(base.anchor))))
    else:
        folder = root / base
        if not folder.is_dir():
            raise InputError(f"data.options.second_reader names {where!r}, but {folder} is not a folder")
        files = sorted(folder.iterdir())
    ids = sorted((case.case_id for case in cases), key=len, reverse=True)  # of "scan_1" and "1" the longer fits better
    slices = any(case.label is not None and is_stack(case.label) for case in cases)
    masks: dict[str, Path] = {}
    for path in files:
        if not (is_image(path) or (slices and is_stack(path))):
            continue
        name = stem(path)
        owner = next((one for one in ids if re.search(rf"(?<![^\W_]){re.escape(one)}(?![^\W_])", name)), None)
        if owner is None:
            continue
        if owner in masks:
            raise InputError(f"{masks[owner]} and {path} may both be the second reader's mask of case {owner}")
        masks[owner] = path
    if not masks:
        raise InputError(f"data.options.second_reader names {where!r}, where no file has a case's id in its name")
    return masks
