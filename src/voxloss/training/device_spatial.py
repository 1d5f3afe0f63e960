"""The spatial transform of batchgeneratorsv2 on a GPU; the original computes grids and fields on the CPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import sample_scalar
from batchgeneratorsv2.transforms.spatial.spatial import (
    SpatialTransform,
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)
from torch import Tensor
from torch.nn.functional import grid_sample


class DeviceSpatialTransform(SpatialTransform):  # type: ignore[misc]  # batchgeneratorsv2 has no types
    """The transform of the base class on the image's device; same distribution, and on a CPU the same random numbers.

    The settings are those of the base class; cropping, probabilities per axis, synchronised axes and other border
    modes, which the study does not use, have no effect. A voxel's label is the class with the largest linearly
    interpolated share (of equal shares the lower class; the base class takes the nearest voxel's label). Outside the
    patch it is background.
    """

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Draw angles, scales and the elastic field in the base class's order, and return the sampling grid."""
        image = data_dict["image"]
        size, dim = tuple(self.patch_size), image.ndim - 1
        uniform = np.random.uniform
        rotates, scales, deforms = (uniform() < p for p in (self.p_rotation, self.p_scaling, self.p_elastic_deform))
        angles = [sample_scalar(self.rotation, image=image, dim=axis) if rotates else 0 for axis in range(dim)]
        factors = [1.0] * dim
        if scales:
            uniform()  # what the base class draws to decide whether axes are synchronised
            factors = [sample_scalar(self.scaling, image=image, dim=axis) for axis in range(dim)]
        offsets = self._offsets(image, dim) if deforms else None
        if not (rotates or scales or deforms):
            return {"grid": None}
        axes = [torch.linspace((1 - n) / 2, (n - 1) / 2, n, device=image.device) for n in size]
        grid = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)
        if offsets is not None:
            grid += offsets
        if rotates or scales:
            matrix = (
                create_affine_matrix_3d(angles, factors) if dim == 3 else create_affine_matrix_2d(angles[-1], factors)
            )
            grid = grid @ torch.from_numpy(matrix.T).to(grid)
        if offsets is not None:
            grid -= grid.mean(dim=tuple(range(dim)))
        grid /= torch.tensor(size, device=grid.device) / 2
        return {"grid": grid.flip(-1)}

    def _offsets(self, image: Tensor, dim: int) -> Tensor:
        """Return displacements in voxels (*size, dim): smoothed noise with a given largest value along each axis."""
        uniform, size = np.random.uniform, tuple(self.patch_size)
        uniform()  # as above
        widths = [
            sample_scalar(self.elastic_deform_scale, image=image, dim=axis, patch_size=size) for axis in range(dim)
        ]
        largest = [
            sample_scalar(
                self.elastic_deform_magnitude, image=image, patch_size=size, dim=axis, deformation_scale=widths[axis]
            )
            for axis in range(dim)
        ]
        noise = torch.normal(0.0, 1.0, (dim, *size), device=image.device)
        fields = []
        for axis in range(dim):
            field = _smoothed(noise[axis], widths[axis] * size[axis])
            fields.append(field * (max(largest[axis], 1e-8) / field.abs().max()))
        return torch.stack(fields, dim=-1)

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        if params["grid"] is None:
            return img
        return grid_sample(img[None], params["grid"][None], padding_mode="zeros", align_corners=False)[0]

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        if params["grid"] is None:
            return segmentation
        grid = params["grid"][None]
        best = torch.full(segmentation.shape, -torch.inf, device=segmentation.device)
        result = torch.zeros_like(segmentation)
        for value in torch.unique(torch.cat([segmentation.new_zeros(1), segmentation.flatten()])).tolist():
            # Outside the patch is background: its indicator less one is 0 there, as grid_sample pads.
            shift = 1.0 if value == 0 else 0.0
            indicator = (segmentation == value).float() - shift
            share = grid_sample(indicator[None], grid, padding_mode="zeros", align_corners=False)[0] + shift
            result = torch.where(share > best, value, result)
            best = torch.maximum(best, share)
        return result


def _smoothed(noise: Tensor, sigma: float) -> Tensor:
    """Convolve noise with a Gaussian of `sigma` voxels, periodic at the borders, as scipy's fourier_gaussian."""
    spectrum = torch.fft.fftn(noise)
    for axis, extent in enumerate(noise.shape):
        frequency = torch.fft.fftfreq(extent, device=noise.device)
        gaussian = torch.exp(-2 * (torch.pi * sigma * frequency) ** 2)
        spectrum *= gaussian.view(_along(axis, extent, noise.ndim))
    smoothed: Tensor = torch.fft.ifftn(spectrum).real
    return smoothed


def _along(axis: int, extent: int, dim: int) -> Sequence[int]:
    return [extent if place == axis else 1 for place in range(dim)]
