"""The long table: exact round trip, every refusal, and what fills, averages and completes it."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_helpers import dice_table, row

from voxloss.evaluation.metrics import LESION_METRICS, METRICS, SIZE_METRICS, case_scores
from voxloss.evaluation.scores import (
    COLUMNS,
    common_scores,
    complete_check,
    failed_rows,
    merge_scores,
    read_scores,
    score_rows,
    score_table,
    seed_means,
    worst_filled,
    write_scores,
)
from voxloss.utilities.errors import InputError

CLASSES = ("background", "tumour")


def value(table, **key):
    for column, wanted in key.items():
        table = table[table[column] == wanted]
    assert len(table) == 1
    return table["value"].iloc[0]


def test_columns_are_the_documented_ones(tmp_path):
    write_scores(tmp_path / "scores.csv", [row()])
    header = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "dataset,fold,seed,loss,case,class,metric,value,status"
    assert tuple(header.split(",")) == COLUMNS


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_values_come_back_bit_by_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    table = dice_table({"dice": values})
    write_scores(path, table)
    pd.testing.assert_frame_equal(read_scores(path), table, check_exact=True)


@pytest.mark.parametrize("name", ["007", "NA", "null", "1e5", 'a,"b"', "Große Läsion", "<b>", "=1+1"])
def test_names_come_back_as_they_were(tmp_path, name):
    write_scores(tmp_path / "scores.csv", [row(loss=name, case=name, class_name=name)])
    back = read_scores(tmp_path / "scores.csv").iloc[0]
    assert (back["loss"], back["case"], back["class"]) == (name, name, name)


def test_undefined_is_an_empty_field(tmp_path):
    write_scores(tmp_path / "scores.csv", [row(value=None)])
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[1].endswith("dice,,undefined")
    assert math.isnan(read_scores(tmp_path / "scores.csv")["value"].iloc[0])


def test_empty_table_comes_back(tmp_path):
    write_scores(tmp_path / "scores.csv", [])
    assert len(read_scores(tmp_path / "scores.csv")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "row 2: unknown status 'fine'"),
        ({"metric": "jaccard"}, "row 2: unknown metric 'jaccard'"),
        ({"value": "high"}, "row 2: value must be a number or empty, got 'high'"),
        ({"value": 1.5}, "row 2: dice lies between 0 and 1, got 1.5"),
        ({"value": math.inf}, "row 2: dice lies between 0 and 1, got inf"),
        ({"value": math.nan}, "row 2: dice lies between 0 and 1, got nan"),
        ({"value": 0.5, "status": "failed"}, "row 2: a score with status 'failed' has no value"),
        ({"fold": 0.5}, "row 2: fold must be a whole number, got 0.5"),
        ({"seed": "x"}, "row 2: seed must be a whole number, got 'x'"),
        ({"case": ""}, "row 2: case must be a name, got ''"),
        ({"loss": None}, "row 2: loss must be a name, got (None|nan)"),
        ({"case": "a"}, "row 2: dice of tumour in case a is given twice for loss dice, seed 0"),
        ({"case": "a", "fold": 1}, "given twice"),
    ],
)
def test_refusals_name_the_row(change, message):
    with pytest.raises(InputError, match=message):
        score_table([row(case="a"), {**row(case="b"), **change}])


def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(InputError, match="no score table"):
        read_scores(path)
    path.write_text("dataset,fold\nx,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="lacks seed, loss"):
        read_scores(path)
    path.write_text(",".join((*COLUMNS, "comment")) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="unknown comment"):
        read_scores(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"scores\.csv"):
        read_scores(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"scores\.csv"):
        read_scores(path)


def test_a_refused_table_leaves_the_old_file(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, [row()])
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_scores(path, [row(), row()])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_merge(tmp_path):
    write_scores(tmp_path / "1.csv", [row(case="a")])
    write_scores(tmp_path / "2.csv", [row(case="b", fold=1)])
    assert merge_scores([tmp_path / "1.csv", tmp_path / "2.csv"])["case"].tolist() == ["a", "b"]
    assert len(merge_scores([])) == 0
    with pytest.raises(InputError, match="given twice"):
        merge_scores([tmp_path / "1.csv", tmp_path / "1.csv"])


def scored(loss, reference, prediction, case="a"):
    reference, prediction = (np.array(label).reshape(1, 1, -1) for label in (reference, prediction))
    scores = case_scores(reference, prediction, CLASSES, spacing_mm=(10, 10, 10))
    return score_rows(scores, dataset="toy", fold=0, seed=0, loss=loss, case=case)


def test_worst_filled_follows_the_matrix():
    rows = [
        *scored("found", [0, 1], [0, 1]),
        *scored("empty", [0, 1], [0, 0]),
        *scored("found", [0, 0], [0, 1], case="healthy"),
        *scored("empty", [0, 0], [0, 0], case="healthy"),
        *failed_rows(dataset="toy", fold=0, seed=0, loss="broken", cases=["a", "healthy"], classes=CLASSES),
    ]
    table = score_table(rows)
    filled = worst_filled(table)
    nan, inf = math.nan, math.inf
    metrics = ("dice", "precision", "recall", "hd95", "assd", "nsd", "volume_difference")
    metrics += ("lesion_recall", "lesion_precision", "reference_volume")
    expected = {
        ("found", "a"): (1, 1, 1, 0, 0, 1, 0, 1, 1, 1),
        ("empty", "a"): (0, 0, 0, inf, inf, 0, 1, 0, 0, 1),
        ("broken", "a"): (0, 0, 0, inf, inf, 0, inf, 0, 0, nan),
        ("found", "healthy"): (0, 0, nan, inf, inf, 0, 1, nan, 0, 0),
        ("empty", "healthy"): (nan, nan, nan, nan, nan, nan, 0, nan, nan, 0),
        ("broken", "healthy"): (0, 0, nan, inf, inf, 0, inf, nan, 0, nan),
    }
    for (loss, case), values in expected.items():
        got = [value(filled, loss=loss, case=case, metric=metric) for metric in metrics]
        assert got == pytest.approx(list(values), nan_ok=True), (loss, case)
    assert {*metrics, *LESION_METRICS, *SIZE_METRICS} == set(METRICS)  # test_lesions.py has those of lesions
    assert filled["status"].tolist() == table["status"].tolist()
    # The table given is left as it was: 3 undefined of "empty" and of "found" each, 8 of two empty masks, 20 failed.
    assert table[table["metric"].isin(metrics)]["value"].isna().sum() == 4 + 4 + 8 + 20


def test_failed_rows_leave_the_background_out():
    rows = failed_rows(dataset="toy", fold=2, seed=5, loss="dice", cases=["a"], classes=("background", "x", "y"))
    assert [(r["class"], r["metric"]) for r in rows] == [(c, m) for c in "xy" for m in METRICS]
    assert {(r["fold"], r["seed"], r["status"]) for r in rows} == {(2, 5, "failed")}


def test_seed_means_average_per_case():
    table = score_table(
        [row(value=0.2, seed=0), row(value=0.6, seed=1), row(case="b", value=None), row(case="b", value=0.5, seed=1)]
    )
    means = seed_means(table)
    assert value(means, case="a") == pytest.approx(0.4)
    assert value(means, case="b") == pytest.approx(0.5)
    assert len(means) == 2


def test_complete_check_names_loss_and_case():
    complete_check(dice_table({"dice": [0.1, 0.2], "focal": [None, 0.2]}))
    table = dice_table({"dice": [0.1, 0.2], "focal": [0.1, 0.2]}).drop(index=3)
    with pytest.raises(InputError, match="loss focal has no dice of tumour for case case-1, seed 0"):
        complete_check(table)


def test_common_scores_are_of_the_same_cases():
    table = dice_table({"dice": [0.1, 0.2, 0.3], "focal": [0.1, 0.2]})
    common = common_scores(table)
    assert sorted(common["case"]) == ["case-0", "case-0", "case-1", "case-1"]
    complete_check(common)
