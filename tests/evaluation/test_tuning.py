"""Thresholds of runs: chosen on other cases than those scored, and scores at them in the form of all scores."""

import math

import numpy as np
import pandas as pd
import pytest

from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.probabilities.counts import RunCounts, count_probabilities
from voxloss.evaluation.probabilities.thresholds import best_threshold
from voxloss.evaluation.probabilities.tuning import (
    UNTUNED,
    pooled_runs,
    tuned_points,
    tuned_scores,
    tuning_cases,
)
from voxloss.evaluation.scores import failed_rows, score_rows, score_table

CLASSES = ("background", "lesion")


def made_case(seed, threshold=0.5, with_class=True):
    """Probabilities of which voxels above a threshold are the class, with some noise."""
    random = np.random.default_rng(seed)
    values = random.random((4, 8, 8)).astype(np.float32)
    reference = ((values > threshold) & with_class).astype(np.uint8)
    flipped = random.random(values.shape) < 0.05
    reference[flipped] = 1 - reference[flipped] if with_class else 0
    return np.stack([1 - values, values]), reference


def run_counts(cases, inner=()):
    """`cases` by id: probabilities and reference."""
    counts = tuple(count_probabilities(*case) for case in cases.values())
    return RunCounts(
        tuple(cases),
        tuple(c in inner for c in cases),
        CLASSES[1:],
        counts,
        "lesion",
        np.zeros((len(cases), 10, 3), int),
    )


def cases_of(fold, threshold, count=3):
    return {f"case-{fold}-{n}": made_case(10 * fold + n, threshold) for n in range(count)}


@pytest.fixture
def runs():
    return {
        ("dice", fold, seed): run_counts(cases_of(fold, threshold + 0.02 * seed))
        for fold, threshold in enumerate((0.3, 0.6, 0.8))
        for seed in (0, 1)
    } | {("focal", fold, 0): run_counts(cases_of(fold, 0.1)) for fold in range(3)}


def test_a_run_is_tuned_on_the_other_folds_of_its_loss_and_seed_alone(runs):
    found = tuning_cases(runs, ("dice", 1, 0), "lesion", "folds")
    expected = [c for fold in (0, 2) for c in runs["dice", fold, 0].of_class("lesion").values()]
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.voxels, other.voxels)


def test_what_a_run_scores_cannot_move_its_threshold(runs):
    before = tuned_points(runs, ["lesion"], "folds").set_index(["loss", "fold", "seed"])
    changed = runs | {("dice", 1, 0): run_counts(cases_of(1, 0.05))}
    after = tuned_points(changed, ["lesion"], "folds").set_index(["loss", "fold", "seed"])
    columns = ["threshold", "temperature"]
    assert after.loc[("dice", 1, 0), columns].tolist() == before.loc[("dice", 1, 0), columns].tolist()
    assert after.loc[("dice", 0, 0), "threshold"] < before.loc[("dice", 0, 0), "threshold"]
    untouched = [("dice", 0, 1), ("dice", 2, 1), ("focal", 0, 0)]
    pd.testing.assert_frame_equal(after.loc[untouched], before.loc[untouched])


def test_inner_cases_tune_their_own_run_alone():
    cases = cases_of(0, 0.7, count=4)
    run = run_counts(cases, inner=("case-0-3",))
    other = run_counts(cases_of(1, 0.2))
    runs = {("dice", 0, 0): run, ("dice", 1, 0): other}
    points = tuned_points(runs, ["lesion"], "inner").set_index("fold")
    assert points.loc[0, "threshold"] == best_threshold([run.of_class("lesion", inner=True)["case-0-3"]])
    assert points.loc[0, "threshold"] == pytest.approx(0.7, abs=0.06) and points.loc[0, "cases"] == 1
    assert math.isnan(points.loc[1, "threshold"]) and points.loc[1, "cases"] == 0
    assert list(run.of_class("lesion")) == ["case-0-0", "case-0-1", "case-0-2"]


def argmax_rows(loss, fold, seed, cases):
    rows = []
    for case, (probabilities, reference) in cases.items():
        scores = case_scores(reference, probabilities.argmax(axis=0).astype(np.uint8), CLASSES)
        rows += score_rows(scores, dataset="toy", fold=fold, seed=seed, loss=loss, case=case)
    return rows


def test_scores_at_the_thresholds_are_those_of_the_masks(runs):
    cases = {fold: cases_of(fold, threshold) for fold, threshold in enumerate((0.3, 0.6, 0.8))}
    runs = {key: run for key, run in runs.items() if key[0] == "dice" and key[2] == 0}
    argmax = score_table([row for fold in cases for row in argmax_rows("dice", fold, 0, cases[fold])])
    points = tuned_points(runs, ["lesion"], "folds")
    tuned = tuned_scores(runs, points, argmax)
    assert tuned.drop(columns=["value", "status"]).equals(argmax.drop(columns=["value", "status"]))
    for fold, of_fold in cases.items():
        threshold = points.set_index("fold").loc[fold, "threshold"]
        for case, (probabilities, reference) in of_fold.items():
            level = np.floor(probabilities[1].astype(float) * 65535 + 0.5) / 65535
            expected = case_scores(reference, (level >= threshold - 1e-9).astype(np.uint8), CLASSES)
            own = tuned[tuned["case"] == case].set_index("metric")["value"]
            assert own.to_dict() == {score.metric: pytest.approx(score.value) for score in expected}


def test_failed_runs_stay_failed_and_missing_runs_are_missing(runs):
    rows = failed_rows(dataset="toy", fold=0, seed=0, loss="combo", cases=["case-0-0"], classes=CLASSES)
    rows += argmax_rows("dice", 0, 0, cases_of(0, 0.3)) + argmax_rows("tversky", 0, 0, cases_of(0, 0.3))
    argmax = score_table(rows)
    tuned = tuned_scores(runs, tuned_points(runs, ["lesion"], "folds"), argmax)
    assert set(tuned["loss"]) == {"combo", "dice"}
    assert set(tuned.loc[tuned["loss"] == "combo", "status"]) == {"failed"}
    assert set(tuned["metric"]) == {"dice", "precision", "recall"}


def test_without_a_case_to_choose_on_a_half_is_taken():
    cases = cases_of(0, 0.3)
    runs = {("dice", 0, 0): run_counts(cases)}
    points = tuned_points(runs, ["lesion"], "folds")
    assert points["threshold"].isna().all() and points["temperature"].isna().all()
    argmax = score_table(argmax_rows("dice", 0, 0, cases))
    pd.testing.assert_frame_equal(tuned_scores(runs, points, argmax), argmax)
    assert UNTUNED == 0.5


def test_runs_are_pooled_over_scored_cases():
    run = run_counts(cases_of(0, 0.7, count=4), inner=("case-0-3",))
    [(key, counts)] = pooled_runs({("dice", 0, 0): run}, "lesion")
    assert key == ("dice", 0, 0) and counts.voxels.sum() == 3 * 4 * 8 * 8
