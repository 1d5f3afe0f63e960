"""Surface distances and volumes against surface-distance's values, hand-computed cases and a slow twin."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from voxloss.evaluation.metrics import METRICS, SIZE_METRICS, case_scores
from voxloss.evaluation.surface import surface_distances
from voxloss.geometry import distances
from voxloss.utilities.errors import InputError

SPACING = (3.0, 0.7, 1.1)

# hd95, assd, nsd at 1 mm of the masks that `noisy_masks` gives for seed 5, by surface-distance 0.1 (its average of both
# surfaces by area).
FROM_SURFACE_DISTANCE = (
    (0.0, 0.02300524906330781, 0.9970286660680172),
    (0.7, 0.026354872880858533, 0.9936494377503721),
    (0.0, 0.03134912280735283, 0.9894318429846474),
    (0.7, 0.029884107970505218, 0.9941409716889257),
    (0.0, 0.03218908809687211, 0.9897691115440452),
    (0.7, 0.0366616008450197, 0.9875719646719058),
)


def noisy_masks():
    random = np.random.default_rng(5)
    for _ in FROM_SURFACE_DISTANCE:
        reference = random.random((9, 12, 10)) < 0.3
        yield reference, np.where(random.random(reference.shape) < 0.2, ~reference, reference)


def values(reference, prediction, spacing=SPACING, tolerance=1.0):
    masks = (np.asarray(mask).astype(np.uint8) for mask in (reference, prediction))
    return {score.metric: score.value for score in case_scores(*masks, ("background", "x"), spacing, tolerance)}


@pytest.mark.parametrize("dense", [0, 20])
def test_agrees_with_surface_distance(dense, monkeypatch):
    monkeypatch.setattr(distances, "DENSE", dense)  # both ways to find the nearest element
    for (reference, prediction), expected in zip(noisy_masks(), FROM_SURFACE_DISTANCE, strict=True):
        got = values(reference, prediction)
        assert [got[metric] for metric in ("hd95", "assd", "nsd")] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def corners(mask, spacing):
    """Corners between unlike voxels, by eight look-ups each."""
    padded = np.pad(mask, 1)
    places = itertools.product(*(range(extent - 1) for extent in padded.shape))
    unlike = [c for c in places if len({bool(padded[tuple(np.add(c, o))]) for o in np.ndindex(2, 2, 2)}) == 2]
    return np.array(unlike) * spacing


def test_distances_are_the_nearest_of_all_pairs():
    reference, prediction = np.zeros((2, 6, 7, 5), dtype=bool)
    reference[1:3, 2:5, 1:4] = True
    prediction[2:5, 3:6, 1:2] = True
    ours, theirs = corners(reference, SPACING), corners(prediction, SPACING)
    pairs = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    found = surface_distances(reference, prediction, SPACING)
    assert sorted(found.reference_mm) == pytest.approx(sorted(pairs.min(axis=1)))
    assert sorted(found.prediction_mm) == pytest.approx(sorted(pairs.min(axis=0)))


def test_two_plates_by_hand():
    # The prediction is the reference moved by two voxels of 1.5 mm along their common normal. Every surface element but
    # those on the rims is 3 mm from the other plate's, and of the inner sides between them half are nearer.
    reference, prediction = np.zeros((2, 9, 40, 40), dtype=bool)
    reference[2:3], prediction[6:7] = True, True
    got = values(reference, prediction, (1.5, 1, 1))
    # From the reference's far side it is 4 voxels to the prediction's near side, from its near side 3.
    assert got["hd95"] == pytest.approx(6.0)
    assert got["assd"] == pytest.approx((4.5 + 6.0) / 2, rel=0.01)
    assert got["nsd"] == 0 and values(reference, prediction, (1.5, 1, 1), tolerance=6)["nsd"] == 1
    assert values(reference, prediction, (1.5, 1, 1), tolerance=4.5)["nsd"] == pytest.approx(0.5, abs=0.01)


def test_area_of_a_box():
    # Marching cubes cut its edges and corners off: a little less than the six faces.
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[3:27, 3:27, 3:27] = True
    area = surface_distances(mask, mask, (1, 1, 1)).reference_area.sum()
    assert 0.95 * 6 * 24**2 < area < 6 * 24**2


def test_units_scale_and_masks_exchange():
    reference, prediction = next(noisy_masks())
    once, twice = values(reference, prediction), values(reference, prediction, [2 * s for s in SPACING], 2.0)
    for metric, value in once.items():
        factor = {"": 1, "mm": 2, "ml": 8, "lesions": 1}[METRICS[metric].unit]
        assert twice[metric] == pytest.approx(factor * value, nan_ok=True)
    other = values(prediction, reference)
    for metric in ("hd95", "assd", "nsd", "volume_difference"):
        assert other[metric] == pytest.approx(once[metric])
    assert other["lesion_recall"] == once["lesion_precision"]
    for metric in ("lesion_f1", "panoptic_quality", "segmentation_quality", "recognition_quality"):
        assert other[metric] == pytest.approx(once[metric])


def test_axes_follow_their_spacing():
    reference, prediction = next(noisy_masks())
    turned = values(reference.transpose(2, 0, 1), prediction.transpose(2, 0, 1), (1.1, 3.0, 0.7))
    for metric, value in values(reference, prediction).items():
        assert turned[metric] == pytest.approx(value, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("in_reference", "in_prediction", "expected"),
    [  # hd95, assd, nsd, volume_difference
        (1, 1, (0, 0, 1, 0)),
        (1, 0, (None, None, 0, 2.31e-3)),
        (0, 1, (None, None, 0, 2.31e-3)),
        (0, 0, (None, None, None, 0)),
    ],
)
def test_empty_mask_matrix(in_reference, in_prediction, expected):
    reference, prediction = np.zeros((2, 3, 3, 3), dtype=np.uint8)
    reference[1, 1, 1], prediction[1, 1, 1] = in_reference, in_prediction
    scores = {s.metric: s for s in case_scores(reference, prediction, ("background", "lesion"), SPACING)}
    metrics = ("hd95", "assd", "nsd", "volume_difference")
    for metric, value in zip(metrics, expected, strict=True):
        assert scores[metric].status == ("undefined" if value is None else "ok")
        assert scores[metric].value == pytest.approx(math.nan if value is None else value, nan_ok=True)
    assert scores["reference_volume"].value == pytest.approx(in_reference * 2.31e-3)
    assert tuple(scores) == tuple(metric for metric in METRICS if metric not in SIZE_METRICS)


def test_classes_are_scored_in_their_own_part_of_the_grid():
    random = np.random.default_rng(1)
    reference, prediction = np.zeros((2, 12, 14, 16), dtype=np.uint8)
    reference[1:5, 2:7, 3:9], reference[8:11, 9:12, 10:14] = 1, 2
    prediction[1:6, 2:6, 3:8], prediction[7:11, 9:13, 10:13] = 1, 2
    prediction[random.random(prediction.shape) < 0.01] = 2
    both = case_scores(reference, prediction, ("background", "a", "b"), SPACING)
    for index, name in ((1, "a"), (2, "b")):
        alone = values(reference == index, prediction == index)
        assert {s.metric: s.value for s in both if s.class_name == name} == pytest.approx(alone, nan_ok=True)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, math.inf), (1, -1, 1)])
def test_a_wrong_spacing_is_named(spacing):
    label = np.zeros((2, 2, 2), dtype=np.uint8)
    with pytest.raises(InputError, match="three positive numbers"):
        case_scores(label, label, ("background", "x"), spacing)


@pytest.mark.slow
def test_real_pairs(real_data):
    nibabel = pytest.importorskip("nibabel")
    for kind, expected in (  # by surface-distance 0.1
        ("semantic", (0.5859400033950806, 0.12242762399441051, 0.9771712830998465)),
        ("matched_instance", (0.5859400033950806, 0.12378006965975497, 0.9758737777687173)),
    ):
        folder = real_data / "spine_pred_ref" / kind
        images = [nibabel.load(folder / name) for name in ("ref.nii.gz", "pred.nii.gz")]
        spacing = tuple(float(value) for value in images[0].header.get_zooms())
        got = values(*(np.asarray(image.dataobj) > 0 for image in images), spacing)
        assert [got[metric] for metric in ("hd95", "assd", "nsd")] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_the_average_has_the_same_digits_with_any_number_of_threads():
    """Machines of a cluster differ in their number of cores, and a study's scores must not."""
    code = """
import numpy as np
from voxloss.evaluation.surface import SurfaceDistances

values = np.random.default_rng(0).random((4, 100_000))
print(SurfaceDistances(*values).average().hex())
"""
    found = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1
