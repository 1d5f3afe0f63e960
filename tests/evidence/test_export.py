"""Studies as evidence: what is exported, that the verdict survives it, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from study_files import StudyFiles
from study_helpers import call
from voxloss.evidence.add import add_study
from voxloss.evidence.comparisons import Judged
from voxloss.evidence.export import read_export, read_exports
from voxloss.evidence.pages.studies import studies_page
from voxloss.report.comparison import compare
from voxloss.report.record import open_record
from voxloss.study.imported import import_table
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

LOSSES = ("dice_cross_entropy", "mixed_focal", "dice")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return StudyFiles(losses=LOSSES, cases=20, folds=4, seeds=(0, 1)).write(tmp_path_factory.mktemp("s") / "liver")


def test_an_export_has_the_study_s_verdict(study, tmp_path):
    result = call("evidence", "add", study, "--to", tmp_path, "--data-set", "lits", "--note", "A note.")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'liver'}: real, 3 losses, 4 folds, 2 seeds, 20 cases\n"
    export = read_export(tmp_path / "liver")
    expected = compare(open_record(study)).verdicts["tumour"]
    found = export.verdict()
    assert found.losses == expected.losses and found.may_be_best == expected.may_be_best
    assert np.allclose(found.means, expected.means, atol=1e-6)
    numbers = ["difference", "half_width", "standard_error", "degrees"]
    pd.testing.assert_frame_equal(found.pairs[numbers], expected.pairs[numbers], rtol=1e-3, atol=1e-6)
    assert (export.data_set, export.metric, export.notes) == ("lits", "dice", ("A note.",))
    assert export.runs["states"] == {"done": 24} and export.runs["seconds"]["dice"] == pytest.approx(8 * 41.5)
    assert export.digests["batches"]["equal"] and export.digests["batches"]["digests"]["fold-3/seed-1"] == "digest-3-1"


def test_an_export_says_how_runs_began_and_on_which_machines(study, tmp_path):
    """Of runs of an earlier version batches alone; a study that moved names every machine with its runs."""
    old = add_study(study, tmp_path / "old")
    assert old.digests["weights"] == {"equal": None, "unrecorded_runs": 24, "digests": {}}
    (machine,) = old.runs["machines"]
    assert (machine["runs"], machine["processor"]) == (24, "a processor")
    assert "Initial weights: not recorded. a processor; voxloss 0.1.0" in studies_page([Judged(old)])

    moved = tmp_path / "moved"
    shutil.copytree(study, moved)
    opened = Study.open(moved)
    other = {"processor": "another", "device": "cpu", "torch": "2.13.0"}
    for run in opened.runs():
        if run.fold == 0:
            opened.write_status(run, weight_digest=f"weights-{run.seed}", environments=(other,))
    export = read_export(add_study(moved, tmp_path / "new") and tmp_path / "new" / "moved")
    weights = export.digests["weights"]
    assert weights["equal"] and weights["unrecorded_runs"] == 18
    assert weights["digests"] == {"fold-0/seed-0": "weights-0", "fold-0/seed-1": "weights-1"}
    assert [(one["runs"], one["processor"]) for one in export.runs["machines"]] == [(18, "a processor"), (6, "another")]
    page = studies_page([Judged(export)])
    assert "Initial weights: equal for all losses by digest, in the 6 of 24 runs that recorded one." in page
    assert "More than one machine trained them: 18 runs: a processor; voxloss 0.1.0, torch 2.13.0" in page
    assert "6 runs: another; torch 2.13.0." in page

    for run in opened.runs():
        if run.loss.key != "dice":
            opened.write_status(run, weight_digest=None)
    alone = add_study(moved, tmp_path / "alone")
    assert alone.digests["weights"]["equal"] is None and len(alone.digests["weights"]["digests"]) == 2
    assert "Initial weights: recorded for too few runs to compare them." in studies_page([Judged(alone)])

    opened.write_status(next(iter(opened.runs())), weight_digest="others")
    differing = add_study(moved, tmp_path / "differing")
    assert differing.digests["weights"]["equal"] is False
    assert "Initial weights: NOT equal for all losses." in studies_page([Judged(differing)])


def test_an_export_holds_no_path_and_no_name_of_a_case(study, tmp_path):
    add_study(study, tmp_path)
    text = "".join(path.read_text() for path in (tmp_path / "liver").iterdir())
    assert "case_0" not in text and str(study.parent) not in text and ".nii" not in text
    assert sorted(path.name for path in (tmp_path / "liver").iterdir()) == ["evidence.yaml", "scores.csv"]
    numbers = read_export(tmp_path / "liver").scores["case"].unique()
    assert set(numbers) == {str(number) for number in range(1, 21)}
    named = add_study(study, tmp_path / "named", case_names=True)
    assert "case_007" in set(named.scores["case"])
    # Numbered in the order of the names, so that the same cases have the same numbers in another study.
    one, other = (table[table["class"] == "tumour"] for table in (named.scores, read_export(tmp_path / "liver").scores))
    one = one[(one["case"] == "case_007") & (one["metric"] == "dice")].sort_values(["loss", "seed"])
    other = other[(other["case"] == "8") & (other["metric"] == "dice")].sort_values(["loss", "seed"])
    assert np.allclose(one["value"], other["value"], atol=1e-5)


def test_the_fingerprint_is_that_of_check(study, tmp_path):
    export = add_study(study, tmp_path / "a")
    options = ["--data.options.classes", "{kidney: 1, tumour: 2}"]
    result = call("check", study / "images", "--output", tmp_path / "check", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    by_check = add_study(study, tmp_path / "b", data=tmp_path / "check").fingerprint
    tumour, content = export.fingerprint.of("tumour"), json.loads((tmp_path / "check" / "check.json").read_text())
    checked = next(item for item in content["classes"] if item["name"] == "tumour")
    assert tumour.voxel_fraction.median == checked["voxel_fraction"]["median"]
    assert tumour.pieces.median == checked["components"]["median"] and tumour.cases == checked["cases"]
    assert by_check.of("tumour").voxel_fraction == tumour.voxel_fraction
    assert export.fingerprint.absent_share("tumour") == 0
    back = read_export(tmp_path / "a" / "liver").fingerprint
    assert back.of("tumour").voxel_fraction.median == pytest.approx(tumour.voxel_fraction.median, rel=1e-5)
    text = (tmp_path / "check" / "check.json").read_text().replace('"tumour"', '"class 2"')
    (tmp_path / "check" / "check.json").write_text(text)
    with pytest.raises(InputError, match="no class 'tumour', which the study is about, but kidney, class 2"):
        add_study(study, tmp_path / "c", data=tmp_path / "check" / "check.json")


def test_the_steps_of_a_series(study, tmp_path):
    words = ["evidence", "add", study, "--to", tmp_path, "--series", "crops", "--series", "few=0.2"]
    assert call(*words).returncode == 0
    assert read_export(tmp_path / "liver").series == {"crops": None, "few": 0.2}
    for word in ("few=0", "few=2", "few=x", "few="):
        result = call("evidence", "add", study, "--to", tmp_path / "r", "--series", word)
        assert result.returncode == 2 and "a share between 0 and 1" in result.stderr
    assert "the name of a series" in call("evidence", "add", study, "--series", "/x", cwd=tmp_path).stderr


def test_without_images_there_is_no_fingerprint_and_the_command_says_so(study, tmp_path):
    shutil.copytree(study, tmp_path / "moved")
    text = (tmp_path / "moved" / "dataset.json").read_text()
    (tmp_path / "moved" / "dataset.json").write_text(text.replace(str(study), str(tmp_path / "gone")))
    result = call("evidence", "add", tmp_path / "moved", "--to", tmp_path / "results")
    assert result.returncode == 0 and "no fingerprint" in result.stdout and "--data" in result.stdout
    assert read_export(tmp_path / "results" / "moved").fingerprint is None


def test_undefined_and_failed_scores_stay_what_they_are(tmp_path):
    states = {("dice", 1, 0): ("diverged", "not finite")}
    study = StudyFiles(losses=LOSSES, cases=6, states=states, blank=("mixed_focal",)).write(tmp_path / "s")
    export = add_study(study, tmp_path / "r")
    assert export.kind == "protocol"  # six cases
    back = read_export(tmp_path / "r" / "s").scores
    counts = back.groupby(["loss", "metric"])["status"].value_counts()
    assert counts["mixed_focal", "precision", "undefined"] == 12  # two classes, empty predictions
    assert counts["dice", "dice", "failed"] == 4
    before, after = compare(open_record(study)).verdicts["tumour"], read_export(tmp_path / "r" / "s").verdict()
    assert np.allclose(before.means, after.means, atol=1e-6) and before.losses == after.losses


def test_unfinished_losses_are_left_out(tmp_path):
    study = StudyFiles(losses=LOSSES, cases=6, skip={("dice", 2, 0)}, states={}).write(tmp_path / "s")
    assert set(add_study(study, tmp_path / "r").losses) == {"dice_cross_entropy", "mixed_focal"}
    study = StudyFiles(losses=LOSSES, cases=6, skip={("dice", 2, 0), ("mixed_focal", 1, 0)}).write(tmp_path / "t")
    with pytest.raises(InputError, match="1 loss with all runs finished, and a comparison needs two"):
        add_study(study, tmp_path / "r")


def test_a_study_that_was_stopped_keeps_the_seeds_that_every_loss_has(tmp_path):
    skip = {(loss, fold, 1) for loss in LOSSES for fold in range(3) if (loss, fold) != ("dice", 0)}
    study = StudyFiles(losses=LOSSES, cases=6, seeds=(0, 1), skip=skip).write(tmp_path / "s")
    export = add_study(study, tmp_path / "r", notes=["First."])
    assert set(export.losses) == set(LOSSES) and set(export.scores["seed"]) == {0}
    assert export.runs["states"] == {"done": 9} and set(export.digests["batches"]["digests"]) == {
        f"fold-{fold}/seed-0" for fold in range(3)
    }
    assert export.notes == (
        "First.", "Every loss finished 1 of 2 seeds on every fold; the others are left out.",
    )  # fmt: skip


def test_imported_scores_are_evidence_too(tmp_path):
    rows = [
        f"{loss},patient {case},{metric},{0.5 + (case * 7 + place) % 10 / 30:.3f},{case % 4}"
        for place, loss in enumerate(("nnUNetTrainer", "mixed_focal"))
        for case in range(24)
        for metric in ("dice", "precision", "hd95")
    ]
    (tmp_path / "t.csv").write_text("\n".join(["loss,case,metric,value,fold", *rows]) + "\n")
    import_table(tmp_path / "t.csv", tmp_path / "study")
    export = add_study(tmp_path / "study", tmp_path / "r", data_set="theirs")
    assert export.source == {"from": "a table"} and export.kind == "real" and export.fingerprint is None
    text = (tmp_path / "r" / "study" / "evidence.yaml").read_text()
    assert str(tmp_path) not in text and "hd95" not in (tmp_path / "r" / "study" / "scores.csv").read_text()
    assert read_export(tmp_path / "r" / "study").verdict().n_cases == 24


def test_what_cannot_count_as_real_is_refused(study, tmp_path):
    synthetic = StudyFiles(losses=LOSSES, cases=20, demonstration=True).write(tmp_path / "d")
    assert add_study(synthetic, tmp_path / "r").kind == "phantom"
    with pytest.raises(InputError, match="synthetic images; its kind is phantom"):
        add_study(synthetic, tmp_path / "r", kind="real")
    small = StudyFiles(losses=LOSSES, cases=6).write(tmp_path / "small")
    with pytest.raises(InputError, match="6 cases; a study that counts as real has 20 or more: take --kind protocol"):
        add_study(small, tmp_path / "r", kind="real")


def test_duplicates_are_refused_in_one_sentence(study, tmp_path):
    results = tmp_path / "results"
    add_study(study, results, data_set="lits")
    again = call("evidence", "add", study, "--to", results, "--name", "other")
    assert again.returncode == 2 and f"are in {results} already, as liver" in again.stderr
    assert again.stderr.count("\n") == 1 and not (results / "other").exists()
    second = StudyFiles(losses=LOSSES, cases=20, folds=4, random_seed=5).write(tmp_path / "liver")
    with pytest.raises(InputError, match="another study's; take another --name, or --replace it"):
        add_study(second, results)


def test_a_data_set_counts_once(study, tmp_path):
    add_study(study, tmp_path / "r", data_set="lits")
    second = StudyFiles(losses=LOSSES, cases=20, folds=4, random_seed=5).write(tmp_path / "again")
    with pytest.raises(InputError, match="liver is of the data set lits too, which counts once: take --kind variant"):
        add_study(second, tmp_path / "r", data_set="lits")
    assert add_study(second, tmp_path / "r", data_set="lits", kind="variant").kind == "variant"
    assert add_study(second, tmp_path / "r", data_set="lits", kind="variant", replace_old=True).name == "again"
    assert [one.name for one in read_exports(tmp_path / "r")] == ["again", "liver"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("scores.csv", lambda text: text.replace("0.8", "0.9", 1), "scores.csv is damaged or was changed"),
        ("scores.csv", lambda _: None, "it has no scores.csv"),
        ("evidence.yaml", lambda text: text[: len(text) // 2], "evidence.yaml is damaged"),
        ("evidence.yaml", lambda text: text.replace("kind: real", "kind: true story"), "the kind 'true story'"),
        ("evidence.yaml", lambda text: text.replace("format: 1", "format: 2"), "later version of voxloss"),
        ("evidence.yaml", lambda text: text.replace("class: tumour", "class: lung"), "no scores of dice of lung"),
        ("evidence.yaml", lambda text: text.replace("name: liver", "name: ../liver"), "cannot be the name"),
        ("evidence.yaml", lambda _: "[1, 2]", "evidence.yaml is damaged"),
        ("evidence.yaml", lambda text: text.replace("voxel_fraction", "fraction"), "its fingerprint cannot be read"),
        ("evidence.yaml", lambda text: text.replace("digests:", "digest:"), "damaged"),
    ],
)
def test_a_damaged_export_is_named(study, tmp_path, file, change, message):
    add_study(study, tmp_path)
    path = tmp_path / "liver" / file
    text = change(path.read_text())
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InputError, match="liver") as caught:
        read_exports(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evidence", "add", "{study}", "--name", "../x"], "cannot be the name of an exported study"),
        (["evidence", "add", "{tmp}"], "is not a study: it has no study.yaml"),
        (["evidence", "add", "{study}", "--to", "{study}/study.yaml"], "is a file, not a folder"),
        (["evidence", "add", "{study}", "--to", "{study}"], "is not an exported study: it has no evidence.yaml"),
        (["evidence", "add", "{study}", "--kind", "true"], "takes real, phantom, rarer, variant or protocol"),
        (["evidence", "add", "{study}", "--data", "{tmp}"], ""),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(study, tmp_path, words, message):
    result = call(*(word.format(study=study, tmp=tmp_path) for word in words), cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not list(tmp_path.iterdir()) and not (study / "liver").exists()


def test_a_race_keeps_what_its_verdict_needs(tmp_path):
    """The looks of a race are in the export, so that the verdict is that of its last look."""
    study = StudyFiles(losses=LOSSES, cases=20, folds=4, seeds=(0,), design="race").write(tmp_path / "s")
    with pytest.raises(InputError, match="a race without a look yet"):
        add_study(study, tmp_path / "r")
    look = {
        "round": 4, "n_folds": 4, "losses": ["dice_cross_entropy", "mixed_focal"], "means": [0.8, 0.7], "level": 0.02,
        "departures": [
            {"loss": "dice", "beaten_by": "mixed_focal", "difference": 0.2, "needed": 0.1, "own_variance": 0.001}
        ],
        "chance": 0.5, "outcome": "rounds", "family": 3, "passes": 1,
    }  # fmt: skip
    (study / "race.json").write_text(json.dumps({"looks": [look]}))
    add_study(study, tmp_path / "r")
    export = read_export(tmp_path / "r" / "s")
    assert export.look.losses == ("dice_cross_entropy", "mixed_focal") and len(export.look.rounds) == 4
    expected, found = compare(open_record(study)).verdicts["tumour"], export.verdict()
    assert np.allclose(found.pairs["half_width"], expected.pairs["half_width"], rtol=1e-3)
    assert yaml.safe_load((tmp_path / "r" / "s" / "evidence.yaml").read_text())["look"]["interim"]["family"] == 3
