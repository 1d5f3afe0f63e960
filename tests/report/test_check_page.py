"""The check of a data set through the command line: console, page, JSON and exit status."""

import json
import re
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from study_helpers import call
from voxloss.commands.check import check_data
from voxloss.config.files import load_config
from voxloss.data.check.check import check
from voxloss.data.check.findings import Finding
from voxloss.data.layouts import load_dataset
from voxloss.data.phantom.write import write_phantom
from voxloss.report.page.check import render_check
from voxloss.study.settle import preparation_of, survey

pytestmark = pytest.mark.slow


def test_a_sound_data_set_gets_a_page_and_json_and_status_0(phantom, tmp_path):
    result = call("check", phantom, "--config", "demo", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "ready to run" in result.stdout
    assert "patches of 16 × 48 × 48 voxels" in result.stdout
    content = json.loads((tmp_path / "out" / "check.json").read_text())
    assert content["ok"] is True
    assert [item["name"] for item in content["classes"]] == ["background", "kidney", "tumour"]
    assert content["classes"][0]["components"]["median"] is None
    assert content["classes"][0]["patches_without"] is None
    assert len(content["records"]) == 4
    case = sorted(phantom.glob("case_*"))[0]
    mask = nibabel.load(case / "segmentation.nii.gz")
    volume = (np.asarray(mask.dataobj) == 2).sum() * np.prod(mask.header.get_zooms()) / 1000
    assert content["records"][0]["volume_ml"][2] == pytest.approx(float(volume), rel=1e-4)
    page = (tmp_path / "out" / "index.html").read_text()
    share = re.escape("(the median of the cases that have it).")
    assert re.search(rf"No problems found. The rarest class, tumour, fills one voxel in [\d,]+ {share}", page)
    assert "http" not in page.replace("http-equiv", "")
    again = call("check", phantom, "--output", tmp_path / "out")  # over its own page, not over anything else
    assert again.returncode == 0
    assert again.stdout.splitlines()[-3].endswith("note: ready to run with --splits.folds 4")  # which has 5 by default
    assert "No errors; ready to run with --splits.folds 4." in (tmp_path / "out" / "index.html").read_text()
    other = call("check", phantom, "--output", phantom)
    assert other.returncode == 2
    assert "is not empty and is not a `check` report" in other.stderr


def test_what_must_be_fixed_gives_status_1(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "data")
    (tmp_path / "data" / "case_00001" / "imaging.nii.gz").unlink()
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_0000{number},same\n" for number in range(4)))
    result = call("check", tmp_path / "data", "--patients", table, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "imaging.nii.gz does not exist: case_00001" in result.stdout
    assert "4 scans of patient same" in result.stdout
    assert "1 problem must be fixed" in (tmp_path / "out" / "index.html").read_text()
    assert json.loads((tmp_path / "out" / "check.json").read_text())["ok"] is False


def test_patients_stay_in_one_fold_of_a_study(phantom, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_0000{number},p{number // 2}\n" for number in range(4)))
    from voxloss.study.create import open_study

    config = load_config("demo", ["--data.root", str(phantom), "--splits.patients", str(table), "--splits.folds", "2",
                                  "--comparison.losses", "[dice]"])  # fmt: skip
    with open_study(config, tmp_path / "study") as study:
        assert sorted(map(tuple, study.folds)) == [("case_00000", "case_00001"), ("case_00002", "case_00003")]
        assert study.patients["case_00003"] == "p1"


def test_names_and_messages_are_escaped(phantom):
    report = check(load_dataset("auto", phantom))
    hostile = "<script>alert(1)</script>"
    report = replace(
        report,
        dataset=hostile,
        findings=(Finding("warning", hostile, hostile),),
        dropped=((hostile, hostile),),
        classes=tuple(replace(item, name=hostile) for item in report.classes),
        records=tuple(replace(record, case_id=hostile) for record in report.records),
    )
    page = render_check(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8
    assert "Ready to run, with 1 warning. The rarest class" in page


def test_the_patch_is_that_of_a_study(tmp_path):
    """Thin volumes get thin patches; a case that cannot be read has no part in it."""
    root = tmp_path / "data"
    write_phantom(root, cases=3, seed=0, setting="small")
    (root / "case_00001" / "imaging.nii.gz").write_bytes(b"no image")
    config = load_config("folder", ["--data.root", str(root), "--data.exclude", "[case_00001]", "--splits.folds", "2"])
    settled = survey(config).config
    report = check_data(root, None, "auto", None, lambda *_: None, [])
    assert report.patch == settled.patches.size and max(report.patch) < 96
    assert report.patch_spacing_mm == preparation_of(settled.preparation).spacing_mm
    elsewhere = load_config("folder", ["--execution.device", "cuda:99"])
    assert check_data(root, elsewhere, "auto", None, lambda *_: None, []).patch == (96, 96, 96)
