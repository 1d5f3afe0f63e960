"""Distances against all pairs of voxels, in two and three dimensions."""

import numpy as np
import pytest

from voxloss.geometry import distances
from voxloss.geometry.distances import innermost_voxel, nearest_distances

GRIDS = [((9, 12), (2.5, 0.7)), ((7, 8, 9), (3.0, 0.7, 1.1)), ((1, 10, 8), (5.0, 1.0, 1.0))]


def all_pairs(points, targets, spacing):
    ours, theirs = (np.argwhere(mask) * spacing for mask in (points, targets))
    return np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(axis=1, initial=np.inf)


@pytest.mark.parametrize("dense", [0, 20, 10**9])  # 0: always from point to point; 10⁹: always over the whole grid
@pytest.mark.parametrize("share", [0.01, 0.2])
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_the_nearest_is_that_of_all_pairs(shape, spacing, share, dense, monkeypatch):
    monkeypatch.setattr(distances, "DENSE", dense)
    random = np.random.default_rng(2)
    for _ in range(5):
        points, targets = random.random((2, *shape)) < share
        targets[(0,) * len(shape)] = points[(-1,) * len(shape)] = True  # at the border
        found = nearest_distances(points, targets, spacing)
        np.testing.assert_allclose(found, all_pairs(points, targets, spacing), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dense", [0, 10**9])
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_empty_masks(shape, spacing, dense, monkeypatch):
    monkeypatch.setattr(distances, "DENSE", dense)
    empty, some = np.zeros((2, *shape), dtype=bool)
    some[..., 2:5] = True
    assert nearest_distances(empty, some, spacing).shape == (0,)
    assert nearest_distances(empty, empty, spacing).shape == (0,)
    assert nearest_distances(some, empty, spacing).tolist() == [np.inf] * np.count_nonzero(some)
    assert not nearest_distances(some, some, spacing).any()


@pytest.mark.parametrize("points", [3, 30])
def test_both_ways_are_taken(points, monkeypatch):
    """From point to point where few are set, over the grid where many are."""
    calls = []
    transform = distances.ndimage.distance_transform_edt
    monkeypatch.setattr(
        distances.ndimage, "distance_transform_edt", lambda *a, **k: calls.append(a) or transform(*a, **k)
    )
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask.flat[:points] = True
    nearest_distances(mask, mask, (1, 1, 1))
    assert bool(calls) == (points == 30)


@pytest.mark.parametrize("shape", [(8, 9), (5, 6, 7)])
def test_the_innermost_voxel_is_surrounded_by_most_layers(shape):
    random = np.random.default_rng(4)
    for _ in range(20):
        mask = random.random(shape) < 0.9
        padded = np.pad(mask, max(shape))

        def layers(voxel, padded=padded):
            radius, centre = 0, np.add(voxel, max(shape))
            while padded[tuple(slice(place - radius, place + radius + 1) for place in centre)].all():
                radius += 1
            return radius

        depth = {voxel: layers(voxel) for voxel in np.ndindex(shape)}
        assert innermost_voxel(mask) == max(depth, key=lambda voxel: depth[voxel])


def test_the_innermost_voxel_of_a_ring_lies_in_the_ring():
    ring = np.ones((9, 9), dtype=bool)
    ring[3:6, 3:6] = False
    assert ring[innermost_voxel(ring)] and innermost_voxel(ring) == (1, 1)
    assert innermost_voxel(np.ones((5, 5, 5), dtype=bool)) == (2, 2, 2)  # beyond the array nothing is in the mask
