"""The sums over lesions of a target of its own for every class, compiled from C, against the plain pass in float64."""

import pytest
import torch
from loss_twin import one_hot

from voxloss import get_loss, lesion_regions
from voxloss.losses.voxel_pass import compiled, library
from voxloss.losses.voxel_pass.lesions import operator
from voxloss.losses.voxel_pass.lesions import sums as passes
from voxloss.losses.voxel_pass.lesions.read import Reading

pytestmark = pytest.mark.skipif(not library.is_there(), reason="no C compiler")

# Activation, and whether the target is labels, or multi-hot or soft targets.
KINDS = ["sigmoid labels", "sigmoid multi-hot", "sigmoid soft", "softmax multi-hot", "softmax soft"]
TYPES = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64]
TYPES += [torch.int64, torch.float16, torch.bfloat16, torch.float64]
SHAPE = (9, 17, 13)  # seven whole blocks and one of another length
FULL, EMPTY = slice(0, 2), slice(3, 7)  # more than a block with a target in every voxel, and without one


def problem(kind, classes):
    """Logits, a target, weights and regions: gaps of hundreds, equal logits, masked classes, soft targets."""
    activation, target = kind.split()
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, classes, *SHAPE, generator=generator)
    labels = torch.randint(0, classes, (2, *SHAPE), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.9] = 0
    labels[0, FULL], labels[0, EMPTY] = classes - 1, 0
    logits[0, :, 2:4] *= 60
    logits[0, :, 5] = logits[0, :, 5].round()
    logits[1, :, 8, 16, 12] = 0
    dense = target != "labels"
    values = one_hot(labels, classes) if dense else labels
    if target == "soft":
        noise = torch.rand(values.shape, generator=generator).softmax(1)
        values = torch.where(noise > noise.mean(), 0.6 * values + 0.4 * noise, values.float())
        values[0, :, EMPTY] = 0
        values[1, -1, 4, 3] = 0.5
    regions = lesion_regions(values, classes, activation=activation, multi_hot=dense)
    masked = values[1, :, 3] == 0 if dense else labels[1, 3] != torch.arange(classes)[:, None, None]
    masked[:-1] = False
    logits[1, :, 3].masked_fill_(masked, -torch.inf)
    return logits, values, torch.rand(labels.shape, generator=generator), regions


def reading(kind):
    return Reading(kind.split()[0], not kind.endswith("labels"), None, by_channel=False, checked=True)


def compare(logits, target, weight, regions, how, tolerance=2e-6):
    """Sums, counts and gradient, those of the compiled pass and of the plain one."""
    offsets, owner = operator.places(regions)
    given, places = (target, regions, offsets), len(owner)
    assert compiled.takes_odds(logits, target, regions, weight, places)
    wide = None if weight is None else weight.double()
    sums, voxels = passes.sums(logits, *given, weight, places, how)
    expected, counted = passes.sums(logits.double(), *given, wide, places, how)
    torch.testing.assert_close(sums, expected, rtol=2e-6, atol=1e-9)
    assert torch.equal(voxels, counted)
    upstream = torch.linspace(-1, 2, sums.numel(), dtype=torch.float64).view_as(sums)
    slope = passes.gradient(upstream, logits, *given, weight, how)
    exact = passes.gradient(upstream, logits.double(), *given, wide, how)
    assert slope.dtype == logits.dtype and slope.stride() == torch.empty_like(logits).stride()
    torch.testing.assert_close(slope.double(), exact, rtol=tolerance, atol=2e-6)
    return sums, slope


@pytest.mark.parametrize("layout", ["int32", "weighted", "int64", "bfloat16", "channels last"])
@pytest.mark.parametrize("classes", [2, 3, 14])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_float64(kind, classes, layout):
    logits, target, weight, regions = problem(kind, classes)
    dense = not kind.endswith("labels")
    if layout == "int64":
        regions = regions.long()
    elif layout == "bfloat16":
        logits = logits.bfloat16()
    elif layout == "channels last":
        last = torch.channels_last_3d
        logits, regions = logits.to(memory_format=last), regions.to(memory_format=last)
        target = target.to(memory_format=last) if dense else target.transpose(1, 3).contiguous().transpose(1, 3)
    tolerance = 4e-3 if layout == "bfloat16" else 2e-6
    compare(logits, target, None if layout == "int32" else weight, regions, reading(kind), tolerance)


@pytest.mark.parametrize("layout", ["contiguous", "every other", "bfloat16"])
@pytest.mark.parametrize(
    ("activation", "scope"), [("sigmoid", "labels"), ("sigmoid", "channel"), ("sigmoid", "voxel"), ("softmax", "voxel")]
)
def test_what_is_in_ignored_voxels_does_not_get_out(activation, scope, layout):
    kind = f"{activation} labels" if scope == "labels" else f"{activation} soft"
    logits, target, weight, regions = problem(kind, 3)
    ignored = torch.zeros(target.shape, dtype=torch.bool)
    ignored[:, ..., 2:4] = torch.rand(ignored[..., 2:4].shape, generator=torch.Generator().manual_seed(1)) < 0.5
    target = torch.where(ignored, 255, target)
    if scope == "labels":
        target[0, 4, 4], target[0, 4, 5] = 3, -1  # out of range: as ignored where it is not checked
        ignored = (target < 0) | (target >= 3)
    outside = ignored if scope == "channel" else ignored.any(1, keepdim=True) if scope == "voxel" else ignored[:, None]
    logits = logits.masked_fill(outside, torch.nan)
    if scope != "channel":
        weight = weight.masked_fill(outside[:, 0], torch.nan)
    if layout == "every other":
        logits, target, weight, regions = (
            each.repeat_interleave(2, -1)[..., ::2] for each in (logits, target, weight, regions)
        )
    elif layout == "bfloat16":
        logits = logits.bfloat16()
    how = Reading(activation, scope != "labels", 255, by_channel=scope == "channel", checked=False)
    sums, slope = compare(logits, target, weight, regions, how, 4e-3 if layout == "bfloat16" else 2e-6)
    assert sums.isfinite().all()
    assert not slope[outside.expand_as(slope)].any()


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_types_of_targets(kind):
    logits, target, weight, regions = problem("sigmoid multi-hot", 3)
    expected = compare(logits, target, weight, regions, reading("sigmoid multi-hot"))
    found = compare(logits, target.to(kind), weight, regions, reading("sigmoid multi-hot"))
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["sigmoid soft", "softmax soft"])
def test_nan_is_not_hidden(kind, bad):
    logits, target, _, regions = problem(kind, 3)
    logits[0, 1, 4, 4, 4] = bad
    loss = get_loss("blob", activation=kind.split()[0], global_weight=0)
    leaf = logits.requires_grad_()
    value = loss(leaf, target, regions=regions)
    exact = loss(logits.detach().double(), target, regions=regions)
    assert torch.isfinite(value) == torch.isfinite(exact)
    value.backward()
    assert leaf.grad[0, 1, 4, 4, 4].isfinite() == torch.isfinite(value)


@pytest.mark.parametrize("voxels", [1, 15, 255, 256, 257, 1023])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_parts_of_any_length(kind, voxels, monkeypatch):
    monkeypatch.setattr(compiled, "PART", 1)  # a block in every part
    logits, target, weight, regions = problem(kind, 3)
    logits, target, weight, regions = (
        each.flatten(-3)[..., :voxels] for each in (logits, target, weight, regions.clamp_max(voxels))
    )
    compare(logits, target, weight, regions, reading(kind))


@pytest.mark.parametrize("kind", ["sigmoid labels", "softmax soft"])
def test_the_number_of_threads_changes_no_bit(kind, monkeypatch):
    monkeypatch.setattr(compiled, "PART", 1)
    logits, target, _, regions = problem(kind, 3)
    offsets, owner = operator.places(regions)
    given, places, found = (target, regions, offsets, None), len(owner), []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            sums, voxels = passes.sums(logits, *given, places, reading(kind))
            found.append((sums, voxels, passes.gradient(torch.ones_like(sums), logits, *given, reading(kind))))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(other, found[0], strict=True))


def test_nothing_to_read():
    how = reading("sigmoid soft")
    for shape in ((0, 3, 4), (2, 3, 0)):
        logits, regions = torch.zeros(shape), torch.zeros(shape, dtype=torch.int32)
        offsets, owner = operator.places(regions)
        given = (logits, regions, offsets)
        sums, voxels = passes.sums(logits, *given, None, len(owner), how)
        assert sums.shape == (4, 2 * len(owner)) and not sums.any() and not voxels.any()
        assert passes.gradient(sums, logits, *given, None, how).shape == shape


def test_what_it_does_not_take():
    logits, target, weight, regions = problem("sigmoid soft", 3)
    assert compiled.takes_odds(logits, target, regions, weight, 9)
    assert not compiled.takes_odds(logits.double(), target, regions, weight, 9)
    assert not compiled.takes_odds(logits.half(), target, regions, weight, 9)
    assert not compiled.takes_odds(logits, target, regions.short(), weight, 9)
    assert not compiled.takes_odds(logits, target, regions, weight.double(), 9)
    assert not compiled.takes_odds(logits, target, regions, weight, compiled.MOST_PLACES)
