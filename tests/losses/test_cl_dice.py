"""Soft clDice: by hand, in 60 digits, the skeleton in the twin, ignored voxels, and types."""

import itertools

import mpmath
import pytest
import torch
from loss_twin import soft_skeleton as slow_skeleton
from mpmath import mpf

import voxloss
from voxloss import Compound, DeepSupervision, get_loss
from voxloss.losses.voxel_pass.further.soft_skeletons import composite, gradient, soft_skeleton

SHAPES = [(30,), (7, 9), (5, 6, 7), (1, 8), (1, 1, 4)]


def problem(shape=(2, 3, 9, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def outcome(compute, logits, *others):
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("iterations", [0, 1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_skeleton_is_that_of_the_twin(shape, iterations):
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 2, *shape, generator=generator, dtype=torch.float64)
    keep = torch.rand(2, 1, *shape, generator=generator) > 0.2
    for counts in (None, keep):
        found = soft_skeleton(values, counts, iterations)
        for b, c in itertools.product(range(2), range(2)):
            seen = torch.ones(shape, dtype=torch.bool) if counts is None else keep[b, 0]
            slow = slow_skeleton(values[b, c], seen, iterations)
            torch.testing.assert_close(torch.where(seen, found[b, c], 0), torch.where(seen, slow, 0))


@pytest.mark.parametrize("iterations", [0, 1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_those_of_pooling(shape, iterations):
    """In float32, where the gradient follows each value to its voxel; values are distinct, so both have one answer."""
    generator = torch.Generator().manual_seed(2)
    number = 6 * torch.Size(shape).numel()
    values = ((torch.randperm(number, generator=generator) + 1) / (number + 1)).view(2, 3, *shape).float()
    keep = torch.rand(2, 1, *shape, generator=generator) > 0.2
    apart = torch.rand(2, 3, *shape, generator=generator) > 0.2
    for counts in (None, keep, apart):
        seen = torch.ones_like(values, dtype=torch.bool) if counts is None else counts.expand_as(values)
        upstream = torch.where(seen, torch.randn(values.shape, generator=generator), 0)
        found, pooled = (way(values, counts, iterations) for way in (soft_skeleton, composite))
        assert torch.equal(found[seen], pooled[seen])
        leaf = values.double().requires_grad_()
        expected = torch.autograd.grad(composite(leaf, counts, iterations), leaf, upstream.double())[0]
        slopes = gradient(upstream, values, counts, iterations)
        torch.testing.assert_close(slopes.double(), expected, rtol=1e-5, atol=1e-6)


def test_equal_values_have_the_gradient_of_one_of_them():
    """The first of a minimum and the last of a maximum: of [0.5, 0.9, 0.5] the middle and the last minimum."""
    values = torch.tensor([0.5, 0.9, 0.5]).view(1, 1, 3)
    assert gradient(torch.ones_like(values), values, None, 0).flatten().tolist() == [0, 1, -1]
    filled = torch.ones(1, 1, 4, 4)  # saturated: everything is equal, and nothing is taken off
    counts = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    counts[..., 0] = False
    assert gradient(counts.float(), filled, counts, 3).count_nonzero() == 0


def test_torch_compile_is_told_the_layout_of_the_results():
    """With channels last, as networks on a CPU have them, compiled code stops if a result has another layout."""
    values = torch.rand(2, 3, 5, 6).to(memory_format=torch.channels_last)
    operators = torch.ops.voxloss
    torch.library.opcheck(operators.soft_skeleton, (values, None, 1), test_utils="test_faketensor")
    torch.library.opcheck(operators.soft_skeleton_gradient, (values, values, None, 1), test_utils="test_faketensor")
    assert gradient(values.double(), values.double(), None, 1).is_contiguous()


def test_the_skeleton_of_a_bar_is_its_middle():
    bar = torch.zeros(1, 1, 9, 15, dtype=torch.float64)
    bar[..., 2:7, 2:13] = 1
    middle = soft_skeleton(bar, None, 3)[0, 0]
    assert middle[4, 5:10].tolist() == [1] * 5 and middle[[2, 3, 5, 6], 7].tolist() == [0] * 4
    assert soft_skeleton(bar, None, 0).sum() < middle.sum()  # which has the corners alone


def test_a_line_by_hand():
    """One row, five voxels of a line, of which the middle one is missed: a line is its own skeleton."""
    labels = torch.zeros(1, 3, 9, dtype=torch.long)
    labels[0, 1, 2:7] = 1
    mask = labels.clone()
    mask[0, 1, 4] = 0
    logits = 400 * torch.stack([0.5 - mask.double(), mask.double() - 0.5], 1)
    precision, sensitivity = 5 / 5, 5 / 6  # with s = 1
    lines = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    dice = 1 - (2 * 4 + 1) / (4 + 5 + 1)
    for alpha in (0, 0.5, 1):
        value = get_loss("cl_dice", alpha=alpha)(logits, labels).item()
        assert value == pytest.approx((1 - alpha) * dice + alpha * lines, rel=1e-12)


def test_value_and_gradient_in_sixty_digits():
    """Of one row of voxels, where both neighbourhoods are a voxel and its two neighbours."""
    mpmath.mp.dps = 60
    logits, _ = problem((1, 1, 7), seed=3)
    mask = torch.tensor([[[0, 1, 1, 1, 0, 1, 0]]])

    def near(values, v):
        return values[max(0, v - 1) : v + 2]

    def skeleton(values):
        found = None
        for _ in range(3):
            eroded = [min(near(values, v)) for v in range(7)]
            opened = [max(near(eroded, v)) for v in range(7)]
            delta = [max(a - b, 0) for a, b in zip(values, opened, strict=True)]
            found = delta if found is None else [s + max(d - s * d, 0) for s, d in zip(found, delta, strict=True)]
            values = eroded
        return found

    def total(x):
        p, t = [1 / (1 + mpmath.exp(-z)) for z in x], [mpf(v) for v in mask.flatten().tolist()]
        line, wanted = skeleton(p), skeleton(t)
        a = (sum(s * v for s, v in zip(line, t, strict=True)) + 1) / (sum(line) + 1)
        b = (sum(s * v for s, v in zip(wanted, p, strict=True)) + 1) / (sum(wanted) + 1)
        dice = (2 * sum(q * v for q, v in zip(p, t, strict=True)) + 1) / (sum(p) + sum(t) + 1)
        return mpf(0.75) * (1 - dice) + mpf(0.25) * (1 - 2 * a * b / (a + b))

    value, gradient = outcome(get_loss("cl_dice", activation="sigmoid", alpha=0.25, iterations=2), logits, mask)
    numbers = [mpf(x) for x in logits.flatten().tolist()]
    assert value.item() == pytest.approx(float(total(numbers)), rel=1e-14)
    step = mpf(10) ** -20
    for v in range(7):
        sides = []
        for sign in (1, -1):
            numbers[v] += sign * step
            sides.append(total(numbers))
            numbers[v] -= sign * step
        assert gradient.flatten()[v].item() == pytest.approx(float((sides[0] - sides[1]) / (2 * step)), rel=1e-12)


def test_a_nearly_perfect_prediction_keeps_its_digits():
    """Errors of 1e-11 in float64: the value is that of the sums of errors, to six digits of them."""
    labels = torch.zeros(1, 5, 9, dtype=torch.long)
    labels[0, 2, 1:8] = 1
    logits = 13.0 * torch.stack([1 - 2 * labels, 2 * labels - 1], 1).double()
    value = get_loss("cl_dice", alpha=1)(logits, labels)
    miss = 1 / (1 + mpmath.exp(26))
    # The line misses 7 p's of 7 + s voxels; of the skeleton nothing is outside, as a constant background has none.
    sensitivity = (7 * (1 - miss) + 1) / 8
    assert value.item() == pytest.approx(float(1 - 2 * sensitivity / (1 + sensitivity)), rel=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_voxels_that_do_not_count_are_as_beyond_the_border(activation):
    """Also in two axes, with NaN there, and for channels ignored apart."""
    logits, labels = problem((1, 3, 9, 8))
    mask = torch.zeros(1, 9, 8, dtype=torch.bool)
    mask[:, 2:7, 1:6] = True
    loss = get_loss("cl_dice", activation=activation)
    within = outcome(loss, logits[..., 2:7, 1:6], labels[:, 2:7, 1:6])
    spoilt = logits.masked_fill(~mask[:, None], torch.nan)
    value, gradient = outcome(lambda z, y: loss(z, y, mask=mask), spoilt, labels)
    torch.testing.assert_close((value, gradient[..., 2:7, 1:6]), within)
    assert (gradient.masked_fill(mask[:, None], 0) == 0).all()


def test_channels_that_are_ignored_apart():
    logits, labels = problem((2, 2, 9, 8))
    target = torch.stack([labels == c for c in range(2)], 1).long()
    target[0, 1, :3] = 9
    options = {"activation": "sigmoid", "ignore_index": 9}
    found = get_loss("cl_dice", ignore_scope="channel", class_reduction="none", **options)(logits, target)
    for c in range(2):
        alone = get_loss("cl_dice", **options)(logits[:, c : c + 1], target[:, c : c + 1])
        assert found[c].item() == pytest.approx(alone.item(), rel=1e-12)


def test_weights_of_samples_and_voxels():
    logits, labels = problem()
    loss, weight = get_loss("cl_dice"), torch.tensor([2.0, 1.0])
    expected = loss(logits[[0, 0, 1]], labels[[0, 0, 1]])
    assert loss(logits, labels, sample_weight=weight).item() == pytest.approx(expected.item(), rel=1e-12)
    by_voxel = weight[:, None, None].expand(2, 9, 8)
    assert loss(logits, labels, by_voxel).item() == pytest.approx(expected.item(), rel=1e-12)


def test_compound_and_deep_supervision():
    logits, labels = problem((2, 3, 8, 8))
    parts = [get_loss("cl_dice"), get_loss("cl_dice", iterations=2), get_loss("skeleton_recall")]
    expected = sum(w * part(logits, labels) for w, part in zip((1, 0.5, 2), parts, strict=True))
    torch.testing.assert_close(Compound(parts, [1, 0.5, 2])(logits, labels), expected)
    coarse, _ = problem((2, 3, 4, 4), seed=5)
    deep = DeepSupervision(parts[0], [1, 0.5])([logits, coarse], labels)
    torch.testing.assert_close(deep, parts[0](logits, labels) + 0.5 * parts[0](coarse, labels[:, 1::2, 1::2]))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_agree_with_float64(kind):
    logits, labels = problem((2, 3, 6, 7, 5))
    logits = logits.to(kind)
    value, gradient = outcome(get_loss("cl_dice"), logits, labels)
    exact, expected = outcome(get_loss("cl_dice"), logits.double(), labels)
    assert value.dtype == torch.float32 and gradient.dtype == kind
    assert value.item() == pytest.approx(exact.item(), rel=2e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=torch.finfo(kind).eps * 2, atol=1e-7)


def test_parameters():
    assert isinstance(get_loss("cldice"), voxloss.ClDiceLoss)
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="iterations must be a whole number not below 0, received"):
            get_loss("cl_dice", iterations=wrong)
    with pytest.raises(ValueError, match="label_smoothing is a parameter of pixelwise terms, and ClDiceLoss has none"):
        get_loss("cl_dice", label_smoothing=0.1)
