"""Masks by all networks of a loss: the mean of their probabilities, folders of images, and files that are there."""

import shutil

import nibabel
import numpy as np
import pytest
import torch

from study_helpers import call
from voxloss.config.files import load_config
from voxloss.data.prepare.case import open_prepared
from voxloss.study.folder import Run
from voxloss.study.predict import _cases, networks_of, segment_files
from voxloss.study.study import Study
from voxloss.training.checkpoint import load_state
from voxloss.training.networks import make_network
from voxloss.training.predict import predict_label, predict_probabilities
from voxloss.utilities.errors import InputError


def networks(number: int) -> list[torch.nn.Module]:
    torch.manual_seed(number)
    return [torch.nn.Conv3d(1, 3, 3, padding=1) for _ in range(number)]


@pytest.mark.parametrize("most", [2_000_000_000, 20_000])  # bytes: all at once, and in parts of planes
def test_several_networks_predict_by_their_mean_probabilities(monkeypatch, most):
    from voxloss.training import predict as module

    monkeypatch.setattr(module, "MOST_BYTES", most)
    config = load_config(None, ["--patches.size", "[8,8,8]", "--training.precision", "float32"])
    image = np.random.default_rng(0).normal(size=(1, 13, 20, 21)).astype(np.float32)
    several = networks(3)
    mean = np.mean([predict_probabilities(network, image, config) for network in several], axis=0)
    predicted = predict_label(several, image, config, image.shape[1:], 3)
    distinct = np.sort(mean, axis=0)
    clear = distinct[-1] - distinct[-2] > 1e-6
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(predicted[clear], mean.argmax(axis=0)[clear])
    assert any((predict_label(one, image, config, image.shape[1:], 3) != predicted).any() for one in several)


def test_one_network_in_a_list_predicts_what_it_predicts_alone():
    config = load_config(None, ["--patches.size", "[8,8,8]", "--training.precision", "float32"])
    image = np.random.default_rng(0).normal(size=(1, 13, 8, 21)).astype(np.float32)
    [network] = networks(1)
    alone, listed = (predict_label(given, image, config, (20, 8, 21), 3) for given in (network, [network]))
    np.testing.assert_array_equal(alone, listed)


@pytest.mark.slow
def test_the_folds_of_a_study_are_averaged(phantom, tiny_study, tmp_path):
    """By the checkpoints themselves, for a case that the study has prepared."""
    image = phantom / "case_00000" / "imaging.nii.gz"
    result = call("predict", tiny_study, image, "--loss", "dice", "--output", tmp_path / "masks")
    assert result.returncode == 0, result.stderr
    assert "mean of 2 networks\n" in result.stderr
    study = Study.open(tiny_study)
    prepared = open_prepared(study.files.read_prepared()["case_00000"])
    volumes = []
    for fold in (0, 1):
        state = load_state(tiny_study / "runs" / "dice" / f"fold-{fold}" / "seed-0" / "checkpoint.pt")
        network = make_network(study.config.network, study.config.patches.size, 1, 3)
        network.load_state_dict(state["network"])
        volumes.append(network.eval())
    expected = predict_label(volumes, prepared.image, study.config, prepared.original.shape, 3)
    mask = np.asarray(nibabel.load(tmp_path / "masks" / "imaging.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.slow
def test_a_folder_of_images_and_masks_that_are_there(phantom, tiny_study, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("case_00000", "case_00001"):
        shutil.copy(phantom / name / "imaging.nii.gz", images / f"{name}.nii.gz")
    words = ["predict", tiny_study, images, "--loss", "dice", "--output", tmp_path / "masks"]
    first = call(*words)
    assert first.returncode == 0, first.stderr
    masks = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in masks] == ["case_00000.nii.gz", "case_00001.nii.gz"]
    assert first.stdout.split() == [str(path) for path in masks]
    masks[0].write_text("mine")
    again = call(*words)
    assert again.returncode == 2 and "would overwrite a file" in again.stderr and masks[0].read_text() == "mine"
    replaced = call(*words, "--overwrite")
    assert replaced.returncode == 0 and nibabel.load(masks[0]).get_data_dtype() == np.uint8
    onto_image = call("predict", tiny_study, images, "--loss", "dice", "--output", images, "--overwrite")
    assert onto_image.returncode == 2 and "would overwrite its image" in onto_image.stderr
    assert nibabel.load(images / "case_00000.nii.gz").get_data_dtype() == np.int16


def test_which_networks_are_taken(tiny_study, tmp_path):
    folders, missing = networks_of(tiny_study, "dice")
    assert [folder.parent.name for folder in folders] == ["fold-0", "fold-1"] and not missing
    for loss, message in ((None, "name one with --loss: dice, mixed_focal"), ("dise", "did you mean 'dice'?")):
        with pytest.raises(InputError) as caught:
            networks_of(tiny_study, loss)
        assert message in str(caught.value)
    copy = tmp_path / "study"
    shutil.copytree(tiny_study, copy)
    study = Study.open(copy)
    run = next(run for run in study.runs() if run.loss.key == "dice" and run.fold == 1)
    study.write_status(run, state="failed", reason="test")
    folders, missing = networks_of(copy, "dice")
    assert [folder.parent.name for folder in folders] == ["fold-0"]
    assert missing == [Run(run.loss, 1, 0)]
    study.write_status(Run(run.loss, 0, 0), state="pending")
    with pytest.raises(InputError, match="no finished run of dice; train it with: voxloss run"):
        networks_of(copy, "dice")


def test_the_cases_of_a_folder(tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii", "b_0001.nii", "c.nii", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    names = [[path.name for path in case] for case in _cases([tmp_path], 2, volumes=True)]
    assert names == [["a_0000.nii.gz", "a_0001.nii.gz"], ["b_0000.nii", "b_0001.nii"], ["c.nii"]]
    assert len(_cases([tmp_path], 1, volumes=True)) == 5  # a scan may be called a_0000
    assert _cases([tmp_path / "c.nii"], 1, volumes=True) == [[tmp_path / "c.nii"]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        _cases([tmp_path / "empty"], 1, volumes=True)


def test_a_run_is_no_study_whose_loss_could_be_chosen(tiny_study, tmp_path):
    run = tiny_study / "runs" / "dice" / "fold-0" / "seed-0"
    result = call("predict", run, "a.nii.gz", "--loss", "dice", "--output", tmp_path)
    said = "is not a study, whose loss could be chosen; name the study's folder"
    assert result.returncode == 2 and said in result.stderr
    assert "STUDY/networks/NETWORK/runs/LOSS/fold-K/seed-S" in result.stderr
    with pytest.raises(InputError, match="nope is neither a study nor the folder of a trained run: name a study's"):
        segment_files(tmp_path / "nope", [[tmp_path / "absent.nii.gz"]], tmp_path / "out")
    with pytest.raises(InputError, match=r"absent\.nii\.gz"):
        segment_files(run, [[tmp_path / "absent.nii.gz"]], tmp_path / "out")
