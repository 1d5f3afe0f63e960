"""The phantom: the same voxels for the same seed, KiTS19's layout, tissue HU, a tumour that intensity alone misses."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from voxloss.data.case import read_image, read_label
from voxloss.data.layouts import load_dataset
from voxloss.data.phantom import write as phantom
from voxloss.data.phantom.canvas import SmoothField, ellipsoid, grow, segment
from voxloss.data.phantom.write import KITS19_TUMOUR_FRACTION, SETTINGS, draw_fraction, make_case, write_phantom
from voxloss.utilities.errors import InputError

SMALL, FULL = SETTINGS["small"], SETTINGS["full"]
# The full setting's anatomy and distributions, every fourth pixel: quick enough for extreme tumours.
COARSE = replace(FULL, rows=128, columns=128, pixel_spacing_mm=tuple((p, 4 * mm) for p, mm in FULL.pixel_spacing_mm))
CASES = 12


@pytest.fixture(scope="module")
def cases():
    return [make_case(7, number, SMALL) for number in range(CASES)]


def digest(root: Path) -> dict[str, str]:
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def centre_of(
    image: np.ndarray, affine: np.ndarray, point_mm: tuple[float, float, float], half_mm: float
) -> np.ndarray:
    """Voxels in a cube around a point given in mm from the middle of the volume (feet, back, patient's left)."""
    spacing = -affine[[2, 1, 0], [0, 1, 2]]
    low = np.rint((np.subtract(point_mm, half_mm) / spacing) + np.array(image.shape) / 2).astype(int)
    high = np.rint((np.add(point_mm, half_mm) / spacing) + np.array(image.shape) / 2).astype(int)
    return image[tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))]


# --- determinism ---


def test_a_case_depends_on_seed_and_number_alone(tmp_path):
    write_phantom(tmp_path / "three", 3, seed=5)
    write_phantom(tmp_path / "last", 1, seed=5, first=2)
    three, last = digest(tmp_path / "three"), digest(tmp_path / "last")
    for name in ("PHANTOM.json", "case_00002/imaging.nii.gz", "case_00002/segmentation.nii.gz"):
        assert three[name] == last[name]
    assert len(three) == 7


def test_seeds_and_numbers_give_different_patients():
    images = [make_case(seed, number, SMALL)[0] for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert len({image.tobytes() for image in images}) == 3


# --- geometry and layout ---


def test_files_follow_the_layout_of_kits19(tmp_path, cases):
    folder = write_phantom(tmp_path, 1, seed=7)[0]
    assert folder == tmp_path / "case_00000"
    image, label = (nibabel.load(folder / f"{name}.nii.gz") for name in ("imaging", "segmentation"))
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    assert nibabel.aff2axcodes(image.affine) == ("I", "P", "L")
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_allclose(image.affine, cases[0][2], atol=1e-6)
    np.testing.assert_array_equal(image.affine[:3, 3], 0)
    assert image.header["qform_code"] == 0 and image.header["sform_code"] == 2
    np.testing.assert_array_equal(np.asarray(image.dataobj), cases[0][0])
    np.testing.assert_array_equal(np.asarray(label.dataobj), cases[0][1])
    slices, rows, columns = image.shape
    assert SMALL.slices[0] <= slices <= SMALL.slices[1] and (rows, columns) == (64, 64)
    thickness, row_mm, column_mm = image.header.get_zooms()
    assert 5.5 <= thickness <= 6.0 and 5.3 <= row_mm == column_mm <= 5.9


def test_the_header_is_that_of_a_real_mask(tmp_path, real_data):
    real = nibabel.load(real_data / "kits_masks" / "case_00030" / "segmentation.nii.gz")
    ours = nibabel.load(write_phantom(tmp_path, 1)[0] / "segmentation.nii.gz")
    np.testing.assert_array_equal(ours.affine != 0, real.affine != 0)
    np.testing.assert_array_equal(np.sign(ours.affine), np.sign(real.affine))
    for key in ("qform_code", "sform_code", "xyzt_units", "datatype", "quatern_b", "quatern_c", "quatern_d"):
        assert ours.header[key] == real.header[key], key


def test_the_kits19_reader_reads_it(tmp_path, cases):
    write_phantom(tmp_path, 2, seed=7)
    dataset = load_dataset("kits19", tmp_path)
    assert [case.case_id for case in dataset.cases] == ["case_00000", "case_00001"]
    image, geometry = read_image(dataset.cases[1])
    label, _ = read_label(dataset.cases[1], dataset.label_values)
    np.testing.assert_array_equal(image[0], cases[1][0])
    np.testing.assert_array_equal(label, cases[1][1])
    np.testing.assert_allclose(geometry.spacing_mm, -cases[1][2][[2, 1, 0], [0, 1, 2]], rtol=1e-6)


def test_the_patient_lies_as_the_affine_says(cases):
    for image, _, affine in cases:
        turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, affine))
        assert nibabel.aff2axcodes(turned.affine) == ("R", "A", "S")
        hu = np.asarray(turned.dataobj)
        x, y, _ = np.array(hu.shape) // 2
        middle = hu[x - 2 : x + 2]
        assert (middle[:, :y] > 150).sum() > 4 * (middle[:, y:] > 150).sum()  # the spine is at the back
        upper = hu[:, :, -6:-2]
        tissue = (upper > 70) & (upper < 140)
        assert tissue[x + 3 :].sum() > 1.3 * tissue[: x - 3].sum()  # the liver is on the right


# --- the mask ---


def test_one_tumour_on_one_of_two_kidneys(cases):
    sides = set()
    for _, label, affine in cases:
        assert np.unique(label).tolist() == [0, 1, 2]
        organs, count = ndimage.label(label > 0)
        assert count == 2
        assert ndimage.label(label == 2)[1] == 1
        contact = ndimage.binary_dilation(label == 1) & (label == 2)
        assert contact.sum() >= 5
        sizes_ml = np.bincount(organs.ravel())[1:] * np.linalg.det(affine[:3, :3]) / 1000
        assert sizes_ml.min() > 80 and sizes_ml.max() < 330
        columns = np.nonzero(label == 2)[2]
        assert columns.max() < 32 or columns.min() >= 32
        sides.add(columns.max() < 32)
    assert sides == {True, False}


def test_tumour_fraction_is_the_one_drawn(cases):
    for number, (_, label, _) in enumerate(cases):
        rng = np.random.default_rng(np.random.SeedSequence(entropy=7, spawn_key=(number,)))
        drawn = draw_fraction(rng, SMALL)
        assert 0.001 <= drawn <= 0.003
        assert np.mean(label == 2) == pytest.approx(drawn, rel=0.02, abs=1 / label.size)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [KITS19_TUMOUR_FRACTION[0][1], 1e-3, KITS19_TUMOUR_FRACTION[-1][1]])
def test_the_extreme_fractions_of_kits19_fit_into_the_body(fraction):
    setting = replace(COARSE, tumour_fraction=((0, fraction), (1, fraction)))
    for number in range(2):
        _, label, _ = make_case(1, number, setting)
        assert np.mean(label == 2) == pytest.approx(fraction, rel=0.02, abs=0.6 / label.size)
        assert ndimage.label(label == 2)[1] == 1 and ndimage.label(label > 0)[1] == 2
        assert (ndimage.binary_dilation(label == 1) & (label == 2)).any()


def test_growing_takes_the_component_of_the_smallest_value():
    size = np.array([[[1.0, 2.0, 9.0, 3.0, 4.0, 5.0]]])  # 3 and 4 lie behind a wall of 9
    level, inside = grow(size, 2)
    assert (level, inside.ravel().tolist()) == (2.0, [True, True, False, False, False, False])
    level, inside = grow(size, 3)  # 3, 4 and 5 are islands until the wall falls
    assert level == 9.0 and inside.all()
    size[0, 0, 2] = np.inf  # the wall stands: no more than two can be had
    assert grow(size, 3)[1].ravel().tolist() == [True, True, False, False, False, False]


def test_fractions_of_the_full_setting_are_those_of_kits19(real_data):
    with (real_data / "kits_masks" / "kits19_voxel_counts.csv").open(encoding="utf-8") as file:
        real = np.array([float(row["tumour_fraction"]) for row in csv.DictReader(file)])
    for probability, fraction in KITS19_TUMOUR_FRACTION:
        assert fraction == pytest.approx(np.quantile(real, probability), rel=0.01)


def test_fractions_drawn_for_the_full_setting():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_fraction(rng, FULL) for _ in range(20_000)])
    assert np.median(drawn) == pytest.approx(0.00053, rel=0.05)
    assert np.quantile(drawn, [0.25, 0.75]) == pytest.approx([0.000136, 0.00155], rel=0.2)  # of the 210 cases
    assert 4.8e-6 <= drawn.min() < 3e-5 and 0.03 < drawn.max() <= 0.0551


# --- the image ---


def test_tissues_have_their_hounsfield_units(cases):
    for image, label, affine in cases:
        fat = (image > -135) & (image < -70) & (label == 0)
        assert fat.mean() > 0.05
        assert np.median(image[fat]) == pytest.approx(-100, abs=8)
        liver = centre_of(image, affine, (-50, -15, -75), 20)
        assert 50 <= np.median(liver) <= 110
        spine = centre_of(image, affine, (0, 40, 0), 25)
        assert np.quantile(spine, 0.9) > 200
        assert np.median(image[:, :3, :3]) == pytest.approx(-1000, abs=5)
        assert image.min() >= -1024 and image.max() < 1000


def test_tumour_is_between_fat_and_kidney_and_overlaps_with_kidney(cases):
    ratios = []
    for image, label, _ in cases:
        kidney, tumour = image[label == 1].astype(float), image[label == 2].astype(float)
        assert 20 < tumour.mean() < kidney.mean() - 25
        assert (kidney < np.quantile(tumour, 0.9)).mean() > 0.05
        ratios.append((kidney.mean() - tumour.mean()) / np.sqrt((kidney.var() + tumour.var()) / 2))
    # Contrast over the pooled standard deviation, noise, texture and partial volume included.
    assert min(ratios) > 1.0 and max(ratios) < 3.0
    assert 1.4 < np.mean(ratios) < 2.3


def test_intensity_alone_does_not_find_the_tumour(cases):
    edges = np.arange(-200, 400, 5)
    for image, label, _ in cases:
        tumour = image[label == 2]
        alike = np.abs(image - tumour.mean()) < tumour.std()
        assert (alike & (label == 0)).sum() > 10 * tumour.size
        # Blobs of that brightness outside the organs' masks, as large as a tumour, not merely scattered noise.
        smooth = ndimage.gaussian_filter(image.astype(np.float32), 1)
        parts, _ = ndimage.label((np.abs(smooth - tumour.mean()) < 25) & (label == 0))
        assert np.sort(np.bincount(parts.ravel())[1:])[-1] > tumour.size
        # The best window of intensity, found with the truth at hand, scores a Dice below 0.15.
        inside, everywhere = (np.r_[0, np.histogram(v, edges)[0].cumsum()] for v in (tumour, image))
        low, high = np.triu_indices(len(inside), 1)
        dice = 2 * (inside[high] - inside[low]) / (everywhere[high] - everywhere[low] + tumour.size)
        assert dice.max() < 0.15


def test_noise_has_the_stated_size_and_grain():
    quiet, loud = (make_case(7, 0, replace(SMALL, noise_hu=hu))[0].astype(float) for hu in (0.0, SMALL.noise_hu))
    noise = (loud - quiet)[(slice(None), slice(25, 40), slice(20, 45))]
    assert noise.std() == pytest.approx(SMALL.noise_hu, rel=0.05)
    assert abs(noise.mean()) < 1
    along_rows = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    across_slices = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert along_rows > 0.3 > 0.05 > abs(across_slices)


@pytest.mark.slow
def test_a_full_size_case():
    setting = replace(FULL, slices=(30, 30), slice_spacing_mm=((0, 5.0), (1, 5.0)))
    image, label, affine = make_case(0, 2, setting)
    assert image.shape == label.shape == (30, 512, 512)
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert 0.66 <= -affine[0, 2] <= 0.98 and affine[2, 0] == -5.0
    assert ndimage.label(label > 0)[1] == 2 and ndimage.label(label == 2)[1] == 1
    kidney = image[label == 1]
    assert 120 < kidney.mean() < 210


# --- what it is drawn with ---


def test_fields_have_zero_mean_unit_variance_and_do_not_depend_on_the_sampling():
    axes = [np.arange(0.0, 400.0, 4.0, dtype=np.float32)] * 3
    field = SmoothField(np.random.default_rng(0), axes, 10.0)
    values = field(axes)
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.std() == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(field([axes[0][3:9], axes[1][5:6], axes[2][::7]]), values[3:9, 5:6, ::7], atol=1e-5)


def test_distances():
    grid = list(np.ix_(*[np.linspace(-30, 30, 61)] * 3))
    np.testing.assert_allclose(ellipsoid(grid, (20, 20, 20)), np.sqrt(sum(c**2 for c in grid)) - 20, atol=1e-4)
    ellipse = ellipsoid(grid, (10, 20, 5))
    assert np.abs([ellipse[40, 30, 30], ellipse[30, 10, 30], ellipse[30, 30, 35]]).max() < 1e-9  # its vertices
    assert ellipse[41, 30, 30] == pytest.approx(1, abs=0.15) and ellipse[30, 30, 34] == pytest.approx(-1, abs=0.25)
    line = segment(grid, (0.0, 0.0, -10.0), (0.0, 0.0, 10.0))
    assert line[30, 33, 34] == pytest.approx(3)  # beside it
    assert line[30, 33, 44] == pytest.approx(5)  # 3 beside and 4 beyond its end


# --- writing ---


def test_a_second_call_keeps_the_files_and_a_larger_one_adds(tmp_path, monkeypatch):
    first = write_phantom(tmp_path, 2)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(phantom, "make_case", lambda *_: pytest.fail("drawn again"))
        assert write_phantom(tmp_path, 2) == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    assert len(write_phantom(tmp_path, 3)) == 3
    assert all(file.stat().st_mtime_ns == time for file, time in before.items() if file.is_file())


def test_an_interrupted_case_leaves_nothing_and_is_done_again(tmp_path, monkeypatch):
    save, calls = nibabel.save, []

    def interrupted(image, path):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        save(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(phantom.nibabel, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_phantom(tmp_path, 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["PHANTOM.json", "case_00000"]
    write_phantom(tmp_path, 3)
    write_phantom(tmp_path.with_name("undisturbed"), 3)
    assert digest(tmp_path) == digest(tmp_path.with_name("undisturbed"))


def test_a_case_that_lost_a_file_is_written_again(tmp_path):
    folder = write_phantom(tmp_path, 1)[0]
    whole = digest(tmp_path)
    (folder / "segmentation.nii.gz").unlink()
    write_phantom(tmp_path, 1)
    assert digest(tmp_path) == whole


def test_the_description_says_what_was_drawn(tmp_path):
    write_phantom(tmp_path, 1, seed=3)
    description = json.loads((tmp_path / "PHANTOM.json").read_text(encoding="utf-8"))
    assert description["seed"] == 3 and description["setting"]["name"] == "small"
    assert description["setting"]["tumour_fraction"] == [[0, 0.001], [1, 0.003]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"setting": "huge"}, "'huge'.*small, demo, full"),
        ({"cases": 0}, "0 phantom cases"),
        ({"cases": -2}, "-2 phantom cases"),
        ({"first": -1}, "from number -1"),
        ({"first": 99_999, "cases": 2}, "from number 99999"),
        ({"seed": -4}, "-4"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        write_phantom(tmp_path / "phantom", **({"cases": 1} | arguments))
    assert not (tmp_path / "phantom").exists()


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    write_phantom(tmp_path / "seed0", 1, seed=0)
    with pytest.raises(InputError, match="another phantom"):
        write_phantom(tmp_path / "seed0", 1, seed=1)

    real = tmp_path / "kits19" / "case_00000"
    real.mkdir(parents=True)
    with pytest.raises(InputError, match="not empty"):
        write_phantom(real.parent, 1)
    assert list(real.iterdir()) == []

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_phantom(tmp_path / "file", 1)

    (tmp_path / "seed0" / "PHANTOM.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        write_phantom(tmp_path / "seed0", 1, seed=0)
