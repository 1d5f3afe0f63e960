"""Skeletons of masks, by scikit-image, which is imported when one is asked for."""

import numpy as np

from voxloss.utilities.arrays import Mask

RADIUS = 2  # voxels that the tube reaches from the skeleton, counted along the axes


def tubed_skeleton(mask: Mask) -> Mask:
    """Return the skeleton of a mask and the voxels within `RADIUS` steps of it that share a face.

    The skeleton is that of `skimage.morphology.skeletonize`: by Zhang and Suen's thinning in two dimensions, by Lee,
    Kashyap and Chu's in three; axes of one voxel do not count as dimensions. In one dimension a mask is its own
    skeleton. The tube may leave the mask.

    Raises:
        ModuleNotFoundError: scikit-image is not installed; the message says how to install it.
    """
    try:
        from skimage.morphology import skeletonize
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "skeletons need scikit-image, which is not installed: pip install 'voxloss[skeletons]'", name=error.name
        ) from None
    from scipy import ndimage  # comes with scikit-image

    if not mask.any():
        return np.zeros_like(mask)
    flat = mask.squeeze()
    if flat.ndim < 2:
        flat = flat.reshape(1, -1)
    skeleton = np.asarray(skeletonize(flat)).astype(bool)
    tube: Mask = ndimage.binary_dilation(skeleton, iterations=RADIUS)
    return tube.reshape(mask.shape)
