"""Metrics of the user's own: in scores.csv and the tables, as the primary metric, and what is refused at once."""

import math
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import own_parts
from study_helpers import TINY, call
from voxloss.config.files import config_from
from voxloss.config.metrics import MetricChoice, agree, settled_metrics
from voxloss.evaluation.metrics import METRICS, metric_of, own_scores, register_metric
from voxloss.evaluation.scores import failed_rows, read_scores, score_rows, score_table, worst_filled
from voxloss.report.names import metric_name, names_of
from voxloss.study.own import try_own_metrics
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError


@pytest.fixture
def mine(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(own_parts.__file__, folder / "mine.py")
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("mine", None)
    sys.path[:] = [path for path in sys.path if not path.endswith("/work")]


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_own_metrics_stand_beside_the_packages(phantom, mine, tmp_path):
    study = tmp_path / "study"
    words = ["run", "demo", "--data", phantom, "--study", study, "--losses", "dice,mixed_focal", *TINY]
    metrics = ["--evaluation.metrics", "[mine.missed, mine.volume_error]", "--comparison.primary_metric", "mine.missed"]
    result = call(*words, *metrics)
    assert result.returncode == 0, result.stderr
    scores = read_scores(study / "scores.csv")
    wide = scores.pivot(index=["loss", "case", "class"], columns="metric", values="value")
    pd.testing.assert_series_equal(wide["mine.missed"], wide["recall"], check_names=False)
    pd.testing.assert_series_equal(wide["mine.volume_error"], wide["volume_difference"], check_names=False)
    assert "Found share" in result.stdout
    page = (study / "report/index.html").read_text()
    assert "Own metrics of" in page and "volume_error, ml" in page and "Found share of tumour" in page
    settled = Study.open(study).own_metrics
    assert [one.higher_is_better for one in settled] == [True, False] and settled[1].range == (0, math.inf)
    (mine / "mine.py").unlink()  # whoever reads a finished study needs no module of the user's
    sys.modules.pop("mine", None)
    assert call("report", study).returncode == 0
    assert call(*words, *metrics, "--no-report").returncode == 0
    result = call(*words, "--evaluation.metrics", "[{name: mine.missed, range: [0, 2]}, mine.volume_error]")
    assert result.returncode == 2 and "range [0, 1]" in result.stderr  # mine.missed is the study's primary metric


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--evaluation.metrics", "[mine.mised]"], "has no 'mised' (did you mean 'missed'?)"),
        (["--evaluation.metrics", "[mine.beyond]"], "is 1.5 on a trial mask, out of its range of 0 to 1"),
        (["--evaluation.metrics", "[mine.of_empty]"], "the metric mine.of_empty fails on a trial mask"),
        (["--evaluation.metrics", "[mine.number]"], "is a int, not a function"),
        (["--evaluation.metrics", "[missed]"], "takes import paths such as mypackage.my_metric"),
        (["--evaluation.metrics", "[mine.missed, mine.missed]"], "is listed twice"),
        (["--evaluation.metrics", "[{name: mine.missed, best: 1}]"], "has no key 'best'; its keys are name, title"),
        (["--evaluation.metrics", "[{name: mine.missed, range: [1, 0]}]"], "range of mine.missed should be a finite"),
        (["--evaluation.metrics", "[{name: mine.missed, higher_is_better: 3}]"], "should be true or false"),
        (["--comparison.primary_metric", "mine.missed"], "or the import path of a metric in evaluation.metrics"),
        (["--comparison.primary_metric", "dicee"], "must be one of dice, precision"),
        (
            ["--evaluation.metrics", "[{name: mine.missed, higher_is_better: false}]",
             "--comparison.primary_metric", "mine.missed"],
            "of which more is better; let yours return such a share",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_prepared(phantom, mine, tmp_path, words, said):
    result = call("run", "demo", "--data", phantom, "--study", tmp_path / "study", "--losses", "dice", *TINY, *words)
    assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert not (tmp_path / "study").exists()


def test_metrics_are_tried_on_masks_with_as_many_axes_as_the_data(mine):
    """With two where the cases are images: what needs three fails before anything is trained, and the reverse."""
    (mine / "axes.py").write_text(
        "def three(reference, prediction, spacing_mm):\n    depth, rows, columns = spacing_mm\n    return 1.0\n"
        "def two(reference, prediction, spacing_mm):\n    rows, columns = reference.shape\n    return 1.0\n"
    )
    volumes, images = SimpleNamespace(flat_axis=None), SimpleNamespace(flat_axis=0)
    sys.path.insert(0, str(mine))
    try_own_metrics(["axes.three"], volumes)
    try_own_metrics(["axes.two"], images)
    for name, dataset in (("axes.three", images), ("axes.two", volumes)):
        with pytest.raises(InputError, match=f"the metric {name} fails on a trial mask"):
            try_own_metrics([name], dataset)


def test_attributes_settle_what_the_configuration_leaves_open():
    entry = "own_parts.volume_error"
    settled = settled_metrics([entry, {"name": "own_parts.missed", "title": "Mine"}])
    assert settled[0] == {
        "name": entry, "title": "volume_error", "range": [0.0, math.inf], "higher_is_better": False, "unit": "ml"
    }  # fmt: skip
    assert settled[1]["title"] == "Mine" and settled_metrics(["own_parts.missed"])[0]["title"] == "Found share"
    assert settled_metrics(settled) == settled and agree(settled, [entry, "own_parts.missed"])
    assert not agree(settled, [entry]) and not agree(settled, [entry, {"name": "own_parts.missed", "unit": "mm"}])
    config_from({"evaluation": {"metrics": list(settled)}})


def test_ignored_voxels_are_background_and_undefined_values_rank_as_the_worst():
    name = "own_parts.missed"
    register_metric(name, (0.0, 1.0), higher_is_better=True, unit="")
    reference = np.zeros((4, 4, 4), dtype=np.uint8)
    reference[:2], reference[0, 0] = 1, 254
    prediction = np.ones_like(reference)
    functions = {
        name: lambda one, two, spacing_mm: float(one.sum() == 28 and two.sum() == 60 and spacing_mm == (1, 1, 1))
    }
    (score,) = own_scores(reference, prediction, ("background", "x"), [1, 1, 1], functions, ignore_index=254)
    assert (score.metric, score.value, score.status) == (name, 1.0, "ok")
    origin = {"dataset": "d", "fold": 0, "seed": 0, "loss": "a"}
    dice = {"class": "x", "metric": "dice", "value": 0.0, "status": "ok"}
    rows = [{**origin, "case": "c", **dice}, {**origin, "case": "c", **dice, "metric": name, "value": None}]
    rows[1]["status"] = "undefined"
    rows += failed_rows(**origin | {"loss": "b"}, cases=["c"], classes=("background", "x"), own_metrics=[name])
    filled = worst_filled(score_table(rows))
    assert filled.loc[filled["metric"] == name, "value"].tolist() == [0, 0]
    with pytest.raises(InputError, match=r"own_parts\.missed lies between 0 and 1, got 2"):
        score_table([{**rows[1], "status": "ok", "value": 2.0}])
    assert name not in METRICS and metric_of(name).higher_is_better
    assert score_rows([score], **origin, case="c")[0]["metric"] == name


def test_titles(tmp_path):
    assert metric_name("mine.missed") == "mine.missed"
    assert MetricChoice.of("mine.missed").title == "missed" and names_of is not None
