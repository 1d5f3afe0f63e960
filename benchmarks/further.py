"""Time and memory of the losses beyond the pass over the voxels, beside Dice + cross entropy and others' code.

    python benchmarks/further.py --output rows.csv --size 96                  # on the CPU, on one thread
    python benchmarks/further.py --output rows.csv --size 128 --device cuda

Losses of lesions, distances and order read one volume of two classes with about 200 boxes of 2 to 6 voxels a side,
those per lesion and Lovász also the same boxes as four classes beside the background; those of thin structures one
with crossing tubes. Each implementation takes turns with Dice + cross entropy, forward and backward; a call that
is not measured goes before each, for whoever follows a loss that frees much memory pays for it. On a CPU what is
measured is the time of the process, so that other work on the machine counts less. Memory is the peak beyond the
inputs, over the size of the logits. Making the maps is measured alone. The loop over the lesions, and the boundary
loss of its authors, are written here as in their codes; others' losses are left out where they are not installed,
and `make test-peers` makes an environment with all of them.
"""

import argparse
import csv
import datetime
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import cross_entropy

import voxloss
from losses import Loss, cpu_name, once, peak_extra, seconds
from voxloss.geometry.distances import signed_distances

REFERENCE = "dice_cross_entropy"
FIELDS = [
    "date", "device", "torch", "implementation", "version", "volume", "shape", "dtype", "rounds", "ms_p10", "ms_p50",
    "ms_p90", "ratio_to_dice_cross_entropy", "peak_extra_over_logits",
]  # fmt: skip


def boxes(size: int, lesions: int) -> Tensor:
    """Labels (1, size, size, size); boxes that touch are one lesion."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1, size, size, size, dtype=torch.long)
    for _ in range(lesions):
        sides = torch.randint(2, 7, (3,), generator=generator)
        place = [int(torch.randint(0, size - int(side), (1,), generator=generator)) for side in sides]
        labels[(0, *(slice(begin, begin + int(side)) for begin, side in zip(place, sides, strict=True)))] = 1
    return labels


def of_several_classes(labels: Tensor) -> Tensor:
    """The same boxes with labels 1 to 4, by where they are."""
    size = labels.shape[-1]
    half = torch.arange(size) >= size // 2
    return torch.where(labels > 0, 1 + half[:, None, None].long() + 2 * half[None, :, None].long(), 0)


def tubes(size: int) -> Tensor:
    """Labels (1, size, size, size) of tubes of three to five voxels along every axis."""
    labels = torch.zeros(1, size, size, size, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    for number in range(24):
        box = [slice(None)] * 3
        for axis in range(3):
            if axis != number % 3:
                start = int(torch.randint(0, size - 5, (1,), generator=generator))
                box[axis] = slice(start, start + 3 + number % 3)
        labels[(0, *box)] = 1
    return labels


def of_boxes(labels: Tensor) -> dict[str, tuple[str, Loss]]:
    """Name -> (version, loss) of logits and labels."""
    regions = voxloss.lesion_regions(labels, 2)
    distances = voxloss.distance_maps(labels, 2)
    losses: dict[str, Loss] = {}
    for name in ("cc_dice_ce", "blob"):
        losses[f"{name}, maps given"] = partial(voxloss.get_loss(name), regions=regions)
        losses[name] = voxloss.get_loss(name)
    losses |= {
        "boundary, maps given": partial(voxloss.get_loss("boundary"), distances=distances),
        "boundary": voxloss.get_loss("boundary"),
        "mixed_focal + boundary, maps given": partial(
            voxloss.Compound(["mixed_focal", "boundary"], [1, 0.01]), distances=distances
        ),
    }
    losses |= {name: voxloss.get_loss(name) for name in ("hausdorff", "topk", "dice_topk", "lovasz", "ml1_ace", "mcc")}
    others: dict[str, tuple[str, Loss]] = {
        "a loop over the lesions, maps given": ("", lambda x, y: loop(x, y, regions)),
        "boundary of its authors, maps given": ("", lambda x, y: (x.softmax(1)[:, 1:] * distances).mean()),
    }
    return (
        {name: (voxloss.__version__, loss) for name, loss in losses.items()} | others | _others(_nnunet, _smp, _monai)
    )


def of_classes(labels: Tensor) -> dict[str, tuple[str, Loss]]:
    """Name -> (version, loss) of logits and labels."""
    regions = voxloss.lesion_regions(labels, 5)
    of_lesions = {
        f"{name}, maps given": (voxloss.__version__, partial(voxloss.get_loss(name), regions=regions))
        for name in ("cc_dice_ce", "blob")
    }
    return of_lesions | {"lovasz": (voxloss.__version__, voxloss.get_loss("lovasz"))}


def of_tubes(labels: Tensor) -> dict[str, tuple[str, Loss]]:
    """Name -> (version, loss) of logits and labels."""
    recall = voxloss.get_loss("skeleton_recall")
    losses: dict[str, Loss] = {
        "skeleton_recall, maps given": partial(recall, skeletons=voxloss.skeleton_tubes(labels, 2)),
        "skeleton_recall": recall,
        "cl_dice": voxloss.get_loss("cl_dice"),
    }
    return {name: (voxloss.__version__, loss) for name, loss in losses.items()} | _others(_monai_tubes)


def loop(logits: Tensor, labels: Tensor, regions: Tensor) -> Tensor:
    """Dice + cross entropy of every region by itself, as the authors' codes do it."""
    parts = []
    for number in range(1, int(regions.max()) + 1):
        inside = regions[0, 0] == number
        x, y = logits[0][:, inside], labels[0][inside]
        p = x.softmax(0)[1]
        parts.append(1 - 2 * (p * y).sum() / (p.sum() + y.sum()) + cross_entropy(x[None], y[None]))
    return torch.stack(parts).mean()


def _others(*makers: Callable[[], dict[str, tuple[str, Loss]]]) -> dict[str, tuple[str, Loss]]:
    found: dict[str, tuple[str, Loss]] = {}
    for make in makers:
        try:
            found |= make()
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def _nnunet() -> dict[str, tuple[str, Loss]]:
    from nnunetv2.training.loss.robust_ce_loss import TopKLoss

    loss = TopKLoss(k=10)
    return {"nnU-Net TopKLoss": (metadata.version("nnunetv2"), lambda x, y: loss(x, y[:, None]))}


def _monai() -> dict[str, tuple[str, Loss]]:
    from monai.losses import HausdorffDTLoss, MCCLoss

    hausdorff, mcc = HausdorffDTLoss(to_onehot_y=True, softmax=True), MCCLoss(softmax=True, include_background=False)
    losses: dict[str, Loss] = {
        "MONAI HausdorffDTLoss": lambda x, y: hausdorff(x, y[:, None]),
        "MONAI MCCLoss": lambda x, y: mcc(x, torch.stack([1 - y, y], 1).to(x.dtype)),
    }
    return {name: (metadata.version("monai"), loss) for name, loss in losses.items()}


def _monai_tubes() -> dict[str, tuple[str, Loss]]:
    from monai.losses import SoftDiceclDiceLoss

    loss = SoftDiceclDiceLoss(iter_=10, softmax=True, include_background=False)
    return {
        "MONAI SoftDiceclDiceLoss": (
            metadata.version("monai"),
            lambda x, y: loss(x, torch.stack([1 - y, y], 1).to(x.dtype)),
        )
    }


def _smp() -> dict[str, tuple[str, Loss]]:
    """The authors' code as segmentation_models.pytorch has it; the package itself imports torchvision."""
    found = importlib.util.find_spec("segmentation_models_pytorch")
    if found is None or not found.submodule_search_locations:
        raise ImportError("segmentation_models_pytorch is not installed")
    folder = f"{found.submodule_search_locations[0]}/losses"
    spec = importlib.util.spec_from_file_location(
        "smp_losses", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules["smp_losses"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = module.LovaszLoss("multiclass")
    version = metadata.version("segmentation_models_pytorch")
    return {"Lovász of its authors": (version, lambda x, y: loss(x.flatten(2, 3), y.flatten(1, 2)))}  # takes images


def by_scipy(labels: np.ndarray) -> np.ndarray:
    """The regions of lesions but at equal distances."""
    components, _ = ndimage.label(labels, np.ones((3,) * labels.ndim))
    places = ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
    return components[tuple(places)]


def of_maps(of_boxes: Tensor, of_tubes: Tensor) -> dict[str, tuple[str, Callable[[], object]]]:
    """Name -> (volume, what makes the maps)."""
    array = of_boxes[0].cpu().numpy()
    return {
        "lesion_regions": ("boxes", lambda: voxloss.lesion_regions(of_boxes, 2)),
        "SciPy: label and transform": ("boxes", lambda: by_scipy(array)),
        "distance_maps": ("boxes", lambda: voxloss.distance_maps(of_boxes, 2)),
        "SciPy: distances": ("boxes", lambda: signed_distances(array == 1, array == 0, (1.0, 1.0, 1.0))),
        "skeleton_tubes": ("tubes", lambda: voxloss.skeleton_tubes(of_tubes, 2)),
    }


def time_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--lesions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", help="implementations whose names begin so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device, size = torch.device(arguments.device), arguments.size
    found = boxes(size, arguments.lesions)
    made = {"boxes": found, "classes": of_several_classes(found), "tubes": tubes(size)}
    volumes = {name: labels.to(device) for name, labels in made.items()}

    def logits_of(classes: int) -> Tensor:
        return torch.randn(1, classes, size, size, size, generator=torch.Generator().manual_seed(1)).to(device)

    shared = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "dtype": "float32",
    }
    rows: list[dict[str, object]] = []

    def add(name: str, version: str, volume: str, times: list[float], **others: object) -> None:
        tenths = statistics.quantiles(times, n=10, method="inclusive")
        figures = {"ms_p10": tenths[0], "ms_p50": statistics.median(times), "ms_p90": tenths[-1]}
        classes = 1 + int(volumes[volume].max())
        row = {
            "shape": "x".join(map(str, (1, classes, *volumes[volume].shape[1:]))),
            "implementation": name,
            "version": version,
            "volume": volume,
            "rounds": len(times),
        }
        row |= {key: round(1000 * value, 4) for key, value in figures.items()} | others
        rows.append(shared | row)
        print({key: value for key, value in row.items() if key not in ("version", "rounds")}, flush=True)

    reference = voxloss.get_loss(REFERENCE)
    for volume, make in (("boxes", of_boxes), ("classes", of_classes), ("tubes", of_tubes)):
        labels = volumes[volume]
        logits = logits_of(1 + int(labels.max()))
        for name, (version, loss) in make(labels).items():
            if arguments.only and not name.startswith(tuple(arguments.only)):
                continue
            times: dict[str, list[float]] = {"own": [], "reference": []}
            try:
                for _ in range(arguments.rounds):
                    for whose, one in (("reference", reference), ("own", loss)):
                        once(one, logits, labels, backward=True)
                        times[whose].append(seconds(one, logits, labels, backward=True))
                extra = peak_extra(loss, logits, labels, backward=True)
            except RuntimeError as error:
                print(f"{name} left out: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            ratio = statistics.median(own / of for own, of in zip(*times.values(), strict=True))
            memory = extra and round(extra / (logits.numel() * logits.element_size()), 3)
            ratios = {"ratio_to_dice_cross_entropy": round(ratio, 3), "peak_extra_over_logits": memory}
            add(name, version, volume, times["own"], **ratios)
    for name, (volume, run) in of_maps(volumes["boxes"], volumes["tubes"]).items():
        if not arguments.only:
            add(name, "", volume, [time_of(run, device) for _ in range(4)][1:])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
