"""What a loss must exceed to have learned a class: the best mask that does not look at the image."""

import math

import numpy as np
import pytest

from voxloss.evaluation.blind import blind_dice, cell_counts, cell_grid, every_voxel_dice
from voxloss.evaluation.learned import learned_classes
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.scores import failed_rows, score_rows, score_table

CLASSES = ("background", "organ", "tumour")


def dice(one, two):
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.mark.parametrize("shape", [(7, 9, 5), (64, 33, 40), (1, 40, 50)])
def test_cells_hold_every_voxel_once(shape):
    label = np.random.default_rng(0).choice([0, 1, 2, 254], shape).astype(np.uint8)
    cells = cell_grid([shape, (90, 70, 80)], 3)
    counts = cell_counts(label, 3, cells)
    assert counts.shape == (3, *cells)
    assert counts.reshape(3, -1).sum(1).tolist() == [(label == index).sum() for index in range(3)]
    if max(shape) <= 32:  # voxel by voxel
        assert np.array_equal(counts, np.stack([label == index for index in range(3)]))


def test_the_cells_of_many_classes_fit_in_memory():
    cells = cell_grid([(512, 512, 300)] * 300, 105)
    assert math.prod(cells) * 300 * 105 * 4 <= 600e6


def test_the_best_mask_is_the_best_of_all_thresholds_of_the_prevalence():
    """A slow twin on small grids: every threshold, the mean Dice on the training cases, then the held-out cases."""
    random = np.random.default_rng(1)
    centre = np.linspace(0.9, 0.05, 60)
    masks = random.random((9, 60)) < centre
    training = np.arange(9) < 6
    prevalence = masks[training].mean(0)
    best = max(
        (prevalence >= threshold for threshold in np.unique(prevalence)),
        key=lambda mask: np.mean([dice(mask, mask_of_case) for mask_of_case in masks[training]]),
    )
    found = blind_dice(masks.astype(int), np.ones((9, 60), dtype=int), training)
    # Cells of equal prevalence may be taken in part, so that the training mean is not below that of the twin.
    assert found[training].mean() >= np.mean([dice(best, mask) for mask in masks[training]]) - 1e-12
    assert found[~training] == pytest.approx([dice(best, mask) for mask in masks[~training]], abs=0.05)


def test_structures_anywhere_leave_a_mask_of_every_voxel():
    random = np.random.default_rng(2)
    masks = np.zeros((40, 200), dtype=int)
    for row in masks:
        row[random.choice(200, 60, replace=False)] = 1
    found = blind_dice(masks, np.ones_like(masks), np.arange(40) < 30)
    assert found[30:].mean() == pytest.approx(every_voxel_dice(0.3))


def test_a_structure_in_a_fixed_place_is_found_without_looking():
    masks = np.zeros((5, 50), dtype=int)
    masks[:, 10:20] = 1
    assert blind_dice(masks, np.ones_like(masks), np.arange(5) < 3).tolist() == [1] * 5


def test_ignored_voxels_and_absent_structures():
    masks = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    counted = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    found = blind_dice(masks, counted, np.array([True, False, False]))
    assert found[:2].tolist() == [1, 1] and math.isnan(found[2])
    # no training case has it: every voxel
    assert blind_dice(masks, counted, np.array([False, False, True]))[0] == pytest.approx(2 * 2 / 6)


def scores_of(predictions, seeds=(0,), cases=8, without=()):
    """Dice scores by loss from a function of case and seed that says how much of the tumour is predicted."""
    rows = []
    for loss, share in predictions.items():
        for case in range(cases):
            for seed in seeds:
                reference = np.zeros((10, 10, 10), dtype=np.uint8)
                if case not in without:
                    reference[2:6, 2:6, 2:6] = 2
                prediction = np.zeros_like(reference)
                count = round(64 * share(case, seed))
                prediction[tuple(np.argwhere(reference == 2)[:count].T)] = 2
                own = case_scores(reference, prediction, CLASSES)
                rows += score_rows(own, dataset="d", fold=case % 2, seed=seed, loss=loss, case=f"c{case}")
    return score_table(rows)


def of(learned, loss, name="tumour"):
    return next(one for one in learned if (one.loss, one.class_name) == (loss, name))


def test_a_loss_has_learned_what_it_predicts_often_and_better_than_without_looking():
    scores = scores_of(
        {
            "good": lambda case, seed: 0.8,
            "never": lambda case, seed: 0,
            "seldom": lambda case, seed: 1.0 if case < 3 else 0,
            "half": lambda case, seed: 1.0 if case < 4 else 0,
            "faint": lambda case, seed: 0.01 + 0.02 * (case % 2),
        }
    )
    learned = learned_classes(scores, {"tumour": {f"c{case}": 0.12 for case in range(8)}})
    assert {one.loss: one.learned for one in learned if one.class_name == "tumour"} == {
        "good": True, "never": False, "seldom": False, "half": False, "faint": False,
    }  # fmt: skip
    assert (of(learned, "seldom").predicted, of(learned, "seldom").predictions) == (3, 8)
    assert of(learned, "half").often_predicted and of(learned, "faint").often_predicted
    # By hand: eight values, four of them 1: mean 0.5, s = 0.534522, t(0.975, 7) = 2.364624.
    assert of(learned, "half").low == pytest.approx(0.5 - 2.364624 * 0.534522 / math.sqrt(8), abs=1e-5)
    assert all(one.blind == pytest.approx(0.12) for one in learned)
    assert [one for one in learned if one.class_name == "organ"] == []  # no case has it


def test_without_what_to_exceed_it_is_zero():
    learned = learned_classes(scores_of({"faint": lambda case, seed: 0.03, "never": lambda case, seed: 0}), {})
    assert of(learned, "faint").learned and not of(learned, "never").learned
    assert math.isnan(of(learned, "faint").blind)


def test_cases_without_the_class_and_repeated_trainings():
    shares = {"one": lambda case, seed: 0.5 if seed else 0}
    learned = of(learned_classes(scores_of(shares, seeds=(0, 1), cases=6, without={4, 5}), {}), "one")
    assert (learned.predicted, learned.predictions) == (4, 8)
    assert learned.mean == pytest.approx((2 * 32 / 96) / 2)


def test_failed_runs_count_as_empty_predictions():
    good = scores_of({"good": lambda case, seed: 1.0}, cases=2)
    failed = failed_rows(dataset="d", fold=0, seed=0, loss="failed", cases=["c0", "c1"], classes=CLASSES)
    learned = learned_classes(score_table([*good.to_dict("records"), *failed]), {})
    assert (of(learned, "failed").predicted, of(learned, "failed").predictions) == (0, 2)
    assert of(learned, "failed").mean == 0 and not of(learned, "failed").learned


def test_a_table_of_dice_alone():
    rows = [
        {"dataset": "d", "fold": 0, "seed": 0, "loss": loss, "case": f"c{case}", "class": "x", "metric": "dice",
         "value": value, "status": "ok"}
        for loss, value in (("a", 0.4), ("b", 0.0)) for case in range(3)
    ]  # fmt: skip
    learned = learned_classes(score_table(rows), {})
    assert of(learned, "a", "x").learned and not of(learned, "b", "x").learned
    nsd = score_table([row | {"metric": "nsd"} for row in rows])
    assert learned_classes(nsd, {}) == []  # without a Dice it is not known
