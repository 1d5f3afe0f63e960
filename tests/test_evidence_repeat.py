"""A run that is trained again is compared with the scores that are stored of it."""

import sys
from pathlib import Path

import pandas as pd
import pytest

EVIDENCE = Path(__file__).parents[1] / "evidence"


@pytest.fixture
def repeat(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EVIDENCE), *sys.path])
    import repeat

    return repeat


def scores(cases, values, status=None):
    table = pd.DataFrame({"case": cases, "class": "vessel", "metric": "dice", "value": values})
    return table.assign(status=status or "ok")


def test_cases_are_matched_in_the_order_of_their_names(repeat):
    """Numbers of cases are of all scored cases, so those of a fold are not 1, 2, 3; "10" comes after "9"."""
    stored = scores(["3", "11", "9"], [0.1, 0.3, 0.2])
    again = scores(["10", "9", "07"], [0.3, 0.1, 0.25])  # by length, then by name: 9, 07, 10
    table = repeat.compared(stored, again).set_index("case")
    assert table.loc["3", "value_again"] == 0.1 and table.loc["11", "value_again"] == 0.3
    assert table["difference"].to_dict() == pytest.approx({"3": 0, "9": 0.05, "11": 0})


def test_a_score_that_is_defined_in_one_of_them_differs_and_two_undefined_ones_do_not(repeat):
    nothing = float("nan")
    table = repeat.compared(scores(["1", "2"], [nothing, nothing]), scores(["a", "b"], [nothing, 0.0]))
    assert table["difference"].fillna(0).to_list() == [0, 1]


def test_a_stored_score_that_the_run_lacks_differs(repeat):
    """Else a run with other classes or metrics, of which no score can be compared, would pass."""
    table = repeat.compared(scores(["1"], [0.5]), scores(["a"], [0.5]).assign(metric="recall"))
    assert table["difference"].to_list() == [1]


def test_another_number_of_cases_is_refused(repeat):
    with pytest.raises(SystemExit, match="the run has 1 cases, and 2 are stored"):
        repeat.compared(scores(["1", "2"], [0.1, 0.2]), scores(["a"], [0.1]))


def test_stored_studies_can_be_repeated_by_their_names(repeat):
    stored = {path.name for path in repeat.RESULTS.iterdir() if path.is_dir()}
    assert stored <= set(repeat.STEPS)
    export = repeat.read_export(repeat.RESULTS / "drive")
    assert repeat.first_run(export) == ("focal", 0, 0)
