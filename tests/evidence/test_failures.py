"""Structures that are missed or invented, and the worst cases, counted by hand."""

from dataclasses import replace

import pandas as pd
import pytest
from made_up_evidence import export

from voxloss.evidence.failures import failures_frame

NAN = float("nan")


def rows(loss, case, dice, precision, recall, seed=0, failed=False):
    """The scores of a case; NaN is undefined."""
    values = {"dice": dice, "precision": precision, "recall": recall}
    return [
        (loss, 0, seed, case, "lesion", metric, NAN if failed else value,
         "failed" if failed else "undefined" if value != value else "ok", "a")
        for metric, value in values.items()
    ]  # fmt: skip


def study(*parts):
    columns = ["loss", "fold", "seed", "case", "class", "metric", "value", "status", "dataset"]
    scores = pd.DataFrame([row for part in parts for row in part], columns=columns)
    return replace(export("a", gains={"dice": 0, "focal": 0}), scores=scores)


def test_all_ways_to_fail_are_counted():
    found = failures_frame(study(
        rows("dice", "1", 0.8, 0.9, 0.7),
        rows("dice", "2", 0.0, 0.0, 0.0),  # predicted at a wrong place
        rows("dice", "10", 0.0, NAN, 0.0),  # nothing predicted
        rows("dice", "3", 0.0, 0.0, NAN),  # invented
        rows("dice", "4", NAN, NAN, NAN),  # rightly nothing
        rows("focal", "1", 0.3, 0.3, 0.3),
        rows("focal", "2", 0.2, 0.3, 0.1),
        rows("focal", "10", 0.4, 0.3, 0.5),
        rows("focal", "3", NAN, NAN, NAN),
        rows("focal", "4", NAN, NAN, NAN),
    )).set_index("loss")  # fmt: skip
    columns = ["with_class", "missed", "without_class", "invented"]
    assert found.loc["dice", columns].to_list() == [3, 2, 2, 1]
    assert found.loc["focal", columns].to_list() == [3, 0, 2, 0]
    assert found.loc["dice", ["worst_case", "worst_dice"]].to_list() == ["2", 0.0]  # the first of two
    assert found.loc["focal", ["worst_case", "worst_dice"]].to_list() == ["2", pytest.approx(0.2)]


def test_seeds_are_predictions_of_their_own_and_a_case_s_worst_dice_is_their_mean():
    parts = [rows(loss, "1", 0.6, 0.6, 0.6, seed) for loss in ("dice", "focal") for seed in (0, 1)]
    parts += [rows("dice", "2", 0.0, NAN, 0.0, 0), rows("dice", "2", 1.0, 1.0, 1.0, 1)]
    parts += [rows("focal", "2", 0.7, 0.7, 0.7, seed) for seed in (0, 1)]
    found = failures_frame(study(*parts)).set_index("loss")
    assert found.loc["dice", ["with_class", "missed", "worst_case", "worst_dice"]].to_list() == [4, 1, "2", 0.5]
    assert found.loc["focal", ["worst_case", "worst_dice"]].to_list() == ["1", 0.6]


def test_a_failed_run_has_found_nothing_and_invented_nothing():
    parts = [rows("focal", "1", 0.6, 0.6, 0.6), rows("focal", "2", NAN, NAN, NAN)]
    parts += [rows("dice", case, 0, 0, 0, failed=True) for case in ("1", "2")]
    found = failures_frame(study(*parts)).set_index("loss")
    columns = ["with_class", "missed", "without_class", "invented"]
    assert found.loc["dice", columns].to_list() == [1, 1, 1, 0]
    assert found.loc["dice", ["worst_case", "worst_dice"]].to_list() == ["1", 0.0]
