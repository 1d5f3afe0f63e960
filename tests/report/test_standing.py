"""Losses that are finished, in progress or retired: who is compared on which cases, and what is said of the others."""

import io
import json
import re

import pandas as pd
import pytest
from rich.console import Console

from study_files import StudyFiles
from study_helpers import call
from voxloss.commands.display.status_view import status_view
from voxloss.report.comparison import compare
from voxloss.report.record import open_record
from voxloss.report.summary import summarise
from voxloss.study.progress import run_progress
from voxloss.study.standing import standings
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

LOSSES = ("focal", "dice", "tversky")
TVERSKY_CUT = {("tversky", 1, 0), ("tversky", 2, 0)}


@pytest.fixture
def unfinished(tmp_path):
    """Two finished losses, and one that has a single fold."""
    return StudyFiles(losses=LOSSES, cases=9, folds=3, skip=TVERSKY_CUT).write(tmp_path / "study")


def means_by_hand(study, loss):
    """Of the primary class and metric, from the files of the loss's runs alone."""
    parts = [pd.read_csv(path) for path in sorted(study.glob(f"runs/{loss}/*/*/scores.csv"))]
    scores = pd.concat(parts)
    scores = scores[(scores["class"] == "tumour") & (scores["metric"] == "dice")]
    return scores["value"].mean(), len(scores)


def limits(study):
    record = open_record(study)
    return " ".join(summarise(record, compare(record)).limits)


def shown(study):
    stream, opened = io.StringIO(), Study.open(study)
    Console(file=stream, width=300).print(status_view(opened, run_progress(opened)))
    return stream.getvalue()


def test_finished_losses_are_compared_on_all_cases_whatever_the_others_do(unfinished):
    comparison = compare(open_record(unfinished))
    assert comparison.losses == ("focal", "dice") and comparison.n_cases == 9
    table = comparison.intervals
    table = table[(table["class"] == "tumour") & (table["metric"] == "dice")].set_index("loss")
    for loss in ("focal", "dice"):
        mean, cases = means_by_hand(unfinished, loss)
        assert cases == 9
        assert table.loc[loss, "ranking_mean"] == pytest.approx(mean)
    assert "Not compared yet: Tversky loss." in limits(unfinished)
    assert "Finished: focal, dice. In progress: tversky (1 of 3)." in shown(unfinished)


def test_one_finished_loss_is_compared_on_common_cases_and_its_own_mean_is_said(tmp_path):
    skip = TVERSKY_CUT | {("focal", 1, 0), ("focal", 2, 0)}
    study = StudyFiles(losses=LOSSES, cases=9, folds=3, skip=skip).write(tmp_path / "study")
    comparison = compare(open_record(study))
    assert set(comparison.losses) == set(LOSSES) and comparison.n_cases == 3
    mean, _ = means_by_hand(study, "dice")
    assert f"Dice loss is finished: over all of its 9 cases its mean DSC of tumour is {mean:.3f}." in limits(study)


def test_a_run_that_failed_without_scores_leaves_its_loss_in_progress(tmp_path):
    files = StudyFiles(losses=LOSSES, cases=9, folds=3, states={("tversky", 0, 0): ("failed", "a.nii.gz is missing")})
    study = files.write(tmp_path / "study")
    assert [one.standing for one in standings(Study.open(study))] == ["finished"] * 3
    (study / "runs/tversky/fold-0/seed-0/scores.csv").unlink()
    Study.open(study).merge_scores()
    assert [one.standing for one in standings(Study.open(study))] == ["finished", "finished", "in progress"]
    assert compare(open_record(study)).losses == ("focal", "dice")
    assert "count as 0" not in limits(study)


def test_a_retired_loss_is_named_with_its_scores_and_cuts_nobody(tmp_path):
    skip = TVERSKY_CUT | {("focal", 2, 0), ("dice", 2, 0)}
    study = StudyFiles(losses=LOSSES, cases=9, folds=3, skip=skip).write(tmp_path / "study")
    assert compare(open_record(study)).n_cases == 3
    result = call("retire", study, "tversky")
    assert result.returncode == 0, result.stderr
    assert "tversky: retired on " in result.stdout and "after 1 of 3 runs" in result.stdout
    mean, cases = means_by_hand(study, "tversky")
    record = json.loads((study / "retired.json").read_text())["tversky"]
    assert record["runs"] == 1 and record["planned"] == 3
    assert record["scores"]["cases"] == cases == 3
    assert record["scores"]["means"]["tumour"] == pytest.approx(mean)
    comparison = compare(open_record(study))
    assert comparison.losses == ("focal", "dice") and comparison.n_cases == 6
    said = limits(study)
    assert f"Retired by the user and not compared: Tversky loss (on {record['time'][:10]} after 1 of 3 runs" in said
    assert f"mean DSC of tumour {mean:.3f}" in said
    assert "Not compared yet" not in said
    view = shown(study)
    assert "Retired: tversky (on" in view and len(re.findall(r"\bretired\b", view)) == 2


def test_a_retired_loss_keeps_its_place_in_the_status(tmp_path):
    study = StudyFiles(losses=LOSSES, cases=9, folds=3, skip={("dice", 2, 0)}).write(tmp_path / "study")
    assert call("retire", study, "dice").returncode == 0
    rows = re.findall(r"│ (\w+) +│", shown(study))
    assert [row for row in rows if row in LOSSES] == list(LOSSES)


def test_missing_runs_of_a_retired_loss_are_not_executed(unfinished):
    before = Study.open(unfinished)
    assert len(before.runs()) == 9
    scores = (unfinished / "scores.csv").read_bytes()
    assert call("retire", unfinished, "tversky").returncode == 0
    runs = Study.open(unfinished).runs()
    assert [run.fold for run in runs if run.loss.key == "tversky"] == [0] and len(runs) == 7
    Study.open(unfinished).merge_scores()
    assert len(pd.read_csv(unfinished / "scores.csv")) == len(pd.read_csv(io.BytesIO(scores)))
    first = (unfinished / "retired.json").read_text()
    assert call("retire", unfinished, "tversky").returncode == 0  # the record stays that of then
    assert (unfinished / "retired.json").read_text() == first
    assert call("retire", unfinished, "tversky", "--undo").returncode == 0
    assert len(Study.open(unfinished).runs()) == 9


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["focal"], "focal is finished"),
        (["tverski"], "no loss 'tverski'; it has focal, dice, tversky"),
        (["tversky", "--undo"], "tversky is not retired"),
        (["tversky", "focal"], "focal is finished"),
    ],
)
def test_what_cannot_be_retired_is_refused(unfinished, words, named):
    result = call("retire", unfinished, *words)
    assert result.returncode == 2 and named in result.stderr
    assert not (unfinished / "retired.json").exists()


def test_a_race_eliminates_by_itself(tmp_path):
    study = StudyFiles(losses=LOSSES, cases=9, folds=3, design="race").write(tmp_path / "study")
    result = call("retire", study, "tversky")
    assert result.returncode == 2 and "is a race" in result.stderr
    assert call("retire", tmp_path, "tversky").returncode == 2
    assert not (tmp_path / ".lock").exists()


def test_a_study_with_retired_losses_becomes_no_race(unfinished):
    assert call("retire", unfinished, "tversky").returncode == 0
    before = (unfinished / "study.yaml").read_text()
    result = call("race", unfinished)
    assert result.returncode == 2
    assert f"voxloss retire {unfinished} tversky --undo" in result.stderr
    assert (unfinished / "study.yaml").read_text() == before and not (unfinished / "race.json").exists()


def test_a_damaged_record_is_named(unfinished):
    (unfinished / "retired.json").write_text('{"tversky": 3}')
    with pytest.raises(InputError, match=r"retired\.json is damaged"):
        Study.open(unfinished).runs()
