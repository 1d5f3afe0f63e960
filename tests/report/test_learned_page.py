"""Where no loss, or not every loss, has learned to find a class: what the page and the terminal say, and what not."""

import html
import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from study_files import StudyFiles
from study_helpers import call
from voxloss.commands.display.race import look_text
from voxloss.commands.display.status_view import status_view
from voxloss.evaluation.race import Departure, Look
from voxloss.report.build import build_report, print_tables
from voxloss.report.comparison import compare
from voxloss.report.figures.charts import forest_figure
from voxloss.report.page.advice import advise
from voxloss.report.record import open_record
from voxloss.report.summary import summarise
from voxloss.report.tables.verdict import pairs_frame
from voxloss.study.progress import run_progress
from voxloss.study.race import none_learned
from voxloss.study.rounds import plain_look
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

LOSSES = ("focal", "dice", "tversky")
WINNERS = re.compile(r"is the best|may be the best|equivalent|clearly worse|loses at most|could only detect")

pytestmark = pytest.mark.usefixtures("blank_figures")
slow = pytest.mark.slow  # what builds a page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Studies by the losses that predict nothing, each written once."""
    folder = tmp_path_factory.mktemp("studies")
    return {
        blank: StudyFiles(losses=LOSSES, cases=6, folds=3, blank=blank).write(folder / str(len(blank)))
        for blank in ((), ("dice",), LOSSES)
    }


@pytest.fixture
def study_with(written, tmp_path):
    """A copy of one of them, with another design."""

    def copy(blank, design="grid"):
        study = tmp_path / "study"
        shutil.copytree(written[blank], study)
        for name in ("study.yaml", "dataset.json"):
            text = (study / name).read_text().replace(str(written[blank]), str(study))
            (study / name).write_text(text.replace("design: grid", f"design: {design}"))
        return study

    return copy


def results(study, losses=None):
    record = open_record(study)
    comparison = compare(record, losses)
    return record, comparison, summarise(record, comparison)


def printed(study):
    stream = io.StringIO()
    print_tables(study, Console(file=stream, width=100))
    return " ".join(stream.getvalue().split())


def first_screen(study):
    text = (study / "report" / "index.html").read_text(encoding="utf-8")
    return html.unescape(re.search(r"<header>(.*?)</header>", text, re.DOTALL)[1])


@slow
def test_nothing_is_announced_where_nothing_was_learned(study_with):
    study = study_with(LOSSES)
    record, comparison, summary = results(study)
    assert comparison.none_learned("tumour") and comparison.none_learned("kidney")
    headline = "No network learned to find tumour, so this study cannot say which of the 3 losses is better."
    assert summary.headline == headline
    said = " ".join((*summary.details, *summary.limits))
    assert "No network predicted tumour in any case." in said and "Train longer (training.epochs)" in said
    assert "No network learned to find kidney." in said
    assert not WINNERS.search(said + headline)
    build_report(study)
    screen = first_screen(study)
    assert headline in screen and not WINNERS.search(screen)
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    assert "figures/forest" not in page and "figures/ranks_" not in page and ">best mean" not in page
    advice = advise(record, comparison)
    assert advice is not None and advice.code == () and advice.loss == ""
    assert not WINNERS.search(advice.methods.split("with a margin of")[1])
    commands = [command for _, command in advice.steps]
    assert any("--training.epochs 32" in command and "--study" in command for command in commands)
    assert any("--patches.foreground_share" in command for command in commands)
    assert headline in printed(study)
    table = pd.read_csv(study / "report/tables/learned.csv")
    assert not table["learned"].any() and set(table["loss"]) == set(LOSSES)
    Study.open(study).merge_scores()
    stream = io.StringIO()
    Console(file=stream, width=200).print(status_view(Study.open(study), run_progress(Study.open(study))))
    assert "No network learned to find tumour." in stream.getvalue()


def test_a_mask_that_needs_no_image_is_no_achievement(study_with):
    """Every network predicts something, but a mask drawn without the image reaches more."""
    study = study_with(())
    assert WINNERS.search(results(study)[2].headline)
    cases = {f"case_{number:03}": 0.99 for number in range(6)}
    (study / "blind.json").write_text(json.dumps({"predictor": "x", "dice": {"tumour": cases}}))
    said = " ".join((results(study)[2].headline, *results(study)[2].details))
    assert "No network learned to find tumour" in said and "drawn without looking at the image reaches 0.990" in said


@slow
def test_losses_that_have_not_learned_are_named_first_and_stay_in_the_comparison(study_with):
    study = study_with(("dice",))
    record, comparison, summary = results(study)
    assert summary.limits[0] == "Dice loss (never predicted) did not learn to find tumour."
    assert WINNERS.search(summary.headline) and "Dice loss" not in summary.headline
    assert set(comparison.verdicts["tumour"].losses) == set(LOSSES)  # the family is what it was before the outcome
    advice = advise(record, comparison)
    assert advice is not None and "Dice loss (never predicted) did not learn" in advice.methods and advice.code
    result = call("status", study)
    assert "did not learn" not in result.stdout  # before any scores are merged nothing is known
    result = call("report", study)
    assert result.returncode == 0 and "Dice loss (never predicted) did not learn" in first_screen(study)
    assert "Dice loss (never predicted) did not learn" in " ".join(result.stdout.split())
    assert "dice did not learn to find tumour." in call("status", study).stdout


@slow
def test_a_single_loss_that_has_learned_nothing(tmp_path):
    study = StudyFiles(losses=("dice",), cases=6, folds=2, blank=("dice",)).write(tmp_path / "study")
    assert results(study)[2].headline == "No network learned to find tumour."
    build_report(study)


@slow
def test_a_race_in_which_nothing_was_learned(study_with):
    study = study_with(LOSSES, design="race")
    look = Look(3, 3, LOSSES, (0.0, 0.0, 0.0), 0.02, (), float("nan"), "equivalent", 3, 1)
    assert none_learned(Study.open(study), look)
    said = look_text(look, "tumour")
    assert "equivalent" not in said and "No network has learned to find tumour so far" in said
    opened = Study.open(study)
    opened.files.write_looks([plain_look(look)])
    summary = results(study)[2]
    text = " ".join((summary.headline, *summary.details))
    assert "No network learned to find tumour" in text and not WINNERS.search(text)
    build_report(study)


@slow
def test_imported_scores_without_masks_have_the_criterion_of_prediction(tmp_path):
    rows = ["loss,case,fold,metric,value"]
    for loss in ("a", "b"):
        for case in range(8):
            rows += [f"{loss},c{case},{case % 2},dice,0.0", f"{loss},c{case},{case % 2},precision,"]
    (tmp_path / "scores.csv").write_text("\n".join(rows))
    result = call("import", "csv", tmp_path / "scores.csv", "--study", tmp_path / "study")
    assert result.returncode == 0, result.stderr
    summary = results(tmp_path / "study")[2]
    assert summary.headline.startswith("No network learned to find structure")
    assert "drawn without" not in " ".join(summary.details)
    assert call("report", tmp_path / "study").returncode == 0


@slow
def test_some_losses_keep_the_critical_values_of_all(study_with):
    study = study_with(())
    everything, some = results(study)[1], results(study, ["dice", "focal"])
    chosen = some[1]
    assert chosen.losses == ("focal", "dice") and chosen.family_losses == LOSSES
    before, after = everything.verdicts["tumour"].pairs, chosen.verdicts["tumour"].pairs
    kept = before[before["better"].isin(("dice", "focal")) & before["worse"].isin(("dice", "focal"))]
    pd.testing.assert_frame_equal(after, kept.reset_index(drop=True), check_exact=True)
    for name in ("rank_sum", "signed_rank"):
        whole, part = getattr(everything, name), getattr(chosen, name)
        kept = whole[whole["row"].isin(("dice", "focal")) & whole["column"].isin(("dice", "focal"))]
        pd.testing.assert_frame_equal(part, kept.reset_index(drop=True), check_exact=True)
    said = "These 2 of 3 compared losses were chosen afterwards; intervals and tests allow for all of them."
    assert said in some[2].limits
    result = call("report", study, "--losses", "dice, focal")
    assert result.returncode == 0 and said in " ".join(result.stdout.split())
    assert "Tversky" not in first_screen(study) and said in first_screen(study)


@pytest.mark.parametrize(
    ("losses", "said"),
    [("dice", "two or more losses"), ("dice,dice", "two or more"), ("dice,nix", "no loss 'nix'; it has focal, dice")],
)
def test_losses_that_cannot_be_shown_are_refused(study_with, losses, said):
    study = study_with(())
    (study / "report").mkdir()
    (study / "report/index.html").write_text("as it was")
    result = call("report", study, "--losses", losses)
    assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1
    assert (study / "report/index.html").read_text() == "as it was"


def test_an_unfinished_loss_can_be_shown_if_it_is_named(tmp_path):
    study = StudyFiles(losses=LOSSES, cases=6, folds=3, skip={("tversky", 1, 0), ("tversky", 2, 0)}).write(
        tmp_path / "study"
    )
    assert results(study)[1].losses == ("focal", "dice")
    chosen = results(study, ["tversky", "dice"])[1]
    assert chosen.losses == ("dice", "tversky") and chosen.n_cases == 2
    never = StudyFiles(losses=LOSSES, cases=6, folds=3, skip={("tversky", fold, 0) for fold in range(3)})
    with pytest.raises(InputError, match="tversky has no finished run yet"):
        results(never.write(tmp_path / "never"), ["tversky", "dice"])


def test_what_is_said_of_the_others_when_some_are_chosen(tmp_path):
    losses = (*LOSSES, "combo")
    cut = {(loss, fold, 0) for loss in ("tversky", "combo") for fold in (1, 2)}
    study = StudyFiles(losses=losses, cases=6, folds=3, skip=cut).write(tmp_path / "study")
    assert call("retire", study, "tversky").returncode == 0
    said = " ".join(results(study)[2].limits)
    assert "Not compared yet: Combo loss." in said and "not compared: Tversky loss" in said
    chosen = results(study, ["tversky", "dice"])  # the retired one, on the cases that it has
    said = " ".join(chosen[2].limits)
    assert "not compared: Tversky" not in said and "Not compared yet: Combo loss." in said
    assert chosen[1].family_losses == LOSSES and chosen[1].n_cases == 2
    assert "These 2 of 3 compared losses were chosen afterwards" in said


def test_a_loss_that_left_a_race_cannot_be_compared_afterwards(study_with):
    study = study_with((), design="race")
    gone = Departure("tversky", "dice", 0.3, 0.1, 0.01)
    look = Look(3, 3, LOSSES, (0.5, 0.4, 0.1), 0.02, (gone,), float("nan"), None, 3, 1)
    after = Look(3, 3, ("focal", "dice"), (0.5, 0.4), 0.02, (), float("nan"), "rounds", 3, 1)
    Study.open(study).files.write_looks([plain_look(look), plain_look(after)])
    with pytest.raises(InputError, match=r"tversky left after round 3; the last round compared focal, dice"):
        results(study, ["tversky", "dice"])
    comparison = results(study, ["focal", "dice"])[1]
    assert {one.loss for one in comparison.learned} == set(LOSSES)


@slow
def test_intervals_end_where_the_range_does(tmp_path):
    study = StudyFiles(losses=LOSSES, cases=4, folds=2, blank=("focal",)).write(tmp_path / "study")
    comparison = results(study)[1]
    shares = comparison.intervals[comparison.intervals["metric"].isin(("dice", "precision", "recall", "nsd"))]
    other = comparison.other_intervals
    for table in (shares, other[other["metric"].isin(("dice", "nsd"))]):
        assert table["low"].dropna().between(0, 1).all() and table["high"].dropna().between(0, 1).all()
    assert comparison.intervals["low"].dropna().ge(0).all()
    raw = comparison.verdicts["tumour"].pairs
    assert (raw["difference"] + raw["half_width"]).max() > 1  # two folds: the verdict itself is as wide as it is
    pairs = pairs_frame(comparison.verdicts["tumour"], "dice")
    assert pairs["low"].ge(-1).all() and pairs["high"].le(1).all()
    assert np.array_equal(pairs["half_width"], raw["half_width"])
    forest_figure(comparison.verdicts["tumour"], "tumour", "dice", "forest", tmp_path)
    forest = pd.read_csv(tmp_path / "forest.csv")
    assert forest["low"].ge(-1).all() and forest["high"].le(1).all()
