"""The result of reading a layout: cases, their classes, and what else the data say of themselves."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxloss.data.case import Case
from voxloss.data.classes import ClassValues
from voxloss.data.folds import OwnFolds
from voxloss.data.layouts.names import clean_id
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import excluding


@dataclass(frozen=True)
class Listing:
    """The cases of a folder, before the settings leave some out and name their classes.

    Args:
        name: The data set's name.
        cases: The cases; their files need not exist.
        classes: The classes that the layout knows, name -> value or values; None: those found in the masks.
        dropped: (Case id, reason) of what is on disk but cannot be used.
        faults: (Case id, sentence) of what may be a mistake: an error, unless the settings leave the case out.
        value_hints: Undeclared value -> what probably went wrong.
        own_folds: The folds that the data come with.
        patients: The patient of each case whose patient the data tell.
        notes: Sentences on how the files were understood.
    """

    name: str
    cases: Sequence[Case]
    classes: ClassValues | None = None
    dropped: Sequence[tuple[str, str]] = ()
    faults: Sequence[tuple[str, str]] = ()
    value_hints: dict[int, str] = field(default_factory=dict)
    own_folds: OwnFolds | None = None
    patients: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """The files of one case by name: its images by channel, and its mask."""

    case_id: str
    channels: dict[str, Path]
    label: Path


def add_channel(channels: dict[str, Path], name: str, path: Path) -> None:
    """Add an image to the channels of a case. Raises InputError if there is one of this name."""
    other = channels.setdefault(name, path)
    if other != path:
        which = f"the image {name!r}" if name else "the image"
        raise InputError(
            f"{other} and {path} may both be {which} of one case; name the files by patterns (data.options image and "
            "label), or remove one"
        )


def complete(
    found: Sequence[Found], order: Sequence[str] = (), images: Path | None = None
) -> tuple[tuple[Case, ...], list[tuple[str, str]]]:
    """Return the cases that have the same channels as most, and (id, sentence) of the others.

    Args:
        found: The files of every case.
        order: The order of the channels; those that it does not name follow by name.
        images: The folder of the images, for the sentence about a mask without an image.
    """
    sets = Counter(frozenset(one.channels) for one in found if one.channels and not _has_gap(one))
    usual = max(sets, key=lambda names: (sets[names], len(names))) if sets else frozenset()
    places = {name: place for place, name in enumerate(order)}
    cases, faults = [], []
    for one in sorted(found, key=lambda one: one.case_id):
        names = sorted(one.channels, key=lambda name: (places.get(name, len(places)), name))
        if not names:
            where = f" in {images}" if images is not None else ""
            way = f"add it, or leave the case out: {excluding([one.case_id])}"
            faults.append((one.case_id, f"{one.label} has no image of the same name{where}; {way}"))
        elif _has_gap(one):
            listed = ", ".join(one.channels[name].name for name in names)
            folder = one.channels[names[0]].parent
            faults.append((one.case_id, f"{folder} has {listed} for one case; channels count from 0000 without gap"))
        elif set(names) != usual:
            faults.append((one.case_id, _difference(one, usual)))
        else:
            cases.append(Case(clean_id(one.case_id), tuple(one.channels[name] for name in names), one.label))
    return tuple(cases), faults


def _has_gap(one: Found) -> bool:
    """Return whether numbers of channels do not count from 0000, or stand beside an image without a number."""
    names = sorted(one.channels)
    numbered = any(re.fullmatch(r"\d{4}", name) for name in names)
    return numbered and names != [f"{number:04}" for number in range(len(names))]


def _difference(one: Found, usual: frozenset[str]) -> str:
    lacking, further = sorted(usual - set(one.channels)), sorted(set(one.channels) - usual)
    parts = [f"lacks {_channels(lacking)}, which most cases have"] if lacking else []
    parts += [f"has {_channels(further)}, which most cases lack"] if further else []
    return f"case {one.case_id} ({next(iter(one.channels.values())).parent}) {' and '.join(parts)}"


def _channels(names: Sequence[str]) -> str:
    shown = [repr(name) if name else "of the mask's own name" for name in names]
    return f"the {'image' if len(names) == 1 else 'images'} {' and '.join(shown)}"


def read_text(path: Path) -> str:
    """Read a text in UTF-8, or with a byte order mark in UTF-16. Raises InputError if it is none."""
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not readable as text in UTF-8 ({error.reason} at byte {error.start}); save it in UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path} is not readable ({error.strerror})") from error


def read_json(path: Path) -> Any:
    """Read a JSON file, as `read_text`. Raises InputError if it is none."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        comma = isinstance(error, json.JSONDecodeError) and re.search(r",\s*$", text[: error.pos].rstrip("]}"))
        hint = "; remove the comma before the closing bracket" if comma else ""
        raise InputError(f"{path} is not readable JSON ({error}){hint}") from error


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):  # the last value of a name would count, and nobody would notice
        name = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"the name {name!r} is given twice")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object as `read_json` does. Raises InputError if it is something else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} should be a JSON object, but is a {type(content).__name__}")
    return content


def listed_path(base: Path, text: str) -> Path:
    r"""Return the file that a list names, relative to `base`; Windows's `\` separates folders unless a file has it."""
    path = base / text
    if "\\" in text and not path.exists():
        path = base / text.replace("\\", "/")
    return path


def folds_by_number(source: str, folds: Mapping[str, int]) -> tuple[OwnFolds | None, list[str]]:
    """Return the folds of cases with their numbers, and a note if these do not count from 0; None without any."""
    if not folds:
        return None, []
    numbers = sorted({*folds.values()})
    parts = tuple(tuple(case_id for case_id, own in folds.items() if own == number) for number in numbers)
    notes = []
    if numbers != list(range(len(numbers))):
        text = ", ".join(map(str, numbers))
        notes.append(f"the folds {text} of {source} are the folds 0 to {len(numbers) - 1} of a study, in this order")
    return OwnFolds(source, parts), notes
