"""Charts of trades between losses: the tables behind them, by hand."""

import json
import math

import pandas as pd
import pytest

from study_files import StudyFiles
from voxloss.report.comparison import compare
from voxloss.report.figures.charts import cost_figure, cost_table, precision_recall_figure, round_numbers, volume_table
from voxloss.report.record import open_record

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path):
    return StudyFiles(losses=("dice", "focal"), cases=6, folds=2).write(tmp_path / "study")


def edit_scores(study, change):
    scores = pd.read_csv(study / "scores.csv")
    change(scores)
    scores.to_csv(study / "scores.csv", index=False)


def test_groups_by_volume_are_of_equal_number_and_ordered(small):
    def sizes(scores):
        volume = scores["metric"] == "reference_volume"
        scores.loc[volume, "value"] = 10.0 ** scores.loc[volume, "case"].str[-3:].astype(int)

    edit_scores(small, sizes)
    table = volume_table(compare(open_record(small)), "tumour")
    assert len(table) == 12
    own = table[table["loss"] == "dice"].sort_values("volume_ml")
    assert own["volume_ml"].tolist() == [10.0**number for number in range(6)]
    assert own["group"].tolist() == [1, 1, 1, 2, 2, 2]


def test_a_case_without_the_structure_has_no_volume(small):
    def none_in_first(scores):
        first = (scores["case"] == "case_000") & (scores["class"] == "tumour")
        scores.loc[first & (scores["metric"] == "reference_volume"), "value"] = 0.0

    edit_scores(small, none_in_first)
    assert set(volume_table(compare(open_record(small)), "tumour")["case"]) == {f"case_00{n}" for n in range(1, 6)}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 2000, [1, 10, 100, 1000]),
        (0.9, 35, [1, 3, 10, 30]),
        (15, 110, [20, 50, 100]),
        (28, 61, [30, 40, 50, 60]),
        (270, 330, [280, 300, 320]),
    ],
)
def test_round_numbers_on_a_logarithmic_axis(low, high, expected):
    numbers = round_numbers(low, high)
    if expected == [280, 300, 320]:
        assert len(numbers) >= 3 and all(low <= number <= high for number in numbers)
    else:
        assert numbers == pytest.approx(expected)


def test_cost_is_the_median_epoch_and_the_largest_memory(small):
    for fold, memory in enumerate((3_000_000_000, 2_000_000_000)):
        path = small / "runs" / "dice" / f"fold-{fold}" / "seed-0" / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_memory": memory}))
    table = cost_table(open_record(small), ("dice", "focal")).set_index("loss")
    assert table.loc["dice", "seconds_per_epoch"] == pytest.approx(1.2)
    assert table.loc["dice", "peak_memory_gb"] == 3.0
    assert math.isnan(table.loc["focal", "peak_memory_gb"])


def test_no_cost_no_figure(small, tmp_path):
    for path in small.rglob("history.csv"):
        path.unlink()
    assert cost_figure(open_record(small), ("dice", "focal"), tmp_path) is None


def test_a_loss_without_precision_is_named(small, tmp_path):
    def nothing_predicted(scores):
        lost = (scores["loss"] == "focal") & (scores["class"] == "tumour") & (scores["metric"] == "precision")
        scores.loc[lost, "value"], scores.loc[lost, "status"] = math.nan, "undefined"

    edit_scores(small, nothing_predicted)
    figure = precision_recall_figure(compare(open_record(small)), "tumour", "pr", tmp_path)
    assert "Not shown (no mean precision or recall): Focal loss." in figure.caption
    data = pd.read_csv(tmp_path / "pr.csv").set_index("loss")
    assert math.isnan(data.loc["focal", "precision_mean"]) and 0 < data.loc["dice", "recall_mean"] <= 1
