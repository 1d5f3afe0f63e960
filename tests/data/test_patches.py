"""Patches: the same for every loss, drawn from (seed, fold, step) alone."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from voxloss.data.patches import PatchSetting, read_batch, training_places, validation_places


@dataclass
class Volume:
    """A prepared case in memory. Each voxel's intensity is its own index, so that a patch tells where it is from."""

    shape: tuple[int, int, int]
    voxels: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    inside: np.ndarray | None = None  # coordinates of a region of interest

    @property
    def image(self):
        return np.arange(np.prod(self.shape), dtype=np.float32).reshape(1, *self.shape)

    @property
    def label(self):
        label = np.zeros(self.shape, dtype=np.uint8)
        for index, voxels in self.voxels.items():
            for voxel in voxels:
                label[voxel] = index
        return label

    @property
    def foreground(self):
        return {index: np.array(voxels, dtype=np.int32) for index, voxels in self.voxels.items()}


CASES = [
    Volume((10, 12, 14), {1: [(5, 5, 5)]}),
    Volume((6, 20, 9), {1: [(0, 0, 0)], 2: [(5, 19, 8)]}),
    Volume((9, 9, 9)),
]


def test_a_patch_is_the_volumes_part_at_its_place():
    setting = PatchSetting((4, 4, 4), 2, 0.0)
    for step in range(20):
        places = training_places(CASES, setting, seed=1, fold=0, step=step)
        images, labels = read_batch(CASES, places, setting.size)
        for place, image, label in zip(places, images, labels, strict=True):
            case = CASES[place.case]
            inside = tuple(slice(first, first + 4) for first in place.origin)
            np.testing.assert_array_equal(image[0], case.image[0][inside])
            np.testing.assert_array_equal(label, case.label[inside])


def test_a_step_needs_no_steps_before_it_and_no_place_depends_on_the_process_state():
    setting = PatchSetting((4, 4, 4), 2, 0.5)
    forward = [training_places(CASES, setting, 7, 2, step) for step in range(10)]
    np.random.seed(99)  # noqa: NPY002
    backward = [training_places(CASES, setting, 7, 2, step) for step in reversed(range(10))]
    assert forward == backward[::-1]
    assert forward != [training_places(CASES, setting, 8, 2, step) for step in range(10)]
    assert forward != [training_places(CASES, setting, 7, 3, step) for step in range(10)]
    one = [[training_places(CASES[:1], setting, 7, fold, step) for step in range(10)] for fold in (2, 3)]
    assert one[0] != one[1]  # the places differ too, not only the order of the cases


def test_every_pass_takes_every_case_once_in_a_new_order():
    setting = PatchSetting((4, 4, 4), 2, 0.0)
    order = [place.case for step in range(30) for place in training_places(CASES, setting, 0, 0, step)]
    passes = [tuple(order[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(turn) == [0, 1, 2] for turn in passes)
    assert len(set(passes)) > 1


def test_uniform_positions_cover_every_place_equally():
    setting = PatchSetting((9, 9, 8), 1, 0.0)
    counts = Counter(training_places([CASES[2]], setting, 0, 0, step)[0].origin for step in range(1000))
    assert set(counts) == {(0, 0, 0), (0, 0, 1)}
    assert 420 < counts[0, 0, 0] < 580


def test_foreground_patches_hold_their_voxel_and_draw_the_class_first():
    setting = PatchSetting((4, 4, 4), 1, 1.0)
    seen = Counter()
    for step in range(200):
        [place] = training_places([CASES[1]], setting, 0, 0, step)
        _, labels = read_batch([CASES[1]], [place], setting.size)
        assert labels.any()
        seen.update(np.unique(labels[labels > 0]).tolist())
    assert 70 < seen[1] < 130
    assert 70 < seen[2] < 130
    [place] = training_places([CASES[2]], setting, 0, 0, 0)  # without foreground a patch lies anywhere
    assert place.case == 0


def test_a_small_volume_is_centred_and_padded_with_its_minimum_and_background():
    case = Volume((3, 8, 8), {1: [(1, 1, 1)]})
    setting = PatchSetting((6, 4, 4), 1, 1.0)
    [place] = training_places([case], setting, 0, 0, 0)
    assert place.origin[0] == -2
    image, label = (array[0] for array in read_batch([case], [place], setting.size))
    inside = tuple(slice(first, first + 4) for first in place.origin[1:])
    np.testing.assert_array_equal(image[0, 2:5], case.image[0][(slice(None), *inside)])
    assert (image[0, [0, 1, 5]] == image[0, 2:5].min()).all()
    assert label[3].sum() == 1
    assert not label[[0, 1, 5]].any()


def test_validation_patches_are_fixed_and_go_through_the_cases_in_turn():
    setting = PatchSetting((4, 4, 4), 2, 0.5)
    places = [place for step in range(3) for place in validation_places(CASES, setting, 0, step)]
    assert [place.case for place in places] == [0, 1, 2, 0, 1, 2]
    assert places[2:4] == validation_places(CASES, setting, 0, 1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_patches_lie_inside_wherever_the_volume_is_large_enough(share):
    setting = PatchSetting((6, 8, 8), 2, share)
    for step in range(50):
        for place in training_places(CASES, setting, 0, 0, step):
            for first, length, extent in zip(place.origin, setting.size, CASES[place.case].shape, strict=True):
                assert 0 <= first <= extent - length


def test_sampling_by_class_draws_every_class_equally_from_the_cases_that_have_it():
    rare = [*CASES, *(Volume((9, 9, 9), {1: [(4, 4, 4)]}) for _ in range(20))]
    setting = PatchSetting((3, 3, 3), 2, 1.0, by_class=True)
    seen = Counter()
    for step in range(300):
        places = training_places(rare, setting, 0, 0, step)
        _, labels = read_batch(rare, places, setting.size)
        for place, label in zip(places, labels, strict=True):
            assert label.any()  # always centred
            seen[2 in label, place.case] += 1
    assert 240 < seen[True, 1] < 360  # half of the patches, all from the only case that has it
    assert {case for two, case in seen if two} == {1}
    without = sum(count for (two, _), count in seen.items() if not two)
    assert all(seen[False, case] < without / 6 for case in range(len(rare)))
    by_case = PatchSetting((3, 3, 3), 2, 1.0)
    places = [place for step in range(300) for place in training_places(rare, by_case, 0, 0, step)]
    assert sum(place.case == 1 for place in places) == pytest.approx(600 / 23, abs=2)


def test_sampling_by_class_centres_the_share_and_takes_the_others_from_the_cases_in_turn():
    setting = PatchSetting((3, 3, 3), 2, 0.5, by_class=True)
    places = [place for step in range(400) for place in training_places(CASES, setting, 3, 1, step)]
    assert places == [place for step in range(400) for place in training_places(CASES, setting, 3, 1, step)]
    empty = sum(place.case == 2 for place in places) / len(places)
    assert empty == pytest.approx(0.5 / 3, abs=0.04)  # the case without a class
    none = PatchSetting((3, 3, 3), 2, 0.0, by_class=True)
    plain = PatchSetting((3, 3, 3), 2, 0.0)
    for step in range(10):
        assert training_places(CASES, none, 3, 1, step) == training_places(CASES, plain, 3, 1, step)
        assert training_places(CASES[2:], setting, 3, 1, step) == training_places(CASES[2:], plain, 3, 1, step)
