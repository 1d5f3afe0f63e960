"""The study's network: the U-Net, or any class by its import path."""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from voxloss.config.networks import UNET, NetworkConfig
from voxloss.config.schema import Size
from voxloss.training.planar import Planar, slice_axis
from voxloss.training.unet import UNet, pooling_strides
from voxloss.utilities.errors import InputError
from voxloss.utilities.imports import import_attribute
from voxloss.utilities.install import install_command


def make_network(setting: NetworkConfig, size: Size, channels: int, classes: int) -> nn.Module:
    """Build the study's network for patches of `size`, with weights from torch's global generator.

    `network.name` is "unet" or the import path of a class or function. This is called with `network.arguments`, and
    with in_channels, out_channels or num_classes, spatial_dims (3, or 2 for patches of one slice) and img_size (the
    patch, or its plane) if it has parameters of these names that are not in `network.arguments`.

    Raises:
        InputError: `network.name` cannot be imported, or cannot be called with these arguments.
    """
    if setting.name == UNET:
        return UNet(channels, classes, size, setting.filters, setting.depth, setting.norm)
    make = _imported(setting.name)
    axis = slice_axis(size)
    known = {
        "in_channels": channels,
        "out_channels": classes,
        "num_classes": classes,
        "spatial_dims": 3 if axis is None else 2,
        "img_size": tuple(extent for place, extent in enumerate(size) if place != axis),
    }
    try:
        parameters = set(inspect.signature(make).parameters)
    except ValueError:  # some builtins have none
        parameters = set()
    try:
        network = make(**{name: value for name, value in known.items() if name in parameters} | setting.arguments)
    except Exception as error:  # a constructor outside this package may raise anything
        raise InputError(
            f"network.name {setting.name} cannot be built with these arguments: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"network.name {setting.name} returns a {type(network).__name__}, not a torch.nn.Module.")
    return network if axis is None else Planar(network, axis)


def outputs(output: Any) -> list[Tensor]:
    """Return the logits of a network as a list, the finest first; with deep supervision there are several.

    A network may return several as a list or tuple, or stacked along the axis after the batch, as MONAI's DynUNet does.
    """
    if isinstance(output, Tensor):
        return list(output.unbind(1)) if output.ndim == 6 else [output]
    return list(output)


def check_network(setting: NetworkConfig, size: Size | None, channels: int | None, classes: int) -> None:
    """Try the network on a patch on torch's meta device, without data.

    Without `channels`, only the network's name is checked; without `size`, the U-Net's pooling is not checked.

    Raises:
        InputError: The network cannot be built, does not take such patches, or its output is not one logit per class
            and voxel.
    """
    if setting.name == UNET:
        if size is not None:
            pooling_strides(size, setting.depth)
        return
    if size is None or channels is None:
        _imported(setting.name)
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        network = make_network(setting, size, channels, classes).eval()
        try:
            logits = outputs(network(torch.empty(1, channels, *size)))[0]
        except Exception as error:
            patch = " x ".join(map(str, (channels, *size)))
            reason = " ".join(str(error).split())
            raise InputError(f"network.name {setting.name} does not take patches of {patch}: {reason}") from error
    if tuple(logits.shape) != (1, classes, *size):
        raise InputError(
            f"network.name {setting.name} returns {tuple(logits.shape)} for a patch of {(1, channels, *size)}; "
            f"it should return {(1, classes, *size)}."
        )


def _imported(path: str) -> Callable[..., Any]:
    if "." not in path:
        raise InputError(
            f"network.name must be unet or an import path such as monai.networks.nets.SegResNet; "
            f"{path!r} cannot be imported."
        )
    if path.startswith("monai.") and importlib.util.find_spec("monai") is None:
        raise InputError(f"network.name {path} needs MONAI, which is not installed: {install_command('bench')}.")
    attribute = import_attribute(path, "network.name")
    if not callable(attribute):
        raise InputError(
            f"network.name {path} is a {type(attribute).__name__}, which cannot be called to build a network."
        )
    network: Callable[..., Any] = attribute
    return network
