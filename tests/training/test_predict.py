"""Whole-volume prediction by overlapping windows."""

import numpy as np
import pytest
import torch

from voxloss.config.schema import PatchesConfig, StudyConfig
from voxloss.training.predict import predict_probabilities


class Threshold(torch.nn.Module):
    """Class 1 where the intensity is above 0; looks at nothing but the voxel, so windows cannot disagree."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, windows):
        self.seen += [tuple(window.shape) for window in windows]
        return torch.cat([-self.scale * windows, self.scale * windows], dim=1)


@pytest.mark.parametrize("shape", [(20, 31, 17), (8, 16, 16), (5, 40, 16), (3, 7, 9)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_every_voxel_is_predicted_at_its_own_place(shape, overlap):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    network = Threshold()
    probabilities = predict_probabilities(
        network, image, StudyConfig(patches=PatchesConfig(size=(8, 16, 16), overlap=overlap))
    )
    assert probabilities.shape == (2, *shape)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), image[0] > 0)
    assert set(network.seen) == {(1, 8, 16, 16)}


def test_overlapping_windows_are_averaged_as_probabilities():
    """Each window says its own intensity's mean; a voxel in two windows gets the mean of both."""

    class Mean(Threshold):
        def forward(self, windows):
            chance = windows.mean(dim=(1, 2, 3, 4), keepdim=True).expand(-1, 1, *windows.shape[2:])
            return torch.cat([torch.log1p(-chance), torch.log(chance)], dim=1)

    image = np.zeros((1, 12, 16, 16), dtype=np.float32)
    image[:, :4], image[:, 4:8], image[:, 8:] = 0.2, 0.4, 0.8
    probabilities = predict_probabilities(
        Mean(), image, StudyConfig(patches=PatchesConfig(size=(8, 16, 16), overlap=0.5))
    )
    np.testing.assert_allclose(probabilities[1, :4], 0.3, atol=1e-5)
    np.testing.assert_allclose(probabilities[1, 4:8], (0.3 + 0.6) / 2, atol=1e-5)
    np.testing.assert_allclose(probabilities[1, 8:], 0.6, atol=1e-5)
