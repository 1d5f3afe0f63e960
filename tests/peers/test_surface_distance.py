"""Surface metrics against the package that defined them, on real pairs of masks and made ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from voxloss.evaluation.surface import surface_distances

package = pytest.importorskip("surface_distance")

pytestmark = pytest.mark.peers

DATA = Path(os.environ.get("VOXLOSS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def made_pairs():
    random = np.random.default_rng(0)
    for spacing in ((3.0, 0.7, 1.1), (1.0, 1.0, 1.0), (0.5, 2.0, 0.5)):
        reference = random.random((9, 12, 10)) < 0.3
        yield reference, np.where(random.random(reference.shape) < 0.2, ~reference, reference), spacing
        yield reference, np.roll(reference, 2, axis=1), spacing


def real_pairs():
    nibabel = pytest.importorskip("nibabel")
    for folder in sorted((DATA / "spine_pred_ref").glob("*")):
        reference, prediction = (nibabel.load(folder / name) for name in ("ref.nii.gz", "pred.nii.gz"))
        spacing = tuple(float(value) for value in reference.header.get_zooms())
        reference, prediction = (np.asarray(image.dataobj) for image in (reference, prediction))
        for value in np.intersect1d(reference, prediction)[1:6]:
            yield reference == value, prediction == value, spacing


@pytest.mark.parametrize("pairs", [made_pairs, real_pairs])
def test_equal_to_surface_distance(pairs):
    compared = 0
    for reference, prediction, spacing in pairs():
        ours = surface_distances(reference, prediction, spacing)
        theirs = package.compute_surface_distances(reference, prediction, spacing)
        assert ours.hausdorff(0.95) == pytest.approx(package.compute_robust_hausdorff(theirs, 95), rel=1e-6)
        tolerant = package.compute_surface_dice_at_tolerance(theirs, 1.05)
        assert ours.within(1.05) == pytest.approx(tolerant, rel=1e-6)
        directed = package.compute_average_surface_distance(theirs)
        areas = ours.reference_area.sum(), ours.prediction_area.sum()
        assert ours.average() == pytest.approx(np.average(directed, weights=areas), rel=1e-6)
        compared += 1
    if not compared:
        pytest.skip(f"no real pairs at {DATA}")
