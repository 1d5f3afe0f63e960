"""The report of a study of several networks: a first page with all verdicts, and a page of every network."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_build import Page

from network_files import write_networks_study
from voxloss.evaluation.orders import Orders, judge_orders
from voxloss.report import build_report
from voxloss.report.networks import class_orders, network_results, networks_summary
from voxloss.report.summary import Summary
from voxloss.report.tables.orders import order_details, order_sentence, order_table
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
    assert summary.limits[0] == "No run with SegResNet is finished yet."
    shutil.rmtree(study / "networks" / "unet")
    with pytest.raises(InputError, match="no finished run yet"):
        build_report(study)


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
