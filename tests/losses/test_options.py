"""Options of value and weight: one value per sample or class, weights of classes and samples."""

import itertools
import warnings

import pytest
import torch
from loss_twin import accepts, one_hot

import voxloss
from voxloss import get_loss, list_losses
from voxloss.config.losses import check_losses, loss_choices
from voxloss.utilities.errors import InputError

LOSSES = list_losses()
BY_CLASS = [name for name in LOSSES if name != "generalised_dice"]
REGION = ["dice", "tversky", "focal_tversky", "cosine_tversky", "asymmetric_focal_tversky", "log_cosh_dice"]
CHANNELS = [name for name in LOSSES if name not in ("topk", "dice_topk")]  # that channels can be ignored in apart
KINDS = [("softmax", "labels"), ("softmax", "soft"), ("sigmoid", "labels"), ("sigmoid", "multi-hot")]


def problem(kind, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 4, 5, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (batch, 5, 3), generator=generator)
    labels[1:] = labels[1:].clamp_max(2)  # class 3 is absent from the other samples
    if kind == "labels":
        return logits, labels
    target = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    return logits, target.round() if kind == "multi-hot" else target


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize(("activation", "kind"), KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_sample_is_the_loss_of_each(name, activation, kind, pool):
    logits, labels = problem(kind)
    options = {"activation": activation, "pool": pool}
    loss, alone = get_loss(name, reduction="none", **options), get_loss(name, **options)
    expected = torch.stack([alone(z[None], y[None]) for z, y in zip(logits, labels, strict=True)])
    values = loss(logits, labels)
    assert values.shape == (3,)
    close(values, expected)
    close(get_loss(name, reduction="sum", **options)(logits, labels), expected.sum())
    leaf = logits.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(leaf, labels)[1], leaf)[0]
    assert (gradient[[0, 2]] == 0).all() and gradient[1].abs().sum() > 0


def test_one_value_per_sample_is_not_of_all_ranks():
    for reduction in ("none", "sum"):
        with pytest.raises(ValueError, match="takes each sample by itself"):
            get_loss("dice", reduction=reduction, pool="world")


@pytest.mark.parametrize(("activation", "kind"), KINDS)
@pytest.mark.parametrize("name", BY_CLASS)
def test_one_value_per_class_adds_up(name, activation, kind):
    logits, labels = problem(kind)
    for background in (True, False):
        options = {"activation": activation, "include_background": background, "pool": "sample"}
        by_class = get_loss(name, class_reduction="none", **options)(logits, labels)
        assert by_class.shape == (4,)
        close(by_class.sum(), get_loss(name, class_reduction="sum", **options)(logits, labels))
        each = get_loss(name, class_reduction="none", reduction="none", **options)(logits, labels)
        assert each.shape == (3, 4)
        close(each.sum(1), get_loss(name, class_reduction="sum", reduction="none", **options)(logits, labels))
        if name in REGION:
            close(each.mean(0), by_class)
            assert background or (each[:, 0] == 0).all()


def test_the_generalised_dice_has_no_classes_to_part():
    for options in ({"class_reduction": "none"}, {"class_weight": [1, 2]}):
        with pytest.raises(ValueError, match="one index for all classes"):
            get_loss("generalised_dice", **options)


@pytest.mark.parametrize("absent", ["keep", "skip"])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", REGION)
def test_class_weights_multiply_the_costs(name, background, absent):
    logits, labels = problem("labels")
    weight = torch.tensor([0.5, 1.0, 4.0, 2.0], dtype=torch.float64)
    options = {"include_background": background, "absent_class": absent}
    each = get_loss(name, class_reduction="none", reduction="none", **options)(logits, labels)
    expected = (each * weight).sum(1).mean()
    for given in (weight, weight.tolist(), tuple(weight.tolist()), weight.numpy()):
        close(get_loss(name, class_weight=given, **options)(logits, labels), expected)
    present = torch.stack([(labels == c).flatten(1).any(1) for c in range(4)], 1)
    counts = weight.expand(3, 4) * (present if absent == "skip" else 1) * torch.tensor([background, True, True, True])
    mean = get_loss(name, class_weight=weight, class_reduction="mean", **options)(logits, labels)
    close(mean, ((each * weight).sum(1) / counts.sum(1)).mean())
    close(
        get_loss(name, class_weight=[1, 1, 1, 1], class_reduction="mean", **options)(logits, labels),
        get_loss(name, class_reduction="mean", **options)(logits, labels),
    )


def test_a_mean_over_classes_of_weight_zero_is_zero():
    logits, labels = problem("labels")
    assert get_loss("dice", class_weight=[0, 0, 0, 0], class_reduction="mean")(logits, labels) == 0


@pytest.mark.parametrize("pool", ["sample", "batch"])
def test_inverse_volumes(pool):
    logits, labels = problem("labels")
    volumes = torch.stack([(labels == c).flatten(1).sum(1) for c in range(4)], 1).double()
    if pool == "batch":
        volumes = volumes.sum(0, keepdim=True)
    smallest = torch.where(volumes > 0, volumes, torch.inf).amin(1, keepdim=True)
    weight = torch.where(volumes > 0, smallest / volumes, 1.0)
    options = {"pool": pool}
    if pool == "batch":
        each = get_loss("dice", class_reduction="none", **options)(logits, labels)[None]
    else:
        each = get_loss("dice", class_reduction="none", reduction="none", **options)(logits, labels)
    found = get_loss("dice", class_weight="inverse_volume", **options)(logits, labels)
    close(found, (each * weight).sum(1).mean())
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(get_loss("dice", class_weight="inverse_volume", **options), (leaf, labels))


def test_class_weights_of_the_wrong_number_are_refused():
    logits, labels = problem("labels")
    with pytest.raises(ValueError, match=r"class_weight has 3 values \(1.0, 2.0, 3.0\) for 4 classes"):
        get_loss("dice", class_weight=[1, 2, 3], include_background=False)(logits, labels)
    for wrong in (2.0, "volume", [-1, 2], []):
        with pytest.raises(ValueError, match="class_weight must be finite numbers not below 0"):
            get_loss("dice", class_weight=wrong)


@pytest.mark.parametrize(("activation", "kind"), KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_sample_weights_multiply_the_losses(name, activation, kind):
    logits, labels = problem(kind)
    loss = get_loss(name, activation=activation, pool="sample")
    each = get_loss(name, activation=activation, pool="sample", reduction="none")
    weight = torch.tensor([0.5, 0.0, 3.0], dtype=torch.float64)
    expected = (each(logits, labels) * weight).mean()  # samples of equal size
    close(loss(logits, labels, sample_weight=weight), expected)
    close(loss(logits, labels, sample_weight=weight[:, None].float()), expected)
    close(loss(logits, labels, sample_weight=torch.ones(3)), loss(logits, labels))
    close(each(logits, labels, sample_weight=weight), each(logits, labels) * weight)
    close(getattr(voxloss.functional, f"{name}_loss")(
        logits, labels, sample_weight=weight, activation=activation, pool="sample"), expected)  # fmt: skip
    leaf = logits.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(leaf, labels, sample_weight=weight), leaf)[0]
    assert (gradient[1] == 0).all()


def test_sample_weights_of_a_pooled_loss_weigh_the_sums():
    logits, labels = problem("labels")
    weight = torch.tensor([0.5, 0.0, 3.0], dtype=torch.float64)
    voxels = weight[:, None, None].expand(3, 5, 3)
    for name in ("dice", "cross_entropy", "dice_cross_entropy"):
        loss = get_loss(name, pool="batch")
        close(loss(logits, labels, sample_weight=weight), loss(logits, labels, voxels))


def test_sample_weights_that_do_not_fit_are_refused():
    logits, labels = problem("labels")
    with pytest.raises(ValueError, match=r"sample_weight of shape \(2,\) does not fit .* expected \(3,\)"):
        get_loss("dice")(logits, labels, sample_weight=torch.ones(2))


def test_compound_and_deep_supervision_give_one_value_per_sample():
    logits, labels = problem("labels")
    options = {"reduction": "none", "pool": "sample"}
    parts = [get_loss("dice", **options), get_loss("cross_entropy", **options)]
    pair = voxloss.Compound(parts, weights=[1, 0.5])
    expected = parts[0](logits, labels) + 0.5 * parts[1](logits, labels)
    close(pair(logits, labels), expected)
    weight = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    close(pair(logits, labels, sample_weight=weight), expected * weight)
    deep = voxloss.DeepSupervision(pair)
    close(deep([logits, logits], labels, sample_weight=weight), expected * weight)
    with pytest.raises(ValueError, match="of all losses of a Compound, or of none"):
        voxloss.Compound([get_loss("dice", class_reduction="none"), get_loss("focal")])(logits, labels)


def test_one_value_per_sample_under_transforms():
    logits, labels = problem("labels")
    loss = get_loss("dice_focal", reduction="none", pool="sample")
    found = torch.func.jacrev(lambda z: loss(z, labels))(logits)
    for b in range(3):
        leaf = logits.clone().requires_grad_()
        close(found[b], torch.autograd.grad(loss(leaf, labels)[b], leaf)[0])


def test_a_study_needs_one_value():
    for entry in ({"name": "dice", "reduction": "none"}, {"name": "dice", "class_reduction": "none"}):
        with pytest.raises(InputError, match="gives several values, but training needs one"):
            check_losses(loss_choices([entry]))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 3, 2), (1, 2, 2, 2, 3)])
def test_probabilities_give_value_and_gradient_of_the_logits_behind_them(shape):
    generator = torch.Generator().manual_seed(len(shape))
    logits = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    for name, (activation, activate) in itertools.product(
        LOSSES, (("softmax", torch.softmax), ("sigmoid", lambda z, _: torch.sigmoid(z)))
    ):
        expected = get_loss(name, activation=activation)(logits, labels)
        value = get_loss(name, activation=activation, inputs="probabilities")(activate(logits, 1), labels)
        close(value, expected)
        slopes = [torch.autograd.grad(each, logits)[0] for each in (value, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_of_zero_and_one_are_finite(activation, dtype):
    p = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]], dtype=dtype, requires_grad=True)
    for name in LOSSES:
        for labels in (torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 0]])):
            value = get_loss(name, activation=activation, inputs="probabilities")(p, labels)
            assert value.isfinite() and torch.autograd.grad(value, p)[0].isfinite().all()


def test_what_cannot_be_probabilities_is_refused():
    logits, labels = problem("labels")
    for activation in ("softmax", "sigmoid"):
        with pytest.raises(ValueError, match=r"needs values in \[0, 1\], received -"):
            get_loss("dice", inputs="probabilities", activation=activation)(logits, labels)
    with pytest.raises(ValueError, match=r'channels that sum to 1 .* use activation="sigmoid"'):
        get_loss("dice", inputs="probabilities")(torch.sigmoid(logits), labels)
    with pytest.raises(ValueError, match="received nan"):
        get_loss("dice", inputs="probabilities")(torch.full_like(logits, torch.nan), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that probabilities were given, which is what was said
        get_loss("dice", inputs="probabilities")(torch.softmax(logits, 1), labels)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_without_labels_adds_nothing(name, weighted, pool):
    """Two data sets, each with labels of some of the structures: what has no labels is as if it were not there."""
    logits, target = problem("multi-hot")
    target[0, 1] = target[1, 2:] = 255  # structures without labels in samples 0 and 1
    target[2, 0, :2] = 255  # and single voxels
    weight = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(2)) if weighted else None
    options = {"activation": "sigmoid", "ignore_index": 255, "ignore_scope": "channel", "pool": pool}
    loss = get_loss(name, **options)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, weight)
    gradient = torch.autograd.grad(value, leaf)[0]
    assert (gradient[target == 255] == 0).all() and (gradient[:, 1][target[:, 1] != 255] != 0).any()
    spoiled = torch.where(target == 255, torch.nan, logits)
    close(loss(spoiled, target, weight), value.detach())
    if name == "generalised_dice":
        return
    # A channel by itself, with the voxels that it has labels for.
    by_class = get_loss(name, class_reduction="none", **options)(logits, target, weight)
    for c in range(4):
        alone = get_loss(name, activation="sigmoid", ignore_index=255, pool=pool, class_reduction="sum")
        single = alone(logits[:, c : c + 1], target[:, c : c + 1], weight)
        if name in REGION and pool == "sample":  # the mean over the samples is over those with any channel
            single = single * (target[:, c] != 255).flatten(1).any(1).sum() / 3
        if name in REGION or name in ("cross_entropy", "focal"):
            close(by_class[c], single)


def test_exponents_of_each_channel_with_channels_ignored():
    logits, target = problem("multi-hot")
    target[0, 1] = 255
    options = {"activation": "sigmoid", "ignore_index": 255, "ignore_scope": "channel", "alpha": 1.0}
    found = get_loss("focal", gamma=[0.0, 1.0, 2.0, 3.0], class_reduction="none", **options)(logits, target)
    for c in range(4):
        close(found[c], get_loss("focal", gamma=float(c), class_reduction="none", **options)(logits, target)[c])


def test_channels_of_labels_and_of_one_value_are_voxels():
    logits, labels = problem("labels")
    labels[0, 0] = 255
    options = {"activation": "sigmoid", "ignore_index": 255}
    for name in CHANNELS:
        channel, voxel = (get_loss(name, ignore_scope=scope, **options) for scope in ("channel", "voxel"))
        close(channel(logits, labels), voxel(logits, labels))
        target = one_hot(labels, 4).masked_fill((labels == 255)[:, None], 255)
        close(channel(logits, target), voxel(logits, labels))
        mask = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(1)) > 0.3
        close(channel(logits, target, mask=mask), voxel(logits, labels, mask=mask))


def test_channels_are_not_ignored_with_softmax():
    with pytest.raises(ValueError, match='ignore_scope="channel" needs activation="sigmoid"'):
        get_loss("dice", ignore_scope="channel")
    logits, target = problem("multi-hot")
    with pytest.raises(ValueError, match="softmax ties the channels together"):
        voxloss.voxel_statistics(logits, target, ignore_index=255, ignore_scope="channel")


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "focal_tversky", "generalised_dice", "log_cosh_dice"])
def test_minima_are_least_at_the_soft_target(name):
    """Where the usual sums are least at p = 1."""
    for target in (0.2, 0.6, 0.9):
        grid = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
        t = torch.full((1, 1, 1), target, dtype=torch.float64)
        for overlap, best in (("minimum", target), ("product", 0.99)):
            loss = get_loss(name, activation="sigmoid", overlap=overlap, smooth=0)
            values = torch.stack([loss(torch.logit(p).reshape(1, 1, 1), t) for p in grid])
            assert float(grid[values.argmin()]) == pytest.approx(best)
            assert overlap == "product" or values.min() < 1e-9


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", [name for name in LOSSES if accepts(name, {"overlap": "minimum"})])
def test_minima_of_hard_targets_are_the_products(name, activation):
    logits, labels = problem("labels")
    target = one_hot(labels, 4)
    usual, minimum = (get_loss(name, activation=activation, overlap=kind) for kind in ("product", "minimum"))
    expected = usual(logits, labels)
    assert torch.equal(minimum(logits, labels), expected)
    close(minimum(logits, target), expected)
    leaf = logits.clone().requires_grad_()
    close(*(torch.autograd.grad(loss(leaf, target), leaf)[0] for loss in (minimum, usual)))


def test_options_of_a_term_that_is_not_there_are_refused():
    for name, options, message in (
        ("dice", {"label_smoothing": 0.1}, "label_smoothing is a parameter of pixelwise terms, and DiceLoss has none"),
        ("focal", {"overlap": "minimum"}, "overlap is a parameter of region terms, and FocalLoss has none"),
        ("cross_entropy", {"class_weight": [1, 2]}, r"class_weight is a parameter of region .*: .* alpha"),
        ("tversky", {"overlap": "squared"}, r'overlap="squared" needs .* delta=0.5, not 0.7'),
    ):
        with pytest.raises(ValueError, match=message):
            get_loss(name, **options)
    assert get_loss("tversky", overlap="squared", delta=0.5).overlap == "squared"


def test_a_compound_of_different_overlaps_and_smoothing_shares_a_pass():
    logits, target = problem("soft")
    parts = [
        get_loss("dice", overlap="squared"),
        get_loss("tversky", overlap="minimum"),
        get_loss("tversky"),
        get_loss("cross_entropy", label_smoothing=0.1),
    ]
    close(voxloss.Compound(parts)(logits, target), sum(part(logits, target) for part in parts))
    with pytest.raises(ValueError, match=r"must agree on label_smoothing.* received 0.1 and 0.0"):
        voxloss.Compound([*parts, get_loss("focal")])
    voxloss.Compound([*parts[:3], "cross_entropy"])(logits, target)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "minimum", "label_smoothing": 0.1},
        {"overlap": "squared"},
        {"inputs": "probabilities"},
        {"activation": "sigmoid", "ignore_index": 255, "ignore_scope": "channel"},
    ],
    ids=str,
)
def test_options_compile_whole(options):
    torch._dynamo.reset()
    logits, target = problem("multi-hot" if "ignore_scope" in options else "soft")
    given = torch.softmax(logits, 1) if "inputs" in options else logits
    loss = get_loss("dice_focal", **options)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = []
    for compute in (compiled, loss):
        leaf = given.clone().requires_grad_()
        value = compute(leaf, target)
        found.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_without_any_labels_is_as_if_it_were_not_there(name):
    logits, target = problem("multi-hot")
    target[:, 2] = 255
    others = [0, 1, 3]
    for reduction in ("sum", "mean"):
        options = {"activation": "sigmoid", "ignore_index": 255, "class_reduction": reduction}
        value = get_loss(name, ignore_scope="channel", **options)(logits, target)
        close(value, get_loss(name, **options)(logits[:, others], target[:, others]))


@pytest.mark.parametrize(
    "name", ["dice", "dice_cross_entropy", "cc_dice_ce", "blob", "boundary", "dice_topk", "lovasz"]
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("class_reduction", ["mean", "none"])
@pytest.mark.parametrize("options", [{}, {"activation": "sigmoid", "ignore_index": -1, "ignore_scope": "channel"}])
def test_an_empty_batch_has_no_values(name, reduction, class_reduction, options):
    if options and name not in CHANNELS:
        pytest.skip("the hardest voxels are those of all channels")
    logits = torch.zeros(0, 3, 4, 5, requires_grad=True)
    labels = torch.zeros(0, 3, 4, 5) if options else torch.zeros(0, 4, 5)
    loss = get_loss(name, reduction=reduction, class_reduction=class_reduction, **options)
    value = loss(logits, labels, sample_weight=torch.ones(0))
    of_classes = (3,) if class_reduction == "none" else ()
    assert value.shape == ((0, *of_classes) if reduction == "none" else of_classes)
    assert not value.any()
    value.sum().backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("outside", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["dice_focal", "cc_dice_ce", "boundary", "dice_topk", "lovasz"])
@pytest.mark.parametrize("how", ["mask", "ignore_index", "channel"])
def test_probabilities_of_ignored_voxels_may_be_anything(name, how, outside):
    if how == "channel" and name not in CHANNELS:
        pytest.skip("the hardest voxels are those of all channels")
    generator = torch.Generator().manual_seed(0)
    logits, ignored = torch.randn(2, 3, 5, 4, generator=generator), torch.rand(2, 5, 4, generator=generator) < 0.3
    probabilities, labels = logits.softmax(1), torch.randint(0, 3, (2, 5, 4), generator=generator)
    everywhere, mask, options = ignored[:, None].expand_as(logits), None, {"ignore_index": -1}
    if how == "mask":
        mask = ~ignored
    elif how == "ignore_index":
        labels = labels.masked_fill(ignored, -1)
    else:
        options |= {"activation": "sigmoid", "ignore_scope": "channel"}
        everywhere = torch.rand(2, 3, 5, 4, generator=generator) < 0.3
        probabilities = logits.sigmoid()
        labels = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).masked_fill(everywhere, -1)
    loss = get_loss(name, inputs="probabilities", **options)
    given = probabilities.masked_fill(everywhere, outside).requires_grad_()
    value = loss(given, labels, mask=mask)
    assert value == loss(probabilities, labels, mask=mask)
    value.backward()
    assert not given.grad[everywhere].any() and given.grad.any()
    with pytest.raises(ValueError, match="needs values in"):
        loss(probabilities.masked_fill(~everywhere, 2.0), labels, mask=mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "minimum", "label_smoothing": 0.1},
        {"overlap": "squared", "class_weight": "inverse_volume"},
        {"inputs": "probabilities"},
        {"ignore_scope": "channel", "ignore_index": 255},
    ],
    ids=str,
)
def test_options_in_low_precision(options, activation, dtype):
    if "ignore_scope" in options and activation == "softmax":
        pytest.skip("softmax ties the channels together")
    logits, target = problem("multi-hot" if "ignore_scope" in options else "soft")
    if "ignore_scope" in options:
        target[0, 1] = 255
    given = 3 * logits
    if "inputs" in options:  # none so close to 0 or 1 that it is rounded to it
        given = torch.softmax(logits, 1) if activation == "softmax" else torch.sigmoid(logits)
    rounded = given.to(dtype)
    # In float64 the sums of rounded probabilities would be too far from 1.
    loss = get_loss("dice_focal", activation=activation, validate=False, **options)
    found = []
    for kind in (dtype, torch.float64):
        leaf = rounded.to(kind).requires_grad_()
        value = loss(leaf, target)
        found.append((value.double(), torch.autograd.grad(value, leaf)[0].double()))
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found[0][1], found[1][1], rtol=tolerance, atol=tolerance * found[1][1].abs().max().item()
    )
