"""Time and memory of the losses of thin structures, correlation and calibration, beside Dice + cross entropy.

    python benchmarks/thin.py --size 96

One volume of two classes with crossing tubes. Each implementation takes turns with Dice + cross entropy, on one thread,
and what is measured is the time of the process, forward and backward; a call that is not measured goes before, for
whoever follows a loss that frees much memory pays for it. Memory is the peak beyond the inputs, over the size of the
logits. Making skeletons is measured alone. MONAI's losses are left out where it is not installed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import voxloss
from losses import once, peak_extra, seconds

REFERENCE = "dice_cross_entropy"
Loss = Callable[[Tensor, Tensor], Tensor]


def volume(size: int) -> Tensor:
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


def monai() -> dict[str, Loss]:
    """Its losses, of which the target is one-hot here as there."""
    try:
        from monai.losses import MCCLoss, SoftDiceclDiceLoss
    except ImportError:
        print("MONAI is not installed")
        return {}
    options = {"softmax": True, "include_background": False}
    losses = {"MONAI MCCLoss": MCCLoss(**options), "MONAI SoftDiceclDiceLoss": SoftDiceclDiceLoss(iter_=10, **options)}
    return {
        name: lambda x, y, loss=loss: loss(x, torch.stack([1 - y, y], 1).to(x.dtype)) for name, loss in losses.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    labels = volume(arguments.size)
    logits = torch.randn(1, 2, *labels.shape[1:], generator=torch.Generator().manual_seed(1))
    skeletons = voxloss.skeleton_tubes(labels, 2)
    recall = voxloss.get_loss("skeleton_recall")
    losses: dict[str, Loss] = {
        name: voxloss.get_loss(name) for name in (REFERENCE, "mcc", "ml1_ace", "skeleton_recall", "cl_dice")
    }
    losses["skeleton_recall, maps given"] = lambda x, y: recall(x, y, skeletons=skeletons)
    losses |= monai()
    print(f"{arguments.size}³ voxels, one thread, torch {torch.__version__}")
    for name, loss in losses.items():
        times: dict[str, list[float]] = {name: [], REFERENCE: []}
        for _ in range(arguments.rounds):
            for own in (REFERENCE, name):
                once(losses[own], logits, labels, backward=True)
                times[own].append(seconds(losses[own], logits, labels, backward=True))
        ratio = statistics.median(times[name]) / statistics.median(times[REFERENCE])
        extra = peak_extra(loss, logits, labels, backward=True)
        memory = "" if extra is None else f"{extra / (4 * logits.numel()):7.2f} × the logits"
        print(f"{name:28} {1e3 * statistics.median(times[name]):8.1f} ms {ratio:7.2f} × {REFERENCE} {memory}")
    start = time.process_time()
    voxloss.skeleton_tubes(labels, 2)
    print(f"{'skeleton_tubes':28} {1e3 * (time.process_time() - start):8.1f} ms")


if __name__ == "__main__":
    main()
