"""What every loss of the catalogue must satisfy; a new loss is tested here by being listed, and needs a twin."""

import math
from functools import partial

import pytest
import torch
from loss_twin import NEIGHBOURS, PER_LESION, SKELETONS, accepts, one_hot, twin
from torch.torch_version import TorchVersion

from voxloss import distance_maps, functional, get_loss, lesion_regions, list_losses, skeleton_tubes
from voxloss.losses.catalogue import CATALOGUE

LOSSES = list_losses()
OPTIONS = [
    {},
    {"class_reduction": "sum"},
    {"class_reduction": "mean"},
    {"pool": "sample"},
    {"pool": "batch"},
    {"absent_class": "keep"},
    {"absent_class": "skip"},
    {"include_background": True},
    {"include_background": False},
    {"include_background": None},
    {"ignored_samples": "keep"},
    {"smooth": 1.0},
    {"overlap": "minimum"},
    {"overlap": "squared"},
    {"label_smoothing": 0.3},
    {"overlap": "minimum", "label_smoothing": 0.1, "pool": "batch", "absent_class": "skip"},
    {"pool": "batch", "absent_class": "skip", "class_reduction": "mean", "include_background": False},
]
KINDS = ["labels", "soft", "multi-hot"]
SHAPES = [(2, 3, 7), (2, 3, 3, 4), (2, 3, 2, 2, 3)]  # 1D, 2D and 3D


def problem(shape, kind, seed=0):
    """Logits, what is given as labels, and the same as targets (B, C, *spatial). Class 2 is absent from sample 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[1:] = labels[1:].clamp_max(1)
    if kind == "labels":
        return logits, labels, one_hot(labels, shape[1])
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    target[1:, 2] = 0
    return (logits, target, target) if kind == "soft" else (logits, target.round(), target.round())


def outcome(compute, logits, *others):
    """Value and gradient of compute(logits, *others)."""
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    if not value.requires_grad:
        return value.detach(), torch.zeros_like(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def changes(name, options):
    """Whether the loss takes the options, and some are others than it has by default."""
    if not accepts(name, options):
        return False
    loss = get_loss(name)
    return any(getattr(loss, option) != value for option, value in options.items())


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in LOSSES for options in OPTIONS if not options or changes(name, options)],
    ids=str,
)
def test_every_option_agrees_with_the_twin(name, options):
    for turn, kind in enumerate(KINDS):
        for activation in ("softmax", "sigmoid"):
            for ignoring, weighted in ((False, False), (True, True)):
                logits, labels, target = problem(SHAPES[turn], kind, seed=turn)
                generator = torch.Generator().manual_seed(9)
                keep = torch.rand(target[:, 0].shape, generator=generator) > 0.3 if ignoring else None
                weight = torch.rand(target[:, 0].shape, generator=generator) if weighted else None
                if ignoring:
                    labels = torch.where(keep if kind == "labels" else keep[:, None], labels, 255)
                loss = get_loss(name, activation=activation, ignore_index=255 if ignoring else None, **options)
                slow = partial(twin, name, activation=activation, options=options)
                expected, gradient = outcome(slow, logits, target, keep, weight)
                value, ours = outcome(loss, logits, labels, weight)
                torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(ours, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_one_channel_agrees_with_the_twin(name):
    logits = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.7).double()
    expected = outcome(partial(twin, name, activation="sigmoid"), logits, mask)
    for given in (mask, mask.bool(), mask[:, 0].to(torch.uint8)):
        value = outcome(get_loss(name, activation="sigmoid"), logits, given)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_stay_in_the_stated_range(name, kind):
    low, high = CATALOGUE[name].value_range.strip("[()]").split(", ")
    low = low.replace("-∞", "-inf")
    high = math.inf if high == "∞" else eval(high.replace("·", "*"), {"C": 3})
    logits, labels, target = problem((2, 3, 40), kind)
    right = 60 * (target - 0.5)
    for x in (logits, right, -right, torch.zeros_like(logits), 1e4 * logits):
        value = get_loss(name)(x, labels).item()
        assert float(low) - 1e-9 <= value <= high + 1e-3


@pytest.mark.parametrize("labels", [0, 1, 2])
@pytest.mark.parametrize("absent_class", ["keep", "skip"])
@pytest.mark.parametrize("name", LOSSES)
def test_single_voxel_of_a_single_class(name, absent_class, labels):
    logits = torch.randn(1, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(labels))
    given = torch.full((1, 1, 1), labels)
    options = {"absent_class": absent_class}
    ours = outcome(get_loss(name, **options), logits, given)
    expected = outcome(partial(twin, name, options=options), logits, one_hot(given, 3))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert ours[1].isfinite().all()


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_invariances(name, activation, pool):
    """Order of the samples, of the voxels and of the foreground classes, and copies of a sample, change nothing."""
    logits, labels, _ = problem((3, 4, 5, 6), "labels")
    loss = get_loss(name, activation=activation, pool=pool, smooth=0 if pool == "batch" else 1e-6)
    value, gradient = outcome(loss, logits, labels)

    samples = torch.tensor([2, 0, 1])
    torch.testing.assert_close(outcome(loss, logits[samples], labels[samples]), (value, gradient[samples]))

    if name == "hausdorff":  # measures distances in the prediction, which a mirror keeps
        torch.testing.assert_close(outcome(loss, logits.flip(2, 3), labels.flip(1, 2)), (value, gradient.flip(2, 3)))
    voxels = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    if name in NEIGHBOURS:  # the order of the axes and their directions alone
        voxels = torch.arange(30).view(5, 6).flip(0).T.flatten()
    regions = lesion_regions(labels, 4, activation=activation).flatten(2)[..., voxels]  # lesions are of neighbours
    distances = distance_maps(labels, 4, activation=activation).flatten(2)[..., voxels]  # of borders
    tubes = skeleton_tubes(labels, 4, activation=activation).flatten(1)[:, voxels]  # and skeletons of shapes
    maps = {"regions": regions} if name in PER_LESION else {"distances": distances} if name == "boundary" else {}
    moved = partial(loss, **maps | ({"skeletons": tubes} if name in SKELETONS else {}))
    grid = (6, 5) if name in NEIGHBOURS else (30,)
    given = [tensor.unflatten(-1, grid) for tensor in (logits.flatten(2)[..., voxels], labels.flatten(1)[:, voxels])]
    changed, slope = outcome(moved, *given)
    if name != "hausdorff":
        torch.testing.assert_close((changed, slope.flatten(2)), (value, gradient.flatten(2)[..., voxels]))

    classes = torch.tensor([0, 3, 1, 2])
    renamed = outcome(loss, logits[:, classes], classes.argsort()[labels])
    torch.testing.assert_close(renamed, (value, gradient[:, classes]))

    one = outcome(loss, logits[:1], labels[:1])
    copies = outcome(loss, logits[:1].expand(3, -1, -1, -1), labels[:1].expand(3, -1, -1))
    torch.testing.assert_close(copies, (one[0], (one[1] / 3).expand(3, -1, -1, -1)))


# Before torch 2.10 the compiler does not take a number of lesions that depends on the labels.
COMPILED = [name for name in LOSSES if name not in PER_LESION or torch.__version__ >= TorchVersion("2.10")]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_whole(name):
    """Without a break of the graph, forward and backward; a label out of range is found in it, too."""
    torch.compiler.reset()
    logits, labels, _ = problem((2, 3, 3, 4), "labels")
    loss = get_loss(name)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        outcome(lambda x: compiled(x, labels), logits), outcome(lambda x: loss(x, labels), logits)
    )
    with pytest.raises(ValueError, match="label 3 is outside the allowed range 0 to 2"):
        compiled(logits, labels + 1)


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < TorchVersion("2.10"), reason="a loss is built in the graph from torch 2.10 on")
@pytest.mark.parametrize("name", LOSSES)
def test_functional_form_compiles_whole(name):
    torch.compiler.reset()
    logits, labels, _ = problem((2, 3, 3, 4), "labels")
    function = getattr(functional, f"{name}_loss")
    # Whether the graph is whole is up to the front end; what backends make of it is tested above.
    compiled = torch.compile(lambda x: function(x, labels, smooth=0.5), fullgraph=True, backend="eager")
    expected = outcome(lambda x: function(x, labels, smooth=0.5), logits)
    torch.testing.assert_close(outcome(compiled, logits), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("dynamic", "sizes"), [(False, [4]), (True, [4, 6])], ids=["one shape", "several shapes"])
def test_compiles_whole_training_steps(dynamic, sizes):
    """With a network in front, under autocast, by torch's default compiler, for one shape or for shapes that change."""
    torch.compiler.reset()
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1).to(memory_format=torch.channels_last)
    loss = get_loss("mixed_focal", ignore_index=9)

    def step(images, labels):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(network(images), labels)

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    for rows in sizes:
        images = torch.randn(2, 1, rows, 8).to(memory_format=torch.channels_last)
        labels = torch.randint(0, 3, (2, 1, rows, 8), dtype=torch.uint8)
        results = []
        for run in (compiled, step):
            network.zero_grad()
            value = run(images, labels)
            value.backward()
            results.append((value.detach(), network.weight.grad.clone()))
        torch.testing.assert_close(*results, rtol=1e-2, atol=1e-4)


def test_asymmetric_by_hand():
    """Labels 0 0 1 1, p_1 = 1/4 1/4 3/4 1/4: TP_0 = 3/2, FN_0 = 1/2, FP_0 = 1; TP_1 = 1, FN_1 = 1, FP_1 = 1/2."""
    p = torch.tensor([0.25, 0.25, 0.75, 0.25], dtype=torch.float64)
    logits, labels = torch.stack([1 - p, p]).log()[None], torch.tensor([[0, 0, 1, 1]])
    error_0 = 1 - 1.5 / (1.5 + 0.7 * 0.5 + 0.3 * 1)
    error_1 = 1 - 1 / (1 + 0.7 * 1 + 0.3 * 0.5)
    value = get_loss("asymmetric_focal_tversky", smooth=0)(logits, labels)
    assert value.item() == pytest.approx(error_0 + error_1**0.25)
    mean = get_loss("asymmetric_focal_tversky", smooth=0, class_reduction="mean", include_background=False)
    assert mean(logits, labels).item() == pytest.approx(error_1**0.25)

    background = -0.4 * 2 * 0.25**0.5 * math.log(0.75)  # 1-δ = 0.4, (1-p_0)^γ with γ = 1/2
    foreground = -0.6 * (math.log(0.75) + math.log(0.25))
    unified = get_loss("asymmetric_unified_focal", weight=1)
    assert unified(logits, labels).item() == pytest.approx((background + foreground) / 4)
    foreground = -0.6 * (0.25**0.5 * math.log(0.75) + 0.75**0.5 * math.log(0.25))
    assert get_loss("unified_focal", weight=1)(logits, labels).item() == pytest.approx((background + foreground) / 4)


def test_generalised_dice_by_hand():
    """Three voxels of class 0 and one of class 1, p = 1/3 each: weights (1/3)² and 1; class 2 is absent."""
    logits, labels = torch.zeros(1, 3, 4, dtype=torch.float64), torch.tensor([[0, 0, 0, 1]])
    # TP 1, 1/3, 0; FN 2, 2/3, 0; FP 1/3, 1, 4/3
    above = 1 / 9 * 1 + 1 / 3
    below = 1 / 9 * (1 + (2 + 1 / 3) / 2) + (1 / 3 + (2 / 3 + 1) / 2)
    keep = get_loss("generalised_dice", smooth=0)(logits, labels)
    assert keep.item() == pytest.approx(1 - above / (below + 4 / 3 / 2))
    skip = get_loss("generalised_dice", smooth=0, absent_class="skip")(logits, labels)
    assert skip.item() == pytest.approx(1 - above / below)


def test_log_cosh_dice_by_hand():
    """p = 1/2 everywhere, labels half and half: each class has index 1/2, and log cosh(1/2) = 0.120."""
    logits, labels = torch.zeros(1, 2, 4, dtype=torch.float64), torch.tensor([[0, 0, 1, 1]])
    value = get_loss("log_cosh_dice", smooth=0)(logits, labels).item()
    assert value == pytest.approx(2 * math.log(math.cosh(0.5))) == pytest.approx(0.2402, abs=1e-4)


def test_identities_of_the_family():
    logits, labels, _ = problem((2, 3, 5, 4), "labels")

    def value(name, **parameters):
        return get_loss(name, **parameters)(logits, labels).item()

    for weight in (0.3, None):
        shared = {"weight": weight, "delta": 0.7}
        assert value("asymmetric_unified_focal", gamma=0, **shared) == pytest.approx(
            value("unified_focal", gamma=0, **shared)
        )
    assert value("unified_focal", weight=1, delta=0.5, gamma=0) == pytest.approx(value("cross_entropy") / 2)
    assert value("unified_focal", weight=0, delta=0.5, gamma=0) == pytest.approx(value("dice"))
    assert value("unified_focal", weight=0, delta=0.7, gamma=0.25) == pytest.approx(value("focal_tversky"))
    assert value("asymmetric_unified_focal", weight=0, delta=0.7, gamma=0.75) == pytest.approx(
        value("asymmetric_focal_tversky")
    )
    assert value("asymmetric_focal_tversky", gamma=0) == pytest.approx(value("tversky"))
    assert value("dice_focal", alpha=0.25, class_reduction="sum", weight=0.2) == pytest.approx(
        value("mixed_focal", weight=0.2, delta=0.5, gamma_tversky=1)
    )
    assert value("dice_focal", gamma=0) == pytest.approx(value("combo") + 1)
    assert value("dice_focal", weight=1) == pytest.approx(value("focal", alpha=1))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_is_the_loss_of_its_voxels_alone(name, kind, activation):
    """Also with NaN outside it; as without these voxels, and as with an ignored label there."""
    logits, labels, _ = problem((2, 3, 40), kind)
    mask = torch.zeros(2, 40, dtype=torch.bool)
    mask[:, 5:12] = True
    loss = get_loss(name, activation=activation)
    within = outcome(loss, logits[..., 5:12], labels[..., 5:12])
    spoilt = logits.clone()
    spoilt[..., 20] = math.nan
    for given in (mask, mask[:, None], mask.double(), mask.byte()):
        value, gradient = outcome(partial(loss, mask=given), spoilt, labels)
        assert value.item() == pytest.approx(within[0].item(), rel=1e-12)
        torch.testing.assert_close(gradient[..., 5:12], within[1], rtol=1e-12, atol=1e-15)
        assert (gradient.masked_fill(mask[:, None], 0) == 0).all()
    if kind == "labels":
        ignored = labels.masked_fill(~mask, 255)
        by_label = get_loss(name, activation=activation, ignore_index=255)
        assert by_label(logits, ignored).item() == pytest.approx(within[0].item(), rel=1e-12)
        both = labels.masked_fill(torch.arange(40) == 6, 255).byte()
        kept = mask & (torch.arange(40) != 6)
        assert by_label(logits, both, mask=mask).item() == pytest.approx(loss(logits, labels, mask=kept).item())
    assert getattr(functional, f"{name}_loss")(logits, labels, mask=mask, activation=activation) == loss(
        logits, labels, mask=mask
    )


def test_masks_that_do_not_fit_are_refused():
    logits, labels, _ = problem((2, 3, 7), "labels")
    with pytest.raises(ValueError, match=r"mask of shape \(2, 6\) does not fit"):
        get_loss("dice")(logits, labels, mask=torch.ones(2, 6))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_labels_out_of_range_that_are_not_checked_count_as_ignored(name, activation):
    logits, labels, _ = problem((2, 3, 8, 9), "labels")
    bad = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    values = torch.tensor([-1, -(2**40), 3, 255])[torch.arange(labels.numel()) % 4].view(labels.shape)
    ours = outcome(get_loss(name, activation=activation, validate=False), logits, torch.where(bad, values, labels))
    ignored = torch.where(bad, 77, labels)
    expected = outcome(get_loss(name, activation=activation, ignore_index=77), logits, ignored)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_no_voxel_and_no_sample(name):
    for shape in ((2, 3, 0, 4), (0, 3, 4, 4)):
        leaf = torch.zeros(shape, requires_grad=True)
        value = get_loss(name)(leaf, torch.zeros(shape[0], *shape[2:], dtype=torch.long))
        value.backward()
        assert value.isfinite() and leaf.grad.shape == shape


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_fully_ignored_sample_does_not_change_the_loss_of_the_others(name, pool):
    logits, labels, _ = problem((3, 3, 7), "labels")
    labels[1] = 255
    loss = get_loss(name, ignore_index=255, pool=pool)
    others = loss(logits[[0, 2]], labels[[0, 2]])
    assert loss(logits, labels).item() == pytest.approx(others.item(), rel=1e-12)
    kept = get_loss(name, ignore_index=255, pool=pool, ignored_samples="keep")(logits, labels)
    if pool == "sample" and name in ("dice", "tversky", "focal_tversky", "generalised_dice", "log_cosh_dice"):
        assert kept.item() == pytest.approx(others.item() * 2 / 3, rel=1e-12)
    labels[:] = 255
    leaf = logits.clone().requires_grad_()
    nothing = loss(leaf, labels)
    nothing.backward()
    assert nothing.item() == 0 and (leaf.grad == 0).all()
