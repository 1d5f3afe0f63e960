"""The fused path against the slow twin and the plain path, natively on CUDA, elsewhere through Triton's interpreter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_twin import accepts, one_hot, twin
from test_twin import CASES, REGION

from voxloss import get_loss, voxel_statistics
from voxloss.losses.voxel_pass import operator

pytest.importorskip("triton", minversion="3.5")
from voxloss.losses.voxel_pass import triton as triton_kernels

# The interpreter computes with NumPy, which warns where a GPU is silent: the logarithm of 0, and what follows from it.
pytestmark = [pytest.mark.filterwarnings("ignore::RuntimeWarning"), pytest.mark.slow]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTEGERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """The fused path, also for tensors of the CPU, in tiles so small that every program has several of them."""
    # A private name, for no public way leads from a tensor of the CPU to a kernel for a GPU.
    monkeypatch.setattr(operator, "_implementation", lambda *_: triton_kernels)
    if DEVICE == "cpu":
        monkeypatch.setattr(triton_kernels, "TILE", 8)
        monkeypatch.setattr(triton_kernels, "LARGEST_TILE", 32)
        monkeypatch.setattr(triton_kernels, "LINE", 64)


@st.composite
def problems(draw):
    name, parameters = draw(st.sampled_from(CASES))
    shape = draw(st.sampled_from([(2, 3, 7), (1, 2, 3, 4), (2, 5, 2, 1, 3), (2, 1, 3, 5), (1, 3, 1)]))
    activation = "sigmoid" if shape[1] == 1 else draw(st.sampled_from(["softmax", "sigmoid"]))
    parameters = {k: [0.0, 0.7, 2.0, 1.0, 0.3][: shape[1]] if v == "per class" else v for k, v in parameters.items()}
    options = {key: draw(st.sampled_from(values)) for key, values in REGION.items() if draw(st.booleans())}
    if shape[1] == 1:
        options.pop("include_background", None)
    for key in ("overlap", "label_smoothing"):
        if not accepts(name, {key: options.get(key)}):
            options.pop(key, None)
    kind = draw(st.sampled_from(["labels", "soft"]))
    return name, parameters, options, shape, activation, kind, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 10**6))
def test_agrees_with_twin(problem, seed):
    name, parameters, options, shape, activation, kind, ignore, weighted = problem
    generator = torch.Generator().manual_seed(seed)
    batch, classes, *spatial = shape
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    keep = torch.rand(batch, *spatial, generator=generator) > 0.3 if ignore else None
    if kind == "labels" and classes > 1:
        labels = torch.randint(0, classes, (batch, *spatial), generator=generator)
        target = one_hot(labels, classes)
        labels = labels if keep is None else torch.where(keep, labels, 255)
    else:
        target = torch.rand(shape, generator=generator, dtype=torch.float64)
        labels = target if keep is None else torch.where(keep[:, None], target, 255)
    weight = torch.rand(batch, *spatial, generator=generator) if weighted else None
    loss = get_loss(name, **parameters, **options, activation=activation, ignore_index=255 if ignore else None)
    given_logits, expected_logits = (logits.to(device, copy=True).requires_grad_() for device in (DEVICE, "cpu"))
    value = loss(given_logits, labels.to(DEVICE), None if weight is None else weight.to(DEVICE))
    expected = twin(
        name, expected_logits, target, keep, weight, activation=activation, parameters=parameters, options=options
    )
    (-37.5 * value).backward()
    torch.testing.assert_close(value.cpu(), expected.detach(), atol=1e-10, rtol=1e-10)
    if expected.requires_grad:
        (-37.5 * expected).backward()
        torch.testing.assert_close(given_logits.grad.cpu(), expected_logits.grad, atol=1e-9, rtol=1e-8)


def both_paths(logits, labels, monkeypatch, **options):
    """Sums and gradient of the fused and of the plain path; the gradient's weights differ from sum to sum."""
    found = []
    for implementation in (triton_kernels, operator.plain):
        monkeypatch.setattr(operator, "_implementation", lambda *_, chosen=implementation: chosen)
        leaf = logits.detach().requires_grad_()
        statistics = voxel_statistics(leaf, labels, **options)
        weights = torch.linspace(-1, 2, statistics.sums.numel(), device=leaf.device).view_as(statistics.sums)
        (weights * statistics.sums).sum().backward()
        found.append((statistics.sums.detach(), statistics.voxels, leaf.grad))
    return found


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 3, 14, 105, 128, 130])
def test_any_number_of_classes(classes, soft, activation, monkeypatch):
    if classes == 1 and activation == "softmax":
        pytest.skip("softmax needs two channels")
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(2, classes, 3, 5, generator=generator, dtype=torch.float64)
    soft = soft or classes == 1
    labels = (
        torch.rand(logits.shape, generator=generator)
        if soft
        else torch.randint(0, classes, (2, 3, 5), generator=generator)
    )
    exponents = [2, [k % 4 for k in range(classes)]]
    fused, plain = both_paths(
        logits.to(DEVICE), labels.to(DEVICE), monkeypatch, activation=activation, focal_exponents=exponents
    )
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
def test_sums_in_a_tube(soft, activation, weighted, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 3, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 3, 7), generator=generator)
    if soft:
        labels = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    tube = torch.rand(2, 3, 7, generator=generator) < 0.4
    if soft and activation == "sigmoid":
        tube = torch.rand(logits.shape, generator=generator) < 0.4
    weight = torch.rand(2, 3, 7, generator=generator).to(DEVICE) if weighted else None
    options = {"activation": activation, "focal_exponents": [0, 1.5], "tubes": True, "voxel_weight": weight}
    given = (logits.to(DEVICE), labels.to(DEVICE), monkeypatch)
    fused, plain = both_paths(*given, skeletons=tube.to(DEVICE), **options)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert (fused[0][:, -2:] > 0).any()


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.float16, torch.float32])
def test_label_types(dtype, monkeypatch):
    logits = torch.randn(2, 2 if dtype == torch.bool else 3, 11, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    labels = torch.randint(0, logits.shape[1], (2, 11), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    expected = voxel_statistics(logits, labels).sums
    assert torch.equal(voxel_statistics(logits, labels.to(dtype)).sums, expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_and_extreme_logits(dtype, activation, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(1, 3, 40, generator=generator) * torch.logspace(-2, 4, 40)).to(dtype).to(DEVICE)
    labels = torch.randint(0, 3, (1, 40), generator=generator).to(DEVICE)
    for target in (labels, torch.rand(1, 3, 40, generator=generator).to(DEVICE)):
        fused, plain = both_paths(logits, target, monkeypatch, activation=activation, focal_exponents=[0, 0.5, 2])
        for ours, theirs in zip(fused, plain, strict=True):
            assert ours.isfinite().all() and ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=2e-5 if dtype == torch.float32 else 1e-2, atol=1e-7)


def test_memory_layouts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(2, 3, 2, 3, 4, generator=generator).to(DEVICE)
    labels = torch.randint(0, 3, (1, 2, 3, 4), generator=generator).to(DEVICE).expand(2, 2, 3, 4)
    weight = torch.rand(2, 2, 3, 4, generator=generator).to(DEVICE)
    layouts = {
        "channels last": plain.to(memory_format=torch.channels_last_3d),
        "axes swapped": plain.transpose(2, 4).contiguous().transpose(2, 4),
        "every other": plain.repeat_interleave(2, -1)[..., ::2],
        "expanded": plain[:1].expand(2, -1, -1, -1, -1),
    }
    for name, logits in layouts.items():
        fused, theirs = both_paths(logits, labels, monkeypatch, voxel_weight=weight, focal_exponents=[1.5])
        for a, b in zip(fused, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
        assert fused[2].stride() == theirs[2].stride()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_ignored_and_bad_voxels_do_nothing(activation, monkeypatch):
    logits = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(1))
    kept = voxel_statistics(
        logits[..., 6:].to(DEVICE), labels[:, 6:].to(DEVICE), activation=activation, focal_exponents=[2]
    )
    logits[..., :6], labels[:, 0], labels[:, 1], labels[:, 2:6] = torch.nan, 10**12, -5, 7
    logits = logits.to(DEVICE).requires_grad_()
    s = voxel_statistics(
        logits, labels.to(DEVICE), activation=activation, focal_exponents=[2], ignore_index=7, validate=False
    )
    torch.testing.assert_close(s.sums, kept.sums, rtol=1e-12, atol=0)
    assert s.voxels.tolist() == [14, 14]
    s.sums.sum().backward()
    assert logits.grad[..., :6].count_nonzero() == 0 and logits.grad.isfinite().all()


def test_a_class_may_be_ignored():
    """ignore_index may be a label that the logits have a channel for."""
    logits = torch.randn(1, 3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 3, (1, 20), generator=torch.Generator().manual_seed(1))
    kept = labels[0] != 1
    expected = twin("mixed_focal", logits[..., kept], one_hot(labels[:, kept], 3))
    value = get_loss("mixed_focal", ignore_index=1)(logits.to(DEVICE), labels.to(DEVICE))
    torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.parametrize("kind", ["labels", "soft", "sigmoid"])
def test_small_errors_are_not_lost_beside_large_sums(kind):
    """A confident and right prediction: 1-p is 1e-8, which float32 cannot tell from 0 beside 1."""
    logits = torch.zeros(1, 2, 100)
    logits[:, 1] = -math.log(1e8)
    labels = torch.zeros(1, 100, dtype=torch.long)
    if kind == "soft":
        labels = torch.stack([1 - labels, labels], 1)
    if kind == "sigmoid":
        logits[:, 0] = math.log(1e8)
    activation = "sigmoid" if kind == "sigmoid" else "softmax"
    s = voxel_statistics(logits.to(DEVICE), labels.to(DEVICE), focal_exponents=(0, 1), activation=activation)
    for value in (s.false_positive[0, 1], s.false_negative[0, 0], s.focal[0][0, 0]):
        assert value.item() == pytest.approx(1e-6, rel=1e-5)
    assert s.focal[1][0, 0].item() == pytest.approx(1e-14, rel=1e-5)


def test_bad_labels_are_refused_where_checked():
    logits, labels = torch.zeros(1, 3, 4, device=DEVICE), torch.tensor([[0, 1, 3, 0]], device=DEVICE)
    with pytest.raises(ValueError, match="label 3 is outside the allowed range 0 to 2"):
        voxel_statistics(logits, labels, validate=True)
    with pytest.raises(ValueError, match="target 2 is outside"):
        voxel_statistics(logits, torch.full((1, 3, 4), 2, device=DEVICE), validate=True)
    with pytest.raises(ValueError, match="not negative, received -1"):
        weight = -torch.ones(1, 4, device=DEVICE)
        voxel_statistics(logits, labels.clamp_max(2), voxel_weight=weight, validate=True)


@pytest.mark.parametrize("target", ["labels", "soft"])
def test_nan_stays_seen_and_masked_channels_stay_finite(target):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 9, generator=generator)
    labels = (
        torch.randint(0, 3, (1, 9), generator=generator)
        if target == "labels"
        else torch.rand(1, 3, 9, generator=generator)
    )
    broken = logits.clone()
    broken[0, 1, 4] = torch.nan
    assert get_loss("mixed_focal")(broken.to(DEVICE), labels.to(DEVICE)).isnan()
    masked = logits.clone()
    masked[:, 2] = -torch.inf
    masked = masked.to(DEVICE).requires_grad_()
    get_loss("mixed_focal")(masked, labels.to(DEVICE)).backward()
    assert masked.grad.isfinite().all()


def test_scaled_float16_gradients_do_not_underflow():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 1000, generator=generator)
    labels = torch.randint(0, 2, (1, 1000), generator=generator)
    half = logits.half().to(DEVICE).requires_grad_()
    (get_loss("focal")(half, labels.to(DEVICE)) * 2.0**16).backward()
    exact = half.detach().cpu().double().requires_grad_()
    (twin("focal", exact, one_hot(labels, 2)) * 2.0**16).backward()
    torch.testing.assert_close(half.grad.cpu().double(), exact.grad, rtol=2e-3, atol=1e-7)


def test_empty_volume():
    logits = torch.zeros(2, 3, 0, device=DEVICE, requires_grad=True)
    value = get_loss("mixed_focal")(logits, torch.zeros(2, 0, dtype=torch.long, device=DEVICE))
    value.backward()
    assert value.item() == 0


def test_results_are_repeatable():
    logits = torch.randn(2, 3, 100, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    labels = torch.randint(0, 3, (2, 100), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    first, second = (voxel_statistics(logits, labels, focal_exponents=[2]).sums for _ in range(2))
    assert torch.equal(first, second)
