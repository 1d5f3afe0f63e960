"""The 3D U-Net of Çiçek et al. (2016), in the form of the paper's framework (MIScnn, "standard")."""

import torch
from torch import nn

from voxloss.utilities.errors import InputError


def _convolutions(inputs: int, outputs: int, norm: str, kernel: tuple[int, int, int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    for channels in (inputs, outputs):
        layers.append(nn.Conv3d(channels, outputs, kernel_size=kernel, padding=padding))
        if norm == "batch":
            layers.append(nn.BatchNorm3d(outputs, momentum=0.01))  # Keras counts the other way: 0.99
        else:
            layers.append(nn.InstanceNorm3d(outputs, affine=True))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet3D(nn.Module):
    """3D U-Net: two 3×3×3 convolutions (normalised, ReLU) per level, max pooling, transposed convolutions, skips.

    An axis is halved at a level only while it stays at least 4 voxels long and even for patches of `patch_size`, so
    that flat patches keep their slices; with the paper's patches every axis is halved at every level. Along an axis of
    one voxel the kernels have size 1, so that patches of one slice make it a 2D U-Net.

    Args:
        channels: Channels of the image.
        classes: Number of outputs, background included.
        patch_size: Voxels of a training patch per axis; determines which axes are halved at which level.
        filters: Channels at the top level, doubled at every level.
        depth: Number of poolings.
        norm: "batch" (momentum 0.99 in Keras's sense) or "instance".

    Shapes: (B, channels, *spatial) to logits (B, classes, *spatial); every axis of `spatial` must be
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
        strides = pooling_strides(patch_size, depth)
        widths = [filters * 2**level for level in range(depth + 1)]
        first, second, third = (1 if extent == 1 else 3 for extent in patch_size)
        kernel = (first, second, third)
        self.encoder = nn.ModuleList(
            _convolutions(inputs, outputs, norm, kernel)
            for inputs, outputs in zip([channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.pools = nn.ModuleList(nn.MaxPool3d(stride) for stride in strides)
        self.bottom = _convolutions(widths[-2], widths[-1], norm, kernel)
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(2 * width, width, kernel_size=stride, stride=stride)
            for width, stride in zip(reversed(widths[:-1]), reversed(strides), strict=True)
        )
        self.decoder = nn.ModuleList(_convolutions(2 * width, width, norm, kernel) for width in reversed(widths[:-1]))
        self.head = nn.Conv3d(filters, classes, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, *spatial) of an image (B, channels, *spatial)."""
        skips = []
        features = image
        for convolutions, pool in zip(self.encoder, self.pools, strict=True):
            features = convolutions(features)
            skips.append(features)
            features = pool(features)
        features = self.bottom(features)
        for upsample, convolutions in zip(self.upsamplers, self.decoder, strict=True):
            features = convolutions(torch.cat([skips.pop(), upsample(features)], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits


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
