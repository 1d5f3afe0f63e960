"""Match the lesions (connected components) of two masks, for all scores of lesions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxloss.evaluation.lesion_rules import Connectivity, LesionRules, SizeLimits
from voxloss.geometry.components import Components, Neighbours, dilated, find_components, merge_close
from voxloss.utilities.arrays import ClassIndices, Float64s, Integers, Mask
from voxloss.utilities.errors import InputError

NEIGHBOURS: Mapping[Connectivity, Neighbours] = {6: "faces", 18: "edges", 26: "corners"}

# A volume on a limit is not below it, also where its last digit was rounded down.
ROUNDING = 1e-9


@dataclass(frozen=True)
class LesionMatch:
    """The lesions of two masks that are counted, and what matches.

    Args:
        volumes_ml: The volume of every lesion of the reference.
        detected: Whether it matches a predicted lesion.
        dice: Its Dice coefficient with all predicted lesions that it matches, taken together; 0 if it was missed.
        true_predictions: Number of predicted lesions that match a lesion of the reference.
        false_predictions: Number of those that match none.
        panoptic_ious: The intersection over union of every pair of the panoptic matching.
        panoptic_false_predictions: Number of predicted lesions that are in no such pair.
        places: A voxel in every lesion of the reference, (lesions, dimensions).
        false_volumes_ml: The volume of every predicted lesion that matches none.
        false_places: A voxel in each of these.
    """

    volumes_ml: Float64s
    detected: Mask
    dice: Float64s
    true_predictions: int
    false_predictions: int
    panoptic_ious: Float64s
    panoptic_false_predictions: int
    places: Integers
    false_volumes_ml: Float64s
    false_places: Integers

    def moved(self, start: Sequence[int]) -> "LesionMatch":
        """Return the match with its places in a larger grid, where the masks' first voxel is at `start`."""
        return replace(self, places=self.places + np.array(start), false_places=self.false_places + np.array(start))

    def in_volume(self, flat_axis: int) -> "LesionMatch":
        """Return the match of a plane with its places in the volume of one slice across `flat_axis`."""
        places, false_places = (np.insert(points, flat_axis, 0, axis=1) for points in (self.places, self.false_places))
        return replace(self, places=places, false_places=false_places)


class _Pairs(NamedTuple):
    """Pairs of lesions that touch: their numbers in the reference and the prediction, and the voxels in common."""

    reference: NDArray[np.intp]
    prediction: NDArray[np.intp]
    overlap: NDArray[np.intp]

    def chosen(self, which: NDArray[np.intp] | Mask) -> "_Pairs":
        return _Pairs(*(column[which] for column in self))


def match_lesions(reference: Mask, prediction: Mask, voxel_ml: float, rules: LesionRules | None = None) -> LesionMatch:
    """Find and match the lesions of two masks by `LesionRules`.

    By default a lesion is detected if it shares one voxel with the prediction, which is the criterion of the
    lesion-wise rates of the ISBI 2015 multiple sclerosis challenge (Carass et al. 2017), so that the counts say whether
    lesions are detected, and the overlap metrics how well they are outlined. The panoptic matching is one to one with
    an intersection over union above 0.5 (Kirillov et al. 2019), as in Metrics Reloaded (Maier-Hein, Reinke et al. 2024)
    and panoptica (Kofler et al. 2023). Dilation and the Dice of a lesion follow BraTS 2023
    (rachitsaluja/BraTS-2023-Metrics, metrics.py).

    Args:
        reference: Mask, of two or three dimensions; what is not 0 belongs to lesions.
        prediction: Mask of the same shape.
        voxel_ml: The volume of a voxel, ml; of images the area of a pixel, in which all sizes then are.
        rules: The rules; None: their defaults. Those of images are `LesionRules.of_areas`.

    Returns:
        The lesions that are counted, and what matches. Without a lesion in one mask or both, its numbers are 0.

    Raises:
        InputError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        raise InputError(f"reference and prediction must have one shape, got {reference.shape} and {prediction.shape}")
    rules = rules or LesionRules()
    return match_found(find_lesions(reference.astype(bool, copy=False), rules), prediction, voxel_ml, rules)


def match_found(ours: Components, prediction: Mask, voxel_ml: float, rules: LesionRules) -> LesionMatch:
    """Match the lesions of a reference, found before (`find_lesions`), with those of a mask: see `match_lesions`."""
    prediction = prediction.astype(bool, copy=False)
    theirs = find_components(prediction, NEIGHBOURS[rules.connectivity])
    return _match(ours, theirs, prediction, voxel_ml, rules)[0]


def lesion_marks(
    reference: Mask, prediction: Mask, voxel_ml: float, rules: LesionRules | None = None
) -> tuple[LesionMatch, ClassIndices]:
    """Match as `match_lesions`; also return a map with 1 in lesions that were missed and 2 in false positives."""
    rules = rules or LesionRules()
    reference, prediction = reference.astype(bool, copy=False), prediction.astype(bool, copy=False)
    ours = find_lesions(reference, rules)
    theirs = find_components(prediction, NEIGHBOURS[rules.connectivity])
    match, missed, false = _match(ours, theirs, prediction, voxel_ml, rules)
    marks = np.zeros(reference.size, dtype=np.uint8)
    marks[ours.voxels[missed[ours.numbers]]] = 1
    marks[theirs.voxels[false[theirs.numbers]]] = 2
    return match, marks.reshape(reference.shape)


def _match(
    ours: Components, theirs: Components, prediction: Mask, voxel_ml: float, rules: LesionRules
) -> tuple[LesionMatch, Mask, Mask]:
    """Return the match; of every lesion of the reference whether it was missed; of predicted ones whether it is false.

    Lesions that are not counted are neither.
    """
    sizes, predicted_sizes = ours.sizes(), theirs.sizes()
    pairs = _touching(ours, theirs, prediction, rules.dilation)
    ious = pairs.overlap / (sizes[pairs.reference] + predicted_sizes[pairs.prediction] - pairs.overlap)
    least = rules.minimum_volume_ml if rules.minimum_predicted_ml is None else rules.minimum_predicted_ml
    volumes, predicted_volumes = _volumes(ours, voxel_ml), _volumes(theirs, voxel_ml)
    counted = volumes >= rules.minimum_volume_ml * (1 - ROUNDING)
    large = predicted_volumes >= least * (1 - ROUNDING)

    matched, false = _matched(
        pairs, ious, (ious > rules.threshold) | (rules.threshold == 0), counted, large, rules.match == "one_to_one"
    )
    panoptic, panoptic_false = _matched(pairs, ious, ious > rules.panoptic_threshold, counted, large, one_to_one=True)
    found = pairs.chosen(matched)
    overlap = np.bincount(found.reference, found.overlap, minlength=ours.count)
    with_it = np.bincount(found.reference, predicted_sizes[found.prediction], minlength=ours.count)
    dice = 2 * overlap / (sizes + with_it)
    detected = np.bincount(found.reference, minlength=ours.count) > 0
    match = LesionMatch(
        volumes_ml=volumes[counted],
        detected=detected[counted],
        dice=dice[counted],
        true_predictions=len(np.unique(found.prediction)),
        false_predictions=int(false.sum()),
        panoptic_ious=ious[panoptic],
        panoptic_false_predictions=int(panoptic_false.sum()),
        places=_places(ours, prediction.shape)[counted],
        false_volumes_ml=predicted_volumes[false],
        false_places=_places(theirs, prediction.shape)[false],
    )
    return match, counted & ~detected, false


def _places(lesions: Components, shape: Sequence[int]) -> Integers:
    """Return of every lesion the middle one of its voxels in the order of the grid, which lies in it."""
    sizes = lesions.sizes()
    in_order = lesions.voxels[np.argsort(lesions.numbers, kind="stable")]
    middle = in_order[np.cumsum(sizes) - sizes + sizes // 2]
    return np.stack(np.unravel_index(middle, tuple(shape)), axis=-1)


def find_lesions(reference: Mask, rules: LesionRules) -> Components:
    """Return the lesions of a reference of any volume: its components, those merged that touch after the dilation."""
    neighbours = NEIGHBOURS[rules.connectivity]
    components = find_components(reference, neighbours)
    return merge_close(components, reference.shape, rules.dilation, neighbours) if rules.dilation else components


def lesion_volumes(reference: Mask, voxel_ml: float, rules: LesionRules) -> Float64s:
    """Return the volumes (ml) of the lesions of a reference that are counted."""
    volumes = _volumes(find_lesions(reference, rules), voxel_ml)
    return volumes[volumes >= rules.minimum_volume_ml * (1 - ROUNDING)]


def limits_of_classes(volumes_ml: Mapping[str, Sequence[Float64s]]) -> dict[str, SizeLimits]:
    """Return for each class the largest volumes of its smallest and of its middle third of lesions.

    Args:
        volumes_ml: Class name -> the volumes of the lesions of every case. A class without a lesion has no limits.
    """
    limits = {}
    for name, parts in volumes_ml.items():
        volumes = np.concatenate([np.zeros(0), *parts])
        if volumes.size:
            small, middle = np.quantile(volumes, [1 / 3, 2 / 3], method="inverted_cdf")
            limits[name] = (float(small), float(middle))
    return limits


def _volumes(lesions: Components, voxel_ml: float) -> Float64s:
    return lesions.sizes().astype(np.float64) * voxel_ml


def _touching(ours: Components, theirs: Components, prediction: Mask, dilation: int) -> _Pairs:
    """Return all pairs with a voxel in common, after the dilation of our lesions, ordered by their numbers."""
    codes = ours.numbers * max(theirs.count, 1)
    common = prediction.ravel()[ours.voxels]
    overlapping, overlap = np.unique(codes[common] + theirs.at(ours.voxels[common]), return_counts=True)
    touching = [overlapping]
    for number, (box, part) in enumerate(dilated(ours, prediction.shape, dilation) if dilation else ()):
        places = np.nonzero(part & prediction[box])
        voxels = np.ravel_multi_index(
            [place + axis.start for place, axis in zip(places, box, strict=True)], prediction.shape
        )
        touching.append(number * theirs.count + np.unique(theirs.at(voxels)))
    every = np.unique(np.concatenate(touching))
    overlaps = np.zeros(len(every), dtype=np.intp)
    overlaps[np.searchsorted(every, overlapping)] = overlap
    return _Pairs(*np.divmod(every, max(theirs.count, 1)), overlaps)


def _matched(
    pairs: _Pairs, ious: Float64s, enough: Mask, counted: Mask, large: Mask, one_to_one: bool
) -> tuple[NDArray[np.intp], Mask]:
    """Return which pairs match, and of every predicted lesion whether it matches nothing and is counted.

    Args:
        pairs: All pairs that touch.
        ious: Their intersection over union.
        enough: Whether they overlap enough.
        counted: Of every lesion of the reference, whether it is counted.
        large: Of every predicted lesion, whether it is a false positive if it matches nothing.
        one_to_one: Whether a lesion matches one at most.
    """
    of_counted = counted[pairs.reference]
    matched = np.flatnonzero(enough & of_counted)
    if one_to_one:
        taken_reference, taken_prediction = np.zeros(len(counted), dtype=bool), np.zeros(len(large), dtype=bool)
        kept = []
        for pair in matched[np.argsort(-ious[matched], kind="stable")]:
            first, second = pairs.reference[pair], pairs.prediction[pair]
            if not taken_reference[first] and not taken_prediction[second]:
                taken_reference[first] = taken_prediction[second] = True
                kept.append(pair)
        matched = np.sort(np.array(kept, dtype=np.intp))
    false = large.copy()
    false[pairs.prediction[matched]] = False
    false[pairs.prediction[enough & ~of_counted]] = False
    return matched, false
