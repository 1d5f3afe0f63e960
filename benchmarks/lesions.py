"""Time of the losses per lesion beside Dice + cross entropy and a loop over the lesions, on the CPU.

    python benchmarks/lesions.py --lesions 200 --size 96

One volume of two classes with about so many boxes of 2 to 6 voxels a side. The implementations take turns, and what is
measured is the time of the process, so that other work on the machine counts less. The loop is that of the authors'
codes, a loss of masked tensors for each lesion. Making the maps is measured alone, by SciPy too.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import cross_entropy

import voxloss

REFERENCE = "dice_cross_entropy"


def volume(size: int, lesions: int) -> Tensor:
    """Labels (1, size, size, size); boxes that touch are one lesion."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1, size, size, size, dtype=torch.long)
    for _ in range(lesions):
        start = torch.randint(0, size - 6, (3,), generator=generator).tolist()
        side = int(torch.randint(1, 4, (1,), generator=generator)) * 2
        labels[(0, *(slice(first, first + side) for first in start))] = 1
    return labels


def loop(logits: Tensor, labels: Tensor, regions: Tensor) -> Tensor:
    """Dice + cross entropy of every region, one after the other."""
    p, each = logits.softmax(1)[:, 1], cross_entropy(logits, labels, reduction="none")
    costs = []
    for number in regions.unique():
        mask = regions[:, 0] == number
        q, t = p * mask, labels * mask
        costs.append(1 - 2 * (q * t).sum() / (q.sum() + t.sum()) + (each * mask).sum() / mask.sum())
    return voxloss.functional.dice_cross_entropy_loss(logits, labels) + torch.stack(costs).mean()


def seconds(run: Callable[[], object]) -> float:
    """The process's time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, default=200)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    labels = volume(arguments.size, arguments.lesions)
    logits = torch.randn(1, 2, *labels.shape[1:], generator=torch.Generator().manual_seed(1))
    regions = voxloss.lesion_regions(labels, 2)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        REFERENCE: lambda x: voxloss.functional.dice_cross_entropy_loss(x, labels),
        "cc_dice_ce, maps given": lambda x: voxloss.functional.cc_dice_ce_loss(x, labels, regions=regions),
        "blob, maps given": lambda x: voxloss.functional.blob_loss(x, labels, regions=regions),
        "cc_dice_ce": lambda x: voxloss.functional.cc_dice_ce_loss(x, labels),
    }
    print(f"{arguments.size}³ voxels, {int(regions.max())} lesions, one thread, torch {torch.__version__}")

    def step(loss: Callable[[Tensor], Tensor]) -> None:
        loss(logits.detach().requires_grad_()).backward()

    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(arguments.rounds + 1):
        for name, loss in losses.items():
            taken = seconds(lambda loss=loss: step(loss))  # type: ignore[misc]
            if turn:  # the first warms up
                times[name].append(taken)
    for name, taken_each in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken_each, times[REFERENCE], strict=True))
        print(f"{name:28} {1e3 * statistics.median(taken_each):8.1f} ms   {ratio:6.2f} × {REFERENCE}")
    alone = seconds(lambda: step(lambda x: loop(x, labels, regions)))
    print(f"{'a loop over the lesions':28} {1e3 * alone:8.1f} ms")
    print(f"{'lesion_regions':28} {1e3 * seconds(lambda: voxloss.lesion_regions(labels, 2)):8.1f} ms")
    print(f"{'SciPy: label and transform':28} {1e3 * seconds(lambda: by_scipy(labels[0].numpy())):8.1f} ms")


def by_scipy(labels: np.ndarray) -> np.ndarray:
    """The same maps but at equal distances."""
    components, _ = ndimage.label(labels, np.ones((3,) * labels.ndim))
    places = ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
    return components[tuple(places)]


if __name__ == "__main__":
    main()
