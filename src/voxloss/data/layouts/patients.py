"""Read a folder for each patient (or scan), with the mask beside its images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from voxloss.data.layouts import folder
from voxloss.data.layouts.listing import Found, Listing, add_channel, complete
from voxloss.data.layouts.names import by_name, clean_id, masks_among, subfolders, volumes, words
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import excluding


def matches(root: Path, slices: bool = False) -> bool:
    """Return whether a folder has subfolders (or these have) that hold masks and images."""
    if not root.is_dir() or folder.matches(root):  # whose two folders are not patients
        return False
    return any(_masks(by_name(volumes(scan, slices))) for scan in _scans(root, slices))


def load(root: Path, slices: bool = False) -> Listing:
    """List the cases of ROOT/PATIENT or ROOT/PATIENT/SCAN, each a folder with images and a mask.

    The mask is the file with a word such as seg, label or mask in its name. The others are channels, and what is left
    of their names after that of the folder is the channel's name, the same for all cases. Scans of one patient are
    kept together. slices: whether a volume is a folder of pictures, PATIENT/image/001.png and PATIENT/mask/001.png.
    A fault: a folder with no mask or several, or with other channels than most. Raises InputError if no folder holds an
    image and a mask.
    """
    found, faults, patients = [], [], {}
    named: list[str] = []  # what the masks are called
    for scan in _scans(root, slices):
        parts = scan.relative_to(root).parts
        case_id = clean_id("/".join(parts))
        files = by_name(volumes(scan, slices))
        masks = _masks(files)
        if len(masks) != 1:
            fault = f"has several masks ({', '.join(masks)})" if masks else "has no file named like a mask"
            faults.append((case_id, f"{scan} {fault}; {WAYS}: {excluding([case_id])}"))
            continue
        (mask,) = masks
        images: dict[str, Path] = {}
        for name, path in files.items():
            if name != mask:
                add_channel(images, _channel(name, parts), path)
        found.append(Found(case_id, images, files[mask]))
        if (name := _channel(mask, parts)) not in named:
            named.append(name)
        if len(parts) > 1:
            patients[case_id] = parts[0]
    if not any(one.channels for one in found):
        first = f": {faults[0][1]}" if faults else ""
        raise InputError(f"{root} has no folder with images and one mask for each case{first}")
    cases, others = complete(found)
    notes = [_understood(one, named) for one in found if cases and one.case_id == cases[0].case_id]
    return Listing(root.resolve().name, cases, faults=[*faults, *others], notes=notes, patients=patients)


WAYS = (
    'name the files by patterns, such as --data.options \'{image: "*/t1.nii.gz", label: "*/seg.nii.gz"}\', or leave '
    "the case out"
)


def _understood(one: Found, masks: Sequence[str]) -> str:
    """Say which files are channels, in their order, and which the mask, since only their names tell."""
    names = [name or one.channels[name].name for name in sorted(one.channels)]
    images = f"the image is {names[0]}" if len(names) == 1 else f"the channels are {', '.join(names)}"
    return f"by the files' names, {images}, and the mask is {' or '.join(masks)}"


def _scans(root: Path, slices: bool) -> Iterator[Path]:
    for patient in subfolders(root):
        if volumes(patient, slices):
            yield patient
        else:
            yield from (scan for scan in subfolders(patient) if volumes(scan, slices))


def _masks(files: dict[str, Path]) -> list[str]:
    return list(masks_among(files)) if len(files) > 1 else []


def _channel(name: str, folders: tuple[str, ...]) -> str:
    """Return a file's name without the words of the folders that it is in, which are those of its case."""
    of_case = {word for folder in folders for word in words(folder)}
    return "_".join(word for word in words(name) if word not in of_case)
