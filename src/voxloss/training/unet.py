"""The 3D U-Net of Çiçek et al. (2016), as in the paper's framework (MIScnn, "standard"); of slices a 2D one."""

from typing import Any

import torch
from torch import Tensor, nn

from voxloss.training.planar import slice_axis
from voxloss.utilities.errors import InputError

_LAYERS: dict[int, dict[str, Any]] = {
    2: {
        "convolution": nn.Conv2d, "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d,
        "pool": nn.MaxPool2d, "upsample": nn.ConvTranspose2d,
    },
    3: {
        "convolution": nn.Conv3d, "batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d,
        "pool": nn.MaxPool3d, "upsample": nn.ConvTranspose3d,
    },
}  # fmt: skip


def _convolutions(inputs: int, outputs: int, norm: str, kernel: tuple[int, ...]) -> nn.Sequential:
    of_dimensions = _LAYERS[len(kernel)]
    layers: list[nn.Module] = []
    padding = tuple(extent // 2 for extent in kernel)
    for channels in (inputs, outputs):
        layers.append(of_dimensions["convolution"](channels, outputs, kernel_size=kernel, padding=padding))
        if norm == "batch":
            layers.append(of_dimensions["batch"](outputs, momentum=0.01))  # Keras counts the other way: 0.99
        else:
            layers.append(of_dimensions["instance"](outputs, affine=True))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net: two convolutions of 3 voxels along each axis per level, max pooling, transposed convolutions, skips.

    Convolutions are normalised and followed by a ReLU. An axis is halved at a level only while it stays at least 4
    voxels long and even for patches of `patch_size`, so that flat patches keep their slices; with the paper's patches
    every axis is halved at every level. Patches of one slice make it a 2D U-Net, whose layers are two-dimensional: they
    give what 3D layers with kernels of one voxel along that axis would give, in half the time.

    Args:
        channels: Channels of the image.
        classes: Number of outputs, background included.
        patch_size: Voxels of a training patch per axis; determines which axes are halved at which level.
        filters: Channels at the top level, doubled at every level.
        depth: Number of poolings.
        norm: "batch" (momentum 0.99 in Keras's sense) or "instance".

    Shapes: (B, channels, *spatial) to logits (B, classes, *spatial), with three spatial axes; each must be
    a multiple of the product of its poolings, as `patch_size` is.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        patch_size: tuple[int, int, int],
        filters: int = 32,
        depth: int = 4,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.slice_axis = slice_axis(patch_size)
        axes = [axis for axis in range(3) if axis != self.slice_axis]
        strides = [tuple(stride[axis] for axis in axes) for stride in pooling_strides(patch_size, depth)]
        widths = [filters * 2**level for level in range(depth + 1)]
        kernel = tuple(1 if patch_size[axis] == 1 else 3 for axis in axes)
        layers = _LAYERS[len(axes)]
        self.encoder = nn.ModuleList(
            _convolutions(inputs, outputs, norm, kernel)
            for inputs, outputs in zip([channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.pools = nn.ModuleList(layers["pool"](stride) for stride in strides)
        self.bottom = _convolutions(widths[-2], widths[-1], norm, kernel)
        self.upsamplers = nn.ModuleList(
            layers["upsample"](2 * width, width, kernel_size=stride, stride=stride)
            for width, stride in zip(reversed(widths[:-1]), reversed(strides), strict=True)
        )
        self.decoder = nn.ModuleList(_convolutions(2 * width, width, norm, kernel) for width in reversed(widths[:-1]))
        self.head = layers["convolution"](filters, classes, kernel_size=1)
        self.register_load_state_dict_pre_hook(_fit_weights)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, classes, *spatial) of an image (B, channels, *spatial)."""
        skips = []
        features = image if self.slice_axis is None else image.squeeze(2 + self.slice_axis)
        for convolutions, pool in zip(self.encoder, self.pools, strict=True):
            features = convolutions(features)
            skips.append(features)
            features = pool(features)
        features = self.bottom(features)
        for upsample, convolutions in zip(self.upsamplers, self.decoder, strict=True):
            features = convolutions(torch.cat([skips.pop(), upsample(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits if self.slice_axis is None else logits.unsqueeze(2 + self.slice_axis)


def _fit_weights(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give weights the network's shape: those of slices had an axis of one voxel in studies of earlier versions."""
    for name, own in network.state_dict().items():
        if (saved := state.get(prefix + name)) is not None and saved.numel() == own.numel():
            state[prefix + name] = saved.reshape(own.shape)


def pooling_strides(patch_size: tuple[int, int, int], depth: int) -> list[tuple[int, int, int]]:
    """Return the pooling of each level: 2 on every axis that stays even and at least 4 voxels long, else 1.

    Raises:
        InputError: An axis cannot be halved at the top level, because it is odd or shorter than 4 (and not one voxel
            long).
    """
    extents = list(patch_size)
    strides = []
    for _ in range(depth):
        stride = [2 if extent % 2 == 0 and extent >= 4 else 1 for extent in extents]
        extents = [extent // step for extent, step in zip(extents, stride, strict=True)]
        strides.append((stride[0], stride[1], stride[2]))
    if strides and any(step == 1 < extent for step, extent in zip(strides[0], patch_size, strict=True)):
        raise InputError(
            f"patches.size: every axis must be even and at least 4 voxels long, or 1; received {patch_size}."
        )
    return strides
