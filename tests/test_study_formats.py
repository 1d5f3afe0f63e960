"""Every format through `check`, `run`, `predict` and `report`; masks are read back by another library and overlaid."""

import json
import sys
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from study_helpers import call

sys.path.insert(0, str(Path(__file__).parent / "data"))
from format_files import write_itk, write_picture, write_series

SHAPE = (8, 16, 18)  # z, y, x
OPTIONS = [
    "--splits.folds", "2", "--losses", "dice", "--seeds", "0", "--patches.batch_size", "1", "--network.filters", "2",
    "--network.depth", "2", "--training.epochs", "1", "--training.iterations", "2",
    "--training.validation_batches", "1", "--preparation.spacing_mm", "stored", "--execution.device", "cpu",
    "--execution.threads", "1",
]  # fmt: skip


def ball(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with a bright ball away from the middle, and its mask."""
    place = np.indices(SHAPE)
    distance = sum((axis - centre) ** 2 for axis, centre in zip(place, (3, 5, 11), strict=True))
    mask = distance <= 9
    noise = np.random.default_rng(number).normal(60, 5, SHAPE)
    return (noise + 120 * mask).astype(np.uint8), mask


def volume_case(root: Path, number: int, ending: str) -> None:
    image, mask = ball(number)
    write_itk(root / f"images/c{number}{ending}", image)
    write_itk(root / f"masks/c{number}{ending}", mask.astype(np.uint8))


def tiff_case(root: Path, number: int) -> None:
    image, mask = ball(number)
    for folder, values in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
        pages = [Image.fromarray(plane) for plane in values]
        (root / folder).mkdir(parents=True, exist_ok=True)
        pages[0].save(root / folder / f"c{number}.tif", save_all=True, append_images=pages[1:])


def picture_case(root: Path, number: int, ending: str, mask_ending: str) -> None:
    image, mask = ball(number)
    grey = image[3]
    pixels = np.dstack([grey, grey, 255 - grey]) if ending == ".jpg" else grey
    write_picture(root / f"images/c{number}{ending}", pixels)
    write_picture(root / f"masks/c{number}{mask_ending}", mask[3].astype(np.uint8) * 255)


def slice_case(root: Path, number: int) -> None:
    image, mask = ball(number)
    for place, (grey, marked) in enumerate(zip(image, mask, strict=True), start=5):  # 10 comes after 9
        write_picture(root / f"images/c{number}/s{place}.jpg", grey, quality=100, subsampling=0)
        write_picture(root / f"masks/c{number}/m{place}.png", marked.astype(np.uint8) * 255)


def read_slices(path: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path / f"s{place}.png")) for place in range(5, 5 + SHAPE[0])])


def dicom_case(root: Path, number: int) -> None:
    image, mask = ball(number)
    series = f"1.2.826.0.1.3680043.8.498.{number + 20}"
    folder = write_series(root / f"images/c{number}", image, series=series, reverse=bool(number % 2))
    files = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda file: file.InstanceNumber)
    codes = pydicom.sr.codedict.codes
    tumour = highdicom.seg.SegmentDescription(1, "tumour", codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
    (root / "masks").mkdir(exist_ok=True)
    highdicom.seg.Segmentation(
        files, mask.astype(np.uint8), "BINARY", [tumour], highdicom.UID(), 1, highdicom.UID(), 1, "m", "n", "1", "2"
    ).save_as(root / f"masks/c{number}.dcm")


def read_itk(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_segmentation(path: Path) -> np.ndarray:
    """Values (z, y, x) of a segmentation by highdicom, placed by the positions of its frames."""
    file = highdicom.seg.segread(path)
    values = np.zeros(SHAPE, np.uint8)
    spacing = float(file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices)
    orientation = file.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(orientation[:3], orientation[3:])
    for frame, group in zip(np.atleast_3d(file.pixel_array), file.PerFrameFunctionalGroupsSequence, strict=True):
        height = (np.array(group.PlanePositionSequence[0].ImagePositionPatient) - [10, -20, 30.5]) @ normal
        values[round(height / spacing)] = frame
    return values


FORMATS = {
    "mha": (lambda root, n: volume_case(root, n, ".mha"), ".mha", read_itk, 1),
    "mhd": (lambda root, n: volume_case(root, n, ".mhd"), ".mha", read_itk, 1),
    "nrrd": (lambda root, n: volume_case(root, n, ".nrrd"), ".nrrd", read_itk, 1),
    "tif": (tiff_case, ".tif", read_itk, 255),
    "png": (lambda root, n: picture_case(root, n, ".png", ".gif"), ".png", lambda p: np.array(Image.open(p)), 255),
    "jpg": (lambda root, n: picture_case(root, n, ".jpg", ".png"), ".png", read_itk, 255),
    "slices": (slice_case, "", read_slices, 255),
    "dicom": (dicom_case, ".dcm", read_segmentation, 1),
}


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures", "unmeasured_steps")
@pytest.mark.parametrize("name", FORMATS)
def test_a_study_of_every_format(tmp_path, name):
    write, ending, read, value = FORMATS[name]
    root, study = tmp_path / "data", tmp_path / "study"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(4):
            write(root, number)
    picture = name in ("png", "jpg")
    size = "[16,16,1]" if picture else "[16,16,8]"

    more = ["--data.options", "{slices: true}"] if name == "slices" else []
    checked = call("check", root, "--splits.folds", "2", *more)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "4 cases, 4 masks read" in checked.stdout
    expected = "tumour" if name == "dicom" else f"class {value}"
    assert expected in checked.stdout

    ran = call(
        "run", "folder", "--data", root, "--study", study, "--patches.size", size, *OPTIONS, *more, "--no-report"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    scores = study / "scores.csv"
    assert scores.is_file()
    predictions = sorted(study.glob("runs/dice/fold-*/seed-0/predictions/*"))
    assert [path.name for path in predictions] == [f"c{n}{ending}" for n in (0, 2, 1, 3)] or len(predictions) == 4
    assert {path.suffix for path in predictions} == {ending}

    images = sorted((root / "images").glob("c?" if name in ("dicom", "slices") else f"c?.{name}"))[:2]
    segmented = call("predict", study / "runs/dice/fold-0/seed-0", *images, "--output", tmp_path / "out")
    assert segmented.returncode == 0, segmented.stderr
    masks = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in masks] == [f"c{number}{ending}" for number in range(2)]
    folder = call("predict", study / "runs/dice/fold-0/seed-0", root / "images", "--output", tmp_path / "all")
    assert folder.returncode == 0, folder.stderr
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [f"c{number}{ending}" for number in range(4)]
    shape = SHAPE[1:] if picture else SHAPE
    for mask in (*masks, *predictions):
        values = read(mask)
        assert values.shape == shape
        assert set(np.unique(values)) <= {0, value}
    own = {path.name: read(path) for path in predictions}
    held_out = masks[0].name  # c0 was held out of fold 0, or of fold 1; the same run gives the same mask
    if (study / "runs/dice/fold-0/seed-0/predictions" / held_out).is_file():
        np.testing.assert_array_equal(read(masks[0]), own[held_out])

    reported = call("report", study)
    assert reported.returncode == 0, reported.stderr
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert "is not in the viewer" not in page
    assert len(list((study / "report/viewer").glob("**/0*.js"))) == 4


@pytest.mark.slow
def test_a_prediction_lies_on_its_image(tmp_path):
    """What a network finds at a bright ball is written where the ball is: a threshold instead of a network."""
    from voxloss.data.case import Case, read_image, write_label
    from voxloss.data.formats import is_image, mask_ending
    from voxloss.data.formats.slices import is_stack

    for name, (write, ending, read, _) in FORMATS.items():
        root = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(root, 1)
        image = next(path for path in sorted((root / "images").glob("c1*")) if is_image(path) or is_stack(path))
        values, _ = read_image(Case("c1", (image,), None))
        bright = (values[0] > 120).astype(np.uint8)
        target = tmp_path / f"mask-{name}{ending}"
        write_label(target, bright, like=image)
        assert mask_ending(image) == ending
        expected = ball(1)[1] if name not in ("png", "jpg") else ball(1)[1][3]
        written = read(target) > 0
        assert np.count_nonzero(written != expected) <= (4 if name in ("jpg", "slices") else 0), name


@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        ("mhd", "images/c1.raw", "cut short"),
        ("tif", "masks/c1.tif", "cut short"),
        ("png", "images/c1.png", "is damaged"),
        ("dicom", "images/c1/004.dcm", "cut short"),
    ],
)
def test_a_damaged_file_stops_a_study_before_it_is_there(tmp_path, name, damaged, message):
    root, study = tmp_path / "data", tmp_path / "study"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2):
            FORMATS[name][0](root, number)
    path = root / damaged
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    options = ["--patches.size", "[16,16,1]" if name == "png" else "[16,16,8]", *OPTIONS]
    checked = call(
        "check", root, "--data.options", "{classes: {x: 1}}" if name in ("mhd", "dicom") else "{classes: {x: 255}}"
    )
    assert checked.returncode == 1
    assert message in checked.stdout
    ran = call("run", "folder", "--data", root, "--study", study, *options)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert ran.stderr.count("\n") <= 2
    assert not (study / "study.yaml").exists()
    assert not list(study.rglob(".partial-*"))


def test_a_changed_slice_or_raw_file_is_noticed(tmp_path):
    """What lies beside a header, and every slice, counts as the image's content."""
    from voxloss.data.case import Case
    from voxloss.data.dataset import Dataset
    from voxloss.data.prepare.case import Preparation, prepare_case

    for name, change in (("mhd", "images/c0.raw"), ("dicom", "images/c0/003.dcm")):
        root = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FORMATS[name][0](root, 0)
        image = root / ("images/c0.mhd" if name == "mhd" else "images/c0")
        mask = root / ("masks/c0.mhd" if name == "mhd" else "masks/c0.dcm")
        data = Dataset(name, (Case("c0", (image,), mask),), ("background", "x"), {0: 0, 1: 1})
        first = prepare_case(data.cases[0], data, Preparation(), tmp_path / "cache")
        content = bytearray((root / change).read_bytes())
        content[-10] ^= 1
        (root / change).write_bytes(content)
        assert prepare_case(data.cases[0], data, Preparation(), tmp_path / "cache").folder != first.folder
        assert json.loads((first.folder / "geometry.json").read_text())["original"]["unit"] == "mm"


def test_images_of_tiff_by_tifffile_are_those_of_pillow(tmp_path):
    tiff_case(tmp_path, 0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "images/c0.tif"), ball(0)[0])
