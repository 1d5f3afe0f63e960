"""Distances in C have the numbers of plain PyTorch, to the last bit, and are those to the nearest voxel of all."""

import pytest
import torch

from voxloss import distance_maps, get_loss
from voxloss.losses.voxel_pass import library
from voxloss.losses.voxel_pass.further import distances, nearest

pytestmark = pytest.mark.skipif(not library.is_there(), reason="no C compiler")
SHAPES = [(1,), (7,), (150,), (5, 9), (1, 70), (130, 3), (20, 1, 30), (17, 66, 9), (3, 4, 5, 6)]


def by_torch(monkeypatch, function, *given, **options):
    with monkeypatch.context() as patch:
        patch.setattr(nearest, "takes", lambda *_: False)
        return function(*given, **options)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0, 1.0), (0.7, 1.3, 2.9, 1.1), (3.3, 0.41, 1.0, 0.5)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bit_is_that_of_torch(monkeypatch, shape, spacing):
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = torch.rand(shape, generator=generator) < share
        mask.view(-1)[int(torch.randint(0, mask.numel(), (1,), generator=generator))] = True
        for each in (mask, mask.transpose(0, -1), mask.repeat_interleave(2, -1)[..., ::2]):
            sizes = spacing[: mask.ndim]
            assert nearest.takes(each, torch.float32)
            found = distances.distances_to(each, sizes)
            assert torch.equal(found, by_torch(monkeypatch, distances.distances_to, each, sizes))


def test_the_nearest_of_all_voxels():
    spacing = torch.tensor([1.5, 0.5, 1.0])
    mask = torch.rand(6, 70, 5, generator=torch.Generator().manual_seed(1)) < 0.01
    places = torch.cartesian_prod(*(torch.arange(length) for length in mask.shape)) * spacing
    exact = torch.cdist(places.double(), places[mask.flatten()].double()).amin(1)
    found = distances.distances_to(mask, spacing.tolist())
    torch.testing.assert_close(found.flatten().double(), exact, rtol=1e-6, atol=0)


def test_a_plane_without_a_voxel_finds_those_of_others():
    mask = torch.zeros(3, 5, 130, dtype=torch.bool)
    mask[1, 4, 129] = True
    squares = nearest.squares(mask, (1.0, 1.0, 1.0))
    assert squares[0, 0, 0] == 1 + 16 + 129**2 and squares[1, 4, 129] == 0 and squares.isfinite().all()


def test_the_number_of_threads_and_parts_changes_no_bit(monkeypatch):
    mask = torch.rand(30, 40, 50, generator=torch.Generator().manual_seed(2)) < 0.01
    expected, threads = nearest.squares(mask, (1.0, 1.3, 0.9)), torch.get_num_threads()
    monkeypatch.setattr(nearest, "_NUMBERS", 1)
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert torch.equal(nearest.squares(mask, (1.0, 1.3, 0.9)), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_losses_and_maps_keep_their_numbers(monkeypatch, activation):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 9, 8, 7, generator=generator)
    labels = torch.randint(0, 3, (2, 9, 8, 7), generator=generator)
    labels[0, :3], labels[1] = 5, labels[1].clamp_max(1)
    how = {"activation": activation, "ignore_index": 5}
    maps = distance_maps(labels, 3, spacing=(1, 2, 0.5), **how)
    assert torch.equal(maps, by_torch(monkeypatch, distance_maps, labels, 3, spacing=(1, 2, 0.5), **how))
    for name in ("hausdorff", "boundary"):
        loss = get_loss(name, **how)
        assert torch.equal(loss(logits, labels), by_torch(monkeypatch, loss, logits, labels))


def test_what_is_left_to_torch():
    mask = torch.ones(4, 4, dtype=torch.bool)
    assert not nearest.takes(mask, torch.float64) and not nearest.takes(mask[:0], torch.float32)
    assert distances.distances_to(mask, (1.0, 1.0), torch.float64).dtype == torch.float64
