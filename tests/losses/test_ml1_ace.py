"""The average calibration error: by hand, in 60 digits, limits, weights, absent classes and types."""

import mpmath
import pytest
import torch
from mpmath import mpf

from voxloss import Compound, get_loss


def problem(shape=(2, 3, 9, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def error_of(logits, labels, *weight, **options):
    """The calibration error alone."""
    whole, without = get_loss("ml1_ace", **options), get_loss("ml1_ace", **options | {"ace_weight": 0})
    return whole(logits, labels, *weight) - without(logits, labels, *weight)


def test_by_hand():
    """Four bins of p_1: (0.25, 0.5] has two voxels, one of them of the class, (0.5, 0.75] none, (0.75, 1] three."""
    p = torch.tensor([0.3, 0.5, 0.8, 0.9, 1.0 - 1e-9], dtype=torch.float64)
    labels = torch.tensor([[1, 0, 1, 1, 0]])
    expected = (abs(0.8 - 1) / 2 + abs(2.7 - 2) / 3) / 2
    logits = torch.logit(p)[None, None]
    assert error_of(logits, labels, activation="sigmoid", bins=4).item() == pytest.approx(expected, rel=1e-8)
    weight = torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0]])
    weighted = (abs(0.3 + 1.5 - 1) / 4 + abs(1.7 - 2) / 2) / 2
    assert error_of(logits, labels, weight, activation="sigmoid", bins=4).item() == pytest.approx(weighted, rel=1e-8)


def test_a_calibrated_prediction_has_no_error():
    """One voxel in four of the class, all with p = 1/4: the least possible, which a certain prediction is not."""
    labels = torch.tensor([[1, 0, 0, 0] * 5])
    logits = torch.full((1, 2, 20), 0.25, dtype=torch.float64)
    logits[:, 0] = 0.75
    assert error_of(logits.log(), labels).item() == pytest.approx(0, abs=1e-15)
    assert error_of(40 * (logits - 0.5), labels).item() == pytest.approx(0.25, rel=1e-6)
    perfect = 400 * torch.stack([0.5 - labels, labels - 0.5], 1).double()
    assert error_of(perfect, labels).item() == pytest.approx(0, abs=1e-100)


@pytest.mark.parametrize("bins", [1, 3, 20])
def test_value_and_gradient_in_sixty_digits(bins):
    mpmath.mp.dps = 60
    logits, labels = problem((1, 2, 12), seed=4)

    def total(x):
        p = [mpmath.exp(b) / (mpmath.exp(a) + mpmath.exp(b)) for a, b in zip(*x, strict=True)]
        wanted = labels.flatten().tolist()
        value = -sum(mpmath.log(q if t else 1 - q) for q, t in zip(p, wanted, strict=True)) / 12
        for c in range(2):
            pairs = [(q, t) if c else (1 - q, 1 - t) for q, t in zip(p, wanted, strict=True)]
            squares = sum(q**2 + t**2 for q, t in pairs)
            value += (1 - (2 * sum(q * t for q, t in pairs) + 2e-5) / (squares + mpf(2e-5))) / 2
            each = {}
            for q, t in pairs:
                each.setdefault(int(mpmath.ceil(q * bins)), []).append(q - t)
            value += sum(abs(sum(errors)) / len(errors) for errors in each.values()) / len(each) / 2
        return value

    leaf = logits.clone().requires_grad_()
    value = get_loss("ml1_ace", bins=bins)(leaf, labels)
    value.backward()
    numbers = [[mpf(x) for x in row] for row in logits[0].tolist()]
    assert value.item() == pytest.approx(float(total(numbers)), rel=1e-13)
    step = mpf(10) ** -20
    for c, v in ((0, 0), (1, 5), (1, 11)):
        sides = []
        for sign in (1, -1):
            numbers[c][v] += sign * step
            sides.append(total(numbers))
            numbers[c][v] -= sign * step
        assert leaf.grad[0, c, v].item() == pytest.approx(float((sides[0] - sides[1]) / (2 * step)), rel=1e-10)


def test_a_class_that_the_target_does_not_have_is_left_out():
    logits, labels = problem()
    labels[1] = labels[1].clamp_max(1)
    each = error_of(logits, labels, reduction="none")
    alone = error_of(logits[1:], labels[1:], class_reduction="none")
    assert alone[2] == 0 and each[1].item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-12)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_weights_of_samples_are_weights_of_their_voxels(activation):
    logits, labels = problem()
    weight = torch.tensor([2.0, 1.0])
    loss = get_loss("ml1_ace", pool="batch", activation=activation)
    expected = loss(logits[[0, 0, 1]], labels[[0, 0, 1]])
    error = error_of(logits[[0, 0, 1]], labels[[0, 0, 1]], pool="batch", activation=activation)
    entropy = get_loss("cross_entropy", activation=activation)
    by_voxel = weight[:, None, None].expand(2, 9, 8)
    for given in ({"sample_weight": weight}, {"voxel_weight": by_voxel}):
        # The cross entropy divides by the number of voxels, whatever their weights.
        more = entropy(logits, labels, **given) - entropy(logits[[0, 0, 1]], labels[[0, 0, 1]])
        scale = 3 if activation == "sigmoid" else 1
        assert loss(logits, labels, **given).item() == pytest.approx((expected + more / scale).item(), rel=1e-10)
    found = error_of(logits, labels, by_voxel, pool="batch", activation=activation)
    assert found.item() == pytest.approx(error.item(), rel=1e-10)


def test_channels_that_are_ignored_apart():
    logits, labels = problem((2, 2, 9, 8))
    target = torch.stack([labels == c for c in range(2)], 1).long()
    target[0, 1, :3] = 9
    options = {"activation": "sigmoid", "ignore_index": 9, "class_reduction": "none"}
    found = error_of(logits, target, ignore_scope="channel", **options)
    for c in range(2):
        alone = error_of(logits[:, c : c + 1], target[:, c : c + 1], **options)
        assert found[c].item() == pytest.approx(alone.item(), rel=1e-10)


def test_a_compound_shares_the_sums():
    logits, labels = problem()
    parts = [get_loss("ml1_ace"), get_loss("ml1_ace", bins=7, ace_weight=0.5), get_loss("cl_dice")]
    expected = sum(w * part(logits, labels) for w, part in zip((1, 0.5, 2), parts, strict=True))
    torch.testing.assert_close(Compound(parts, [1, 0.5, 2])(logits, labels), expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_agree_with_float64(kind):
    logits, labels = problem((2, 3, 6, 7, 5))
    given = logits.to(kind)
    results = []
    for x in (given, given.double()):
        leaf = x.clone().requires_grad_()
        value = get_loss("ml1_ace")(leaf, labels)
        value.backward()
        results.append((value.detach().double(), leaf.grad.double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=2e-6, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=torch.finfo(kind).eps * 2, atol=1e-7)


def test_parameters():
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="bins must be a whole number above 0, received"):
            get_loss("ml1_ace", bins=wrong)
