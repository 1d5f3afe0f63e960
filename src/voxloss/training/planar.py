"""Two-dimensional training: patches of one slice, and 2D networks."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def slice_axis(size: Sequence[int]) -> int | None:
    """Return the axis along which patches are a single slice; None for volumes (or if several axes have one voxel).

    Patches such as (1, 256, 256) are trained with a 2D network.
    """
    single = [axis for axis, extent in enumerate(size) if extent == 1]
    return single[0] if len(single) == 1 else None


class Planar(nn.Module):
    """A 2D network as a network on volumes of one slice.

    Args:
        network: Maps (B, channels, *plane) to logits (B, classes, *plane), or with deep supervision to several: a list,
            or stacked along the axis after the batch.
        axis: The spatial axis with one voxel.

    Shapes: (B, channels, *size) to logits (B, classes, *size), or a list of them.
    """

    def __init__(self, network: nn.Module, axis: int) -> None:
        super().__init__()
        self.network, self.axis = network, 2 + axis

    def forward(self, image: Tensor) -> Any:
        """Return the logits of patches of one slice, as the 2D network gives them."""
        output = self.network(image.squeeze(self.axis))
        if isinstance(output, Tensor):
            if output.ndim == 4:
                return output.unsqueeze(self.axis)
            output = output.unbind(1)
        return [logits.unsqueeze(self.axis) for logits in output]
