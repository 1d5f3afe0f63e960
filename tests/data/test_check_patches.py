"""Patches that miss a structure."""

import numpy as np
import pytest
from scipy import ndimage

from voxloss.data.check.patches import share_of_patches_without


def test_the_share_of_patches_is_that_of_all_places():
    """Against every place of a patch, in sliding windows."""
    generator = np.random.default_rng(1)
    chosen = ndimage.binary_dilation(generator.random((20, 24, 30)) > 0.999, iterations=1)
    size = (6, 8, 5)
    windows = np.lib.stride_tricks.sliding_window_view(chosen, size).any(axis=(3, 4, 5))
    exact = 1 - windows.mean()
    assert 0.2 < exact < 0.8
    assert share_of_patches_without(chosen, size) == pytest.approx(exact, abs=0.12)
    assert share_of_patches_without(chosen, size) == share_of_patches_without(chosen, size)


def test_a_patch_longer_than_the_volume_covers_it():
    chosen = np.zeros((4, 5, 6), bool)
    assert share_of_patches_without(chosen, (9, 9, 9)) == 1
    chosen[3, 4, 5] = True
    assert share_of_patches_without(chosen, (9, 9, 9)) == 0
