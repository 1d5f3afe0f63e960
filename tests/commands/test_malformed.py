"""Malformed inputs of every kind: each gets one sentence that names it, status 2, and leaves nothing half-written."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from study_helpers import TINY, assert_only_prepared_cases
from voxloss.commands.main import run_command

IMAGE, MASK = "case_00001/imaging.nii.gz", "case_00002/segmentation.nii.gz"


def refused(capsys, words: tuple[str, ...], arguments: list[object], study: Path) -> None:
    """The command ends with status 2 and one line that holds all `words`; at most whole prepared cases are left."""

    def around() -> list[Path]:
        return sorted(path for path in study.parent.rglob("*") if study not in (path, *path.parents))

    before = around()
    try:
        status = run_command(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error
    done, _, mistake = error.rpartition("voxloss: ")  # a busy machine may say first what it does
    assert len(mistake.strip().splitlines()) == 1 and done in ("", "preparing: 4 cases\n"), error
    for word in words:
        assert word in error, error
    assert_only_prepared_cases(study)
    assert around() == before


# Files


def rewrite(change: Callable[[np.ndarray], np.ndarray], affine: Callable[[np.ndarray], np.ndarray] = lambda a: a):
    def spoil(path: Path) -> None:
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), affine(image.affine.copy())), path)

    return spoil


def with_value(value: float, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(dtype)
        values[0, 0, 0] = value
        return values

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_inside(path: Path) -> None:
    """A whole gzip file whose NIfTI is cut."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-200:-100] = b"\0" * 100
    path.write_bytes(bytes(content))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


def in_header(offset: int, content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[offset : offset + len(content)] = content
        path.write_bytes(gzip.compress(bytes(data)))

    return spoil


def moved(affine: np.ndarray) -> np.ndarray:
    affine[0, 3] += 1
    return affine


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
FILES = {
    "image-empty": (IMAGE, lambda path: path.write_bytes(b""), ()),
    "image-text": (IMAGE, lambda path: path.write_text("no image"), ()),
    "image-cut": (IMAGE, cut, ()),
    "image-cut-inside-gzip": (IMAGE, cut_inside, ("cut short",)),
    "image-corrupt": (IMAGE, corrupt, ()),
    "image-not-compressed": (IMAGE, lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), ()),
    "image-another-gzip": (IMAGE, lambda path: path.write_bytes(gzip.compress(b"a" * 5000)), ("not a NIfTI file",)),
    "image-missing": (IMAGE, Path.unlink, ("does not exist",)),
    "image-a-folder": (IMAGE, to_folder, ("does not exist",)),
    "image-dangling-link": (IMAGE, dangling, ("does not exist",)),
    "image-nan": (IMAGE, rewrite(with_value(np.nan, np.float32)), ("1 value that is not finite",)),
    "image-infinite": (IMAGE, rewrite(with_value(-np.inf, np.float32)), ("not finite",)),
    "image-complex": (IMAGE, rewrite(lambda values: values.astype(np.complex64)), ("complex64",)),
    "image-colours": (
        IMAGE,
        rewrite(lambda values: np.zeros(values.shape, RGB)),
        ("grey values or labels are needed",),
    ),
    "image-2d": (IMAGE, rewrite(lambda values: values[0]), ("has shape", "64 × 64 × 1")),
    "image-5d": (IMAGE, rewrite(lambda values: values[..., None, None].repeat(2, 4)), ("2 channels",)),
    "image-6d": (IMAGE, rewrite(lambda values: values[..., None, None].repeat(2, 3).repeat(2, 4)), ("three axes",)),
    "image-4-channels": (IMAGE, rewrite(lambda values: values[..., None].repeat(4, 3)), ("4 channels",)),
    "image-other-grid": (IMAGE, rewrite(lambda values: values, moved), ("affines differ", "by up to 1 mm")),
    "image-flat-affine": (IMAGE, in_header(280, b"\0" * 48), ("every side should be positive",)),
    "image-affine-nan": (IMAGE, in_header(280, b"\0\0\xc0\x7f"), ("positive and finite",)),
    "image-bad-type-code": (IMAGE, in_header(70, b"\x99\x00"), ()),
    "image-negative-axis": (IMAGE, in_header(42, b"\xf0\xff"), ()),
    "image-huge-axis": (IMAGE, in_header(42, b"\xff\x7f"), ()),
    "image-wrong-magic": (IMAGE, in_header(344, b"nope"), ()),
    "mask-missing": (MASK, Path.unlink, ("does not exist",)),
    "mask-cut": (MASK, cut, ()),
    "mask-other-shape": (MASK, rewrite(lambda values: values[1:]), ("has shape",)),
    "mask-moved": (MASK, rewrite(lambda values: values, moved), ("affines differ",)),
    "mask-half": (MASK, rewrite(with_value(0.5, np.float32)), ("0.5", "whole")),
    "mask-nan": (MASK, rewrite(with_value(np.nan, np.float32)), ("nan", "whole")),
    "mask-value-7": (MASK, rewrite(with_value(7, np.uint8)), ("the value 7", "0, 1, 2")),
    "mask-value-negative": (MASK, rewrite(with_value(-1, np.int16)), ("the value -1",)),
    "mask-value-huge": (MASK, rewrite(with_value(2**30, np.int32)), ("1073741824",)),
    "mask-channels": (MASK, rewrite(lambda values: values[..., None].repeat(2, 3)), ("mask has three axes",)),
}


@pytest.mark.parametrize("name", FILES)
def test_files(phantom, tmp_path, capsys, name):
    where, spoil, words = FILES[name]
    shutil.copytree(phantom, tmp_path / "data")
    spoil(tmp_path / "data" / where)
    study = tmp_path / "study"
    refused(
        capsys,
        (where.split("/")[0], *words),
        ["run", "demo", "--data", tmp_path / "data", "--study", study, *TINY],
        study,
    )


# Folders


def own_folder(data: Path, names: dict[str, list[str]]) -> None:
    """DATA/images and DATA/masks with copies of one phantom's files."""
    case = data / "case_00000"
    for folder, files in names.items():
        (data / "own" / folder).mkdir(parents=True)
        for name in files:
            shutil.copy(
                case / ("imaging.nii.gz" if folder == "images" else "segmentation.nii.gz"), data / "own" / folder / name
            )


def decathlon(content: object) -> Callable[[Path], None]:
    def make(data: Path) -> None:
        for folder in ("imagesTr", "labelsTr"):
            (data / "own" / folder).mkdir(parents=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (data / "own" / "dataset.json").write_text(text)

    return make


FOLDERS = {
    "nothing": ("folder", lambda data: (data / "own").mkdir(), ("no folder images",)),
    "a-file": ("folder", lambda data: (data / "own").write_text(""), ("own",)),
    "no-masks": ("folder", lambda data: own_folder(data, {"images": ["a.nii.gz"]}), ("no folder labels or masks",)),
    "no-images-in-it": ("folder", lambda data: own_folder(data, {"images": [], "masks": []}), ("holds no images",)),
    "image-without-mask": (
        "folder", lambda data: own_folder(data, {"images": ["a.nii.gz", "b.nii.gz"], "masks": ["a.nii.gz"]}),
        ("b.nii.gz has no mask",),
    ),
    "mask-without-image": (
        "folder", lambda data: own_folder(data, {"images": ["a.nii.gz"], "masks": ["a.nii.gz", "b.nii.gz"]}),
        ("b.nii.gz has no image",),
    ),
    "gap-in-channels": (
        "folder", lambda data: own_folder(data, {"images": ["a_0000.nii.gz", "a_0002.nii.gz"], "masks": ["a.nii.gz"]}),
        ("a_0000.nii.gz, a_0002.nii.gz", "without gap"),
    ),
    "same-name-twice": (
        "folder", lambda data: own_folder(data, {"images": ["a.nii.gz", "a.nii"], "masks": ["a.nii.gz"]}),
        ("have the same name",),
    ),
    "kits-without-cases": ("kits19", lambda data: (data / "own").mkdir(), ("holds no case_NNNNN",)),
    "brats-without-cases": ("brats20", lambda data: (data / "own").mkdir(), ("such as BraTS20_Training_NNN",)),
    "decathlon-not-json": ("decathlon", decathlon("{"), ("dataset.json",)),
    "decathlon-a-list": ("decathlon", decathlon([1]), ("dataset.json",)),
    "decathlon-of-no-cases": ("decathlon", decathlon({"training": []}), ("no image with a mask",)),
    "decathlon-training-a-number": ("decathlon", decathlon({"training": 3}), ("dataset.json", "3")),
    "decathlon-without-images": ("decathlon", lambda data: (data / "own").mkdir(), ("no folder imagesTr",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(phantom, tmp_path, capsys, name):
    layout, make, words = FOLDERS[name]
    shutil.copytree(phantom, tmp_path / "data")
    make(tmp_path / "data")
    study = tmp_path / "study"
    arguments = ["run", "folder", "--data.layout", layout, "--data", tmp_path / "data" / "own", "--study", study, *TINY]
    refused(capsys, words, arguments, study)


# Configurations

CONFIGURATIONS = {
    "not-yaml": ("training: [", ("mine.yaml", "not readable as YAML")),
    "a-list": ("- 1\n- 2\n", ("mine.yaml", "not a configuration")),
    "empty": ("", ("mine.yaml", "not a configuration")),
    "binary": (b"\xff\xfe\x00\x01", ("mine.yaml",)),
    "unknown-section": ("trainings: {epochs: 1}", ("trainings",)),
    "unknown-key": ("training: {epoch: 1}", ("epoch",)),
    "section-is-a-number": ("training: 3", ("training",)),
    "text-for-a-number": ("training: {epochs: many}", ("training.epochs", "many")),
    "fraction-for-a-count": ("training: {epochs: 1.5}", ("training.epochs", "1.5")),
    "negative-epochs": ("training: {epochs: -1}", ("training.epochs", "-1")),
    "learning-rate-nan": ("training: {learning_rate: .nan}", ("training.learning_rate", "nan")),
    "learning-rate-infinite": ("training: {learning_rate: .inf}", ("training.learning_rate", "inf")),
    "unknown-schedule": ("training: {schedule: cosine}", ("training.schedule", "cosine")),
    "clip-reversed": ("preparation: {clip: [300, -79]}", ("preparation.clip",)),
    "clip-nan": ("preparation: {clip: [.nan, 3]}", ("preparation.clip",)),
    "spacing-zero": ("preparation: {spacing_mm: [0, 1, 1]}", ("preparation.spacing_mm",)),
    "spacing-of-two-axes": ("preparation: {spacing_mm: [1, 1]}", ("preparation.spacing_mm",)),
    "patch-of-two-axes": ("patches: {size: [16, 16]}", ("patches.size",)),
    "patch-odd": ("patches: {size: [15, 32, 32]}", ("patches.size", "even")),
    "patch-zero": ("patches: {size: [0, 32, 32]}", ("patches.size",)),
    "overlap-of-one": ("patches: {overlap: 1.0}", ("patches.overlap",)),
    "one-fold": ("splits: {folds: 1}", ("splits.folds",)),
    "more-folds-than-cases": ("splits: {folds: 9}", ("9 folds need at least 9 cases; there are 4",)),
    "patients-absent": ("splits: {patients: nowhere.csv}", ("nowhere.csv", "does not exist")),
    "unknown-loss": ("comparison: {losses: [dise]}", ("dise", "did you mean 'dice'")),
    "no-losses": ("comparison: {losses: []}", ("comparison.losses",)),
    "loss-without-name": ("comparison: {losses: [{gamma: 2}]}", ("name", "gamma")),
    "loss-of-an-unknown-parameter": (
        "comparison: {losses: [{name: focal, gama: 2}]}", ("gama", "did you mean 'gamma'"),
    ),
    "loss-of-a-wrong-value": ("comparison: {losses: [{name: tversky, delta: 3}]}", ("delta", "3")),
    "loss-twice": ("comparison: {losses: [dice, dice]}", ("'dice' is listed twice",)),
    "seed-negative": ("comparison: {seeds: [-1]}", ("comparison.seeds",)),
    "seeds-twice": ("comparison: {seeds: [1, 1]}", ("comparison.seeds",)),
    "unknown-class": ("comparison: {primary_class: liver}", ("liver", "kidney, tumour")),
    "device-unknown": ("execution: {device: abacus}", ("execution.device", "abacus")),
    "no-runs-at-a-time": ("execution: {parallel: 0}", ("execution.parallel",)),
    "network-unknown": ("network: {name: nets.Net}", ("network.name", "nets.Net")),
    "exclude-as-option": ("data: {layout: kits19, options: {exclude: [a]}}", ("data.exclude",)),
    "unknown-option": ("data: {layout: kits19, options: {colour: red}}", ("colour",)),
    "everything-excluded": (
        "data: {layout: kits19, exclude: [case_00000, case_00001, case_00002, case_00003]}", ("no case of", "is left"),
    ),
    "name-with-a-slash": ("name: a/b", ("name", "slash")),
    "mirror-axis-3": ("augmentation: {mirror_axes: [3]}", ("augmentation.mirror_axes",)),
    "range-reversed": ("augmentation: {gamma: [2, 1]}", ("augmentation.gamma",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(phantom, tmp_path, capsys, name):
    content, words = CONFIGURATIONS[name]
    file, study = tmp_path / "mine.yaml", tmp_path / "study"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = [] if "folds" in str(content) else ["--splits.folds", "2"]
    given += [] if "layout" in str(content) else ["--data.layout", "kits19"]
    refused(capsys, words, ["run", file, "--data", phantom, "--study", study, *given], study)


def test_there_are_more_than_eighty():
    assert len(FILES) + len(FOLDERS) + len(CONFIGURATIONS) > 80
