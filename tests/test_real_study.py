"""A study on real images, scaled down: four BRATS patients, two folds, two losses, through to scores."""

import nibabel
import numpy as np

from study_helpers import command
from voxloss.evaluation.scores import read_scores


def test_the_brats20_preset_scores_and_predicts_on_the_original_grid(real_data, tmp_path):
    study = tmp_path / "study"
    result = command(
        "run", "brats20", "--data", real_data / "brats", "--study", study, "--losses", "combo,mixed_focal",
        "--splits.folds", "2", "--preparation.spacing_mm", "[4,4,4]", "--patches.size", "[32,32,32]",
        "--network.filters", "4", "--network.depth", "2", "--training.epochs", "2", "--training.iterations", "5",
        "--training.validation_batches", "1", "--execution.device", "cpu", "--execution.parallel", "2",
        "--execution.threads", "1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = read_scores(study / "scores.csv")
    assert len(scores) == 2 * 4 * 3
    assert set(scores["class"]) == {"enhancing tumour"}
    dice = scores[scores.metric == "dice"].set_index(["loss", "case"])["value"]
    predictions = sorted(study.glob("runs/*/fold-*/seed-0/predictions/*.nii.gz"))
    assert len(predictions) == 8
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
