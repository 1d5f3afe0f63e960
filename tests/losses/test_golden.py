"""Values and gradients computed from the definitions in 40-digit arithmetic."""

import json
from pathlib import Path

import pytest
import torch

from voxloss import get_loss
from voxloss.losses import functional, voxel_statistics

VECTORS = json.loads(Path(__file__).with_name("loss_vectors.json").read_text())["vectors"]
NAMES = [f"{i}-{vector['loss']}-{vector['kind']}" for i, vector in enumerate(VECTORS)]


def tensors(vector):
    batch, _, *spatial = vector["shape"]
    logits = torch.tensor(vector["logits"], dtype=torch.float64).reshape(vector["shape"]).requires_grad_()
    labels = torch.tensor(vector["labels"]).reshape(batch, *spatial)
    gradient = torch.tensor(vector["gradient"], dtype=torch.float64).reshape(vector["shape"])
    return logits, labels, gradient


def as_function(vector):
    return lambda *tensors: getattr(functional, vector["loss"] + "_loss")(*tensors, **vector["params"])


def as_module(vector):
    return get_loss(vector["loss"], **vector["params"])


def test_all_vectors_are_there():
    assert len(VECTORS) == 86


@pytest.mark.parametrize("make", [as_function, as_module])
@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_value_and_gradient(vector, make):
    logits, labels, gradient = tensors(vector)
    value = make(vector)(logits, labels)
    value.backward()
    assert value.dtype == torch.float64 and value.shape == ()
    assert value.item() == pytest.approx(vector["value"], abs=1e-10, rel=0)
    torch.testing.assert_close(logits.grad, gradient, atol=1e-10, rtol=0)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_float32(vector):
    logits, labels, gradient = tensors(vector)
    logits = logits.detach().float().requires_grad_()
    value = as_module(vector)(logits, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(vector["value"], abs=2e-6, rel=2e-6)
    torch.testing.assert_close(logits.grad.double(), gradient, atol=1e-6, rtol=1e-5)


def test_losses_share_one_pass():
    same = [v for v in VECTORS if v["logits"] == VECTORS[0]["logits"]]
    logits, labels, _ = tensors(VECTORS[0])
    formulas = [as_module(vector).formula for vector in same]
    exponents = [exponent for formula in formulas for exponent in formula.exponents]
    statistics = voxel_statistics(logits, labels, focal_exponents=exponents)
    assert len(same) > 10
    for vector, formula in zip(same, formulas, strict=True):
        assert formula(statistics).item() == pytest.approx(vector["value"], abs=1e-10, rel=0)
        assert sum(formula.terms(statistics).values()).item() == pytest.approx(vector["value"], abs=1e-10, rel=0)
        logits.grad = None
        formula(statistics).backward(retain_graph=True)
        torch.testing.assert_close(logits.grad, tensors(vector)[2], atol=1e-10, rtol=0)
