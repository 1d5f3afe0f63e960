"""Lesion scores against panoptica and Metrics Reloaded, on blobs and on a real pair of masks."""

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lesion_masks import blobs
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import case_scores

pytestmark = pytest.mark.peers

DATA = Path(os.environ.get("VOXLOSS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def blob_pairs():
    """Made-up masks, and masks of which one is empty."""
    for seed in range(6):
        reference, prediction = blobs(seed)
        yield reference, prediction
    yield reference, np.zeros_like(reference)
    yield np.zeros_like(reference), reference


def real_pairs():
    nibabel = pytest.importorskip("nibabel")
    for folder in sorted((DATA / "spine_pred_ref").glob("semantic")):
        reference, prediction = (
            np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj) for name in ("ref", "pred")
        )
        for value in (41, 43, 45, 60, 62):
            box = ndimage.find_objects(((reference == value) | (prediction == value)).astype(np.uint8))[0]
            yield reference[box] == value, prediction[box] == value


def scores(reference, prediction, threshold):
    rules = LesionRules(match="one_to_one", threshold=threshold, panoptic_threshold=threshold)
    masks = (mask.astype(np.uint8) for mask in (reference, prediction))
    return {score.metric: score.value for score in case_scores(*masks, ("background", "x"), (1, 1, 1), lesions=rules)}


@pytest.mark.parametrize("pairs", [blob_pairs, real_pairs])
@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_equal_to_panoptica(pairs, threshold):
    package = pytest.importorskip("panoptica")
    evaluator = package.Panoptica_Evaluator(
        expected_input=package.InputType.SEMANTIC,
        instance_approximator=package.ConnectedComponentsInstanceApproximator(),
        instance_matcher=package.NaiveThresholdMatching(matching_threshold=threshold, strict_threshold=True),
        instance_metrics=[package.Metric.IOU],
        global_metrics=[],
    )
    compared = 0
    for reference, prediction in pairs():
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = evaluator.evaluate(prediction.astype(np.uint8), reference.astype(np.uint8))["ungrouped"]
        ours = scores(reference, prediction, threshold)
        assert (ours["recognition_quality"], ours["lesion_f1"]) == pytest.approx((theirs.rq, theirs.rq))
        assert ours["panoptic_quality"] == pytest.approx(theirs.pq)
        assert ours["false_positive_lesions"] == theirs.fp
        # Without a pair, theirs is 0 and ours undefined, which ranks as 0.
        assert ours["segmentation_quality"] == pytest.approx(theirs.sq if theirs.tp else np.nan, nan_ok=True)
        compared += 1
    if not compared:
        pytest.skip(f"no real pairs at {DATA}")


@pytest.mark.parametrize("pairs", [blob_pairs, real_pairs])
def test_equal_to_metrics_reloaded(pairs):
    processes = pytest.importorskip("MetricsReloaded.processes.mixed_measures_processes")  # not on PyPI
    compared = 0
    for reference, prediction in pairs():
        each = []
        for mask in (prediction, reference):
            labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
            each.append([(labels == number).astype(int) for number in range(1, count + 1)])
        if not all(each):  # it cannot take an empty list
            continue
        predicted, expected = each
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, found, _ = processes.MultiLabelLocSegPairwiseMeasure(
                [[1] * len(predicted)], [[1] * len(expected)], [predicted], [expected], [None], [1],
                measures_pcc=["fbeta"], measures_detseg=["PQ"], assignment="greedy_matching",
                localization="mask_iou", thresh=0.5, flag_map=False, pixdim=[1, 1, 1],
            ).per_label_dict()  # fmt: skip
        ours = scores(reference, prediction, 0.5)
        theirs = (found["PQ"].iloc[0], found["fbeta"].iloc[0])
        assert (ours["panoptic_quality"], ours["lesion_f1"]) == pytest.approx(theirs, rel=1e-6)
        compared += 1
    if not compared:
        pytest.skip(f"no real pairs at {DATA}")
