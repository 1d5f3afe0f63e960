"""Extreme logits, low precision, long sums, nothing counted, and identities between the losses."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from voxloss import distance_maps, get_loss, list_losses
from voxloss.losses import voxel_statistics
from voxloss.losses.curves import Index, Power

LOSSES = list_losses()
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
GAMMAS = {"focal": "gamma", "focal_tversky": "gamma", "cosine_tversky": "gamma"}


def random_problem(shape=(2, 3, 6, 5), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits.to(dtype).requires_grad_(), labels


def confident(labels, classes, size, dtype):
    """Logits of ±size, right everywhere."""
    logits = torch.full((labels.shape[0], classes, *labels.shape[1:]), -float(size), dtype=dtype)
    return logits.scatter_(1, labels[:, None], float(size)).requires_grad_()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name, activation, dtype):
    generator = torch.Generator().manual_seed(1)
    _, labels = random_problem()
    soft = torch.rand(2, 3, 6, 5, generator=generator)
    for parameters in [{}] + ([{GAMMAS[name]: 0.3}, {GAMMAS[name]: 3.0}] if name in GAMMAS else []):
        loss = get_loss(name, activation=activation, **parameters)
        for logits in (
            confident(labels, 3, 1e4, dtype),
            confident((labels + 1) % 3, 3, 1e4, dtype),
            (1e4 * torch.randn(2, 3, 6, 5, generator=generator)).clamp(-1e4, 1e4).to(dtype).requires_grad_(),
            torch.zeros(2, 3, 6, 5, dtype=dtype, requires_grad=True),
        ):
            for target in (labels, soft):
                logits.grad = None
                value = loss(logits, target)
                value.backward()
                assert value.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("size", [15, 200, 1e4])
@pytest.mark.parametrize("name", LOSSES)
def test_perfect_prediction_is_the_minimum(name, size):
    _, labels = random_problem()
    logits = confident(labels, 3, size, torch.float64)
    value = get_loss(name)(logits, labels)
    value.backward()
    floor = -1.0 if name in ("combo", "dice_cross_entropy", "cc_dice_ce", "dice_topk") else 0.0
    floor = -2.0 if name == "skeleton_recall" else floor
    if name == "boundary":  # the mean depth inside the structures
        floor = distance_maps(labels, 3).double().clamp_max(0).mean().item()
    assert value.item() == pytest.approx(floor, abs=2e-3 if size == 15 else 1e-9 if name == "boundary" else 1e-12)
    if size > 15:
        assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dice", 3), ("tversky", 3), ("focal_tversky", 3), ("cosine_tversky", 3), ("cross_entropy", 400), ("focal", 100)],
)
def test_worst_prediction_by_hand(name, expected):
    _, labels = random_problem()
    logits = confident((labels + 1) % 3, 3, 200, torch.float64)
    assert get_loss(name)(logits, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_works_in_float32(name, dtype):
    logits, labels = random_problem(dtype=dtype)
    exact = logits.detach().double().requires_grad_()
    loss = get_loss(name)
    value, expected = loss(logits, labels), loss(exact, labels)
    value.backward()
    expected.backward()
    assert value.dtype == torch.float32 and logits.grad.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=2e-6)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "mixed_focal"])
def test_float16_gradient_keeps_what_the_scaler_lifts(name):
    """Per voxel gradients of 1e-8 are below float16's smallest number; times 65536 they are not."""
    logits, labels = random_problem((1, 2, 200, 200), torch.float16)
    exact = logits.detach().double().requires_grad_()
    (get_loss(name)(logits, labels) * 65536).backward()
    get_loss(name)(exact, labels).backward()
    torch.testing.assert_close(logits.grad.double() / 65536, exact.grad, rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("dtype", FLOATS)
def test_autocast_changes_nothing(dtype):
    logits, labels = random_problem(dtype=dtype)
    for name in LOSSES:
        loss = get_loss(name)
        logits.grad = None
        expected = loss(logits, labels)
        expected.backward()
        gradient, logits.grad = logits.grad, None
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(logits, labels)
            value.backward()
        assert value.dtype == expected.dtype and torch.equal(value, expected) and torch.equal(logits.grad, gradient)


def test_long_sums_lose_nothing():
    """Ten million equal voxels: every sum is n times one term, to the rounding of that term in float32."""
    n = 10_000_000
    logits = torch.zeros(1, 2, n)
    logits[:, 1] = -3.0
    statistics = voxel_statistics(logits, torch.zeros(1, n, dtype=torch.uint8), focal_exponents=(2,))
    p = 1 / (1 + math.exp(-3))
    expected = [n * p, 0, 0, n * (1 - p), n * (1 - p), 0, n * (1 - p) ** 2 * -math.log(p), 0]
    received = [statistics.true_positive, statistics.false_positive, statistics.false_negative, statistics.focal[0]]
    torch.testing.assert_close(
        torch.cat(received, 1)[0], torch.tensor(expected, dtype=torch.float64), rtol=3e-6, atol=0
    )
    assert statistics.voxels.item() == n


@pytest.mark.parametrize("kind", ["labels", "soft", "sigmoid"])
def test_small_errors_are_not_lost_beside_large_sums(kind):
    """A confident and right prediction: 1-p is 1e-8, which float32 cannot tell from 0 beside 1."""
    logits = torch.zeros(1, 2, 1000)
    logits[:, 1] = -math.log(1e8)
    labels = torch.zeros(1, 1000, dtype=torch.long)
    if kind == "soft":
        labels = torch.stack([1 - labels, labels], 1)
    if kind == "sigmoid":
        logits[:, 0] = math.log(1e8)
    statistics = voxel_statistics(
        logits, labels, focal_exponents=(0, 1), activation="sigmoid" if kind == "sigmoid" else "softmax"
    )
    expected = {
        "false_positive": statistics.false_positive[0, 1],
        "false_negative": statistics.false_negative[0, 0],
        "entropy": statistics.focal[0][0, 0],
    }
    for name, value in expected.items():
        assert value.item() == pytest.approx(1e-5, rel=1e-5), name
    assert statistics.focal[1][0, 0].item() == pytest.approx(1e-13, rel=1e-5)


@pytest.mark.parametrize("smooth", [1e-6, 0.0])
@pytest.mark.parametrize("target", ["labels", "soft"])
@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_counted_is_zero(name, pool, target, smooth):
    logits, labels = random_problem()
    with torch.no_grad():
        logits[0, 0, 0, 0], logits[1, 2] = torch.nan, torch.inf
    labels = torch.full_like(labels, 255)
    labels = labels if target == "labels" else labels[:, None].expand(-1, 3, -1, -1).double()
    value = get_loss(name, ignore_index=255, pool=pool, smooth=smooth)(logits, labels)
    value.backward()
    assert value.item() == 0 and logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_voxels_are_as_if_cut_out(name):
    logits, labels = random_problem((2, 3, 4, 8))
    with torch.no_grad():
        logits[..., 5:] = torch.nan
    ignored = labels.clone()
    ignored[..., 5:] = -100
    kept = logits.detach()[..., :5].clone().requires_grad_()
    value, expected = get_loss(name, ignore_index=-100)(logits, ignored), get_loss(name)(kept, labels[..., :5])
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(logits.grad[..., :5], kept.grad)
    assert logits.grad[..., 5:].count_nonzero() == 0


@pytest.mark.parametrize("absent_class", ["keep", "skip"])
@pytest.mark.parametrize("name", LOSSES)
def test_class_neither_present_nor_predicted_without_smoothing(name, absent_class):
    labels = torch.tensor([[[0, 1, 1, 0]]])
    logits = torch.tensor([2.0, 1.0, -1e4]).view(1, 3, 1, 1).expand(1, 3, 1, 4).clone().requires_grad_()
    value = get_loss(name, smooth=0, absent_class=absent_class)(logits, labels)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


def test_absent_class_by_hand():
    """One sample of label 0 only, p = 1/2: Dice of class 0 is 4/(4+1), class 1 has FP = 2 and nothing right."""
    logits, labels = torch.zeros(1, 2, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.long)
    first = 1 - 2 / (2 + 0.5 * 2)
    assert get_loss("dice", smooth=0)(logits, labels).item() == pytest.approx(first + 1)
    assert get_loss("dice", smooth=0, absent_class="skip")(logits, labels).item() == pytest.approx(first)
    skipped_mean = get_loss("dice", smooth=0, absent_class="skip", class_reduction="mean")
    assert skipped_mean(logits, labels).item() == pytest.approx(first)
    assert get_loss("dice", smooth=0, class_reduction="mean")(logits, labels).item() == pytest.approx((first + 1) / 2)


def test_power_has_a_finite_slope_at_zero():
    x = torch.tensor([0.0, 1e-300, 1e-31, 1e-29, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    for exponent in (0.01, 0.5, 0.75, 1.0, 2.0, 100.0):
        values = Power(exponent)(Index(1 - x, x))
        (slope,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
        assert slope.isfinite().all() and values[0] == 0
        torch.testing.assert_close(values[3:], x[3:] ** exponent, rtol=1e-14, atol=0)


def test_nan_logits_are_not_hidden():
    logits, labels = random_problem()
    with torch.no_grad():
        logits[0, 0, 0, 0] = torch.nan
    for name in LOSSES:
        assert get_loss(name)(logits, labels).isnan()
        assert get_loss(name, absent_class="skip")(logits, labels).isnan()


def test_impossible_label_has_a_finite_gradient():
    """A channel masked by -inf: torch's cross entropy has finite gradients there too."""
    logits, labels = random_problem()
    with torch.no_grad():
        logits[:, 2] = -torch.inf
    get_loss("mixed_focal")(logits, labels).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 7, 9, 9)])
def test_cross_entropy_is_that_of_torch(shape):
    logits, labels = random_problem(shape)
    labels = labels.clone()
    labels[:, 0] = 200
    expected = cross_entropy(logits, labels, ignore_index=200)
    (gradient,) = torch.autograd.grad(expected, logits)
    for loss in (get_loss("cross_entropy", ignore_index=200), get_loss("focal", gamma=0, alpha=1, ignore_index=200)):
        value = loss(logits, labels)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], gradient)


def test_special_cases_of_each_other():
    logits, labels = random_problem()

    def value(name, **parameters):
        return get_loss(name, **parameters)(logits, labels).item()

    assert value("tversky", delta=0.5) == pytest.approx(value("dice"), rel=1e-14)
    assert value("focal_tversky", gamma=1) == pytest.approx(value("tversky"), rel=1e-14)
    assert value("mixed_focal") == pytest.approx(value("focal") + value("focal_tversky"), rel=1e-14)
    assert value("mixed_focal", weight=1) == pytest.approx(value("focal"), rel=1e-14)
    assert value("mixed_focal", weight=0) == pytest.approx(value("focal_tversky"), rel=1e-14)
    assert value("modified_combo", alpha=0, delta=0.3) == pytest.approx(value("tversky", delta=0.3), rel=1e-14)
    assert value("combo", alpha=1) == pytest.approx(value("cross_entropy"), rel=1e-14)
    assert value("combo") == pytest.approx(value("cross_entropy") + value("dice") / 3 - 1, rel=1e-12)
    assert value("cross_entropy", beta=0.5) == pytest.approx(value("cross_entropy") / 2, rel=1e-14)


def test_delta_is_on_missed_foreground():
    """Missing the structure must cost more at δ = 0.7 than marking as much too much."""
    labels = torch.zeros(1, 1, 10, dtype=torch.long)
    labels[..., 4:6] = 1
    missed, excess = labels.clone(), labels.clone()
    missed[..., 4], excess[..., 6] = 0, 1
    loss = get_loss("tversky", include_background=False)
    costs = [loss(confident(prediction, 2, 50, torch.float64), labels).item() for prediction in (missed, excess)]
    assert costs == pytest.approx([1 - 1 / (1 + 0.7), 1 - 2 / (2 + 0.3)], rel=1e-5)


def test_voxel_weight_scales_parts_and_not_the_count():
    logits, labels = random_problem()
    half = torch.full(labels.shape, 0.5)
    assert get_loss("focal")(logits, labels, half).item() == pytest.approx(get_loss("focal")(logits, labels).item() / 2)
    dice = get_loss("dice", smooth=0)
    assert dice(logits, labels, half).item() == pytest.approx(dice(logits, labels).item())


@pytest.mark.parametrize("exponent", [0.05, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0])
def test_a_power_of_a_tiny_error_is_exact_and_its_gradient_finite(exponent):
    x = torch.tensor([0.0, 1e-300, 1e-100, 1e-44, 1e-31, 1e-29, 1e-8, 0.5], dtype=torch.float64, requires_grad=True)
    value = Power(exponent)(Index(1 - x, x))
    assert value.tolist() == pytest.approx([float(number) ** exponent for number in x.tolist()], rel=1e-14)
    value.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[5:].tolist() == pytest.approx([exponent * n ** (exponent - 1) for n in (1e-29, 1e-8, 0.5)], rel=1e-9)


def test_a_nearly_perfect_prediction_by_hand():
    logits = torch.tensor([[[100.0, -100.0], [0.0, 0.0]]], dtype=torch.float64)
    value = get_loss("asymmetric_focal_tversky", gamma=0.9, smooth=0.0)(logits, torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(math.exp(-100) + math.exp(-10), rel=1e-12)
