"""Studies of two-dimensional images from check to prediction: their axes, units, sizes and pictures."""

import base64
import io
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from study_helpers import call
from voxloss.config.axes import with_three_axes
from voxloss.config.files import load_config
from voxloss.data.layouts import load_dataset
from voxloss.data.prepare.resample import resampled_shape
from voxloss.evaluation.scores import read_scores
from voxloss.study.settle import configured_dataset, patch_within, settle_patch_size
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

TINY = (
    "--comparison.losses", "[dice]", "--comparison.seeds", "[0]", "--splits.folds", "2", "--patches.batch_size", "1",
    "--network.filters", "2", "--network.depth", "2", "--training.epochs", "1", "--training.iterations", "2",
    "--training.validation_batches", "1", "--execution.device", "cpu", "--execution.threads", "1",
)  # fmt: skip
UPRIGHT = np.diag([-0.5, -0.25, 1, 1])  # as ITK writes a picture of 0.5 mm x 0.25 mm

FORMS = {
    "plane": lambda values: values,
    "slice last": lambda values: values[:, :, None],
    "slice first": lambda values: values[None],
    "slice between": lambda values: values[:, None],
}


def content(number, shape=(24, 20)):
    """A grey image of noise with a bright rectangle of 6 by 8 pixels, and its mask."""
    label = np.zeros(shape, np.uint8)
    label[number % 4 : number % 4 + 6, 2:10] = 1
    grey = np.random.default_rng(number).normal(0, 1, shape) + 3 * label
    return grey.astype(np.float32), label


def save(path: Path, values, affine=UPRIGHT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, affine).to_filename(path)
    return path


def write_folder(root: Path, form=FORMS["plane"], shapes=((24, 20),) * 4) -> Path:
    for number, shape in enumerate(shapes):
        for folder, values in zip(("images", "masks"), content(number, shape), strict=True):
            save(root / folder / f"c{number}.nii.gz", form(values))
    return root


def write_colours(root: Path) -> Path:
    """Photographs of 8 bits whose structure is red on dark green."""
    for number in range(4):
        _, label = content(number)
        colours = np.stack([40 + 160 * label, 60 - 20 * label, 10 + 0 * label], axis=-1).astype(np.uint8)
        save(root / "images" / f"c{number}.nii.gz", colours[:, :, None])
        save(root / "masks" / f"c{number}.nii.gz", label)
    return root


def run(data: Path, study: Path, *more: object) -> Study:
    result = call("run", "folder", "--data", data, "--study", study, *TINY, *more)
    assert result.returncode == 0, result.stderr
    return Study.open(study)


def refused(*words: object) -> str:
    result = call(*words)
    assert result.returncode == 2, result.stdout
    return result.stderr


@pytest.mark.parametrize("form", FORMS)
def test_the_flat_axis_is_found_and_never_cut_or_resampled(tmp_path, form):
    data = write_folder(tmp_path / "data", FORMS[form])
    flat = {"plane": 2, "slice last": 2, "slice first": 0, "slice between": 1}[form]
    dataset = load_dataset("auto", data)
    assert (dataset.flat_axis, dataset.unit) == (flat, "mm")
    config = load_config(None, ["--patches.size", "[16,8]", "--preparation.spacing_mm", "[1,2]"])
    in_three = with_three_axes(config, flat)
    assert in_three.patches.size == tuple(np.insert([16, 8], flat, 1))
    assert in_three.preparation.spacing_mm == tuple(np.insert([1.0, 2.0], flat, 1.0))
    shape = tuple(np.insert([24, 20], flat, 1))
    assert settle_patch_size(load_config(None), [shape], flat).size == tuple(np.insert([24, 20], flat, 1))
    spacing = np.insert([0.5, 0.25], flat, 5.0)
    assert resampled_shape(shape, spacing, (1.0, 1.0, 1.0)) == tuple(np.insert([12, 5], flat, 1))


def test_a_patch_has_no_more_voxels_than_the_cube_or_square():
    """Also where an axis is thinner than the patch must be."""
    for shape in ((256, 256, 7), (10, 300, 280), (60, 512, 512), (35, 50, 35), (240, 240, 155), (9, 9, 400)):
        for depth in (2, 3, 4, 5):
            assert math.prod(patch_within([shape], 40, depth)) <= 40**3
    assert patch_within([(256, 256, 7)], 40, 3) == (88, 88, 8)
    assert math.prod(patch_within([(8, 2000, 1)], 100, 4, 2)) <= 100**2


def test_two_numbers_are_for_images_and_three_for_both():
    two = load_config(None, ["--patches.size", "[16,8]"])
    with pytest.raises(InputError, match=r"patches\.size has two numbers, \[16, 8\], but the cases are volumes"):
        with_three_axes(two, None)
    assert with_three_axes(load_config(None, ["--patches.size", "[16,8,32]"]), 2).patches.size == (16, 8, 1)
    untouched = load_config(None)
    assert with_three_axes(untouched, 2) == with_three_axes(untouched, None) == untouched


def test_patches_of_images_suit_images(tmp_path):
    config = load_config(None, ["--execution.device", "cpu"])
    for shape, size in {
        (565, 584, 1): (240, 256, 1),  # as large as 256 x 256, halved four times
        (30, 28, 1): (28, 28, 1),
        (4000, 1, 1): (4000, 4, 1),  # rows are padded
    }.items():
        assert settle_patch_size(config, [shape], 2).size == size


def stack(values):
    return np.repeat(values[:, :, None], 3, axis=2)


MIXTURES = {
    "a volume among images": (
        ["plane"] * 3 + ["stack"], "c3: a volume of 24 × 20 × 3 voxels, where most cases are single "
    ),
    "an image among volumes": (
        ["stack"] * 3 + ["plane"], "c3: a single slice of 24 × 20 × 1 voxels, where most cases are volumes"
    ),
    "another flat axis": (
        ["plane"] * 3 + ["slice first"], "c3: a slice across axis 0 of 1 × 24 × 20 voxels, where most cases are single "
    ),
}  # fmt: skip


@pytest.mark.parametrize("mixture", MIXTURES)
def test_images_and_volumes_do_not_mix(tmp_path, mixture):
    forms, sentence = MIXTURES[mixture]
    for number, form in enumerate(forms):
        for folder, values in zip(("images", "masks"), content(number), strict=True):
            save(tmp_path / folder / f"c{number}.nii.gz", FORMS.get(form, stack)(values), np.eye(4))
    axes = ("--splits.folds", "2", "--data.options", "{axes: stored}")
    checked = call("check", tmp_path, *axes)
    assert checked.returncode == 1
    assert sentence.removeprefix("c3: ") in checked.stdout
    assert sentence in refused("plan", "folder", "--data", tmp_path, *axes)
    assert sentence in refused("run", "folder", "--data", tmp_path, "--study", tmp_path / "study", *axes)
    assert not (tmp_path / "study").exists()


def test_grey_images_and_colours_do_not_mix(tmp_path):
    data = write_colours(tmp_path)
    save(data / "images" / "c3.nii.gz", content(3)[0])
    assert "1 channels, where most cases have 3: c3" in call("check", data).stdout
    assert "c3 has 1 channels, but c0 has 3" in refused("run", "folder", "--data", data, "--study", tmp_path / "study")


def test_rules_of_volumes_are_refused_for_images_and_the_reverse(tmp_path):
    def rules(root, text):
        configured_dataset(load_config(None, ["--data.root", str(root), "--evaluation.lesions", text]))

    images = write_folder(tmp_path / "images")
    with pytest.raises(InputError, match=r"minimum_volume_ml is set, but the cases are images: set minimum_area_mm2"):
        rules(images, "{minimum_volume_ml: 1}")
    with pytest.raises(InputError, match=r"size_limits_mm2: 'cyst' is not a class of the data"):
        rules(images, "{size_limits_mm2: {cyst: [1, 2]}}")
    rules(images, "{minimum_area_mm2: 1, size_limits_mm2: [1, 2]}")
    volumes = write_folder(tmp_path / "volumes", stack)
    with pytest.raises(InputError, match=r"size_limits_mm2 is set, but the cases are volumes: set size_limits_ml"):
        rules(volumes, "{size_limits_mm2: [1, 2]}")


SIZES = ((24, 20), (40, 1), (9, 50), (33, 28))  # a row, and smaller than the patch


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), shapes=SIZES)


@pytest.fixture(scope="module")
def study(images, tmp_path_factory):
    """Of images of several sizes, with patches of two numbers and a coarser spacing."""
    folder = tmp_path_factory.mktemp("study")
    return run(images, folder, "--patches.size", "[16,16]", "--preparation.spacing_mm", "[0.5,0.5]", "--no-report")


def test_check_speaks_of_pixels_and_areas(images, tmp_path):
    checked = call("check", images, "--output", tmp_path / "page")
    lines = checked.stdout.splitlines()
    assert "  shape    9–40 × 1–50 pixels" in lines
    assert "  spacing  0.5 × 0.25 mm" in lines
    assert "% of pixels" in checked.stdout
    assert "patches of 28 × 24 pixels as stored" in checked.stdout  # of the median size, as a run would choose
    content = json.loads((tmp_path / "page" / "check.json").read_text())
    assert content["classes"][1]["area_mm2"]["high"] == 48 * 0.5 * 0.25
    assert "volume" not in (tmp_path / "page" / "index.html").read_text().partition("</style>")[2]


@pytest.mark.slow
def test_a_study_of_images_measures_areas_and_resamples_in_the_plane(study, images):
    assert study.config.patches.size == (16, 16, 1)
    assert study.config.preparation.spacing_mm == (0.5, 0.5, 1.0)
    limits = study.config.evaluation.lesions
    assert limits.size_limits_ml is None
    assert set(limits.size_limits_mm2) == {"class 1"}
    scores = read_scores(study.folder / "scores.csv")
    areas = scores[scores["metric"] == "reference_volume"].set_index("case")["value"]
    for number in range(4):
        path = images / "masks" / f"c{number}.nii.gz"
        assert areas[f"c{number}"] == np.count_nonzero(nibabel.load(path).dataobj) * 0.5 * 0.25
        predicted = nibabel.load(next(study.folder.glob(f"runs/*/*/*/predictions/c{number}.nii.gz")))
        assert predicted.shape == SIZES[number]
        np.testing.assert_array_equal(predicted.affine, nibabel.load(path).affine)


@pytest.mark.slow
def test_the_same_study_goes_on_with_two_numbers_and_refuses_others(study, images):
    words = ("run", "folder", "--data", images, "--study", study.folder, *TINY, "--no-report")
    spacing = ("--preparation.spacing_mm", "[0.5,0.5]")
    assert call(*words, *spacing, "--patches.size", "[16,16]").returncode == 0
    assert "patches.size = [16, 16, 1], not [8, 16, 1]" in refused(*words, *spacing, "--patches.size", "[8,16]")


@pytest.mark.slow
def test_new_images_are_segmented_on_their_own_grids(study, images, tmp_path):
    trained = next(study.folder.glob("runs/dice/fold-0/seed-0"))
    result = call("predict", trained, *sorted((images / "images").iterdir()), "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    for number in study.folds[0]:
        ours, theirs = (nibabel.load(folder / f"{number}.nii.gz") for folder in (tmp_path, trained / "predictions"))
        np.testing.assert_array_equal(ours.dataobj, theirs.dataobj)
    volume = save(tmp_path / "volume.nii.gz", stack(content(0)[0]))
    segmented = call("predict", trained, volume, "--output", tmp_path / "out")  # slice by slice
    assert segmented.returncode == 0, segmented.stderr
    assert nibabel.load(tmp_path / "out" / "volume.nii.gz").shape == (24, 20, 3)


@pytest.mark.slow
def test_plan_speaks_of_two_axes(images):
    planned = call("plan", "folder", "--data", images, *TINY)
    assert planned.returncode == 0, planned.stderr
    assert "1 of 28 × 24, measured" in planned.stdout
    assert "2D U-Net" in planned.stdout


def pixels(base64_png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(base64_png))).convert("RGB"))


@pytest.mark.slow
def test_the_report_shows_colours_upright_and_sizes_by_area(tmp_path):
    """Columns of the picture are the first axis, as ITK stores pictures; the overlay has the mask's pixels."""
    study = run(write_colours(tmp_path / "data"), tmp_path / "study", "--patches.size", "[16,16]")
    report = study.folder / "report"
    page = (report / "index.html").read_text()
    assert "Area, mm²" in page
    assert "HD95, mm" in page
    assert "Area difference, mm²" in page
    assert "Volume" not in page.partition("</style>")[2]
    assert not (report / "viewer" / "niivue.umd.js").exists()
    assert (report / "viewer" / "pictures.js").exists()
    for table in ("tables/cases.csv", "figures/lesions_class-1.csv"):
        columns = (report / table).read_text().partition("\n")[0].split(",")
        assert "area_mm2" in columns
        assert "volume_ml" not in columns
    scripts = {}
    for path in (report / "viewer" / "cases").glob("*.js"):
        assert Image.open(path.with_suffix(".png")).size == (24, 20)
        content = json.loads(path.read_text().partition(", ")[2].removesuffix(");\n"))
        scripts[content["case"]] = content
    assert len(scripts) == 4
    for case, shown in scripts.items():
        label = np.asarray(nibabel.load(tmp_path / "data" / "masks" / f"{case}.nii.gz").dataobj)
        image = np.asarray(nibabel.load(tmp_path / "data" / "images" / f"{case}.nii.gz").dataobj)[:, :, 0]
        np.testing.assert_array_equal(pixels(shown["image"]), image.transpose(1, 0, 2))
        np.testing.assert_array_equal(pixels(shown["reference"])[:, :, 0], label.T)
        assert shown["pixel"] == [0.5, 0.25]
        predicted = pixels(shown["predictions"]["dice"])[:, :, 0]
        error = shown["errors"]["dice"]["1"]
        column, row = error["pixel"]
        assert predicted[row, column] != label.T[row, column]


@pytest.mark.slow
def test_without_a_pixel_size_everything_is_in_pixels(tmp_path):
    """As of pictures, whose files do not say how large a pixel is."""
    data = tmp_path / "data"
    for number in range(4):
        grey, label = content(number)
        for folder, values in (("images", 100 + 20 * grey), ("masks", 255 * label)):
            (data / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.clip(0, 255).astype(np.uint8).T).save(data / folder / f"c{number}.png")
    study = run(data, tmp_path / "study", "--patches.size", "[16,16]")
    assert study.dataset.unit == "pixel"
    page = (study.folder / "report" / "index.html").read_text()
    assert "HD95, pixels" in page
    assert "Area, pixels" in page
    assert " mm" not in page.partition("</style>")[2].replace("&nbsp;", " ").partition('id="settings"')[0]
    assert "area_pixels" in (study.folder / "report" / "tables" / "cases.csv").read_text()
    checked = call("check", data)
    assert "  spacing  not known: sizes and distances are in pixels" in checked.stdout.splitlines()
