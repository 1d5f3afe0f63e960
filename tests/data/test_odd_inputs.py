"""Odd inputs that people report of other tools: each is read, or said in a sentence that tells what happened to it."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nifti_files import box, write_nifti
from PIL import Image

from study_helpers import call
from voxloss.data.case import Case
from voxloss.data.check.check import check
from voxloss.data.check.findings import Finding, grouped_lines
from voxloss.data.dataset import Dataset
from voxloss.data.formats import open_image
from voxloss.data.layouts import load_dataset
from voxloss.utilities.errors import InputError

SHAPE = (6, 5, 4)
IMAGE = np.arange(120, dtype=np.float32).reshape(SHAPE) - 50.5
MASK = box(SHAPE, (1, 1, 1), (2, 2, 2))
DESCRIPTION = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}


def folder(root: Path, cases: int = 3, mask: np.ndarray = MASK, affine: np.ndarray | None = None) -> Path:
    """Images and masks c0, c1, ... of one grid, each image another."""
    for number in range(cases):
        write_nifti(root / f"images/c{number}.nii.gz", IMAGE + number, affine)
        write_nifti(root / f"masks/c{number}.nii.gz", mask, affine)
    return root


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_dataset("auto", root)
    return str(refused.value)


def findings(root: Path, **options: object) -> list[Finding]:
    return list(check(load_dataset("auto", root), **options).findings)


def messages(root: Path) -> list[str]:
    return [finding.message for finding in findings(root)]


# What is missing


def test_check_lists_what_is_missing_and_what_is_damaged_at_once(tmp_path):
    root = folder(tmp_path, 12)
    for number in (0, 2, 4, 6, 8):
        (root / f"masks/c{number}.nii.gz").unlink()
    (root / "images/c1.nii.gz").unlink()
    (root / "masks/c3.nii.gz").write_bytes(b"")
    write_nifti(root / "masks/c5.nii.gz", MASK[1:])
    result = call("check", root, "--output", tmp_path / "page")
    assert result.returncode == 2 and "5 other cases with a fault" in result.stderr
    for told in ("c3.nii.gz is empty: c3", "5 × 5 × 4 but c5.nii.gz", "c1.nii.gz has no image of the same name"):
        assert told in result.stdout
    (unpaired,) = [line for line in result.stdout.splitlines() if "has no mask of the same name" in line]
    assert "images/c0.nii.gz" in unpaired and unpaired.endswith("4 more like it: 4 cases (c2, c4, c6, c8)")
    assert "folds need" not in result.stdout
    page = json.loads((tmp_path / "page/check.json").read_text())
    assert sum("no mask of the same name" in one["message"] for one in page["findings"]) == 5
    again = call("check", root, "--splits.folds", "3")
    assert again.returncode == 2 and "c3.nii.gz is empty: c3" in again.stdout


def test_many_messages_of_one_kind_are_one_line():
    several = [
        Finding("error", f"p-{name}", f"x/p-{name}.nii has {number} values") for number, name in enumerate("abcdefgh")
    ]
    assert grouped_lines(several[:3]) == [f"{one.message}: {one.case_id}" for one in several[:3]]
    assert grouped_lines([*several, Finding("error", "p-b", "no image"), Finding("error", "", "no class")]) == [
        "x/p-a.nii has 0 values: p-a; 7 more like it: 7 cases (p-b, p-c, p-d, p-e, p-f and 2 more)",
        "no image: p-b",
        "no class",
    ]


def annexed(path: Path) -> None:
    path.unlink()
    path.symlink_to("../.git/annex/objects/x")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "annex": (annexed, "is a link to ../.git/annex/objects/x, which does not exist; `datalad get` or"),
    "circle": (link_to_itself, "is a link that leads back to itself"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"), "`git lfs pull`"),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html><html>sign in</html>"), "is a web page or XML instead of"),
    "plain": (lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), "not compressed; name it c1.nii)"),
    "twice": (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "it is compressed twice"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:40]), "data are damaged or cut short"),
    "end": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "data are damaged or cut short"),
    "text": (lambda path: path.write_text("This is no image.\n" * 40), "c1.nii.gz is not a NIfTI file"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_is_something_else_is_said_to_be_that(tmp_path, name):
    spoil, told = SPOILT[name]
    spoil(folder(tmp_path) / "images/c1.nii.gz")
    (message,) = [finding.message for finding in findings(tmp_path) if finding.case_id == "c1"]
    assert told in message and message.count(str(tmp_path)) == 1


def test_a_compressed_file_without_its_ending(tmp_path):
    path = shutil.move(folder(tmp_path) / "images/c1.nii.gz", tmp_path / "c1.nii")
    with pytest.raises(InputError, match=r"it is compressed; name it c1\.nii\.gz"):
        open_image(Path(path))


def test_a_folder_that_is_a_broken_link_is_named(tmp_path):
    shutil.rmtree(folder(tmp_path) / "masks")
    (tmp_path / "masks").symlink_to("/nowhere")
    assert "masks is a link to /nowhere, which does not exist. It holds" in refusal(tmp_path)


def test_files_of_other_formats_are_said_where_no_image_is_read(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for ending in ("hdr", "img"):
            (tmp_path / part / f"a.{ending}").touch()
    assert "2 files in" in refusal(tmp_path) and "1 × .hdr, 1 × .img" in refusal(tmp_path)


# Values


@pytest.mark.parametrize("factor", [0.99, np.nan])
def test_all_masks_at_fault_are_counted(tmp_path, factor):
    assert refusal(folder(tmp_path, 5, MASK * np.float32(factor))).endswith(
        "the values of a mask are whole; 4 other masks with a fault: c1.nii.gz, c2.nii.gz, c3.nii.gz, …"
    )


def test_masks_out_of_range_are_counted_and_an_empty_one_does_not_hide_a_fault(tmp_path):
    root = folder(tmp_path / "a", 4)
    for number in (1, 2):
        write_nifti(root / f"masks/c{number}.nii.gz", MASK.astype(np.int16) * -number)
    said = refusal(root)
    assert "c1.nii.gz holds the value -1; " in said and said.endswith("1 other mask with a fault: c2.nii.gz")
    root = folder(tmp_path / "b", 2, MASK * 0)
    (root / "masks/c1.nii.gz").write_bytes(b"")
    assert refusal(root).endswith("c1.nii.gz is empty")


def test_a_header_that_scales_a_mask_is_said(tmp_path):
    path = folder(tmp_path) / "masks/c1.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = np.array([0.25, 0], "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    assert any(
        "value 0.25 (the header multiplies stored values by 0.25 and adds 0)" in one for one in messages(tmp_path)
    )


def test_masks_with_a_channel_for_each_class_get_a_way_out(tmp_path):
    said = messages(folder(tmp_path, 2, np.stack([1 - MASK, MASK], -1)))
    assert "one volume with a value for each class" in said[0]


def test_a_mask_without_background_gets_a_way_out(tmp_path):
    assert any(
        "no mask has the value 0" in one and "{background: [0, 1]" in one
        for one in messages(folder(tmp_path, 2, MASK + 1))
    )


def test_1_and_255_in_different_masks_are_warned_of(tmp_path):
    root = folder(tmp_path)
    write_nifti(root / "masks/c1.nii.gz", MASK * 255)
    (told,) = [finding for finding in findings(root) if finding.severity == "warning"]
    assert told.message.endswith("--data.options '{classes: {structure: [1, 255]}}'")
    both = MASK * 255
    both[0, 0, 0] = 1
    write_nifti(root / "masks/c1.nii.gz", both)
    assert not [finding for finding in findings(root) if finding.severity == "warning"]


def test_blurred_masks_are_warned_of(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(2):
        grey = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / f"images/c{number}.png")
        mask = Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 10))
        mask.rotate(30, Image.Resampling.BILINEAR).save(tmp_path / f"masks/c{number}.png")
    assert any("were they resized with interpolation, or saved with loss?" in one for one in messages(tmp_path))


def test_a_class_of_one_fold_is_warned_of_as_run_does(tmp_path):
    root = folder(tmp_path, 4)
    write_nifti(root / "masks/c1.nii.gz", MASK * 2)
    told = [one.message for one in findings(root, folds=[["c0"], ["c1", "c2"], ["c3"]]) if one.severity == "warning"]
    assert told == [
        "fold 1 trains without class 2: none of its 2 training cases has the class, so its networks cannot learn it"
    ]
    assert not [one for one in findings(root) if one.severity == "warning"]


# Names and grids


def test_ids_that_no_folder_can_have_or_that_differ_in_capitals(tmp_path):
    with pytest.raises(InputError, match=r"has 220 bytes, and .* shorten the names of its files"):
        Case("ü" * 110, (), None)
    with pytest.raises(InputError, match="rename its files"):
        Case("a\nb", (), None)
    root = folder(tmp_path, 1)
    for part in ("images", "masks"):
        write_nifti(root / part / "C0.nii.gz", MASK if part == "masks" else IMAGE * 2)
    assert any("in capitals alone" in one for one in messages(root))


def test_one_mask_file_of_two_cases_is_warned_of(tmp_path):
    one, two = folder(tmp_path, 2).glob("images/*")
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tmp_path / "masks/c0.nii.gz")
    cases = (Case("a", (one,), tmp_path / "masks/c0.nii.gz"), Case("b", (two,), link))
    cases = (*cases, Case("c", (two,), two))
    report = check(Dataset("d", cases, ("background", "x"), {0: 0, 1: 1}))
    assert Finding("error", "c", f"{two} is both an image and the mask") in report.findings
    assert Finding("warning", "b", "the same mask file as a") in report.findings


def test_axes_in_one_plane_are_no_volume(tmp_path):
    flat = np.eye(4)
    flat[:3, 2] = flat[:3, 0]
    with pytest.raises(InputError, match="axes that lie in one plane"):
        _ = open_image(write_nifti(tmp_path / "a.nii", IMAGE, flat, codes=(0, 1))).geometry


def test_a_mask_that_is_stored_the_other_way_round_is_said_to_be(tmp_path):
    root = folder(tmp_path, 1)
    write_nifti(root / "masks/c0.nii.gz", MASK, np.diag([-1.0, -1, 1, 1]))
    assert any("(their axes are stored as LPS and RAS)" in one for one in messages(root))


# Lists


def nnunet(root: Path, text: bytes) -> Path:
    for number in range(2):
        write_nifti(root / f"imagesTr/c{number}_0000.nii.gz", IMAGE + number)
        write_nifti(root / f"labelsTr/c{number}.nii.gz", MASK)
    (root / "dataset.json").write_bytes(text)
    return root


def test_encodings_of_a_description(tmp_path):
    text = json.dumps(DESCRIPTION | {"name": "Nérv"}, ensure_ascii=False)
    assert load_dataset("auto", nnunet(tmp_path, text.encode("utf-16"))).name == "Nérv"
    assert "not readable as text in UTF-8" in refusal(nnunet(tmp_path, text.encode("latin-1")))
    for broken in (text[:-1] + ",}", text.replace('"tumour": 1}', '"tumour": 1,\n }')):
        assert refusal(nnunet(tmp_path, broken.encode())).endswith("; remove the comma before the closing bracket")
    assert "comma" not in refusal(nnunet(tmp_path, text[:-1].encode()))
    twice = text.replace('"tumour": 1', '"tumour": 1, "tumour": 2')
    assert refusal(nnunet(tmp_path, twice.encode())).endswith("not readable JSON (the name 'tumour' is given twice)")


def test_a_description_that_counts_other_files(tmp_path):
    content = DESCRIPTION | {"numTraining": 9, "channel_names": {"0": "CT", "1": "PET"}}
    said = messages(nnunet(tmp_path, json.dumps(content).encode()))
    assert "dataset.json counts 9 training cases (numTraining), but 2 are there" in said
    assert "dataset.json names 2 channels, but every case has 1" in said
    right = DESCRIPTION | {"numTraining": 2}
    assert not [one for one in messages(nnunet(tmp_path, json.dumps(right).encode())) if "dataset.json" in one]


@pytest.mark.parametrize(
    ("text", "said"), [("a.nii,b.nii\n", "a.nii, b.nii"), ("id;scan\n1;2", "id, scan"), ("", "empty")]
)
def test_a_table_without_its_columns_says_what_it_has_in_their_place(tmp_path, text, said):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    assert f"{path} has no columns image and mask: its first row" in refusal(path)
    assert refusal(path).endswith(f"is {said}")


def test_a_table_in_another_encoding_or_without_rows_is_named(tmp_path):
    folder(tmp_path / "x")
    table = tmp_path / "t.csv"
    table.write_bytes("case,image,mask\né,x/images/c0.nii.gz,x/masks/c0.nii.gz\n".encode("latin-1"))
    assert refusal(tmp_path).startswith(f"{table} is not readable as text in UTF-8")
    table.write_text("case,image,mask\n")
    assert refusal(tmp_path) == f"{table} has no rows below its columns"
