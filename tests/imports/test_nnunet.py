"""nnU-Net's results as a study: scores, names, masks, and what is refused."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import yaml

from nnunet_files import CASES, LABELS, REGIONS, Results, edit, save
from study_helpers import call
from voxloss.data.case import IGNORED
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.scores import read_scores
from voxloss.nnunet.names import trainer_name
from voxloss.report import build_report
from voxloss.report.record import open_record
from voxloss.study.folder import StudyFolder
from voxloss.study.imported import import_nnunet
from voxloss.utilities.errors import InputError

MIXED, OURS = "nnUNetTrainerVoxlossMixedFocal", "nnUNetTrainerVoxlossFocal"

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path, LABELS).references()


def pair(results, **other):
    return [results.trainer(MIXED), results.trainer("nnUNetTrainer", **{"shift": 2, **other})]


def test_scores_masks_and_names(results, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    folders = pair(results)
    record = {"loss": "focal", "parameters": {"gamma": 3}, "voxloss": "0.1.0"}
    folders.append(results.trainer(OURS, shift=3, record=record))
    made = import_nnunet(folders, tmp_path / "study")
    assert str(made) == "3 losses, 2 folds, 1 seed, 4 cases"
    scores = read_scores(tmp_path / "study" / "scores.csv")
    assert set(scores["loss"]) == {"mixed_focal", "nnUNetTrainer", "focal-gamma=3"}
    assert set(scores["metric"]) == set(METRICS)
    assert len(scores) == 3 * 4 * 2 * len(METRICS)
    for folder, loss in zip(folders, ("mixed_focal", "nnUNetTrainer", "focal-gamma=3"), strict=True):
        for fold, held in CASES.items():
            summary = json.loads((folder / f"fold_{fold}" / "validation" / "summary.json").read_text())
            own = scores[(scores["loss"] == loss) & (scores["fold"] == fold)]
            for case, entry in zip(held, summary["metric_per_case"], strict=True):
                for name, key in (("Anterior", "1"), ("Posterior", "2")):
                    chosen = own[(own["case"] == case) & (own["class"] == name)].set_index("metric")["value"]
                    counts = entry["metrics"][key]
                    assert chosen["dice"] == pytest.approx(counts["Dice"], abs=1e-12)
                    assert chosen["recall"] == pytest.approx(counts["TP"] / counts["n_ref"], abs=1e-12)
                    assert chosen["reference_volume"] == pytest.approx(counts["n_ref"] * 3.0 / 1000)
                source = folder / f"fold_{fold}" / "validation" / f"{case}.nii.gz"
                copy = tmp_path / "study" / "runs" / loss / f"fold-{fold}" / "seed-0/predictions" / source.name
                assert copy.read_bytes() == source.read_bytes()
    study = open_record(tmp_path / "study").study
    assert study.loss_keys == ["mixed_focal", "nnUNetTrainer", "focal-gamma=3"]
    assert [set(ids) for ids in study.folds] == [set(held) for held in CASES.values()]
    volumes = scores[scores["metric"] == "reference_volume"].groupby("class")["value"].sum()
    assert study.comparison.primary_class == volumes.idxmin()
    page = build_report(tmp_path / "study").read_text()
    assert "Focal loss (γ = 3)" in page and "nnUNetTrainer" in page
    assert 'class="bad"' not in page  # slices and viewer have their images
    assert len(list((tmp_path / "study/report/viewer/cases").glob("*.js"))) == 4


def test_rules_of_lesions_are_those_asked_for(results, tmp_path):
    folders = pair(results)
    for words, match in (((), "touch"), (("--lesions", "{match: one_to_one, threshold: 0.9}"), "one_to_one")):
        assert call("import", "nnunet", *folders, "--study", tmp_path / "study", *words).returncode == 0
        rules = open_record(tmp_path / "study").study.lesion_rules
        assert rules is not None and rules.match == match
        # Every reference has one lesion of each class, of the same volume.
        scores = read_scores(tmp_path / "study" / "scores.csv")
        volumes = scores[scores["metric"] == "reference_volume"].groupby("class")["value"].first()
        assert rules.size_limits_ml == {name: pytest.approx((ml, ml)) for name, ml in volumes.items()}
        found = scores[scores["metric"] == "lesion_recall_small"]["value"]
        assert (found == (1 if match == "touch" else 0)).all()
    refused = call("import", "nnunet", folders[0], "--study", tmp_path / "x", "--lesions", "{match: any}")
    assert refused.returncode == 2
    assert "--lesions: evaluation.lesions.match takes touch or one_to_one; received any." in refused.stderr
    assert not (tmp_path / "x").exists()


def test_regions_and_ignored_voxels(tmp_path):
    results = Results(tmp_path, REGIONS).references()
    import_nnunet(pair(results), tmp_path / "study")
    scores = read_scores(tmp_path / "study" / "scores.csv")
    assert list(dict.fromkeys(scores["class"])) == ["whole", "core", "enhancing"]
    record = open_record(tmp_path / "study")
    assert record.study.dataset.label_values == {0: 0, 1: 1, 2: 2, 3: 3, 4: IGNORED}
    assert record.study.comparison.primary_class == "enhancing"
    volumes = scores[(scores["metric"] == "reference_volume") & (scores["case"] == "case_001")].groupby("class")
    volume = volumes["value"].first()
    assert volume["whole"] > volume["core"] > volume["enhancing"] > 0
    build_report(tmp_path / "study")


def test_ignored_voxels_are_in_no_score_and_no_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    results = Results(tmp_path, {"background": 0, "core": 1, "ignore": 2}).references()
    reference = results.raw / "labelsTr/case_003.nii.gz"
    save(reference, np.full_like(nibabel.load(reference).dataobj, 2))  # a case that nobody annotated
    folders = [results.trainer(MIXED, shift=0), results.trainer("nnUNetTrainer", shift=0)]
    for folder in folders:
        for path in folder.glob("fold_*/validation/*.nii.gz"):
            truth = np.asarray(nibabel.load(results.raw / "labelsTr" / path.name).dataobj)
            save(path, np.where(truth == 2, 1, truth).astype(np.uint8))  # wrong in ignored voxels alone
    import_nnunet(folders, tmp_path / "study")
    scores = read_scores(tmp_path / "study" / "scores.csv")
    nobody = scores[(scores["case"] == "case_003") & (scores["metric"] != "reference_volume")]
    assert set(nobody["status"]) == {"undefined"}
    assert (scores.loc[(scores["metric"] == "dice") & (scores["case"] != "case_003"), "value"] == 1).all()
    build_report(tmp_path / "study")
    pages = [path.read_text() for path in (tmp_path / "study/report").rglob("*.js")]
    shown = [json.loads(text[text.index("{") : text.rindex("}") + 1]) for text in pages if "voxlossCase(" in text[:20]]
    assert shown
    assert all(one["errors"] == {"mixed_focal": {"1": None}, "nnUNetTrainer": {"1": None}} for one in shown)


@pytest.mark.parametrize("gone", ["references", "predictions", "ending"])
def test_without_masks_the_summaries_are_read(results, tmp_path, gone):
    folders = pair(results)
    if gone == "references":
        shutil.rmtree(results.raw / "labelsTr")
    elif gone == "predictions":
        (folders[1] / "fold_1/validation/case_002.nii.gz").unlink()
    else:
        for folder in folders:
            edit(folder / "dataset.json", lambda content: content.update(file_ending=".nrrd"))
            for fold in CASES:
                path = folder / f"fold_{fold}/validation/summary.json"
                path.write_text(path.read_text().replace(".nii.gz", ".nrrd"))
    made = import_nnunet(folders, tmp_path / "study")
    assert "Dice, precision and recall alone" in str(made)
    scores = read_scores(tmp_path / "study" / "scores.csv")
    assert set(scores["metric"]) == {"dice", "precision", "recall"}
    assert set(scores["case"]) == {"case_001", "case_002", "case_003", "case_004"}
    entry = json.loads((folders[0] / "fold_0/validation/summary.json").read_text())["metric_per_case"][0]
    row = scores[(scores["loss"] == "mixed_focal") & (scores["case"] == "case_001") & (scores["class"] == "Posterior")]
    row = row.set_index("metric")["value"]
    counts = entry["metrics"]["2"]
    assert row["dice"] == pytest.approx(counts["Dice"], abs=1e-12)
    assert row["precision"] == pytest.approx(counts["TP"] / counts["n_pred"], abs=1e-12)
    assert row["recall"] == pytest.approx(counts["TP"] / counts["n_ref"], abs=1e-12)
    build_report(tmp_path / "study")


def test_a_structure_in_neither_mask_is_undefined(results, tmp_path):
    empty = np.zeros((9, 12, 10), np.uint8)
    save(results.raw / "labelsTr/case_001.nii.gz", empty)
    import_nnunet(pair(results), tmp_path / "study")
    scores = read_scores(tmp_path / "study" / "scores.csv")
    own = scores[(scores["case"] == "case_001") & (scores["metric"] == "dice")]
    assert set(own["status"]) == {"undefined"}


def test_references_that_moved_are_found(results, tmp_path):
    folders = pair(results)
    (results.raw / "labelsTr").rename(tmp_path / "elsewhere")
    made = import_nnunet(folders, tmp_path / "study", labels=tmp_path / "elsewhere")
    assert made.note is None


def test_repeated_trainings_are_seeds(results, tmp_path):
    folders = [*pair(results), results.trainer(MIXED, results="again", shift=2)]
    with pytest.raises(InputError, match="per fold differs: 2 of mixed_focal, 1 of nnUNetTrainer; repeated"):
        import_nnunet(folders, tmp_path / "study")
    folders.append(results.trainer("nnUNetTrainer", results="again", shift=1))
    assert import_nnunet(folders, tmp_path / "study").seeds == 2
    scores = read_scores(tmp_path / "study" / "scores.csv")
    dice = scores[(scores["metric"] == "dice") & (scores["loss"] == "mixed_focal")].groupby("seed")["value"].mean()
    assert dice[0] != dice[1]


def test_a_data_set_s_folder_stands_for_its_trainers(results, tmp_path):
    first, _ = pair(results)
    (first.parent / "crossval_results").mkdir()
    (first / "fold_all" / "validation").mkdir(parents=True)
    assert import_nnunet([first.parent], tmp_path / "study").losses == 2


def test_somebody_s_variant_of_a_trainer_keeps_its_name(results, tmp_path):
    record = {"loss": "mixed_focal", "parameters": {}}
    folders = [results.trainer(f"{MIXED}_100epochs", record=record), results.trainer(MIXED, shift=2, record=record)]
    import_nnunet(folders, tmp_path / "study")
    assert open_record(tmp_path / "study").study.loss_keys == [f"{MIXED}_100epochs", "mixed_focal"]


def swapped(held):
    return {0: held[1], 1: held[0]}


def other_parameters(folder):
    for fold, gamma in ((0, 2), (1, 3)):
        record = {"loss": "mixed_focal", "parameters": {"gamma_focal": gamma}}
        (folder / f"fold_{fold}" / "voxloss.json").write_text(json.dumps(record))


def moved_prediction(folder):
    path = folder / "fold_0/validation/case_003.nii.gz"
    save(path, np.ones((9, 12, 10), np.uint8))


FAULTS = {
    "a case in another fold": (
        {"cases": swapped(CASES)}, None,
        "the splits differ: case case_001 is held out in fold 0 of .*MixedFocal.*, but in fold 1 of .*nnUNetTrainer__",
    ),
    "a case that one lacks": (
        {"cases": {0: CASES[0], 1: CASES[1][:1]}}, None, "case case_004 is held out in fold 1 of .*, but in no fold of",
    ),
    "a fold that is missing": (
        {"cases": {0: CASES[0]}}, None, r"nnUNetTrainer__.* has no finished validation of fold 1 .*--folds",
    ),
    "a case in two folds": (
        {"cases": {**CASES, 1: ("case_001", "case_004")}}, None, "case case_001 is held out in fold 0 and in fold 1",
    ),
    "another configuration": (
        {"plans": "nnUNetPlans__2d"}, None, "has results of nnUNetPlans__2d, but .* of nnUNetPlans__3d"
    ),
    "another data set": (
        {}, lambda f: edit(f / "plans.json", lambda c: c.update(dataset_name="Dataset009_Spleen")),
        "has results of Dataset009_Spleen, but .* of Dataset004_Hippocampus",
    ),
    "other labels": (
        {}, lambda f: edit(f / "dataset.json", lambda c: c.update(labels={"background": 0, "x": 1, "y": 2})),
        "has other labels in its dataset.json",
    ),
    "a damaged summary": (
        {}, lambda f: (f / "fold_1/validation/summary.json").write_text('{"metric_per_case": ['),
        "fold_1/validation/summary.json cannot be read",
    ),
    "a summary that is none": (
        {}, lambda f: (f / "fold_1/validation/summary.json").write_text("{}"), "is not a summary of nnU-Net's",
    ),
    "a summary with no number": (
        {}, lambda f: edit(f / "fold_0/validation/summary.json",
                           lambda c: c["metric_per_case"][0]["metrics"]["1"].update(TP=float("nan"))),
        "is not a summary of nnU-Net's validation: ValueError",
    ),
    "a summary of other labels": (
        {}, lambda f: edit(f / "fold_0/validation/summary.json", lambda c: c["metric_per_case"][0]["metrics"].pop("2")),
        "is not a summary of nnU-Net's validation: KeyError",
    ),
    "no labels": (
        {}, lambda f: edit(f / "dataset.json", lambda c: c.pop("labels")), "labels should map names to values",
    ),
    "no dataset.json": ({}, lambda f: (f / "dataset.json").unlink(), "dataset.json does not exist"),
    "another prediction": ({}, moved_prediction, "case_003.nii.gz: the Dice of Anterior is .* by the masks, but"),
    "a damaged prediction": (
        {}, lambda f: (f / "fold_0/validation/case_003.nii.gz").write_bytes(b"no gzip"), "case_003.nii.gz",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_refused(results, tmp_path, fault):
    other, change, message = FAULTS[fault]
    folders = pair(results, **other)
    if change is not None:
        change(folders[1])
    with pytest.raises(InputError, match=message):
        import_nnunet(folders, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_folds_of_other_parameters_are_refused(results, tmp_path):
    folders = pair(results)
    other_parameters(folders[0])
    with pytest.raises(InputError, match=r"fold 1 was trained with .*'gamma_focal': 3.*, but another fold with"):
        import_nnunet(folders, tmp_path / "study")


def test_folds_can_be_named(results, tmp_path):
    folders = pair(results, cases={1: CASES[1]})
    made = import_nnunet(folders, tmp_path / "study", folds=[1])
    assert (made.folds, made.cases) == (1, 2)
    assert set(read_scores(tmp_path / "study" / "scores.csv")["fold"]) == {1}
    assert "In progress" not in build_report(tmp_path / "study").read_text()
    with pytest.raises(InputError, match="no finished validation of fold 2"):
        import_nnunet(folders, tmp_path / "other", folds=[1, 2])


def test_folders_that_are_none(results, tmp_path):
    folder = results.trainer(MIXED)
    with pytest.raises(InputError, match="is not a folder of nnU-Net's results"):
        import_nnunet([tmp_path / "nothing"], tmp_path / "study")
    with pytest.raises(InputError, match="must be a positive number of mm, got 0"):
        import_nnunet([folder], tmp_path / "study", tolerance_mm=0)
    with pytest.raises(InputError, match="is given twice"):
        import_nnunet([folder, folder.parent], tmp_path / "study")


def test_only_an_earlier_import_is_replaced(results, tmp_path):
    folders = pair(results)
    study = tmp_path / "study"
    study.mkdir()
    (study / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty and not an earlier import"):
        import_nnunet(folders, study)
    assert (study / "mine.txt").read_text() == "keep"
    (study / "mine.txt").unlink()
    import_nnunet(folders, study)
    import_nnunet(folders, study)
    assert list(tmp_path.glob(".partial-*")) == []


def test_commands(results, tmp_path):
    folders, study = pair(results), tmp_path / "study"
    result = call("import", "nnunet", *folders, "--study", study)
    assert result.returncode == 0, result.stderr
    assert "2 losses, 2 folds, 1 seed, 4 cases" in result.stdout
    result = call("report", study)
    assert result.returncode == 0, result.stderr
    assert (study / "report" / "index.html").is_file()
    before = (study / "scores.csv").read_bytes()
    for arguments in (["run", "folder", "--data", tmp_path, "--study", study], ["status", study]):
        result = call(*arguments)
        assert result.returncode == 2
        assert result.stderr == (
            f"voxloss: {study} holds imported scores, which can be reported (voxloss report {study}) but not run.\n"
        )
    assert (study / "scores.csv").read_bytes() == before
    assert yaml.safe_load((study / "study.yaml").read_text())["imported"]["from"] == "nnU-Net"


def test_the_trainers_folder_is_printed():
    result = call("nnunet-trainers")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.rstrip("\n").endswith("external")
    assert trainer_name("dice_cross_entropy") == "nnUNetTrainerVoxlossDiceCrossEntropy"


def test_the_volume_of_a_structure_says_what_a_mask_of_every_voxel_reaches(results, tmp_path):
    import_nnunet(pair(results), tmp_path / "study")
    found = StudyFolder(tmp_path / "study").read_blind()
    mask = np.asarray(nibabel.load(results.raw / "labelsTr/case_001.nii.gz").dataobj)
    volume = (mask == 1).mean()
    assert found["Anterior"]["case_001"] == pytest.approx(2 * volume / (1 + volume))
    assert {case for cases in found.values() for case in cases} == {f"case_{number:03}" for number in range(1, 5)}
