"""Time and memory of the losses, ours and others', side by side on the same tensors in one run.

    python benchmarks/losses.py --output rows.csv --threads 1 2   # on the CPU
    python benchmarks/losses.py --output rows.csv --device cuda   # float32 and bfloat16

One row for each implementation, number of classes, type, number of threads, company and pass: forward, or forward and
backward, and on CUDA also the latter recorded in a CUDA graph and replayed, which is the time of the device without
that of starting its kernels one by one (what cannot be recorded has no such row). The implementations take turns, in an
order that is shuffled, so that what slows the machine slows them all;
`ratio_to_cross_entropy` is the median over the rounds of their time over that of torch's cross entropy in the same
round. The company is "alone", a process of ours and torch's cross entropy, or "in turn", one where those of other
libraries run too: what they free is used again, which makes losses that create large tensors quicker. Every number of
classes, type, number of threads and company has a process of its own. Memory is the peak beyond the inputs. The traffic
floor is the time to read logits and labels twice and write the gradient once, at the bandwidth of a copy measured in
the same run. Peers that are not installed are left out, and said to be; `make test-peers` makes an environment with all
of them.
"""

import argparse
import csv
import ctypes
import datetime
import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

import voxloss

Loss = Callable[[Tensor, Tensor], Tensor]
# On CUDA the paper's patch for 2 and 3 classes and whole volumes for more of them, on the CPU smaller ones.
SHAPES = {
    "cpu": {2: (1, 2, 96, 96, 96), 3: (1, 3, 96, 96, 96), 14: (1, 14, 64, 96, 96), 105: (1, 105, 64, 64, 48)},
    "cuda": {
        2: (2, 2, 80, 160, 160),
        3: (2, 3, 80, 160, 160),
        14: (2, 14, 128, 128, 128),
        105: (1, 105, 128, 128, 128),
    },
}
REFERENCE = "torch cross_entropy"
FIELDS = [
    "date", "device", "threads", "company", "torch", "implementation", "version", "classes", "shape", "dtype", "labels",
    "pass", "rounds", "ms_p10", "ms_p50", "ms_p90", "ratio_to_cross_entropy", "peak_extra_bytes",
    "peak_extra_over_logits", "floor_ms",
]  # fmt: skip


# Those of the pass over the voxels alone; benchmarks/further.py has the others.
ELSEWHERE = ("ml1_ace", "skeleton_recall", "cl_dice", "cc_dice_ce", "blob")
ELSEWHERE += ("boundary", "hausdorff", "topk", "dice_topk", "lovasz")
OURS = tuple(name for name in voxloss.list_losses() if name not in ELSEWHERE)
WHOLE, REPLAYED = "forward+backward", "forward+backward, replayed"


def implementations(company: str, names: Sequence[str]) -> dict[str, tuple[str, Loss]]:
    """Name -> (version, loss) of everything that can be imported here, or of ours alone."""
    found: dict[str, tuple[str, Loss]] = {REFERENCE: (torch.__version__, torch.nn.functional.cross_entropy)}
    for name in names:
        found[f"voxloss {name}"] = (voxloss.__version__, voxloss.get_loss(name))
    if company == "alone":
        return found
    for package, make in {"monai": _monai, "exacta": _exacta, "kornia": _kornia, "nnunetv2": _nnunet}.items():
        try:
            losses = make()
        except ImportError as error:
            print(f"{package} left out: {error}", file=sys.stderr)
            continue
        found |= {name: (metadata.version(package), loss) for name, loss in losses.items()}
    return found


def _monai() -> dict[str, Loss]:
    from monai.losses import DiceCELoss, DiceFocalLoss

    chosen = {"to_onehot_y": True, "softmax": True}
    losses = {"MONAI DiceFocalLoss": DiceFocalLoss(**chosen), "MONAI DiceCELoss": DiceCELoss(**chosen)}
    return {name: lambda x, y, loss=loss: loss(x, y[:, None]) for name, loss in losses.items()}


def _exacta() -> dict[str, Loss]:
    from exacta.losses import DiceCELoss

    return {"exacta DiceCELoss": DiceCELoss()}


def _kornia() -> dict[str, Loss]:
    from kornia.losses import dice_loss, focal_loss

    def flat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # its losses take images: one long axis for two
        return x.flatten(2, -2), y.flatten(1, -2)

    return {
        "kornia dice_loss + focal_loss": lambda x, y: (
            dice_loss(*flat(x, y)) + focal_loss(*flat(x, y), alpha=0.25, reduction="mean")
        )
    }


def _nnunet() -> dict[str, Loss]:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    return {"nnU-Net DC_and_CE_loss": lambda x, y: loss(x, y[:, None])}


def once(loss: Loss, logits: Tensor, labels: Tensor, backward: bool) -> None:
    """One pass; the gradient is freed with the tensor that holds it."""
    if not backward:
        with torch.no_grad():
            loss(logits, labels)
        return
    leaf = logits.detach().requires_grad_()
    loss(leaf, labels).backward()


def seconds(loss: Loss, logits: Tensor, labels: Tensor, backward: bool) -> float:
    """Time of one pass, the device's work included.

    On one thread of a CPU it is the processor's time, which other work on the machine changes less, else wall time.
    """
    clock = time.process_time if not logits.is_cuda and torch.get_num_threads() == 1 else time.perf_counter
    if logits.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    once(loss, logits, labels, backward)
    if logits.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def recorded(loss: Loss, logits: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward and backward as a CUDA graph; the calls before it also use up those in which labels are checked."""
    leaf = logits.detach().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            leaf.grad = None
            loss(leaf, labels).backward()
    torch.cuda.current_stream().wait_stream(stream)
    leaf.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss(leaf, labels).backward()

    def replay() -> None:
        graph.replay()

    return replay


def replayed_seconds(replay: Callable[[], None]) -> float:
    """Time of the device for one replay."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def peak_extra(loss: Loss, logits: Tensor, labels: Tensor, backward: bool) -> int | None:
    """Bytes at the peak of one pass beyond those before it; None where the system does not tell."""
    gc.collect()
    if logits.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(loss, logits, labels, backward)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator keeps would hide what the next pass takes
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    except OSError:
        return None
    before = _resident("VmRSS")
    once(loss, logits, labels, backward)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def bandwidth(device: torch.device) -> float:
    """Bytes per second of a copy, read and write counted; the best of ten."""
    source = torch.ones(64_000_000, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * source.numel() * source.element_size() / min(times)


def problem(classes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random logits and int64 labels."""
    generator = torch.Generator(device).manual_seed(0)
    batch, _, *spatial = SHAPES[device.type][classes]
    logits = torch.randn(batch, classes, *spatial, generator=generator, device=device).to(dtype)
    return logits, torch.randint(0, classes, (batch, *spatial), generator=generator, device=device)


def process(
    classes: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    threads: int | None,
    company: str,
    names: Sequence[str],
) -> list[dict[str, object]]:
    """Rows of all implementations; the work of one process."""
    if threads:
        torch.set_num_threads(threads)
    rows = list(measure(classes, dtype, device, rounds, company, names))
    logits, labels = problem(classes, dtype, device)
    losses = implementations(company, names)
    for row in rows:  # after all timings, for it trims what is kept
        if row["pass"] == REPLAYED:  # whose memory is that of the graph
            continue
        loss, backward = losses[str(row["implementation"])][1], row["pass"] != "forward"
        extra = peak_extra(loss, logits, labels, backward)
        row["peak_extra_bytes"] = extra
        row["peak_extra_over_logits"] = extra and round(extra / (logits.numel() * logits.element_size()), 4)
    return rows


def measure(
    classes: int, dtype: torch.dtype, device: torch.device, rounds: int, company: str, names: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Rows without the memory."""
    logits, labels = problem(classes, dtype, device)
    size = logits.numel() * logits.element_size()
    floor = (3 * size + 2 * labels.numel() * labels.element_size()) / bandwidth(device)
    losses = implementations(company, names)
    for kind in ("forward", WHOLE, REPLAYED) if device.type == "cuda" else ("forward", WHOLE):
        timed: dict[str, Callable[[], float]] = {}
        for name, (_, loss) in list(losses.items()):
            backward = kind != "forward"
            try:
                once(loss, logits, labels, backward)  # warm up, compile
                if kind == REPLAYED:
                    timed[name] = partial(replayed_seconds, recorded(loss, logits, labels))
                else:
                    timed[name] = partial(seconds, loss, logits, labels, backward)
            except (RuntimeError, ValueError) as error:  # out of memory, or a peer that does not take this
                print(
                    f"{name} left out of {kind} at {classes} classes, {dtype}: {str(error).splitlines()[0]}",
                    file=sys.stderr,
                )
                del losses[name]
        times: dict[str, list[float]] = {name: [] for name in losses}
        for turn in range(rounds):
            names = list(losses)
            random.Random(turn).shuffle(names)  # whoever follows a loss that frees much memory pays for it
            for name in names:
                times[name].append(timed[name]())
        for name, (version, _) in losses.items():
            ratios = [own / reference for own, reference in zip(times[name], times[REFERENCE], strict=True)]
            tenths = statistics.quantiles(times[name], n=10, method="inclusive")
            yield {
                "date": datetime.date.today().isoformat(),
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
                "threads": torch.get_num_threads(),
                "company": company,
                "torch": torch.__version__,
                "implementation": name,
                "version": version,
                "classes": classes,
                "shape": "x".join(map(str, logits.shape)),
                "dtype": str(dtype).removeprefix("torch."),
                "labels": str(labels.dtype).removeprefix("torch."),
                "pass": kind,
                "rounds": rounds,
                "ms_p10": round(1000 * tenths[0], 4),
                "ms_p50": round(1000 * statistics.median(times[name]), 4),
                "ms_p90": round(1000 * tenths[-1], 4),
                "ratio_to_cross_entropy": round(statistics.median(ratios), 4),
                "peak_extra_bytes": None,
                "peak_extra_over_logits": None,
                "floor_ms": round(1000 * floor, 4) if kind != "forward" else None,
            }


def cpu_name() -> str:
    """The processor's name and number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3, 14, 105], choices=[2, 3, 14, 105])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--losses", nargs="+", default=OURS, choices=OURS, metavar="NAME", help="of ours; default: all")
    parser.add_argument("--company", nargs="+", default=["alone", "in turn"], choices=["alone", "in turn"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], help="default: both, on a CPU float32")
    parser.add_argument("--threads", type=int, nargs="+", default=[None], help="of the CPU; default: torch's choice")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    types = arguments.dtypes or (["float32", "bfloat16"] if device.type == "cuda" else ["float32"])
    names = arguments.losses
    rows = []
    parts = product(arguments.threads, arguments.classes, types, arguments.company)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for threads, classes, dtype, company in parts:
            chosen = (classes, getattr(torch, dtype), device, arguments.rounds, threads, company, names)
            part = processes.submit(process, *chosen).result()
            for row in part:
                print({key: row[key] for key in FIELDS[2:]}, flush=True)
            rows += part
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
