"""Weights of a Compound that follow a schedule: values, the state in a checkpoint, names, and compiled code."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion

from voxloss import Compound, CosineSchedule, DeepSupervision, LinearSchedule, get_loss
from voxloss.losses.compound import set_epoch


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 5, 4, generator=generator), torch.randint(0, 3, (2, 5, 4), generator=generator)


def parts():
    logits, labels = problem()
    return [get_loss(name)(logits, labels).double() for name in ("dice", "focal")]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LinearSchedule(0.01, 1.01, epochs=100), {0: 0.01, 1: 0.02, 50: 0.51, 100: 1.01, 1000: 1.01}),
        (LinearSchedule(1, 0.1, 90), {0: 1, 30: 0.7, 90: 0.1, 91: 0.1}),
        (CosineSchedule(2, 0, 8), {0: 2, 2: 1 + math.sqrt(0.5), 4: 1, 6: 1 - math.sqrt(0.5), 8: 0, 20: 0}),
    ],
    ids=str,
)
def test_the_weight_of_every_epoch(schedule, expected):
    logits, labels = problem()
    first, second = parts()
    compound = Compound(["dice", "focal"], [schedule, 0.5])
    for epoch, weight in expected.items():
        compound.set_epoch(epoch)
        assert compound(logits, labels).item() == pytest.approx((weight * first + 0.5 * second).item(), rel=1e-6)
    assert compound.weights == (schedule, 0.5) and repr(schedule) in repr(compound)


def test_the_gradient_is_that_of_the_weights_now():
    logits, labels = problem()
    compound = Compound(["dice", "focal"], [1, LinearSchedule(0, 4, 10)])
    compound.set_epoch(5)
    gradients = []
    for loss in (compound, Compound(["dice", "focal"], [1, 2])):
        leaf = logits.clone().requires_grad_()
        loss(leaf, labels).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_epoch_is_saved_with_the_checkpoint():
    logits, labels = problem()
    made = {"losses": ["dice", "focal"], "weights": [LinearSchedule(0, 1, 10), 1]}
    compound = Compound(**made)
    compound.set_epoch(7)
    file = io.BytesIO()
    torch.save(compound.state_dict(), file)
    file.seek(0)
    resumed = Compound(**made)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed(logits, labels) == compound(logits, labels) != Compound(**made)(logits, labels)
    for copied in (copy.deepcopy(compound), pickle.loads(pickle.dumps(compound))):
        assert copied(logits, labels) == compound(logits, labels)
    assert list(compound.state_dict()) == ["epoch"] and not list(compound.parameters())
    compound.weights = [1, 1]  # without a schedule there is no state, as before
    assert not compound.state_dict()
    compound.weights = [CosineSchedule(0, 1, 4), 1]
    assert list(compound.state_dict()) == ["epoch"]


def test_all_compounds_within_a_module_are_set():
    inner = Compound(["dice", "focal"], [LinearSchedule(0, 1, 10), 1])
    outer = DeepSupervision(Compound([inner, "cross_entropy"], [CosineSchedule(0, 2, 10), 1]))
    wrapped = nn.Sequential(outer)
    for call in (outer.set_epoch, lambda epoch: set_epoch(wrapped, epoch)):
        call(0)
        call(6)
        assert inner.epoch == outer.loss.epoch == 6
    set_epoch(get_loss("dice"), 3)  # which has none
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="epoch must be a whole number not below 0, received"):
            inner.set_epoch(wrong)
    assert inner.epoch == 6


def test_wrong_schedules_are_refused():
    for values in ((-1, 1, 10), (0, math.inf, 10), (0, 1, 0), (0, "1", 10)):
        with pytest.raises(ValueError, match=r"(start|end|epochs) of a schedule must be a finite number"):
            LinearSchedule(*values)
    with pytest.raises(ValueError, match="2 losses need as many weights, received 1"):
        Compound(["dice", "focal"], [LinearSchedule(0, 1, 10)])
    with pytest.raises(ValueError, match=r"weights must be .* not below 0"):
        Compound(["dice", "focal"], [LinearSchedule(0, 1, 10), -1])


def test_by_name():
    logits, labels = problem()
    schedule = {"shape": "linear", "start": 0, "end": 2, "epochs": 4}
    losses = ["mixed_focal", {"name": "tversky", "delta": 0.4}, "boundary"]
    made = get_loss("compound", losses=losses, weights=[1, 0.5, schedule], ignore_index=9, pool="batch")
    own = [get_loss(name, ignore_index=9, pool="batch") for name in ("mixed_focal", "boundary")]
    own.insert(1, get_loss("tversky", delta=0.4, ignore_index=9, pool="batch"))
    expected = Compound(own, [1, 0.5, LinearSchedule(0, 2, 4)])
    for epoch in (0, 3):
        made.set_epoch(epoch)
        expected.set_epoch(epoch)
        assert made(logits, labels) == expected(logits, labels)
    assert made.name == "compound" and made.pool == "batch" and "compound" not in get_loss.__module__
    nested = get_loss("compound", losses=[{"name": "compound", "losses": ["dice", "focal"]}, "dice"])
    torch.testing.assert_close(nested(logits, labels), Compound(["dice", "focal", "dice"])(logits, labels))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"losses": "dice"}, "needs a list of losses, received 'dice'"),
        ({"losses": []}, "needs a list of losses"),
        ({"losses": ["dyce"]}, "unknown loss 'dyce'"),
        ({"losses": [{"delta": 1}]}, "is a name, or a mapping with name and parameters"),
        ({"losses": [{"name": "dice", "gamma": 1}]}, "'dice' has no parameter 'gamma'"),
        ({"losses": ["dice"], "gamma": 1}, "'compound' has no parameter 'gamma'"),
        ({"losses": ["dice"], "weights": [{"shape": "step"}]}, "shape of a schedule must be 'linear' or 'cosine'"),
        ({"losses": ["dice"], "weights": [{"shape": "linear", "end": 1}]}, "a schedule has shape, start, end, epochs"),
    ],
    ids=str,
)
def test_names_that_do_not_fit_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        get_loss("compound", **parameters)


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < TorchVersion("2.10"), reason="descriptors compile from torch 2.10 on")
def test_compiled_code_is_not_compiled_again():
    torch.compiler.reset()
    logits, labels = problem()
    compound = Compound(["dice", "focal"], [1, CosineSchedule(0, 1, 30)])
    compiled = torch.compile(compound, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for epoch in (0, 1, 7, 30):
            compound.set_epoch(epoch)
            torch.testing.assert_close(compiled(logits, labels), compound(logits, labels))
