"""What the convention cards say of other libraries, against those libraries. Skipped where one is not installed."""

import importlib.util
import sys

import pytest
import torch

from voxloss import get_loss
from voxloss.losses.cards.peers import KORNIA, MONAI, NNUNET, NOT_INSTALLED, PEERS, SMP, Peer

pytestmark = pytest.mark.peers


def monai_loss(function, probabilities=False):
    losses = pytest.importorskip("monai.losses")
    loss = eval(f"losses.{function}", {"losses": losses})
    return lambda x, y: loss(x.softmax(1) if probabilities else x, y[:, None])


def kornia_loss(function):
    losses = pytest.importorskip("kornia.losses")
    name, arguments = function.removesuffix(")").split("(")
    chosen = eval(f"dict({arguments})")
    return lambda x, y: getattr(losses, name)(x, y, **chosen)


def exacta_loss(function):
    losses = pytest.importorskip("exacta.losses")
    return eval(f"losses.{function}", {"losses": losses})


def smp_loss(function):
    """Its losses alone: the package itself imports torchvision."""
    found = importlib.util.find_spec("segmentation_models_pytorch")
    if found is None:
        pytest.skip("segmentation_models_pytorch is not installed")
    folder = f"{found.submodule_search_locations[0]}/losses"
    spec = importlib.util.spec_from_file_location(
        "smp_losses", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    module = sys.modules["smp_losses"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = eval(f"losses.{function}", {"losses": module})
    return (lambda x, y: loss(x.float(), y)) if "Lovasz" in function else loss  # which takes float32 alone


def nnunet_loss(function):
    compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
    dice = {"batch_dice": True, "smooth": 1e-5, "ddp": False}
    if function == "DC_and_CE_loss":
        loss = compound.DC_and_CE_loss(dice | {"do_bg": False}, {}, dice_class=compound.MemoryEfficientSoftDiceLoss)
        return lambda x, y: loss(x, y[:, None])
    if function == "DC_and_BCE_loss":
        loss = compound.DC_and_BCE_loss({}, dice | {"do_bg": True})
        return lambda x, y: loss(x, one_hot(y, x.shape[1]))
    if function == "DC_and_topk_loss":
        loss = compound.DC_and_topk_loss(dice | {"do_bg": False}, {"k": 10, "label_smoothing": 0.0})
        return lambda x, y: loss(x, y[:, None])
    if function.startswith("TopKLoss"):
        loss = eval(f"compound.{function}", {"compound": compound})
        return lambda x, y: loss(x, y[:, None])
    loss = compound.MemoryEfficientSoftDiceLoss(compound.softmax_helper_dim1, ddp=False)
    return lambda x, y: loss(x, y[:, None])


def torch_loss(function):
    return eval(function, {"torch": torch})


BUILDERS = {"torch": torch_loss, KORNIA: kornia_loss, "exacta": exacta_loss, SMP: smp_loss, NNUNET: nnunet_loss}
SAME = [
    (name, peer)
    for name, peers in PEERS.items()
    for peer in peers
    if peer.ours is not None and peer.library not in NOT_INSTALLED
]


def build(peer: Peer):
    if peer.library == MONAI:
        return monai_loss(peer.function, probabilities="Asymmetric" in peer.function)
    return BUILDERS[peer.library](peer.function)


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).double()


def problem(classes=3, seed=0):
    """Two images of all classes; kornia takes no volumes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 12, 11, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 12, 11), generator=generator)
    labels[0, :6] = 0
    return logits, labels


def outcome(loss, logits, labels):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, labels)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize(("name", "peer"), SAME, ids=lambda given: getattr(given, "function", given))
def test_settings_of_ours_give_the_same(name, peer):
    theirs = build(peer)
    logits, labels = problem(2 if "Asymmetric" in peer.function else 3)
    value, gradient = outcome(theirs, logits, labels)
    ours, our_gradient = outcome(get_loss(name, **peer.ours), logits, labels)
    # Some work in single precision whatever they are given.
    torch.testing.assert_close(value.double(), peer.scale * ours + peer.offset, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, peer.scale * our_gradient, rtol=1e-4, atol=1e-7)


def test_monai_dice_focal_mixes_softmax_and_sigmoid():
    logits, labels = problem()
    theirs = monai_loss("DiceFocalLoss(to_onehot_y=True, softmax=True)")(logits, labels)
    dice = get_loss("dice", class_reduction="mean", smooth=5e-6)(logits, labels)
    focal = get_loss("focal", activation="sigmoid", alpha=1 / 3)(logits, labels)
    torch.testing.assert_close(theirs, dice + focal)


@pytest.mark.parametrize("name", ["AsymmetricFocalTverskyLoss", "AsymmetricUnifiedFocalLoss"])
def test_monai_asymmetric_losses_leave_out_further_classes(name):
    """The gradient with respect to the probability of a third class is 0."""
    losses = pytest.importorskip("monai.losses.unified_focal_loss")
    options = {"to_onehot_y": True} | ({"num_classes": 3} if "Unified" in name else {})
    logits, labels = problem()
    p = logits.softmax(1).requires_grad_()
    getattr(losses, name)(**options)(p, labels[:, None]).backward()
    assert p.grad[:, 2].count_nonzero() == 0 and p.grad[:, 1].count_nonzero() > 0


def test_monai_generalised_dice_is_drowned_by_its_smoothing():
    """Two structures of half a million voxels each, predicted the wrong way round."""
    labels = torch.zeros(1, 1, 1000, 1000, dtype=torch.long)
    labels[..., 500:] = 1
    wrong = 20 * (0.5 - torch.cat([1 - labels, labels], 1).double())
    losses = pytest.importorskip("monai.losses")
    theirs = losses.GeneralizedDiceLoss(to_onehot_y=True, softmax=True)(wrong, labels)
    assert theirs.item() == pytest.approx(0.44, abs=0.005)
    assert get_loss("generalised_dice")(wrong, labels) > 0.99


def test_monai_cldice_of_two_classes_and_almost_no_smoothing():
    losses = pytest.importorskip("monai.losses")
    theirs = losses.SoftDiceclDiceLoss(iter_=4, alpha=0.3, smooth=1e-30, include_background=False, softmax=True)
    logits, labels = problem(2)
    for volume in (logits, logits[:, :, :4].repeat_interleave(5, 2).unflatten(2, (4, 5))):
        given = labels if volume is logits else labels[:, :4].repeat_interleave(5, 1).unflatten(1, (4, 5))
        value, gradient = outcome(lambda x, y: theirs(x, one_hot(y, 2)), volume, given)
        ours = outcome(get_loss("cl_dice", iterations=4, alpha=0.3, pool="sample"), volume, given)
        torch.testing.assert_close(ours, (value, gradient), rtol=1e-10, atol=1e-12)


def test_smp_counts_an_absent_class_as_perfect():
    theirs = smp_loss('DiceLoss("multiclass")')
    logits, labels = problem()
    labels = labels.clamp_max(1)
    logits[:, 2] += 5  # much of the absent class predicted
    skipped = get_loss("dice", pool="batch", smooth=0, absent_class="skip")(logits, labels)
    torch.testing.assert_close(theirs(logits, labels), skipped / 3)


def test_smp_takes_the_power_of_the_mean():
    theirs = smp_loss('TverskyLoss("multiclass", alpha=0.3, beta=0.7, gamma=0.75)')
    logits, labels = problem()
    mean = get_loss("tversky", pool="batch", smooth=0, class_reduction="mean")(logits, labels)
    torch.testing.assert_close(theirs(logits, labels), mean**0.75)


def test_nnunet_regions_with_an_ignore_label_sum_over_channels():
    compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
    dice = {"batch_dice": True, "smooth": 1e-5, "ddp": False, "do_bg": True}
    logits, labels = problem()
    target = one_hot(labels, 3)
    nothing_ignored = torch.cat([target, torch.zeros_like(target[:, :1])], 1)
    plain = compound.DC_and_BCE_loss({}, dict(dice))(logits, target)
    ignoring = compound.DC_and_BCE_loss({}, dict(dice), use_ignore_label=True)(logits, nothing_ignored)
    entropy = get_loss("cross_entropy", activation="sigmoid")(logits, target)  # summed over channels
    torch.testing.assert_close((ignoring - plain).double(), entropy * 2 / 3, rtol=1e-5, atol=1e-6)
