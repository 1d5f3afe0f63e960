"""The losses in MONAI's SupervisedTrainer and in Lightning: 30 steps on real volumes, values of the functional form."""

import logging
import re
from pathlib import Path

import pytest
import torch

import voxloss

pytestmark = pytest.mark.peers

DOCS = Path(__file__).parents[2] / "docs"
LOSSES = ["mixed_focal", "dice_cross_entropy", "asymmetric_unified_focal"]
STEPS = 30


@pytest.fixture
def files(real_data):
    folder = real_data / "hippocampus"
    images = sorted((folder / "imagesTr").glob("*.nii.gz"))[:4]
    return [{"image": str(path), "label": str(folder / "labelsTr" / path.name)} for path in images]


def code_of(page):
    """The page's first Python block: the example as it stands."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return blocks[0]


def recorded(loss, steps):
    """Note of every call the loss's value, and that of the functional form on the same tensors."""

    def note(module, arguments, output):
        logits, labels = (argument.detach() for argument in arguments)
        name = f"{module.name}_loss"
        functional = getattr(voxloss.functional, name)
        steps.append((output.item(), functional(logits, labels).item(), type(labels).__name__, tuple(labels.shape)))

    loss.register_forward_hook(note)


def check(steps):
    values, functional = [step[0] for step in steps], [step[1] for step in steps]
    assert len(values) == STEPS
    assert values == pytest.approx(functional, rel=1e-6)
    first, last = sum(values[:5]) / 5, sum(values[-5:]) / 5
    print(f"{first:.4f} -> {last:.4f}, labels {steps[0][2]} {steps[0][3]}")
    assert last < first


@pytest.mark.parametrize("name", LOSSES)
def test_monai_supervised_trainer(name, files, monkeypatch):
    pytest.importorskip("ignite")
    pytest.importorskip("monai")
    monkeypatch.setattr(logging.getLogger("ignite"), "disabled", True)
    torch.manual_seed(0)
    steps, loss = [], voxloss.get_loss(name)
    loss.name = name
    recorded(loss, steps)
    names = {"files": files, "loss": loss, "epochs": STEPS // 2}
    exec(code_of("monai.md"), names)
    check(steps)
    assert steps[0][2:] == ("MetaTensor", (2, 1, 32, 32, 32))


@pytest.mark.parametrize("name", LOSSES)
def test_lightning(name, files, tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("monai")
    torch.manual_seed(0)
    steps, loss = [], voxloss.get_loss(name)
    loss.name = name
    recorded(loss, steps)
    names = {"files": files, "loss": loss, "epochs": STEPS // 2, "folder": tmp_path}
    exec(code_of("lightning.md"), names)
    check(steps)
