"""Read a plain folder: images in one subfolder and masks in another, paired by name."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from voxloss.data.formats.slices import is_stack
from voxloss.data.layouts.listing import Found, Listing, add_channel, complete
from voxloss.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    assign,
    by_name,
    is_volume,
    named,
    subfolders,
    volumes,
)
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of

# Endings of files that lie beside images and are none.
NOT_IMAGES = {"", ".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".yaml", ".yml", ".xml", ".html", ".pdf", ".docx",
              ".xlsx", ".log", ".py", ".sh", ".db", ".ini", ".zip", ".md5"}  # fmt: skip


def matches(root: Path) -> bool:
    """Return whether a folder has a subfolder for images and one for masks, by their names."""
    return bool(named(root, IMAGE_FOLDERS) and named(root, MASK_FOLDERS))


def load(root: Path, images: str | None = None, masks: str | None = None, slices: bool = False) -> Listing:
    """List the cases of ROOT/images and ROOT/masks (or labels, img, seg, …), paired by name.

    An image of several channels is one file with a channel axis, or files NAME_0000, NAME_0001, ... for the mask NAME,
    or NAME_t1, NAME_flair, ... images and masks: the subfolders, if their names are others or several fit. slices:
    whether a volume is a folder of pictures. Raises InputError if there is no such subfolder, or several fit. A fault:
    an image without a mask, a mask without an image, a case with other channels than most.
    """
    image_folder = _subfolder(root, images, IMAGE_FOLDERS, "images", "images")
    mask_folder = _subfolder(root, masks, MASK_FOLDERS, "masks", "labels or masks")
    found, unlabelled, notes = pair_folders(image_folder, mask_folder, slices=slices)
    if not found and not unlabelled:
        if slices:
            raise InputError(f"{image_folder} holds no folder of pictures, which data.options.slices makes a volume")
        deeper = _deeper(image_folder, mask_folder) or "".join(f"; {note}" for note in notes[:1])
        raise InputError(f"{image_folder} holds no images in a format that voxloss reads{deeper}")
    others = [path for path in subfolders(root) if path not in (image_folder, mask_folder) and volumes(path, slices)]
    if others:
        names = ", ".join(path.name for path in others)
        notes.append(f"images are those in {image_folder.name} and masks those in {mask_folder.name}, none in {names}")
    cases, faults = complete(found, images=image_folder)
    faults = [(name, f"{path} has no mask of the same name in {mask_folder}") for name, path in unlabelled] + faults
    return Listing(root.resolve().name, cases, faults=faults, notes=notes)


def _deeper(images: Path, masks: Path) -> str:
    """Say what lies in the folders of a folder without images of its own, and how to use it."""
    inner = [path for path in subfolders(images) if volumes(path)]
    if not inner:
        return ""
    names = ", ".join(path.name for path in inner[:5]) + (f" and {len(inner) - 5} more" if len(inner) > 5 else "")
    patterns = f'{{image: "{images.name}/*/*", label: "{masks.name}/*/*"}}'
    found = f" but in its folders ({names})"
    if not all(map(is_stack, inner)):
        return f"{found}; name them by patterns: --data.options '{patterns}'"
    return (
        f"{found}; where each of these is a volume with a picture for each slice: --data.options '{{slices: true}}'; "
        f"where each picture is a case: --data.options '{patterns}'"
    )


def _subfolder(root: Path, name: str | None, names: Iterable[str], option: str, wanted: str) -> Path:
    if name is not None:
        if not isinstance(name, str) or not (root / name).is_dir():
            raise InputError(f"data.options.{option} names {name!r}, but {root} has no such folder")
        return root / name
    fitting = named(root, names)
    if len(fitting) > 1:
        several = " and ".join(path.name for path in fitting)
        raise InputError(
            f"{root} has {several}, any of which may hold the {option}; name one: --data.options '{{{option}: "
            f"{fitting[0].name}}}' (another may be the data.options.region_of_interest)"
        )
    if not fitting:
        raise InputError(f"{root} has no folder {wanted}; your data folder needs `images/` and `labels/` or `masks/`")
    return fitting[0]


def pair_folders(
    images: Path, masks: Path, ending: str = "", slices: bool = False
) -> tuple[list[Found], list[tuple[str, Path]], list[str]]:
    """Pair the images of one folder with the masks of another by name, of files with this ending alone.

    slices: whether a volume is a folder of pictures.

    Returns:
        The cases, with the sets of their channels as they are; (name, file) of images without a mask; notes on files
        that are not read.
    """
    image_files, mask_files = (
        by_name(path for path in volumes(folder, slices) if path.name.lower().endswith(ending.lower()))
        for folder in (images, masks)
    )
    assigned, ids = assign(image_files, mask_files)
    channels: dict[str, dict[str, Path]] = {name: {} for name in mask_files}
    for name, (mask, channel) in assigned.items():
        add_channel(channels[mask], channel, image_files[name])
    unlabelled = [(name, path) for name, path in image_files.items() if name not in assigned]
    found = [Found(ids[name], channels[name], mask_files[name]) for name in mask_files]
    return found, unlabelled, [note for folder in (images, masks) for note in _unread(folder)]


def _unread(folder: Path) -> list[str]:
    """Return a note on files that may be images in a format that is not read."""
    endings = Counter(
        path.suffix.lower()
        for path in folder.iterdir()
        if not path.name.startswith(".") and not is_volume(path) and path.is_file()
    )
    others = {ending: count for ending, count in endings.items() if ending not in NOT_IMAGES}
    if not others:
        return []
    text = ", ".join(f"{count} × {ending}" for ending, count in sorted(others.items()))
    return [f"{count_of(sum(others.values()), 'file')} in {folder} of other formats are not read: {text}"]
