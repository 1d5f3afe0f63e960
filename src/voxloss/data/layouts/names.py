"""Names of files: which are volumes, which words they are made of, and which image belongs to which mask."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from voxloss.data.formats import PICTURES, ending_of, is_image, stem
from voxloss.data.formats.slices import is_stack
from voxloss.utilities.errors import InputError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scans", "volumes")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "segmentations", "segmentation", "segs", "seg", "annotations", "gt",
    "ground_truth", "groundtruth", "1st_manual", "manual",
)  # fmt: skip

# Words in the name of a mask beside its image. Names of structures are among them that people call a mask.
MASK_WORDS = {
    "mask", "masks", "msk", "label", "labels", "seg", "segm", "dseg", "segmentation", "gt", "gtv", "truth",
    "groundtruth", "annotation", "annotations", "manual", "manual1", "lesion", "lesions", "tumor", "tumour", "roi",
}  # fmt: skip

MOST_FILES = 5000  # that are looked at to say what a folder holds
DEEPEST = 7


def is_volume(path: Path, slices: bool = False) -> bool:
    """Return whether a visible path is a volume that voxloss reads: a file by its name, or the folder of a series.

    Args:
        path: The path.
        slices: Whether a folder of pictures is a volume, and no picture by itself is one.
    """
    if slices and is_stack(path):
        return True
    return is_image(path) and not (slices and ending_of(path) in PICTURES)


def volumes(folder: Path, slices: bool = False) -> list[Path]:
    """Return the visible volumes of a folder, by name; `slices` as for `is_volume`."""
    return sorted(path for path in folder.iterdir() if is_volume(path, slices))


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders of a folder, by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def named(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the folders in a folder with one of the names, whatever their capitals."""
    wanted = {name.casefold() for name in names}
    return [path for path in subfolders(folder) if path.name.casefold() in wanted] if folder.is_dir() else []


def walk(root: Path, slices: bool = False) -> Iterator[Path]:
    """Yield the visible files of a folder and its subfolders, at most `MOST_FILES`, as paths relative to it.

    The folder of a DICOM series counts as a file, and with `slices` a folder of pictures.
    """
    count = 0
    seen = set[str]()  # folders that links lead to again
    for folder, inner, files in os.walk(root, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(place)
        relative = Path(folder).relative_to(root)
        visible = sorted(name for name in inner if not name.startswith("."))
        series = [name for name in visible if _is_whole(Path(folder) / name, slices)]
        visible = [name for name in visible if name not in series]
        files += series
        inner[:] = visible if len(relative.parts) < DEEPEST else []
        for name in sorted(files):
            if not name.startswith("."):
                yield relative / name
                count += 1
                if count == MOST_FILES:
                    return


def _is_whole(folder: Path, slices: bool) -> bool:
    """Return whether a folder is an image. One with a DICOM segmentation beside other images is a patient's."""
    if slices and is_stack(folder):
        return True
    return is_image(folder) and not any(
        (path.is_dir() and is_image(path)) or ending_of(path) not in ("", ".dcm")
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )


def clean_id(name: str) -> str:
    """Return a name as a case's id: composed Unicode, and "_" for the separators of folders."""
    return unicodedata.normalize("NFC", name).replace("/", "_").replace("\\", "_").strip()


def name_of(path: Path) -> str:
    """Return the name of a volume without its ending, in composed Unicode (macOS writes decomposed names)."""
    return unicodedata.normalize("NFC", stem(path))


def words(text: str) -> tuple[str, ...]:
    """Split a name, or a relative path, into its words without capitals."""
    parts = re.split(r"[\s_\-.,/\\]+", unicodedata.normalize("NFC", text).casefold())
    return tuple(part for part in parts if part)


def masks_among(names: Iterable[str]) -> dict[str, str]:
    """Return the names of masks among those of files that lie together -> the name without the word that says so.

    A word that all names have tells nothing: in lesion_1_image and lesion_1_label only "label" does.
    """
    split = {name: words(name) for name in names}
    telling = {word for word in MASK_WORDS if not all(word in own for own in split.values())}
    return {name: _without(name, telling) for name, own in split.items() if not telling.isdisjoint(own)}


def _without(name: str, unwanted: set[str]) -> str:
    """Return a name without some of its words and the separators before them."""
    parts = re.split(r"([\s_\-.]+)", name)
    kept = "".join(
        separator + word
        for separator, word in zip(["", *parts[1::2]], parts[::2], strict=True)
        if word.casefold() not in unwanted
    )
    return kept.strip("_-. ") or name


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return name -> file. Raises InputError if two files have one name, such as a.nii and a.nii.gz."""
    named_so: dict[str, Path] = {}
    for path in paths:
        other = named_so.setdefault(name_of(path), path)
        if other != path:
            raise InputError(f"{path} and {other.name} have the same name; rename or remove one of them")
    return named_so


def assign(images: Mapping[str, Path], masks: Iterable[str]) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Find the mask of each image by their names.

    Four ways are tried; the first by which any image has a mask holds for all: the image has the mask's name, or that
    and a channel's number (scan_0001 is the only image of a mask scan_0001, and the second channel of a mask scan); the
    same whatever the capitals; the image's name begins or ends with that of the mask (scan_t1 of scan); and the same
    after the words that all masks have in common are removed (21_training of 21_manual1).

    Args:
        images: Name -> file of the images.
        masks: The names of the masks.

    Returns:
        Image's name -> (mask's name, channel), and mask's name -> case id.
    """
    masks = list(masks)
    if not masks:
        return {}, {}
    ids = {name: name for name in masks}
    for keys in ({name: name for name in masks}, _without_capitals(masks)):
        found = {name: one for name in images if (one := _same_name(name, keys)) is not None}
        if found:
            return found, ids
    for shorter in (ids, without_common_words(masks)):
        mask_words = {words(short): mask for mask, short in shorter.items()}
        if len(mask_words) == len(masks) and () not in mask_words:
            found = {name: one for name in images if (one := _beginning(name, mask_words)) is not None}
            if found:
                return found, shorter
    return {}, ids


def _same_name(name: str, masks: Mapping[str, str]) -> tuple[str, str] | None:
    known = masks.get(name) or masks.get(name.casefold())
    if known is not None:
        return known, ""
    numbered = re.fullmatch(r"(.+)_(\d{4})", name)
    if numbered is None:
        return None
    known = masks.get(numbered[1]) or masks.get(numbered[1].casefold())
    return None if known is None else (known, numbered[2])


def _without_capitals(masks: Sequence[str]) -> dict[str, str]:
    """Return name without capitals -> name; nothing if two masks differ in capitals alone."""
    found = {name.casefold(): name for name in masks}
    return found if len(found) == len(masks) else {}


def _beginning(name: str, masks: Mapping[tuple[str, ...], str]) -> tuple[str, str] | None:
    own = words(name)
    for length in range(len(own), 0, -1):
        for part, rest in ((own[:length], own[length:]), (own[-length:], own[:-length])):
            if part in masks:
                return masks[part], "_".join(rest)
    return None


def without_common_words(names: Sequence[str]) -> dict[str, str]:
    """Return name -> name without the words that all names begin or end with; of a single name without mask words."""
    if len(names) == 1:
        return {name: _without(name, MASK_WORDS) for name in names}
    split = {name: re.split(r"([\s_\-.]+)", name) for name in names}  # words at even places, separators between
    lists = [[part.casefold() for part in parts[::2]] for parts in split.values()]
    shortest = min(map(len, lists))
    first = next((n for n in range(shortest) if len({parts[n] for parts in lists}) > 1), shortest)
    last = next((n for n in range(shortest) if len({parts[-1 - n] for parts in lists}) > 1), shortest)
    if first == shortest or last == shortest or first + last >= shortest:
        return {name: name for name in names}
    return {name: "".join(parts[2 * first : len(parts) - 2 * last]) for name, parts in split.items()}


def owner(path: str, ids: Iterable[str]) -> str | None:
    """Return the case that a path belongs to: the longest id whose words stand in it one after another; None if none.

    Raises:
        InputError: Two ids of the same length stand in it.
    """
    own = words(path)
    best: list[str] = []
    for case_id in ids:
        wanted = words(case_id)
        if any(own[start : start + len(wanted)] == wanted for start in range(len(own) - len(wanted) + 1)):
            longest = len(words(best[0])) if best else 0
            if len(wanted) > longest:
                best = [case_id]
            elif len(wanted) == longest:
                best.append(case_id)
    if len(best) > 1:
        raise InputError(f"{path} may belong to the case {best[0]} or {best[1]}")
    return best[0] if best else None


def pattern_of(path: Path) -> str:
    """Return a relative path with N in place of numbers, to count names of one form."""
    return re.sub(r"\d+", "N", path.as_posix())
