"""The report of a study of several networks: a first page with all verdicts, and a page of every network."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from test_build import Page

from network_files import NETWORKS, write_networks_study
from voxloss.evaluation.orders import Orders, judge_orders
from voxloss.report import build_report
from voxloss.report.build import print_tables
from voxloss.report.networks import class_orders, network_results, networks_summary
from voxloss.report.summary import Summary
from voxloss.report.tables.orders import order_details, order_sentence, order_table
from voxloss.study.standing import retire
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]

SMALL = {"losses": ("dice", "focal"), "cases": 6, "folds": 2, "classes": ("background", "tumour")}


@pytest.fixture(scope="session")
def two_networks(once) -> Path:
    return once("two_networks", lambda folder: write_networks_study(folder, **SMALL))


@pytest.fixture
def study(two_networks, tmp_path) -> Path:
    """A copy that the test may change."""
    return shutil.copytree(two_networks, tmp_path / "study")


def summary_of(study: Path) -> Summary:
    results, waiting = network_results(Study.open(study))
    return networks_summary(results, waiting, class_orders(results, "tumour"))


def test_the_first_page_has_every_verdict_and_links_to_every_network(study):
    page = Page(build_report(study, viewer_cases=0))
    assert {"networks/unet/index.html", "networks/SegResNet/index.html"} <= set(page.links)
    files = [link for link in page.links if ":" not in link and not link.startswith("#")]
    assert [link for link in files if not (study / "report" / link).is_file()] == []
    assert "The batches are identical for all losses and networks in each of 2 fold-and-seed pairs" in page.text
    for key in ("unet", "SegResNet"):
        own = Page(study / "report" / "networks" / key / "index.html")
        assert "../../index.html" in own.links
        assert f"{key} (all networks)" in own.text
    changes = pd.read_csv(study / "report" / "tables" / "order_tumour.csv")
    assert changes["change"].tolist() == [0]  # both networks have the same scores
    assert len(pd.read_csv(study / "report" / "tables" / "means_tumour.csv")) == 4


def judged(random: np.random.Generator, effects: list[list[float]], networks: list[str]) -> Orders:
    """Scores of 40 cases in 5 folds with means that differ by `effects`, and little noise."""
    values = 0.5 + random.normal(0, 0.01, (40, *np.shape(effects))) + np.array(effects)
    return judge_orders(values, np.arange(40) % 5, networks, ["dice", "focal", "tversky"][: len(effects[0])], 1)


def test_the_headline_says_what_is_clear_and_what_is_not():
    random, networks = np.random.default_rng(0), ["unet", "SegResNet"]
    changed = judged(random, [[0.1, 0.0, 0.4], [-0.1, 0.0, 0.4]], networks)
    assert order_sentence(changed) == (
        "The order of the losses changes clearly between the networks: Focal loss is better than Dice loss with "
        "SegResNet and worse with unet."
        if changed.pairs[-1].loss == "focal"
        else "The order of the losses changes clearly between the networks: Dice loss is better than Focal loss with "
        "unet and worse with SegResNet."
    )
    table = order_table(changed, "tumour", "dice", ["dice", "focal"])
    assert [row[-1].text for row in table.rows] == ["order changes"]
    assert len(order_table(changed, "tumour", "dice", ["dice", "focal", "tversky"]).rows) == 3
    same = judged(random, [[0.3, 0.0, 0.1], [0.3, 0.0, 0.1]], networks)
    assert order_sentence(same) == (
        "The order of the losses is the same with every network: in every pair the same loss is clearly better."
    )
    partly = judged(random, [[0.3, 0.0, 0.0], [0.3, 0.0, 0.0]], networks)
    assert order_sentence(partly) == (
        "The order is clearly the same with every network for 2 of 3 pairs of losses; for the others this number of "
        "runs cannot tell."
    )
    nothing = judged(random, [[0.0, 0.0], [0.0, 0.0]], networks)
    assert order_sentence(nothing) == (
        "This number of runs cannot tell whether the order of the losses changes between the networks."
    )
    sized = judged(random, [[0.3, 0.0], [0.0, 0.0]], networks)
    assert "clearly changes in size, but not clearly in its direction, for Dice loss and Focal loss." in " ".join(
        order_details(sized)
    )


def test_networks_without_results_are_named_and_only_compared_when_they_have_some(study):
    shutil.rmtree(study / "networks" / "SegResNet")
    summary = summary_of(study)
    assert summary.headline == "Only unet has results, so the order of the losses cannot be compared."
    assert summary.limits[0] == "SegResNet is not compared: none of its 4 runs is finished yet."
    shutil.rmtree(study / "networks" / "unet")
    with pytest.raises(InputError, match="no finished run yet"):
        build_report(study)


@pytest.fixture(scope="session")
def three_networks(once) -> Path:
    networks = (*NETWORKS, {"name": "unet", "filters": 8, "label": "narrow"})
    return once("three_networks", lambda folder: write_networks_study(folder, networks, **SMALL))


@pytest.fixture
def narrow(three_networks, tmp_path) -> Study:
    """The part of the network `narrow` in a study of three networks, without merged scores."""
    part = Study.open(shutil.copytree(three_networks, tmp_path / "study")).part("narrow")
    part.files.scores_file.unlink()
    return part


def without_runs(narrow: Study, *places: tuple[str, int]) -> None:
    for run in narrow.runs():
        if (run.loss.key, run.fold) in places:
            shutil.rmtree(narrow.run_folder(run).path)


def failed_with_scores(narrow: Study) -> None:
    for run in narrow.runs():
        narrow.write_status(run, state="failed", reason="no memory for <b>1 & 2</b>")


def failed_without_scores(narrow: Study) -> None:
    failed_with_scores(narrow)
    for run in narrow.runs():
        narrow.run_folder(run).scores_file.unlink()


def in_progress(narrow: Study) -> None:
    without_runs(narrow, ("dice", 1), ("focal", 0), ("focal", 1))


def one_failed(narrow: Study) -> None:
    without_runs(narrow, ("dice", 0), ("focal", 0), ("focal", 1))
    last = narrow.runs()[-2]
    narrow.write_status(last, state="failed", reason="no memory")
    narrow.run_folder(last).scores_file.unlink()


def with_one_loss(narrow: Study) -> None:
    without_runs(narrow, ("focal", 0), ("focal", 1))
    retire([narrow], ["focal"])


def without_losses(narrow: Study) -> None:
    without_runs(narrow, ("dice", 0), ("dice", 1), ("focal", 0), ("focal", 1))
    retire([narrow], ["dice", "focal"])


def without_common_cases(narrow: Study) -> None:
    without_runs(narrow, ("dice", 0), ("focal", 1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            failed_with_scores,
            "narrow is not compared: all of its 4 runs failed (the first: no memory for <b>1 & 2</b>).",
        ),
        (
            failed_without_scores,
            "narrow is not compared: all of its 4 runs failed (the first: no memory for <b>1 & 2</b>).",
        ),
        (
            one_failed,
            "narrow is not compared: none of its 4 runs is finished yet, and 1 failed (the first: no memory).",
        ),
        (in_progress, "narrow is not compared with the other networks yet: 1 of its 4 runs finished."),
        (
            with_one_loss,
            "narrow is not compared with the other networks: Dice loss is the only loss that it has in common with "
            "them.",
        ),
        (without_losses, "narrow is not compared: all of its losses are retired."),
        (
            without_common_cases,
            "narrow is not compared: STUDY has no case yet that is scored for all of its losses with a finished run.",
        ),
    ],
)
def test_a_network_that_is_not_ready_is_named_and_hides_nothing_of_the_others(
    narrow: Study, change: Callable[[Study], None], sentence: str, capsys
):
    """Two others are compared on all cases, as without it."""
    change(narrow)
    results, without = network_results(Study.open(narrow.folder))
    found = class_orders(results, "tumour")
    assert found is not None
    assert found.networks == ("unet", "SegResNet")
    assert (set(found.losses), found.n_cases) == ({"dice", "focal"}, 6)
    said = sentence.replace("STUDY", str(narrow.folder))
    limits = networks_summary(results, without, found).limits
    assert [limit for limit in limits if "narrow" in limit] == [said]
    if change in (failed_with_scores, in_progress):  # a page takes its time
        page = Page(build_report(narrow.folder, viewer_cases=0))
        assert said in page.text
        assert set(network_pages(narrow.folder)) == {one.network for one in results}
        print_tables(narrow.folder, Console(width=500))
        assert said in capsys.readouterr().out


def network_pages(study: Path) -> list[str]:
    return [path.parent.name for path in (study / "report" / "networks").glob("*/index.html")]


def test_a_network_with_other_losses_than_the_others_is_named(narrow):
    results, without = network_results(Study.open(narrow.folder))
    names = {"dice": "tversky", "focal": "combo"}
    *others, last = results
    scores = last.comparison.family_scores
    scores = scores.assign(loss=scores["loss"].map(names))
    last = replace(last, comparison=replace(last.comparison, family_scores=scores))
    found = class_orders([*others, last], "tumour")
    assert found is not None and found.networks == ("unet", "SegResNet")
    assert networks_summary([*others, last], without, found).limits[0] == (
        "narrow is not compared with the other networks: it has no loss in common with them."
    )
    assert class_orders([others[0], last], "tumour") is None


def test_networks_in_progress_are_compared_until_two_are_finished(narrow):
    for part in Study.open(narrow.folder).parts()[:2]:
        part.files.scores_file.unlink()
        without_runs(part, ("dice", 1), ("focal", 1))
    results, without = network_results(Study.open(narrow.folder))
    found = class_orders(results, "tumour")
    assert found is not None and not without
    assert (found.networks, found.n_cases) == (("unet", "SegResNet", "narrow"), 3)


def test_of_chosen_losses_a_network_that_lacks_one_is_named(narrow):
    without_runs(narrow, ("focal", 0), ("focal", 1))
    study = Study.open(narrow.folder)
    results, without = network_results(study, ["dice", "focal"])
    assert [one.network for one in results] == ["unet", "SegResNet"]
    assert without == {"narrow": "--losses: focal has no finished run yet"}
    with pytest.raises(InputError, match="has no loss 'tversky'"):
        network_results(study, ["dice", "tversky"])


def test_a_network_that_learned_nothing_has_no_order(tmp_path):
    study = write_networks_study(tmp_path / "study", **SMALL, blank=SMALL["losses"])
    assert summary_of(study).headline == (
        "The order of the losses cannot be compared: no loss learned to find tumour with any network."
    )


def test_scores_have_a_column_of_networks_only_where_there_are_several(two_networks):
    table = pd.read_csv(two_networks / "scores.csv")
    assert list(table.columns[:2]) == ["network", "dataset"]
    assert set(table["network"]) == {"unet", "SegResNet"}
    for part in Study.open(two_networks).parts():
        assert "network" not in pd.read_csv(part.files.scores_file).columns
    with pytest.raises(InputError, match="compares networks; name one with --network: unet, SegResNet"):
        Study.open(two_networks).scores()


def test_of_chosen_losses_the_order_is_that_of_these_with_the_intervals_of_all(tmp_path):
    losses = ("dice", "focal", "tversky")
    study = Study.open(write_networks_study(tmp_path / "study", **(SMALL | {"losses": losses})))
    everything, some = (
        class_orders(network_results(study, chosen)[0], "tumour") for chosen in (None, ["dice", "focal"])
    )
    assert everything is not None and some is not None
    assert len(everything.pairs) == 3
    assert set(some.losses) == {"dice", "focal"}
    assert some.pairs == tuple(pair for pair in everything.pairs if {pair.loss, pair.other} == {"dice", "focal"})
    assert some.changes.to_numpy().tolist() == [
        row for row in everything.changes.to_numpy().tolist() if set(row[:2]) == {"dice", "focal"}
    ]
    assert some.means.shape == (2, 2)
    assert set(some.verdicts[0].losses) == {"dice", "focal"}
