"""Names, parameters and their defaults; modules as objects; what the package imports."""

import copy
import importlib.metadata
import inspect
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import voxloss
from voxloss.commands.main import main
from voxloss.config.losses import check_losses, loss_choices
from voxloss.losses import describe
from voxloss.losses.catalogue import CATALOGUE
from voxloss.losses.loss import argument_text
from voxloss.utilities.errors import InputError

PUBLISHED = {
    "cross_entropy": {"beta": None},
    "focal": {"alpha": 0.25, "gamma": 2, "beta": None},
    "dice": {},
    "tversky": {"delta": 0.7},
    "focal_tversky": {"delta": 0.7, "gamma": 4 / 3},
    "cosine_tversky": {"delta": 0.7, "gamma": 1},
    "combo": {"alpha": None, "beta": None},
    "modified_combo": {"alpha": 0.5, "beta": 0.5, "delta": 0.7},
    "mixed_focal": {
        "weight": None, "alpha": 0.25, "beta": None, "delta": 0.7, "gamma_focal": 2, "gamma_tversky": 4 / 3,
    },
    "asymmetric_focal_tversky": {"delta": 0.7, "gamma": 0.75},
    "generalised_dice": {"power": 2},
    "log_cosh_dice": {},
    "jaccard": {},
    "mcc": {},
    "unified_focal": {"weight": 0.5, "delta": 0.6, "gamma": 0.5},
    "asymmetric_unified_focal": {"weight": 0.5, "delta": 0.6, "gamma": 0.5},
    "dice_focal": {"weight": None, "alpha": 1, "beta": None, "gamma": 2},
    "dice_cross_entropy": {},
    "ml1_ace": {"ace_weight": 1, "bins": 20},
    "skeleton_recall": {"recall_weight": 1},
    "cl_dice": {"alpha": 0.5, "iterations": 10},
    "cc_dice_ce": {"global_weight": 1, "lesion_weight": 1},
    "blob": {"global_weight": 1, "lesion_weight": 1, "entropy_weight": 1},
    "boundary": {"spacing": None},
    "hausdorff": {"alpha": 2, "spacing": None},
    "topk": {"top_k": 10},
    "dice_topk": {"top_k": 10},
    "lovasz": {},
}  # fmt: skip
OPTIONS = {
    "activation": "softmax", "inputs": "logits", "include_background": True, "ignore_index": None,
    "ignore_scope": "voxel", "class_reduction": "sum", "class_weight": None, "overlap": "product",
    "label_smoothing": 0.0, "reduction": "mean", "pool": "sample", "absent_class": "keep", "ignored_samples": "skip",
    "smooth": 1e-6, "validate": None,
}  # fmt: skip
OTHER = {
    "combo": {"class_reduction": "mean"},
    "mcc": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1e-7},
    "dice_focal": {"class_reduction": "mean"},
    "ml1_ace": {"class_reduction": "mean", "overlap": "squared", "smooth": 1e-5},
    "skeleton_recall": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1e-5},
    "cl_dice": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1.0},
    "cc_dice_ce": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 0.0},
    "blob": {"class_reduction": "mean", "include_background": None, "smooth": 1e-5},
    "dice_cross_entropy": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1e-5},
    "boundary": {"class_reduction": "mean", "include_background": None},
    "hausdorff": {"class_reduction": "mean", "include_background": None},
    "topk": {"pool": "batch"},
    "dice_topk": {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1e-5},
    "lovasz": {"class_reduction": "mean", "pool": "batch", "absent_class": "skip"},
}
NAMES = list(PUBLISHED)


def test_names():
    assert voxloss.list_losses() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_the_published_parameters(name):
    expected = PUBLISHED[name] | OPTIONS | OTHER.get(name, {})
    loss, function = CATALOGUE[name], getattr(voxloss.functional, f"{name}_loss")
    assert loss is getattr(voxloss, name.title().replace("_", "") + "Loss") is function.loss
    assert {key: value.default for key, value in loss.arguments.items()} == expected
    assert [key for key, value in loss.arguments.items() if not value.shared] == list(PUBLISHED[name])
    assert {key: value.default for key, value in inspect.signature(loss).parameters.items()} == expected
    shown = inspect.signature(function).parameters
    call = ["logits", "labels", "voxel_weight", "mask", "sample_weight", "regions", "distances", "skeletons"]
    assert list(shown)[: len(call)] == call
    assert {key: value.default for key, value in list(shown.items())[len(call) :]} == expected
    module = voxloss.get_loss(name)
    assert {key: getattr(module, key) for key in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_module_survives_copies(name):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, generator=generator), torch.randint(0, 3, (2, 4), generator=generator)
    loss = voxloss.get_loss(name, ignore_index=1)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(file, weights_only=False)):
        assert torch.equal(copied(logits, labels), loss(logits, labels))
        assert repr(copied) == repr(loss)
    assert not loss.state_dict() and not list(loss.parameters())


def test_repr_shows_own_parameters_and_changed_options():
    loss = voxloss.get_loss("mixed_focal", weight=0.5, pool="batch", smooth=1e-6)
    assert repr(loss) == (
        "MixedFocalLoss(weight=0.5, alpha=0.25, beta=None, delta=0.7, gamma_focal=2.0, "
        "gamma_tversky=1.3333333333333333, pool='batch')"
    )


@pytest.mark.parametrize("alpha", [[0.1, 0.2, 0.7], (0.1, 0.2, 0.7), torch.tensor([0.1, 0.2, 0.7]).double()])
def test_class_weights_as_any_sequence(alpha):
    logits, labels = torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]])
    value = voxloss.get_loss("focal", alpha=alpha, gamma=0)(logits, labels)
    assert value.item() == pytest.approx(torch.tensor(3.0).log().item() / 3)


@pytest.mark.parametrize("name", NAMES)
def test_card_tells_the_conventions(name):
    card = describe(name)
    loss = CATALOGUE[name]
    assert name in card and loss.equations in card and loss.source in card and loss.value_range in card
    assert all(line in card for line in loss.documentation.equation.splitlines())
    assert all(note in card for note in loss.conventions)
    for parameter in loss.arguments:
        assert f"- `{parameter}`: {argument_text(loss, parameter)}" in card


def test_committed_cards_are_those_of_the_catalogue(tmp_path):
    """Written again by `voxloss losses --write docs/losses`."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["losses", "--write", str(tmp_path)])
    committed = Path(__file__).parents[2] / "docs" / "losses"
    names = sorted(path.name for path in committed.iterdir())
    assert (
        names == sorted(path.name for path in tmp_path.iterdir()) == sorted(["README.md", *(f"{n}.md" for n in NAMES)])
    )
    assert all((committed / name).read_text() == (tmp_path / name).read_text() for name in names)


def test_the_package_has_every_public_name_of_its_losses():
    for name in voxloss.losses.__all__:
        assert getattr(voxloss, name) is getattr(voxloss.losses, name)
    with pytest.raises(AttributeError, match="no attribute 'NoSuchLoss'"):
        _ = voxloss.NoSuchLoss


def test_unknown_name():
    with pytest.raises(ValueError, match=r"unknown loss 'Mixed-Focl' \(did you mean 'mixed_focal'\?\).*cosine_tversky"):
        voxloss.get_loss("Mixed-Focl")
    with pytest.raises(ValueError, match="unknown loss 'zzz'; the losses are cross_entropy"):
        describe("zzz")


def test_unknown_parameter():
    with pytest.raises(
        ValueError, match=r"'tversky' has no parameter 'detla' \(did you mean 'delta'\?\); it accepts delta"
    ):
        voxloss.get_loss("tversky", detla=0.3)
    with pytest.raises(ValueError, match="'dice' has no parameter 'gamma'"):
        voxloss.get_loss("dice", gamma=2)
    with pytest.raises(TypeError, match="detla"):
        voxloss.TverskyLoss(detla=0.3)
    with pytest.raises(TypeError, match="detla"):
        voxloss.functional.tversky_loss(torch.zeros(1, 2, 3), torch.zeros(1, 3), detla=0.3)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("cross_entropy", "beta", 1.5),
        ("cross_entropy", "beta", "0.5"),
        ("focal", "alpha", -0.25),
        ("focal", "alpha", [0.5, float("nan")]),
        ("focal", "alpha", []),
        ("focal", "gamma", float("inf")),
        ("focal", "gamma", "2"),
        ("focal", "gamma", True),
        ("tversky", "delta", 1.1),
        ("tversky", "delta", None),
        ("tversky", "delta", float("nan")),
        ("focal_tversky", "gamma", 0),
        ("cosine_tversky", "gamma", -1),
        ("combo", "alpha", 2),
        ("modified_combo", "alpha", None),
        ("mixed_focal", "weight", -0.1),
        ("mixed_focal", "gamma_tversky", 0),
        ("mixed_focal", "gamma_focal", -2),
        ("asymmetric_focal_tversky", "gamma", 1),
        ("unified_focal", "gamma", 1.0),
        ("unified_focal", "delta", 1.2),
        ("asymmetric_unified_focal", "weight", 3),
        ("generalised_dice", "power", -2),
        ("dice_focal", "weight", -1),
        ("dice", "smooth", -1e-6),
        ("dice_cross_entropy", "smooth", float("nan")),
        ("cross_entropy", "smooth", -1),
        ("dice", "pool", "volume"),
        ("dice", "class_reduction", None),
        ("dice", "absent_class", "drop"),
        ("dice", "activation", "softplus"),
        ("dice", "ignore_index", 2.5),
        ("dice", "include_background", 2),
    ],
)
def test_values_are_checked_at_construction(name, parameter, value):
    with pytest.raises(ValueError, match=rf"{parameter}.*received"):
        voxloss.get_loss(name, **{parameter: value})
    with pytest.raises(ValueError, match=rf"{parameter}.*received"):
        getattr(voxloss.functional, f"{name}_loss")(torch.zeros(1, 2, 3), torch.zeros(1, 3), **{parameter: value})


@pytest.mark.parametrize("module", [voxloss, voxloss.losses], ids=["voxloss", "voxloss.losses"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("get_los", "get_loss"),
        ("DiceCELoss", "DiceCrossEntropyLoss"),
        ("TverskLoss", "TverskyLoss"),
        ("LogCoshdiceLoss", "LogCoshDiceLoss"),
        ("NoSuchLoss", None),
        ("__wrapped__", None),
    ],
)
def test_unknown_attribute(module, name, meant):
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    question = f" (did you mean {meant!r}?)" if meant else ""
    assert str(caught.value) == f"module {module.__name__!r} has no attribute {name!r}{question}"
    # Python suggests a name of its own, which may be another, where the error has an object.
    assert caught.value.obj is None
    assert not hasattr(module, name) and "get_loss" in dir(module) and name not in dir(module)


def test_import_of_all_names():
    names = {}
    exec("from voxloss import *; from voxloss.losses import *", names)
    assert set(voxloss.losses.__all__) <= set(names)


@pytest.mark.slow
def test_needs_nothing_but_torch():
    """`import voxloss` is free, and every loss runs where torch and the package are all there is."""
    script = """
import importlib.abc, sys
import voxloss
assert "torch" not in sys.modules
import torch

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {others}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
logits, labels = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randint(0, 3, (2, 4, 5))
for name in voxloss.list_losses():
    given = {"skeletons": labels > 0} if name == "skeleton_recall" else {}
    voxloss.get_loss(name)(logits, labels, **given).backward()
voxloss.Compound(["dice", "focal"])(logits, labels).backward()
ours = [name for name in sys.modules if name.startswith("voxloss.")]
assert all(name.startswith("voxloss.losses") for name in ours), ours
"""
    others = {
        distribution.metadata["Name"].lower().replace("-", "_") for distribution in importlib.metadata.distributions()
    }
    others -= {"torch", "voxloss", "typing_extensions", "numpy", "sympy"}
    script = script.replace("{others}", repr(sorted(others | {"yaml", "skimage", "PIL"})))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_usual_and_american_names():
    assert type(voxloss.get_loss("generalized_dice", power=1)) is voxloss.GeneralizedDiceLoss
    assert voxloss.GeneralizedDiceLoss is voxloss.GeneralisedDiceLoss
    assert voxloss.functional.generalized_dice_loss is voxloss.functional.generalised_dice_loss
    assert type(voxloss.get_loss("dice_ce")) is voxloss.DiceCrossEntropyLoss
    assert type(voxloss.get_loss("ce")) is voxloss.CrossEntropyLoss
    assert "generalized_dice" not in voxloss.list_losses()
    with pytest.raises(ValueError, match="did you mean 'generalized_dice'"):
        voxloss.get_loss("generalizd_dice")
    for name in ("DiceCE", "dice-ce", "Dice CE", "DiceCELoss", "DICE_CE", "dicece"):
        assert type(voxloss.get_loss(name)) is voxloss.DiceCrossEntropyLoss
    assert type(voxloss.get_loss("Compound", losses=["dice"])) is voxloss.Compound
    for name in voxloss.list_losses():
        assert voxloss.get_loss(name).name == name
        assert type(voxloss.get_loss(CATALOGUE[name].__name__)) is CATALOGUE[name]
    with pytest.raises(InputError, match="'DiceCE' is called 'dice_cross_entropy' in a study"):
        check_losses(loss_choices(["DiceCE"]))
    with pytest.raises(InputError, match="'dice_ce' is called 'dice_cross_entropy' in a study"):
        check_losses(loss_choices(["dice_ce"]))


@pytest.mark.parametrize(
    ("name", "parameter", "words"),
    [
        ("cross_entropy", "weight", r"FocalLoss\(gamma=0, alpha=\[\.\.\.\]\)"),
        ("dice", "to_onehot_y", "labels are taken as they are"),
        ("dice", "batch", 'it is pool="batch"'),
        ("dice", "smooth_nr", "it is smooth"),
        ("dice_focal", "lambda_dice", "Compound"),
        ("dice", "ignor_index", "did you mean 'ignore_index'"),
        ("tversky", "alpha", "alpha on false positives and beta on false negatives, .* delta is that beta"),
        ("focal_tversky", "beta", "delta is that beta"),
        ("cross_entropy", "alpha", "it accepts beta"),
    ],
)
def test_parameters_of_other_libraries_name_the_way_out(name, parameter, words):
    with pytest.raises(ValueError, match=f"{name!r} has no parameter {parameter!r}.*{words}"):
        voxloss.get_loss(name, **{parameter: 1})
    with pytest.raises(TypeError, match=f"has no parameter {parameter!r}.*{words}"):
        CATALOGUE[name](**{parameter: 1})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: voxloss.TverskyLoss(0.7), r"TverskyLoss takes its parameters by name, such as delta=0\.7$"),
        (lambda: voxloss.DiceLoss("sigmoid"), "DiceLoss takes its parameters by name, such as activation='sigmoid'$"),
        (lambda: voxloss.DiceLoss(object()), "by name: activation, inputs"),
        (lambda: voxloss.DiceLoss(torch.zeros(1, 2, 3), torch.zeros(1, 3)), r"is DiceLoss\(\)\(logits, labels\)$"),
    ],
)
def test_parameters_without_a_name_are_told_theirs(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_class_weights_by_the_way_that_the_message_names():
    logits, labels = torch.randn(2, 3, 50), torch.randint(0, 3, (2, 50))
    weight = torch.tensor([1.0, 5.0, 2.0])
    ours = voxloss.FocalLoss(gamma=0, alpha=weight)(logits, labels)
    theirs = torch.nn.functional.cross_entropy(logits, labels, weight) * weight[labels].sum() / labels.numel()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
