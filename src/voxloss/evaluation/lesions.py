"""Lesions as connected pieces of a mask, and which of them two masks share."""

from typing import NamedTuple

import numpy as np


class LesionMatch(NamedTuple):
    """How many lesions each mask has, and how many touch the other: `found` of the reference, `right` of the others."""

    in_reference: int
    found: int
    in_prediction: int
    right: int


def match_lesions(reference: np.ndarray, prediction: np.ndarray) -> LesionMatch:
    """Count the lesions of both masks and those that share at least one voxel with the other mask.

    A lesion is a piece connected by faces, edges or corners (26 neighbours in three dimensions). One voxel in common
    is enough, the criterion of the lesion-wise rates of the ISBI 2015 multiple sclerosis challenge (Carass et al.
    2017), so that the count tells whether lesions are seen and the overlap metrics how well they are outlined.

    Args:
        reference: bool, any shape.
        prediction: bool, the same shape.
    """
    in_reference, found = _touched(reference, prediction)
    in_prediction, right = _touched(prediction, reference)
    return LesionMatch(in_reference, found, in_prediction, right)


def _touched(mask: np.ndarray, by: np.ndarray) -> tuple[int, int]:
    from scipy import ndimage

    if mask.size == 0:
        return 0, 0
    pieces, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    touched = np.zeros(count + 1, dtype=bool)
    touched[pieces[by]] = True
    return count, int(touched[1:].sum())
