"""Components and boxes against a flood fill and single voxels looked at one by one, in two and three dimensions."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from voxloss.geometry import components as module
from voxloss.geometry.components import (
    bounding_box,
    class_boxes,
    component_at,
    count_components,
    dilated,
    enclosing_box,
    find_components,
    label_components,
    largest_component,
    merge_close,
)


def flood(mask, neighbours):
    """The components as sets of voxels, in the order of their first voxels."""
    limit = {"faces": 1, "edges": 2, "corners": mask.ndim}[neighbours]
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if 0 < np.abs(s).sum() <= limit]
    left = dict.fromkeys(tuple(map(int, voxel)) for voxel in np.argwhere(mask))
    components = []
    while left:
        todo, component = [next(iter(left))], set()
        while todo:
            voxel = todo.pop()
            if voxel in left:
                del left[voxel]
                component.add(voxel)
                todo += [tuple(map(int, np.add(voxel, step))) for step in steps]
        components.append(component)
    return components


def masks():
    random = np.random.default_rng(3)
    shapes = [(7, 9), (1, 8), (5, 6, 7), (6, 1, 5), (4, 4, 4)]
    yield from (random.random(shape) < share for shape in shapes for share in (0.1, 0.3, 0.6))
    yield from (np.zeros(shape, bool) for shape in shapes)
    yield from (np.ones(shape, bool) for shape in shapes)
    corners = np.zeros((5, 5, 5), bool)
    corners[::4, ::4, ::4] = True  # eight voxels at the border
    yield corners


@pytest.mark.parametrize("neighbours", ["faces", "edges", "corners"])
@pytest.mark.parametrize("mask", list(masks()))
def test_components_are_those_of_a_flood_fill(mask, neighbours):
    expected = flood(mask, neighbours)
    components, count = label_components(mask, neighbours)
    assert count == len(expected)
    assert not components[~mask].any()
    for number, voxels in enumerate(expected, start=1):
        assert {tuple(map(int, voxel)) for voxel in np.argwhere(components == number)} == voxels
    largest, size = largest_component(mask, neighbours)
    biggest = max(expected, key=len, default=set())  # of equal ones the first
    assert size == len(biggest)
    assert {tuple(map(int, voxel)) for voxel in np.argwhere(largest)} == biggest
    for voxels in expected:
        inside = component_at(mask, max(voxels), neighbours)
        assert {tuple(map(int, voxel)) for voxel in np.argwhere(inside)} == voxels
    if neighbours == "corners":
        assert count_components(mask) == count


@pytest.mark.parametrize("share", [1, 10**9])  # found on the grid, and from voxel to voxel
@pytest.mark.parametrize("neighbours", ["faces", "edges", "corners"])
@pytest.mark.parametrize("mask", list(masks()))
def test_components_by_their_voxels_are_the_same(mask, neighbours, share, monkeypatch):
    monkeypatch.setattr(module, "SPARSE", share)
    grid, count = label_components(mask, neighbours)
    for ordered in (mask, np.asfortranarray(mask)):
        found = find_components(ordered, neighbours)
        assert found.count == count
        assert found.voxels.tolist() == np.flatnonzero(mask).tolist()
        assert (found.numbers + 1).tolist() == grid[mask].tolist()
        assert found.sizes().tolist() == np.bincount(grid.ravel(), minlength=count + 1)[1:].tolist()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("mask", list(masks()))
def test_dilation_by_component_is_that_of_the_whole_mask(mask, steps):
    structure = ndimage.generate_binary_structure(mask.ndim, 2)
    expected = ndimage.binary_dilation(mask, structure, iterations=steps)
    components, grown = find_components(mask), np.zeros_like(mask)
    for number, (box, part) in enumerate(dilated(components, mask.shape, steps)):
        alone = np.zeros_like(mask)
        alone.ravel()[components.voxels[components.numbers == number]] = True
        assert part.tolist() == ndimage.binary_dilation(alone, structure, iterations=steps)[box].tolist()
        grown[box] |= part
    assert grown.tolist() == expected.tolist()
    merged = merge_close(components, mask.shape, steps, "corners")
    grid, count = label_components(expected)
    assert merged.count == count
    assert (merged.numbers + 1).tolist() == grid[mask].tolist()


def test_an_array_without_voxels_has_no_component():
    empty = np.zeros((0, 4, 0), bool)
    assert count_components(empty) == 0 and bounding_box(empty) is None
    assert find_components(empty).count == 0 and list(dilated(find_components(empty), empty.shape, 1)) == []
    assert largest_component(empty)[1] == 0


def test_a_voxel_outside_the_mask_is_a_mistake():
    with pytest.raises(AssertionError, match="in the mask"):
        component_at(np.zeros((2, 2), bool), (0, 0))


@pytest.mark.parametrize("mask", list(masks()))
def test_a_box_holds_every_voxel_and_no_empty_border(mask):
    box = bounding_box(mask)
    if not mask.any():
        assert box is None
        return
    assert np.count_nonzero(mask[box]) == np.count_nonzero(mask)
    for axis in range(mask.ndim):
        inside = np.moveaxis(mask[box], axis, 0)
        assert inside[0].any() and inside[-1].any()


def test_boxes_of_boxes():
    first, second = (slice(1, 3), slice(4, 9)), (slice(2, 5), slice(0, 4))
    assert enclosing_box([first, None, second]) == (slice(1, 5), slice(0, 9))
    assert enclosing_box([None, None]) is None and enclosing_box([]) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool])
@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 4)])
def test_class_boxes_hold_a_class_in_every_label_map(dtype, shape):
    random = np.random.default_rng(8)
    classes = 2 if dtype is bool else 6
    for _ in range(20):
        label_maps = [
            np.where(random.random(shape) < 0.08, random.integers(1, min(classes, 5), shape), 0).astype(dtype)
            for _ in range(2)
        ]
        boxes = class_boxes(label_maps, classes)
        assert len(boxes) == classes
        for index, box in enumerate(boxes):
            either = np.logical_or(*(labels == index for labels in label_maps))
            if index and either.any():
                assert box == bounding_box(either)
            else:  # the background, or a class in neither, as the last one
                assert either[box].size == 0
