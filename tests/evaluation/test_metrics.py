"""Per-case scores against hand-counted volumes, a plain-set twin and MONAI."""

import math

import numpy as np
import pytest

from voxloss.evaluation import metrics
from voxloss.evaluation.metrics import OVERLAP_METRICS, case_scores, confusion_counts
from voxloss.utilities.errors import InputError

CLASSES = ("background", "kidney", "tumour")


def as_dict(scores):
    return {(score.class_name, score.metric): (score.value, score.status) for score in scores}


def by_sets(reference, prediction, index):
    """Dice, precision and recall from sets of voxel coordinates: slow, and nothing shared with the code under test."""
    there = set(zip(*np.nonzero(reference == index), strict=True))
    found = set(zip(*np.nonzero(prediction == index), strict=True))
    both = len(there & found)
    dice = 2 * both / (len(there) + len(found)) if there or found else math.nan
    return dice, both / len(found) if found else math.nan, both / len(there) if there else math.nan


def test_hand_counted():
    # kidney: 4 in the reference, 3 predicted, 2 of them right; tumour: 2 in the reference, 1 predicted, right.
    reference = np.array([[0, 1, 1, 1], [0, 1, 2, 2]], dtype=np.uint8)
    prediction = np.array([[1, 1, 1, 0], [0, 0, 2, 0]], dtype=np.uint8)
    scores = as_dict(case_scores(reference, prediction, CLASSES))
    assert scores == {
        ("kidney", "dice"): (4 / 7, "ok"),
        ("kidney", "precision"): (2 / 3, "ok"),
        ("kidney", "recall"): (2 / 4, "ok"),
        ("tumour", "dice"): (2 / 3, "ok"),
        ("tumour", "precision"): (1.0, "ok"),
        ("tumour", "recall"): (0.5, "ok"),
    }


@pytest.mark.parametrize(
    ("in_reference", "in_prediction", "expected"),
    [
        (True, True, {"dice": 1.0, "precision": 1.0, "recall": 1.0}),
        (True, False, {"dice": 0.0, "precision": None, "recall": 0.0}),
        (False, True, {"dice": 0.0, "precision": 0.0, "recall": None}),
        (False, False, {"dice": None, "precision": None, "recall": None}),
    ],
)
def test_empty_mask_matrix(in_reference, in_prediction, expected):
    reference, prediction = np.zeros((2, 3, 3, 3), dtype=np.uint8)
    reference[1, 1, 1] = in_reference
    prediction[1, 1, 1] = in_prediction
    scores = as_dict(case_scores(reference, prediction, ("background", "lesion")))
    for metric in OVERLAP_METRICS:
        value, status = scores["lesion", metric]
        if expected[metric] is None:
            assert math.isnan(value) and status == "undefined"
        else:
            assert (value, status) == (expected[metric], "ok")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("orders", ["CC", "FF", "CF"])
def test_agrees_with_sets_in_any_memory_order_and_slab(seed, orders, monkeypatch):
    monkeypatch.setattr(metrics, "SLAB_VOXELS", 17)
    random = np.random.default_rng(seed)
    reference = np.asarray(random.integers(0, 3, (5, 6, 7)), dtype=np.uint8, order=orders[0])
    prediction = np.asarray(random.integers(0, 3, (5, 6, 7)), dtype=np.int64, order=orders[1])
    scores = as_dict(case_scores(reference, prediction, CLASSES))
    for index, name in enumerate(CLASSES[1:], start=1):
        expected = by_sets(reference, prediction, index)
        assert [scores[name, metric][0] for metric in OVERLAP_METRICS] == pytest.approx(list(expected), nan_ok=True)


def test_agrees_with_monai():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("monai.metrics")
    random = np.random.default_rng(3)
    reference = random.integers(0, 3, (9, 8, 7))
    prediction = np.where(random.random((9, 8, 7)) < 0.7, reference, random.integers(0, 3, (9, 8, 7)))

    def one_hot(label):
        return torch.from_numpy(np.stack([label == index for index in range(3)])[None]).float()

    counts = functional.get_confusion_matrix(one_hot(prediction), one_hot(reference), include_background=False)
    scores = as_dict(case_scores(reference, prediction, CLASSES))
    for metric, name in (("precision", "precision"), ("recall", "sensitivity"), ("dice", "f1 score")):
        expected = functional.compute_confusion_matrix_metric(name, counts)[0]
        assert [scores[c, metric][0] for c in CLASSES[1:]] == pytest.approx(expected.tolist(), rel=1e-6)


def test_exchanging_the_masks_exchanges_precision_and_recall():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 3, (2, 6, 6, 6))
    forward, backward = as_dict(case_scores(a, b, CLASSES)), as_dict(case_scores(b, a, CLASSES))
    for name in CLASSES[1:]:
        assert forward[name, "precision"] == backward[name, "recall"]
        assert forward[name, "dice"] == backward[name, "dice"]


def test_counts_rows_are_reference():
    counts = confusion_counts(np.array([0, 0, 1]), np.array([1, 1, 0]), ("background", "lesion"))
    assert counts.tolist() == [[0, 2], [1, 0]]


def test_many_classes_and_boolean_masks():
    names = tuple(str(index) for index in range(105))
    label = np.arange(105, dtype=np.uint8).reshape(3, 5, 7)
    assert all(score.value == 1 for score in case_scores(label, label, names))
    mask = np.array([True, False])
    assert as_dict(case_scores(mask, mask, ("background", "lesion")))["lesion", "dice"] == (1.0, "ok")


def test_nothing_to_score():
    empty = np.zeros((0, 4, 4), dtype=np.uint8)
    assert {score.status for score in case_scores(empty, empty, CLASSES)} == {"undefined"}


def test_mistakes_are_named():
    label = np.zeros((2, 2, 2), dtype=np.uint8)
    with pytest.raises(InputError, match=r"\(2, 2, 2\) and \(2, 2, 3\)"):
        case_scores(label, np.zeros((2, 2, 3), dtype=np.uint8), CLASSES)
    with pytest.raises(InputError, match="prediction holds the value 3"):
        case_scores(label, label + 3, CLASSES)
    with pytest.raises(InputError, match="reference holds the value -1"):
        case_scores(label.astype(int) - 1, label, CLASSES)
    with pytest.raises(InputError, match="float32"):
        case_scores(label, label.astype(np.float32), CLASSES)


def test_real_prediction_and_reference(real_data):
    nibabel = pytest.importorskip("nibabel")
    files = sorted((real_data / "spine_pred_ref").rglob("*.nii*"))
    assert len(files) >= 2
    labels = [np.asarray(nibabel.load(file).dataobj).round().astype(np.int64) for file in files]
    same = next(((a, b) for i, a in enumerate(labels) for b in labels[i + 1 :] if a.shape == b.shape), None)
    if same is None:
        pytest.skip("no two masks on one grid")
    reference, prediction = ((label > 0).astype(np.uint8) for label in same)
    scores = as_dict(case_scores(reference, prediction, ("background", "cord")))
    both = np.logical_and(reference, prediction).sum()
    assert scores["cord", "dice"][0] == pytest.approx(2 * both / (reference.sum() + prediction.sum()))


# Ignored voxels


def test_an_ignored_slab_is_as_if_the_image_ended_there():
    """Whatever is measured: overlap, surfaces, volumes and lesions."""
    generator = np.random.default_rng(0)
    reference, prediction = (generator.choice(3, (8, 9, 12), p=(0.7, 0.2, 0.1)).astype(np.uint8) for _ in "rp")
    spacing = (1.0, 1.5, 2.0)
    expected = case_scores(reference[:, :, :7], prediction[:, :, :7], CLASSES, spacing)
    before = prediction.copy()
    reference[:, :, 7:] = 254
    assert case_scores(reference, prediction, CLASSES, spacing, ignore_index=254) == expected
    assert case_scores(np.asfortranarray(reference), prediction, CLASSES, spacing, ignore_index=254) == expected
    np.testing.assert_array_equal(prediction, before)
    with pytest.raises(InputError, match="reference holds the value 254"):
        case_scores(reference, prediction, CLASSES, spacing)


@pytest.mark.parametrize("value", [2, 3, 254])
def test_scattered_ignored_voxels_are_in_no_count(value):
    generator = np.random.default_rng(value)
    reference, prediction = (generator.integers(0, 2, 500).astype(np.uint8) for _ in "rp")
    ignored = generator.random(500) < 0.4
    expected = case_scores(reference[~ignored], prediction[~ignored], CLASSES[:2])
    reference[ignored] = value
    assert case_scores(reference, prediction, CLASSES[:2], ignore_index=value) == expected


def test_a_case_that_is_ignored_everywhere_has_no_scores():
    reference, prediction = np.full((4, 4, 4), 254, np.uint8), np.ones((4, 4, 4), np.uint8)
    scores = as_dict(case_scores(reference, prediction, CLASSES, (1, 1, 1), ignore_index=254))
    assert {status for (_, metric), (_, status) in scores.items() if metric != "reference_volume"} == {"undefined"}
    assert scores["kidney", "reference_volume"] == (0, "ok")
