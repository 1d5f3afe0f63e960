"""Options of value and weight: one value per sample or class, weights of classes and samples."""

import pytest
import torch

import voxloss
from voxloss import get_loss, list_losses
from voxloss.config.losses import check_losses, loss_choices
from voxloss.utilities.errors import InputError

LOSSES = list_losses()
BY_CLASS = [name for name in LOSSES if name != "generalised_dice"]
REGION = ["dice", "tversky", "focal_tversky", "cosine_tversky", "asymmetric_focal_tversky", "log_cosh_dice"]
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
