"""Iterations per second and the share of time waiting for data: a study's training beside a plain MONAI pipeline.

    python benchmarks/training.py [--device cuda] [--patch 80 160 160] [--workers 8] [--output rows.csv]

Both train the same network (the 3D U-Net) on the same prepared volumes, patch, batch size, precision and kinds of
augmentation with the same probabilities. The study's way: memory maps, workers, batchgeneratorsv2 (on CUDA on the
device), Mixed Focal on the fused pass. The plain way: MONAI's Dataset and dictionary transforms on arrays read from the
same files, its DataLoader and DiceFocalLoss. Turns alternate, and the medians of the rounds are printed.
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in the processes of a study; torch reads it when imported

import numpy as np
import torch

import voxloss
from voxloss.config.files import load_config
from voxloss.config.schema import StudyConfig
from voxloss.data.layouts import kits19
from voxloss.data.phantom.write import write_phantom
from voxloss.data.prepare.case import Preparation, PreparedCase
from voxloss.data.prepare.cases import prepare_cases
from voxloss.training.batches import TrainingJob, augmentation_seeds, device_augmenter, training_batches, workers_of
from voxloss.training.networks import make_network
from voxloss.training.precision import autocast, layout, place

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def study_batches(cases: list[PreparedCase], config: StudyConfig, device: torch.device) -> Batches:
    run = TrainingJob(Path(), config, "mixed_focal", {}, 0, 0, cases, cases, kits19.CLASSES)
    augment = device_augmenter(run, device)
    for step, (images, labels) in enumerate(training_batches(run, 0, device)):
        moved = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if augment is not None:
            augment(*moved, augmentation_seeds(run, step))
        yield moved


def monai_batches(cases: list[PreparedCase], config: StudyConfig, device: torch.device) -> Batches:
    from monai import transforms as mt
    from monai.data import DataLoader, Dataset

    size, keys, share = config.patches.size, ["image", "label"], config.augmentation.probability
    both = ("bilinear", "nearest")
    angle = np.deg2rad(15)
    pipeline = mt.Compose([
        mt.Lambdad(["image"], lambda path: torch.from_numpy(np.load(path))),
        mt.Lambdad(["label"], lambda path: torch.from_numpy(np.load(path))[None]),
        mt.SpatialPadd(keys, size),
        mt.RandSpatialCropd(keys, size, random_size=False),
        mt.RandRotated(keys, angle, angle, angle, prob=share, mode=both, padding_mode="zeros"),
        mt.RandZoomd(keys, prob=share, min_zoom=0.8, max_zoom=1.18, mode=("trilinear", "nearest")),
        mt.Rand3DElasticd(keys, (9, 13), (0, 900), prob=share, mode=both, padding_mode="zeros"),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        mt.RandScaleIntensityd(["image"], (-0.5, 1.0), prob=share),
        mt.RandAdjustContrastd(["image"], prob=share, gamma=(0.7, 1.5)),
        mt.RandGaussianNoised(["image"], prob=share, std=0.05),
    ])  # fmt: skip
    files = [{"image": str(case.folder / "image.npy"), "label": str(case.folder / "label.npy")} for case in cases]
    steps = config.training.epochs * config.training.iterations * config.patches.batch_size
    loader = DataLoader(
        Dataset(files * (steps // len(files) + 1), pipeline),
        batch_size=config.patches.batch_size,
        shuffle=True,
        num_workers=workers_of(config, device),
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield (
            batch["image"].as_tensor().to(device, non_blocking=True),
            batch["label"].as_tensor().to(device, non_blocking=True),
        )


def steps_of(
    batches: Batches, loss: torch.nn.Module, config: StudyConfig, device: torch.device
) -> Callable[[int], tuple]:
    torch.manual_seed(0)
    network = make_network(config.network, config.patches.size, 1, len(kits19.CLASSES)).train()
    place(network, device, config)
    call = torch.compile(network) if config.execution.compile else network
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)

    def run(steps: int) -> tuple[float, float]:
        """Seconds a step, and the share of them spent waiting for the batch."""
        waiting, start = 0.0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            images, labels = next(batches)
            waiting += time.perf_counter() - asked
            with autocast(device, config.training):
                logits = call(images.contiguous(memory_format=layout(config)))
            value = loss(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            value.item()  # as the study, which checks every loss
        seconds = time.perf_counter() - start
        return seconds / steps, waiting / seconds

    return run


def main() -> None:
    from monai.losses import DiceFocalLoss

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--patch", type=int, nargs=3, default=(32, 64, 64))
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--workers", type=int, help="default: the study's")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    config = load_config("kits19", [
        "--patches.size", str(list(arguments.patch)), "--network.filters", str(arguments.filters),
        "--training.precision", arguments.precision, f"--execution.compile={str(arguments.compile).lower()}",
        "--training.epochs", "1", "--training.iterations", str(2 + arguments.steps * arguments.rounds),
        *([] if arguments.workers is None else ["--execution.workers", str(arguments.workers)]),
    ])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(Path(folder) / "data", cases=4, seed=0, setting="full")
        dataset = kits19.load(Path(folder) / "data")
        preparation = Preparation((-79, 304), (3.22, 1.62, 1.62), "zscore")
        cases = prepare_cases(dataset.cases, dataset, preparation, Path(folder) / "cache", os.cpu_count() or 1)
        ways = {
            "study": steps_of(study_batches(cases, config, device), voxloss.get_loss("mixed_focal"), config, device),
            "MONAI": steps_of(
                monai_batches(cases, config, device),
                DiceFocalLoss(softmax=True, to_onehot_y=True, lambda_focal=1.0),
                config,
                device,
            ),
        }
        for run in ways.values():
            run(2)  # warm up
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, run in ways.items():
                rounds[name].append(run(arguments.steps))
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    rows = []
    for name, measured in rounds.items():
        seconds, waiting = (statistics.median(values) for values in zip(*measured, strict=True))
        rows.append({
            "way": name, "device": machine, "filters": arguments.filters,
            "patch": "x".join(map(str, arguments.patch)), "precision": arguments.precision,
            "workers": workers_of(config, device), "compile": arguments.compile,
            "iterations_per_second": round(1 / seconds, 3), "waiting": round(waiting, 4),
        })  # fmt: skip
        print(f"{name}: {1 / seconds:.3f} iterations/s, {waiting:.1%} of the time waiting for data")
    if device.type == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
    if arguments.output is not None:
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
