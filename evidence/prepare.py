"""Write the data sets of the studies of this folder from the public ones, and the phantoms.

`python evidence/prepare.py KIND ... TARGET`; `--help` lists the kinds. A target that exists is kept as it is, so the
same command costs nothing a second time. No value of a voxel is changed but by `kits`, which paints images.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxloss.data.phantom import write as phantom
from voxloss.utilities.files import atomic_folder

RARE = 3  # infarct, in the masks of EMIDEC
GRID_MM = (6.0, 4.0, 4.0)  # of the phantom on the masks of KiTS19


def crop(source: Path, target: Path, size: int) -> None:
    """Cut the middle `size` x `size` voxels of every slice out of images and masks."""
    for kind in ("images", "masks"):
        (target / kind).mkdir()
        for file in volumes(source / kind):
            stored = nibabel.load(file)
            values = np.asanyarray(stored.dataobj)
            first, second = ((extent - size) // 2 for extent in values.shape[:2])
            affine = stored.affine.copy()
            affine[:3, 3] += affine[:3, :2] @ (first, second)
            middle = values[first : first + size, second : second + size]
            nibabel.save(nibabel.Nifti1Image(middle, affine), target / kind / f"{case_of(file)}.nii.gz")


def few(source: Path, target: Path, positives: int) -> None:
    """Write a table with two folds, of which `voxloss run --folds 0` trains on the second and tests on the first.

    The first has every other case with an infarct and every other one without, whatever `positives` is. Of the others,
    all without an infarct are in the second, and `positives` of those with one, always the same first ones.
    """
    masks = {case_of(file): file for file in volumes(source / "masks")}
    images = {case_of(file): file for file in volumes(source / "images")}
    ids = np.random.default_rng(0).permutation(sorted(masks)).tolist()
    with_rare = [name for name in ids if (np.asanyarray(nibabel.load(masks[name]).dataobj) == RARE).any()]
    without = [name for name in ids if name not in with_rare]
    folds = {0: [*with_rare[::2], *without[::2]], 1: [*with_rare[1::2][:positives], *without[1::2]]}
    with (target / "cases.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "image", "mask", "fold"])
        for fold, names in folds.items():
            for name in sorted(names):
                rows.writerow([name, images[name].resolve(), masks[name].resolve(), fold])


def drive(source: Path, target: Path) -> None:
    """Write the 40 photographs of DRIVE, the vessels and the fields of view as PNG, and the second reader's vessels."""
    from PIL import Image

    for kind, pattern in (
        ("images", "*/images/*.tif"),
        ("masks", "*/1st_manual/*.gif"),
        ("fov", "*/mask/*.gif"),
        ("second", "test/2nd_manual/*.gif"),
    ):
        (target / kind).mkdir()
        for file in sorted(source.glob(pattern)):
            with Image.open(file) as picture:
                if kind != "images":  # the second reader's have a palette, whose colours are not the values
                    picture = Image.fromarray(np.where(np.asarray(picture) > 0, 255, 0).astype(np.uint8))
                picture.save(target / kind / f"{file.name[:2]}.png")


def size(target: Path, fraction: float, cases: int) -> None:
    """Write phantoms whose tumour is `fraction` of 24 x 48 x 48 voxels: the smaller, the rarer."""
    setting = replace(
        phantom.SETTINGS["small"],
        slices=(24, 24),
        rows=48,
        columns=48,
        slice_spacing_mm=((0, 7.3), (1, 8.0)),  # coarser than in "small", so that the trunk still fits in
        pixel_spacing_mm=((0, 7.1), (1, 7.9)),
        tumour_fraction=((0, fraction), (1, fraction)),
    )
    for number in range(cases):
        image, label, affine = phantom.make_case(0, number, setting)
        save(target, number, image, label, affine)


def view(target: Path, slices: int, rows: int, cases: int) -> None:
    """Write phantoms with the same tumours of 79 voxels in a field of view of `slices` x `rows` x `rows` voxels."""
    whole = replace(
        phantom.SETTINGS["small"],
        slices=(48, 48),
        rows=128,
        columns=128,
        slice_spacing_mm=((0, 3.7), (1, 4.0)),
        pixel_spacing_mm=((0, 2.65), (1, 2.95)),
        tumour_fraction=((0, 1e-4), (1, 1e-4)),
    )
    for number in range(cases):
        image, label, affine = phantom.make_case(0, number, whole)
        where = np.argwhere(label == 2)
        rng = np.random.default_rng(number)
        box = []
        for axis, extent in enumerate((slices, rows, rows)):
            low, high = int(where[:, axis].min()), int(where[:, axis].max()) + 1
            first, last = max(0, high - extent), min(low, label.shape[axis] - extent)
            start = int(rng.integers(min(first, last), max(first, last) + 1))
            box.append(slice(start, start + extent))
        save(target, number, image[tuple(box)], label[tuple(box)], affine)


def kits(source: Path, target: Path) -> None:
    """Paint a CT on the kidneys and tumours of KiTS19's masks, on a coarse grid around the kidneys.

    Fat, and in an ellipse around the kidneys soft tissue; kidney and tumour as in the phantom, which differ little.
    """
    for number, file in enumerate(sorted(source.glob("case_*/segmentation.nii*"))):
        stored = nibabel.load(file)
        mask = np.asanyarray(stored.dataobj).astype(np.uint8)
        spacing = np.abs(stored.affine[:3, :3]).max(axis=0)
        zoom = [own / grid for own, grid in zip(spacing, GRID_MM, strict=True)]
        shares = [ndimage.zoom((mask == value).astype(np.float32), zoom, order=1) for value in (1, 2)]
        label = np.where(shares[1] > 0.5, 2, np.where(shares[0] + shares[1] > 0.5, 1, 0)).astype(np.uint8)
        if not (label == 2).any():
            label[np.unravel_index(shares[1].argmax(), label.shape)] = 2  # a tumour smaller than a voxel
        rng = np.random.default_rng(number)
        planes, rows, columns = np.ogrid[tuple(slice(0, extent) for extent in label.shape)]
        radius = ((rows / label.shape[1] - 0.5) / 0.36) ** 2 + ((columns / label.shape[2] - 0.5) / 0.42) ** 2
        image = np.where(radius + 0 * planes < 1, 50.0, -100.0)
        image[label == 1] = rng.uniform(150, 190)
        image[label == 2] = rng.uniform(75, 115)
        image = ndimage.gaussian_filter(image, (0.3, 0.5, 0.5)) + rng.normal(0, 15, image.shape)
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -GRID_MM[0], -GRID_MM[1], -GRID_MM[2], 1
        save(target, number, image, label, affine)


def save(target: Path, number: int, image: NDArray[np.generic], label: NDArray[np.uint8], affine: NDArray) -> None:
    """Write one case in the layout `folder`."""
    for kind, values in (("images", image.astype(np.int16)), ("masks", label)):
        (target / kind).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), target / kind / f"case_{number:03d}.nii.gz")


def volumes(folder: Path) -> Iterator[Path]:
    """The volumes of a folder, compressed or not."""
    return iter(sorted([*folder.glob("*.nii"), *folder.glob("*.nii.gz")]))


def case_of(file: Path) -> str:
    """The name of a volume's file without its endings."""
    return file.name.split(".")[0]


KINDS: dict[str, tuple[Callable[..., None], Sequence[tuple[str, type]], bool]] = {
    "crop": (crop, (("size", int),), True),
    "few": (few, (("positives", int),), True),
    "drive": (drive, (), True),
    "kits": (kits, (), True),
    "size": (size, (("fraction", float), ("cases", int)), False),
    "view": (view, (("slices", int), ("rows", int), ("cases", int)), False),
}


def main() -> None:
    """Write one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, (function, arguments, has_source) in KINDS.items():
        kind = kinds.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        if has_source:
            kind.add_argument("source", type=Path)
        kind.add_argument("target", type=Path)
        for argument, convert in arguments:
            kind.add_argument(argument, type=convert)
    values = vars(parser.parse_args())
    function, target = KINDS[values.pop("kind")][0], values.pop("target")
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as partial:
        function(target=partial, **values)


if __name__ == "__main__":
    main()
