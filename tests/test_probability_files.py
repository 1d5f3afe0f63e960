"""Probabilities of a study: counts beside the scores, volumes where they are kept, and those of `voxloss predict`."""

import math
import shutil

import nibabel
import numpy as np
import pytest

from study_helpers import call, tiny_run
from voxloss.data.case import read_label
from voxloss.data.grid import turn_of
from voxloss.data.prepare.case import open_prepared
from voxloss.data.probabilities import read_probability, to_bytes, write_probabilities
from voxloss.evaluation.lesion_list import read_lesions
from voxloss.evaluation.probabilities.counts import count_probabilities, read_counts
from voxloss.evaluation.probabilities.froc import LESION_THRESHOLDS
from voxloss.evaluation.scores import read_scores
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.training.networks import make_network
from voxloss.training.predict import predict_probabilities
from voxloss.utilities.errors import InputError


def runs_of(study):
    return [study.run_folder(run) for run in study.runs()]


def network_of(study, folder):
    state = load_state(folder.checkpoint_file)
    network = make_network(study.config.network, study.config.patches.size, 1, len(study.dataset.classes))
    network.load_state_dict(state["network"])
    return network


def upsampled(prepared, shape):
    """Every class's probabilities on the grid of a case, by torch."""
    import torch

    volume = torch.from_numpy(prepared)[None]
    return torch.nn.functional.interpolate(volume, size=shape, mode="trilinear", align_corners=False)[0].numpy()


@pytest.mark.slow
def test_every_run_counts_the_voxels_of_its_scored_cases(tiny_study):
    study = Study.open(tiny_study)
    scores = read_scores(tiny_study / "scores.csv")
    for run in study.runs():
        counts = read_counts(study.run_folder(run).counts_file)
        assert counts.cases == study.split(run.fold).validation and not any(counts.inner)
        assert counts.classes == study.dataset.classes[1:] and counts.lesion_class == "tumour"
        for case_id, of_case in zip(counts.cases, counts.counts, strict=True):
            label, geometry = read_label(study.case(case_id), study.dataset.label_values)
            for place in range(2):
                assert of_case.voxels[place].sum() == label.size
                assert of_case.voxels[place, 1].sum() == (label == place + 1).sum()
            own = scores[(scores["case"] == case_id) & (scores["loss"] == run.loss.key)]
            volume = own[(own["class"] == "tumour") & (own["metric"] == "reference_volume")]["value"].item()
            assert of_case.voxels[1, 1].sum() * math.prod(geometry.spacing_mm) / 1000 == pytest.approx(volume)
        assert counts.lesions.shape == (len(counts.cases), len(LESION_THRESHOLDS), 3)
        assert (np.diff(counts.lesions[:, :, 0], axis=1) == 0).all()  # the reference does not change
        assert (np.diff(counts.lesions[:, :, 1], axis=1) <= 0).all()


@pytest.mark.slow
def test_every_run_lists_the_lesions_that_its_scores_count(tiny_study):
    study = Study.open(tiny_study)
    for run in study.runs():
        folder = study.run_folder(run)
        lesions, scores = read_lesions(folder.lesions_file), read_scores(folder.scores_file)
        for (case, name), own in scores[scores["status"] == "ok"].groupby(["case", "class"]):
            values = own.set_index("metric")["value"]
            kinds = lesions[(lesions["case"] == case) & (lesions["class"] == name)]["kind"].value_counts()
            found, missed, invented = (int(kinds.get(kind, 0)) for kind in ("found", "missed", "invented"))
            assert invented == values["false_positive_lesions"]
            if "lesion_recall" in values:
                assert found / (found + missed) == pytest.approx(values["lesion_recall"])
            volume = lesions[(lesions["case"] == case) & (lesions["class"] == name) & (lesions["kind"] != "invented")]
            assert volume["volume_ml"].sum() == pytest.approx(values["reference_volume"], rel=1e-6)
        file = nibabel.load(study.case(case).label)
        mask = np.asarray(file.dataobj)
        for row in lesions[(lesions["case"] == case) & (lesions["kind"] != "invented")].to_dict("records"):
            millimetres = [row["x_mm"], row["y_mm"], row["z_mm"], 1]
            voxel = np.round(np.linalg.inv(file.affine) @ millimetres)[:3].astype(int)
            assert study.dataset.classes[mask[tuple(voxel)]] == row["class"]


@pytest.mark.slow
def test_counts_are_those_of_the_probabilities_on_the_cases_grid(tiny_study):
    study = Study.open(tiny_study)
    run = study.runs()[0]
    folder, case_id = study.run_folder(run), study.split(run.fold).validation[0]
    prepared = open_prepared(study.files.read_prepared()[case_id])
    label, geometry = read_label(study.case(case_id), study.dataset.label_values)
    small = predict_probabilities(network_of(study, folder), prepared.image, study.config)
    turned = turn_of(geometry, study.dataset).turned(label)
    expected = count_probabilities(upsampled(small, turned.shape), turned)
    found = read_counts(folder.counts_file).counts[0]
    # Sums in another order may move a voxel to the next bin.
    assert np.abs(found.voxels - expected.voxels).sum() <= 4 + 1e-4 * found.voxels.sum()
    np.testing.assert_allclose(found.sums.sum(axis=2), expected.sums.sum(axis=2), rtol=1e-4)


@pytest.fixture(scope="module", params=["original", "prepared"])
def kept(request, phantom, once):
    def build(folder):
        extra = ("--evaluation.probabilities", request.param, "--evaluation.thresholds_from", "inner")
        result = call(*tiny_run(phantom, folder, *extra, "--splits.inner_share", "0.5", "--losses", "dice"))
        assert result.returncode == 0, result.stderr

    return Study.open(once(f"kept_{request.param}", build))


@pytest.mark.slow
def test_kept_probabilities_lie_on_the_image_and_their_largest_is_the_mask(kept):
    original = kept.config.evaluation.probabilities == "original"
    for run in kept.runs():
        folder = kept.run_folder(run)
        for case_id in kept.split(run.fold).validation:
            file = nibabel.load(folder.probabilities(case_id))
            image = nibabel.load(kept.case(case_id).images[0])
            values = np.asarray(file.dataobj)
            assert file.get_data_dtype() == np.uint8 and values.min() >= 0 and values.max() <= 1
            corners = [
                np.array([[-0.5, -0.5, -0.5, 1], [*(np.array(shape[:3]) - 0.5), 1]])
                for shape in (file.shape, image.shape)
            ]
            np.testing.assert_allclose(corners[0] @ file.affine.T, corners[1] @ image.affine.T, atol=1e-3)
            if original:
                assert file.shape == (*image.shape, 2)
                np.testing.assert_allclose(file.affine, image.affine, atol=1e-5)
                mask = np.asarray(nibabel.load(folder.prediction(case_id)).dataobj)
                every = np.concatenate([1 - values.sum(axis=-1, keepdims=True), values], axis=-1)
                clear = np.sort(every, axis=-1)
                clear = clear[..., -1] - clear[..., -2] > 3 / 255
                assert clear.mean() > 0.5
                np.testing.assert_array_equal(every.argmax(axis=-1)[clear], mask[clear])
            else:
                assert file.shape[:3] != image.shape
            on_grid = read_probability(folder.probabilities(case_id), 1, image.shape)
            assert on_grid.shape == image.shape and on_grid.dtype == np.uint8


@pytest.mark.slow
def test_inner_cases_are_not_trained_on_and_are_counted(kept):
    for run in kept.runs():
        split = kept.split(run.fold)
        counts = read_counts(kept.run_folder(run).counts_file)
        assert len(split.inner) == 1 and not set(split.inner) & {*split.training, *split.validation}
        assert counts.cases == (*split.validation, *split.inner)
        assert counts.inner == (False,) * len(split.validation) + (True,)
        assert list(counts.of_class("tumour", inner=True)) == list(split.inner)
        assert not counts.lesions[-1].any()
        assert not kept.run_folder(run).prediction(split.inner[0]).exists()
        scored = set(read_scores(kept.run_folder(run).scores_file)["case"])
        assert scored == set(split.validation)


@pytest.mark.slow
def test_a_damaged_file_of_counts_is_rebuilt_and_a_missing_one_is_left_alone(own_study, phantom):
    study = Study.open(own_study)
    first, second = runs_of(study)[:2]
    before = read_counts(first.counts_file)
    first.counts_file.write_bytes(first.counts_file.read_bytes()[:100])
    second.counts_file.unlink()  # as of an earlier version
    second.lesions_file.unlink()
    second_scores = second.scores_file.stat().st_mtime_ns
    result = call(*tiny_run(phantom, own_study))
    assert result.returncode == 0, result.stderr
    again = read_counts(first.counts_file)
    assert again.cases == before.cases
    np.testing.assert_array_equal(again.counts[0].voxels, before.counts[0].voxels)
    assert not second.counts_file.exists() and not second.lesions_file.exists()
    assert second.scores_file.stat().st_mtime_ns == second_scores


@pytest.mark.slow
def test_predict_writes_the_probabilities_beside_the_mask(tiny_study, phantom, tmp_path):
    run = tiny_study / "runs" / "dice" / "fold-0" / "seed-0"
    case = sorted(path.name for path in phantom.iterdir() if path.is_dir())[0]
    image = phantom / case / "imaging.nii.gz"
    result = call("predict", run, image, "--output", tmp_path, "--probabilities")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        str(tmp_path / name) for name in ("imaging.nii.gz", "imaging_probabilities.nii.gz")
    ]
    mask = np.asarray(nibabel.load(tmp_path / "imaging.nii.gz").dataobj)
    file = nibabel.load(tmp_path / "imaging_probabilities.nii.gz")
    assert file.shape == (*mask.shape, 2)
    values = np.asarray(file.dataobj)
    assert (values.sum(axis=-1) <= 1 + 2 / 255).all()
    assert (values.max(axis=-1)[mask > 0] >= 1 / 3 - 1 / 255).all()
    again = call("predict", run, image, "--output", tmp_path, "--probabilities")
    assert again.returncode == 2 and "would overwrite" in again.stderr
    (tmp_path / "imaging.nii.gz").unlink()
    again = call("predict", run, image, "--output", tmp_path, "--probabilities")
    assert again.returncode == 2 and "imaging_probabilities.nii.gz would overwrite a file" in again.stderr
    assert not (tmp_path / "imaging.nii.gz").exists()  # nothing half-written


def image_of(path, shape, affine, **codes):
    image = nibabel.Nifti1Image(np.zeros(shape, dtype=np.int16), affine)
    image.set_sform(affine, codes.get("sform", 1))
    image.set_qform(affine, codes.get("qform", 1))
    nibabel.save(image, path)
    return path


AFFINE = np.array([[0, 0, -1.5, 10], [0, -2, 0, 20], [-3, 0, 0, -5], [0, 0, 0, 1]], dtype=float)


@pytest.mark.parametrize("codes", [{"sform": 1, "qform": 1}, {"sform": 2, "qform": 0}, {"sform": 0, "qform": 0}])
@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 6, 14)])
def test_bytes_come_back_on_a_grid_with_the_same_field_of_view(tmp_path, shape, codes):
    like = image_of(tmp_path / "image.nii.gz", (5, 6, 7), AFFINE, **codes)
    probabilities = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    write_probabilities(tmp_path / "p.nii.gz", to_bytes(probabilities), like)
    file, source = nibabel.load(tmp_path / "p.nii.gz"), nibabel.load(like)
    assert file.shape == (*shape, 2)
    back = np.moveaxis(file.get_fdata(), -1, 0)
    assert np.abs(back - probabilities).max() <= 1 / 510 + 1e-6
    for corner in (0, 1):
        ours, theirs = ([*(np.array(grid) * corner - 0.5), 1] for grid in (shape, (5, 6, 7)))
        if codes["sform"] or codes["qform"]:
            np.testing.assert_allclose(file.affine @ ours, source.affine @ theirs, atol=1e-4)
    extents = [np.array(f.header.get_zooms()[:3]) * f.shape[:3] for f in (file, source)]
    np.testing.assert_allclose(*extents, rtol=1e-5)
    for kind in ("sform_code", "qform_code"):
        assert file.header[kind] == source.header[kind]
    np.testing.assert_array_equal(read_probability(tmp_path / "p.nii.gz", 1), to_bytes(probabilities[1]))


def test_a_plane_in_metres_keeps_its_place(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5), dtype=np.int16), np.diag([0.001, 0.002, 0.001, 1]))
    image.header.set_xyzt_units("meter")
    image.set_sform(image.affine, 1)
    nibabel.save(image, tmp_path / "plane.nii")
    write_probabilities(tmp_path / "p.nii.gz", np.zeros((1, 4, 5, 1), np.uint8), tmp_path / "plane.nii")
    assert nibabel.load(tmp_path / "p.nii.gz").header.get_zooms()[:2] == pytest.approx((1.0, 2.0))


@pytest.mark.parametrize("damage", ["missing", "cut", "mask", "class"])
def test_probabilities_that_cannot_be_read_are_named(tmp_path, damage):
    like = image_of(tmp_path / "image.nii.gz", (5, 6, 7), AFFINE)
    path = tmp_path / "p.nii.gz"
    write_probabilities(path, np.random.default_rng(0).integers(0, 255, (1, 5, 6, 7)).astype(np.uint8), like)
    if damage == "missing":
        path.unlink()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-80])
    if damage == "mask":
        shutil.copy(like, path)
    with pytest.raises(InputError, match=r"p\.nii\.gz"):
        read_probability(path, 1 if damage == "class" else 0)


def test_a_wrong_choice_is_named():
    from voxloss.config.files import load_config

    for key, value in (("probabilities", "yes"), ("thresholds_from", "scored")):
        with pytest.raises(InputError, match=key):
            load_config(None, [f"--evaluation.{key}", value])
