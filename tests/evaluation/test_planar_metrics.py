"""Scores of images: areas and contours, by hand, against surface-distance's values and a slow twin."""

import itertools
import math

import numpy as np
import pytest

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.surface import surface_distances
from voxloss.utilities.errors import InputError

SPACING = (0.5, 2.0)

# hd95, assd, nsd at 1 mm of the masks that `noisy_masks` gives, by surface-distance 0.1 (its average by length of both
# contours).
FROM_SURFACE_DISTANCE = (
    (1.0, 0.10788929750808728, 0.9833057912805995),
    (0.5, 0.09952279956932561, 0.9873771249240886),
    (1.0, 0.1104222929086035, 0.9859451589804483),
    (1.0, 0.1031050715630499, 0.9959643335061207),
)


def noisy_masks():
    random = np.random.default_rng(5)
    for _ in FROM_SURFACE_DISTANCE:
        reference = random.random((12, 10)) < 0.3
        yield reference, np.where(random.random(reference.shape) < 0.2, ~reference, reference)


def values(reference, prediction, spacing=SPACING, tolerance=1.0, rules=None):
    masks = (np.asarray(mask).astype(np.uint8) for mask in (reference, prediction))
    return {score.metric: score.value for score in case_scores(*masks, ("background", "x"), spacing, tolerance, rules)}


def contour(mask, spacing):
    """Every corner between four pixels that are not alike, its place, and the length of marching squares' lines."""
    padded = np.pad(mask, 1)
    places, lengths = [], []
    for row, column in itertools.product(range(mask.shape[0] + 1), range(mask.shape[1] + 1)):
        a, b, c, d = (bool(padded[row + i, column + j]) for i in (0, 1) for j in (0, 1))
        if len({a, b, c, d}) == 1:
            continue
        cut = math.hypot(*spacing) / 2  # across one corner
        number = a + b + c + d
        length = cut if number != 2 else 2 * cut if a == d else spacing[1] if a == b else spacing[0]
        places.append((row * spacing[0], column * spacing[1]))
        lengths.append(length)
    return np.array(places), np.array(lengths)


def twin(reference, prediction, spacing, tolerance):
    """All pairs of corners."""
    (ours, our_lengths), (theirs, their_lengths) = contour(reference, spacing), contour(prediction, spacing)
    pairs = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    distances = (pairs.min(axis=1), our_lengths), (pairs.min(axis=0), their_lengths)
    robust = []
    for to_other, lengths in distances:
        order = np.argsort(to_other, kind="stable")
        share = np.cumsum(lengths[order]) / lengths.sum()
        robust.append(to_other[order][np.argmax(share >= 0.95)])
    together, weights = (np.concatenate(parts) for parts in zip(*distances, strict=True))
    return max(robust), np.average(together, weights=weights), np.average(together <= tolerance, weights=weights)


SURFACES = ("hd95", "assd", "nsd")


def test_contours_agree_with_surface_distance_and_the_twin():
    for (reference, prediction), expected in zip(noisy_masks(), FROM_SURFACE_DISTANCE, strict=True):
        got = values(reference, prediction)
        assert [got[metric] for metric in SURFACES] == pytest.approx(expected, rel=1e-6)
        assert twin(reference, prediction, SPACING, 1.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_has_no_surface_across_it(axis):
    """The distances are those of its plane, whatever its thickness; its volumes stay volumes."""
    thickness = 5.0
    for reference, prediction in noisy_masks():
        plane = values(reference, prediction)
        spacing = np.insert(SPACING, axis, thickness)
        volume = values(np.expand_dims(reference, axis), np.expand_dims(prediction, axis), spacing)
        for metric, value in plane.items():
            factor = thickness / 1000 if metric in ("reference_volume", "volume_difference") else 1
            assert volume[metric] == pytest.approx(factor * value, nan_ok=True), metric


def test_two_squares_by_hand():
    """Squares of 4 x 4 pixels of 2 mm, two pixels apart: sizes in mm², distances in mm, no lesion is found."""
    reference, prediction = np.zeros((2, 20, 20), dtype=bool)
    reference[2:6, 8:12] = prediction[8:12, 8:12] = True
    got = values(reference, prediction, (2.0, 2.0), tolerance=4.0)
    assert got["reference_volume"] == 16 * 4
    assert got["volume_difference"] == 0
    # The near side is 2 pixels away, the far side 6; each side of 5 corners, those between at 3, 4 and 5.
    assert got["hd95"] == 12.0
    cut = math.sqrt(2)  # of the contour at each of the two near corners, and 2 mm at the three between
    assert got["nsd"] == pytest.approx((2 * cut + 3 * 2) / (4 * cut + 12 * 2))
    assert got["assd"] == pytest.approx(
        ((2 * cut + 6) * (4 + 12) + 2 * 2 * (6 + 8 + 10)) / (2 * (2 * cut + 6) + 2 * 2 * 3)
    )
    assert (got["lesion_recall"], got["false_positive_lesions"]) == (0, 1)


def test_diagonal_pixels_are_one_lesion_unless_only_faces_connect():
    mask = np.eye(4, dtype=bool)
    for connectivity, lesions in ((26, 1), (18, 1), (6, 4)):
        nothing = np.zeros_like(mask)
        got = values(nothing, mask, (1, 1), rules=LesionRules(connectivity=connectivity))
        assert got["false_positive_lesions"] == lesions


def test_sizes_of_lesions_are_areas():
    """Lesions of 1, 4 and 9 pixels of 0.5 mm²; limits of volumes have no effect."""
    reference = np.zeros((12, 12), dtype=bool)
    reference[0, 0], reference[3:5, 3:5], reference[8:11, 8:11] = True, True, True
    found = np.zeros_like(reference)
    found[3, 3] = True
    rules = LesionRules(minimum_area_mm2=1.0, size_limits_mm2=(2.0, 4.0), minimum_volume_ml=1000.0)
    got = values(reference, found, (1.0, 0.5), rules=rules)
    assert got["lesion_recall"] == 0.5  # the lesion of 0.5 mm² is not counted
    assert got["lesion_recall_small"] == 1.0
    assert math.isnan(got["lesion_recall_middle"])
    assert got["lesion_recall_large"] == 0.0
    assert got["reference_volume"] == 14 * 0.5


@pytest.mark.parametrize(
    ("in_reference", "in_prediction", "expected"),
    [  # hd95, assd, nsd, volume_difference
        (1, 1, (0, 0, 1, 0)),
        (1, 0, (None, None, 0, 1)),
        (0, 1, (None, None, 0, 1)),
        (0, 0, (None, None, None, 0)),
    ],
)
def test_empty_mask_matrix(in_reference, in_prediction, expected):
    reference, prediction = np.zeros((2, 3, 3), dtype=np.uint8)
    reference[1, 1], prediction[1, 1] = in_reference, in_prediction
    scores = {s.metric: s for s in case_scores(reference, prediction, ("background", "lesion"), SPACING)}
    for metric, value in zip(("hd95", "assd", "nsd", "volume_difference"), expected, strict=True):
        assert scores[metric].status == ("undefined" if value is None else "ok")
        assert scores[metric].value == pytest.approx(math.nan if value is None else value, nan_ok=True)


def test_a_row_of_pixels_has_a_contour():
    got = values([[1, 1, 0, 0]], [[0, 1, 1, 0]], (1, 1))
    assert got["dice"] == 0.5
    assert got["hd95"] == 1.0


def test_contours_have_lengths():
    disc = np.hypot(*np.indices((101, 101)) - 50) <= 40
    length = surface_distances(disc, disc, (1, 1)).reference_area.sum()
    assert length == pytest.approx(2 * math.pi * 40.5, rel=0.06)  # marching squares' lines are a little longer


@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [
        ((2, 2), (1, 1, 1), "spacing of an image must be two positive numbers"),
        ((2, 2), (1, 0), "spacing of an image must be two positive numbers"),
        ((2, 2, 2), (1, 1), "spacing of a volume must be three positive numbers"),
        ((4,), (1,), "those of images and volumes"),
    ],
)
def test_a_wrong_spacing_is_named(shape, spacing, words):
    label = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(InputError, match=words):
        case_scores(label, label, ("background", "x"), spacing)
