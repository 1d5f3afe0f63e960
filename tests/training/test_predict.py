"""Whole-volume prediction by overlapping windows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from voxloss.config.schema import PatchesConfig, StudyConfig
from voxloss.data.patches import padding_before
from voxloss.data.prepare import resample
from voxloss.data.prepare.resample import resample_probabilities
from voxloss.training import predict
from voxloss.training.predict import predict_label, predict_probabilities


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


class Mixed(torch.nn.Module):
    """Five classes whose logits depend on the voxel's surroundings, so that windows disagree at their edges."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, classes, 3, padding=1)

    def forward(self, windows):
        return 3 * self.layer(windows)


def monai_probabilities(network, image, config) -> np.ndarray:
    """The probabilities of the whole volume at once."""
    setting = config.patches
    before = [padding_before(extent, size) for extent, size in zip(image.shape[1:], setting.size, strict=True)]
    after = [max(0, b - a - c) for a, b, c in zip(image.shape[1:], setting.size, before, strict=True)]
    padding = list(zip(before, after, strict=True))
    padded = np.stack([np.pad(channel, padding, constant_values=channel.min()) for channel in image])
    with torch.no_grad():
        whole = sliding_window_inference(
            torch.from_numpy(padded)[None],
            setting.size,
            setting.batch_size,
            lambda windows: torch.softmax(network(windows.contiguous(memory_format=torch.channels_last_3d)), dim=1),
            overlap=setting.overlap,
            mode=setting.window,
        )[0]
    inside = tuple(slice(start, start + extent) for start, extent in zip(before, image.shape[1:], strict=True))
    return whole[(slice(None), *inside)].numpy()


CASES = [
    ((20, 31, 17), (20, 31, 17), (8, 16, 16)),
    ((20, 31, 17), (45, 20, 33), (8, 16, 16)),
    ((33, 20, 40), (11, 40, 13), (8, 8, 8)),  # a coarser grid
    ((5, 40, 16), (7, 9, 50), (8, 16, 16)),  # padding
    ((1, 30, 26), (1, 55, 26), (1, 16, 16)),
    ((6, 7, 9), (12, 14, 18), (8, 16, 16)),
]


@pytest.mark.parametrize(("source", "shape", "size"), CASES)
@pytest.mark.parametrize(
    ("overlap", "window", "batch"), [(0.5, "constant", 2), (0.0, "constant", 3), (0.7, "gaussian", 1)]
)
@pytest.mark.parametrize("slab", [300, 2**24])
def test_prediction_by_rows_is_that_of_the_whole_volume(source, shape, size, overlap, window, batch, slab, monkeypatch):
    """To the last bit, against MONAI's windows and the resampling of all probabilities."""
    monkeypatch.setattr(resample, "SLAB_VOXELS", slab)
    torch.manual_seed(0)
    network, image = Mixed(), np.random.default_rng(0).normal(size=(1, *source)).astype(np.float32)
    config = StudyConfig(patches=PatchesConfig(size=size, overlap=overlap, window=window, batch_size=batch))
    expected = monai_probabilities(network, image, config)
    np.testing.assert_array_equal(predict_probabilities(network, image, config), expected)
    label = predict_label(network, image, config, shape, 5)
    np.testing.assert_array_equal(label, resample_probabilities(expected, shape))
    assert label.dtype == np.uint8 and len(np.unique(label)) > 2


@pytest.mark.parametrize(("source", "shape", "size"), CASES)
@pytest.mark.parametrize("most", [1, 9_000])
def test_large_planes_are_predicted_in_parts(source, shape, size, most, monkeypatch):
    torch.manual_seed(0)
    network, image = Mixed(), np.random.default_rng(0).normal(size=(1, *source)).astype(np.float32)
    config = StudyConfig(patches=PatchesConfig(size=size))
    whole = predict_label(network, image, config, shape, 5)
    monkeypatch.setattr(predict, "MOST_BYTES", most)
    parts = predict.plane_parts(source, shape, size, 5)
    seen = np.zeros(shape, int)
    for part in parts:
        seen[(slice(None), *part)] += 1
    assert (seen == 1).all()
    if any(extent > length for extent, length in zip(source[1:], size[1:], strict=True)):
        assert len(parts) > 1
    label = predict_label(network, image, config, shape, 5)
    assert (label != whole).mean() < 1e-3  # where rounding decides


def test_a_part_is_a_window_at_least_and_the_rest_fits(monkeypatch):
    assert predict.plane_parts((600, 512, 512), (600, 512, 512), (128, 128, 128), 2) == [(slice(0, 512), slice(0, 512))]
    parts = predict.plane_parts((600, 512, 512), (300, 256, 256), (128, 128, 128), 105)
    first, second = ((part.stop - part.start) * 2 for part in parts[0])
    assert 4 * 105 * 128 * first * second <= predict.MOST_BYTES * 1.05
    assert len(parts) < 20
    monkeypatch.setattr(predict, "MOST_BYTES", 1)
    assert len(predict.plane_parts((64, 64, 64), (64, 64, 64), (32, 32, 32), 105)) <= 9


@pytest.mark.slow
def test_many_classes_on_a_large_volume_stay_within_the_bound():
    """In a process of its own: 60 classes of 96 × 160 × 160 voxels would take 590 MB at once."""
    program = """
import numpy as np, torch
from test_predict import Mixed
from voxloss.config.schema import PatchesConfig, StudyConfig
from voxloss.training import predict
from voxloss.utilities.machine import forget_peak_memory, peak_memory
config = StudyConfig(patches=PatchesConfig(size=(16, 32, 32), overlap=0.0))
network = Mixed(60)
predict.predict_label(network, np.zeros((1, 16, 32, 32), np.float32), config, (16, 32, 32), 60)  # imports
predict.MOST_BYTES = 60_000_000
image = np.random.default_rng(0).normal(size=(1, 96, 160, 160)).astype(np.float32)
shape = image.shape[1:]
forget_peak_memory()
before = peak_memory()
predict.predict_label(network, image, config, (96, 160, 160), 60)
print(-1 if before is None else peak_memory() - before, predict.prediction_memory(shape, shape, config, 1, 60))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    taken, said = map(int, result.stdout.split())
    assert taken < 300_000_000
    assert taken <= said * 1.3
