"""Preparation: resampling against other libraries and known functions, normalisation by hand, the cache's promises."""

import json
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from nifti_files import KITS_AFFINE, write_nifti
from scipy import ndimage

from voxloss.data.case import Case, read_image
from voxloss.data.dataset import Dataset
from voxloss.data.layouts import load_dataset
from voxloss.data.prepare import case as preprocess
from voxloss.data.prepare import resample
from voxloss.data.prepare.case import Preparation, open_prepared, prepare_case, prepare_image
from voxloss.data.prepare.resample import resample_probabilities
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder

PLAIN = Preparation(normalisation="none")


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def resampled(volume: np.ndarray, shape) -> np.ndarray:
    out = np.empty(shape, np.float32)
    resample.resample_image(volume, out)
    return out


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": (3, 3)},
        {"clip": (4, 3)},
        {"clip": (float("nan"), 3)},
        {"clip": (1, 2, 3)},
        {"spacing_mm": (1, 1)},
        {"spacing_mm": (1, 0, 1)},
        {"spacing_mm": (1, -1, 1)},
        {"spacing_mm": (1, 1, float("inf"))},
        {"normalisation": "z-score"},
    ],
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Preparation(**settings)


def test_lists_of_a_configuration_file_are_the_same_settings():
    assert Preparation(clip=[-79, 304], spacing_mm=[3.22, 1.62, 1.62]) == Preparation(
        (-79.0, 304.0), (3.22, 1.62, 1.62)
    )


# Resampling


@pytest.mark.parametrize("shape", [(9, 14, 11), (4, 3, 5), (7, 8, 9), (13, 5, 9), (1, 1, 1), (7, 16, 18)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("slab", [10, 2**24])
def test_resampling_is_torchs_trilinear(shape, order, slab, monkeypatch):
    monkeypatch.setattr(resample, "SLAB_VOXELS", slab)
    volume = noise((7, 8, 9))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(volume)[None, None], size=shape, mode="trilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(resampled(np.asarray(volume, order=order), shape), expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(9, 14, 11), (4, 3, 5), (13, 5, 9)])
def test_resampling_is_scipys_linear(shape):
    volume = noise((7, 8, 9))
    centres = np.meshgrid(
        *((np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(volume.shape, shape, strict=True)), indexing="ij"
    )
    expected = ndimage.map_coordinates(volume.astype(np.float64), centres, order=1, mode="nearest")
    np.testing.assert_allclose(resampled(volume, shape), expected, atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("target", [0.9, 1.5, 3.3])
def test_a_ramp_stays_the_same_ramp_in_millimetres(axis, target):
    shape, spacing = (20, 22, 24), (2.0, 1.5, 1.0)
    centres = (np.arange(shape[axis]) + 0.5) * spacing[axis]
    ramp = np.broadcast_to(np.expand_dims(centres, [other for other in range(3) if other != axis]), shape)
    wanted = list(spacing)
    wanted[axis] = target
    prepared = prepare_image(ramp[None].astype(np.float32), spacing, Preparation(None, tuple(wanted), "none"))[0]
    number = prepared.shape[axis]
    assert number == round(shape[axis] * spacing[axis] / target)
    new_centres = (np.arange(number) + 0.5) * shape[axis] * spacing[axis] / number
    inner = (new_centres >= centres[0]) & (new_centres <= centres[-1])
    assert inner.sum() >= number - 2
    along = np.moveaxis(prepared, axis, 0).reshape(number, -1)
    np.testing.assert_allclose(along[inner], np.broadcast_to(new_centres[inner, None], along[inner].shape), rtol=1e-5)


def test_the_shape_never_gets_to_zero():
    assert prepare_image(noise((1, 2, 3, 4)), (1, 1, 1), Preparation(None, (100, 1, 2), "none")).shape == (1, 1, 3, 2)


def test_the_same_spacing_changes_no_value():
    image = noise((2, 5, 6, 7))
    np.testing.assert_array_equal(prepare_image(image, (3, 0.7, 0.7), Preparation(None, (3, 0.7, 0.7), "none")), image)
    np.testing.assert_array_equal(prepare_image(image, (3, 0.7, 0.7), PLAIN), image)


def test_clipping_comes_before_resampling():
    image = np.array([0, 1000], np.float32).reshape(1, 2, 1, 1)
    prepared = prepare_image(image, (1, 1, 1), Preparation((0, 100), (0.5, 1, 1), "none"))
    np.testing.assert_allclose(prepared.ravel(), [0, 25, 75, 100])  # after resampling it would be 0, 100, 100, 100


# Normalisation


def test_zscore_by_hand():
    image = np.array([[1, 2, 3, 6], [10, 10, 10, 10]], np.float32).reshape(2, 1, 2, 2)
    prepared = prepare_image(image, (1, 1, 1), Preparation())
    root = np.sqrt(3.5)  # mean 3, squares 4 + 1 + 0 + 9 = 14 over 4 voxels
    np.testing.assert_allclose(prepared[0].ravel(), [-2 / root, -1 / root, 0, 3 / root], rtol=1e-6)
    np.testing.assert_array_equal(prepared[1], 0)  # constant, each channel for itself


def test_minmax_by_hand():
    image = np.array([[-10, 0, 10, 30], [7, 7, 7, 7]], np.float32).reshape(2, 1, 2, 2)
    prepared = prepare_image(image, (1, 1, 1), Preparation(normalisation="minmax"))
    np.testing.assert_allclose(prepared[0].ravel(), [0, 0.25, 0.5, 1])
    np.testing.assert_array_equal(prepared[1], 0)


def test_zscore_far_from_zero_agrees_with_float64():
    image = (noise((1, 30, 30, 30)) + 1e4).astype(np.float32)
    prepared = prepare_image(image, (1, 1, 1), Preparation())
    exact = (image.astype(np.float64) - image.mean(dtype=np.float64)) / image.astype(np.float64).std()
    np.testing.assert_allclose(prepared, exact, atol=2e-4)  # float32 steps at 10,000 are 0.001


def test_the_callers_image_is_left_alone():
    image = noise((1, 4, 5, 6))
    before = image.copy()
    prepare_image(image, (1, 1, 1), Preparation((-1, 1)))
    np.testing.assert_array_equal(image, before)


# Labels


def sphere(size: int, radius: float, inner: float = 0) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 3, indexing="ij"))
    distance = np.sqrt((grid**2).sum(axis=0))
    return (distance <= radius).astype(np.uint8) + (distance <= inner).astype(np.uint8)


@pytest.mark.parametrize("shape", [(20, 20, 20), (27, 40, 33), (80, 60, 50)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_sphere_keeps_its_volume_and_its_core(shape, order):
    label = np.asarray(sphere(40, 15, 8), order=order)
    new = resample.resample_classes(label, shape)
    assert new.dtype == np.uint8
    ratio = np.prod(shape) / label.size
    for index in (1, 2):
        assert (new == index).sum() / ratio == pytest.approx((label == index).sum(), rel=0.05)
    back = resample.resample_classes(new, label.shape)
    assert (back > 0).sum() == pytest.approx((label > 0).sum(), rel=0.05)


def test_between_background_and_tumour_lies_no_kidney():
    label = np.zeros((10, 10, 10), np.uint8)
    label[3:7, 3:7, 3:7] = 2
    assert set(np.unique(resample.resample_classes(label, (23, 17, 29)))) == {0, 2}


def test_an_unchanged_shape_copies_the_label():
    label = np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.uint8)
    np.testing.assert_array_equal(resample.resample_classes(np.asfortranarray(label), label.shape), label)


def test_label_resampling_has_a_slow_twin(monkeypatch):
    label = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    shape = (9, 5, 13)
    onehot = torch.nn.functional.one_hot(torch.from_numpy(label).long()).permute(3, 0, 1, 2)[None].double()
    shares = torch.nn.functional.interpolate(onehot, size=shape, mode="trilinear", align_corners=False)[0].numpy()
    best = np.sort(shares, axis=0)
    clear = best[-1] - best[-2] > 1e-5  # where rounding does not decide
    assert clear.mean() > 0.8
    for slab in (20, 2**24):
        monkeypatch.setattr(resample, "SLAB_VOXELS", slab)
        new = resample.resample_classes(label, shape)
        np.testing.assert_array_equal(new[clear], shares.argmax(axis=0)[clear])


def test_equal_shares_go_to_the_lower_class():
    label = np.array([2, 1], np.uint8).reshape(2, 1, 1)
    assert resample.resample_classes(label, (1, 1, 1)).item() == 1
    equal = np.full((3, 2, 2, 2), 1 / 3, np.float32)
    assert not resample_probabilities(equal, (2, 2, 2)).any()
    assert not resample_probabilities(equal, (4, 3, 5)).any()


def test_restoring_is_argmax_where_shapes_agree():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 6, 7)).astype(np.float32).transpose(3, 0, 1, 2)
    restored = resample_probabilities(probabilities, (5, 6, 7))
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, probabilities.argmax(axis=0))


@pytest.mark.parametrize("shape", [(9, 4, 15), (3, 11, 8)])
@pytest.mark.parametrize("slab", [30, 2**24])
def test_restoring_interpolates_each_class(shape, slab, monkeypatch):
    monkeypatch.setattr(resample, "SLAB_VOXELS", slab)
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 6, 7)).astype(np.float32).transpose(3, 0, 1, 2)
    maps = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(probabilities))[None].double(), size=shape, mode="trilinear"
    )[0].numpy()
    best = np.sort(maps, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    np.testing.assert_array_equal(resample_probabilities(probabilities, shape)[clear], maps.argmax(axis=0)[clear])


def test_there_and_back_again_a_sphere_overlaps_itself():
    label = sphere(40, 13)
    new = resample.resample_classes(label, (13, 25, 25))
    onehot = np.stack([new == 0, new == 1]).astype(np.float32)
    back = resample_probabilities(onehot, label.shape)
    dice = 2 * (back & label).sum() / (back.sum() + label.sum())
    assert dice > 0.95


# The cache


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 60, (6, 20, 20)).astype(np.int16)
    label = np.zeros((6, 20, 20), np.uint8)
    label[1:4, 4:12, 5:15] = 1
    label[2, 6:8, 7:9] = 2
    source = tmp_path / "source"
    case = Case(
        "case_1",
        (write_nifti(source / "imaging.nii.gz", image, KITS_AFFINE),),
        write_nifti(source / "segmentation.nii.gz", label, KITS_AFFINE),
    )
    return Dataset("d", (case,), ("background", "kidney", "tumour", "cyst"), {0: 0, 1: 1, 2: 2, 3: 3})


SETTINGS = Preparation((0, 200), (3.0, 1.4, 1.4))


def test_a_prepared_case_holds_what_preparation_gives(tmp_path, dataset):
    case = dataset.cases[0]
    prepared = prepare_case(case, dataset, SETTINGS, tmp_path / "cache")
    assert prepared.case_id == "case_1"
    assert prepared.folder.parent == tmp_path / "cache"
    assert prepared.folder.name.startswith("case_1-")
    assert prepared.shape == (6, 10, 10)
    assert prepared.spacing_mm == pytest.approx((3.0, 1.4, 1.4))
    assert prepared.original.shape == (6, 20, 20)
    assert prepared.original.spacing_mm == pytest.approx((3.0, 0.7, 0.7))
    image, geometry = read_image(case)
    assert prepared.original == geometry
    np.testing.assert_array_equal(prepared.image, prepare_image(image, geometry.spacing_mm, SETTINGS))
    assert isinstance(prepared.image, np.memmap)
    assert isinstance(prepared.label, np.memmap)
    assert not prepared.image.flags.writeable
    assert prepared.image.flags.c_contiguous
    assert prepared.label.dtype == np.uint8
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [prepared.folder.name]


def test_foreground_lists_every_voxel_of_small_classes(tmp_path, dataset):
    prepared = prepare_case(dataset.cases[0], dataset, PLAIN, tmp_path / "cache")
    assert sorted(prepared.foreground) == [1, 2, 3]
    for index, coordinates in prepared.foreground.items():
        assert coordinates.dtype == np.int32
        np.testing.assert_array_equal(coordinates, np.argwhere(np.asarray(prepared.label) == index))
    assert prepared.foreground[3].shape == (0, 3)


def test_foreground_of_large_classes_is_a_repeatable_even_draw(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(preprocess, "FOREGROUND_VOXELS", 50)
    drawn = [prepare_case(dataset.cases[0], dataset, PLAIN, tmp_path / name).foreground[1] for name in ("one", "two")]
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].shape == (50, 3)
    assert len({tuple(row) for row in drawn[0]}) == 50
    label = prepare_case(dataset.cases[0], dataset, PLAIN, tmp_path / "one").label
    assert (label[tuple(drawn[0].T)] == 1).all()
    assert drawn[0][:, 0].min() == 1
    assert drawn[0][:, 0].max() == 3


def test_an_unchanged_case_is_not_read_again(tmp_path, dataset, monkeypatch):
    first = prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache")

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(preprocess, "read_image", refuse)
    monkeypatch.setattr(preprocess, "read_label", refuse)
    assert prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache") == first
    assert open_prepared(first.folder) == first


def test_changed_settings_labels_or_files_make_another_entry(tmp_path, dataset, monkeypatch):
    case, cache = dataset.cases[0], tmp_path / "cache"
    folders = [prepare_case(case, dataset, SETTINGS, cache).folder]
    for changed in (Preparation((0, 201), (3, 1.4, 1.4)), Preparation((0, 200), (3, 1.4, 1.5)), PLAIN):
        folders.append(prepare_case(case, dataset, changed, cache).folder)
    merged = Dataset("d", dataset.cases, dataset.classes, {0: 0, 1: 1, 2: 1})
    folders.append(prepare_case(case, merged, SETTINGS, cache).folder)
    assert (open_prepared(folders[-1]).label == 2).sum() == 0
    for path in (case.images[0], case.label):
        os.utime(path, (1, 1))
        assert prepare_case(case, dataset, SETTINGS, cache).folder == folders[0]
        time, content = path.stat().st_mtime_ns, bytearray(path.read_bytes())
        content[4] ^= 1  # of the time in gzip's header: another content of the same size
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        folders.append(prepare_case(case, dataset, SETTINGS, cache).folder)
        content[4] ^= 1
        path.write_bytes(content)
    monkeypatch.setattr(preprocess, "FORMAT", preprocess.FORMAT + 1)
    folders.append(prepare_case(case, dataset, SETTINGS, cache).folder)
    assert len(set(folders)) == len(folders) == 8


def test_moving_the_data_keeps_the_entries(tmp_path, dataset):
    case = dataset.cases[0]
    first = prepare_case(case, dataset, SETTINGS, tmp_path / "cache")
    (tmp_path / "source").rename(tmp_path / "moved")
    moved = Case("case_1", (tmp_path / "moved" / "imaging.nii.gz",), tmp_path / "moved" / "segmentation.nii.gz")
    assert prepare_case(moved, dataset, SETTINGS, tmp_path / "cache").folder == first.folder


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npz", "geometry.json"])
@pytest.mark.parametrize("fault", ["short", "gone", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path, dataset, name, fault):
    first = prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache")
    content = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    victim = first.folder / name
    victim.unlink()
    if fault != "gone":
        victim.write_bytes(content[name][: len(content[name]) // 2 if fault == "short" else 0])
    with pytest.raises(InputError, match=first.folder.name):
        open_prepared(first.folder)
    again = prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == content


def test_arrays_that_contradict_their_description_are_refused(tmp_path, dataset):
    folder = prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache").folder
    text = json.loads((folder / "geometry.json").read_text())
    text["shape"] = [6, 10, 11]
    (folder / "geometry.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="other shapes or types"):
        open_prepared(folder)


def test_a_pickled_array_is_never_loaded(tmp_path, dataset):
    folder = prepare_case(dataset.cases[0], dataset, SETTINGS, tmp_path / "cache").folder
    np.save(folder / "label.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    text = json.loads((folder / "geometry.json").read_text())
    text["bytes"]["label.npy"] = (folder / "label.npy").stat().st_size
    (folder / "geometry.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="damaged"):
        open_prepared(folder)


def test_a_case_that_cannot_be_read_leaves_nothing(tmp_path, dataset):
    case = dataset.cases[0]
    image = case.images[0]
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"imaging\.nii\.gz"):
        prepare_case(case, dataset, SETTINGS, tmp_path / "cache")
    image.unlink()
    with pytest.raises(InputError, match=r"imaging\.nii\.gz does not exist"):
        prepare_case(case, dataset, SETTINGS, tmp_path / "cache")
    with pytest.raises(InputError, match="case_1 has no mask"):
        prepare_case(Case("case_1", case.images, None), dataset, SETTINGS, tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_a_full_disk_is_reported_and_a_faster_process_is_no_error(tmp_path, dataset, monkeypatch):
    case, cache = dataset.cases[0], tmp_path / "cache"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="the disk is full"):
            prepare_case(case, dataset, SETTINGS, cache)
    assert not list(cache.iterdir())

    @contextmanager
    def another_process_was_faster(folder):
        with atomic_folder(folder) as partial:
            yield partial
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(preprocess, "atomic_folder", another_process_was_faster)
    assert prepare_case(case, dataset, SETTINGS, cache).shape == (6, 10, 10)


def test_a_folder_that_is_no_entry_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"geometry\.json is missing"):
        open_prepared(tmp_path)


# Real data


def test_the_real_abdomen_with_the_papers_settings(tmp_path, real_data):
    dataset = load_dataset("kits19", real_data / "abdomen_ct_kits_layout")
    settings = Preparation((-79, 304), (3.22, 1.62, 1.62))
    prepared = prepare_case(dataset.cases[0], dataset, settings, tmp_path)
    assert prepared.shape == (104, 187, 226)  # round(112 · 3 / 3.22), round(101 · 3 / 1.62), round(122 · 3 / 1.62)
    image = np.asarray(prepared.image, dtype=np.float64)
    assert image.mean() == pytest.approx(0, abs=1e-5)
    assert image.std() == pytest.approx(1, abs=1e-5)
    raw, geometry = read_image(dataset.cases[0])
    clipped = np.clip(np.ascontiguousarray(raw), -79, 304)
    linear = torch.nn.functional.interpolate(
        torch.from_numpy(clipped)[None].double(), size=prepared.shape, mode="trilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(image, (linear - linear.mean()) / linear.std(), atol=1e-4)
    kidney_ml = (np.asarray(prepared.label) == 1).sum() * np.prod(prepared.spacing_mm) / 1000
    assert kidney_ml == pytest.approx(328, rel=0.02)
    onehot = np.stack([prepared.label == index for index in range(3)]).astype(np.float32)
    restored = resample_probabilities(onehot, geometry.shape)
    original = preprocess.read_label(dataset.cases[0], dataset.label_values)[0]
    dice = 2 * (restored & original).sum() / (restored.sum() + original.sum())
    assert dice > 0.97


def test_the_real_brats_case_keeps_its_grid(tmp_path, real_data):

    dataset = load_dataset("brats20", real_data / "brats")
    prepared = prepare_case(dataset.cases[0], dataset, Preparation(spacing_mm=(1, 1, 1)), tmp_path)
    assert prepared.shape == (240, 240, 155)
    assert prepared.foreground[1].shape == (10_000, 3)
    assert int(np.asarray(prepared.label).sum()) == 21250


def test_the_real_kits_masks_keep_their_tumours(real_data):
    cases = {case.case_id: case for case in load_dataset("kits19", real_data / "kits_masks").cases}
    for name in ("case_00061", "case_00015", "case_00088"):
        label, geometry = preprocess.read_label(cases[name], {0: 0, 1: 1, 2: 2})
        shape = resample.resampled_shape(geometry.shape, geometry.spacing_mm, (3.22, 1.62, 1.62))
        new = resample.resample_classes(label, shape)
        ratio = new.size / label.size
        assert (new == 1).sum() / ratio == pytest.approx((label == 1).sum(), rel=0.03)
        assert (new == 2).sum() / ratio == pytest.approx((label == 2).sum(), rel=0.15)
