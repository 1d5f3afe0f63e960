"""What is taken from a case's probabilities while they are predicted, for they are never in memory as a whole."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxloss.data.grid import flattened
from voxloss.data.probabilities import to_bytes
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.probabilities.counts import ProbabilityCounter
from voxloss.evaluation.probabilities.froc import LESION_THRESHOLDS, lesions_by_threshold
from voxloss.utilities.arrays import ClassIndices, Float32s


class KeptProbabilities:
    """The probabilities of some foreground classes in steps of 1/255, on the grid that is watched."""

    def __init__(self, shape: Sequence[int], places: Sequence[int]) -> None:
        """Make room.

        Args:
            shape: The grid's shape.
            places: The indices of the classes that are kept.
        """
        self._places = {index: place for place, index in enumerate(places)}
        self.values: ClassIndices = np.zeros((len(places), *shape), dtype=np.uint8)

    def watch(self, index: int, box: tuple[slice, slice, slice], values: Float32s) -> None:
        """Keep a box of one class (`voxloss.data.prepare.resample.Watch`)."""
        if index in self._places:
            self.values[(self._places[index], *box)] = to_bytes(values)


class ScoredProbabilities:
    """Counts the voxels of a case by probability and reference, and keeps one class to find its lesions."""

    def __init__(self, reference: ClassIndices, n_classes: int, ignore_index: int | None, lesion_index: int) -> None:
        """Begin with a case.

        Args:
            reference: Class indices, along the axes of the data set.
            n_classes: Number of classes, with the background.
            ignore_index: The value of voxels that do not count; None: all count.
            lesion_index: The class whose lesions are matched at several thresholds; 0: none.
        """
        self._reference, self._ignore, self._index = reference, ignore_index, lesion_index
        self._counter = ProbabilityCounter(reference, n_classes, ignore_index)
        self._kept = KeptProbabilities(reference.shape, [lesion_index] if lesion_index else [])
        self.counts = self._counter.counts

    def watch(self, index: int, box: tuple[slice, slice, slice], values: Float32s) -> None:
        """Take a box of one class."""
        self._counter.add(index, box, values)
        self._kept.watch(index, box, values)

    def lesions(self, size: float, rules: LesionRules, flat_axis: int | None = None) -> NDArray[np.int64]:
        """Match the lesions of the class at every threshold; zeros without one.

        Args:
            size: Of a voxel in ml; of the pixel of an image in mm² or pixels.
            rules: How lesions are matched.
            flat_axis: The axis along which an image has one voxel; None: the case is a volume.
        """
        if not self._index:
            return np.zeros((len(LESION_THRESHOLDS), 3), dtype=np.int64)
        probability = self._kept.values[0]
        if self._ignore is not None:
            probability = np.where(self._reference == self._ignore, np.uint8(0), probability)
        reference = flattened(self._reference == self._index, flat_axis)
        return lesions_by_threshold(reference, flattened(probability, flat_axis), size, rules)
