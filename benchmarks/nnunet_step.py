"""Time of a training step of nnU-Net's network with our losses over that with nnU-Net's own loss, on the CPU.

    python benchmarks/nnunet_step.py            # in the environment of `make test-peers`

The network is nnU-Net's plain U-Net of its widths with deep supervision; a step is forward, loss, backward, clipping
and SGD, as in its trainer. Maps of lesions and skeletons come with the target, as from its loaders. The losses take
turns; the ratio is the median over the rounds.
"""

import argparse
import statistics
import time

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from voxloss.nnunet.loss import nnunet_loss
from voxloss.nnunet.maps import WithMaps

LOSSES = [
    "dice_cross_entropy", "mcc", "ml1_ace", "lovasz", "skeleton_recall", "cl_dice", "cc_dice_ce", "blob", "boundary",
    "hausdorff",
]  # fmt: skip
OUTPUTS = 3
WEIGHTS = (2 / 3, 1 / 3, 0)


def target_of(size: int) -> Tensor:
    """Labels (2, 1, size, size, size) of two classes with boxes of four to eight voxels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 1, size, size, size, dtype=torch.int16)
    for number in range(40):
        start = torch.randint(0, size - 8, (3,), generator=generator).tolist()
        side = 4 + number % 5
        labels[(number % 2, 0, *(slice(first, first + side) for first in start))] = 1 + number % 2
    return labels


def scales(target: Tensor) -> list[Tensor]:
    """The targets of all outputs, by nearest neighbour."""
    return [target[(..., *(slice(2**k // 2, None, 2**k),) * 3)] for k in range(OUTPUTS)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 4, (32, 64, 128, 256), nn.Conv3d, 3, (1, 2, 2, 2), 2, 3, 2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    images, target = torch.randn(2, 1, *(arguments.size,) * 3), target_of(arguments.size)
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    steps = {"nnU-Net's own": (DeepSupervisionWrapper(theirs, WEIGHTS), scales(target))}
    settings = {"regions": None, "ignore_label": None, "batch_dice": True, "several_processes": False}
    for name in LOSSES:
        loss = nnunet_loss(name, {}, classes=3, **settings)
        given = torch.stack([loss.maps.add(one) for one in target]) if isinstance(loss, WithMaps) else target
        steps[name] = (DeepSupervisionWrapper(loss, WEIGHTS), scales(given))

    def seconds(loss: nn.Module, targets: list[Tensor]) -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss(network(images)[:OUTPUTS], targets).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return time.process_time() - start

    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, given in steps.items():
            taken = seconds(*given)
            if turn:  # the first warms up
                times[name].append(taken)
    own = times["nnU-Net's own"]
    print(f"{arguments.size}³ voxels, batch 2, three classes, one thread, torch {torch.__version__}")
    for name, each in times.items():
        ratio = statistics.median(a / b for a, b in zip(each, own, strict=True))
        print(f"{name:20} {statistics.median(each):7.2f} s {ratio:7.3f} × nnU-Net's own")


if __name__ == "__main__":
    main()
