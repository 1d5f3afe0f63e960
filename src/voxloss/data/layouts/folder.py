"""Read a plain folder: ROOT/images and ROOT/masks, paired by file name."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.classes import ClassValues, declared_classes, found_classes
from voxloss.data.dataset import Dataset, without_excluded
from voxloss.data.formats import is_image, stem
from voxloss.utilities.errors import InputError


def load(
    root: Path,
    classes: ClassValues | None = None,
    ignore: int | Iterable[int] | None = None,
    exclude: Collection[str] = (),
) -> Dataset:
    """List the cases of ROOT/images and ROOT/masks, paired by name up to .nii or .nii.gz.

    An image of several channels is one four-dimensional file, or files NAME_0000, NAME_0001, ... for the mask NAME.
    classes: name -> value in the masks, or several, in the order wanted; by default every value found in the masks is
    a class ("class 1", ...), which reads them all. ignore: value, or values, of voxels that count in no loss and no
    score. exclude: ids to leave out. Raises InputError naming an image without a mask, a mask without an image, a gap
    in the channels, or a case with more or fewer channels than the others.
    """
    root = Path(root)
    for name in ("images", "masks"):
        if not (root / name).is_dir():
            raise InputError(f"{root} has no folder {name}; your data folder needs `images/` and `masks/`")
    cases, unpaired = pair_by_name(root / "images", root / "masks")
    cases, dropped = without_excluded(cases, exclude)
    without_mask = {path: {stem(path), re.sub(r"_\d{4}$", "", stem(path))} & {*exclude} for path in unpaired}
    for path, excluded in without_mask.items():
        if not excluded:
            raise InputError(f"{path} has no mask of the same name in {root / 'masks'}")
    dropped += tuple((name, "excluded by the settings") for name in sorted(set().union(*without_mask.values())))
    for case in cases:
        if not case.images:
            raise InputError(f"{case.label} has no image of the same name in {root / 'images'}")
        if len(case.images) != len(cases[0].images):
            raise InputError(
                f"case {case.case_id} has {len(case.images)} image files, but {cases[0].case_id} has "
                f"{len(cases[0].images)}"
            )
    if not cases and not dropped:
        raise InputError(f"{root / 'images'} holds no .nii or .nii.gz files")
    names, label_values = declared_classes(classes, ignore) if classes else found_classes(cases, ignore)
    return Dataset(root.resolve().name, cases, names, label_values, dropped)


def pair_by_name(images: Path, masks: Path) -> tuple[tuple[Case, ...], list[Path]]:
    """Pair the images of one folder with the masks of another by name, and list the images without a mask.

    A mask's name decides: scan_0001 is the single image of a mask scan_0001, and the second channel of a mask scan.
    A mask without an image gives a case without images.
    """
    labels = _by_stem(masks)
    channels: dict[str, dict[int, Path]] = {name: {} for name in labels}
    unlabelled = []
    for name, path in _by_stem(images).items():
        numbered = re.fullmatch(r"(.+)_(\d{4})", name)
        if name in labels:
            channels[name][-1] = path  # a plain name; it cannot stand beside numbered channels
        elif numbered and numbered[1] in labels:
            channels[numbered[1]][int(numbered[2])] = path
        else:
            unlabelled.append(path)
    return tuple(Case(name, _in_order(channels[name]), labels[name]) for name in sorted(labels)), unlabelled


def _in_order(channels: dict[int, Path]) -> tuple[Path, ...]:
    numbers = sorted(channels)
    if numbers not in ([-1], list(range(len(numbers)))):
        names = ", ".join(channels[number].name for number in numbers)
        raise InputError(
            f"{channels[numbers[0]].parent} has {names} for one case; channels count from 0000 without gap"
        )
    return tuple(channels[number] for number in numbers)


def _by_stem(folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_image(path):
            if stem(path) in paths:
                raise InputError(
                    f"{path} and {paths[stem(path)].name} have the same name; rename or remove one of them"
                )
            paths[stem(path)] = path
    return paths
