"""Skeleton Recall: tubes by hand and as in the authors' code, maps given and made, and where they are missing."""

import builtins
import importlib.util
from functools import partial

import numpy as np
import pytest
import torch
from skimage.morphology import dilation, skeletonize

import voxloss
from voxloss import Compound, DeepSupervision, get_loss, skeleton_tubes
from voxloss.config.losses import check_losses, loss_choices
from voxloss.transforms import Skeletons
from voxloss.utilities.errors import InputError


def lines(shape=(2, 24, 26), seed=0):
    """Labels 0, 1 and 2 of thin structures that meet."""
    labels = torch.zeros(shape, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    for sample in labels:
        for label in (1, 2, 1):
            axis = int(torch.randint(sample.ndim, (1,), generator=generator))
            at = [int(torch.randint(2, length - 5, (1,), generator=generator)) for length in sample.shape]
            box = [slice(start, start + 3) for start in at]
            box[axis] = slice(2, -2)
            sample[tuple(box)] = label
    return labels


def logits_for(labels, classes=3, seed=1):
    shape = (labels.shape[0], classes, *labels.shape[1:])
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(compute, logits, *others):
    leaf = logits.detach().clone().requires_grad_()
    value = compute(leaf, *others)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("shape", [(2, 24, 26), (2, 14, 15, 16)])
def test_tubes_are_those_of_the_authors_code(shape):
    """Skeleton of all foreground, dilated twice in grey values, times the labels."""
    for seed in range(3):
        labels = lines(shape, seed)
        found = skeleton_tubes(labels, 3)
        assert found.dtype == torch.uint8 and found.shape == shape
        for sample, tube in zip(labels.numpy(), found.numpy(), strict=True):
            skeleton = (skeletonize(sample > 0) > 0).astype(np.int16)
            assert np.array_equal(tube > 0, dilation(dilation(skeleton)) * sample > 0)


def test_a_slice_is_a_plane_and_a_row_a_line():
    labels = lines((3, 20, 22))
    plane = skeleton_tubes(labels, 3)
    for axis in (1, 2, 3):
        assert skeleton_tubes(labels.unsqueeze(axis), 3).squeeze(axis).equal(plane)
    row = torch.tensor([[0, 1, 1, 0, 2, 0]])
    assert skeleton_tubes(row, 3).equal((row > 0).to(torch.uint8))
    assert skeleton_tubes(row[:, None, None], 3).flatten(1).equal((row > 0).to(torch.uint8))
    assert skeleton_tubes(torch.ones(1, 1, 1, dtype=torch.long), 2).tolist() == [[1]]
    assert skeleton_tubes(torch.zeros(1, 4, 4, dtype=torch.long), 2).sum() == 0


def test_a_bar_by_hand():
    """The skeleton of a bar is its middle row, and the tube reaches two rows from it."""
    labels = torch.zeros(1, 15, 31, dtype=torch.long)
    labels[0, 2:13, 3:28] = 1
    tube = skeleton_tubes(labels, 2)[0]
    assert torch.nonzero(tube[:, 15]).flatten().tolist() == [5, 6, 7, 8, 9]
    logits = torch.zeros(1, 2, 15, 31, dtype=torch.float64)
    logits[:, 1] = 30.0 * (2 * labels - 1)
    loss, rest = get_loss("skeleton_recall"), get_loss("skeleton_recall", recall_weight=0)
    assert loss(logits, labels).item() == pytest.approx(-2, abs=1e-6)
    broken, border = logits.clone(), logits.clone()
    broken[0, 1, :, 14:17] = -30  # three columns, through the skeleton
    border[0, 1, 2:4, 3:28] = -30  # two rows beside the tube
    missed = (tube[:, 14:17].sum() / tube.sum()).item()
    assert missed > 0.1
    assert (loss(broken, labels) - rest(broken, labels)).item() == pytest.approx(missed - 1, abs=1e-6)
    assert (loss(border, labels) - rest(border, labels)).item() < missed - 1


def test_several_classes_sigmoid_targets_and_ignored_voxels():
    labels = lines()
    labels[0, 5:9] = 9
    inside = labels.where(labels != 9, torch.zeros_like(labels))
    assert skeleton_tubes(labels, 3, ignore_index=9).equal(skeleton_tubes(inside, 3))
    hot = torch.stack([inside == c for c in range(3)], 1).long()
    together = skeleton_tubes(hot, 3, multi_hot=True)
    assert together.equal(skeleton_tubes(inside, 3)) and together.shape == labels.shape
    apart = skeleton_tubes(hot, 3, activation="sigmoid", multi_hot=True)
    assert apart.shape == hot.shape
    for c in range(3):
        assert apart[:, c].equal(skeleton_tubes(hot[:, c], 2))
    assert skeleton_tubes(inside, 3, activation="sigmoid").equal((apart * hot).sum(1).to(torch.uint8))
    assert skeleton_tubes(hot[:, 1], 1, activation="sigmoid").equal(apart[:, 1:2])
    assert skeleton_tubes(labels[:0], 3, ignore_index=9).shape == (0, 24, 26)
    assert skeleton_tubes(labels.numpy(), 3, ignore_index=9).equal(skeleton_tubes(inside, 3))
    ignored = labels.unsqueeze(1).expand(-1, 3, -1, -1) == 9
    options = {"activation": "sigmoid", "multi_hot": True}
    assert skeleton_tubes(torch.where(ignored, 9, hot), 3, ignore_index=9, **options).equal(
        skeleton_tubes(torch.where(ignored, 0, hot), 3, **options)
    )


@pytest.mark.parametrize("scope", ["voxel", "channel"])
@pytest.mark.parametrize("weighted", [False, True])
def test_channels_with_tubes_of_their_own(scope, weighted):
    """The region and skeleton terms of each channel by itself, where a channel lacks labels in some voxels."""
    hot = torch.stack([lines() > 0, lines(seed=3) > 0], 1).long()
    hot[0, 1, :6] = 9
    logits = logits_for(hot[:, 0], 2)
    weight = torch.rand(2, 24, 26, generator=torch.Generator().manual_seed(5)) if weighted else None
    options = {"activation": "sigmoid", "ignore_index": 9, "class_reduction": "none"}
    entropy = get_loss("cross_entropy", ignore_scope=scope, **options)
    found = get_loss("skeleton_recall", ignore_scope=scope, **options)(logits, hot, weight)
    found = found - entropy(logits, hot, weight) / 2
    if scope == "voxel":
        hot = torch.where((hot == 9).any(1, keepdim=True), 9, hot)
    alone, entropy = get_loss("skeleton_recall", **options), get_loss("cross_entropy", **options)
    for c in range(2):
        own, given = logits[:, c : c + 1], hot[:, c : c + 1]
        expected = alone(own, given, weight) - entropy(own, given, weight)
        assert found[c].item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dense", [False, True])
def test_given_maps_are_those_that_the_loss_makes(dense, activation):
    labels = lines()
    labels[0, 0] = 9
    logits = logits_for(labels)
    if dense:
        hot = torch.stack([labels == c for c in range(3)], 1).long()
        labels = torch.where((labels == 9)[:, None], 9, hot)
    loss = get_loss("skeleton_recall", activation=activation, ignore_index=9)
    tubes = skeleton_tubes(labels, 3, activation=activation, ignore_index=9, multi_hot=dense)
    expected = outcome(loss, logits, labels)
    for given in (tubes, tubes.bool(), tubes.float(), tubes.long() * 7, tubes.numpy()):
        torch.testing.assert_close(outcome(partial(loss, skeletons=given), logits, labels), expected, rtol=0, atol=0)
    function = voxloss.functional.skeleton_recall_loss
    assert function(logits, labels, skeletons=tubes, activation=activation, ignore_index=9) == expected[0]
    nothing = loss(logits, labels, skeletons=torch.zeros_like(tubes))
    rest = get_loss("skeleton_recall", recall_weight=0, activation=activation, ignore_index=9)(logits, labels)
    assert nothing.item() == pytest.approx(rest.item() - 1, rel=1e-12)


def test_the_transform_gives_a_loader_the_maps():
    labels = lines()
    transform = Skeletons("mask", classes=3)
    for given in (labels, labels[:, None], labels[:, None].float(), labels.numpy()):
        samples = [transform({"mask": label, "image": 0}) for label in given]
        assert torch.stack([sample["skeletons"] for sample in samples]).equal(skeleton_tubes(labels, 3))
        assert samples[0]["image"] == 0
    batch = torch.utils.data.default_collate([transform({"mask": label}) for label in labels])
    logits, loss = logits_for(labels), get_loss("skeleton_recall")
    assert loss(logits, batch["mask"], skeletons=batch["skeletons"]) == loss(logits, labels)
    with pytest.raises(KeyError, match="the sample has no labels 'label'; its keys are 'image', 'mask'"):
        Skeletons()({"image": 0, "mask": labels[0]})


def test_deep_supervision_takes_maps_to_every_grid():
    labels = lines()
    logits, coarse = logits_for(labels), logits_for(labels[:, 1::2, 1::2])
    tubes, loss = skeleton_tubes(labels, 3), get_loss("skeleton_recall")
    parts = loss(logits, labels, skeletons=tubes), loss(coarse, labels[:, 1::2, 1::2], skeletons=tubes[:, 1::2, 1::2])
    found = DeepSupervision(loss, [1, 0.5])([logits, coarse], labels, skeletons=tubes)
    torch.testing.assert_close(found, parts[0] + 0.5 * parts[1])


def test_a_compound_shares_the_pass():
    labels = lines()
    logits, tubes = logits_for(labels), skeleton_tubes(labels, 3)
    parts = [get_loss("skeleton_recall"), get_loss("focal", gamma=1.5), get_loss("mcc")]
    expected = sum(w * part(logits, labels, skeletons=tubes) for w, part in zip((1, 0.5, 2), parts, strict=True))
    torch.testing.assert_close(Compound(parts, [1, 0.5, 2])(logits, labels, skeletons=tubes), expected)


def test_wrong_maps_are_refused():
    labels = lines()
    logits, loss = logits_for(labels), get_loss("skeleton_recall")
    with pytest.raises(ValueError, match=r"skeletons of shape \(2, 3, 24, 26\) do not fit .* expected \(2, 24, 26\)"):
        loss(logits, labels, skeletons=torch.zeros(2, 3, 24, 26))
    hot = torch.stack([labels == c for c in range(3)], 1).long()
    with pytest.raises(ValueError, match=r"expected \(2, 3, 24, 26\); voxloss.skeleton_tubes or voxloss.transforms.Sk"):
        get_loss("skeleton_recall", activation="sigmoid")(logits, hot, skeletons=torch.zeros(2, 24, 26))
    with pytest.raises(ValueError, match="skeletons must be a tensor, an array or nested lists"):
        loss(logits, labels, skeletons="map")
    with pytest.raises(ValueError, match=r"torch.vmap hides: map over the logits alone, or give skeletons="):
        torch.vmap(lambda z, y: loss(z[None], y[None]))(logits, labels)
    with pytest.raises(ValueError, match="voxel_weight must be finite and not negative, received -1"):
        loss(logits, labels, -torch.ones(2, 24, 26))
    with pytest.raises(ValueError, match="label 3 is outside the allowed range 0 to 2"):
        skeleton_tubes(labels + 1, 3)


def test_without_scikit_image_the_map_is_demanded(monkeypatch):
    labels = lines()
    logits, tubes = logits_for(labels), skeleton_tubes(labels, 3)
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("skimage"):
            raise ModuleNotFoundError("No module named 'skimage'", name="skimage")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    loss = get_loss("skeleton_recall")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'voxloss\[skeletons\]'.*skeletons=.*ms\.Skeletons"):
        loss(logits, labels)
    assert loss(logits, labels, skeletons=tubes).isfinite()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'voxloss\[skeletons\]'"):
        skeleton_tubes(labels, 3)


def test_a_study_without_scikit_image_is_refused_before_it_trains(monkeypatch):
    choices = loss_choices(["dice", {"name": "skeleton_recall", "recall_weight": 2}])
    check_losses(choices)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"the loss 'skeleton_recall-recall_weight=2' needs scikit-image.*pip install 'voxloss\[skeletons\]'"
    with pytest.raises(InputError, match=message):
        check_losses(choices)
    check_losses(choices[:1])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_agree_with_float64(kind):
    labels = lines((2, 10, 11, 12))
    logits = logits_for(labels).to(kind)
    value, gradient = outcome(get_loss("skeleton_recall"), logits, labels)
    exact, expected = outcome(get_loss("skeleton_recall"), logits.double(), labels)
    assert value.dtype == torch.float32 and gradient.dtype == kind
    assert value.item() == pytest.approx(exact.item(), rel=2e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=torch.finfo(kind).eps * 2, atol=1e-7)


def test_gradients_of_gradients_and_of_torch_func():
    labels = lines((1, 8, 9))
    logits, tubes = logits_for(labels), skeleton_tubes(labels, 3)
    loss = get_loss("skeleton_recall")
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: loss(z, labels, skeletons=tubes), leaf)
    gradient = torch.func.grad(lambda z: loss(z, labels, skeletons=tubes))(logits)
    torch.testing.assert_close(gradient, outcome(loss, logits, labels)[1])
