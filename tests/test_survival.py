"""A study killed at random moments, as often as VOXLOSS_KILLS says, has the results of an uninterrupted one.

`make test-faults` kills it 20 times.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from study_helpers import call, tiny_run, voxloss
from voxloss.commands.main import run_command
from voxloss.evaluation.scores import read_scores
from voxloss.training.checkpoint import load_state

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("VOXLOSS_KILLS", "1"))
LONGER = ["--training.epochs", "8"]


def outcome(study: Path) -> tuple[pd.DataFrame, dict[str, dict[str, torch.Tensor]]]:
    """The scores, and the final weights of every run."""
    scores = read_scores(study / "scores.csv").sort_values(
        ["loss", "fold", "case", "class", "metric"], ignore_index=True
    )
    checkpoints = sorted(study.glob("runs/*/fold-*/seed-*/checkpoint.pt"))
    return scores, {str(path.relative_to(study)): load_state(path)["network"] for path in checkpoints}


def assert_whole_or_absent(study: Path) -> None:
    """Whatever the moment, every file that a reader would trust can be read to its end."""
    for path in study.rglob("*"):
        if path.name.startswith(".partial-"):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".yaml":
            yaml.safe_load(path.read_text())
        elif path.suffix == ".pt":
            load_state(path)
        elif path.name == "scores.csv":
            read_scores(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        ("runs/*/*/*/predictions/*.nii.gz", Path.unlink),
        ("runs/*/*/*/scores.csv", Path.unlink),
        ("runs/*/*/*/scores.csv", cut),
        ("scores.csv", cut),
        ("prepared/*/image.npy", cut),
        ("prepared/*/geometry.json", Path.unlink),
        ("report/index.html", Path.unlink),
    ],
)
@pytest.mark.usefixtures("blank_figures")
def test_missing_and_damaged_files_are_rebuilt(phantom, tiny_study, own_study, place, spoil):
    path = sorted(own_study.glob(place))[0]
    before = path.read_bytes()
    spoil(path)
    assert call(*tiny_run(phantom, own_study, report=path.name == "index.html")).returncode == 0
    if path.name != "index.html":
        assert path.read_bytes() == before
    again, weights = outcome(own_study)
    expected, same = outcome(tiny_study)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert all(torch.equal(weights[run][name], tensor) for run in same for name, tensor in same[run].items())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("study.yaml", "study.yaml is"),
        ("folds.json", "folds.json is damaged"),
        ("dataset.json", "dataset.json is damaged"),
        ("runs/dice/fold-0/seed-0/status.json", "status.json is damaged"),
    ],
)
def test_damaged_files_that_cannot_be_rebuilt_get_one_sentence(phantom, own_study, capsys, place, words):
    cut(own_study / place)
    assert run_command(list(map(str, tiny_run(phantom, own_study)))) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def test_a_damaged_case_whose_image_has_changed_is_refused(phantom, own_study, tmp_path):
    """Prepared anew, it would not be the case that the other runs were trained on."""
    moved = tmp_path / "data"
    shutil.copytree(phantom, moved)
    for name in ("study.yaml", "dataset.json"):
        file = own_study / name
        file.write_text(file.read_text().replace(str(phantom), str(moved)))
    entry = sorted(own_study.glob("prepared/*/image.npy"))[0]
    cut(entry)
    case = entry.parent.name.rsplit("-", 1)[0]
    image = nibabel.load(moved / case / "imaging.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), moved / case / "imaging.nii.gz")
    result = call(*tiny_run(moved, own_study))
    assert result.returncode == 2
    assert f"{moved / case / 'imaging.nii.gz'} differs" in result.stderr


@pytest.fixture
def small_disk(tmp_path) -> Iterator[tuple[Path, Callable[[str], bool]]]:
    """A file system, and a function that changes its size."""

    def mount(*arguments: object) -> bool:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
        return done.returncode == 0

    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=100k", "tmpfs", folder):
        pytest.skip("mounting a file system needs root")
    yield folder, lambda size: mount("-o", f"remount,size={size}", folder)
    subprocess.run(["umount", "--lazy", folder], check=False)  # arrays in it may still be open


@pytest.mark.usefixtures("blank_figures")
def test_a_full_disk_gets_one_sentence_and_the_study_resumes_when_there_is_room(phantom, tiny_study, small_disk):
    disk, resize = small_disk
    for size in ("100k", "700k", "1200k"):  # while the cases are prepared, the runs trained, the report drawn
        assert resize(size)
        result = call(*tiny_run(phantom, disk / "study", report=True))
        assert result.returncode == 2 and "Traceback" not in result.stderr, size
        assert "the disk is full" in result.stderr or "No space left" in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2
        if (disk / "study").exists():
            assert_whole_or_absent(disk / "study")
    assert resize("50m")
    result = call(*tiny_run(phantom, disk / "study", report=True))
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(outcome(disk / "study")[0], outcome(tiny_study)[0], check_exact=True)


def test_a_study_killed_at_random_moments_has_the_results_of_an_uninterrupted_one(phantom, tmp_path):
    """It is killed up to a quarter of a second after a random file of the finished study has appeared."""
    whole = tmp_path / "whole"
    assert call(*tiny_run(phantom, whole, *LONGER)).returncode == 0
    scores, weights = outcome(whole)
    assert len(weights) == 4
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    files = [file for file in files if file.parts[0] != "events"]  # whose names have the time

    chance = random.Random(0)
    studies, moments = 0, list[str]()
    while len(moments) < KILLS:
        study, ended = tmp_path / f"killed-{studies}", False
        while not ended and len(moments) < KILLS:
            awaited = chance.choice([file for file in files if not (study / file).exists()] or files)
            process = subprocess.Popen(
                voxloss(*tiny_run(phantom, study, *LONGER)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            while not (study / awaited).exists() and process.poll() is None:
                time.sleep(0.01)
            try:
                _, errors = process.communicate(timeout=chance.uniform(0, 0.25))
                assert process.returncode == 0, errors
                ended = True
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the workers too: nothing is left to clean up
                process.communicate()
                moments.append(str(awaited))
                if study.exists():
                    assert_whole_or_absent(study)
        studies += 1
        assert call(*tiny_run(phantom, study, *LONGER)).returncode == 0
        again, same_weights = outcome(study)
        pd.testing.assert_frame_equal(again, scores, check_exact=True)
        assert same_weights.keys() == weights.keys()
        for run, tensors in weights.items():
            assert all(torch.equal(tensor, same_weights[run][name]) for name, tensor in tensors.items()), run
    print(f"{len(moments)} kills in {studies} studies, as these files appeared: {', '.join(moments)}")
