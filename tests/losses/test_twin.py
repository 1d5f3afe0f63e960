"""Every loss and option against the slow twin, value and gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_twin import accepts, nnunet, one_hot, twin

from voxloss import get_loss, list_losses
from voxloss.losses import voxel_statistics
from voxloss.losses.voxel_pass import plain

OWN = {
    "cross_entropy": [{}, {"beta": 0.8}],
    "focal": [{}, {"alpha": "per class", "gamma": 0.5, "beta": 0.3}, {"gamma": "per class"}, {"alpha": 1, "gamma": 0}],
    "dice": [{}],
    "tversky": [{}, {"delta": 0.2}],
    "focal_tversky": [{}, {"gamma": 0.6, "delta": 0.9}],
    "cosine_tversky": [{}, {"gamma": 2.5}, {"gamma": 0.5}],
    "combo": [{}, {"alpha": 0.3, "beta": 0.7}, {"beta": 0.7}],
    "modified_combo": [{}, {"alpha": 0.2, "beta": None, "delta": 0.4}],
    "mixed_focal": [{}, {"weight": 0.3, "alpha": "per class", "beta": 0.6, "gamma_focal": 1.5, "gamma_tversky": 2}],
    "asymmetric_focal_tversky": [{}, {"delta": 0.4, "gamma": 0.2}],
    "generalised_dice": [{}, {"power": 1}, {"power": 0}],
    "log_cosh_dice": [{}],
    "jaccard": [{}],
    "mcc": [{}],
    "unified_focal": [{}, {"weight": None, "delta": 0.7, "gamma": 0.25}, {"weight": 0.1, "gamma": 0.9}],
    "asymmetric_unified_focal": [{}, {"weight": None, "delta": 0.7, "gamma": 0.25}, {"weight": 0.1, "gamma": 0.9}],
    "dice_focal": [{}, {"weight": 0.3, "alpha": "per class", "beta": 0.6, "gamma": "per class"}],
    "dice_cross_entropy": [{}],
    "ml1_ace": [{}, {"ace_weight": 0.3, "bins": 5}, {"bins": 1}],
    "skeleton_recall": [{}, {"recall_weight": 0.3}],
    "cl_dice": [{}, {"alpha": 0.2, "iterations": 1}, {"iterations": 0}],
    "cc_dice_ce": [{}, {"global_weight": 0}, {"lesion_weight": 0.3, "global_weight": 2}],
    "blob": [{}, {"entropy_weight": 0}, {"lesion_weight": 0.3, "global_weight": 2, "entropy_weight": 0.5}],
    "boundary": [{}],
    "hausdorff": [{}, {"alpha": 1.5}],
    "topk": [{}, {"top_k": 33.4}, {"top_k": 100}],
    "dice_topk": [{}, {"top_k": 55}],
    "lovasz": [{}],
}
CASES = [(name, parameters) for name, several in OWN.items() for parameters in several]
REGION = {
    "smooth": [1e-6, 0.1, 1.0],
    "pool": ["sample", "batch"],
    "class_reduction": ["sum", "mean"],
    "include_background": [True, False],
    "absent_class": ["keep", "skip"],
    "ignored_samples": ["skip", "keep"],
    "overlap": ["product", "minimum", "squared"],
    "label_smoothing": [0.0, 0.1, 0.7],
}
SHAPES = [(2, 3, 5), (1, 2, 3, 4), (3, 4, 2, 1, 3), (2, 1, 3, 3), (1, 5, 2, 3, 2), (2, 3, 1, 1, 1)]


@st.composite
def problems(draw):
    """A loss, its parameters and options, and tensors drawn from a seed."""
    name, parameters = draw(st.sampled_from(CASES))
    shape = draw(st.sampled_from(SHAPES))
    activation = "sigmoid" if shape[1] == 1 else draw(st.sampled_from(["softmax", "sigmoid"]))
    parameters = {k: [0.1, 0.7, 0.3, 2.0, 1.0][: shape[1]] if v == "per class" else v for k, v in parameters.items()}
    options = {key: draw(st.sampled_from(values)) for key, values in REGION.items() if draw(st.booleans())}
    if shape[1] == 1:
        options.pop("include_background", None)
    for key in ("overlap", "label_smoothing"):
        if not accepts(name, {key: options.get(key)}):
            options.pop(key, None)
    kind = draw(st.sampled_from(["labels", "multi-hot", "soft"]))
    ignore = draw(st.booleans())
    weighted = draw(st.booleans())
    return name, parameters, options, shape, activation, kind, ignore, weighted, draw(st.integers(0, 10**6))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_agrees_with_twin(problem):
    name, parameters, options, shape, activation, kind, ignore, weighted, seed = problem
    generator = torch.Generator().manual_seed(seed)
    batch, classes, *spatial = shape
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    keep = torch.rand(batch, *spatial, generator=generator) > 0.3 if ignore else None
    if kind == "labels" and classes > 1:
        labels = torch.randint(0, max(2, classes - 1), (batch, *spatial), generator=generator)  # the last may be absent
        target = one_hot(labels, classes)
        labels = labels if keep is None else torch.where(keep, labels, 255)
    else:
        target = torch.rand(shape, generator=generator, dtype=torch.float64)
        target = target if kind == "soft" else target.round()
        labels = target if keep is None else torch.where(keep[:, None], target, 255)
    weight = torch.rand(batch, *spatial, generator=generator) if weighted else None
    loss = get_loss(name, **parameters, **options, activation=activation, ignore_index=255 if ignore else None)

    values, gradients = [], []
    for compute in (
        lambda z: loss(z, labels, weight),
        lambda z: twin(name, z, target, keep, weight, activation=activation, parameters=parameters, options=options),
    ):
        z = logits.clone().requires_grad_()
        value = compute(z)
        if value.requires_grad:
            (-37.5 * value).backward()
        values.append(value.detach())
        gradients.append(torch.zeros_like(logits) if z.grad is None else z.grad)
    torch.testing.assert_close(values[0], values[1], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4, 3), (1, 2, 7, 3), (3, 6, 4, 4)])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_cross_entropy_is_that_of_nnunet(shape, smooth):
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    second = first.detach().clone().requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    value, expected = (
        get_loss("dice_cross_entropy", smooth=smooth)(first, labels),
        nnunet(second, labels, smooth=smooth),
    )
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(first.grad, second.grad, atol=1e-12, rtol=1e-12)


def test_dice_cross_entropy_of_regions_is_that_of_nnunet():
    """DC_and_BCE_loss: every channel has its Dice term, the cross entropy is averaged over channels."""
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    p = torch.sigmoid(logits)
    dice = (2 * (p * target).sum((0, 2, 3)) + 1e-5) / ((p + target).sum((0, 2, 3)) + 1e-5)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    value = get_loss("dice_cross_entropy", activation="sigmoid")(logits, target)
    torch.testing.assert_close(value, entropy - dice.mean())


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["mixed_focal", "combo", "cosine_tversky"])
def test_chunks_change_nothing(name, activation, soft, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 5, 6), generator=generator)
    labels[0, 1, 2] = 9
    if soft:
        labels = torch.where(labels[:, None] == 9, 9.0, torch.rand(2, 3, 5, 6, generator=generator))
    weight = torch.rand(2, 5, 6, generator=generator)
    loss = get_loss(name, activation=activation, ignore_index=9)
    results = []
    for chunk in (10**6, 7, 2, 1):  # voxels at a time, of 30 in a sample
        monkeypatch.setattr(plain, "CPU_CHUNK", chunk * 17)
        z = logits.clone().requires_grad_()
        value = loss(z, labels, weight)
        value.backward()
        results.append((value.detach(), z.grad))
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], atol=1e-13, rtol=1e-13)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("exponents", [(), (0,), (2,), (0.5, (0, 1, 3.5))])
def test_statistics_pass_gradcheck(activation, soft, exponents):
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64)
    labels = (
        torch.rand(2, 3, 2, 3, generator=generator) if soft else torch.randint(0, 3, (2, 2, 3), generator=generator)
    )
    weight = torch.rand(2, 2, 3, generator=generator)

    def sums(z):
        s = voxel_statistics(z, labels, focal_exponents=exponents, activation=activation, voxel_weight=weight)
        return s.true_positive, s.false_positive, s.false_negative, *s.focal, *s.focal_negative

    assert torch.autograd.gradcheck(sums, logits.requires_grad_())


def test_every_loss_has_parameters_to_draw_from():
    assert list(OWN) == list_losses()


@pytest.mark.parametrize("name", OWN)
def test_losses_pass_gradcheck(name):
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    labels = torch.tensor([[[0, 1, 2], [0, 0, 1]], [[0, 0, 0], [1, 1, 0]]])
    assert torch.autograd.gradcheck(lambda z: get_loss(name)(z, labels), logits)
