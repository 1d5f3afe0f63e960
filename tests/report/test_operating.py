"""Operating points and calibration in the report: what the page says, and what it leaves alone."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
from test_build import Page

from study_files import StudyFiles
from voxloss.evaluation.probabilities.counts import ProbabilityCounts, read_counts, write_counts
from voxloss.evaluation.scores import COLUMNS, read_scores
from voxloss.evaluation.verdict import verdict
from voxloss.report import build_report
from voxloss.report.comparison import compare
from voxloss.report.operating import on_shared_cases
from voxloss.report.record import open_record
from voxloss.report.summary import summarise
from voxloss.report.tables.operating import (
    calibration_frame,
    calibration_table,
    disagreement_sentence,
    operating_frame,
    operating_sentences,
    operating_table,
    threshold_text,
)
from voxloss.utilities.errors import InputError

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]

# One loss whose probabilities are all too low, and one whose are as they should be.
SHIFTS = {"dice": 0.0, "focal": -3.0, "mixed_focal": 0.5}


def files(**changes):
    return StudyFiles(**{"losses": tuple(SHIFTS), "cases": 9, "folds": 3, "shifts": SHIFTS, "seeds": (0, 1), **changes})


def small(folder, **changes):
    """A study of two losses, six cases and one seed."""
    return files(losses=("dice", "focal"), cases=6, folds=3, seeds=(0,), **changes).write(folder / "study")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return files().write(tmp_path_factory.mktemp("operating") / "study")


@pytest.fixture(scope="module")
def comparison(study):
    return compare(open_record(study))


def test_thresholds_follow_the_probabilities(comparison):
    points = comparison.operating.points
    medians = points[points["class"] == "tumour"].groupby("loss")["threshold"].median()
    assert medians["focal"] < medians["dice"] < medians["mixed_focal"]
    assert len(points) == 3 * 3 * 2 * 2  # losses, folds, seeds, classes
    assert (points["cases"] == 6).all()


def test_the_table_has_both_scores_side_by_side(comparison):
    frame = operating_frame(comparison, comparison.operating, "tumour").set_index("loss")
    argmax = comparison.intervals.set_index(["loss", "class", "metric"])
    for loss in SHIFTS:
        assert frame.loc[loss, "dice_argmax_mean"] == argmax.loc[(loss, "tumour", "dice"), "mean"]
        assert 0 < frame.loc[loss, "average_precision"] <= 1
    table = operating_table(comparison, comparison.operating, "tumour", frame.reset_index())
    assert table.header == ("Loss", "Threshold", *("largest", "tuned") * 3, "AP")
    assert sum(width for _, width in table.groups) == len(table.header) - 1
    assert all(len(row) == len(table.header) for row in table.rows)
    assert "the other folds' runs of the same loss and seed" in table.caption


def test_calibration_is_better_after_the_scaling_of_shifted_odds(comparison):
    frame = calibration_frame(comparison, comparison.operating, "tumour")
    assert len(frame) == 3 * 6 and list(dict.fromkeys(frame["loss"])) == list(comparison.losses)
    table = calibration_table(comparison, "tumour", frame)
    assert len(table.header) == 10 and len(table.rows) == 3
    means = frame.groupby("loss")[["ece", "log_score", "log_score_scaled"]].mean()
    assert (means["log_score_scaled"] <= means["log_score"] * 1.01).all()


def judged(entered, left):
    class Points:
        def disagreement(self, _):
            return entered, left

    return disagreement_sentence(Points(), "tumour")


def test_a_disagreement_is_one_sentence_each_way():
    assert judged((), ()) == ""
    assert judged(("focal",), ()) == (
        "With its own tuned threshold, Focal loss may be the best by DSC of tumour too: there the threshold differs, "
        "not the loss."
    )
    assert judged((), ("dice", "focal")) == (
        "With tuned thresholds, Dice loss and Focal loss can no longer be the best by DSC of tumour."
    )
    assert judged(("dice",), ("focal",)).count(".") == 2
    assert disagreement_sentence(None, "tumour") == ""


def test_both_verdicts_are_on_the_same_cases():
    def scores(without: dict[str, float]) -> pd.DataFrame:
        """Two losses on three folds; case 0 of each fold has no tumour, and a loss predicts some if it has a score."""
        rows = []
        for loss, fold, number in itertools.product(("dice", "focal"), range(3), range(3)):
            value = 0.5 + 0.1 * number + 0.01 * fold if number else without.get(loss, math.nan)
            values = {"dice": value, "recall": value if number else math.nan}
            for metric, score in values.items():
                status = "undefined" if math.isnan(score) else "ok"
                rows.append(("d", fold, 0, loss, f"{fold}{number}", "tumour", metric, score, status))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    argmax, tuned = scores({"dice": 0.0}), scores({"dice": 0.0, "focal": 0.0})
    assert [verdict(part, "tumour", "dice").n_cases for part in (argmax, tuned)] == [6, 9]
    shared = on_shared_cases(argmax, tuned, "tumour")
    assert [verdict(part, "tumour", "dice").n_cases for part in shared] == [6, 6]
    assert verdict(shared[0], "tumour", "dice").means == verdict(shared[1], "tumour", "dice").means


def test_the_first_screen_has_it_only_where_the_verdicts_disagree(study, comparison):
    record = open_record(study)
    plain = summarise(record, comparison)
    argmax, _ = comparison.operating.verdicts["tumour"]
    same = replace(comparison.operating, verdicts={"tumour": (argmax, argmax)})
    other = replace(
        comparison.operating,
        verdicts={"tumour": (replace(argmax, may_be_best=("dice",)), replace(argmax, may_be_best=("dice", "focal")))},
    )
    quiet = summarise(record, replace(comparison, operating=same))
    assert quiet == summarise(record, replace(comparison, operating=None))
    loud = summarise(record, replace(comparison, operating=other))
    assert loud.headline == quiet.headline == plain.headline and loud.limits == quiet.limits
    assert [s for s in loud.details if s not in quiet.details] == [
        "With its own tuned threshold, Focal loss may be the best by DSC of tumour too: there the threshold differs, "
        "not the loss."
    ]
    assert list(operating_sentences(same, "tumour"))[-1] == "The same losses may be the best with both."


def test_the_page_shows_the_section_and_its_files(study):
    page = Page(build_report(study))
    report = study / "report"
    assert "Thresholds and calibration" in page.text and "#thresholds" in page.links
    assert "Largest probability: " in page.text and "Tuned thresholds: " in page.text
    tables = {path.name for path in (report / "tables").iterdir()}
    assert {
        "operating_points.csv",
        "scores_at_thresholds.csv",
        "operating_tumour.tex",
        "calibration_kidney.md",
    } <= tables
    figures = {path.name for path in (report / "figures").iterdir()}
    for name in ("thresholds_tumour", "curves_kidney", "reliability_tumour", "froc_tumour"):
        assert {f"{name}.svg", f"{name}.png", f"{name}.csv"} <= figures
    lesions = pd.read_csv(report / "figures" / "lesions_tumour.csv")
    scores = read_scores(study / "scores.csv")
    false = scores[(scores["metric"] == "false_positive_lesions") & (scores["seed"] == 0)]
    for loss in SHIFTS:
        own = false[(false["loss"] == loss) & (false["class"] == "tumour")]["value"].sum()
        assert own == ((lesions["loss"] == loss) & (lesions["kind"] == "invented")).sum()
    assert "froc_kidney.csv" not in figures  # lesions are found of the primary class alone
    tuned = read_scores(report / "tables" / "scores_at_thresholds.csv")
    assert len(tuned) == 3 * 9 * 2 * 2 * 3  # losses, cases, seeds, classes, metrics
    froc = pd.read_csv(report / "figures" / "froc_tumour.csv")
    assert ((froc["sensitivity"] >= 0) & (froc["sensitivity"] <= 1)).all()
    curve = pd.read_csv(report / "figures" / "curves_tumour.csv")
    precision = curve.loc[curve["loss"] == "dice", "mean_precision"].to_numpy()
    assert len(precision) == 101 and precision[0] > 0.9 > 0.1 > precision[-1] > 0


def test_a_study_without_counts_is_reported_as_before(reported_study):
    page = Page(reported_study / "report" / "index.html")
    assert "Thresholds and calibration" not in page.text and "#thresholds" not in page.links


def test_one_run_without_counts_keeps_the_section_away(tmp_path):
    study = small(tmp_path)
    next(iter(sorted(study.rglob("probability_counts.npz")))).unlink()
    assert compare(open_record(study)).operating is None


def test_one_fold_has_nothing_to_choose_on(tmp_path):
    study = small(tmp_path, skip={(loss, fold, 0) for loss in SHIFTS for fold in (1, 2)})
    assert compare(open_record(study)).operating is None


def test_a_failed_run_counts_as_the_worst_at_the_thresholds_too(tmp_path):
    study = small(tmp_path, states={("focal", 1, 0): ("failed", "out of memory")})
    comparison = compare(open_record(study))
    operating = comparison.operating
    own = operating.scores[(operating.scores["loss"] == "focal") & (operating.scores["fold"] == 1)]
    assert set(own["status"]) == {"failed"}
    points = operating.points[operating.points["loss"] == "focal"]
    assert set(points["fold"]) == {0, 2} and (points["cases"] == 2).all()
    frame = operating_frame(comparison, operating, "tumour")
    assert not frame.isna().any(axis=None)


def test_a_damaged_file_is_named_with_the_way_out(tmp_path):
    study = small(tmp_path)
    next(iter(study.rglob("probability_counts.npz"))).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"probability_counts\.npz is damaged .*voxloss run"):
        compare(open_record(study))


def test_a_race_is_judged_at_its_last_look(tmp_path):
    study = small(tmp_path, design="race")
    assert compare(open_record(study)).operating is not None


def test_a_class_that_an_unfinished_run_lost_is_named_on_the_page(tmp_path):
    study = small(tmp_path, states={("focal", 1, 0): ("pending", None), ("focal", 2, 0): ("diverged", "NaN")})
    for fold in (1, 2):
        history = study / f"runs/focal/fold-{fold}/seed-0/history.csv"
        table = pd.read_csv(history, dtype={"not_predicted": object})
        table.loc[5:, "not_predicted"] = "tumour"
        table.to_csv(history, index=False)
    text = " ".join(Page(build_report(study)).text.split())
    assert "Focal loss, fold 1, seed 0: tumour was predicted in validation patches until epoch 5 and is not" in text
    assert "Focal loss, fold 2, seed 0: tumour was predicted" not in text  # it ended, and its scores tell


def test_a_class_in_no_case_is_left_at_a_half(tmp_path):
    """What the reference of every case lacks, networks may still predict."""
    study = small(tmp_path)
    for path in study.rglob("probability_counts.npz"):
        run = read_counts(path)
        moved = []
        for counts in run.counts:
            voxels, sums = counts.voxels.copy(), counts.sums.copy()
            for array in (voxels, sums):
                array[1, 0] += array[1, 1]
                array[1, 1] = 0
            moved.append(ProbabilityCounts(voxels, sums))
        write_counts(path, replace(run, counts=tuple(moved), lesions=0 * run.lesions))
    operating = compare(open_record(study)).operating
    points = operating.points.set_index("class")["threshold"]
    assert points["tumour"].isna().all() and points["kidney"].notna().all()
    page = Page(build_report(study))
    assert "6 runs had no case to choose on that has tumour, and took 0.5." in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(
    ("threshold", "text"), [(0.5, "0.50"), (0.123, "0.12"), (0.0321, "0.032"), (0.00046, "0.00046"), (0.999, "0.99900")]
)
def test_thresholds_are_written_with_the_digits_that_they_need(threshold, text):
    assert threshold_text(threshold) == text
    assert not math.isnan(float(text))
