"""Losses that users write: what they get, what they must give, and what is refused with which sentence."""

import copy

import pytest
import torch
from torch import nn

import own_parts
import voxloss
from voxloss.losses.own import OwnLoss, own_loss, try_loss

LABELS = torch.randint(3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(1))
LOGITS = torch.randn((2, 3, 4, 5, 6), generator=torch.Generator().manual_seed(2))
TRUTH = nn.functional.cross_entropy(LOGITS, LABELS)


def made(name, parameters=None, **options):
    return own_loss(f"own_parts.{name}", getattr(own_parts, name), parameters, **options)


def tried(name, parameters=None, **options):
    loss = made(name, parameters, **options)
    try_loss(loss, f"own_parts.{name}", 3, (4, 5, 6), ignore_index=options.get("ignore_index"))
    return loss


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Float32Only", {}), ("WithChannel", {"labels": "channel"}), ("OneHot", {"labels": "one_hot"}),
        ("masked", {}), ("Callable_", {}), ("existing", {}), ("Frozen", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labels", [LABELS, LABELS.to(torch.uint8), LABELS[:, None].float()])
def test_each_kind_gets_its_labels_and_float32_logits(name, options, labels):
    loss = tried(name, **options)
    assert loss(LOGITS, labels) == pytest.approx(TRUTH.item())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(LOGITS.bfloat16(), labels).dtype == torch.float32


def test_subclasses_of_loss_are_themselves():
    loss = tried("RootTversky", {"root": 3})
    assert isinstance(loss, own_parts.RootTversky) and loss.root == 3
    assert tried("compound")(LOGITS, LABELS) == pytest.approx(own_parts.compound(LOGITS, LABELS).item())


def test_a_function_gets_its_parameters():
    assert tried("soft_dice", {"smooth": 5})(LOGITS, LABELS) == own_parts.soft_dice(LOGITS, LABELS, smooth=5)


def test_a_buffer_moves_and_is_saved_and_validation_leaves_it():
    loss = made("Weighted")
    loss(LOGITS, LABELS)
    state = copy.deepcopy(loss.state_dict())
    assert list(state) == ["function.share"]
    loss.eval()
    loss(LOGITS, LABELS)
    assert torch.equal(loss.state_dict()["function.share"], state["function.share"])
    assert next(loss.to("meta").buffers()).is_meta


def test_an_existing_module_is_copied():
    assert made("existing").function is not own_parts.existing


@pytest.mark.parametrize("name", ["masked", "RootTversky", "compound"])
def test_ignored_voxels_get_no_gradient(name):
    tried(name, ignore_index=254)


def test_losses_of_torch_take_the_ignored_label():
    loss = own_loss("torch.nn.CrossEntropyLoss", nn.CrossEntropyLoss, {}, ignore_index=254)
    try_loss(loss, "torch.nn.CrossEntropyLoss", 3, (4, 5, 6), ignore_index=254)


def test_deep_supervision():
    half = LOGITS[..., ::2]
    value = voxloss.DeepSupervision(made("soft_dice"))([LOGITS, half], LABELS)
    assert value.isfinite()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("per_sample", {}, r"^own_parts.per_sample returns values of the shape \(2,\).* return their mean$"),
        ("not_a_number", {}, "is nan on random labels"),
        ("of_absent_classes", {}, "is inf on a patch of background alone"),
        ("raises", {}, "RuntimeError: no such thing"),
        ("without_gradient", {}, "has no gradient.*argmax"),
        ("in_numbers", {}, "^own_parts.in_numbers returns a float, but training needs a tensor$"),
        ("in_parts", {}, "^own_parts.in_parts returns a tuple, but training needs a tensor$"),
        ("Trainable", {}, r"trainable parameters \(weight\).*requires_grad_\(False\)"),
        ("one_argument", {}, "must take logits, labels"),
        ("number", {}, "is an int, not a class, a module or a function"),
        ("WithChannel", {}, "labels need a channel axis; it got labels: index, and can have any of index, channel"),
        ("OneHot", {}, "one-hot targets, please; it got labels: index"),
        ("OneHot", {"labels": "onehot"}, "labels must be index, channel or one_hot"),
        ("RootTversky", {"labels": "channel"}, "leave `labels` out"),
        ("Weighted", {"parameters": {"speed": 1}}, "cannot be built with the parameters .*speed"),
        ("RootTversky", {"parameters": {"roots": 1}}, "did you mean 'root'"),
        ("soft_dice", {"parameters": {"soft": 1}}, "must take logits, labels and its parameters.*'soft'"),
        ("existing", {"parameters": {"a": 1}}, "exists already.*name its class"),
        ("soft_dice", {"ignore_index": 254}, "cannot ignore voxels, .* outside a region_of_interest.*ignore_index"),
        ("Float32Only", {"ignore_index": 254}, "cannot ignore voxels"),
        ("OneHot", {"labels": "one_hot", "ignore_index": 254}, "one-hot targets cannot mark"),
        ("counts_ignored", {"ignore_index": 254}, "trains on ignored voxels"),
    ],
)
def test_what_cannot_train_is_refused_at_once(name, options, said):
    with pytest.raises(ValueError, match=said):
        tried(name, **options)


def test_trying_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.rand(3)
    torch.manual_seed(3)
    try_loss(OwnLoss("x", lambda logits, labels: (logits * torch.rand(())).mean()), "x", 3, (2, 2, 2))
    assert torch.equal(torch.rand(3), before)
