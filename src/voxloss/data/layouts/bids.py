"""BIDS: images of sub-*/[ses-*/]anat, and masks in derivatives/**/sub-* (Gorgolewski et al. 2016)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from voxloss.data.layouts.listing import Found, Listing, add_channel, complete
from voxloss.data.layouts.names import MASK_WORDS, name_of, subfolders, volumes
from voxloss.utilities.errors import InputError

DATA_TYPES = ("anat", "dwi", "perf", "pet", "ct")  # the first that a data set has; others are no pictures to segment
DEEPEST = 3  # folders between derivatives and sub-*


def matches(root: Path) -> bool:
    """Return whether a folder has subjects and derivatives with masks of subjects."""
    return root.is_dir() and bool(_masks(root))


def load(root: Path, suffixes: Sequence[str] = ()) -> Listing:
    """List the sessions of a BIDS data set that have a mask in derivatives.

    A case is a session of a subject. Its channels are the images of its `anat` folder (without one of `dwi`, ...), in
    the raw data or, if these have none, in derivatives. Sessions of one subject are kept together. A fault: several
    masks of a session, a mask without an image, other channels than most.

    Args:
        root: The data set's folder.
        suffixes: The channels by the last word of their names, such as ["T1w", "FLAIR"]; empty: all.

    Raises:
        InputError: There is no subject with a mask, or no image has one of the suffixes.
    """
    masks = _masks(root)
    if not masks:
        raise InputError(f"{root} has no masks of subjects (sub-*_mask, sub-*_dseg) in derivatives, as BIDS has them")
    images = _images(root, masks)
    wanted = [suffixes] if isinstance(suffixes, str) else list(suffixes)
    faults, found, patients = [], [], {}
    for case_id, files in sorted(masks.items()):
        if len(files) > 1:
            several = " and ".join(str(path.relative_to(root)) for path in files[:2])
            sentence = (
                f"{case_id} has several masks, such as {several}; choose by patterns, such as --layout pairs "
                f'--data.options \'{{image: "sub-*/anat/*_T1w.nii.gz", label: "derivatives/…/*_mask.nii.gz"}}\''
            )
            faults.append((case_id, sentence))
            continue
        channels: dict[str, Path] = {}
        for path in images.get(case_id, []):
            if not wanted or name_of(path).split("_")[-1] in wanted:
                add_channel(channels, _channel(path), path)
        found.append(Found(case_id, channels, files[0]))
        patients[case_id] = case_id.split("_")[0]
    for suffix in wanted:
        if not any(name.split("_")[-1] == suffix for one in found for name in one.channels):
            raise InputError(f"no image of {root} has the suffix {suffix!r} of data.options.suffixes")
    order = sorted(
        {name for one in found for name in one.channels},
        key=lambda name: (wanted.index(name.split("_")[-1]) if wanted else 0, name),
    )
    cases, others = complete(found, order)
    return Listing(root.resolve().name, cases, faults=[*faults, *others], patients=patients)


def _subjects(root: Path) -> list[Path]:
    return [folder for folder in subfolders(root) if re.fullmatch(r"sub-[^_]+", folder.name)]


def _derived(root: Path) -> list[Path]:
    """Return the folders of subjects in derivatives, whatever the pipelines are called."""
    parents, found = [root / "derivatives"] if (root / "derivatives").is_dir() else [], []
    for _ in range(DEEPEST):
        found += [folder for parent in parents for folder in _subjects(parent)]
        parents = [inner for parent in parents for inner in subfolders(parent) if not inner.name.startswith("sub-")]
    return found


def _files(folder: Path) -> Iterator[Path]:
    yield from volumes(folder)
    for inner in subfolders(folder):
        yield from _files(inner)


def _case_id(path: Path) -> str | None:
    """Return the entities of subject and session in a file's name."""
    match = re.match(r"(sub-[^_]+)(?:_(ses-[^_]+))?", name_of(path))
    return None if match is None else "_".join(part for part in match.groups() if part)


def _masks(root: Path) -> dict[str, list[Path]]:
    masks: defaultdict[str, list[Path]] = defaultdict(list)
    for subject in _derived(root):
        for path in _files(subject):
            if (case_id := _case_id(path)) is not None and _is_mask(path):
                masks[case_id].append(path)
    for case_id, files in masks.items():  # pipelines write masks of the brain beside those that somebody drew
        masks[case_id] = [path for path in files if "desc-brain_" not in path.name] or files
    return masks


def _is_mask(path: Path) -> bool:
    return name_of(path).split("_")[-1].casefold() in MASK_WORDS


def _images(root: Path, masks: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return case id -> images, of the first place and data type in which a case with a mask has any."""
    for subjects in (_subjects(root), _derived(root)):
        files = [path for subject in subjects for path in _files(subject) if not _is_mask(path)]
        for data_type in (*DATA_TYPES, None):
            images: defaultdict[str, list[Path]] = defaultdict(list)
            for path in files:
                if data_type in (None, path.parent.name) and (case_id := _case_id(path)) in masks:
                    images[str(case_id)].append(path)
            if images:
                return images
    return {}


def _channel(path: Path) -> str:
    """Return a name without the entities of subject and session, such as acq-highres_T1w."""
    return re.sub(r"^sub-[^_]+_(ses-[^_]+_)?", "", name_of(path))
