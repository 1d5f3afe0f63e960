"""The maps of the labels that any loss needs, made at once."""

import pytest
import torch

import voxloss
from voxloss import Compound, DeepSupervision, LabelMaps, get_loss
from voxloss.transforms import DistanceMaps, LesionRegions, Skeletons

ALL_MAPS = ["boundary", "skeleton_recall", "cc_dice_ce"]
EVERY_PASS = [*ALL_MAPS, "topk", "ml1_ace", "cl_dice", "lovasz", "hausdorff", "mcc", "blob", "mixed_focal"]
CLASSES = 3
CLOSE = {"rtol": 1e-5, "atol": 1e-9}  # maps of distances are float32


def problem(size=(8, 9, 10)):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, *size, dtype=torch.float64, generator=random, requires_grad=True)
    return logits, torch.randint(0, CLASSES, (2, *size), generator=random)


def outcome(loss, logits, labels, **given):
    value = loss(logits, labels, **given)
    return value, torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("name", voxloss.list_losses())
def test_maps_are_those_that_the_loss_makes(name):
    logits, labels = problem()
    expected = {"cc_dice_ce": {"regions"}, "blob": {"regions"}, "boundary": {"distances"}}
    expected |= {"skeleton_recall": {"skeletons"}}
    for options in ({}, {"ignore_index": 1}, {"activation": "sigmoid"}, {"include_background": True}):
        loss = get_loss(name, **options)
        maps = LabelMaps.of(loss, CLASSES)(labels)
        assert maps.keys() == expected.get(name, set())
        torch.testing.assert_close(outcome(loss, logits, labels, **maps), outcome(loss, logits, labels), **CLOSE)


@pytest.mark.parametrize(
    "options", [{}, {"ignore_index": 1}, {"activation": "sigmoid"}, {"reduction": "none"}], ids=str
)
def test_a_compound_of_losses_that_need_different_maps(options):
    logits, labels = problem()
    alone = [get_loss(name, **options) for name in EVERY_PASS]
    loss = Compound(alone)
    maps = LabelMaps.of(loss, CLASSES)(labels)
    assert list(maps) == ["regions", "distances", "skeletons"]
    value = loss(logits, labels, **maps)
    torch.testing.assert_close(value, sum(each(logits, labels) for each in alone), **CLOSE)
    for name in maps:  # each by itself, the others made in the call
        torch.testing.assert_close(loss(logits, labels, **{name: maps[name]}), value, **CLOSE)


@pytest.mark.parametrize("pool", ["sample", "batch"])
def test_weights_masks_and_maps_together(pool):
    logits, labels = problem()
    alone = [get_loss(name, pool=pool) for name in EVERY_PASS]
    random = torch.Generator().manual_seed(1)
    given = {
        "voxel_weight": torch.rand(labels.shape, generator=random),
        "mask": torch.rand(labels.shape, generator=random) < 0.9,
        "sample_weight": torch.tensor([1.0, 0.3]),
    }
    value = outcome(Compound(alone), logits, labels, **given)
    each = [outcome(loss, logits, labels, **given) for loss in alone]
    torch.testing.assert_close(value, tuple(sum(parts) for parts in zip(*each, strict=True)), rtol=1e-6, atol=1e-12)


def test_multi_hot_targets_have_maps_for_each_class():
    logits, _ = problem()
    targets = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    loss = Compound([get_loss(name, activation="sigmoid") for name in ALL_MAPS])
    maps = LabelMaps.of(loss, CLASSES)(targets, multi_hot=True)
    assert all(each.shape == logits.shape for each in maps.values())
    torch.testing.assert_close(outcome(loss, logits, targets, **maps), outcome(loss, logits, targets), **CLOSE)


@pytest.mark.parametrize("name", [*ALL_MAPS, "blob"])
def test_a_structure_without_labels_leaves_the_others_their_maps(name):
    logits, _ = problem()
    targets = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(3)) < 0.1).long()
    targets[0, 1] = 255  # sample 0 has no labels of structure 1
    targets[1, 2, :4] = 255  # and sample 1 those of half the volume
    loss = get_loss(name, activation="sigmoid", ignore_index=255, ignore_scope="channel")
    maps = LabelMaps.of(loss, CLASSES)(targets, multi_hot=True)
    torch.testing.assert_close(outcome(loss, logits, targets, **maps), outcome(loss, logits, targets), **CLOSE)


@pytest.mark.parametrize(
    ("transform", "key"), [(LesionRegions, "regions"), (DistanceMaps, "distances"), (Skeletons, "skeletons")]
)
def test_a_channel_that_is_ignored_apart_has_the_maps_that_it_has_alone(transform, key):
    targets = (torch.rand(CLASSES, 6, 7, 5, generator=torch.Generator().manual_seed(3)) < 0.1).long()
    targets[1] = 255
    targets[2, :3] = 255
    options = {"activation": "sigmoid", "ignore_index": 255, "ignore_scope": "channel"}
    found = transform("label", classes=CLASSES, multi_hot=True, **options)({"label": targets})[key]
    for c, channel in enumerate(targets):
        alone = transform("label", classes=1, activation="sigmoid", ignore_index=255)({"label": channel})[key]
        torch.testing.assert_close(found[c], alone[0])


def test_softmax_ties_the_channels_of_maps_together():
    labels = problem()[1]
    for make in (voxloss.lesion_regions, voxloss.distance_maps, voxloss.skeleton_tubes):
        with pytest.raises(ValueError, match='ignore_scope="channel" needs activation="sigmoid"'):
            make(labels, CLASSES, ignore_index=1, ignore_scope="channel")
        with pytest.raises(ValueError, match='ignore_scope must be "voxel" or "channel", received \'sample\''):
            make(labels, CLASSES, activation="sigmoid", ignore_scope="sample")


def test_all_maps_reach_every_output_of_deep_supervision():
    logits, labels = problem((8, 8, 8))
    outputs = [logits, logits[..., ::2, ::2, ::2], logits[..., ::4, ::4, ::4]]
    loss = Compound(ALL_MAPS)
    maps = LabelMaps.of(loss, CLASSES)(labels)
    weights = [4 / 7, 2 / 7, 1 / 7]
    expected = 0
    for k, (weight, output) in enumerate(zip(weights, outputs, strict=True)):
        step = 2**k
        places = (..., *(slice(step // 2, None, step),) * 3)
        own = {name: each[places] for name, each in maps.items()}
        expected = expected + weight * loss(output, labels[places], **own)
    torch.testing.assert_close(DeepSupervision(loss)(outputs, labels, **maps), expected)


def test_spacings_and_background_of_distances():
    labels = problem()[1]
    fine, coarse = get_loss("boundary", spacing=(3, 1, 1)), get_loss("boundary", include_background=True)
    maps = LabelMaps.of(fine, CLASSES)(labels)
    torch.testing.assert_close(maps["distances"], voxloss.distance_maps(labels, CLASSES, spacing=(3, 1, 1)))
    assert LabelMaps.of(coarse, CLASSES)(labels)["distances"].shape[1] == CLASSES
    assert LabelMaps.of(Compound([fine, coarse]), CLASSES)(labels) == {}  # each measures its own
    same = Compound([get_loss("boundary"), coarse])
    assert LabelMaps.of(same, CLASSES)(labels)["distances"].shape[1] == CLASSES
    coarse.spacing = (3, 1, 1)
    assert "distances" in LabelMaps.of(Compound([fine, coarse]), CLASSES)(labels)


def test_a_loop_of_ten_lines():
    _, labels = problem((12, 12, 12))
    images = labels[:, None].float() + 0.1
    network = torch.nn.Conv3d(1, CLASSES, 3, padding=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    loss = Compound(ALL_MAPS, weights=[voxloss.LinearSchedule(0, 0.1, epochs=4), 1, 1])
    maps = LabelMaps.of(loss, CLASSES)(labels)
    values = []
    for epoch in range(6):
        loss.set_epoch(epoch)
        optimizer.zero_grad()
        value = loss(network(images), labels, **maps)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
