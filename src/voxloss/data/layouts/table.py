"""A CSV table of any data set: the columns image and mask, and if wanted case, patient, fold and region."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.formats import exists
from voxloss.data.layouts.listing import Listing, folds_by_number, listed_path, read_text
from voxloss.data.layouts.names import clean_id, name_of
from voxloss.utilities.errors import InputError

ENDINGS = (".csv", ".tsv")
MASK_COLUMNS = ("mask", "label")
SEPARATORS = ",;\t"


def matches(root: Path) -> bool:
    """Return whether a path is such a table, or a folder that holds one."""
    return bool(_tables(root))


def load(root: Path, base: str | None = None) -> Listing:
    """List the cases of a CSV table, ROOT itself or the only one in ROOT.

    Columns: `image` (several separated by ";") or `image_0`, `image_1`, ... for the channels; `mask` (or `label`); and
    if wanted `case` (else the mask's name), `patient` (whose scans are kept together), `fold` (a whole number, the same
    for the cases that are scored together) and `region` (outside which nothing counts). Columns may be separated by
    commas, semicolons or tabs. Rows without a mask are dropped. base: the folder that paths are relative to, if it is
    not the table's own. Raises InputError, with the row, for a table at fault, and if no file of it exists.
    """
    tables = _tables(root)
    if len(tables) != 1:
        several = ", ".join(path.name for path in tables)
        raise InputError(
            f"{root} holds several tables with the columns image and mask ({several}); give one as the data"
            if tables
            else f"{root} {_lacks(root)}"
        )
    (path,) = tables
    folder = path.parent / base if base is not None else path.parent
    cases: dict[str, Case] = {}
    rows: dict[str, int] = {}
    dropped, folds, patients = [], {}, {}
    for number, row in _rows(path):
        case = _case(path, number, row, folder)
        if case.case_id in cases:
            hint = "" if row.get("case") else "; name the cases in a column case"
            raise InputError(
                f"{path}, row {number}: the case {case.case_id} is in row {rows[case.case_id]} already{hint}"
            )
        if case.label is None:
            dropped.append((case.case_id, "no mask in the table"))
            continue
        cases[case.case_id], rows[case.case_id] = case, number
        if row.get("patient"):
            patients[case.case_id] = row["patient"]
        if row.get("fold"):
            folds[case.case_id] = _fold(path, number, row["fold"])
    for name, values in (("fold", folds), ("patient", patients)):
        if values and (missing := [case_id for case_id in cases if case_id not in values]):
            raise InputError(f"{path}, row {rows[missing[0]]}: the {name} is empty, but other rows have one")
    if not cases and not dropped:
        raise InputError(f"{path} has no rows below its columns")
    files = [file for case in cases.values() for file in case.files]
    if files and not any(exists(file) for file in files):
        raise InputError(
            f"no file of {path} exists, the first is {files[0]}; paths are relative to {folder}, or to the folder that "
            "data.options.base names"
        )
    own, notes = folds_by_number(path.name, folds)
    name = path.stem if path == root else root.resolve().name
    return Listing(name, tuple(cases.values()), None, dropped, own_folds=own, patients=patients, notes=notes)


def _tables(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() in ENDINGS and _is_table(root) else []
    if not root.is_dir():
        return []
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))
    return [path for path in files if path.is_file() and _is_table(path)]


def _is_table(path: Path) -> bool:
    try:
        columns = _header(_text(path))[0]
    except InputError:
        try:  # a table in another encoding, of which `load` says so
            columns = _header(path.read_text(encoding="latin-1"))[0]
        except OSError:
            return False
    return any(re.fullmatch(r"image(_\d+)?", name) for name in columns) and not {*MASK_COLUMNS}.isdisjoint(columns)


def _text(path: Path) -> str:
    return re.sub(r"\Asep=.\r?\n", "\n", read_text(path))  # a line for spreadsheets


def _header(text: str) -> tuple[list[str], str]:
    """Return the columns without capitals, and their separator: that of SEPARATORS which gives most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    return [name.strip().casefold() for name in next(csv.reader([first], delimiter=separator), [])], separator


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield (line, column -> text) of every row that is not empty."""
    text = _text(path)
    columns, separator = _header(text)
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise InputError(f"{path} has the column {twice[0]} more than once")
    reader = csv.reader(text.splitlines(), delimiter=separator)
    seen = False
    try:
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if not seen:
                seen = True
                continue
            if len(values) > len(columns) and any(values[len(columns) :]):
                raise InputError(
                    f"{path}, row {reader.line_num}: {len(values)} cells for {len(columns)} columns; put a cell that "
                    f"holds {separator!r} in quotes"
                )
            yield reader.line_num, dict(zip(columns, values, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}, is not readable as CSV ({error})") from error


def _case(path: Path, number: int, row: Mapping[str, str], folder: Path) -> Case:
    numbered = sorted((name for name in row if re.fullmatch(r"image_\d+", name)), key=lambda name: int(name[6:]))
    images = [part.strip() for part in row.get("image", "").split(";") if part.strip()]
    if images and any(row[name] for name in numbered):
        raise InputError(f"{path}, row {number}: image and {numbered[0]} are both filled; use one of the two ways")
    if not images:
        if gaps := [name for name in numbered if not row[name]]:
            raise InputError(f"{path}, row {number}: {gaps[0]} is empty")
        images = [row[name] for name in numbered]
    if not images:
        raise InputError(f"{path}, row {number}: the image is empty")
    masks = [row[name] for name in MASK_COLUMNS if row.get(name)]
    label = listed_path(folder, masks[0]) if masks else None
    files = tuple(listed_path(folder, image) for image in images)
    name = row.get("case") or name_of(label if label is not None else files[0])
    region = listed_path(folder, row["region"]) if row.get("region") else None
    try:
        return Case(clean_id(name), files, label, region)
    except InputError as error:
        raise InputError(f"{path}, row {number}: {error}") from None


def _fold(path: Path, number: int, text: str) -> int:
    whole = re.fullmatch(r"([+-]?\d+)(\.0*)?", text)  # spreadsheets write 1.0
    if whole is None:
        raise InputError(f"{path}, row {number}: the fold should be a whole number, but is {text!r}")
    return int(whole[1])


def _lacks(root: Path) -> str:
    if not root.is_file():
        return "holds no CSV table with the columns image and mask"
    first = ", ".join(_header(_text(root))[0])
    return f"has no columns image and mask: its first row, which should name the columns, is {first or 'empty'}"
