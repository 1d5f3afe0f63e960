"""Losses per lesion: maps against SciPy, values by hand, options of their own, and where lesions are none or touch."""

import math
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from loss_twin import components, nearest, one_hot, twin
from mpmath import mpf
from scipy import ndimage

import voxloss
from voxloss import Compound, DeepSupervision, get_loss, lesion_regions
from voxloss.losses.voxel_pass import plain
from voxloss.losses.voxel_pass.lesions import maps
from voxloss.transforms import LesionRegions

LOSSES = ["cc_dice_ce", "blob"]
SHAPES = [(7, 9, 8), (13, 21), (40,), (1, 1, 6), (5, 1, 9)]


def mask(shape, density, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def problem(shape=(2, 3, 6, 7), seed=0, kind=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits.to(kind), labels * mask(labels.shape, 0.3, seed + 1)


def outcome(compute, logits, *others):
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_components_and_distances_are_those_of_scipy(shape, density):
    for seed in range(3):
        given = mask(shape, density, seed)
        expected, count = ndimage.label(given.numpy(), np.ones((3,) * len(shape)))
        found, number = maps.label_components(given)
        assert number == count and np.array_equal(found.numpy(), expected)
        regions = lesion_regions(given[None, None].long(), 2)[0, 0].numpy()
        if count == 0:
            assert not regions.any()
            continue
        away = ndimage.distance_transform_edt(expected == 0)
        own = np.stack([ndimage.distance_transform_edt(expected != k + 1) for k in range(count)])
        np.testing.assert_array_equal(np.take_along_axis(own, regions[None] - 1, 0)[0], away)
        # At equal distance the lowest number, by whole numbers, as two roots of one number may differ.
        assert np.array_equal(regions, np.rint(own**2).argmin(0) + 1)


def test_a_winding_component_is_one():
    """A spiral, along which numbers would have to be handed on voxel by voxel; and a chessboard, joined by corners."""
    spiral = torch.zeros(41, 41, dtype=torch.bool)
    row, column, length, turn = 20, 20, 2, 0
    while min(row, column) >= 0 and max(row, column) <= 40:
        for _ in range(length):
            if min(row, column) >= 0 and max(row, column) <= 40:
                spiral[row, column] = True
            row, column = row + (0, 1, 0, -1)[turn], column + (1, 0, -1, 0)[turn]
        turn, length = (turn + 1) % 4, length + (turn % 2) * 2
    assert maps.label_components(spiral)[1] == ndimage.label(spiral.numpy(), np.ones((3, 3)))[1] == 1
    board = torch.arange(30)[:, None] + torch.arange(30) & 1 == 0
    assert maps.label_components(board)[1] == 1


def test_long_distances_keep_their_number():
    """Where squared distance times number no longer fits 32 bits."""
    given = torch.zeros(1, 20_000, dtype=torch.long)
    given[0, 0:24:2] = given[0, -1] = 1
    regions = lesion_regions(given, 2)[0, 0]
    border = (22 + 19_999) // 2
    assert regions[[0, 1, 2, 23]].tolist() == [1, 1, 2, 12]
    assert regions[[border, border + 1, 19_999]].tolist() == [12, 13, 13]


def test_regions_of_several_classes_ignored_voxels_and_soft_targets():
    labels = torch.tensor([[1, 0, 0, 2, 2, 0, 9, 1, 1]])
    found = lesion_regions(labels, 3, ignore_index=9)
    assert found.dtype == torch.int32
    assert found.tolist() == [[[1, 1, 1, 1, 2, 2, 2, 2, 2], [1] * 9]]
    assert lesion_regions(labels[:, None], 3, ignore_index=9).equal(found)
    assert lesion_regions(labels, 3, activation="sigmoid", ignore_index=9)[:, 1:].equal(found)
    soft = torch.tensor([[[0.5, 0.49, 0.0, 0.7]]])
    assert lesion_regions(soft, 1, activation="sigmoid").tolist() == [[[1, 1, 2, 2]]]
    both = torch.cat([soft, 1 - soft], 1)
    assert lesion_regions(both, 2, multi_hot=True).tolist() == [[[1] * 4]]
    assert lesion_regions(both, 2, activation="sigmoid", multi_hot=True).tolist() == [[[1, 1, 2, 2], [1] * 4]]
    assert lesion_regions(labels.new_zeros(2, 3, 3), 2).tolist() == [[[[0] * 3] * 3]] * 2
    assert lesion_regions(np.array([[1, 0, 1]]), 2).tolist() == [[[1, 1, 2]]]
    assert lesion_regions(labels.new_zeros(0, 3), 2).shape == (0, 1, 3)


def test_wrong_maps_and_labels_are_refused():
    logits, labels = problem()
    loss = get_loss("cc_dice_ce")
    regions = lesion_regions(labels, 3)
    with pytest.raises(ValueError, match=r"regions of shape \(2, 6, 7\) do not fit .* expected \(2, 2, 6, 7\)"):
        loss(logits, labels, regions=regions[:, 0])
    with pytest.raises(ValueError, match=r"regions has 0 at a voxel of a lesion.*lesion_regions makes it"):
        loss(logits, labels, regions=torch.zeros_like(regions))
    of_components = torch.where(one_hot(labels, 3)[:, 1:] > 0, regions, 0)
    with pytest.raises(ValueError, match=r"regions has 0 around the lesions, as a map of components has.*nearest"):
        loss(logits, labels, regions=of_components)
    with pytest.raises(ValueError, match="regions must be whole numbers, received fractions"):
        loss(logits, labels, regions=regions + 0.25)
    for number in (-1, 1_000_000):
        with pytest.raises(ValueError, match=f"regions has the number {number} for 42 voxels"):
            loss(logits, labels, regions=regions.index_fill(-1, torch.tensor([3]), number))
    with pytest.raises(ValueError, match=r"must have the shape \(B, 2, \*spatial\), received \(2, 3, 4, 5\)"):
        lesion_regions(torch.zeros(2, 3, 4, 5), 2, activation="sigmoid", multi_hot=True)
    for shape in ((3,), (2, 3, 4, 5, 6)):
        with pytest.raises(ValueError, match=r"shape \(B, \*spatial\) or \(B, 1, \*spatial\), received"):
            lesion_regions(torch.zeros(shape), 2)
    with pytest.raises(ValueError, match="label 2 is outside the allowed range 0 to 1 of 2 classes"):
        lesion_regions(labels, 2)
    with pytest.raises(ValueError, match="labels must be whole numbers, received"):
        lesion_regions(labels / 4, 3)
    with pytest.raises(ValueError, match="target 2 is outside the allowed range 0 to 1"):
        lesion_regions(labels, 1, activation="sigmoid")
    with pytest.raises(ValueError, match='classes must be 2 or more with "softmax"'):
        lesion_regions(labels, 1)
    with pytest.raises(ValueError, match="activation must be"):
        lesion_regions(labels, 2, activation="relu")


@pytest.mark.parametrize("name", LOSSES)
def test_parameters_without_a_meaning_are_refused(name):
    for wrong in ({"overlap": "minimum"}, {"label_smoothing": 0.1}, {"class_weight": "inverse_volume"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* in a loss per lesion, received"):
            get_loss(name, **wrong)
    with pytest.raises(ValueError, match="must not both be 0"):
        get_loss(name, global_weight=0, lesion_weight=0)


def test_two_lesions_by_hand():
    """Lesions at 0 and 4 of 6 voxels: regions 0-2 (2 is as far from both) and 3-5; p as below."""
    p = torch.tensor([0.5, 0.25, 0.0625, 0.125, 0.25, 0.75], dtype=torch.float64)
    logits, labels = torch.stack([1 - p, p]).log()[None], torch.tensor([[1, 0, 0, 0, 1, 0]])
    alone = {"global_weight": 0, "smooth": 0}
    first = 1 - 2 * 0.5 / (0.8125 + 1) - (math.log(0.5) + math.log(0.75) + math.log(0.9375)) / 3
    second = 1 - 2 * 0.25 / (1.125 + 1) - (math.log(0.875) + math.log(0.25) + math.log(0.25)) / 3
    assert get_loss("cc_dice_ce", **alone)(logits, labels).item() == pytest.approx((first + second) / 2, rel=1e-12)
    outside = math.log(0.75) + math.log(0.9375) + math.log(0.875) + math.log(0.25)
    excess = 0.25 + 0.0625 + 0.125 + 0.75
    first = 1 - 2 * 0.5 / (0.5 + excess + 1) - (math.log(0.5) + outside) / 5
    second = 1 - 2 * 0.25 / (0.25 + excess + 1) - (math.log(0.25) + outside) / 5
    assert get_loss("blob", **alone)(logits, labels).item() == pytest.approx((first + second) / 2, rel=1e-12)
    volume = get_loss("dice_cross_entropy", smooth=0)(logits, labels)
    assert get_loss("cc_dice_ce", lesion_weight=0)(logits, labels).item() == pytest.approx(volume.item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_touching_lesions_are_one(name):
    """By a corner they are one lesion, whose loss is that of the volume; of two classes they stay two."""
    logits, _ = problem((1, 2, 4, 4))
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0, 0] = labels[0, 1, 1] = 1
    alone = {"global_weight": 0, "smooth": 0}
    one = 1 + get_loss("dice_cross_entropy", smooth=0)(logits, labels)
    torch.testing.assert_close(get_loss(name, **alone)(logits, labels), one, rtol=1e-12, atol=0)
    labels[0, 1, 1] = 2
    assert lesion_regions(labels, 3).amax((2, 3)).tolist() == [[1, 1]]


@pytest.mark.parametrize("name", LOSSES)
def test_samples_without_lesions_and_samples_that_are_all_lesion(name):
    logits, labels = problem((3, 2, 4, 5))
    labels[1] = 0
    labels[2] = 1
    alone = get_loss(name, global_weight=0, reduction="none")
    found = alone(logits, labels)
    p = logits.softmax(1)[:, 1].flatten(1)
    everything = 1 - 2 * p[2].sum() / (p[2].sum() + 20) - p[2].log().mean()
    assert found[2].item() == pytest.approx(everything.item(), rel=1e-5)
    nothing = 1 - (1 - p[1]).log().mean() if name == "cc_dice_ce" else 0
    assert found[1].item() == pytest.approx(float(nothing), rel=1e-12)
    value, gradient = outcome(get_loss(name, global_weight=0), logits, labels)
    count = 3 if name == "cc_dice_ce" else 2
    assert value.item() == pytest.approx(found.sum().item() / count, rel=1e-12)
    assert (gradient[1].abs().sum() > 0) == (name == "cc_dice_ce")
    skipped = get_loss("cc_dice_ce", global_weight=0, absent_class="skip")(logits, labels)
    rest = get_loss("cc_dice_ce", global_weight=0)(logits[[0, 2]], labels[[0, 2]])
    assert skipped.item() == pytest.approx(rest.item(), rel=1e-12)
    value, gradient = outcome(get_loss(name), logits, torch.zeros_like(labels))
    assert value.isfinite() and gradient.isfinite().all()


def test_a_small_lesion_counts_as_much_as_a_large_one():
    """With everything missed alike, the gradient at a lesion of 2 voxels is as that at one of 50, in sum."""
    labels = torch.zeros(1, 100, dtype=torch.long)
    labels[0, 10:12] = labels[0, 40:90] = 1
    logits = torch.zeros(1, 2, 100, dtype=torch.float64)
    logits[:, 0] = 30
    _, gradient = outcome(get_loss("blob", global_weight=0, smooth=0, entropy_weight=0), logits, labels)
    share = gradient[0, 1, 10:12].sum() / gradient[0, 1, 40:90].sum()
    assert share.item() == pytest.approx(1, rel=1e-3)
    _, gradient = outcome(get_loss("dice_cross_entropy"), logits, labels)
    assert gradient[0, 1, 10:12].sum() / gradient[0, 1, 40:90].sum() < 0.05


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_given_maps_are_those_that_the_loss_makes(name, activation):
    logits, labels = problem((2, 3, 5, 6, 7))
    labels[0, 0] = 255
    loss = get_loss(name, activation=activation, ignore_index=255)
    regions = lesion_regions(labels, 3, activation=activation, ignore_index=255)
    expected = outcome(loss, logits, labels)
    for given in (regions, regions.long(), regions.float(), regions.numpy(), regions.to(torch.int16)):
        torch.testing.assert_close(outcome(partial(loss, regions=given), logits, labels), expected, rtol=0, atol=0)
    function = getattr(voxloss.functional, f"{name}_loss")
    assert function(logits, labels, regions=regions, activation=activation, ignore_index=255) == expected[0]
    # Regions of a larger volume: those whose lesion is not in the patch are left out.
    patch = (slice(None), slice(None), slice(2), slice(3), slice(4))
    value = loss(logits[patch], labels[patch[1:]], regions=regions[patch])
    assert value.isfinite()


def test_the_transform_gives_a_loader_the_maps():
    _, labels = problem((2, 3, 5, 6))
    transform = LesionRegions("mask", classes=3)
    for given in (labels, labels[:, None], labels[:, None].float(), labels.numpy()):
        samples = [transform({"mask": label, "image": 0}) for label in given]
        assert torch.stack([sample["regions"] for sample in samples]).equal(lesion_regions(labels, 3))
        assert samples[0]["image"] == 0
    flipped = transform({"mask": labels[0].numpy()[:, ::-1]})["regions"]  # an array that torch does not take as it is
    assert flipped.equal(lesion_regions(labels[:1].flip(2), 3)[0])
    batch = torch.utils.data.default_collate([transform({"mask": label}) for label in labels])
    logits = torch.randn(2, 3, 5, 6)
    assert get_loss("blob")(logits, batch["mask"], regions=batch["regions"]) == get_loss("blob")(logits, labels)
    with pytest.raises(KeyError, match="the sample has no labels 'label'; its keys are 'image', 'mask'"):
        LesionRegions()({"image": 0, "mask": labels[0]})


def test_compound_shares_the_pass_and_other_losses_have_no_use_for_maps():
    logits, labels = problem()
    regions = lesion_regions(labels, 3)
    parts = [get_loss("cc_dice_ce"), get_loss("blob", global_weight=0), get_loss("dice")]
    expected = sum(w * part(logits, labels) for w, part in zip((1, 0.5, 2), parts, strict=True))
    for given in (None, regions):
        torch.testing.assert_close(Compound(parts, [1, 0.5, 2])(logits, labels, regions=given), expected)
    assert get_loss("dice")(logits, labels, regions=regions) == get_loss("dice")(logits, labels)


def test_deep_supervision_takes_maps_to_every_grid():
    logits, labels = problem((2, 2, 8, 8))
    coarse, _ = problem((2, 2, 4, 4), seed=5)
    regions, loss = lesion_regions(labels, 2), get_loss("cc_dice_ce")
    deep = DeepSupervision(loss, [1, 0.5])
    parts = loss(logits, labels, regions=regions), loss(coarse, labels[:, 1::2, 1::2], regions=regions[..., 1::2, 1::2])
    found = deep([logits, coarse], labels, regions=regions)
    torch.testing.assert_close(found, parts[0] + 0.5 * parts[1])
    own = deep([logits, coarse], labels)
    torch.testing.assert_close(own, loss(logits, labels) + 0.5 * loss(coarse, labels[:, 1::2, 1::2]))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_other_types_agree_with_float64(name, classes, kind):
    logits, labels = problem((2, classes, 6, 7), kind=kind)
    value, gradient = outcome(get_loss(name), logits, labels)
    assert value.dtype == torch.float32 and gradient.dtype == kind
    exact, expected = outcome(get_loss(name), logits.double(), labels)
    assert value.item() == pytest.approx(exact.item(), rel=2e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=max(1e-5, torch.finfo(kind).eps), atol=1e-7)


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits(name, classes):
    """Certain and wrong by hundreds, in float32: the value of float64, and a gradient that still says where to go."""
    activation = "sigmoid" if classes == 1 else "softmax"
    logits, labels = problem((1, max(classes, 2), 30))
    labels = labels[:, None].clamp_max(1) if classes == 1 else labels
    logits = (400 * logits[:, :classes]).float()
    value, gradient = outcome(get_loss(name, activation=activation), logits, labels)
    exact, expected = outcome(get_loss(name, activation=activation), logits.double(), labels)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-7)
    masked = logits.clone()
    masked[:, -1, :4] = -torch.inf
    value, gradient = outcome(get_loss(name, activation=activation), masked, torch.zeros_like(labels))
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_do_not_matter(name, monkeypatch):
    logits, labels = problem((2, 3, 7, 8))
    weight = torch.rand(2, 7, 8, generator=torch.Generator().manual_seed(3))
    whole = outcome(partial(get_loss(name), voxel_weight=weight), logits, labels)
    monkeypatch.setattr("voxloss.losses.voxel_pass.lesions.sums.CPU_CHUNK", 16 * 3 * 5)
    monkeypatch.setattr(plain, "CPU_CHUNK", 1000)
    torch.testing.assert_close(outcome(partial(get_loss(name), voxel_weight=weight), logits, labels), whole)


@pytest.mark.parametrize("name", LOSSES)
def test_a_channel_can_be_ignored_alone(name):
    logits, labels = problem((2, 2, 30))
    target = one_hot(labels + torch.arange(2)[:, None] % 2, 2)
    target[0, 1] = 255
    loss = get_loss(name, activation="sigmoid", ignore_index=255, ignore_scope="channel", pool="sample")
    value, gradient = outcome(loss, logits, target)
    assert (gradient[0, 1] == 0).all() and gradient[0, 0].abs().sum() > 0 and value.isfinite()
    each = get_loss(name, activation="sigmoid", global_weight=0)
    first = each(logits[:1, :1], target[:1, :1])
    scoped = get_loss(name, activation="sigmoid", ignore_index=255, ignore_scope="channel", global_weight=0)
    assert scoped(logits[:1], target[:1]).item() == pytest.approx(first.item(), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_forty_digits(name, classes):
    """The value from the definition, voxel by voxel and lesion by lesion, and the gradient by differences."""
    mpmath.mp.dps = 60
    logits, labels = problem((1, classes, 4, 3), seed=2)
    logits = logits.round(decimals=4)
    loss = get_loss(name, global_weight=0, smooth=0)

    def exact(x):
        p = [[mpmath.exp(v) / sum(mpmath.exp(w) for w in voxel) for v in voxel] for voxel in x]
        means = []
        for c in range(1, classes):
            found = components(labels[0] == c)
            every = torch.stack(found).any(0) if found else None
            blobs = [mask | ~every for mask in found]
            domains = nearest(found) if name == "cc_dice_ce" and found else blobs
            if not found and name == "cc_dice_ce":
                domains = [torch.ones(4, 3, dtype=torch.bool)]
            costs = []
            for domain in domains:
                inside = [(p[v][c], int(labels.flatten()[v] == c)) for v in domain.flatten().nonzero().flatten()]
                hit = sum(q * t for q, t in inside)
                cross = -sum(mpmath.log(q if t else 1 - q) for q, t in inside) / len(inside)
                costs.append(1 - 2 * hit / sum(q + t for q, t in inside) + cross)
            if costs:
                means.append(sum(costs) / len(costs))
        return sum(means) / len(means)

    x = [[mpf(float(logits[0, c].flatten()[v])) for c in range(classes)] for v in range(12)]
    value, gradient = outcome(loss, logits, labels)
    assert abs(value.item() - exact(x)) < 1e-14
    step = mpf(10) ** -20
    for v, c in ((0, 0), (3, 1), (7, classes - 1), (11, 1)):
        sides = []
        for sign in (1, -1):
            moved = [list(voxel) for voxel in x]
            moved[v][c] += sign * step
            sides.append(exact(moved))
        assert abs(gradient[0, c].flatten()[v].item() - (sides[0] - sides[1]) / (2 * step)) < 1e-14


def test_vmap_over_labels_says_what_to_do():
    logits, labels = problem()
    loss = get_loss("cc_dice_ce")
    with pytest.raises(ValueError, match=r"torch.vmap hides: map over the logits alone"):
        torch.vmap(lambda z, y: loss(z[None], y[None]))(logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_classes_multiply_their_lesions(name):
    logits, labels = problem()
    each = get_loss(name, global_weight=0, class_reduction="none")(logits, labels)
    assert each.shape == (3,) and each[0] == 0
    weight = [5.0, 1.0, 3.0]
    found = get_loss(name, class_weight=weight, class_reduction="sum")(logits, labels)
    volume = get_loss(name, class_weight=weight, class_reduction="sum", lesion_weight=0)(logits, labels)
    assert (found - volume).item() == pytest.approx((each[1] + 3 * each[2]).item(), rel=1e-12)
    alone = get_loss(name, class_weight=weight, class_reduction="sum", global_weight=0)(logits, labels)
    assert alone.item() == pytest.approx((found - volume).item(), rel=1e-12)
    with pytest.raises(ValueError, match=r"class_weight has 2 values \(1.0, 2.0\) for 3 classes"):
        get_loss(name, class_weight=[1, 2])(logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_a_crowded_volume_agrees_with_the_twin(name):
    logits, labels = problem((1, 2, 12, 12, 12))
    labels = mask(labels.shape, 0.02, 4).long()
    assert lesion_regions(labels, 2).max() > 15
    target = one_hot(labels, 2)
    torch.testing.assert_close(
        outcome(get_loss(name), logits, labels), outcome(partial(twin, name), logits, target), rtol=1e-10, atol=1e-13
    )
