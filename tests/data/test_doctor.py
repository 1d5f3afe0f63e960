"""The check of a data set: every fault is found, in the right case, and reads well."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import KITS_AFFINE, PIXDIM_AT, SROW_X_AT, box, patch_header, write_nifti

from voxloss.data.case import Case
from voxloss.data.check.check import ClassFingerprint, Finding, Patch, Report, Spread, check, format_report
from voxloss.data.check.rules import same_images
from voxloss.data.dataset import Dataset
from voxloss.data.formats import nifti
from voxloss.data.grid import with_common_grid
from voxloss.data.layouts import load_dataset

SHAPE = (4, 10, 10)
CLASSES = ("background", "kidney", "tumour")


def healthy(root: Path, number: int = 6, shape: tuple[int, ...] = SHAPE) -> Dataset:
    """Cases of different noise, with 24 kidney and 2 tumour voxels each, 3 × 0.7 × 0.7 mm."""
    cases = []
    for index in range(number):
        label = box(shape, (1, 2, 2), (2, 3, 4))
        label[1, 2, 2:4] = 2
        noise = np.random.default_rng(index).integers(-100, 300, shape).astype(np.int16)
        image = write_nifti(root / f"c{index}" / "image.nii", noise, KITS_AFFINE)
        cases.append(Case(f"c{index}", (image,), write_nifti(root / f"c{index}" / "mask.nii", label, KITS_AFFINE)))
    return Dataset("test", tuple(cases), CLASSES, {0: 0, 1: 1, 2: 2})


def found(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.case_id, finding.message) for finding in check(dataset).findings]


def mask_of(dataset: Dataset, index: int) -> Path:
    label = dataset.cases[index].label
    assert label is not None
    return label


def test_a_healthy_data_set_has_no_findings_and_its_fingerprint(tmp_path):
    report = check(healthy(tmp_path))
    assert report.findings == ()
    assert report.ok
    assert (report.cases, report.masks_read) == (6, 6)
    assert report.shape == tuple(Spread(size, size, size) for size in SHAPE)
    assert [spread.median for spread in report.spacing_mm] == pytest.approx([3, 0.7, 0.7])
    kidney, tumour = report.classes[1:]
    assert (kidney.name, kidney.cases) == ("kidney", 6)
    assert kidney.voxel_fraction.median == pytest.approx(22 / 400)
    assert kidney.volume_ml.high == pytest.approx(22 * 3 * 0.49 / 1000)
    assert tumour.voxel_fraction.low == pytest.approx(2 / 400)
    assert kidney.components == tumour.components == Spread(1, 1, 1)
    assert kidney.patches_without == 0  # patches larger than the volume
    assert report.records[2].case_id == "c2"
    assert report.records[2].components == (0, 1, 1)
    assert report.records[2].volume_ml[2] == pytest.approx(2 * 3 * 0.49 / 1000)


def test_the_fingerprint_spreads_over_the_cases_that_have_the_class(tmp_path):
    dataset = healthy(tmp_path, 3)
    write_nifti(mask_of(dataset, 0), box(SHAPE, (0, 0, 0), (1, 2, 5)), KITS_AFFINE)
    write_nifti(mask_of(dataset, 1), box(SHAPE, (0, 0, 0), (2, 5, 10), 2), KITS_AFFINE)
    report = check(dataset)
    assert report.classes[2].cases == 2
    assert report.classes[2].voxel_fraction == Spread(pytest.approx(51 / 400), pytest.approx(2 / 400), 0.25)
    assert ("note", "c0", "no tumour in the mask") in found(dataset)
    assert ("note", "c1", "no kidney in the mask") in found(dataset)


def test_missing_and_damaged_files(tmp_path):
    dataset = healthy(tmp_path)
    dataset.cases[0].images[0].unlink()
    mask_of(dataset, 1).unlink()
    mask_of(dataset, 2).write_bytes(b"damaged" * 100)
    content = dataset.cases[3].images[0].read_bytes()
    dataset.cases[3].images[0].write_bytes(content[:500])
    findings = found(dataset)
    assert [finding[:2] for finding in findings] == [("error", f"c{index}") for index in range(4)]
    assert findings[0][2] == f"{dataset.cases[0].images[0]} does not exist"
    assert findings[1][2] == f"{mask_of(dataset, 1)} does not exist"
    assert "mask.nii" in findings[2][2]
    assert "image.nii is cut short" in findings[3][2]
    assert check(dataset).masks_read == 4
    assert not check(dataset).ok


def test_a_case_without_files_by_declaration(tmp_path):
    dataset = Dataset("test", (Case("a", (), None),), CLASSES, {0: 0})
    assert found(dataset) == [("error", "a", "no image"), ("error", "a", "no mask")]
    assert "1 case, 0 masks read" in format_report(check(dataset))


def test_missing_channels_are_numbered(tmp_path):
    dataset = healthy(tmp_path, 1)
    case = dataset.cases[0]
    several = Case("c0", (case.images[0], tmp_path / "gone.nii"), case.label)
    assert found(Dataset("test", (several,), CLASSES, dataset.label_values)) == [
        ("error", "c0", f"{tmp_path / 'gone.nii'} does not exist (image 2 of 2)")
    ]


def test_image_and_mask_that_do_not_lie_together(tmp_path):
    dataset = healthy(tmp_path)
    write_nifti(mask_of(dataset, 0), np.ones((4, 10, 9), np.uint8), KITS_AFFINE)
    moved = KITS_AFFINE.copy()
    moved[0, 3] = 0.5
    write_nifti(mask_of(dataset, 1), box(SHAPE, (1, 1, 1), (2, 2, 2), 2), moved)
    moved[0, 3] = 0.0005
    write_nifti(mask_of(dataset, 2), box(SHAPE, (1, 1, 1), (2, 2, 2), 2) + box(SHAPE, (0, 0, 0), (1, 1, 1)), moved)
    errors = [finding for finding in found(dataset) if finding[0] == "error"]
    assert [case_id for _, case_id, _ in errors] == ["c0", "c1"]
    assert "shape 4 × 10 × 9 but image.nii of the same case has 4 × 10 × 10" in errors[0][2]
    assert "differ by up to 0.5 mm" in errors[1][2]


def test_values_at_fault(tmp_path):
    dataset = healthy(tmp_path)
    odd = box(SHAPE, (1, 1, 1), (2, 2, 2), 2)
    odd[0, 0] = 7
    odd[0, 1, 1] = 1
    write_nifti(mask_of(dataset, 0), odd, KITS_AFFINE)
    half = box(SHAPE, (1, 1, 1), (2, 2, 2)).astype(np.float32) / 2
    write_nifti(mask_of(dataset, 1), half, KITS_AFFINE)
    values = np.zeros(SHAPE, np.float32)
    values[0, 0, :3] = np.nan
    write_nifti(dataset.cases[2].images[0], values, KITS_AFFINE)
    hinted = Dataset("test", dataset.cases, CLASSES, dataset.label_values, value_hints={7: "seven is for bones"})
    findings = found(hinted)
    errors = [finding for finding in findings if finding[0] == "error"]
    assert errors[0] == ("error", "c0", "undeclared value 7 in the mask (declared are 0, 1, 2): seven is for bones")
    assert errors[1][1] == "c1"
    assert "holds the value 0.5" in errors[1][2]
    assert errors[2][1] == "c2"
    assert "3 values that are not finite" in errors[2][2]
    assert ("note", "c1", "mask stored as float32, read as whole values") in findings


def test_empty_masks_and_classes_that_no_case_has(tmp_path):
    dataset = healthy(tmp_path, 2)
    write_nifti(mask_of(dataset, 0), np.zeros(SHAPE, np.uint8), KITS_AFFINE)
    write_nifti(mask_of(dataset, 1), box(SHAPE, (1, 1, 1), (1, 1, 1)), KITS_AFFINE)
    assert found(dataset) == [
        (
            "error",
            "",
            "no case has the class tumour; name only classes that the masks have (data.options.classes)",
        ),
        ("warning", "c0", "empty mask: nothing but background"),
        ("note", "c1", "no tumour in the mask"),
    ]


@pytest.mark.parametrize("sizes", [(0.0, 1, 1), (-3.0, 0.7, 0.7), (np.nan, 1, 1)])
def test_voxel_sizes_that_cannot_be(tmp_path, sizes):
    dataset = healthy(tmp_path)
    patch_header(dataset.cases[1].images[0], PIXDIM_AT + 4, sizes)
    findings = found(dataset)
    assert [finding[:2] for finding in findings] == [("warning", "c1")]  # the sform still tells the size
    assert "voxel sizes of" in findings[0][2]


def test_voxel_sizes_that_cannot_be_and_nothing_else_to_go_by(tmp_path):
    dataset = healthy(tmp_path, 1)
    image = write_nifti(dataset.cases[0].images[0], np.random.default_rng(0).normal(size=SHAPE), codes=(0, 0))
    write_nifti(mask_of(dataset, 0), box(SHAPE, (1, 2, 2), (2, 3, 4)), codes=(0, 0))
    patch_header(image, PIXDIM_AT + 4, (0.0, 1, 1))
    assert ("error", "c0", "voxel sizes of 0 × 1 × 1 mm in the header of image.nii") in found(dataset)
    assert ("note", "c0", "neither qform nor sform is set, so where left and right are is not known") in found(dataset)


def test_an_affine_without_size_is_an_error(tmp_path):
    dataset = healthy(tmp_path)
    for path in (dataset.cases[0].images[0], mask_of(dataset, 0)):
        patch_header(path, SROW_X_AT, (0, 0, 0, 0))
        patch_header(path, SROW_X_AT + 16, (0, 0, 0, 0))
    errors = [finding for finding in found(dataset) if finding[0] == "error"]
    assert [case_id for _, case_id, _ in errors] == ["c0", "c0"]
    assert "every side should be positive" in errors[0][2]


def test_header_and_affine_of_different_sizes(tmp_path):
    dataset = healthy(tmp_path)
    patch_header(dataset.cases[1].images[0], PIXDIM_AT + 4, (5.0, 0.7, 0.7))
    ((severity, case_id, message),) = found(dataset)
    assert (severity, case_id) == ("warning", "c1")
    assert message == "image.nii gives voxel sizes of 5 × 0.7 × 0.7 mm, its affine 3 × 0.7 × 0.7, which are used"


def test_patches_without_a_class_are_counted_on_the_grid_that_the_study_would_train_on(tmp_path):
    """The tumour is in slice 1 of 4; patches of one slice of 3 mm, or of 6 mm, which are two."""
    dataset = healthy(tmp_path)
    single = check(dataset, patch=Patch((1, 10, 10))).classes[2].patches_without
    assert single == pytest.approx(3 / 4, abs=0.1)
    double = check(dataset, patch=Patch((1, 10, 10), (6.0, 0.7, 0.7))).classes[2].patches_without
    assert double == pytest.approx(1 / 3, abs=0.1)
    write_nifti(mask_of(dataset, 0), np.zeros(SHAPE, np.uint8), KITS_AFFINE)
    assert check(dataset).classes[2].patches_without == pytest.approx(1 / 6)  # a case without it has none anywhere


def test_axes_that_are_not_at_right_angles(tmp_path):
    dataset = healthy(tmp_path)
    sheared = KITS_AFFINE.copy()
    sheared[:3, 0] += 0.2 * sheared[:3, 1]
    for path in (*dataset.cases[1].images, mask_of(dataset, 1)):
        write_nifti(path, np.random.default_rng(9).integers(0, 3, SHAPE).astype(np.int16), sheared)
    findings = found(dataset)
    assert ("warning", "c1") in [finding[:2] for finding in findings]
    assert any("meet at 87" in message for _, case, message in findings if case == "c1"), findings


def test_scans_of_one_patient_in_different_folds(tmp_path):
    dataset = healthy(tmp_path)
    patients = {f"c{index}": f"p{index % 5}" for index in range(6)}  # c0 and c5 are of p0
    folds = [["c0", "c1", "c2"], ["c3", "c4", "c5"]]
    apart = check(dataset, patients=patients, folds=folds).findings
    assert [finding.severity for finding in apart] == ["warning"]
    assert apart[0].message.startswith("2 scans of patient p0 (c0, c5) are in different folds; name the table in")
    together = check(dataset, patients=patients, folds=[["c0", "c5"], ["c1", "c2", "c3", "c4"]]).findings
    assert [(finding.severity, finding.message) for finding in together] == [("note", "2 scans of patient p0 (c0, c5)")]
    del patients["c3"]
    assert ("error", "c3", "not in the table of patients") in [
        (finding.severity, finding.case_id, finding.message) for finding in check(dataset, patients=patients).findings
    ]


def test_a_case_unlike_the_others(tmp_path):
    dataset = healthy(tmp_path)
    wide = np.random.default_rng(9).normal(size=(4, 10, 15)).astype(np.float32)
    label = box(wide.shape, (0, 0, 0), (2, 2, 2))
    label[0, 0, 0] = 2
    upright = np.diag([3.0, 0.7, 0.7, 1])
    write_nifti(dataset.cases[2].images[0], wide, upright)
    write_nifti(mask_of(dataset, 2), label, upright)
    assert found(dataset) == [
        ("warning", "c2", "axes stored as RAS, where 5 of 6 cases are stored as IPL; each stays as it is stored"),
        ("note", "c2", "15 voxels along axis 2, where nearly all others have 10"),
    ]


def test_sizes_that_vary_are_no_finding(tmp_path):
    cases = []
    for index in range(6):
        one = healthy(tmp_path / str(index), 1, (4 + index, 10, 10 + index)).cases[0]
        image = write_nifti(
            one.images[0], np.random.default_rng(index).normal(size=(4 + index, 10, 10 + index)), KITS_AFFINE
        )
        cases.append(Case(f"c{index}", (image,), one.label))
    assert found(Dataset("test", tuple(cases), CLASSES, {0: 0, 1: 1, 2: 2})) == []


def test_the_same_image_twice_a_constant_one_and_other_channels(tmp_path):
    dataset = healthy(tmp_path)
    paths = [case.images[0] for case in dataset.cases]
    paths[4].write_bytes(paths[1].read_bytes())
    write_nifti(paths[0], np.full(SHAPE, 5, np.int16), KITS_AFFINE)
    write_nifti(paths[2], np.random.default_rng(9).normal(size=(*SHAPE, 2)), KITS_AFFINE)
    assert found(dataset) == [
        ("error", "c2", "2 channels, where most cases have 1"),
        ("warning", "c0", f"{paths[0]} has the same value 5 everywhere"),
        ("warning", "c4", "the same image as c1: it may be in both training and test"),
    ]


def test_progress_counts_the_cases(tmp_path):
    seen = []
    check(healthy(tmp_path, 3), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_printed_report():
    report = Report(
        dataset="kits19",
        cases=7,
        masks_read=6,
        findings=(
            *(Finding("error", f"case_{number:05d}", "no image") for number in range(7)),
            Finding("error", "", "no case has the class cyst"),
            Finding("note", "case_00003", "no tumour in the mask"),
        ),
        classes=(
            ClassFingerprint(
                "tumour", 5, Spread(0.000528, 0.0000048, 0.0551), Spread(12.34, 0.05, 1464.4), Spread(1, 1, 4), 0.875
            ),
            ClassFingerprint("cyst", 0, *[Spread(*[float("nan")] * 3)] * 3, float("nan")),
        ),
        shape=(Spread(100, 29, 1059), Spread(512, 512, 512), Spread(512, 512, 796)),
        spacing_mm=(Spread(3, 0.5, 5), Spread(0.78, 0.4375, 0.977), Spread(0.78, 0.4375, 0.977)),
        dropped=(("case_00015", "excluded by the settings"), ("case_00023", "excluded by the settings")),
        patch=(80, 160, 160),
        patch_spacing_mm=(3.22, 1.62, 1.62),
        records=(),
    )
    assert format_report(report) == (
        "kits19: 7 cases, 6 masks read\n"
        "  shape    29–1059 × 512 × 512–796 voxels\n"
        "  spacing  0.5–5 × 0.438–0.977 × 0.438–0.977 mm\n"
        "\n"
        "  class   cases  % of voxels               ml                   pieces      % of patches without\n"
        "  tumour  5      0.0528 (0.00048 to 5.51)  12.3 (0.05 to 1464)  1 (1 to 4)  87.5\n"
        "  cyst    0      -                         -                    -           -\n"
        "  median (range) over the cases that have the class; "
        "patches of 80 × 160 × 160 voxels of 3.22 × 1.62 × 1.62 mm\n"
        "\n"
        "not used\n"
        "  excluded by the settings: 2 cases (case_00015, case_00023)\n"
        "\n"
        "errors\n"
        "  no image: 7 cases (case_00000, case_00001, case_00002, case_00003, case_00004 and 2 more)\n"
        "  no case has the class cyst\n"
        "\n"
        "notes\n"
        "  no tumour in the mask: case_00003\n"
        "\n"
        "2 errors, 0 warnings, 1 note: fix the errors first\n"
    )


def test_the_mask_of_brats_case_355_has_a_name_of_its_own(tmp_path):
    case = tmp_path / "BraTS20_Training_355"
    for name in ("t1", "t1ce", "t2", "flair"):
        noise = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
        write_nifti(case / f"BraTS20_Training_355_{name}.nii.gz", noise, KITS_AFFINE)
    write_nifti(case / "W39_1998.09.19_Segm.nii", box(SHAPE, (1, 2, 2), (2, 3, 4), 4), KITS_AFFINE)
    findings = found(load_dataset("brats20", tmp_path))
    expected = "W39_1998.09.19_Segm.nii, the only other file, is read as the mask"
    assert ("note", "BraTS20_Training_355", expected) in findings


# Real data


@pytest.mark.slow
def test_the_real_kits_masks(real_data):
    report = check(load_dataset("kits19", real_data / "kits_masks"))
    by_message: dict[str, list[str]] = {}
    for finding in report.findings:
        by_message.setdefault(finding.message, []).append(finding.case_id)
    missing = [message for message in by_message if message.endswith("imaging.nii.gz does not exist")]
    assert len(missing) == 24 and all(len(by_message.pop(message)) == 1 for message in missing)
    assert by_message.pop("excluded by the paper: concern over ground truth quality") == [
        f"case_{number:05d}" for number in (15, 23, 37, 68)
    ]
    assert by_message.pop("796 voxels along axis 2, where nearly all others have 512") == ["case_00160"]
    assert len(by_message.pop("mask stored as uint16, read as whole values")) == 5
    assert not by_message
    counts = {}
    for line in (real_data / "kits_masks" / "cases.csv").read_text().splitlines()[1:]:
        fields = line.split(",")
        counts[fields[0]] = (float(fields[12]), float(fields[10]))
    tumour = report.classes[2]
    assert tumour.cases == 24
    assert tumour.voxel_fraction.low == pytest.approx(min(value for value, _ in counts.values()), rel=1e-2)
    assert tumour.voxel_fraction.high == pytest.approx(max(value for value, _ in counts.values()), rel=1e-2)
    assert tumour.volume_ml.median == pytest.approx(np.median([value for _, value in counts.values()]), rel=1e-3)


@pytest.mark.slow
def test_the_other_real_data_sets(tmp_path, real_data):
    report = check(load_dataset("brats20", real_data / "brats", modalities=("t1ce", "flair")))
    assert report.findings == ()
    report = check(load_dataset("auto", real_data / "hippocampus"))
    assert [(finding.severity, finding.case_id) for finding in report.findings] == [("note", "hippocampus_003")]
    assert report.dropped == (("hippocampus_118", "no mask"),)
    for part, ending in (("images", "image"), ("masks", "label")):
        (tmp_path / part).mkdir()
        for name in ("brain1", "brain2", "breast1"):
            (tmp_path / part / f"{name}.nii.gz").symlink_to(real_data / "tumour_rois" / f"{name}_{ending}.nii.gz")
    report = check(load_dataset("folder", tmp_path, classes={"tumour": 1}))
    assert report.ok
    assert 0.0002 < report.classes[1].voxel_fraction.low < report.classes[1].voxel_fraction.high < 0.003


# Rules that `check` shares with `plan` and `run`


def test_other_axes_are_warned_of_and_turned(tmp_path):
    dataset = healthy(tmp_path)
    upright = np.diag([0.7, 0.7, 3.0, 1])
    label = box((10, 10, 4), (2, 2, 1), (4, 3, 2))
    label[2, 2, 1] = 2
    write_nifti(dataset.cases[4].images[0], np.random.default_rng(9).normal(size=(10, 10, 4)), upright)
    write_nifti(mask_of(dataset, 4), label, upright)
    report = check(with_common_grid(dataset))
    assert [(finding.severity, finding.case_id, finding.message) for finding in report.findings] == [
        ("warning", "c4", "axes stored as RAS, which are turned to the study's IPL")
    ]
    assert report.shape == tuple(Spread(size, size, size) for size in SHAPE)
    assert [spread.high for spread in report.spacing_mm] == pytest.approx([3, 0.7, 0.7])


def test_the_same_image_in_different_folds_is_an_error(tmp_path):
    dataset = healthy(tmp_path)
    image = nibabel.load(dataset.cases[1].images[0])
    again = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)  # another type and header
    again.to_filename(dataset.cases[4].images[0])
    assert same_images(dataset.cases) == [("c4", "c1")]
    (apart,) = check(dataset, folds=[["c0", "c1", "c2"], ["c3", "c4", "c5"]]).findings
    assert (apart.severity, apart.case_id) == ("error", "c4")
    assert apart.message.startswith("the same image as c1, so it would be in both training and test")
    (together,) = check(dataset, folds=[["c0", "c1", "c4"], ["c2", "c3", "c5"]]).findings
    assert (together.severity, together.message) == ("warning", "the same image as c1, so it counts twice")


def test_images_with_the_same_beginning_are_compared_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "CHUNK_VALUES", 50)
    dataset = healthy(tmp_path, 4)
    values = np.zeros(SHAPE, np.int16)
    values[1:] = np.random.default_rng(0).integers(0, 99, (3, 10, 10))
    for index, last in enumerate((1, 2, 1, 3)):
        values[-1, -1, -1] = last
        write_nifti(dataset.cases[index].images[0], values, KITS_AFFINE)
    assert same_images(dataset.cases) == [("c2", "c0")]
    dataset.cases[2].images[0].write_bytes(b"damaged")
    assert same_images(dataset.cases) == []


def test_matrices_that_disagree_and_odd_units_are_noted(tmp_path):
    dataset = healthy(tmp_path, 3)
    for path in (dataset.cases[0].images[0], mask_of(dataset, 0)):
        image = nibabel.load(path)
        moved = image.affine.copy()
        moved[2, 3] += 5
        image = nibabel.Nifti1Image(np.asarray(image.dataobj).copy(), image.affine, image.header)
        image.set_qform(moved, 1)
        image.to_filename(path)
    for path in (dataset.cases[1].images[0], mask_of(dataset, 1)):
        write_nifti(path, np.asarray(nibabel.load(path).dataobj).copy(), 1000 * KITS_AFFINE, header={"xyzt_units": 3})
    for path in (dataset.cases[2].images[0], mask_of(dataset, 2)):
        write_nifti(path, np.asarray(nibabel.load(path).dataobj).copy(), KITS_AFFINE, header={"xyzt_units": 1})
    assert found(dataset) == [
        ("warning", "c2", "image.nii has voxels of 3000 × 700 × 700 mm; are unit and sizes in its header right?"),
        ("note", "c0", "qform and sform differ by up to 5 mm; the sform is used"),
        ("note", "c1", "the header's unit is the micrometre, which is converted to mm"),
        ("note", "c2", "the header's unit is the metre, which is converted to mm"),
    ]
