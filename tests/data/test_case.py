"""Reading and writing: axis order, scaling, geometry, label values, and every way a file can be at fault."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import KITS_AFFINE, SCALING_AT, SROW_X_AT, box, oblique_affine, patch_header, write_nifti

from voxloss.data.case import Case, read_image, read_label, write_label
from voxloss.data.dataset import Dataset, require_complete, without_excluded
from voxloss.data.formats import count_label_values, nifti, read_geometry
from voxloss.utilities.errors import InputError

KITS_VALUES = {0: 0, 1: 1, 2: 2}


def grey(shape=(3, 4, 5), dtype=np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def case_of(image: Path, label: Path | None = None) -> Case:
    return Case("one", (image,), label)


def test_an_offset_that_no_file_has(tmp_path):
    for name in ("a.nii", "b.nii.gz"):
        path = write_nifti(tmp_path / "c.nii", grey())
        patch_header(path, 108, (2.5e19,))
        content = path.read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(InputError, match=rf"{name} (is damaged|is cut short|cannot be read)"):
            read_image(case_of(tmp_path / name))


def test_a_shape_that_no_machine_holds(tmp_path):
    path = write_nifti(tmp_path / "a.nii", grey())
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([32767, 32767, 32767], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii (takes 140,725 GB|is cut short)"):
        read_image(case_of(path))


# Cases and data sets


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "a/b", "a\\b", "a\x00", "a\nb", "\x7f"])
def test_an_id_that_is_no_folder_name_is_refused(name):
    with pytest.raises(InputError, match="case's id"):
        Case(name, (), None)


def test_an_ordinary_id_is_accepted():
    assert Case("Fall 3 – Ödem.v2", (), None).case_id == "Fall 3 – Ödem.v2"


@pytest.mark.parametrize(
    ("classes", "values", "ids", "message"),
    [
        (("kidney",), {0: 0}, ("a",), "background"),
        (("background", "x", "x"), {0: 0}, ("a",), "differ"),
        (("background", "x"), {0: 0, 5: 2}, ("a",), "class 2"),
        (("background", "x"), {0: 0, 1: 1}, ("a", "b", "a"), "more than one case called a"),
    ],
)
def test_a_contradictory_dataset_is_refused(classes, values, ids, message):
    with pytest.raises(InputError, match=message):
        Dataset("d", tuple(Case(name, (), None) for name in ids), classes, values)


def test_exclusion_keeps_order_and_ignores_unknown_ids():
    cases = [Case(name, (), None) for name in ("c", "a", "b")]
    kept, dropped = without_excluded(cases, ("a", "not there"))
    assert [case.case_id for case in kept] == ["c", "b"]
    assert dropped == (("a", "excluded by the settings"),)
    with pytest.raises(InputError, match="list of case ids"):
        without_excluded(cases, "case_a")


def test_require_complete_names_the_first_missing_file_and_counts(tmp_path):
    there = write_nifti(tmp_path / "a.nii", grey())
    whole = Dataset("d", (Case("a", (there,), there),), ("background", "x"), {0: 0, 1: 1})
    require_complete(whole)
    broken = Case("b", (tmp_path / "b.nii", tmp_path / "c.nii"), there)
    with pytest.raises(InputError, match=r"b\.nii does not exist; 1 other file of d is missing too"):
        require_complete(Dataset("d", (*whole.cases, broken), ("background", "x"), {0: 0, 1: 1}))
    with pytest.raises(InputError, match="case u of d has no mask"):
        require_complete(Dataset("d", (Case("u", (there,), None),), ("background", "x"), {0: 0, 1: 1}))


# Geometry


def test_geometry_follows_the_stored_axes_of_an_off_diagonal_affine(tmp_path):
    geometry = read_geometry(write_nifti(tmp_path / "a.nii.gz", grey((3, 4, 5)), KITS_AFFINE))
    assert geometry.shape == (3, 4, 5)
    assert geometry.spacing_mm == pytest.approx((3.0, 0.7, 0.7))
    np.testing.assert_allclose(geometry.affine, KITS_AFFINE, atol=1e-6)


def test_geometry_of_an_oblique_affine(tmp_path):
    geometry = read_geometry(write_nifti(tmp_path / "a.nii", grey(), oblique_affine()))
    assert geometry.spacing_mm == pytest.approx((0.8, 0.9, 2.5), rel=1e-5)


def test_without_codes_the_voxel_sizes_count(tmp_path):
    path = write_nifti(tmp_path / "a.nii", grey(), np.diag([2.0, 3, 4, 1]), codes=(0, 0))
    assert read_geometry(path).spacing_mm == pytest.approx((2, 3, 4))


@pytest.mark.parametrize("row", [(0, 0, 0, 5), (np.nan, 0, 0, 0), (np.inf, 0, 0, 0)])
def test_voxels_without_size_are_refused(tmp_path, row):
    path = patch_header(write_nifti(tmp_path / "a.nii", grey()), SROW_X_AT, row)
    with pytest.raises(InputError, match=r"a\.nii has voxels of .* mm"):
        read_geometry(path)


# Images


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_values_come_in_stored_axis_order_as_float32(tmp_path, suffix, dtype, monkeypatch):
    monkeypatch.setattr(nifti, "CHUNK_VALUES", 7)  # pieces that do not divide the volume
    values = grey((3, 4, 5), np.dtype(dtype))
    image, geometry = read_image(case_of(write_nifti(tmp_path / f"a{suffix}", values, KITS_AFFINE)))
    assert image.dtype == np.float32
    assert geometry.shape == (3, 4, 5)
    np.testing.assert_array_equal(image, values[None])


def test_scaling_is_applied(tmp_path):
    path = patch_header(write_nifti(tmp_path / "a.nii", grey()), SCALING_AT, (0.5, -10))
    image, _ = read_image(case_of(path))
    np.testing.assert_allclose(image[0], grey() * 0.5 - 10)
    np.testing.assert_allclose(image[0], nibabel.load(path).get_fdata())


def test_scaling_is_applied_to_masks(tmp_path):
    path = patch_header(write_nifti(tmp_path / "a.nii", np.array([[[2, 4], [6, 2]]], np.int16)), SCALING_AT, (0.5, -1))
    label, _ = read_label(Case("one", (), path), KITS_VALUES)
    np.testing.assert_array_equal(label, [[[0, 1], [2, 0]]])
    patch_header(path, SCALING_AT, (0.25, 0))
    with pytest.raises(InputError, match=r"holds the value 0\.5"):
        read_label(Case("one", (), path), KITS_VALUES)


def test_channels_from_several_files_and_from_a_fourth_axis(tmp_path):
    first = write_nifti(tmp_path / "t1.nii", grey())
    both = write_nifti(tmp_path / "both.nii.gz", np.stack([grey() + 100, grey() + 200], axis=-1))
    image, _ = read_image(Case("one", (first, both), None))
    np.testing.assert_array_equal(image, [grey(), grey() + 100, grey() + 200])


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_axes_of_one_are_accepted(tmp_path, extra):
    path = write_nifti(tmp_path / "a.nii", grey().reshape(3, 4, 5, *extra))
    assert nibabel.load(path).shape == (3, 4, 5, *extra)
    assert read_image(case_of(path))[0].shape == (1, 3, 4, 5)
    assert read_label(case_of(path, path), dict.fromkeys(range(60), 0))[0].shape == (3, 4, 5)


def test_a_single_slice_is_a_volume_and_a_line_is_not(tmp_path):
    thin = write_nifti(tmp_path / "thin.nii", grey((4, 5, 1)))
    assert read_image(case_of(thin))[0].shape == (1, 4, 5, 1)
    line = write_nifti(tmp_path / "line.nii", grey((4,)))
    with pytest.raises(InputError, match=r"line\.nii has shape \(4,\)"):
        read_image(case_of(line))


def test_values_that_are_not_finite_are_counted(tmp_path):
    values = grey(dtype=np.float32)
    values[0, 0, :2] = np.nan
    values[1, 1, 1] = -np.inf
    with pytest.raises(InputError, match=r"a\.nii\.gz has 3 values that are not finite"):
        read_image(case_of(write_nifti(tmp_path / "a.nii.gz", values)))
    huge = np.full((2, 2, 2), 1e300)
    with pytest.raises(InputError, match="8 values that are not finite"):
        read_image(case_of(write_nifti(tmp_path / "b.nii", huge)))


def test_channels_on_different_grids_are_refused(tmp_path):
    first = write_nifti(tmp_path / "a.nii", grey())
    moved = np.eye(4)
    moved[1, 3] = 0.002
    second = write_nifti(tmp_path / "b.nii", grey(), moved)
    with pytest.raises(InputError, match=r"b\.nii and a\.nii of the same case are at different positions"):
        read_image(Case("one", (first, second), None))
    moved[1, 3] = 0.0009
    write_nifti(second, grey(), moved)
    assert read_image(Case("one", (first, second), None))[0].shape == (2, 3, 4, 5)


# Files at fault


def test_absent_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.nii does not exist"):
        read_image(case_of(tmp_path / "none.nii"))
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.nii\.gz is empty"):
        read_image(case_of(tmp_path / "empty.nii.gz"))
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match=r"folder\.nii is a folder"):
        read_image(case_of(tmp_path / "folder.nii"))
    for name in ("text.nii", "text.nii.gz"):
        (tmp_path / name).write_bytes(b"this is no image " * 50)
        with pytest.raises(InputError, match=rf"{name} "):
            read_image(case_of(tmp_path / name))
    with gzip.open(tmp_path / "short.nii.gz", "wb") as file:
        file.write(b"too short")
    with pytest.raises(InputError, match=r"short\.nii\.gz "):
        read_image(case_of(tmp_path / "short.nii.gz"))


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_noticed_wherever_it_ends(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    for name in ("a.nii", "a.nii.gz"):
        path = write_nifti(tmp_path / name, noise)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(InputError, match=rf"{name} (is|cannot)"):
            read_image(case_of(path))


def test_a_compressed_file_is_checked_to_its_last_byte(tmp_path):
    noise = np.random.default_rng(0).integers(0, 200, (40, 40, 40)).astype(np.uint8)
    path = write_nifti(tmp_path / "a.nii.gz", noise)
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1  # in the checksum, behind the last value
    path.write_bytes(whole)
    for read in (
        lambda: read_image(case_of(path)),
        lambda: read_label(case_of(path, path), dict.fromkeys(range(256), 0)),
    ):
        with pytest.raises(InputError, match=r"a\.nii\.gz is damaged"):
            read()


def test_random_damage_never_gives_another_error(tmp_path):
    rng = np.random.default_rng(1)
    path = write_nifti(tmp_path / "a.nii", box((6, 6, 6), (1, 1, 1), (3, 3, 3)))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, 352, rng.integers(1, 6))] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, whole.size + 1) if rng.random() < 0.2 else None].tobytes())
        for read in (read_image, lambda case: read_label(case, KITS_VALUES)):
            try:
                read(case_of(path, path))
            except InputError as error:
                assert "a.nii" in str(error)
                assert "\n" not in str(error)


def test_colours_are_refused(tmp_path):
    colours = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match=r"a\.nii stores"):
        read_image(case_of(write_nifti(tmp_path / "a.nii", colours)))


# Labels


def test_values_map_to_classes(tmp_path):
    values = np.array([0, 1, 2, 4, 4, 0], np.uint8).reshape(1, 2, 3)
    label, geometry = read_label(Case("one", (), write_nifti(tmp_path / "a.nii.gz", values)), {0: 0, 1: 0, 2: 2, 4: 1})
    assert label.dtype == np.uint8
    assert geometry.shape == (1, 2, 3)
    np.testing.assert_array_equal(label, np.array([0, 0, 2, 1, 1, 0]).reshape(1, 2, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_labels_of_every_type_keep_their_axes(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(nifti, "CHUNK_VALUES", 11)
    values = (grey() % 3).astype(dtype)
    path = tmp_path / "a.nii.gz"
    nibabel.Nifti1Image(values, KITS_AFFINE, dtype=dtype).to_filename(path)
    label, _ = read_label(Case("one", (), path), KITS_VALUES)
    np.testing.assert_array_equal(label, grey() % 3)
    assert count_label_values(path) == {0: 20, 1: 20, 2: 20}


def test_floating_values_are_rounded_not_truncated(tmp_path):
    values = np.array([0.9999999, 2.0005, -0.0009, 1.9991], np.float32).reshape(1, 2, 2)
    label, _ = read_label(Case("one", (), write_nifti(tmp_path / "a.nii", values)), KITS_VALUES)
    np.testing.assert_array_equal(label.ravel(), [1, 2, 0, 2])


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, r"a\.nii holds the value 0\.5"), (1.002, r"1\.002"), (np.nan, "nan"), (np.inf, "inf"), (1e20, r"1e\+20")],
)
def test_values_that_are_not_whole_are_refused(tmp_path, value, message):
    path = write_nifti(tmp_path / "a.nii", np.array([0, 1, value, 2], np.float32).reshape(1, 2, 2))
    with pytest.raises(InputError, match=message):
        read_label(Case("one", (), path), KITS_VALUES)
    with pytest.raises(InputError, match=message):
        count_label_values(path)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint8, 255),
        (np.uint8, 3),
        (np.int16, -1),
        (np.uint16, 256),
        (np.int32, 65536),
        (np.int32, -70000),
        (np.float32, -3),
    ],
)
def test_undeclared_values_are_named(tmp_path, dtype, value):
    path = write_nifti(tmp_path / "a.nii", np.array([0, 1, value, 2], dtype).reshape(1, 2, 2))
    with pytest.raises(InputError, match=rf"a\.nii holds the value {value}, but the declared values are 0, 1, 2$"):
        read_label(Case("one", (), path), KITS_VALUES)
    with pytest.raises(InputError, match=r"0, 1, 2: try this$"):
        read_label(Case("one", (), path), KITS_VALUES, {value: "try this"})
    assert count_label_values(path)[value] == 1


def test_declared_values_outside_the_table_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(InputError, match="-1"):
        read_label(Case("one", (), path), {-1: 0, 0: 0})


def test_counting_many_values_agrees_with_numpy(tmp_path):
    values = np.random.default_rng(0).integers(-20000, 20000, (9, 9, 9)).astype(np.int16)
    wide = values.astype(np.int32) * 1000
    for name, array in (("a.nii", values), ("b.nii", wide)):
        found, counts = np.unique(array, return_counts=True)
        assert count_label_values(write_nifti(tmp_path / name, array)) == dict(
            zip(found.tolist(), counts.tolist(), strict=True)
        )


def test_a_mask_on_another_grid_is_refused(tmp_path):
    image = write_nifti(tmp_path / "image.nii", grey())
    label = write_nifti(tmp_path / "label.nii", np.zeros((3, 5, 4), np.uint8))
    with pytest.raises(InputError, match=r"label\.nii has shape 3 × 5 × 4 but image\.nii .* 3 × 4 × 5"):
        read_label(case_of(image, label), KITS_VALUES)
    write_nifti(label, np.zeros((3, 4, 5), np.uint8), np.diag([1, 1, 1.01, 1]))
    with pytest.raises(InputError, match=r"differ by up to 0\.01 mm"):
        read_label(case_of(image, label), KITS_VALUES)
    with pytest.raises(InputError, match="case one has no mask"):
        read_label(case_of(image), KITS_VALUES)
    with pytest.raises(InputError, match=r"gone\.nii does not exist"):
        read_label(case_of(image, tmp_path / "gone.nii"), KITS_VALUES)
    several = write_nifti(tmp_path / "several.nii", np.zeros((3, 4, 5, 2), np.uint8))
    with pytest.raises(InputError, match=r"several\.nii has shape \(3, 4, 5, 2\)"):
        read_label(case_of(image, several), KITS_VALUES)


def test_a_missing_image_does_not_keep_the_mask_from_being_read(tmp_path):
    label = write_nifti(tmp_path / "label.nii", np.ones((2, 2, 2), np.uint8))
    assert read_label(case_of(tmp_path / "gone.nii", label), KITS_VALUES)[0].sum() == 8


# Writing


def assert_same_place(written: Path, like: Path) -> None:
    """Everything that places a volume, as stored: affine, both matrices, both codes, voxel sizes, units."""
    new, old = nibabel.load(written), nibabel.load(like)
    assert new.shape == old.shape[:3]
    np.testing.assert_array_equal(new.affine, old.affine)
    for name in ("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(new.header[name], old.header[name])
    np.testing.assert_array_equal(new.header.get_qform(), old.header.get_qform())
    np.testing.assert_array_equal(new.header["pixdim"][:4], old.header["pixdim"][:4])
    assert new.header.get_xyzt_units()[0] == old.header.get_xyzt_units()[0]
    assert new.get_data_dtype() == np.uint8


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (2, 1), (1, 1), (0, 0), (3, 4)])
@pytest.mark.parametrize(
    "affine", [KITS_AFFINE, oblique_affine(), np.diag([-1.0, -1, 1, 1])], ids=["kits", "oblique", "lps"]
)
def test_a_written_label_lies_on_its_image(tmp_path, codes, affine):
    header = {"cal_max": 1000, "descrip": b"a name", "xyzt_units": 10}
    like = write_nifti(tmp_path / "image.nii.gz", grey(), affine, codes, header)
    label = (grey() % 3).astype(np.int64)
    written = tmp_path / "out" / "label.nii.gz"
    write_label(written, label, like)
    assert_same_place(written, like)
    image = nibabel.load(written)
    np.testing.assert_array_equal(np.asarray(image.dataobj), label)
    assert image.header.get_slope_inter() in ((None, None), (1, 0))
    assert image.header["cal_max"] == 0
    assert image.header["descrip"] == b""
    back, geometry = read_label(Case("one", (like,), written), KITS_VALUES)
    np.testing.assert_array_equal(back, label)
    assert geometry == read_geometry(like)


def test_qform_and_sform_that_disagree_are_both_kept(tmp_path):
    like = tmp_path / "image.nii"
    image = nibabel.Nifti1Image(grey(), np.eye(4))
    image.set_sform(oblique_affine(), code=2)
    image.set_qform(KITS_AFFINE, code=1)
    image.to_filename(like)
    write_label(tmp_path / "label.nii", np.zeros((3, 4, 5), np.uint8), like)
    assert_same_place(tmp_path / "label.nii", like)


def test_a_label_on_a_four_dimensional_image_and_on_nifti2(tmp_path):
    like = write_nifti(tmp_path / "image.nii", np.zeros((3, 4, 5, 2), np.int16), KITS_AFFINE)
    write_label(tmp_path / "label.nii.gz", np.ones((3, 4, 5), bool), like)
    assert_same_place(tmp_path / "label.nii.gz", like)
    second = tmp_path / "second.nii"
    nibabel.Nifti2Image(grey(), oblique_affine()).to_filename(second)
    write_label(tmp_path / "label2.nii", np.ones((3, 4, 5), np.uint8), second)
    assert_same_place(tmp_path / "label2.nii", second)


def test_labels_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path):
    like = write_nifti(tmp_path / "image.nii", grey())
    for label in (
        np.zeros((3, 4, 4), np.uint8),
        np.full((3, 4, 5), 65536),
        np.full((3, 4, 5), -1),
        np.zeros((3, 4, 5)),
    ):
        with pytest.raises(InputError):
            write_label(tmp_path / "label.nii", label, like)
    assert [path.name for path in tmp_path.iterdir()] == ["image.nii"]


# Real files


@pytest.mark.parametrize(
    "name",
    [
        "kits_masks/case_00061/segmentation.nii.gz",
        "kits_masks/case_00015/segmentation.nii.gz",
        "brats/BraTS20_Training_903/BraTS20_Training_903_t1ce.nii.gz",
        "brats/BraTS20_Training_903/BraTS20_Training_903_seg.nii.gz",
        "spine_pred_ref/semantic/ref.nii.gz",
        "ms_lesions/patient19/flair.nii.gz",
        "tumour_rois/breast1_image.nii.gz",
    ],
)
def test_predictions_open_over_real_images(tmp_path, real_data, name):
    like = real_data / name
    shape = read_geometry(like).shape
    write_label(tmp_path / "label.nii.gz", np.zeros(shape, np.uint8), like)
    assert_same_place(tmp_path / "label.nii.gz", like)


def test_real_values_agree_with_nibabel(real_data):
    for name in ("abdomen_ct/ct.nii.gz", "tumour_rois/breast1_image.nii.gz", "ms_lesions/patient19/flair.nii.gz"):
        image, _ = read_image(case_of(real_data / name))
        np.testing.assert_array_equal(image[0], nibabel.load(real_data / name).get_fdata(dtype=np.float32))


def test_the_float_labels_of_brats_2013(real_data):
    folder = real_data / "brats2013_original_bytes" / "brats_2013_pat0005_1"
    case = case_of(folder / "T1c_subtrMeanDivStd.nii.gz", folder / "OTMultiClass.nii.gz")
    label, _ = read_label(case, {0: 0, 1: 0, 2: 0, 3: 0, 4: 1})
    assert int(label.sum()) == 18354  # of data/brats/cases.csv
    image, _ = read_image(case)
    assert image.min() == pytest.approx(-3.4595714)
    with pytest.raises(InputError, match=r"T1c_subtrMeanDivStd\.nii\.gz holds the value -3\.45957"):
        count_label_values(case.images[0])
