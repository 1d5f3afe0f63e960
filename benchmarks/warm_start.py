"""Whether a loss improves what it is made for, over going on with Dice + cross entropy.

    python benchmarks/warm_start.py --prepare ../shared/data --data cases     # once: EMIDEC and DRIVE as arrays
    python benchmarks/warm_start.py --data cases --output rows.csv --seeds 5 --processes 2

A small U-Net is trained with Dice + cross entropy (EMIDEC: 1200 steps, DRIVE: 300), and from its weights 300 steps more
with each loss, on the same batches; "from scratch" are runs of all these steps with the loss from the first step on.
Everything of a seed (the division of EMIDEC into training and test cases, the first weights, the batches) is the same
for all losses, so that differences between losses of a seed are paired. Learning rates and settings are the same for
all, tuned for none: losses have their defaults, and those that their papers add to others are added with a weight of 1
unless it is written below.

EMIDEC: 100 volumes of the heart, 60 of them to train with; infarct and microvascular obstruction are the rare
structures; cut to 128 x 128 pixels and to at most 8 slices, of which a batch has eight of any cases. Maps are those of
whole volumes. Network (8 filters), rate and steps were chosen with Dice + cross entropy alone, on 12 of the training
cases of a division that no seed has: the shortest start that finds about half of the lesions, in steps that a CPU can
do. DRIVE: the green channel of 20 photographs to train with and 20 to test.

Rows are means over the test cases, one for each loss, seed and start.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

import voxloss
from voxloss.losses.compound import set_epoch
from voxloss.training.unet import UNet

STEPS = 300
WARM = {"emidec": 1200, "drive": 300}  # after 600 steps no infarct is found
CLASSES = {"emidec": 5, "drive": 2}
PATCH = {"emidec": (1, 128, 128), "drive": (1, 192, 192)}
BATCH = {"emidec": 8, "drive": 6}
FILTERS = {"emidec": 8, "drive": 16}
RATE = {"emidec": 3e-3, "drive": 1e-3}
SPACING = {"emidec": (10.0, 1.4, 1.4), "drive": (1.0, 1.0, 1.0)}
BASE = "dice_cross_entropy"
EPOCHS = 100  # of the schedules of weights, in every training


def added(name: str, weight: float | voxloss.LinearSchedule = 1.0, **parameters: Any) -> voxloss.Loss:
    """Dice + cross entropy and another loss."""
    return voxloss.Compound([BASE, voxloss.get_loss(name, **parameters)], [1, weight])


LOSSES: dict[str, dict[str, Callable[[], Any]]] = {
    "emidec": {
        BASE: partial(voxloss.get_loss, BASE),
        "cc_dice_ce": partial(voxloss.get_loss, "cc_dice_ce"),
        "blob": partial(voxloss.get_loss, "blob"),
        # The schedule of the paper's code: 0.01, and 0.01 more in every epoch.
        "+ boundary": partial(
            added, "boundary", voxloss.LinearSchedule(0.01, 0.01 * EPOCHS, EPOCHS - 1), spacing=SPACING["emidec"]
        ),
        "ml1_ace": partial(voxloss.get_loss, "ml1_ace"),
        "+ lovasz": partial(added, "lovasz"),
        "+ hausdorff": partial(added, "hausdorff", 0.01, spacing=SPACING["emidec"]),
        "dice_topk": partial(voxloss.get_loss, "dice_topk"),
        "topk": partial(voxloss.get_loss, "topk"),
        "+ mcc": partial(added, "mcc"),
    },
    "drive": {
        BASE: partial(voxloss.get_loss, BASE),
        "skeleton_recall": partial(voxloss.get_loss, "skeleton_recall"),
        "cl_dice": partial(voxloss.get_loss, "cl_dice"),
        "+ cl_dice": partial(added, "cl_dice"),
        "+ lovasz": partial(added, "lovasz"),
    },
}
FROM_SCRATCH = {"emidec": (BASE, "cc_dice_ce"), "drive": (BASE, "skeleton_recall", "cl_dice")}
FIELDS = [
    "dataset", "start", "loss", "seed", "dice", "rare_dice", "lesion_recall", "lesion_precision", "hd95",
    "calibration_error", "cl_dice", "skeleton_recall", "components_error", "seconds", "device",
]  # fmt: skip


def prepare(source: Path, folder: Path) -> None:
    """Write emidec.npz and drive.npz: images and labels, uint8, (cases, *spatial)."""
    import nibabel
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    for path in sorted((source / "emidec" / "images").glob("*.nii.gz")):
        for into, part in ((images, path), (labels, source / "emidec" / "masks" / path.name)):
            array = np.moveaxis(np.asarray(nibabel.load(part).dataobj), 2, 0)[:, 64:192, 64:192]
            first = max(0, (len(array) - 8) // 2)
            array = array[first : first + 8]
            into.append(np.pad(array, ((0, 8 - len(array)), (0, 0), (0, 0))).astype(np.uint8))
    np.savez_compressed(folder / "emidec.npz", images=np.stack(images), labels=np.stack(labels))
    images, labels = [], []
    for part in ("training", "test"):
        for path in sorted((source / "drive" / part / "images").glob("*.tif")):
            images.append(np.asarray(Image.open(path))[..., 1])
            manual = source / "drive" / part / "1st_manual" / f"{path.name[:2]}_manual1.gif"
            labels.append((np.asarray(Image.open(manual)) > 0).astype(np.uint8))
    pad = ((0, 0), (0, 8), (0, 11))  # to multiples of 16
    arrays = {"images": np.pad(np.stack(images), pad), "labels": np.pad(np.stack(labels), pad)}
    np.savez_compressed(folder / "drive.npz", **{key: value[:, None] for key, value in arrays.items()})


def load(dataset: str, folder: Path, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train with and to test with; images (cases, 1, *spatial) of mean 0 and deviation 1."""
    with np.load(folder / f"{dataset}.npz") as arrays:
        images, labels = (torch.from_numpy(arrays[key]) for key in ("images", "labels"))
    x = images.float()
    axes = tuple(range(1, x.ndim))
    x = ((x - x.mean(axes, keepdim=True)) / x.std(axes, keepdim=True).clamp_min(1e-3))[:, None]
    order, training = torch.arange(len(x)), 20
    if dataset == "emidec":
        order, training = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)), 60
    first, last = order[:training], order[training:]
    return x[first], labels[first].long(), x[last], labels[last].long()


Cut = Callable[[Tensor], Tensor]


def batches(dataset: str, images: Tensor, seed: int) -> Iterator[Cut]:
    """What cuts a batch of random cases out of (cases, ..., *spatial), flipped at random in their slices.

    Cases are cut where they are larger than a patch.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    while True:
        parts = []
        for case in torch.randint(0, len(images), (BATCH[dataset],), generator=generator).tolist():
            begins = [
                int(torch.randint(0, length - size + 1, (1,), generator=generator))
                for length, size in zip(images.shape[2:], PATCH[dataset], strict=True)
            ]
            box = tuple(slice(begin, begin + size) for begin, size in zip(begins, PATCH[dataset], strict=True))
            flips = [axis for axis in (-1, -2) if torch.rand(1, generator=generator) < 0.5]
            parts.append((case, box, flips))
        yield partial(_cut, parts)


def _cut(parts: list[tuple[int, tuple[slice, ...], list[int]]], tensor: Tensor) -> Tensor:
    return torch.stack([tensor[(case, ..., *box)].flip(flips) for case, box, flips in parts])


def make_maps(maps: voxloss.LabelMaps, labels: Tensor) -> dict[str, Tensor]:
    """The maps of whole cases, (cases, ..., *spatial), of which batches are cut like labels."""
    each = [maps(case[None, None]) for case in labels]
    return {name: torch.cat([found[name] for found in each]) for name in each[0]}


def train(
    network: torch.nn.Module,
    loss: Any,
    cuts: Iterator[Cut],
    images: Tensor,
    labels: Tensor,
    maps: dict[str, Tensor],
    steps: int,
    rate: float,
) -> None:
    """Train in place; the learning rate falls to 0 as a polynomial."""
    device = next(network.parameters()).device
    flat = images.shape[2] == 1  # whose slice is an image
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps) ** 0.9
        set_epoch(loss, EPOCHS * step // steps)
        cut = next(cuts)
        x, y, *given = (cut(tensor).to(device) for tensor in (images, labels, *maps.values()))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(x).float()
        if flat:
            logits, y, *given = (tensor.squeeze(-3) for tensor in (logits, y, *given))
        value = loss(logits, y, **dict(zip(maps, given, strict=True)))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()


@torch.no_grad()
def score(network: torch.nn.Module, images: Tensor, labels: Tensor, dataset: str, device: str) -> dict[str, float]:
    """Means over the test cases; what is not defined in a case (no structure) is left out of the mean."""
    network.eval()
    values: list[dict[str, float]] = []
    for x, y in zip(images.split(4), labels.split(4), strict=True):  # a CPU is eight times as fast as one by one
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            slices = x.movedim(2, 1).flatten(0, 1).unsqueeze(2).to(device)  # the networks take one at a time
            predicted = network(slices).float().softmax(1).squeeze(2).cpu()
        batch = predicted.unflatten(0, (len(x), -1)).movedim(1, 2).numpy()
        for p, reference in zip(batch, y.numpy(), strict=True):
            found = p.argmax(0)
            values.append(_emidec(p, found, reference) if dataset == "emidec" else _drive(p, found, reference))
    names = sorted({name for each in values for name in each})
    return {name: float(np.nanmean([each.get(name, np.nan) for each in values])) for name in names}


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = first.sum() + second.sum()
    return float(2 * (first & second).sum() / total) if total else float("nan")


def _emidec(p: np.ndarray, found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    dice = [_dice(found == c, reference == c) for c in range(1, 5)]
    hits, lesions, right, claimed = 0, 0, 0, 0
    for c in (3, 4):
        for one, other, forward in ((reference == c, found == c, True), (found == c, reference == c, False)):
            parts, count = ndimage.label(one, np.ones((3, 3, 3)))
            met = len(np.unique(parts[other & one]))
            if forward:
                hits, lesions = hits + met, lesions + count
            else:
                right, claimed = right + met, claimed + count
    far = [_hd95(found == c, reference == c, SPACING["emidec"]) for c in (1, 2, 3)]
    with np.errstate(invalid="ignore"):
        return {
            "dice": np.nanmean(dice),
            "rare_dice": np.nanmean(dice[2:]) if not np.isnan(dice[2:]).all() else np.nan,
            "lesion_recall": hits / lesions if lesions else np.nan,
            "lesion_precision": right / claimed if claimed else np.nan,
            "hd95": np.nanmean(far) if not np.isnan(far).all() else np.nan,
            "calibration_error": _calibration(p, reference),
        }


def _drive(p: np.ndarray, found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    from skimage.morphology import skeletonize

    one, other = found[0] == 1, reference[0] == 1
    of_found, of_reference = skeletonize(one), skeletonize(other)
    precision = float((of_found & other).sum() / max(1, of_found.sum()))
    recall = float((of_reference & one).sum() / max(1, of_reference.sum()))
    counts = [ndimage.label(mask, np.ones((3, 3)))[1] for mask in (one, other)]
    return {
        "dice": _dice(one, other),
        "cl_dice": 2 * precision * recall / max(1e-9, precision + recall),
        "skeleton_recall": recall,
        "components_error": abs(counts[0] - counts[1]),
        "calibration_error": _calibration(p, reference),
    }


def _hd95(first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...]) -> float:
    """The 95th percentile of the distances between the borders, in mm; of both directions the larger one."""
    if not first.any() or not second.any():
        return float("nan")
    borders = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (first, second)]
    ways = [KDTree(one).query(other)[0] for one, other in (borders, borders[::-1])]
    return float(max(np.percentile(way, 95) for way in ways))


def _calibration(p: np.ndarray, reference: np.ndarray, bins: int = 20) -> float:
    """The mean over foreground classes and their bins that are not empty of |mean p - frequency of the class|."""
    errors = []
    for c in range(1, len(p)):
        if not (reference == c).any():
            continue
        place = np.clip(np.ceil(p[c].ravel() * bins).astype(int) - 1, 0, bins - 1)
        counts = np.bincount(place, minlength=bins)
        gaps = np.bincount(place, p[c].ravel() - (reference == c).ravel(), bins)
        errors.append(np.abs(gaps[counts > 0] / counts[counts > 0]).mean())
    return float(np.mean(errors)) if errors else float("nan")


def run(
    dataset: str,
    seed: int,
    folder: Path,
    device: str,
    steps: int,
    output: Path,
    names: list[str] | None,
    starts: list[str],
) -> list[dict[str, Any]]:
    """The trainings of a seed that begin from `starts`; of losses those with these names, None: all."""
    torch.set_num_threads(1)
    x, y, test_x, test_y = load(dataset, folder, seed)
    torch.manual_seed(seed)
    first = UNet(1, CLASSES[dataset], PATCH[dataset], FILTERS[dataset], 3, "instance").to(device)
    cache: dict[voxloss.LabelMaps, dict[str, Tensor]] = {}

    def trained(begin: torch.nn.Module, name: str, stream: int, steps: int) -> torch.nn.Module:
        network, loss = deepcopy(begin), LOSSES[dataset][name]()
        maps = voxloss.LabelMaps.of(loss, CLASSES[dataset])
        if maps not in cache:
            cache[maps] = make_maps(maps, y)
        train(network, loss, batches(dataset, x, stream), x, y, cache[maps], steps, RATE[dataset])
        return network

    rows: list[dict[str, Any]] = []

    def add(start: str, name: str, network: torch.nn.Module, began: float) -> None:
        figures = {key: round(value, 5) for key, value in score(network, test_x, test_y, dataset, device).items()}
        taken = {"seconds": round(time.time() - began, 1), "device": device}
        rows.append({"dataset": dataset, "start": start, "loss": name, "seed": seed} | figures | taken)
        print(rows[-1], flush=True)
        write(output.with_name(f"{output.stem}-{dataset}-{seed}.part"), rows)

    if "warm" in starts:
        began = time.time()
        warm = trained(first, BASE, seed, WARM[dataset] * steps // STEPS)
        add("none", "the warm start", warm, began)
        for name in names or LOSSES[dataset]:
            began = time.time()
            add("warm", name, trained(warm, name, 500 + seed, steps), began)
    for name in (names or FROM_SCRATCH[dataset]) if "scratch" in starts else ():
        began = time.time()
        add("scratch", name, trained(first, name, seed, WARM[dataset] * steps // STEPS + steps), began)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    aside = path.with_name(path.name + "~")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(path)


def main() -> None:
    """Prepare, or train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of emidec.npz and drive.npz")
    parser.add_argument("--prepare", type=Path, help="write them, from the folder that has emidec/ and drive/")
    parser.add_argument("--output", type=Path, help="the CSV file to write")
    parser.add_argument("--datasets", nargs="+", default=["emidec", "drive"], choices=["emidec", "drive"])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--losses", nargs="+", help="only these")
    parser.add_argument("--starts", nargs="+", default=["warm", "scratch"], choices=["warm", "scratch"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.data)
        return
    if arguments.output is None:
        sys.exit("name the file to write by --output")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    tasks = [(dataset, seed) for seed in seeds for dataset in arguments.datasets]
    chosen = (arguments.losses, arguments.starts)
    rest = (arguments.data, arguments.device, arguments.steps, arguments.output, *chosen)
    rows: list[dict[str, Any]] = []
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as processes:
        for done in as_completed([processes.submit(run, *task, *rest) for task in tasks]):
            rows += done.result()
            write(arguments.output, sorted(rows, key=lambda row: (row["dataset"], row["seed"])))


if __name__ == "__main__":
    main()
