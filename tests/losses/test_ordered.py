"""The order of errors in C against a loop over Berman's formula, and against the same losses in plain PyTorch."""

import itertools

import pytest
import torch

from voxloss import get_loss
from voxloss.losses.voxel_pass import compiled, library
from voxloss.losses.voxel_pass.further import linear, ordered

pytestmark = pytest.mark.skipif(not library.is_there(), reason="no C compiler")


def by_hand(errors, members, weight):
    """Slopes of one class: the Jaccard loss of ever more errors, members first, others with equal errors share."""
    volume = sum(w for w, member in zip(weight, members, strict=True) if member)
    slopes, missed, excess, before = [0.0] * len(errors), 0.0, 0.0, 0.0

    def jaccard():
        if volume == 0:
            return float(excess > 0)
        return (missed + excess) / (volume + excess)

    rising = sorted(range(len(errors)), key=lambda k: (-errors[k], not members[k]))
    for _, group in itertools.groupby(rising, key=lambda k: (errors[k], members[k])):
        together = list(group)
        for k in together if members[together[0]] else []:
            missed += weight[k]
            slopes[k], before = before - jaccard(), jaccard()  # with respect to p = 1 - error
        if not members[together[0]]:
            whole = sum(weight[k] for k in together)
            excess += whole
            for k in together:
                slopes[k] = (jaccard() - before) * weight[k] / whole if whole else 0.0
            before = jaccard()
    return slopes


def keys_of(errors, members, counted):
    bits = errors.view(torch.int32) << 1 | members
    return torch.where(counted, bits, -1)


VALUES = {
    "all different": lambda x: x,
    "many equal": lambda x: (8 * x).round() / 8,
    "one apart": lambda x: torch.where(x == x.amax(), 0.75, 0.5),
    "one value": lambda x: torch.full_like(x, 0.5),
    "0 and 1": lambda x: x.round(),
    "zeros": torch.zeros_like,
    "tiny and huge": lambda x: torch.exp(-80 * x),
}


@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_slopes_and_sums_are_those_of_the_formula(values, weighted, by_sample):
    generator = torch.Generator().manual_seed(0)
    for batch, classes, voxels, share in [(1, 1, 1, 1.0), (1, 2, 1, 0.0), (2, 3, 40, 0.3), (3, 2, 37, 0.05)]:
        errors = VALUES[values](torch.rand(batch, classes, voxels, generator=generator))
        members = torch.rand(errors.shape, generator=generator) < share
        counted = (torch.rand(batch, 1, voxels, generator=generator) < 0.8).expand_as(errors)
        weight = torch.rand(batch, voxels, generator=generator) if weighted else None
        if weight is not None:
            weight[weight < 0.2] = 0
        keys = keys_of(errors, members, counted)
        sums, slopes = ordered.from_keys(keys, weight, errors.shape, by_sample)
        assert not slopes[~counted].any()
        for c, group in itertools.product(range(classes), [[b] for b in range(batch)] if by_sample else [range(batch)]):
            chosen = torch.cat([counted[b, c] for b in group])
            own = [torch.cat([tensor[b, c] for b in group])[chosen] for tensor in (errors, members, slopes)]
            of_voxels = torch.ones(batch, voxels) if weight is None else weight
            heft = torch.cat([of_voxels[b] for b in group])[chosen].double().tolist()
            expected = torch.tensor(by_hand(own[0].tolist(), own[1].tolist(), heft))
            no_effect = own[0] == 0  # an error of 0 adds nothing, whatever its slope
            torch.testing.assert_close(own[2][~no_effect], expected[~no_effect], rtol=1e-6, atol=1e-9)
            total = (own[0] * expected.abs()).sum(dtype=torch.float64)
            torch.testing.assert_close(sum(sums[b, c] for b in group), total, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_one_order_serves_both_classes(values, weighted):
    generator = torch.Generator().manual_seed(1)
    for share in (0.0, 0.1, 0.5, 1.0):
        errors = VALUES[values](torch.rand(2, 1, 50, generator=generator))
        members = torch.rand(errors.shape, generator=generator) < share
        counted = torch.rand(errors.shape, generator=generator) < 0.9
        weight = torch.rand(2, 50, generator=generator) if weighted else None
        apart = torch.cat([keys_of(errors, ~members, counted), keys_of(errors, members, counted)], 1)
        for by_sample in (False, True):
            both = ordered.from_keys(keys_of(errors, members, counted), weight, torch.Size([2, 2, 50]), by_sample)
            each = ordered.from_keys(apart, weight, torch.Size([2, 2, 50]), by_sample)
            torch.testing.assert_close(both[0], each[0], rtol=1e-9, atol=1e-12)
            no_effect = (errors == 0).expand_as(each[1])
            torch.testing.assert_close(both[1][~no_effect], each[1][~no_effect], rtol=1e-6, atol=1e-9)


def test_a_long_list_is_sorted():
    """More errors than a digit has values, in float64 by Berman's own code."""
    generator = torch.Generator().manual_seed(2)
    errors = torch.linspace(0.01, 1, 30_000)[torch.randperm(30_000, generator=generator)].view(1, 1, -1) ** 4
    members = torch.rand(errors.shape, generator=generator) < 0.02
    sums, slopes = ordered.from_keys(keys_of(errors, members, errors >= 0), None, errors.shape, False)
    falling = torch.argsort(errors.flatten(), descending=True)
    truth = members.flatten()[falling].double()
    loss = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
    loss[1:] = loss[1:] - loss[:-1]
    torch.testing.assert_close(sums.item(), (loss * errors.flatten()[falling]).sum().item(), rtol=1e-7, atol=0)
    torch.testing.assert_close(slopes.flatten()[falling].abs().double(), loss, rtol=1e-6, atol=1e-7)


def problem(classes, spatial=(6, 5, 9), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, *spatial, generator=generator)
    labels = torch.randint(0, max(2, classes), (2, *spatial), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.7] = 0
    return logits, labels, torch.rand(labels.shape, generator=generator)


def outcome(loss, logits, labels, **others):
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(leaf, labels, **others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def compare(monkeypatch, loss, logits, labels, **others):
    """The loss in C and in plain PyTorch in float64."""
    assert ordered.takes(logits.float(), others.get("voxel_weight"))
    found = outcome(loss, logits, labels, **others)
    with monkeypatch.context() as patch:
        patch.setattr(ordered, "takes", lambda *_: False)
        expected = outcome(loss, logits.double(), labels, **others)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=2e-6, atol=1e-12)
    bound = (4e-3 if logits.dtype == torch.bfloat16 else 1e-5) * expected[1].abs().max().item() + 1e-12
    torch.testing.assert_close(found[1].double(), expected[1], rtol=1e-5, atol=bound)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("pool", ["batch", "sample"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_agrees_with_plain_torch(monkeypatch, activation, pool, ignore_index, weighted):
    for classes, absent in ((2, "skip"), (2, "keep"), (5, "keep")):
        logits, labels, weight = problem(classes)
        how = {"activation": activation, "pool": pool, "ignore_index": ignore_index, "absent_class": absent}
        given = {"voxel_weight": weight} if weighted else {}
        compare(monkeypatch, get_loss("lovasz", **how), logits, labels, **given)


@pytest.mark.parametrize("kind", ["one channel", "multi-hot", "soft", "channels apart"])
def test_targets_of_channels_agree_with_plain_torch(monkeypatch, kind):
    logits, labels, _ = problem(1 if kind == "one channel" else 3)
    how = {"activation": "softmax" if kind == "soft" else "sigmoid"}
    if kind != "one channel":
        labels = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3))
        labels = labels / labels.sum(1, keepdim=True) if kind == "soft" else labels.round()
    if kind == "channels apart":
        labels[:, :, 0, 0], labels[0, 1, 1] = 7, 7
        how |= {"ignore_index": 7, "ignore_scope": "channel"}
    compare(monkeypatch, get_loss("lovasz", **how), logits, labels)


@pytest.mark.parametrize("layout", ["channels last", "axes swapped", "every other", "expanded", "bfloat16"])
def test_layouts_agree_with_plain_torch(monkeypatch, layout):
    change = {
        "channels last": lambda t: t.to(memory_format=torch.channels_last_3d) if t.ndim == 5 else t,
        "axes swapped": lambda t: t.transpose(-1, -3).contiguous().transpose(-1, -3),
        "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "expanded": lambda t: t[:1].expand_as(t),
        "bfloat16": lambda t: t.bfloat16() if t.ndim == 5 else t,
    }[layout]
    for classes, activation in itertools.product((2, 4), ("softmax", "sigmoid")):
        logits, labels, weight = (change(tensor) for tensor in problem(classes))
        compare(monkeypatch, get_loss("lovasz", activation=activation), logits, labels, voxel_weight=weight)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", ["background", "structure", "one voxel", "certain", "wrong", "masked", "constant"])
def test_extreme_batches_agree_with_plain_torch(monkeypatch, case, activation):
    for classes in (2, 3):
        logits, labels, _ = problem(classes, (1,) if case == "one voxel" else (4, 5))
        if case in ("background", "structure"):
            labels = torch.full_like(labels, case == "structure")
        elif case in ("certain", "wrong"):
            truth = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
            logits = (400.0 * truth - 200) * (1 if case == "certain" else -1)
        elif case == "masked":
            logits[:, 0], labels = -torch.inf, labels.clamp_min(1)
        elif case == "constant":
            logits = torch.zeros_like(logits)
        for absent in ("skip", "keep"):
            how = {"activation": activation, "absent_class": absent}
            compare(monkeypatch, get_loss("lovasz", **how), logits, labels)


def test_no_voxels():
    for shape in ((0, 2, 4), (2, 2, 0), (2, 3, 0)):
        keys = torch.zeros(shape, dtype=torch.int32)
        for by_sample in (False, True):
            sums, slopes = ordered.from_keys(keys, None, torch.Size(shape), by_sample)
            assert slopes.shape == shape and not sums.any()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 3])
def test_nan_is_neither_hidden_nor_let_out_of_ignored_voxels(classes, activation):
    logits, labels, _ = problem(classes)
    logits[0, 1, 2, 3, 4] = torch.nan
    assert get_loss("lovasz", activation=activation)(logits, labels).isnan()
    labels[0, 2, 3, 4] = 9
    value, gradient = outcome(get_loss("lovasz", activation=activation, ignore_index=9), logits, labels)
    assert value.isfinite() and gradient.isfinite().all() and not gradient[0, :, 2, 3, 4].any()


def test_the_number_of_threads_changes_no_bit():
    found, threads = [], torch.get_num_threads()
    logits, labels, weight = problem(4, (40, 33, 20))
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(outcome(get_loss("lovasz", pool="sample"), logits, labels, voxel_weight=weight))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0]) and torch.equal(other[1], found[0][1])


@pytest.mark.parametrize("factors", [1, 2, 3])
@pytest.mark.parametrize("voxels", [1, 255, 256, 257, 1023])
def test_the_gradient_of_weighted_probabilities_agrees_with_float64(voxels, factors, monkeypatch):
    monkeypatch.setattr(compiled, "PART", 1)  # a block in every part
    generator = torch.Generator().manual_seed(4)
    logits = 20 * torch.randn(2, 3, voxels, generator=generator)
    shares = torch.randn(factors, 2, voxels, generator=generator).transpose(0, 1)
    upstream = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for given, weights in ((logits, shares), (logits.transpose(1, 2).contiguous().transpose(1, 2), shares[..., ::1])):
        assert compiled.takes_shares(given, weights)
        found = linear.gradient(upstream, given, weights, "softmax")
        exact = linear.gradient(upstream, given.double(), weights.double(), "softmax")
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_batches_of_too_many_voxels_are_left_to_plain_torch(monkeypatch):
    """The number of a voxel has 32 bits."""
    monkeypatch.setattr(ordered, "_MOST_VOXELS", 7)
    logits, labels, _ = problem(2, (4,))
    assert not ordered.takes(logits, None) and get_loss("lovasz")(logits, labels).isfinite()
