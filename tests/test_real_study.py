"""A study on real images, scaled down: four BRATS patients, two folds, two losses, through to scores."""

import shutil

import nibabel
import numpy as np
import pytest

from study_helpers import call
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.scores import read_scores

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]


def test_the_brats20_preset_scores_and_predicts_on_the_original_grid(real_data, tmp_path):
    study = tmp_path / "study"
    result = call(
        "run", "brats20", "--data", real_data / "brats", "--study", study, "--losses", "mixed_focal",
        "--splits.folds", "2", "--preparation.spacing_mm", "[4,4,4]", "--patches.size", "[32,32,32]",
        "--network.filters", "4", "--network.depth", "2", "--training.epochs", "2", "--training.iterations", "5",
        "--training.validation_batches", "1", "--execution.device", "cpu", "--execution.parallel", "2",
        "--execution.threads", "1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = read_scores(study / "scores.csv")
    assert len(scores) == 4 * len(METRICS)
    assert set(scores["class"]) == {"enhancing tumour"}
    dice = scores[scores.metric == "dice"].set_index(["loss", "case"])["value"]
    predictions = sorted(study.glob("runs/*/fold-*/seed-0/predictions/*.nii.gz"))
    assert len(predictions) == 4
    for path in predictions:
        case, loss = path.name.removesuffix(".nii.gz"), path.parts[-5]
        folder = real_data / "brats" / case
        prediction, image = nibabel.load(path), nibabel.load(folder / f"{case}_t1ce.nii.gz")
        assert prediction.shape == image.shape == (240, 240, 155)
        np.testing.assert_array_equal(prediction.affine, image.affine)
        assert prediction.header["sform_code"] == image.header["sform_code"]
        assert prediction.header["qform_code"] == image.header["qform_code"]
        label = np.asarray(prediction.dataobj)
        assert set(np.unique(label)) <= {0, 4}  # the data set's own value for enhancing tumour
        reference = np.asarray(nibabel.load(folder / f"{case}_seg.nii.gz").dataobj) == 4
        overlap = 2 * (reference & (label == 4)).sum() / (reference.sum() + (label == 4).sum())
        np.testing.assert_allclose(dice[loss, case], overlap)
    assert (study / "report" / "index.html").exists()


def test_predictions_on_a_foreign_folder_overlay_their_images(real_data, tmp_path):
    """A network of one 1×1×1 convolution separates intensities, so a mask in its place is a threshold of its image."""
    sources = {
        "ms": (real_data / "ms_lesions/patient19/flair.nii.gz", real_data / "ms_lesions/patient19/lesions.nii.gz"),
        **{
            name: (real_data / f"tumour_rois/{name}_image.nii.gz", real_data / f"tumour_rois/{name}_label.nii.gz")
            for name in ("brain1", "breast1")
        },
    }
    for number, folder in enumerate(("images", "masks")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name, files in sources.items():
            shutil.copy(files[number], tmp_path / "data" / folder / f"{name}.nii.gz")
    study = tmp_path / "study"
    result = call(
        "run", "folder", "--data", tmp_path / "data", "--study", study, "--losses", "dice", "--seeds", "0",
        "--splits.folds", "3", "--preparation.spacing_mm", "null", "--patches.size", "[16,48,48]",
        "--patches.foreground_share", "1", "--patches.overlap", "0", "--network.name", "torch.nn.Conv3d",
        "--network.arguments", "{kernel_size: 1}", "--training.learning_rate", "0.3", "--training.epochs", "2",
        "--training.iterations", "20", "--training.validation_batches", "1", "--execution.device", "cpu",
        "--augmentation.probability", "0", "--execution.threads", "1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    chosen = 0
    for name, (path, _) in sources.items():
        [written] = study.glob(f"runs/dice/*/*/predictions/{name}.nii.gz")
        image, prediction = nibabel.load(path), nibabel.load(written)
        assert prediction.shape == image.shape
        assert nibabel.aff2axcodes(prediction.affine) == nibabel.aff2axcodes(image.affine)
        np.testing.assert_array_equal(prediction.affine, image.affine)
        for code in ("qform_code", "sform_code"):
            assert prediction.header[code] == image.header[code]
        mask, intensity = np.asarray(prediction.dataobj) > 0, np.asarray(image.dataobj, dtype=np.float32)
        if mask.any() and not mask.all():
            chosen += 1
            low, high = intensity[mask].min(), intensity[~mask].max()
            dark = intensity[mask].max() <= intensity[~mask].min()
            assert low >= high or dark
    assert chosen >= 2
