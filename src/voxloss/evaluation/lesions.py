"""Lesions as connected components of a mask, and which of them two masks share."""

from typing import NamedTuple

from voxloss.geometry.components import count_touched
from voxloss.utilities.arrays import Mask


class LesionMatch(NamedTuple):
    """How many lesions each mask has, and how many of them share a voxel with the other mask.

    Those are `found` of the reference's lesions and `right` of the prediction's.
    """

    in_reference: int
    found: int
    in_prediction: int
    right: int


def match_lesions(reference: Mask, prediction: Mask) -> LesionMatch:
    """Count the lesions of both masks and those that share at least one voxel with the other mask.

    A lesion is a component connected by faces, edges or corners (26 neighbours in three dimensions). One voxel in
    common is enough, the criterion of the lesion-wise rates of the ISBI 2015 multiple sclerosis challenge (Carass et
    al. 2017), so that the count tells whether lesions are seen and the overlap metrics how well they are outlined.

    Args:
        reference: bool, any shape.
        prediction: bool, the same shape.
    """
    in_reference, found = count_touched(reference, prediction)
    in_prediction, right = count_touched(prediction, reference)
    return LesionMatch(in_reference, found, in_prediction, right)
