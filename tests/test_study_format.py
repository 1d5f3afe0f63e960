"""Study folders of earlier and later formats: reported, resumed, or refused with one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from study_helpers import call
from voxloss.config.files import load_config
from voxloss.report import build_report
from voxloss.study.create import open_study
from voxloss.study.folder import FORMAT, StudyFolder
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

FIXTURE = Path(__file__).parent / "study_format_1"
OPTIONS = (
    "--losses", "dice,mixed_focal", "--seeds", "0", "--splits.folds", "2", "--patches.size", "[8,8,8]",
    "--patches.batch_size", "1", "--network.filters", "2", "--network.depth", "1", "--training.epochs", "3",
    "--training.iterations", "2", "--training.validation_batches", "1",
    "--execution.threads", "1", "--execution.device", "cpu",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture
def first_format(tmp_path):
    """A study of format 1: fold 0 is finished, one run of fold 1 was killed in training, the other never began."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    for name in ("study.yaml", "dataset.json"):
        path = tmp_path / "study" / name
        path.write_text(path.read_text().replace("@DATA@", str(tmp_path / "data")))
    return tmp_path / "study"


def test_a_study_of_the_first_format_is_reported(first_format):
    assert StudyFolder(first_format).read_description().format == 1
    page = build_report(first_format)
    assert "2 of 4 runs finished" in page.read_text()


def test_a_study_of_the_first_format_is_resumed(first_format):
    finished = Study.open(first_format).scores()
    result = call("run", "folder", "--data", first_format.parent / "data", "--study", first_format, *OPTIONS)
    assert result.returncode == 0, result.stderr
    assert StudyFolder(first_format).read_description().format == FORMAT
    scores, expected = (pd.read_csv(p) for p in (first_format / "scores.csv", FIXTURE / "expected-scores.csv"))
    # Metrics that the version had not yet are only in the runs that this one finished.
    scores = scores[scores["metric"].isin(expected["metric"])].reset_index(drop=True)
    keys = ["loss", "fold", "seed", "case", "class", "metric"]
    assert scores[keys].equals(expected[keys])
    # What was finished is untouched, and the rest ends as it did with the version that began it. That comparison allows
    # for a processor that rounds a convolution in another order.
    old = scores.merge(finished[keys], on=keys)
    pd.testing.assert_frame_equal(old, finished[old.columns], check_exact=True, check_dtype=False)
    assert (scores["value"] - expected["value"]).abs().max() < 0.05 * expected["value"].abs().max()


def test_a_study_of_the_first_format_is_resumed_by_its_folder_alone(first_format):
    data = first_format.parent / "data"
    data.rename(first_format.parent / "moved")
    gone = call("run", first_format, "--no-report")
    assert gone.returncode == 2 and f"voxloss run {first_format} --data FOLDER" in gone.stderr
    result = call("run", first_format, "--data", first_format.parent / "moved", "--no-report")
    assert result.returncode == 0, result.stderr
    assert {Study.open(first_format).status(run).state for run in Study.open(first_format).runs()} == {"done"}


def test_execution_of_a_study_of_the_first_format_is_accepted(first_format):
    path = first_format / "study.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"]["execution"] |= {"threads": 0, "memory_gb": 0.0}
    path.write_text(yaml.safe_dump(content))
    assert len(Study.open(first_format).runs()) == 4


def test_a_study_of_a_later_format_is_refused_in_a_sentence(first_format):
    path = first_format / "study.yaml"
    path.write_text(yaml.safe_dump({"format": FORMAT + 1, **yaml.safe_load(path.read_text())}))
    (first_format / "prepared" / ".partial-case").mkdir()  # perhaps of a process that is at work
    before = sorted(first_format.rglob("*"))
    run_folder = first_format / "runs" / "dice" / "fold-0" / "seed-0"
    image = first_format.parent / "data" / "images" / "case0.nii.gz"
    for arguments in (
        ["report", first_format],
        ["status", first_format],
        ["run", "folder", "--data", first_format.parent / "data", "--study", first_format],
        ["demo", "--study", first_format],
        ["view", first_format, "--no-browser"],
        ["predict", run_folder, image, "--output", first_format / "masks"],
    ):
        result = call(*arguments)
        assert result.returncode == 2
        assert f"later version of voxloss (format {FORMAT + 1};" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert sorted(first_format.rglob("*")) == before


def test_a_damaged_format_number_is_named(first_format):
    path = first_format / "study.yaml"
    path.write_text(yaml.safe_dump({"format": "new", **yaml.safe_load(path.read_text())}))
    with pytest.raises(InputError, match="its format is 'new', not a number"):
        Study.open(first_format)


def config_of(data):
    overrides = [
        "--data.root", str(data), "--splits.folds", "2", "--patches.size", "[8,8,8]", "--network.filters", "2",
        "--network.depth", "1", "--comparison.losses", "[dice]", "--execution.device", "cpu",
    ]  # fmt: skip
    return load_config(None, overrides)


def test_a_bad_case_of_a_new_study_leaves_the_prepared_cases(tmp_path):
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    bad = tmp_path / "data/images/case3.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    folder = tmp_path / "studies" / "new"
    with pytest.raises(InputError, match=r"case3\.nii\.gz"), open_study(config_of(tmp_path / "data"), folder):
        pass
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "prepared").iterdir()}
    assert kept and not any(name.startswith("case3") for name in kept)
    bad.write_bytes(whole)
    with open_study(config_of(tmp_path / "data"), folder) as study:
        after = {path.name: path.stat().st_mtime_ns for path in (folder / "prepared").iterdir()}
        assert len(study.files.read_prepared()) == 4
    assert kept.items() <= after.items()  # nothing was prepared twice


def test_a_mistake_before_preparation_leaves_nothing(tmp_path):
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    (tmp_path / "data/masks/case3.nii.gz").unlink()
    with pytest.raises(InputError), open_study(config_of(tmp_path / "data"), tmp_path / "studies" / "new"):
        pass
    assert not (tmp_path / "studies").exists()


def test_a_full_disk_leaves_the_prepared_cases(tmp_path, monkeypatch):
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    folder = tmp_path / "new"

    def full(*_, **__):
        raise OSError(28, "the disk is full", "index.json")

    with monkeypatch.context() as patched:
        patched.setattr(StudyFolder, "write_prepared", full)
        with pytest.raises(OSError, match="the disk is full"), open_study(config_of(tmp_path / "data"), folder):
            pass
    assert len(list((folder / "prepared").iterdir())) == 4
    with open_study(config_of(tmp_path / "data"), folder) as study:
        assert len(study.files.read_prepared()) == 4


def test_listing_runs_imports_no_torch(first_format):
    """Nor builds it a loss: the names and parameters are those that study.yaml has."""
    path = first_format / "study.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"]["comparison"] |= {
        "losses": ["dice", "no such loss", {"name": "focal", "gamma": 3}],
        "seeds": [*range(20)],
    }
    path.write_text(yaml.safe_dump(content))
    program = """
import sys
from voxloss.study.progress import run_progress
from voxloss.study.study import Study
heavy = {"torch", "monai", "pandas", "matplotlib", "scipy"}
print(len(run_progress(Study.open(sys.argv[1]))), sys.modules.keys() & heavy)
"""
    result = subprocess.run([sys.executable, "-c", program, first_format], capture_output=True, text=True, check=True)
    assert result.stdout.split(maxsplit=1) == ["120", "set()\n"]
