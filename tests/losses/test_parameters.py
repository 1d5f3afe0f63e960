"""Parameters as attributes: a value that is set takes effect, and one that is refused changes nothing."""

import copy
import dataclasses
import pickle
from collections import UserList

import numpy as np
import pytest
import torch
from loss_twin import BOTH, OF_MAPS, ONE_OVERLAP, PER_LESION, PIXELWISE
from torch.torch_version import TorchVersion

import voxloss
from voxloss.losses.catalogue import CATALOGUE
from voxloss.losses.parameters import Positive

NAMES = voxloss.list_losses()
OTHERS = {  # another valid value of every parameter, and one that it cannot have
    "activation": ("sigmoid", "softplus"),
    "include_background": (False, 0.5),
    "ignore_index": (2, 1.5),
    "class_reduction": (("sum", "mean"), None),
    "class_weight": ([1.0, 2.0, 0.5], [1.0, -2.0]),
    "overlap": ("minimum", "union"),
    "label_smoothing": (0.2, 1.5),
    "reduction": ("sum", "average"),
    "pool": (("batch", "sample"), "volume"),
    "absent_class": ("skip", "drop"),
    "ignored_samples": ("keep", "drop"),
    "smooth": (0.5, -1),
    "validate": (False, "yes"),
    "weight": (0.3, 1.5),
    "global_weight": (0.3, -1),
    "lesion_weight": (0.3, -1),
    "entropy_weight": (0.3, -1),
    "recall_weight": (0.3, -1),
    "iterations": (0, 1.5),
    "ace_weight": (0.3, -1),
    "bins": (4, 0),
    "alpha": (0.6, -1),
    "beta": (0.8, 2),
    "delta": (0.2, None),
    "gamma": (0.25, -0.1),
    "gamma_focal": ([1.0, 2.0, 0.5], [1.0, -2.0]),
    "gamma_tversky": (2, 0),
    "power": (1, float("inf")),
    "top_k": (40.0, 0),
    "spacing": ([2.0], [-1.0]),
}
# Parameters that a loss refuses or that need other logits and labels; tests/losses/test_options.py has these.
APART = {("generalised_dice", "class_weight")}
APART |= {(name, parameter) for name in PIXELWISE for parameter in ("class_weight", "overlap")}
APART |= {(name, "overlap") for name in PER_LESION | OF_MAPS | ONE_OVERLAP}
APART |= {(name, "label_smoothing") for name in NAMES if name not in PIXELWISE | BOTH}
APART |= {(name, parameter) for name in NAMES for parameter in ("inputs", "ignore_scope")}
FIELDS = [(name, field) for name in NAMES for field in CATALOGUE[name].arguments if (name, field) not in APART]


def problem():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 5), generator=generator)
    labels[1] = labels[1].clamp_max(1)
    return logits, labels


def outcome(loss):
    logits, labels = problem()
    value = loss(logits.requires_grad_(), labels)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(outcome(one), outcome(other), strict=True))


def other(loss, parameter):
    value = OTHERS[parameter][0]
    return next(v for v in value if v != getattr(loss, parameter)) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "parameter"), FIELDS)
def test_a_parameter_that_is_set_is_that_of_a_new_loss(name, parameter):
    loss = voxloss.get_loss(name)
    before = outcome(loss)
    value = other(loss, parameter)
    setattr(loss, parameter, value)
    fresh = voxloss.get_loss(name, **{parameter: value})
    assert same(loss, fresh) and repr(loss) == repr(fresh) and loss.formula == fresh.formula
    assert loss.reading == fresh.reading
    setattr(loss, parameter, getattr(voxloss.get_loss(name), parameter))
    assert all(torch.equal(a, b) for a, b in zip(outcome(loss), before, strict=True))


@pytest.mark.parametrize(("name", "parameter"), FIELDS)
def test_a_value_that_is_refused_changes_nothing(name, parameter):
    loss = voxloss.get_loss(name, **{parameter: other(voxloss.get_loss(name), parameter)})
    shown, kept, formula = repr(loss), getattr(loss, parameter), loss.formula
    with pytest.raises(ValueError, match=rf"{parameter} must be .*, received"):
        setattr(loss, parameter, OTHERS[parameter][1])
    assert repr(loss) == shown and getattr(loss, parameter) == kept and loss.formula is formula


def test_a_slip_in_the_name_of_a_parameter_is_refused():
    loss = voxloss.TverskyLoss()
    begin = "TverskyLoss has no parameter"
    for name, meant in (("dleta", "delta"), ("class_weights", "class_weight"), ("ignor_index", "ignore_index")):
        with pytest.raises(AttributeError, match=rf"{begin} '{name}' \(did you mean '{meant}'\?\)"):
            setattr(loss, name, 0.3)
        assert not hasattr(loss, name)
    compiled = torch.compile(loss, backend="eager")
    with pytest.raises(AttributeError, match="did you mean 'delta'"):
        compiled.dleta = 0.3


def test_attributes_that_are_no_slips_can_be_set():
    class Logged(voxloss.TverskyLoss):
        """With a method, which may set attributes of any name, and an attribute declared in the class."""

        deltas = None

        def forward(self, *tensors):
            self.delta_ = self.delta
            return super().forward(*tensors)

    class Declared(voxloss.TverskyLoss):
        """With a name of its own, which the class declares."""

        deltas = None

    loss = voxloss.TverskyLoss()
    loss.region, loss.title, loss._delta = "liver", "Tversky", 1
    loss.register_buffer("deltas", torch.ones(1))
    loss.deltas = torch.zeros(1)
    loss.delta_part = torch.nn.Identity()
    loss.forward = loss.forward
    again = pickle.loads(pickle.dumps(copy.deepcopy(loss).train().double()))
    assert again.title == "Tversky" and again.deltas.dtype == torch.float64 and same(again, loss)
    logged, declared = Logged(), Declared()
    logged(*problem())
    declared.deltas = logged.deltaa = 3
    assert logged.delta_ == 0.7 and declared.deltas == 3
    with pytest.raises(AttributeError, match="Declared has no parameter 'dleta'"):
        declared.dleta = 3


def test_parameters_that_do_not_fit_together_change_nothing():
    class BandLoss(voxloss.losses.Loss):
        low: Positive = 1.0
        high: Positive = 2.0

        def terms(self):
            if self.low >= self.high:
                raise ValueError(f"low must be below high, received {self.low} and {self.high}")
            return self.region(self.low / self.high)

    loss = BandLoss()
    formula = loss.formula
    with pytest.raises(ValueError, match=r"received 3.0 and 2.0"):
        loss.low = 3
    assert loss.low == 1.0 and loss.formula is formula
    loss.high = 4
    assert same(loss, voxloss.TverskyLoss(delta=0.25))
    with pytest.raises(ValueError, match=r"received 2.0 and 1.0"):
        BandLoss(low=2, high=1)


@pytest.mark.parametrize("parameter", ["weight", "alpha", "gamma_tversky", "smooth"])
def test_a_whole_number_too_large_is_refused(parameter):
    with pytest.raises(ValueError, match=f"{parameter} must be"):
        voxloss.MixedFocalLoss(**{parameter: 10**400})


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_independent_and_keep_what_was_set(name):
    loss = voxloss.get_loss(name)
    loss.smooth, loss.pool = 0.25, "batch"
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert same(copied, loss) and repr(copied) == repr(loss) and not copied.state_dict()
        copied.smooth = 0.75
        assert loss.smooth == 0.25 and same(copied, voxloss.get_loss(name, pool="batch", smooth=0.75))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in PER_LESION or torch.__version__ >= TorchVersion("2.10")]
)
def test_compiled_losses_follow_what_is_set(name):
    torch.compiler.reset()
    logits, labels = problem()
    loss = voxloss.get_loss(name)
    # What is tested is when torch compiles again, which every backend does alike.
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    own = [parameter for parameter, argument in loss.arguments.items() if not argument.shared]
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    with torch._dynamo.config.patch(**{limit: 64}):
        compiled(logits, labels)
        for parameter in [*own, "smooth", "class_reduction"]:
            setattr(loss, parameter, other(loss, parameter))
            torch.testing.assert_close(compiled(logits, labels), loss(logits, labels), rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < TorchVersion("2.10"), reason="descriptors compile from torch 2.10 on")
def test_compiled_compound_follows_what_is_set():
    torch.compiler.reset()
    logits, labels = problem()
    compound = voxloss.Compound(["dice", "focal"], [1, 2])
    compiled = torch.compile(compound, fullgraph=True, backend="aot_eager")
    for change in (
        lambda: None,
        lambda: setattr(compound, "weights", [0.3, 0.7]),
        lambda: setattr(compound.losses[1], "gamma", 0.5),
        lambda: setattr(compound, "pool", "batch"),
    ):
        change()
        expected = sum(w * part(logits, labels) for w, part in zip(compound.weights, compound.losses, strict=True))
        torch.testing.assert_close(compiled(logits, labels), expected)
        torch.testing.assert_close(compound(logits, labels), expected)


def test_weights_of_a_compound_can_be_set():
    compound = voxloss.Compound(["dice", "cross_entropy"])
    compound.weights = UserList([0, 2])
    expected, gradient = outcome(voxloss.CrossEntropyLoss())
    torch.testing.assert_close(outcome(compound), (2 * expected, 2 * gradient))
    assert compound.weights == (0.0, 2.0) and "weights=(0.0, 2.0)" in repr(compound)
    for refused in ([1], [1, -1], [0, 0], "12", [1, float("nan")]):
        with pytest.raises(ValueError, match="received"):
            compound.weights = refused
        assert compound.weights == (0.0, 2.0)
    compound.weights = np.array([1, 3])
    assert compound.weights == (1.0, 3.0)


def test_shared_parameters_of_a_compound_are_those_of_its_losses():
    compound = voxloss.Compound([voxloss.DiceLoss(), voxloss.FocalLoss(smooth=1)])
    assert compound.activation == "softmax"
    compound.ignore_index = 2
    assert [loss.ignore_index for loss in compound.losses] == [2, 2] and compound.reading["ignore_index"] == 2
    expected = [voxloss.DiceLoss(ignore_index=2), voxloss.FocalLoss(ignore_index=2)]
    torch.testing.assert_close(compound(*problem()), sum(loss(*problem()) for loss in expected))
    with pytest.raises(AttributeError, match="differ in smooth"):
        compound.smooth  # noqa: B018
    with pytest.raises(ValueError, match="pool must be"):
        compound.pool = "volume"
    compound.losses[0].activation = "sigmoid"
    with pytest.raises(ValueError, match="must agree on activation"):
        compound(*problem())


def test_a_compound_refused_by_one_of_its_losses_changes_none():
    class SampleLoss(voxloss.DiceLoss):
        def terms(self):
            if self.pool != "sample":
                raise ValueError("only per sample")
            return super().terms()

    compound = voxloss.Compound([voxloss.DiceLoss(), SampleLoss()])
    with pytest.raises(ValueError, match="only per sample"):
        compound.pool = "batch"
    assert compound.pool == "sample"


def test_nested_compounds_given_by_name():
    inner = voxloss.Compound(["mixed_focal", "dice"], [1, 2])
    outer = voxloss.Compound(["dice", voxloss.FocalLoss(), inner], [1, 0.5, 0.2])
    parts = [("dice", 1), ("focal", 0.5), ("mixed_focal", 0.2), ("dice", 0.4)]
    expected = sum(weight * voxloss.get_loss(name)(*problem()) for name, weight in parts)
    torch.testing.assert_close(outer(*problem()), expected)


def test_weights_of_deep_supervision_can_be_set():
    logits, labels = problem()
    deep = voxloss.DeepSupervision(voxloss.DiceLoss(), [1, 0])
    deep.weights = UserList([0, 1])
    torch.testing.assert_close(deep([-logits, logits], labels), voxloss.DiceLoss()(logits, labels))
    with pytest.raises(ValueError, match="received"):
        deep.weights = [1, -1]
    assert deep.weights == (0.0, 1.0)
    deep.weights = None
    torch.testing.assert_close(deep([logits], labels), voxloss.DiceLoss()(logits, labels))


@pytest.mark.parametrize("make", [list, tuple, UserList, np.array, torch.tensor])
def test_class_weights_of_any_sequence(make):
    loss = voxloss.MixedFocalLoss(alpha=make([0.25, 0.5, 1.0]), gamma_focal=make([1.0, 2.0, 3.0]))
    assert loss.alpha == (0.25, 0.5, 1.0) and type(loss.alpha) is tuple
    assert same(loss, voxloss.MixedFocalLoss(alpha=[0.25, 0.5, 1.0], gamma_focal=[1.0, 2.0, 3.0]))
    loss.alpha = np.float32(0.5)
    assert type(loss.alpha) is float


@pytest.mark.parametrize("value", ["123", b"12", [], [[1.0]], [True], {1: 2}, None, float("nan"), [0.5, -1]])
def test_class_weights_that_are_none(value):
    with pytest.raises(ValueError, match="alpha must be a finite number not below 0, or one per class, received"):
        voxloss.FocalLoss(alpha=value)


@pytest.mark.parametrize("name", NAMES)
def test_jsonargparse_builds_losses(name):
    jsonargparse = pytest.importorskip("jsonargparse")
    class_path = f"voxloss.losses.{CATALOGUE[name].__name__}"
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=voxloss.Loss)
    config = parser.parse_object({"loss": {"class_path": class_path, "init_args": {"smooth": 0.5, "pool": "batch"}}})
    assert same(parser.instantiate(config).loss, voxloss.get_loss(name, smooth=0.5, pool="batch"))
    with pytest.raises(jsonargparse.ArgumentError):
        parser.parse_object({"loss": {"class_path": class_path, "init_args": {"smoth": 0.5}}})

    whole = jsonargparse.ArgumentParser(exit_on_error=False)
    whole.add_class_arguments(CATALOGUE[name], "loss")
    values = {parameter: OTHERS[parameter][0] for loss, parameter in FIELDS if loss == name and parameter in OTHERS}
    values = {parameter: v for parameter, v in values.items() if not isinstance(v, tuple)}
    config = whole.parse_object({"loss": values})
    assert same(whole.instantiate(config).loss, voxloss.get_loss(name, **values))


@pytest.mark.parametrize("name", NAMES)
def test_hydra_builds_losses(name):
    hydra = pytest.importorskip("hydra.utils")
    omegaconf = pytest.importorskip("omegaconf")
    values = {field: other(voxloss.get_loss(name), field) for loss, field in FIELDS if loss == name}
    if "alpha" in values and name not in ("combo", "modified_combo", "hausdorff", "cl_dice"):
        values["alpha"] = [0.2, 0.3, 0.5]  # a ListConfig
    config = omegaconf.OmegaConf.create({"_target_": f"voxloss.{CATALOGUE[name].__name__}", **values})
    assert same(hydra.instantiate(config), voxloss.get_loss(name, **values))


def test_a_loss_with_its_own_init_keeps_the_checks():
    class ScaledTverskyLoss(voxloss.TverskyLoss):
        """With a constructor of its own."""

        def __init__(self, scale, delta=0.3):
            super().__init__(delta=delta)
            self.scale = scale

        def forward(self, *tensors):
            return self.scale * super().forward(*tensors)

    class Below(ScaledTverskyLoss):
        pass

    for cls in (ScaledTverskyLoss, Below):
        loss = cls(2.0)
        torch.testing.assert_close(loss(*problem()), 2 * voxloss.TverskyLoss(delta=0.3)(*problem()))
        loss.delta = 0.9
        torch.testing.assert_close(loss(*problem()), 2 * voxloss.TverskyLoss(delta=0.9)(*problem()))
        assert repr(loss) == f"{cls.__name__}(delta=0.9)" and loss.scale == 2.0
        with pytest.raises(ValueError, match="delta must be in"):
            loss.delta = 5
        with pytest.raises(ValueError, match="delta must be in"):
            cls(2.0, delta=5)
        assert same(copy.deepcopy(loss), loss)


def test_a_subclass_of_compound_takes_what_compound_takes():
    class Sum(voxloss.Compound):
        pass

    loss = Sum(["dice", "focal"], [1, 2])
    loss.pool = "batch"
    expected = voxloss.Compound(["dice", "focal"], [1, 2])
    expected.pool = "batch"
    assert same(loss, expected)


def test_a_loss_declared_a_dataclass_is_a_module():
    @dataclasses.dataclass
    class ScaledDiceLoss(voxloss.DiceLoss):
        scale: Positive = 2.0

    loss = ScaledDiceLoss(scale=3)
    assert list(torch.nn.Sequential(loss).modules())[1] is loss and loss != ScaledDiceLoss(scale=3)
    assert repr(loss) == "ScaledDiceLoss(scale=3.0)"
    with pytest.raises(ValueError, match="scale must be"):
        loss.scale = -1


def test_a_default_without_a_type_is_refused():
    with pytest.raises(TypeError, match=r"MildLoss\.delta needs a type"):

        class MildLoss(voxloss.TverskyLoss):
            delta = 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda alpha: voxloss.FocalLoss(alpha=alpha),
        lambda alpha: voxloss.FocalLoss(gamma=[alpha[0], 1.0, 2.0]),
        lambda alpha: voxloss.TverskyLoss(delta=alpha[0]),
        lambda alpha: voxloss.Compound(["dice", "focal"], weights=alpha[:2]),
        lambda alpha: voxloss.DeepSupervision(voxloss.DiceLoss(), weights=list(alpha)),
        lambda alpha: setattr(voxloss.DiceLoss(), "smooth", alpha[0]),
    ],
)
def test_a_parameter_that_should_learn_is_refused(make):
    alpha = torch.nn.Parameter(torch.tensor([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match="requires a gradient, but a loss does not learn its parameters"):
        make(alpha)
    make(alpha.detach())
