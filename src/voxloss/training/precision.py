"""The network's arithmetic: autocast, and a way round convolutions whose gradient is wrong in bfloat16 on a CPU."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from voxloss.config import TrainingConfig


def place(network: nn.Module, device: torch.device, setting: TrainingConfig) -> None:
    """Move a network to its device in the channels-last layout, and make its training in bfloat16 safe there.

    oneDNN's bfloat16 convolution in this layout reads memory that nobody wrote when it computes the weights' gradient
    and the kernel is longer than the image along an axis (seen in torch 2.13 with 3×3×3 kernels on two slices): the
    gradient is NaN or wrong, now and then. Such convolutions, at the bottom of the network, are done in float32.
    """
    network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if device.type == "cpu" and setting.precision == "bfloat16":
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.forward = partial(_float32_where_small, module, module.forward)  # type: ignore[method-assign]


def _float32_where_small(
    module: nn.Conv3d | nn.ConvTranspose3d, forward: Callable[..., Tensor], image: Tensor, *arguments: object
) -> Tensor:
    reach = (step * (size - 1) + 1 for size, step in zip(module.kernel_size, module.dilation, strict=True))
    if all(extent >= kernel for extent, kernel in zip(image.shape[2:], reach, strict=True)):
        return forward(image, *arguments)
    with torch.autocast("cpu", enabled=False):
        return forward(image.float(), *arguments).to(image.dtype)


def autocast(device: torch.device, setting: TrainingConfig) -> torch.autocast:
    """The context of a forward pass in the study's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bfloat16")
