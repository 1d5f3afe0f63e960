"""Measure training steps of a study's network on this machine, on random patches of growing size.

What a larger patch would take is a fixed part and a part for each voxel, fitted to the two largest patches measured. A
small patch alone tells little of a large one: its step may be mostly the update of the weights.
"""

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

import voxloss
from voxloss.config.schema import Size
from voxloss.config.settled import SettledConfig
from voxloss.training.augment import Augmenter
from voxloss.training.batches import augments_on, workers_of
from voxloss.training.networks import make_network, outputs
from voxloss.training.precision import autocast, layout, place
from voxloss.utilities.machine import available_memory, busy_seconds, forget_peak_memory, peak_memory

LONGEST_STEP = 15.0  # seconds: a step expected to take longer is not measured
ROUNDS = 3
NOTICED = 0.15  # of the cores: what other programs may take without being noticed
TOO_BUSY = 3.0  # times slower: threads that wait for each other work meanwhile, so that no idle time can be told


@dataclass(frozen=True)
class Probe:
    """What a training step takes with the study's patch. Seconds are those of an idle machine, as far as it tells.

    Args:
        patch: The largest patch measured; where it is smaller than the study's, the rest is projected.
        parameters: Of the network.
        step: Seconds of one training step: augmentation (where the run does it itself), forward pass, loss, backward
            pass, update of the weights.
        forward: Seconds of one window's forward pass.
        memory: Bytes at the peak of a step, beyond the process, of the device on CUDA; None where it is unknown.
        others: Cores that other programs took meanwhile; 0 where the system does not say.
        slowed: How many times longer the steps took because of them; 1 on an idle machine.
    """

    patch: Size
    parameters: int
    step: float
    forward: float
    memory: int | None
    others: float
    slowed: float

    @property
    def busy(self) -> bool:
        """Whether other programs took enough of the machine to be mentioned."""
        return self.others > NOTICED * (os.cpu_count() or 1)

    @property
    def too_busy(self) -> bool:
        """Whether other programs took so much that the times may be several times too long."""
        return self.slowed > TOO_BUSY


def probe(
    config: SettledConfig,
    channels: int,
    classes: int,
    device: torch.device,
    report: Callable[[str], None] = lambda line: None,
    longest: float = LONGEST_STEP,
) -> Probe:
    """Measure steps of the study's network.

    Args:
        config: The configuration.
        channels: Of the images.
        classes: Background included.
        device: Where the network works.
        report: Called with a line about what is measured.
        longest: Seconds; a step expected to take longer is projected from smaller patches.
    """
    size = config.patches.size
    threads = torch.get_num_threads()
    torch.set_num_threads(config.execution.threads or max(1, (os.cpu_count() or 1) // config.execution.parallel))
    clock, busy, own = time.perf_counter(), busy_seconds(), time.process_time()
    measured: list[_Measured] = []
    step = "idle_step" if device.type == "cpu" else "step"
    try:
        patches = growing_patches(size)
        # Memory counts from here: what one measurement frees the system may leave to the process, for the next to use.
        before = _peak(device, reset=True)
        _measure(config, patches[0], channels, classes, device, 1, before)  # takes what is taken once and for all
        for patch in patches:
            if len(measured) > 1 or (measured and patch == size):  # two are always measured, if the patch is not small
                room = available(device) or math.inf
                memory = fitted(measured, "memory", patch)
                if fitted(measured, step, patch) > longest or memory > 0.8 * room:
                    break
            report(f"measuring patches of {' x '.join(map(str, patch))}")
            measured.append(_measure(config, patch, channels, classes, device, ROUNDS, before))
        augmented = _augmentation(config, size, channels, device)
    finally:
        torch.set_num_threads(threads)
    after = busy_seconds()
    others = 0.0
    if busy is not None and after is not None:
        passed = max(time.perf_counter() - clock, 1e-9)
        others = max(0.0, (after - busy - (time.process_time() - own)) / passed)
    step_seconds, forward = fitted(measured, "step", size), fitted(measured, "forward", size)
    augmentation, idle_augmentation = augmented
    taken = step_seconds + augmentation
    if others > NOTICED * (os.cpu_count() or 1) and device.type == "cpu":
        step_seconds = min(step_seconds, fitted(measured, "idle_step", size))
        forward = min(forward, fitted(measured, "idle_forward", size))
        augmentation = min(augmentation, idle_augmentation)
    with torch.device("meta"):
        network = make_network(config.network, size, channels, classes)
    return Probe(
        patch=measured[-1].patch,
        parameters=sum(weights.numel() for weights in network.parameters()),
        step=step_seconds + augmentation,
        forward=forward,
        memory=None if measured[-1].memory is None else round(fitted(measured, "memory", size)),
        others=others,
        slowed=taken / (step_seconds + augmentation),
    )


@dataclass(frozen=True)
class _Measured:
    """Of one patch: seconds by the clock, and those that the threads worked, shared among them."""

    patch: Size
    step: float
    idle_step: float
    forward: float
    idle_forward: float
    memory: int | None


def fitted(measured: Sequence[_Measured], name: str, size: Size) -> float:
    """Return a fixed part and a part for each voxel, by the two largest patches measured; of one, in proportion."""
    known = [(math.prod(one.patch), getattr(one, name) or 0) for one in measured]
    voxels, (most, value) = math.prod(size), known[-1]
    if len(known) == 1 or voxels == most:
        return float(value * voxels / most)
    fewer, smaller = known[-2]
    per_voxel = max(0.0, (value - smaller) / (most - fewer))
    return float(value + per_voxel * (voxels - most))


def growing_patches(size: Size) -> list[Size]:
    """Return the patch with its axes divided by 4 and by 2, to multiples of 16 (at least 16), and the patch itself.

    Where these are the same, one between them and the patch is taken, since a projection needs two.
    """

    def divided(*divisors: float) -> list[Size]:
        patches = [[max(min(extent, 16), int(extent / by) // 16 * 16) for extent in size] for by in divisors]
        return list(dict.fromkeys([*((a, b, c) for a, b, c in patches), size]))

    usual = divided(4, 2)
    return usual if len(usual) > 2 else divided(4, 1.5)


def _measure(
    config: SettledConfig,
    patch: Size,
    channels: int,
    classes: int,
    device: torch.device,
    rounds: int,
    before: int | None,
) -> _Measured:
    """Measure a step without augmentation, a window's forward pass, and peak memory beyond `before`."""
    config = replace(config, patches=replace(config.patches, size=patch))
    batch = config.patches.batch_size
    gc.collect()
    _peak(device, reset=True)
    with torch.random.fork_rng(devices=[]):
        network = make_network(config.network, patch, channels, classes)
    place(network, device, config)
    loss = voxloss.DeepSupervision(voxloss.get_loss("mixed_focal"))
    optimizer = torch.optim.Adam(network.parameters())
    images = torch.zeros(batch, channels, *patch, device=device).contiguous(memory_format=layout(config))
    labels = torch.zeros(batch, *patch, dtype=torch.uint8, device=device)
    labels[:, : patch[0] // 4] = 1

    def forward(inputs: torch.Tensor) -> list[torch.Tensor]:
        with autocast(device, config.training):
            return outputs(network(inputs))

    def step() -> None:
        value = loss(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    step_seconds, idle_step = _least_seconds(step, device, rounds)
    after = _peak(device)
    network.eval()
    with torch.no_grad():
        forward_seconds, idle_forward = _least_seconds(lambda: forward(images), device, rounds)
    memory = None if before is None or after is None else max(0, after - before)
    return _Measured(patch, step_seconds, idle_step, forward_seconds / batch, idle_forward / batch, memory)


def _least_seconds(run: Callable[[], object], device: torch.device, rounds: int) -> tuple[float, float]:
    """Return the seconds by the clock and of work per thread; of several rounds the least, which others slow least."""
    clock, work = [], []
    for _ in range(rounds + 1):  # the first warms up
        start, worked = time.perf_counter(), time.process_time()
        run()
        _finish(device)
        clock.append(time.perf_counter() - start)
        work.append((time.process_time() - worked) / torch.get_num_threads())
    return min(clock[1:]), min(work[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _augmentation(config: SettledConfig, size: Size, channels: int, device: torch.device) -> tuple[float, float]:
    """Measure what augmentation adds to a step: the mean of several, since each kind is used at random.

    Returns seconds by the clock, and seconds of work per thread.
    """
    on_device = augments_on(config, device)
    if not on_device and workers_of(config, device) > 0:
        return 0.0, 0.0  # workers do it beside the steps
    augment = Augmenter(size, config.augmentation, on_device)
    batch, where = config.patches.batch_size, device if on_device else torch.device("cpu")
    start, worked, rounds = time.perf_counter(), time.process_time(), 4
    for seed in range(rounds):
        images = torch.zeros(batch, channels, *size, device=where)
        labels = torch.zeros(batch, *size, dtype=torch.uint8, device=where)
        augment(images, labels, [seed * batch + n for n in range(batch)])
    _finish(device)
    seconds, work = time.perf_counter() - start, time.process_time() - worked
    return seconds / rounds, work / rounds / torch.get_num_threads()


def available(device: torch.device) -> int | None:
    """Return the bytes that are free on the device; on a CPU, in the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


def _peak(device: torch.device, reset: bool = False) -> int | None:
    """Bytes at the peak since the last reset; with `reset` the bytes in use now."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if reset:
        forget_peak_memory()
    return peak_memory()
