"""Lovász and top-k losses: values by hand, ties, what is refused, and other types."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from voxloss import Compound, get_loss
from voxloss.losses.voxel_pass import compiled
from voxloss.losses.voxel_pass.further import hardest


def problem(shape=(2, 3, 6, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def outcome(compute, logits, *others):
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def of_probabilities(p):
    """Two classes, of which the second has the probabilities p."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([1 - p, p]).log()[None]


def test_lovasz_by_hand():
    """Class 1 has two voxels: errors in order 7/8 missed, 1/2 false, 1/4 missed, 1/8 false."""
    logits, labels = of_probabilities([0.125, 0.75, 0.5, 0.125]), torch.tensor([[1, 1, 0, 0]])
    # J: 1/2 (one of two missed), 2/3, 1 (both missed), 1. Class 0 has the same errors, and the sides exchanged:
    # false, missed, false, missed, J: 1/3, 2/3, 3/4, 1.
    second = 0.875 * 1 / 2 + 0.5 * (2 / 3 - 1 / 2) + 0.25 * (1 - 2 / 3)
    first = 0.875 * 1 / 3 + 0.5 * (2 / 3 - 1 / 3) + 0.25 * (3 / 4 - 2 / 3) + 0.125 * 1 / 4
    value = get_loss("lovasz")(logits, labels)
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-12)
    alone = get_loss("lovasz", include_background=False)(logits, labels)
    assert alone.item() == pytest.approx(second, rel=1e-12)


def test_lovasz_of_hard_predictions_is_the_jaccard_loss():
    _, labels = problem()
    other = problem(seed=1)[1]
    logits = 1000 * torch.nn.functional.one_hot(other, 3).movedim(-1, 1).double()
    jaccard = get_loss("jaccard", pool="batch", class_reduction="mean", smooth=0)(logits, labels)
    torch.testing.assert_close(get_loss("lovasz")(logits, labels), jaccard, rtol=1e-12, atol=0)


def test_a_class_that_is_absent():
    logits, labels = problem((1, 3, 4, 5))
    labels = labels.clamp_max(1)
    p = logits.softmax(1)[0, 2]
    skip, keep = (get_loss("lovasz", absent_class=how, class_reduction="sum") for how in ("skip", "keep"))
    torch.testing.assert_close(keep(logits, labels) - skip(logits, labels), p.max())
    value, gradient = outcome(get_loss("lovasz", ignore_index=1), logits, torch.ones_like(labels))
    assert value == 0 and not gradient.any()


def test_equal_errors_share_their_slopes():
    """A constant prediction, as networks begin with: the gradient has no trace of the order of the voxels."""
    labels = torch.tensor([[0, 1, 0, 1, 0, 0]])
    _, gradient = outcome(get_loss("lovasz"), torch.zeros(1, 2, 6), labels)
    assert len(gradient[0, 1][labels[0] == 0].unique()) == len(gradient[0, 1][labels[0] == 1].unique()) == 1


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_lovasz_gradcheck(activation):
    logits, labels = problem((1, 3, 3, 2))
    loss = get_loss("lovasz", activation=activation, class_weight=[1, 2, 0.5], ignore_index=2)
    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), labels))


def test_what_lovasz_refuses():
    with pytest.raises(ValueError, match="needs the errors of all ranks in one place"):
        get_loss("lovasz", pool="world")
    with pytest.raises(ValueError, match="class_weight must be numbers in the Lovász loss"):
        get_loss("lovasz", class_weight="inverse_volume")
    with pytest.raises(ValueError, match="label_smoothing is a parameter of pixelwise terms"):
        get_loss("lovasz", label_smoothing=0.1)


def test_top_k_by_hand():
    """p of the label 1/2, 1/4, 1/8, 1/16 and 1/2: 40 per cent of five voxels are the two with the smallest."""
    logits, labels = of_probabilities([0.5, 0.25, 0.125, 0.0625, 0.5]), torch.ones(1, 5, dtype=torch.long)
    value, gradient = outcome(get_loss("topk", top_k=40), logits, labels)
    assert value.item() == pytest.approx((math.log(8) + math.log(16)) / 2, rel=1e-12)
    assert (gradient[0, 0] != 0).tolist() == [False, False, True, True, False]
    for share, number in ((1, 1), (59.9, 2), (60, 3), (100, 5)):
        largest = cross_entropy(logits, labels, reduction="none").sort(descending=True).values[0, :number]
        assert get_loss("topk", top_k=share)(logits, labels).item() == pytest.approx(largest.mean().item(), rel=1e-12)


def test_voxels_at_the_border_share_what_is_left():
    logits, labels = torch.zeros(1, 2, 10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.long)
    logits[0, 1, :2] = 3
    value, gradient = outcome(get_loss("topk", top_k=50), logits, labels)
    assert value.item() == pytest.approx((2 * math.log1p(math.exp(3)) + 3 * math.log(2)) / 5, rel=1e-12)
    torch.testing.assert_close(gradient[0, 1, 2:], torch.full((8,), 3 / 8 / 5 / 2, dtype=torch.float64))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", ["random", "equal", "half equal", "half zero", "tiny and huge", "not finite"])
@pytest.mark.parametrize("by_torch", [False, True])
def test_the_selection_is_that_of_a_sorted_list(values, kind, by_torch, monkeypatch):
    if by_torch:
        monkeypatch.setattr(compiled, "takes_bits", lambda _: False)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1000, generator=generator, dtype=kind)
    x = {
        "random": x,
        "equal": torch.ones_like(x),
        "half equal": x.clamp_min(0.5),
        "half zero": (x - 0.5).clamp_min(0),
        "tiny and huge": torch.exp(80 * (x - 0.5)),
        "not finite": x.index_fill(0, torch.tensor([3, 500]), torch.nan).index_fill(0, torch.tensor([4]), torch.inf),
    }[values]
    bits = x.view(torch.int64 if kind == torch.float64 else torch.int32).clone()
    bits[::7] = -1  # do not count
    counted = bits >= 0
    for share in (0.01, 10, 33.3, 99.9, 100):
        number = max(1, int(int(counted.sum()) * share / 100))
        chosen = hardest._largest(bits, share, world=False)
        assert chosen.sum().item() == pytest.approx(number, rel=1e-5) and not chosen[~counted].any()
        largest = x[counted].sort(descending=True).values[:number]  # NaN first
        if values == "not finite":
            assert (chosen[[4]].all() and (chosen[torch.isnan(x)] == counted[torch.isnan(x)]).all()) or number < 4
        else:
            assert (x * chosen).sum().item() == pytest.approx(largest.sum().item(), rel=1e-5)


def test_voxels_that_diverged_are_seen():
    logits, labels = problem((1, 2, 50))
    logits[0, :, 7] = torch.nan
    assert get_loss("topk", top_k=2)(logits, labels).isnan()
    labels[0, 7] = 9
    value, gradient = outcome(get_loss("topk", ignore_index=9), logits, labels)
    assert value.isfinite() and gradient.isfinite().all() and not gradient[0, :, 7].any()


def test_top_k_of_each_sample_and_of_the_batch():
    logits, labels = problem((2, 3, 20))
    logits[1] *= 5  # the hard voxels are in the second sample
    each = cross_entropy(logits, labels, reduction="none")
    batch, sample = (get_loss("topk", top_k=25, pool=pool)(logits, labels) for pool in ("batch", "sample"))
    assert batch.item() == pytest.approx(each.flatten().topk(10).values.mean().item(), rel=1e-12)
    assert sample.item() == pytest.approx(each.topk(5, 1).values.mean().item(), rel=1e-12)
    assert get_loss("topk", top_k=100)(logits, labels).item() == pytest.approx(each.mean().item(), rel=1e-12)


def test_top_k_refuses():
    for share in (0, -1, 100.5, "10", None):
        with pytest.raises(ValueError, match=r"top_k must be in \(0, 100\], received"):
            get_loss("topk", top_k=share)
    for name in ("topk", "dice_topk"):
        with pytest.raises(ValueError, match='use ignore_scope="voxel"'):
            get_loss(name, activation="sigmoid", ignore_scope="channel")
    with pytest.raises(ValueError, match="class_weight is a parameter of region terms"):
        get_loss("topk", class_weight=[1, 2])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["dice_topk", "lovasz", "boundary"])
def test_other_types_agree_with_float64(name, kind):
    logits, labels = problem((2, 4, 9, 7))
    logits = logits.to(kind)
    value, gradient = outcome(get_loss(name), logits, labels)
    assert value.dtype == torch.float32 and gradient.dtype == kind
    exact, expected = outcome(get_loss(name), logits.double(), labels)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    scale = expected.abs().max().item()
    # Two errors that are equal in float32 share their slopes, which in float64 they need not.
    bound = 2e-3 if kind == torch.float32 else 1e-2
    torch.testing.assert_close(gradient.double(), expected, rtol=bound, atol=bound * scale)


def test_compound_shares_the_hardest_voxels():
    logits, labels = problem()
    parts = [get_loss("topk"), get_loss("dice_topk"), get_loss("topk", top_k=30), get_loss("lovasz")]
    compound = Compound(parts, [1, 0.5, 2, 1])
    assert len(compound.formula.further) == 3
    expected = sum(w * part(logits, labels) for w, part in zip((1, 0.5, 2, 1), parts, strict=True))
    torch.testing.assert_close(compound(logits, labels), expected)
