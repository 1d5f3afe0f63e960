"""The figures of the losses themselves: what they claim is computed."""

import math

import pandas as pd
import pytest
import torch

import voxloss
from voxloss.report.figures.losses import CURVES, EDGES, FAMILIES, curve_values, curves_of_losses_figure, family_figure


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (2, 4, 5, 6), generator=generator)


@pytest.mark.parametrize("edge", [edge for edge in EDGES if edge.setting], ids=lambda e: f"{e.general}-{e.special}")
def test_an_arrow_with_a_setting_is_an_identity(edge, batch):
    general = voxloss.get_loss(edge.general, **edge.setting, **edge.special_setting)
    special = voxloss.get_loss(edge.special, **edge.special_setting)
    torch.testing.assert_close(general(*batch), special(*batch), rtol=1e-12, atol=1e-12)


def test_every_arrow_joins_losses_of_the_graph():
    drawn = {name for names in FAMILIES.values() for name in names}
    assert {edge.general for edge in EDGES} | {edge.special for edge in EDGES} == drawn
    assert {"focal", "dice", "tversky", "focal_tversky", "cosine_tversky", "combo", "mixed_focal"} <= drawn


@pytest.mark.parametrize(
    ("name", "x", "gamma", "value"),
    [
        ("focal", 0.5, 0.0, math.log(2)),
        ("focal", 0.5, 2.0, math.log(2) / 4),
        ("focal_tversky", 0.75, 2.0, 0.5),  # (1 - 0.75) ** (1/2)
        ("focal_tversky", 1.0, 4 / 3, 0.0),
        ("cosine_tversky", 2 / 3, 1.0, 0.5),  # cos 60°
        ("cosine_tversky", 2 / 3, 3.0, 0.125),
        ("cosine_tversky", 0.0, 2.0, 1.0),
    ],
)
def test_curves_by_hand(name, x, gamma, value):
    got = curve_values(name, torch.tensor([x], dtype=torch.float64), gamma)
    assert float(got) == pytest.approx(value, abs=1e-12)


def test_the_files_hold_what_is_drawn(tmp_path):
    curves_of_losses_figure(tmp_path)
    family_figure(tmp_path)
    curves = pd.read_csv(tmp_path / "losses_curves.csv")
    assert set(zip(curves["loss"], curves["gamma"].round(6), strict=True)) == {
        (name, round(gamma, 6)) for name, _, _, gammas in CURVES for gamma in gammas
    }
    graph = pd.read_csv(tmp_path / "losses_graph.csv")
    assert len(graph) == len(EDGES)
    assert graph.set_index(["general", "special"]).loc[("mixed_focal", "focal"), "setting"] == "λ = 1"
