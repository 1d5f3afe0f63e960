"""Studies with losses of the user's own: in the report, the race, killed and resumed, and what is refused at once."""

import linecache
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import own_parts
from study_files import StudyFiles
from study_helpers import TINY, call, command, voxloss
from voxloss.config.losses import LossChoice, check_losses, loss_choices
from voxloss.evaluation.scores import read_scores
from voxloss.report.names import loss_name, names_of
from voxloss.study.folder import Run, RunStatus, StudyFolder
from voxloss.study.own import own_records
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.utilities.errors import InputError
from voxloss.utilities.imports import import_attribute, source_digests

KINDS = """
- dice
- mine.RootTversky
- {name: mine.soft_dice, smooth: 2}
- {name: mine.Weighted, momentum: 0.25}
- {name: mine.Float32Only, title: "Float & <b>"}
- {name: mine.WithChannel, labels: channel}
- {name: monai.losses.DiceCELoss, labels: channel, to_onehot_y: true, softmax: true}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with mine.py, which nothing else imports."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(own_parts.__file__, folder / "mine.py")
    monkeypatch.chdir(folder)
    yield folder
    forget()


def forget():
    """Let mine.py be imported again."""
    linecache.clearcache()
    sys.modules.pop("mine", None)
    sys.path[:] = [path for path in sys.path if not path.endswith("/work")]


def run_words(data, study, losses, *extra):
    return ["run", "demo", "--data", data, "--study", study, "--comparison.losses", losses, *TINY, *extra]


def flow(text):
    """The YAML list on one line, as the command line takes it."""
    return "[" + ", ".join(line.removeprefix("- ") for line in text.strip().splitlines()) + "]"


def weights(study):
    paths = sorted(Path(study).glob("runs/*/fold-*/seed-*/checkpoint.pt"))
    return {str(path.relative_to(study)): load_state(path) for path in paths}


@pytest.mark.slow
def test_every_kind_of_own_loss_is_killed_resumed_and_reported(phantom, mine, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = run_words(phantom, whole, flow(KINDS), "--no-report", "--training.precision", "bfloat16")
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    result = call(*words)
    assert result.returncode == 0, result.stderr
    words[words.index(whole)] = killed
    awaited = killed / "runs" / "mine.Weighted-momentum=0.25" / "fold-0"
    process = subprocess.Popen(
        voxloss(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    while not list(awaited.glob("*seed-0/**/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = command(*words)  # in processes of their own, which import mine.py again
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(
        read_scores(whole / "scores.csv"), read_scores(killed / "scores.csv"), check_exact=True
    )
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys() and len(found) == 14
    for path, state in expected.items():
        for part in ("network", "loss"):
            tensors = state.get(part, {})
            assert all(torch.equal(tensor, found[path][part][name]) for name, tensor in tensors.items()), path
        assert ("loss" in state) == ("Weighted" in path)

    result = call("report", killed)
    assert result.returncode == 0, result.stderr
    page = (killed / "report/index.html").read_text()
    for title in (
        "Tversky loss with a root of the error",
        "soft_dice (smooth = 2)",
        "Running weights (momentum = 0.25)",
        "Float &amp; &lt;b&gt;",
    ):
        assert title in page, title
    assert "<b>" not in page
    records = StudyFolder(killed).read_own_losses()
    assert set(records) == {choice.key for choice in Study.open(killed).losses if choice.own}
    assert all(record["source"] for record in records.values())

    # Finished losses are reported, and other losses added, where mine.py is not at hand.
    (mine / "mine.py").rename(mine / "gone.py")
    forget()
    words[words.index("--comparison.losses") + 1] = "[focal]"
    assert call(*words).returncode == 0
    words[words.index("[focal]")] = "[mine.OneHot]"
    result = call(*words)
    assert result.returncode == 2 and "there is no module 'mine'" in result.stderr


@pytest.mark.slow
def test_an_own_loss_races(phantom, mine, tmp_path):
    study = tmp_path / "study"
    words = run_words(phantom, study, "[dice, mine.soft_dice]", "--no-report")
    result = call("race", *words[1:])
    assert result.returncode == 0, result.stderr
    assert Study.open(study).race().looks


@pytest.mark.slow
def test_a_changed_source_is_refused_once_runs_began(phantom, mine, tmp_path):
    study, file = tmp_path / "study", mine / "mine.py"
    words = run_words(phantom, study, "[mine.soft_dice]", "--no-report")
    assert call(*words, "--folds", "0").returncode == 0
    before = file.read_text()
    scores = (study / "runs/mine.soft_dice/fold-0/seed-0/scores.csv").read_bytes()

    file.write_text(before.replace("1 - index.mean()", "2 - index.mean()"))
    forget()
    result = call(*words)
    assert result.returncode == 2 and "restore it, or give the changed loss another name" in result.stderr
    assert (study / "runs/mine.soft_dice/fold-0/seed-0/scores.csv").read_bytes() == scores
    assert not (study / "runs/mine.soft_dice/fold-1").exists()

    file.write_text(before + "\n\nOTHER = 1\n")  # the loss itself is as it was
    forget()
    result = call(*words)
    assert result.returncode == 0 and "changed since its first run, but not the loss itself" in result.stdout.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ("[dice, mine.SoftDice]", "has no 'SoftDice' (did you mean 'soft_dice'?)"),
        ("[dice, nowhere.Loss]", "there is no module 'nowhere'; install it, or start voxloss in the folder"),
        ("[dice, mine.in.Loss]", "there is no module 'mine.in'"),
        ("[dice, .Loss]", "is not an import path"),
        ("[dice, mine.soft_dice, mine.soft_dice]", "is listed twice"),
        ("[{name: mine.soft_dice, labels: mask}]", "labels must be index, channel or one_hot; received 'mask'"),
        ("[{name: mine.soft_dice, title: 3}]", "title must be a text; received 3"),
        ("[mine.raises]", "RuntimeError: no such thing"),
        ("[mine.per_sample]", "values of the shape (2,)"),
        ("[broken.Loss]", "broken fails with NameError"),
        ("[needs.Loss]", "needs needs the module 'not_there'; install it"),
        ("[dicee]", "is named by its import path, such as mypackage.MyLoss"),
        ("[dice, mine]", "the loss mine is the module mine.py; it has mine.RootTversky, mine.Weighted, "),
        ("[mine.py]", "mine.py) has no 'py'; it has mine.RootTversky, "),
        ("[./mine.py]", "not an import path: write mine.NAME, the name of a class or function in the file, and start"),
        ("[broken]", "broken.py cannot be imported: broken fails with NameError"),
    ],
)
def test_mistakes_are_named_before_anything_is_prepared(phantom, mine, tmp_path, losses, said):
    (mine / "broken.py").write_text("nothing_there\n")
    (mine / "needs.py").write_text("import not_there\n")
    result = call(*run_words(phantom, tmp_path / "study", losses, "--no-report"))
    assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert not (tmp_path / "study").exists()


def test_keys_and_names():
    titled, with_channel = {"name": "a.Loss", "title": "Mine", "gamma": 2.0}, {"name": "a.f", "labels": "channel"}
    entries = ["a.Loss", "b.Loss", titled, with_channel]
    keys = [choice.key for choice in loss_choices(entries)]
    assert keys == ["a.Loss", "b.Loss", "a.Loss-gamma=2", "a.f-labels=channel"]
    assert loss_choices([{"name": "focal", "title": "x"}])[0].parameters == {"title": "x"}  # no loss of the package has
    long = LossChoice("a.Loss", {"weights": list(range(100))})
    other = LossChoice("a.Loss", {"weights": list(range(101))})
    assert len(long.key.encode()) <= 200 and long.key != other.key


def test_titles_that_are_alike_have_their_import_path(tmp_path):
    study = StudyFiles(losses=("dice", "a.Loss", "b.Loss", "c.Other"), cases=4, folds=2).write(tmp_path / "study")
    titles = {"a.Loss": "Loss", "b.Loss": "Loss", "c.Other": "Dice loss"}
    StudyFolder(study).write_own_losses({name: {"title": title} for name, title in titles.items()})
    with names_of(Study.open(study)):
        names = [loss_name(key) for key in ("dice", "a.Loss", "b.Loss", "c.Other")]
        assert names == ["Dice loss", "Loss [a.Loss]", "Loss [b.Loss]", "Dice loss [c.Other]"]
    assert loss_name("a.Loss") == "a.Loss"


def test_the_digest_is_that_of_the_loss_and_its_bases(mine):
    part = import_attribute("mine.Frozen", "the loss")
    before = source_digests(part)
    text = (mine / "mine.py").read_text()
    for old, new, same in (("number = 3", "number = 33", True), ("self.weight *", "+self.weight *", False)):
        (mine / "mine.py").write_text(text.replace(old, new))
        forget()
        now = source_digests(import_attribute("mine.Frozen", "the loss"))
        assert (now["source"] == before["source"]) == same and now["file"] != before["file"]


def test_a_loss_that_is_not_begun_may_change(mine, tmp_path):
    study = StudyFiles(losses=("dice", "mine.soft_dice"), cases=4, folds=2).write(tmp_path / "study")
    opened, key = Study.open(study), "mine.soft_dice"
    opened.files.write_own_losses({key: {"title": "x", "source": "other", "file": "other"}})
    with pytest.raises(InputError, match="restore it"):
        own_records(opened, {key})
    shutil.rmtree(study / "runs" / key)
    assert own_records(opened, {key})[key]["source"] != "other"
    opened.files.write_status(RunStatus(Run(LossChoice(key, {}), 0, 0), "pending"))
    assert own_records(opened, {key})[key]["title"] == "soft_dice"


def test_a_loss_with_several_values_is_refused():
    with pytest.raises(InputError, match="gives several values"):
        check_losses([LossChoice("own_parts.RootTversky", {"reduction": "none"})])
