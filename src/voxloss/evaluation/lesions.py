"""Match the lesions (connected components) of two masks."""

from typing import NamedTuple

from voxloss.geometry.components import count_touched
from voxloss.utilities.arrays import Mask


class LesionMatch(NamedTuple):
    """Numbers of lesions of two masks.

    `detected` counts the lesions of the reference that share a voxel with the prediction, `matching` those of the
    prediction that share a voxel with the reference.
    """

    in_reference: int
    detected: int
    in_prediction: int
    matching: int


def match_lesions(reference: Mask, prediction: Mask) -> LesionMatch:
    """Count the lesions of both masks and those that share at least one voxel with the other mask.

    A lesion is a component connected by faces, edges or corners (26 neighbours in three dimensions). One voxel in
    common is sufficient, which is the criterion of the lesion-wise rates of the ISBI 2015 multiple sclerosis challenge
    (Carass et al. 2017), so that the count says whether lesions are detected, and the overlap metrics how well they are
    outlined.

    Args:
        reference: Mask of bool, of any shape.
        prediction: Mask of bool of the same shape.
    """
    in_reference, detected = count_touched(reference, prediction)
    in_prediction, matching = count_touched(prediction, reference)
    return LesionMatch(in_reference, detected, in_prediction, matching)
