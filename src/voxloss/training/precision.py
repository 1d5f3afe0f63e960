"""The network's memory layout and precision, with float32 where bfloat16 convolutions have wrong gradients."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from voxloss.config.schema import StudyConfig, TrainingConfig

Convolution = nn.Conv3d | nn.ConvTranspose3d | nn.Conv2d | nn.ConvTranspose2d


def layout(config: StudyConfig) -> torch.memory_format:
    """Return the memory layout of images and weights: channels last, in which convolutions are faster, or plain."""
    return torch.channels_last_3d if config.execution.channels_last else torch.contiguous_format


def place(network: nn.Module, device: torch.device, config: StudyConfig) -> None:
    """Move a network to its device in the study's layout, and make its training in bfloat16 safe there.

    If the kernel is longer than the image along an axis, oneDNN's bfloat16 convolution in the channels-last layout
    reads uninitialised memory for the weights' gradient (torch 2.13, 3×3×3 kernels on two slices), which is then
    sometimes NaN or wrong. Such convolutions, at the bottom of the network, are computed in float32.
    """
    network.to(device)
    formats = {5: torch.channels_last_3d, 4: torch.channels_last} if config.execution.channels_last else {}
    for parameter in network.parameters():
        format_of_weights = formats.get(parameter.ndim, torch.contiguous_format)
        parameter.data = parameter.data.contiguous(memory_format=format_of_weights)
    if device.type == "cpu" and config.training.precision == "bfloat16":
        for module in network.modules():
            if isinstance(module, Convolution):
                # mypy: a method may not be replaced, but here it is, for this one module alone.
                module.forward = partial(_float32_where_small, module, module.forward)  # type: ignore[method-assign]


def _float32_where_small(
    module: Convolution, forward: Callable[..., Tensor], image: Tensor, *arguments: object
) -> Tensor:
    reach = (step * (size - 1) + 1 for size, step in zip(module.kernel_size, module.dilation, strict=True))
    if all(extent >= kernel for extent, kernel in zip(image.shape[2:], reach, strict=True)):
        return forward(image, *arguments)
    with torch.autocast("cpu", enabled=False):
        return forward(image.float(), *arguments).to(image.dtype)


def autocast(device: torch.device, setting: TrainingConfig) -> torch.autocast:
    """Return the context of a forward pass in the study's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bfloat16")
