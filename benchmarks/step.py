"""The loss's share of a whole training step of the paper's network (3D U-Net, 32 filters, depth 4).

    python benchmarks/step.py                                  # on a GPU: the paper's patch, 2 x 80 x 160 x 160
    python benchmarks/step.py --device cpu --patch 32 64 64

A step is forward, loss, backward and Adam's update, under bfloat16 autocast, channels last. The share is the time of
the loss, forward and backward on logits of the same shape and type, over that of the step, for each of the losses.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import voxloss
from voxloss.training.unet import UNet

LOSSES = ["mixed_focal", "dice_cross_entropy", "dice"]


def median_seconds(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median wall time of `run`, the device's work included, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, nargs=3, default=(80, 160, 160))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    device, patch = torch.device(arguments.device), tuple(arguments.patch)
    torch.manual_seed(0)
    network = UNet(1, 3, patch, 32, 4, "batch").to(device, memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    images = torch.randn(arguments.batch, 1, *patch, device=device).to(memory_format=torch.channels_last_3d)
    labels = torch.randint(0, 3, (arguments.batch, *patch), device=device, dtype=torch.uint8)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        logits = network(images)
    for name in LOSSES:
        loss = voxloss.get_loss(name)

        def step(loss: torch.nn.Module = loss) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                value = loss(network(images), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

        def alone(loss: torch.nn.Module = loss) -> None:
            loss(logits.detach().requires_grad_(), labels).backward()

        whole, own = (median_seconds(run, device, arguments.rounds) for run in (step, alone))
        print(f"{name}: step {1000 * whole:.1f} ms, loss {1000 * own:.1f} ms, share {100 * own / whole:.1f} %")


if __name__ == "__main__":
    main()
