"""The region of interest of each case: a mask outside which nothing counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.formats.slices import is_stack
from voxloss.data.layouts.names import is_volume, name_of, owner, volumes, walk
from voxloss.data.layouts.pairs import matching
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, excluding


def with_regions(
    cases: Sequence[Case], root: Path, region_of_interest: str | None
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Return the cases with their regions, and a note if they have any.

    A region belongs to the case whose id stands in its name, or in the names of its folders.

    Args:
        cases: The cases, of which a table of cases may have named the regions.
        root: The data set's folder, which relative names begin at.
        region_of_interest: The folder of the regions, or a pattern with "*"; None: those of the cases.

    Raises:
        InputError: The folder or pattern has no files, only some cases have a region, or one has two.
    """
    if region_of_interest is not None:
        known = next((case for case in cases if case.region is not None), None)
        if known is not None:
            raise InputError(
                f"data.options.region_of_interest is set, but the data name a region already, such as {known.region}"
            )
        files = _regions(root, region_of_interest, cases)
        cases = tuple(_with_region(case, files.get(case.case_id)) for case in cases)
    without = [case.case_id for case in cases if case.region is None]
    if len(without) == len(cases):
        return tuple(cases), ()
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise InputError(f"case {without[0]}{more} has no region of interest, but others have; add its "
                         f"file, or leave it out: {excluding(without)}")  # fmt: skip
    return tuple(cases), ("voxels outside each case's region of interest count in no loss and no score",)


def _with_region(case: Case, region: Path | None) -> Case:
    """Return the case with its region, which is no image, although a layout may have taken it for one."""
    return replace(case, region=region, images=tuple(path for path in case.images if path != region))


def _regions(root: Path, option: str, cases: Sequence[Case]) -> dict[str, Path]:
    if not isinstance(option, str) or not option.strip():
        raise InputError(f"data.options.region_of_interest takes a folder or a pattern, but is {option!r}")
    base = root if root.is_dir() else root.parent
    slices = any(is_stack(path) for case in cases for path in case.images)
    if "*" in option:
        found = [path for path in walk(base, slices) if is_volume(base / path, slices)]
        files = [base / path for path in matching(found, option)]
    elif (base / option).is_dir():
        base = base / option
        files = volumes(base, slices)
    else:
        raise InputError(f"data.options.region_of_interest names {option!r}, but {base} has no such folder")
    if not files:
        raise InputError(f"data.options.region_of_interest names {option!r}, where no file can be read as a region")
    ids = [case.case_id for case in cases]
    of_case: dict[str, Path] = {}
    for path in files:
        if (case_id := owner(path.relative_to(base).with_name(name_of(path)).as_posix(), ids)) is not None:
            other = of_case.setdefault(case_id, path)
            if other != path:
                raise InputError(f"{other} and {path} may both be the region of interest of {case_id}")
    if not of_case:
        raise InputError(
            f"data.options.region_of_interest names {option!r}, where {count_of(len(files), 'file')} have no case's id "
            f"in their names, such as {files[0].name}; cases are {', '.join(ids[:3])}"
        )
    return of_case
