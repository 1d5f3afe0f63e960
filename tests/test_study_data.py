"""Studies on data with mixed axes, ignored voxels and wide values, and one judgement of check, plan and run."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from study_helpers import call
from voxloss.evaluation.scores import read_scores
from voxloss.study import predict as prediction
from voxloss.study.study import Study

SHAPE = (10, 12, 14)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
pytestmark = pytest.mark.slow

TINY = (
    "--comparison.losses", "[dice]", "--comparison.seeds", "[0]", "--splits.folds", "2",
    "--patches.size", "[8,8,8]", "--patches.batch_size", "1",
    "--network.filters", "2", "--network.depth", "1", "--training.epochs", "1", "--training.iterations", "2",
    "--training.validation_batches", "1", "--execution.device", "cpu", "--execution.threads", "1",
)  # fmt: skip


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, axes: str = "RAS", units: int = 2) -> Path:
    """Write an upright array, stored along `axes` by nibabel."""
    image = nibabel.Nifti1Image(values, affine)
    there = nibabel.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), there))
    image.header["xyzt_units"] = units
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def content(number: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image of noise with a bright box, and its mask."""
    label = np.zeros(shape, np.uint8)
    label[2 + number % 3 : 7, 3:8, 4 : 9 + number % 2] = 1
    grey = np.random.default_rng(number).normal(0, 1, shape) + 3 * label
    return grey.astype(np.float32), label


def write_folder(root: Path, axes: tuple[str, ...] = ("RAS",) * 4) -> Path:
    for number, own in enumerate(axes):
        grey, label = content(number)
        save(root / "images" / f"c{number}.nii.gz", grey, axes=own)
        save(root / "masks" / f"c{number}.nii.gz", label, axes=own)
    return root


def upright(path: Path) -> np.ndarray:
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def run(data: Path, study: Path, *more: object) -> Path:
    result = call("run", "folder", "--data", data, "--study", study, *TINY, "--no-report", *more)
    assert result.returncode == 0, result.stderr
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of four upright cases of one spacing."""
    folder = tmp_path_factory.mktemp("upright")
    return run(write_folder(folder / "data"), folder / "study")


@pytest.fixture
def prepared_for_network(monkeypatch) -> list[np.ndarray]:
    """What the network gets to see, case by case."""
    seen: list[np.ndarray] = []
    original = prediction.predict_label

    def watched(network, image, *rest):
        seen.append(np.array(image))
        return original(network, image, *rest)

    monkeypatch.setattr(prediction, "predict_label", watched)
    return seen


def predicted(study: Path, image: Path, output: Path) -> Path:
    result = call("predict", study / "runs/dice/fold-0/seed-0", image, "--output", output)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


def test_a_study_of_mixed_axes_is_the_study_of_upright_cases(study, tmp_path):
    mixed = run(write_folder(tmp_path / "data", ("RAS", "SPL", "RAS", "LAS")), tmp_path / "study")
    assert Study.open(mixed).dataset.axes == "RAS"
    first, second = read_scores(study / "scores.csv"), read_scores(mixed / "scores.csv")
    np.testing.assert_allclose(second.pop("value"), first.pop("value"), rtol=1e-6)
    assert first.drop(columns="dataset").equals(second.drop(columns="dataset"))
    for path in sorted(mixed.glob("runs/dice/*/seed-0/predictions/*.nii.gz")):
        written, image = nibabel.load(path), nibabel.load(tmp_path / "data" / "images" / path.name)
        assert written.shape == image.shape
        np.testing.assert_array_equal(written.affine, image.affine)
        np.testing.assert_array_equal(upright(path), upright(study / path.relative_to(mixed)))


def own_copy(study: Path, folder: Path, recorded: bool) -> Path:
    """A copy of a study; not `recorded`: as an earlier version wrote it."""
    shutil.copytree(study, folder)
    if not recorded:
        description = json.loads((folder / "dataset.json").read_text())
        del description["axes"], description["spacing_mm"]
        (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize(("axes", "recorded"), [("SPL", True), ("LAS", True), ("IRP", True), ("SPL", False)])
def test_predict_turns_a_case_of_other_axes_and_turns_its_mask_back(study, tmp_path, axes, recorded):
    grey, _ = content(7, (9, 10, 11))
    own = own_copy(study, tmp_path / "study", recorded)
    straight = predicted(own, save(tmp_path / "straight.nii", grey), tmp_path / "out")
    other = predicted(own, save(tmp_path / "other.nii", grey, axes=axes), tmp_path / "out")
    assert nibabel.aff2axcodes(nibabel.load(other).affine) == tuple(axes)
    np.testing.assert_array_equal(nibabel.load(other).affine, nibabel.load(tmp_path / "other.nii").affine)
    np.testing.assert_array_equal(upright(other), upright(straight))


def halved(grey: np.ndarray) -> np.ndarray:
    """The same image on voxels of half the size, whose linear resampling back gives exactly the old voxels."""
    for axis in range(3):
        grey = grey.repeat(2, axis)
    return grey


@pytest.mark.parametrize("units", [2, 3, 1])
@pytest.mark.parametrize("recorded", [True, False], ids=["new", "of an earlier version"])
def test_predict_resamples_to_the_spacing_of_a_study_that_resampled_nothing(
    study, tmp_path, prepared_for_network, recorded, units
):
    assert Study.open(study).config.preparation.spacing_mm == "stored"
    own = own_copy(study, tmp_path / "study", recorded)
    grey, _ = content(7)
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3] *= {2: 1, 3: 1000, 1: 0.001}[units]
    predicted(own, save(tmp_path / "coarse.nii", grey), tmp_path / "out")
    fine = predicted(own, save(tmp_path / "fine.nii", halved(grey), affine, units=units), tmp_path / "out")
    assert nibabel.load(fine).shape == tuple(2 * size for size in SHAPE)
    assert prepared_for_network[0].shape == prepared_for_network[1].shape == (1, *SHAPE)
    np.testing.assert_allclose(prepared_for_network[1], prepared_for_network[0], atol=1e-5)


def test_predict_leaves_a_spacing_that_differs_by_rounding_alone(study, tmp_path, prepared_for_network):
    grey, _ = content(7)
    almost = AFFINE * (1 + 1e-7)
    almost[3, 3] = 1
    predicted(study, save(tmp_path / "almost.nii", grey, almost), tmp_path / "out")
    np.testing.assert_allclose(prepared_for_network[0], (grey[None] - grey.mean()) / grey.std(), atol=1e-4)


def test_predict_writes_nothing_over_a_file_and_nothing_beside_a_wrong_image(study, tmp_path):
    grey, label = content(7)
    image, mask = save(tmp_path / "a.nii", grey), save(tmp_path / "masks" / "a.nii.gz", label)
    before = mask.read_bytes()
    folder = study / "runs/dice/fold-0/seed-0"
    result = call("predict", folder, image, "--output", tmp_path / "masks")
    assert result.returncode == 2 and "would overwrite a file" in result.stderr
    assert mask.read_bytes() == before
    grey[0, 0, 0] = np.nan
    wrong = save(tmp_path / "b.nii", grey)
    result = call("predict", folder, image, wrong, "--output", tmp_path / "out")
    assert result.returncode == 2 and "b.nii has 1 value that is not finite" in result.stderr
    assert not (tmp_path / "out").exists()
    comma = shutil.copy(image, tmp_path / "a,b.nii")
    assert predicted(study, comma, tmp_path / "out").name == "a,b.nii.gz"


# Ignored voxels and merged values


@pytest.mark.parametrize("rare", [2, 1], ids=["ignored value highest", "ignored value lowest"])
def test_ignored_voxels_are_in_no_score_and_in_no_headline(tmp_path, rare):
    """nnU-Net's folder: a large structure, a rare one that lies at ignored voxels, and a case that is all ignored."""
    root, large, ignored = tmp_path / "data", 3, {2: 4, 1: 2}[rare]
    for number in range(4):
        grey, label = content(number)
        mask = np.where(label, large, 0).astype(np.float32)  # stored as floats, as some tools do
        mask[3:5, 3:5, 5:7] = rare
        mask[4:, :, 6:] = ignored
        if number == 3:
            mask[:] = ignored
        save(root / f"imagesTr/x{number}_0000.nii.gz", grey)
        save(root / f"labelsTr/x{number}.nii.gz", mask)
    labels = {"background": 0, "large": large, "rare": rare, "ignore": ignored}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}}))
    finished = run(root, tmp_path / "study")
    opened = Study.open(finished)
    assert opened.dataset.classes == ("background", "large", "rare")
    assert opened.comparison.primary_class == "rare"
    assert opened.parsed.data.layout == "decathlon"
    scores = read_scores(finished / "scores.csv").set_index(["case", "class", "metric"])
    somewhere = False
    for path in finished.glob("runs/dice/*/seed-0/predictions/*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        mask = np.asarray(nibabel.load(root / "labelsTr" / path.name).dataobj)
        found = np.asarray(nibabel.load(path).dataobj)
        assert set(np.unique(found)) <= {0, large, rare}
        somewhere |= bool(found[mask == ignored].any())
        counted = mask != ignored
        for name, value in (("large", large), ("rare", rare)):
            there, here = (mask == value)[counted], (found == value)[counted]
            total = there.sum() + here.sum()
            expected = 2 * (there & here).sum() / total if total else np.nan
            np.testing.assert_allclose(scores.loc[(case, name, "dice"), "value"], expected)
            np.testing.assert_allclose(scores.loc[(case, name, "reference_volume"), "value"], there.sum() * 3 / 1000)
    assert somewhere  # the file keeps what the network predicted


def test_values_above_255_and_merged_values(tmp_path):
    root = write_folder(tmp_path / "data")
    for number in range(4):
        label = content(number)[1].astype(np.int32) * 1001
        label[2:5][label[2:5] > 0] = 1002
        save(root / "masks" / f"c{number}.nii.gz", label)
    finished = run(root, tmp_path / "study", "--data.options", "{classes: {structure: [1002, 1001]}}")
    for path in finished.glob("runs/dice/*/seed-0/predictions/*.nii.gz"):
        found = np.asarray(nibabel.load(path).dataobj)
        reference = np.asarray(nibabel.load(root / "masks" / path.name).dataobj) > 0
        assert set(np.unique(found)) <= {0, 1001}
        dice = read_scores(finished / "scores.csv").set_index(["case", "metric"])["value"]
        expected = 2 * ((found > 0) & reference).sum() / ((found > 0).sum() + reference.sum())
        np.testing.assert_allclose(dice[path.name.removesuffix(".nii.gz"), "dice"], expected)


# check, plan and run judge alike


def spoil_nothing(root: Path) -> None:
    pass


def three_cases(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder / "c3.nii.gz").unlink()


def no_voxel_size(root: Path) -> None:
    for folder in ("images", "masks"):
        path = root / folder / "c1.nii.gz"
        image = nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), None)
        image.header["pixdim"][3] = 0
        image.to_filename(path)


def the_same_image(root: Path) -> None:
    for number in (1, 2, 3):  # whatever the folds are, two of them are apart
        image = nibabel.load(root / "images" / "c0.nii.gz")
        again = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
        again.to_filename(root / "images" / f"c{number}.nii.gz")


def two_channels(root: Path) -> None:
    image = nibabel.load(root / "images" / "c2.nii.gz")
    both = np.stack([np.asarray(image.dataobj)] * 2, -1)
    nibabel.Nifti1Image(both, image.affine).to_filename(root / "images" / "c2.nii.gz")


def moved_mask(root: Path) -> None:
    save(root / "masks" / "c2.nii.gz", content(2)[1], AFFINE @ np.diag([1, 1, 1.1, 1]))


JUDGED = {
    "fewer cases than folds": (three_cases, ("--splits.folds", "4"), "4 folds need at least 4 cases; there are 3"),
    "no voxel size": (no_voxel_size, (), "voxel sizes of 1 × 1 × 0 mm in the header of c1.nii.gz"),
    "the same image twice": (the_same_image, (), "so it would be in both training and test"),
    "another number of channels": (two_channels, (), "2 channels"),
    "a mask that lies elsewhere": (moved_mask, (), "at different positions"),
    "mixed axes that are to stay": (
        lambda root: write_folder(root, ("RAS", "RAS", "SAR", "RAS")),
        ("--data.options", "{axes: stored}"),
        "so a median spacing would mix directions",
    ),
    "an unknown exclusion": (spoil_nothing, ("--data.exclude", "[C1]"), "did you mean 'c1'"),
}


@pytest.mark.parametrize("name", JUDGED)
def test_check_plan_and_run_judge_alike(tmp_path, name):
    spoil, settings, message = JUDGED[name]
    root = write_folder(tmp_path / "data")
    spoil(root)
    config = tmp_path / "study.yaml"
    written = call("config", "folder", *TINY, *settings)
    config.write_text(written.stdout)
    checked = call("check", root, "--config", config)
    assert checked.returncode == (2 if "exclusion" in name else 1)
    assert message in checked.stdout + checked.stderr
    for command in (["plan"], ["run", "--study", tmp_path / "study"]):
        refused = call(*command, config, "--data", root)
        assert (refused.returncode, refused.stdout) == (2, ""), command
        assert message in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_class_that_no_mask_has_is_refused_by_check_and_run(tmp_path):
    root = write_folder(tmp_path / "data")
    config = tmp_path / "study.yaml"
    config.write_text(call("config", "folder", *TINY, "--data.options", "{classes: {one: 1, two: 2}}").stdout)
    checked = call("check", root, "--config", config)
    refused = call("run", config, "--data", root, "--study", tmp_path / "study")
    assert (checked.returncode, refused.returncode) == (1, 2)
    assert "no case has the class two" in checked.stdout and "no case has the class two" in refused.stderr


def test_what_check_warns_of_run_says_too(tmp_path):
    root = write_folder(tmp_path / "data", ("RAS", "RAS", "SPL", "RAS"))
    warning = "axes stored as SPL, which are turned to the study's RAS: c2"
    assert warning in call("check", root).stdout
    result = call("run", "folder", "--data", root, "--study", tmp_path / "study", *TINY, "--no-report")
    assert result.returncode == 0
    assert warning in " ".join(result.stdout.split())


def test_check_takes_the_options_of_a_study(tmp_path):
    root = write_folder(tmp_path / "data")
    label = content(1)[1]
    label[0, 0, 0] = 4
    save(root / "masks" / "c1.nii.gz", label)
    plain = call("check", root)
    assert plain.returncode == 0 and "class 4" in plain.stdout
    result = call("check", root, "--layout", "folder", "--data.options", "{ignore: 4}", "--splits.folds", "4")
    assert result.returncode == 0 and "class 4" not in result.stdout
    assert "voxels of value 4 are ignored: 1 of 4 masks" in result.stdout


@pytest.mark.parametrize("option", ["layout", "root", "exclude", "must_exist", 1])
def test_an_option_that_is_none_of_a_layout_is_refused(tmp_path, option):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    result = call("check", tmp_path, "--config", "folder", "--data.options", f"{{{option}: x}}")
    assert result.returncode == 2 and "data.options has no" in result.stderr
