"""Read images and masks that lie beside each other, told apart by words of their names or by patterns."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from voxloss.data.layouts.listing import Found, Listing, add_channel, complete
from voxloss.data.layouts.names import assign, by_name, clean_id, is_volume, masks_among, name_of, volumes, walk
from voxloss.utilities.errors import InputError


def matches(root: Path, slices: bool = False) -> bool:
    """Return whether a folder holds a mask beside an image of the same case, by their names."""
    if not root.is_dir():
        return False
    files = volumes(root, slices)
    try:
        return any(one.channels for one in _found(files)[0])
    except InputError:  # two masks of a case, which `load` names
        return True


def load(root: Path, image: str | list[str] | None = None, label: str | None = None, slices: bool = False) -> Listing:
    """List the cases of a folder in which CASE_image lies beside CASE_label (or _mask, _seg, …).

    Args:
        root: The folder.
        image: Pattern of the images, such as "*_t1.nii.gz", or a list with one for each channel. "*" stands for the
            case. A pattern with "/" is relative to `root`; one without is looked for in all subfolders too.
        label: Pattern of the masks. Both patterns are needed, or none.
        slices: Whether a volume is a folder of pictures, which the patterns name then.
    """
    if image is None and label is None:
        found, unlabelled = _found(volumes(root, slices))
        if not any(one.channels for one in found):
            raise InputError(f"{root} holds no mask beside an image, such as a_image.nii.gz and a_label.nii.gz")
        order: Sequence[str] = ()
    elif image is None or label is None:
        missing, given = ("image", "label") if image is None else ("label", "image")
        raise InputError(f"data.options.{given} needs data.options.{missing} too: a pattern such as '*_{missing}'")
    else:
        order = list(image) if isinstance(image, list | tuple) else [image]
        found, unlabelled = _by_patterns(root, order, label, slices)
    cases, faults = complete(found, order)
    faults += [(name, f"{path} has no mask of the same name") for name, path in unlabelled]
    return Listing(root.resolve().name, cases, faults=faults)


def _found(files: Sequence[Path]) -> tuple[list[Found], list[tuple[str, Path]]]:
    """Return the cases among files that lie together, and (name, file) of images without a mask."""
    paths = by_name(files)
    masks: dict[str, Path] = {}
    names = masks_among(paths)
    for name, shorter in names.items():
        other = masks.setdefault(shorter, paths[name])
        if other != paths[name]:
            raise InputError(
                f"{other} and {paths[name].name} may both be the mask of {shorter}; name one by patterns, such as "
                '--data.options \'{image: "*_image*", label: "*_seg*"}\''
            )
    images = {name: path for name, path in paths.items() if name not in names}
    assigned, _ = assign(images, masks)
    channels: dict[str, dict[str, Path]] = {name: {} for name in masks}
    for name, (mask, channel) in assigned.items():
        add_channel(channels[mask], channel, images[name])
    unlabelled = [(name, path) for name, path in images.items() if name not in assigned]
    return [Found(name, channels[name], masks[name]) for name in masks], unlabelled


def _by_patterns(
    root: Path, images: Sequence[str], label: str, slices: bool
) -> tuple[list[Found], list[tuple[str, Path]]]:
    for pattern in (*images, label):
        if not isinstance(pattern, str) or not pattern.strip():
            raise InputError(f"a pattern of data.options should be text such as '*_t1.nii.gz', but is {pattern!r}")
    files = [path for path in walk(root, slices) if is_volume(root / path, slices)]
    masks = matching(files, label)
    if not masks:
        raise InputError(f"no image file in {root} has a name like data.options.label {label!r}{_examples(files)}")
    deep = len({*masks.values()}) < len(masks) or not all(masks.values())  # "*" does not tell the cases apart
    keys = {path: _key(path, star, deep) for path, star in masks.items()}
    rest = [path for path in files if path not in masks]
    channels: dict[str, dict[str, Path]] = {key: {} for key in keys.values()}
    unlabelled = []
    for pattern in images:
        fitting = matching(rest, pattern)
        if not fitting:
            raise InputError(f"no image file in {root} has a name like data.options.image {pattern!r}{_examples(rest)}")
        for path, star in fitting.items():
            key = _key(path, star, deep)
            if key not in channels:
                unlabelled.append((clean_id(key), root / path))
            else:
                add_channel(channels[key], pattern, root / path)
    name = root.resolve().name  # of the only case of a folder
    return [Found(clean_id(keys[path]) or name, channels[keys[path]], root / path) for path in masks], unlabelled


def matching(files: Sequence[Path], pattern: str) -> dict[Path, str]:
    """Return file -> the text that "*" stands for in the pattern."""
    text = re.escape(unicodedata.normalize("NFC", pattern)).replace(r"\*\*/", "(?:.*/)?")
    expression = re.compile(text.replace(r"\*", "([^/]*)").replace(r"\?", "[^/]"), re.IGNORECASE)
    found = {}
    for path in files:
        whole = path if "/" in pattern else Path(path.name)
        for one in (whole.parent / name_of(whole), whole):  # a pattern may leave the ending out
            name = unicodedata.normalize("NFC", one.as_posix())
            if (match := expression.fullmatch(name)) is not None:
                found[path] = "_".join(dict.fromkeys(part.strip("_-. ") for part in match.groups() if part))
                break
    return found


def _key(path: Path, star: str, deep: bool) -> str:
    """Return what tells a case from others: the text of "*", where needed after the folders that the file is in."""
    return "/".join([*path.parent.parts, *([star] if star else [])]) if deep else star


def _examples(files: Sequence[Path]) -> str:
    return f"; there are {', '.join(path.as_posix() for path in files[:3])}" if files else "; it holds no images"
