"""Values and gradients from the definitions in 40-digit arithmetic, for options that the stored vectors do not have.

The numbers are computed here, by mpmath and voxel by voxel; gradients are central differences, whose error at 80
digits is far below the tolerance.
"""

import itertools

import mpmath
import pytest
import torch
from loss_twin import accepts
from mpmath import mpf

from voxloss import get_loss

mpmath.mp.dps = 80
SHAPE = (2, 3, 4)  # samples, classes, voxels
REGION = {  # the cost of an index by loss, its δ, and its share
    "dice": (lambda index: 1 - index, 0.5, 1),
    "tversky": (lambda index: 1 - index, 0.7, 1),
    "focal_tversky": (lambda index: (1 - index) ** (mpf(3) / 4), 0.7, 1),
    "cosine_tversky": (lambda index: mpmath.cos(mpmath.pi / 2 * index), 0.7, 1),
    "log_cosh_dice": (lambda index: mpmath.log(mpmath.cosh(1 - index)), 0.5, 1),
    "jaccard": (lambda index: 1 - index / (2 - index), 0.5, 1),
    "mixed_focal": (lambda index: (1 - index) ** (mpf(3) / 4), 0.7, 1),
    "unified_focal": (lambda index: mpmath.sqrt(1 - index), 0.6, 0.5),
}
PIXELWISE = {  # α, γ, the weights of background and foreground, and the share
    "cross_entropy": (1, 0, 1, 1, 1),
    "focal": (0.25, 2, 1, 1, 1),
    "mixed_focal": (0.25, 2, 1, 1, 1),
    "unified_focal": (1, 0.5, 0.4, 0.6, 0.5),
}
OTHERS = {"boundary", "hausdorff", "lovasz", "topk"}
LOSSES = sorted({*REGION, *PIXELWISE, *OTHERS, "mcc"})
OPTIONS = [
    {},
    {"overlap": "minimum"},
    {"overlap": "squared"},
    {"label_smoothing": 0.2},
    {"overlap": "minimum", "class_weight": [0.5, 1.0, 3.0], "class_reduction": "mean"},
    {"class_weight": "inverse_volume"},
    {"class_weight": [0.5, 1.0, 3.0]},
    {"pool": "batch", "overlap": "squared"},
]


def probabilities(logits, activation):
    if activation == "sigmoid":
        return [1 / (1 + mpmath.exp(-x)) for x in logits]
    total = sum(mpmath.exp(x) for x in logits)
    return [mpmath.exp(x) / total for x in logits]


def exact(name, logits, target, activation, options):
    """The loss of nested lists [sample][class][voxel] of numbers."""
    samples, classes, voxels = SHAPE
    p = [[None] * classes for _ in range(samples)]
    for b in range(samples):
        by_voxel = [probabilities([logits[b][c][v] for c in range(classes)], activation) for v in range(voxels)]
        p[b] = [[by_voxel[v][c] for v in range(voxels)] for c in range(classes)]
    total = mpf(0)
    if name in OTHERS:
        return {"boundary": boundary, "hausdorff": hausdorff, "lovasz": lovasz, "topk": topk}[name](
            p, target, activation, options
        )
    if name in PIXELWISE:
        total += pixelwise(PIXELWISE[name], p, target, activation, mpf(options.get("label_smoothing", 0)))
    if name in REGION:
        total += region(REGION[name], p, target, options)
    if name == "mcc":
        total += region((None, 0.5, 1), p, target, {"pool": "batch"} | options, activation == "softmax")
    return total


def pixelwise(parameters, p, target, activation, smoothing):
    alpha, gamma, background, foreground, share = map(mpf, parameters)
    samples, classes, voxels = SHAPE
    total = mpf(0)
    for b, c, v in itertools.product(*map(range, SHAPE)):
        t = (1 - smoothing) * target[b][c][v] + smoothing / (2 if activation == "sigmoid" else classes)
        q = p[b][c][v]
        if activation == "sigmoid":
            total += foreground * t * (1 - q) ** gamma * -mpmath.log(q)
            total += background * (1 - t) * q**gamma * -mpmath.log(1 - q)
        else:
            total += (foreground if c else background) * t * (1 - q) ** gamma * -mpmath.log(q)
    return share * alpha * total / (samples * voxels)


def topk(p, target, activation, options):
    """A third of the voxels, of eight two: the mean of the largest cross entropies."""
    samples, classes, voxels = SHAPE
    smoothing, each = mpf(options.get("label_smoothing", 0)), []
    for b, v in itertools.product(range(samples), range(voxels)):
        total = mpf(0)
        for c in range(classes):
            t = (1 - smoothing) * target[b][c][v] + smoothing / (2 if activation == "sigmoid" else classes)
            total -= t * mpmath.log(p[b][c][v])
            total -= (1 - t) * mpmath.log(1 - p[b][c][v]) if activation == "sigmoid" else 0
        each.append(total)
    return sum(sorted(each)[-2:]) / 2


def by_class(values, sizes, options):
    """Reduce the costs of the classes that count."""
    weights = options.get("class_weight", [1] * SHAPE[1])
    kept = [(w, x) for w, x, size in zip(weights, values, sizes, strict=True) if size]
    value = sum(w * x for w, x in kept)
    return value / sum(w for w, _ in kept) if options.get("class_reduction", "mean") == "mean" else value


def boundary(p, target, activation, options):
    """The mean of p times the distance along the only axis, of all classes but the background under softmax."""
    samples, classes, voxels = SHAPE
    total = mpf(0)
    for b in range(samples):
        costs = [mpf(0)] * classes
        for c in range(classes):
            inside = {v for v in range(voxels) if target[b][c][v] >= 0.5}
            outside = set(range(voxels)) - inside
            if not inside or not outside:
                continue
            for v in range(voxels):
                away = 1 - min(abs(v - w) for w in outside) if v in inside else min(abs(v - w) for w in inside)
                costs[c] += p[b][c][v] * away / voxels
        first = 0 if activation == "sigmoid" else 1
        total += by_class(costs, [c >= first for c in range(classes)], options)
    return total / samples


def hausdorff(p, target, activation, options):
    """The mean of the squared error times the squared distances to the other side, of labels and prediction."""
    samples, classes, voxels = SHAPE
    total = mpf(0)
    for b in range(samples):
        costs = [mpf(0)] * classes
        for c in range(classes):
            own = [target[b][c][v] >= 0.5 for v in range(voxels)]
            for side in (own, [p[b][c][v] > 0.5 for v in range(voxels)]):
                for v in range(voxels):
                    away = [abs(v - w) for w in range(voxels) if side[w] != side[v]]
                    costs[c] += (p[b][c][v] - own[v]) ** 2 * (min(away) if away else 0) ** 2 / voxels
        first = 0 if activation == "sigmoid" else 1
        total += by_class(costs, [c >= first for c in range(classes)], options)
    return total / samples


def lovasz(p, target, activation, options):
    """The Lovász extension over the voxels of the batch."""
    samples, classes, voxels = SHAPE
    costs, sizes = [], []
    for c in range(classes):
        pairs = [(p[b][c][v], target[b][c][v] >= 0.5) for b in range(samples) for v in range(voxels)]
        errors = sorted(((1 - q if own else q, own) for q, own in pairs), reverse=True)
        volume, missed, excess, before, total = sum(own for _, own in pairs), 0, 0, mpf(0), mpf(0)
        for error, own in errors:
            missed, excess = missed + own, excess + (not own)
            now = mpf(missed + excess) / (volume + excess)
            total, before = total + error * (now - before), now
        costs.append(total)
        sizes.append(sum(target[b][c][v] for b in range(samples) for v in range(voxels)))
    return by_class(costs, sizes, options)


def correlation(pairs):
    tp, fp = sum(q * t for q, t in pairs), sum(q * (1 - t) for q, t in pairs)
    fn, tn = sum((1 - q) * t for q, t in pairs), sum((1 - q) * (1 - t) for q, t in pairs)
    return (tp * tn - fp * fn) / mpmath.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + mpf(1e-7))


def region(parameters, p, target, options, foreground_mean=False):
    """The loss of an index; without a cost in `parameters` that of Matthews's correlation, a mean over classes."""
    cost, delta, share = parameters
    delta, smooth, kind = mpf(delta), mpf(1e-6), options.get("overlap", "product")
    samples, classes, voxels = SHAPE
    groups = [range(samples)] if options.get("pool") == "batch" else [[b] for b in range(samples)]
    total = mpf(0)
    for group in groups:
        pairs = [[(p[b][c][v], mpf(target[b][c][v])) for b in group for v in range(voxels)] for c in range(classes)]
        volumes = [sum(t for _, t in each) for each in pairs]
        weights = options.get("class_weight", [1] * classes)
        if weights == "inverse_volume":
            weights = [min(v for v in volumes if v) / v if v else mpf(1) for v in volumes]
        costs = []
        for each in pairs:
            if cost is None:
                costs.append(1 - correlation(each))
                continue
            if kind == "minimum":
                hit = sum(min(q, t) for q, t in each)
                excess, missed = sum(max(q - t, 0) for q, t in each), sum(max(t - q, 0) for q, t in each)
                index = (hit + smooth) / (hit + delta * missed + (1 - delta) * excess + smooth)
            elif kind == "squared":
                above = sum(q * t for q, t in each) + smooth
                index = above / (sum(q**2 + t**2 for q, t in each) / 2 + smooth)
            else:
                hit = sum(q * t for q, t in each)
                errors = sum(delta * (1 - q) * t + (1 - delta) * q * (1 - t) for q, t in each)
                index = (hit + smooth) / (hit + errors + smooth)
            costs.append(cost(index))
        if foreground_mean:  # inverse volumes are those of the classes that count
            costs, volumes, chosen = costs[1:], volumes[1:], weights[1:]
            if options.get("class_weight") == "inverse_volume":
                chosen = [min(v for v in volumes if v) / v if v else mpf(1) for v in volumes]
            weights = chosen
        value = sum(w * x for w, x in zip(weights, costs, strict=True))
        mean = cost is None or options.get("class_reduction") == "mean"
        total += value / sum(weights) if mean else value
    return mpf(share) * total / len(groups)


def test_skeleton_recall_in_forty_digits():
    """Three voxels of two classes, a line that is its own skeleton, beside Dice + cross entropy."""
    logits = torch.tensor([[[0.5, -1.25, 2.0], [-0.75, 0.25, 1.5]]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 1, 1]])

    def total(x):
        p = [mpmath.exp(b) / (mpmath.exp(a) + mpmath.exp(b)) for a, b in zip(*x, strict=True)]
        entropy = -(mpmath.log(1 - p[0]) + mpmath.log(p[1]) + mpmath.log(p[2])) / 3
        dice = (2 * (p[1] + p[2]) + mpf(1e-5)) / (sum(p) + 2 + mpf(1e-5))
        return entropy - dice - mpf(0.25) * (p[1] + p[2] + mpf(1e-5)) / (2 + mpf(1e-5))

    value = get_loss("skeleton_recall", recall_weight=0.25)(logits, labels)
    value.backward()
    numbers = [[mpf(x) for x in row] for row in logits[0].tolist()]
    assert value.item() == pytest.approx(float(total(numbers)), rel=1e-14)
    step = mpf(10) ** -20
    for c, v in itertools.product(range(2), range(3)):
        sides = []
        for sign in (1, -1):
            numbers[c][v] += sign * step
            sides.append(total(numbers))
            numbers[c][v] -= sign * step
        slope = (sides[0] - sides[1]) / (2 * step)
        assert logits.grad[0, c, v].item() == pytest.approx(float(slope), rel=1e-12)


def problem(soft):
    generator = torch.Generator().manual_seed(int(soft))
    logits = 2 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 1]])  # class 2 is absent from the second sample
    if soft:
        target = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
        return logits, target, target
    return logits, labels, torch.nn.functional.one_hot(labels, SHAPE[1]).movedim(2, 1).double()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in LOSSES for options in OPTIONS if accepts(name, options)], ids=str
)
def test_value_and_gradient_in_forty_digits(name, options, soft, activation):
    logits, given, target = problem(soft)
    leaf = logits.clone().requires_grad_()
    own = {"top_k": 33.3} if name == "topk" else {}
    value = get_loss(name, activation=activation, **own, **options)(leaf, given)
    value.backward()
    numbers = [[[mpf(x) for x in row] for row in sample] for sample in logits.tolist()]
    expected = exact(name, numbers, target.tolist(), activation, options)
    assert value.item() == pytest.approx(float(expected), rel=1e-13, abs=1e-14)
    step = mpf(10) ** -20
    for b, c, v in ((0, 0, 0), (0, 2, 1), (1, 1, 3), (1, 2, 2)):
        sides = []
        for sign in (1, -1):
            numbers[b][c][v] += sign * step
            sides.append(exact(name, numbers, target.tolist(), activation, options))
            numbers[b][c][v] -= sign * step
        slope = (sides[0] - sides[1]) / (2 * step)
        assert leaf.grad[b, c, v].item() == pytest.approx(float(slope), rel=1e-11, abs=1e-14)
