"""torch's other ways to a derivative: torch.func, forward mode, gradients of gradients, export; and a second import."""

import subprocess
import sys

import pytest
import torch
from loss_twin import PER_LESION, SKELETONS
from torch.autograd import forward_ad
from torch.torch_version import TorchVersion

from voxloss import Compound, get_loss, list_losses
from voxloss.losses.voxel_pass import composite, operator, plain
from voxloss.losses.voxel_pass.settings import PassSettings

LOSSES = list_losses()
CASES = {
    "softmax, labels": ({}, "labels", False),
    "softmax, soft": ({}, "soft", False),
    "sigmoid, labels, weighted": ({"activation": "sigmoid"}, "labels", True),
    "sigmoid, multi-hot, ignore": ({"activation": "sigmoid", "ignore_index": 5}, "multi-hot", False),
    "softmax, labels, ignore, weighted": ({"ignore_index": 1}, "labels", True),
    "pooled": ({"pool": "batch", "absent_class": "skip"}, "labels", False),
}


def problem(kind, weighted, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (3, 4, 5), generator=generator)
    if kind != "labels":
        labels = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        labels = labels.round() if kind == "multi-hot" else labels
        labels[0, :, 0] = 5.0 if kind == "multi-hot" else 0.5
    weight = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) if weighted else None
    return logits, labels, weight


def gradient_of(loss, logits, labels, weight=None):
    leaf = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, labels, weight), leaf)[0]


# Each loss takes two of the cases in turn, and each case several losses.
PAIRS = [(name, case) for i, name in enumerate(LOSSES) for j, case in enumerate(CASES) if (i + j) % 3 == 0]


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_every_way_to_the_gradient_gives_the_same(name, case):
    options, kind, weighted = CASES[case]
    loss = get_loss(name, **options)
    logits, labels, weight = problem(kind, weighted)
    expected = gradient_of(loss, logits, labels, weight)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def value(z):
        return loss(z, labels, weight)

    exact = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(torch.func.grad(value)(logits), expected, **exact)
    torch.testing.assert_close(torch.func.jacrev(value)(logits), expected, **exact)
    torch.testing.assert_close(torch.func.jacfwd(value)(logits), expected, **exact)
    slope = (expected * direction).sum()
    there, along = torch.func.jvp(value, (logits,), (direction,))
    torch.testing.assert_close(there, value(logits), **exact)
    torch.testing.assert_close(along, slope, **exact)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(value(forward_ad.make_dual(logits, direction)))
        torch.testing.assert_close(dual.tangent, slope, **exact)
        assert value(logits).isfinite()  # without a tangent it is the usual pass
    batched = torch.vmap(lambda z: loss(z, labels, weight))(torch.stack([logits, -logits]))
    torch.testing.assert_close(batched, torch.stack([value(logits), value(-logits)]), **exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_gradients(name):
    for options, kind, weighted in ({}, "labels", False), ({"activation": "sigmoid"}, "soft", True):
        loss = get_loss(name, **options)
        logits, labels, weight = problem(kind, weighted)
        logits = logits[:2, :, :1, :2].clone().requires_grad_()
        labels = labels[:2, ..., :1, :2]
        weight = weight if weight is None else weight[:2, :1, :2]

        def value(z, loss=loss, labels=labels, weight=weight):
            return loss(z, labels, weight)

        assert torch.autograd.gradgradcheck(value, (logits,), atol=1e-6)
        hessian = torch.autograd.functional.hessian(value, logits.detach())
        assert torch.func.hessian(value)(logits.detach()).allclose(hessian, rtol=1e-8, atol=1e-10)


def test_a_third_derivative():
    logits, labels, _ = problem("labels", False)
    loss = get_loss("dice_focal")
    z = logits.clone().requires_grad_()
    first = torch.autograd.grad(loss(z, labels), z, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), z, create_graph=True)[0]
    third = torch.autograd.grad(second.square().sum(), z)[0]

    def penalty(z):
        gradient = torch.func.grad(lambda q: loss(q, labels))
        return torch.func.grad(lambda q: gradient(q).square().sum())(z).square().sum()

    torch.testing.assert_close(third, torch.func.grad(penalty)(logits), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in PER_LESION | SKELETONS])
def test_gradients_per_sample(name):
    loss = get_loss(name)
    logits, labels, _ = problem("labels", False)
    expected = torch.stack([gradient_of(loss, z[None], y[None])[0] for z, y in zip(logits, labels, strict=True)])
    found = torch.func.vmap(torch.func.grad(lambda z, y: loss(z[None], y[None])))(logits, labels)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_of_upstream_gradients():
    logits, labels, _ = problem("labels", False)
    leaf = logits.clone().requires_grad_()
    losses = torch.stack([get_loss("dice")(leaf, labels), get_loss("focal")(leaf, labels)])
    found = torch.autograd.grad(losses, leaf, torch.eye(2, dtype=torch.float64), is_grads_batched=True)[0]
    for row, name in zip(found, ("dice", "focal"), strict=True):
        torch.testing.assert_close(row, gradient_of(get_loss(name), logits, labels))


def test_bad_labels_are_refused_under_transforms_too():
    logits, labels, _ = problem("labels", False)
    with pytest.raises(ValueError, match="label 7 is outside"):
        torch.func.grad(lambda z: get_loss("dice")(z, labels + 5))(logits)


@pytest.mark.parametrize(
    "others",
    [
        *({}, {"label_smoothing": 0.2, "squared": True, "minimum": True}, {"tube": True}),
        *({"hardest": 1}, {"hardest": 2, "label_smoothing": 0.2, "squared": True}, {"hardest": 1, "tube": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dense", [False, True])
def test_the_composite_is_the_pass(activation, dense, kind, others):
    """Also where logits are extreme, masked by -inf, or NaN in voxels that do not count."""
    logits, labels, weight = problem("soft" if dense else "labels", True)
    logits = logits.to(kind) * 12
    if "tube" in others:
        weight = weight * torch.where(weight > 0.5, -1, 1)
    if "label_smoothing" not in others:  # where labels are smoothed every class is part of the target
        logits[0, 0, 0, 0] = -torch.inf
    if dense:
        labels[0, :, 0, 0] = torch.tensor([0.0, 0.5, 0.5])
        labels[1, 0, 1, 1] = 9
    else:
        labels[0, 0, 0], labels[1, 1, 1] = 1, 9
    logits[1, :, 1, 1] = torch.nan
    settings = PassSettings(activation, dense, (0.0, 2.0, 0.3, (0.0, 0.5, 3.0)), 9, False, **others)
    shares = None
    if settings.hardest:
        shares = torch.rand(settings.hardest, *weight.shape, generator=torch.Generator().manual_seed(2))
        shares = shares.where(shares > 0.5, 0)
    expected, counted = plain.sums(logits, labels, weight, settings, shares)
    found, voxels = composite.sums(logits, labels, weight, settings, shares)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if kind == torch.float64 else {"rtol": 2e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **tolerance)
    assert (voxels == counted).all()
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        composite.gradient(upstream, logits, labels, weight, settings, shares),
        plain.gradient(logits, labels, weight, upstream, settings, shares),
        **tolerance,
    )


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["dice", "mixed_focal", "dice_cross_entropy"])
def test_export(name, strict):
    if strict and torch.__version__ < TorchVersion("2.10"):
        pytest.skip("strict export needs torch 2.10")
    logits, labels, _ = problem("labels", False)
    loss = get_loss(name)
    exported = torch.export.export(loss, (logits, labels), strict=strict).module()
    assert exported(-logits, labels) == loss(-logits, labels)


def test_subclasses_of_tensors_that_hold_data_are_unwrapped_and_others_kept():
    class Named(torch.Tensor):
        pass

    logits, labels, _ = problem("labels", False)
    assert get_loss("dice")(logits.as_subclass(Named), labels.as_subclass(Named)) == get_loss("dice")(logits, labels)


@pytest.mark.parametrize(
    "loss",
    [
        get_loss("dice_focal"),
        Compound(["dice_topk", get_loss("topk", top_k=40)], [1, 2]),
        get_loss("dice_topk", activation="sigmoid"),
    ],
    ids=["dice_focal", "two selections", "sigmoid"],
)
def test_more_samples_than_one_launch_takes(loss, monkeypatch):
    """On CUDA; here through Triton's interpreter, with parts of two samples."""
    pytest.importorskip("triton", minversion="3.5")
    from voxloss.losses.voxel_pass import triton

    if torch.cuda.is_available():
        pytest.skip("Triton's interpreter is only used without a GPU")
    logits, labels, weight = problem("labels", True)
    logits, labels, weight = (torch.cat([t, t.flip(0)])[:5] for t in (logits.float(), labels, weight))
    expected = loss(logits, labels, weight)
    gradient = gradient_of(loss, logits, labels, weight)
    monkeypatch.setattr(operator, "_implementation", lambda *_: triton)
    monkeypatch.setattr(operator, "MOST_SAMPLES", 2)
    torch.testing.assert_close(loss(logits, labels, weight), expected)
    torch.testing.assert_close(gradient_of(loss, logits, labels, weight), gradient)


@pytest.mark.slow
def test_a_second_import_in_one_process():
    code = """
import sys, torch, voxloss
from voxloss.losses.voxel_pass import distributed
z, y = torch.randn(1, 2, 3), torch.zeros(1, 3, dtype=torch.long)
first = voxloss.get_loss("dice")(z, y)
for turn in range(2):
    for name in [name for name in sys.modules if name.split(".")[0] == "voxloss"]:
        del sys.modules[name]
    del voxloss
    import gc; gc.collect()
    import voxloss
    leaf = z.clone().requires_grad_()
    again = voxloss.get_loss("dice", pool="world")(leaf, y)
    again.backward()
    assert again == first and leaf.grad.abs().sum() > 0
print("fine")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert result.stdout == "fine\n", result.stderr
