"""A whole report from a study's folder: finished, in progress, failed, hostile and damaged ones."""

import html.parser
import io
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest
from latex import compile_latex, needs_latex
from rich.console import Console

from study_files import StudyFiles
from voxloss.config.losses import LossChoice
from voxloss.evaluation.scores import read_scores
from voxloss.evaluation.significance import intervals, pairwise_rank_sum
from voxloss.report import build_report, print_tables
from voxloss.report.comparison import compare
from voxloss.report.page.advice import _own_code
from voxloss.report.page.page import start_check
from voxloss.report.record import open_record
from voxloss.report.summary import summarise
from voxloss.report.tables.scores import interval_text, metric_digits
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

HOSTILE = '"><script>alert(1)</script>$x$'


pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]


class Page(html.parser.HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.links, self.text, self.ids, self._skip = [], [], "", [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._skip = tag in ("style", "script")
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        if not self._skip:
            self.text += data


def small(**changes):
    return StudyFiles(**{"losses": ("dice", "focal", "mixed_focal"), "cases": 6, "folds": 2, **changes})


def headline(study):
    record = open_record(study)
    return summarise(record, compare(record))


def test_the_report_is_whole_and_offline(reported_study):
    report = reported_study / "report"
    page = Page(report / "index.html")
    assert {tag for tag, _ in page.tags} & {"iframe", "object", "base", "form"} == set()
    assert [attributes["rel"] for tag, attributes in page.tags if tag == "link"] == ["icon"]
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert [script.get("src", script.get("type")) for script in scripts] == [
        "application/json", "viewer/page.js", "viewer/viewer.js",
    ]  # fmt: skip
    for link in page.links:
        if link.startswith("data:"):
            continue
        assert not urlparse(link).scheme and not link.startswith("/")
        target = link[1:] if link.startswith("#") else (report / link).resolve()
        assert target in page.ids if link.startswith("#") else target.is_file(), link
    for _, attributes in (entry for entry in page.tags if entry[0] == "img"):
        assert attributes["alt"] and attributes["width"] and attributes["height"]
    assert not re.search(r"https?://|url\(", (report / "index.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert not list(reported_study.glob(".partial-*"))


def test_the_page_says_what_the_tables_say(reported_study):
    text = Page(reported_study / "report" / "index.html").text
    expected = intervals(read_scores(reported_study / "scores.csv"))
    shown = expected[(expected["metric"] != "reference_volume") & (expected["n_cases"] > 0)]
    for row in shown.to_dict("records"):
        values = (row["mean"], row["half_width"], row["low"], row["high"])
        assert interval_text(*values, metric_digits(row["metric"])) in text
    assert "NaN" not in text and "inf" not in text.split() and "Not for publication" not in text
    assert "Synthetic data: do not use this to choose a loss." in text
    assert "Only one seed: run-to-run variation is estimated from the folds." in text
    assert "over 3 folds" in text and "9 cases, 1 seed" in text
    assert "identical for all losses in each of 3 fold-and-seed pairs" in text


def test_tables_on_disk_are_the_numbers(reported_study):
    folder = reported_study / "report" / "tables"
    expected = pairwise_rank_sum(read_scores(reported_study / "scores.csv"), ["dice"])
    expected = expected[expected["class"] == "tumour"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table2_tumour_rank_sum.csv"), expected)
    names = {path.name for path in folder.iterdir()}
    stems = {"table1_scores"} | {f"table2_{c}_{t}" for c in ("kidney", "tumour") for t in ("rank_sum", "signed_rank")}
    stems |= {
        f"{name}_{c}"
        for c in ("kidney", "tumour")
        for name in (
            "verdict", "rankings", "sizes", "ranks", "further", "lesions", "cases_with_lesions", "lesion_sizes"
        )
    }  # fmt: skip
    data_alone = {"effects_kidney.csv", "effects_tumour.csv", "cases.csv", "intervals_over_cases.csv"}
    data_alone |= {"learned.csv", "scores.csv"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("csv", "md", "tex")} | data_alone


@needs_latex
def test_the_tables_compile(reported_study, tmp_path):
    written = sorted((reported_study / "report" / "tables").glob("*.tex"))
    compile_latex("\n".join(path.read_text(encoding="utf-8") + "\\clearpage" for path in written), tmp_path)


def test_building_again_gives_the_same_report(reported_study, tmp_path, monkeypatch):
    monkeypatch.undo()  # real pictures

    def content(study):
        files = sorted((study / "report").rglob("*.*"))
        here = str(study).encode()  # in the commands of the page
        return {path.name: path.read_bytes().replace(here, b"STUDY") for path in files if path.suffix != ".png"}

    copy = tmp_path / "study"
    shutil.copytree(reported_study, copy)
    build_report(copy)
    assert content(copy) == content(reported_study)


def test_hostile_names_are_only_text(tmp_path):
    classes = ("background", HOSTILE, "a|b_{c}")
    files = small(
        losses=("dice", "<script>alert(1)<_script>"), classes=classes, primary_class=HOSTILE,
        name=HOSTILE.replace("/", ""),  # a study's name has no slash
        dataset=HOSTILE, case_prefix='<script>alert(1)<&"', cases=6,
    )  # fmt: skip
    files.states = {("dice", 0, 0): ("failed", HOSTILE)}
    study = files.write(tmp_path / "study")
    page = Page(build_report(study))
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3
    assert page.text.count(HOSTILE) >= 5
    for path in (study / "report").rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", path.name)
    for path in (study / "report" / "tables").glob("*.md"):
        assert "<script" not in path.read_text(encoding="utf-8")


def test_a_study_in_progress_says_so(tmp_path):
    files = small(skip={("mixed_focal", 0, 0), ("mixed_focal", 1, 0), ("focal", 1, 0)})
    study = files.write(tmp_path / "study")
    summary = headline(study)
    assert (
        "In progress: 3 of 6 runs finished; the comparison uses the 3 cases that all compared losses have. "
        "Not compared yet: Mixed Focal loss."
    ) in summary.limits
    text = Page(build_report(study)).text
    assert "3 of 6" in text and "pending" in text
    assert "[Not for publication: the study is not finished (3 of 6 runs).] We compared " in text
    table = pd.read_csv(study / "report" / "tables" / "table1_scores.csv")
    assert set(table["loss"]) == {"dice", "focal"} and set(table.loc[table["metric"] == "dice", "n_cases"]) == {3}


def test_nothing_finished_is_an_input_error(tmp_path):
    files = small(losses=("dice",), skip={("dice", 0, 0), ("dice", 1, 0)})
    study = files.write(tmp_path / "study")
    with pytest.raises(InputError, match="no finished run"):
        build_report(study)
    assert not (study / "report").exists()


def test_losses_without_a_common_case_are_an_input_error(tmp_path):
    study = small(losses=("dice", "focal"), skip={("dice", 0, 0), ("focal", 1, 0)}).write(tmp_path / "study")
    with pytest.raises(InputError, match="no case yet"):
        build_report(study)


def test_scores_are_taken_from_the_runs_while_there_is_no_merged_table(tmp_path):
    study = small().write(tmp_path / "study")
    before = intervals(read_scores(study / "scores.csv"))
    (study / "scores.csv").unlink()
    after = compare(open_record(study)).intervals
    assert after["mean"].equals(before["mean"])


def test_a_failed_loss_is_last_and_explained(tmp_path):
    files = small()
    files.states = {("mixed_focal", fold, 0): ("diverged", "loss was nan in epoch 3") for fold in range(2)}
    study = files.write(tmp_path / "study")
    summary = headline(study)
    assert summary.headline.startswith(("Dice loss or Focal loss may be the best", "Focal loss or Dice loss may"))
    assert any(limit.startswith("2 runs failed or diverged") for limit in summary.limits)
    text = Page(build_report(study)).text
    assert "loss was nan in epoch 3" in text and "n/a†" in text


def test_different_batches_are_warned_about(tmp_path):
    study = small(digest_of={("focal", 1, 0): "another"}).write(tmp_path / "study")
    assert "The batches differ between losses in fold 1, seed 0" in Page(build_report(study)).text


def test_initial_weights_are_compared_where_they_are_recorded(tmp_path):
    folder = small().write(tmp_path / "study")
    study = Study.open(folder)
    assert "weights" not in start_check(open_record(folder).runs)[1]  # as of an earlier version
    for run in study.runs():
        study.write_status(run, weight_digest=f"weights-{run.fold}")
    equal, text = start_check(open_record(folder).runs)
    assert equal and "The initial weights are identical for all losses in each of 2 fold-and-seed pairs" in text
    machine = {"gpu": "a GPU", "torch": "2.11.0"}
    study.write_status(study.runs()[0], weight_digest="others", environments=(machine,))
    text = Page(build_report(folder)).text
    assert "The initial weights differ between losses in fold 0, seed 0: these losses are not comparable." in text
    assert "machine of 1 run" in text and "a GPU; torch 2.11.0" in text


def test_one_loss_and_one_class(tmp_path):
    study = small(losses=("dice",), classes=("background", "organ"), primary_class="organ").write(tmp_path / "study")
    assert "the study has no other loss to compare it with" in headline(study).headline
    build_report(study)
    written = {path.stem for path in (study / "report" / "tables").glob("*.csv")}
    assert written == {
        "table1_scores", "further_organ", "lesions_organ", "cases_with_lesions_organ", "lesion_sizes_organ",
        "cases", "intervals_over_cases", "learned", "scores",
    }  # fmt: skip
    print_tables(study, Console(file=io.StringIO()))


def test_an_own_loss_of_images_is_trained_in_the_plane():
    choice = LossChoice("mine.Loss", {})
    for plan in ("2d", "3d_fullres"):
        assert f"nnUNetv2_train DATASET {plan} FOLD" in dict(_own_code(choice, plan))["nnU-Net"]


def test_images_that_moved_away_do_not_stop_the_report(tmp_path):
    study = small().write(tmp_path / "study")
    for path in (study / "images").rglob("*.nii.gz"):
        path.unlink()
    assert "could not be drawn" in Page(build_report(study)).text


def test_what_to_do_next(tmp_path):
    study = small(losses=("dice", "focal", "mixed_focal"), cases=60).write(tmp_path / "a study")
    page = Page(build_report(study))
    assert "What to do next" in page.text and "3 seeds would detect differences above about 0." in page.text
    assert f"voxloss run '{study}' --seeds 0,1,2" in page.text
    assert "nnUNetv2_train DATASET 3d_fullres FOLD -tr nnUNetTrainerVoxloss" in page.text
    assert 'voxloss.get_loss("' in page.text
    assert "We compared Dice loss, Focal loss and Mixed Focal loss on 60 cases of" in page.text
    alone = small(losses=("dice",)).write(tmp_path / "alone")
    assert "What to do next" not in Page(build_report(alone)).text


def test_several_seeds(tmp_path):
    study = small(seeds=(0, 1), interval="case").write(tmp_path / "study")
    summary = headline(study)
    assert not any("one seed" in limit for limit in summary.limits)
    text = Page(build_report(study)).text
    assert "over 6 cases" in text and "averaged over the seeds first" in text
    assert "Standard deviations between runs: loss 0." in text and "seed 0." in text


def test_the_headline_is_the_verdict(tmp_path):
    study = small(losses=("dice", "focal"), cases=12).write(tmp_path / "study")
    scores = pd.read_csv(study / "scores.csv")
    dice = (scores["metric"] == "dice") & (scores["class"] == "tumour")
    order = scores.loc[dice, "case"].str[-3:].astype(int) / 1000
    better = scores.loc[dice, "loss"] == "focal"
    scores.loc[dice, "value"] = 0.5 + order + 0.2 * better
    scores.to_csv(study / "scores.csv", index=False)
    summary = headline(study)
    assert summary.headline == "Focal loss is the best by mean DSC of tumour, 0.706 (95 % confidence)."
    assert summary.details[0] == "Dice loss is clearly worse than Focal loss."
    folds = scores.loc[dice, "fold"] % 2
    scores.loc[dice, "value"] = 0.5 + order + 0.2 * better * folds - 0.1 * better
    scores.to_csv(study / "scores.csv", index=False)
    summary = headline(study)
    assert summary.headline.startswith("Either loss may be the best by mean DSC of tumour; taking ")
    assert summary.details == ("This study has too few folds and cases to detect any difference.",)
    scores.loc[dice, "value"] = 0.5
    scores.to_csv(study / "scores.csv", index=False)
    assert headline(study).headline == "Both losses are equivalent (within 0.01) in mean DSC of tumour, about 0.500."


def test_the_verdict_in_words_and_as_a_table(tmp_path):
    losses = ("dice", "focal", "combo", "tversky")
    study = small(losses=losses, cases=30).write(tmp_path / "study")
    scores = pd.read_csv(study / "scores.csv")
    dice = (scores["metric"] == "dice") & (scores["class"] == "tumour")
    generator = np.random.default_rng(0)
    worse = scores.loc[dice, "loss"].isin(["combo", "tversky"])
    scores.loc[dice, "value"] = (0.7 + generator.normal(0, 0.03, dice.sum()) - 0.3 * worse).round(6)
    scores.to_csv(study / "scores.csv", index=False)
    summary = headline(study)
    assert summary.headline.startswith(("Dice loss or Focal loss may be", "Focal loss or Dice loss may be"))
    assert len(summary.headline.split()) <= 25
    assert (
        " and ".join(sorted(["Combo loss", "Tversky loss"])) in summary.details[0]
        or "Tversky loss and Combo loss" in (summary.details[0])
    )
    text = Page(build_report(study)).text
    assert "Verdict: DSC of tumour" in text and "Based on 30 cases" in text
    table = (study / "report" / "tables" / "verdict_tumour.md").read_text()
    assert (
        sum("clearly worse" in line for line in table.splitlines() if line.startswith("|")) == 2
        and "best mean" in table
    )
    pairs = pd.read_csv(study / "report" / "tables" / "verdict_tumour.csv")
    assert len(pairs) == 6 and pairs["differ"].sum() == 4
    effects = pd.read_csv(study / "report" / "tables" / "effects_tumour.csv")
    assert len(effects) == 6
    assert "share of cases on which" in table and "leaves out the chance of training: Friedman's p = " in table
    best = [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| ") and "loss" in line]
    assert best == ["yes", "yes", "no", "no"]
    forest = pd.read_csv(study / "report" / "figures" / "forest_tumour.csv")
    assert forest["difference"].iloc[0] == 0 and (forest["difference"].iloc[1:] < 0).all()
    assert forest["clearly_worse"].tolist() == [False, False, True, True]
    ranks = pd.read_csv(study / "report" / "tables" / "ranks_tumour.csv")
    assert ranks[["1", "2", "3", "4"]].sum(axis=1).tolist() == pytest.approx([1] * 4)
    assert "Stability of the ranking: DSC of tumour" in text


def test_the_paper_stands_beside_its_preset_only(tmp_path):
    preset = small(name="kits19", dataset="kits19").write(tmp_path / "preset")
    text = Page(build_report(preset)).text
    assert "0.695 ± 0.066" in text and "(0.0841)" in text
    assert (preset / "report" / "tables" / "beside_paper.csv").is_file()
    other = small(name="demo", dataset="kits19").write(tmp_path / "other")
    assert "0.695 ± 0.066" not in Page(build_report(other)).text


def test_print_tables_in_80_columns(reported_study):
    stream = io.StringIO()
    print_tables(reported_study, Console(file=stream, width=80))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "Scores of tumour" in text and "Mixed Focal loss" in text and "±" in text
    assert "DSC of kidney: Wilcoxon rank-sum test" in text
    first_row = next(line for line in text.splitlines() if line.strip().startswith("2 Dice loss"))
    assert re.fullmatch(r"\s*2 Dice loss\s+(<0\.001‡|[01]\.\d{3}\*{0,2})\s+–\s*", first_row)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("study.yaml", "a: [", "study.yaml is damaged"),
        ("study.yaml", "- 1", "should hold a mapping"),
        ("dataset.json", "{", "dataset.json is damaged"),
        ("dataset.json", "{}", "dataset.json is not a data set's description"),
        ("scores.csv", "a,b\n", "scores.csv lacks"),
        ("runs/dice/fold-0/seed-0/status.json", "[]", "status.json is damaged: it should hold"),
        ("runs/dice/fold-0/seed-0/history.csv", "epoch\nx\n", "history.csv is not"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    study = small(losses=("dice",), cases=2).write(tmp_path / "study")
    (study / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        build_report(study)
    assert not (study / "report").exists()


def test_no_study(tmp_path):
    with pytest.raises(InputError, match=r"no study\.yaml"):
        build_report(tmp_path)
