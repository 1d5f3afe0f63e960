"""Orders and directions of axes, units and spacing: against nibabel's own reorientation, and by hand."""

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import oblique_affine, write_nifti

from voxloss.data.case import Case, read_image, read_label, write_label
from voxloss.data.dataset import Dataset, dataset_from_json, dataset_to_json
from voxloss.data.formats import read_geometry
from voxloss.data.grid import Turn, common_spacing, only_axes, same_spacing, with_common_grid
from voxloss.data.layouts import load_dataset
from voxloss.data.prepare.case import Preparation, prepare_case, prepare_image
from voxloss.utilities.errors import InputError

RAS = np.diag([0.8, 0.9, 2.5, 1.0])
ALL_AXES = ["".join(codes) for order in permutations(("LR", "PA", "IS")) for codes in product(*order)]


def noise(shape=(5, 6, 7), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 100, shape).astype(np.float32)


def turned(path: Path, source: Path, axes: str) -> Path:
    """Write the same image with axes in another order or direction, by nibabel."""
    image = nibabel.load(source)
    there = nibabel.orientations.axcodes2ornt(axes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), there)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.as_reoriented(turn).to_filename(path)
    return path


@pytest.mark.parametrize("affine", [RAS, oblique_affine()], ids=["straight", "oblique"])
def test_every_turn_is_that_of_nibabel_and_its_way_back_is_exact(tmp_path, affine):
    source = write_nifti(tmp_path / "source.nii", noise(), affine)
    assert len(ALL_AXES) == 48
    for axes in ALL_AXES:
        stored = turned(tmp_path / "stored.nii", source, axes)
        assert read_geometry(stored).axes == axes
        turn = Turn.between(axes, "RAS")
        values, back = np.asarray(nibabel.load(stored).dataobj), np.asarray(nibabel.load(source).dataobj)
        np.testing.assert_array_equal(turn.turned(values), back)
        np.testing.assert_array_equal(turn.stored(turn.turned(values)), values)
        channels = np.stack([values, 2 * values])
        np.testing.assert_array_equal(turn.turned(channels)[1], 2 * back)
        np.testing.assert_array_equal(turn.stored(turn.turned(channels)), channels)
        ours, theirs = turn.geometry(read_geometry(stored)), read_geometry(source)
        assert (ours.shape, ours.axes) == (theirs.shape, theirs.axes)
        np.testing.assert_allclose(ours.spacing_mm, theirs.spacing_mm, rtol=1e-6)
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)


def test_axes_that_are_not_known_are_not_turned(tmp_path):
    unplaced = read_geometry(write_nifti(tmp_path / "a.nii", noise(), RAS, codes=(0, 0)))
    assert unplaced.axes == ""
    assert Turn.between("", "RAS") == Turn.between("RAS", None) == Turn.between("SPL", "SPL") == Turn()
    assert Turn().geometry(unplaced) is unplaced


def mixed_folder(root: Path, *axes: str) -> Path:
    """Cases of different content, each stored along its own axes."""
    for number, own in enumerate(axes):
        label = np.zeros((5, 6, 7), np.uint8)
        label[1 + number % 2, 2:5, 3:6] = 1
        image = write_nifti(root / "upright" / f"image{number}.nii", noise(seed=number), RAS)
        turned(root / "images" / f"c{number}.nii.gz", image, own)
        mask = write_nifti(root / "upright" / f"mask{number}.nii", label, RAS)
        turned(root / "masks" / f"c{number}.nii.gz", mask, own)
    return root


@pytest.mark.parametrize(
    ("axes", "common"),
    [
        (("RAS", "SAR", "RAS"), "RAS"),
        (("SPL", "RAS", "SPL", "RAS"), "SPL"),  # of equally many the first case's
        (("LAS", "LAS", "RAS"), "LAS"),
    ],
)
def test_cases_are_turned_to_the_axes_of_most(tmp_path, axes, common):
    dataset = load_dataset("folder", mixed_folder(tmp_path, *axes))
    assert dataset.axes == common
    assert dataset.spacing_mm == pytest.approx(read_geometry(dataset.cases[axes.index(common)].images[0]).spacing_mm)
    assert dataset_from_json(dataset_to_json(dataset)) == dataset
    for number, case in enumerate(dataset.cases):
        prepared = prepare_case(case, dataset, Preparation(normalisation="none"), tmp_path / "cache")
        for array, name in ((prepared.image[0], "image"), (prepared.label, "mask")):
            upright = tmp_path / "upright" / f"{name}{number}.nii"
            expected = nibabel.load(turned(tmp_path / "expected.nii", upright, common))
            np.testing.assert_array_equal(array, np.asarray(expected.dataobj))
        assert prepared.original.axes == common
        assert np.array_equal(prepared.label[tuple(prepared.foreground[1].T)], np.ones(9))


def test_axes_by_option(tmp_path):
    root = mixed_folder(tmp_path, "RAS", "RAS", "SPL")
    assert load_dataset("folder", root, axes="stored").axes is None
    assert load_dataset("folder", root, axes="SPL").axes == "SPL"
    assert load_dataset("folder", root, axes="stored").spacing_mm is None  # 0.8 and 2.5 mm along the first axis
    assert load_dataset("folder", root).axes == "RAS"
    for wrong in ("RA", "RAR", "ras", "RLS", "", ["R", "A", "S"], 3):
        with pytest.raises(InputError, match="axes should be"):
            load_dataset("folder", root, axes=wrong)


def test_a_damaged_image_has_no_part_in_the_common_grid(tmp_path):
    root = mixed_folder(tmp_path, "SPL", "RAS")
    (root / "images" / "c0.nii.gz").write_bytes(b"damaged")
    assert load_dataset("folder", root).axes == "RAS"
    nothing = Dataset("d", (Case("a", (), None),), ("background", "x"), {0: 0, 1: 1})
    assert with_common_grid(nothing) == nothing


def test_the_common_spacing():
    assert common_spacing([(1, 1, 2), (1, 1, 2 + 1e-7)]) == pytest.approx((1, 1, 2))
    assert common_spacing([(1, 1, 2), (1, 1, 2.1)]) is None
    assert common_spacing([]) is None
    assert same_spacing((1e-4, 1e-4, 1e-4), (1e-4, 1e-4, 1e-4 * 1.0001))
    assert not same_spacing((1e-9, 1, 1), (2e-9, 1, 1))


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 1e-3), (2 + 8, 1), (3 + 8, 1e-3), (5, 1)])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 0)])
def test_units_are_converted_to_millimetres(tmp_path, code, factor, codes):
    affine = RAS.copy()
    affine[:3, 3] = (3, -4, 5)
    path = write_nifti(tmp_path / "a.nii", noise(), affine, codes, {"xyzt_units": code})
    geometry = read_geometry(path)
    assert geometry.spacing_mm == pytest.approx(tuple(factor * size for size in (0.8, 0.9, 2.5)))
    if codes != (0, 0):
        np.testing.assert_allclose(geometry.affine, np.diag([factor, factor, factor, 1]) @ affine, rtol=1e-6)


def test_image_and_mask_in_different_units_lie_together(tmp_path):
    image = write_nifti(tmp_path / "image.nii", noise(), np.diag([500, 500, 800, 1]), header={"xyzt_units": 3})
    label = write_nifti(tmp_path / "mask.nii", np.zeros((5, 6, 7), np.uint8), np.diag([0.5, 0.5, 0.8, 1]))
    _, geometry = read_label(Case("one", (image,), label), {0: 0})
    assert geometry.spacing_mm == pytest.approx((0.5, 0.5, 0.8))
    write_label(tmp_path / "out.nii.gz", np.ones((5, 6, 7), np.uint8), like=image)
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert written.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_array_equal(written.affine, nibabel.load(image).affine)


def test_grids_of_tiny_voxels_are_compared_on_their_own_scale(tmp_path):
    image = write_nifti(tmp_path / "image.nii", noise(), np.diag([0.5, 0.5, 0.5, 1]), header={"xyzt_units": 3})
    shifted = np.diag([0.5, 0.5, 0.5, 1])
    shifted[0, 3] = 0.5
    label = write_nifti(tmp_path / "mask.nii", np.zeros((5, 6, 7), np.uint8), shifted, header={"xyzt_units": 3})
    with pytest.raises(InputError, match="different positions"):
        read_label(Case("one", (image,), label), {0: 0})


# Planes, and channels as ITK writes them


@pytest.mark.parametrize("thickness", [0.0, 3.0])
def test_a_plane_is_a_volume_of_one_slice(tmp_path, thickness):
    affine = np.diag([0.8, 0.9, thickness, 1])
    plane = nibabel.Nifti1Image(noise((5, 6)), None)
    plane.header.set_zooms((0.8, 0.9))
    plane.header["pixdim"][3] = thickness
    plane.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        plane.header[name] = affine[row]
    plane.to_filename(tmp_path / "plane.nii.gz")
    case = Case("one", (tmp_path / "plane.nii.gz",), None)
    image, geometry = read_image(case)
    assert image.shape == (1, 5, 6, 1)
    assert geometry.spacing_mm == pytest.approx((0.8, 0.9, thickness or 1))
    assert geometry.axes == "RAS"
    np.testing.assert_array_equal(image[0, :, :, 0], noise((5, 6)))
    write_label(tmp_path / "out.nii.gz", np.ones((5, 6, 1), np.uint8), like=case.images[0])
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert written.shape == (5, 6)
    np.testing.assert_array_equal(written.affine, nibabel.load(case.images[0]).affine)


def test_channels_as_itk_writes_them(tmp_path):
    channels = noise((4, 5, 6, 1, 3))
    path = write_nifti(tmp_path / "vector.nii.gz", channels)
    image, _ = read_image(Case("one", (path,), None))
    np.testing.assert_array_equal(image, np.moveaxis(channels[:, :, :, 0], -1, 0))
    with pytest.raises(InputError, match="three axes, or four with channels"):
        read_image(Case("one", (write_nifti(tmp_path / "times.nii", noise((4, 5, 6, 2, 3))),), None))


def test_values_above_255_are_written_in_two_bytes(tmp_path):
    like = write_nifti(tmp_path / "image.nii", noise((2, 2, 2)))
    label = np.array([0, 1001, 14175, 65535] * 2, np.uint16).reshape(2, 2, 2)
    write_label(tmp_path / "out.nii.gz", label, like)
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert written.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(written.dataobj), label)


def test_resampling_after_a_turn_follows_the_turned_axes(tmp_path):
    """The target is per axis of the common order, so a case stored as SPL gets the same grid as one stored as RAS."""
    dataset = load_dataset("folder", mixed_folder(tmp_path, "RAS", "RAS", "SPL"))
    preparation = Preparation(spacing_mm=(1.3, 0.9, 1.25), normalisation="none")
    prepared = prepare_case(dataset.cases[2], dataset, preparation, tmp_path / "cache")
    upright, _ = read_image(Case("one", (tmp_path / "upright" / "image2.nii",), None))
    expected = prepare_image(upright, (0.8, 0.9, 2.5), preparation)
    np.testing.assert_allclose(prepared.image, expected, atol=1e-3)
    assert prepared.spacing_mm == pytest.approx((4 / 3, 0.9, 1.25))  # 5 × 0.8 mm in 3 voxels


def test_the_only_axes(tmp_path):
    assert only_axes(load_dataset("folder", mixed_folder(tmp_path / "a", "SPL", "SPL"))) == "SPL"
    assert only_axes(load_dataset("folder", mixed_folder(tmp_path / "b", "SPL", "RAS"))) is None
    unplaced = write_nifti(tmp_path / "c.nii", noise(), RAS, codes=(0, 0))
    assert only_axes(Dataset("d", (Case("a", (unplaced,), None),), ("background", "x"), {0: 0, 1: 1})) is None
