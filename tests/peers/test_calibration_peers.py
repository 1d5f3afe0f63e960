"""Calibration and average precision from counts equal torchmetrics' and scikit-learn's from all voxels."""

import numpy as np
import pytest
import torch

from voxloss.evaluation.probabilities.calibration import calibration
from voxloss.evaluation.probabilities.counts import ProbabilityCounts, count_probabilities
from voxloss.evaluation.probabilities.thresholds import average_precision

pytestmark = pytest.mark.peers

sklearn = pytest.importorskip("sklearn.metrics")
torchmetrics = pytest.importorskip("torchmetrics.functional.classification")


@pytest.fixture(params=[0, 1, 2])
def voxels(request):
    random = np.random.default_rng(request.param)
    values = random.beta(0.2, 2 + request.param, size=30_000).astype(np.float32)
    truth = random.random(values.size) < values**1.4
    counts = count_probabilities(np.stack([1 - values, values]), truth.astype(np.uint8))
    return values, truth, ProbabilityCounts(counts.voxels[0], counts.sums[0])


def test_calibration_error_is_that_of_torchmetrics(voxels):
    values, truth, counts = voxels
    expected = torchmetrics.binary_calibration_error(
        torch.tensor(values), torch.tensor(truth).int(), n_bins=15, norm="l1"
    )
    assert calibration(counts).ece == pytest.approx(float(expected), abs=1e-4)


def test_average_precision_is_that_of_torchmetrics_and_scikit_learn(voxels):
    values, truth, counts = voxels
    expected = float(torchmetrics.binary_average_precision(torch.tensor(values), torch.tensor(truth).int()))
    assert average_precision(counts) == pytest.approx(expected, abs=0.005)
    assert expected == pytest.approx(sklearn.average_precision_score(truth, values), abs=1e-4)


def test_brier_and_log_score_are_those_of_scikit_learn(voxels):
    values, truth, counts = voxels
    found = calibration(counts)
    assert found.brier == pytest.approx(sklearn.brier_score_loss(truth, values), rel=1e-3)
    clipped = np.clip(values.astype(float), 0.5 / 65535, 1 - 0.5 / 65535)
    assert found.log_score == pytest.approx(sklearn.log_loss(truth, clipped), rel=5e-3)
