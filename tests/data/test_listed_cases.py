"""CSV tables, data lists of MONAI, and folds that data come with: what they list, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from nifti_files import write_nifti

from voxloss.config.schema import SplitsConfig, StudyConfig
from voxloss.data.case import read_image
from voxloss.data.dataset import Dataset, dataset_from_json, dataset_to_json, require_complete
from voxloss.data.folds import OwnFolds, own_assignment
from voxloss.data.layouts import detect_layout, load_dataset
from voxloss.study.settle import assigned_folds, known_patients
from voxloss.utilities.errors import InputError

SHAPE = (3, 4, 5)
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images x/a_t1, x/a_t2 and masks y/a of four cases; the values tell case and channel."""
    folder = tmp_path / "data with späce"
    for number, name in enumerate(NAMES):
        for channel, part in enumerate(("t1", "t2")):
            write_nifti(folder / "x" / f"{name}_{part}.nii.gz", np.full(SHAPE, 10 * number + channel, np.int16))
        mask = np.zeros(SHAPE, np.uint8)
        mask.flat[number] = 1
        write_nifti(folder / "y" / f"{name}.nii.gz", mask)
    return folder


def table(root: Path, *lines: str, encoding: str = "utf-8", name: str = "cases.csv") -> Path:
    path = root / name
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


def rows(head: str, row: str) -> list[str]:
    """A table with the row of each case: N its name, I its number."""
    return [head, *(row.replace("N", name).replace("I", str(number)) for number, name in enumerate(NAMES))]


def assert_read(dataset: Dataset, channels: tuple[int, ...] = (0,)) -> None:
    require_complete(dataset)
    assert [case.case_id for case in dataset.cases] == list(NAMES)
    for number, case in enumerate(dataset.cases):
        assert read_image(case)[0][:, 0, 0, 0].tolist() == [10 * number + channel for channel in channels]


# Tables


@pytest.mark.parametrize(
    ("head", "row", "channels"),
    [
        ("image,mask", "x/N_t1.nii.gz,y/N.nii.gz", (0,)),
        ("Image , MASK", " x/N_t1.nii.gz , y/N.nii.gz ", (0,)),
        ("image,label,notes", "x/N_t1.nii.gz,y/N.nii.gz,see N", (0,)),
        ("image;mask", "x/N_t1.nii.gz;y/N.nii.gz", (0,)),
        ("image\tmask", "x/N_t1.nii.gz\ty/N.nii.gz", (0,)),
        ('"image","mask"', '"x/N_t1.nii.gz","y/N.nii.gz"', (0,)),
        ("image,mask", "x/N_t1.nii.gz;x/N_t2.nii.gz,y/N.nii.gz", (0, 1)),
        ("image;mask", '"x/N_t1.nii.gz;x/N_t2.nii.gz";y/N.nii.gz', (0, 1)),
        ("image_1,image_0,mask", "x/N_t1.nii.gz,x/N_t2.nii.gz,y/N.nii.gz", (1, 0)),
        ("case,image,mask", "N,x\\N_t1.nii.gz,y\\N.nii.gz", (0,)),
        ("case,image,mask", "N,.\\x\\N_t1.nii.gz,.\\y/N.nii.gz", (0,)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_however_a_spreadsheet_writes_it(root, head, row, channels, encoding):
    path = table(root, *rows(head, row), "", encoding=encoding)
    assert detect_layout(root) == detect_layout(path) == "csv"
    assert_read(load_dataset("auto", root), channels)
    assert load_dataset("auto", path).name == "cases"


def test_a_table_elsewhere_has_absolute_paths_or_a_base(root, tmp_path):
    other = table(tmp_path, *rows("image,mask", "x/N_t1.nii.gz,y/N.nii.gz"))
    assert_read(load_dataset("auto", other, base=str(root)))
    assert_read(load_dataset("csv", other, base=root.name))
    with pytest.raises(InputError, match=r"no file of .*cases\.csv exists, the first is .*x/a_t1\.nii\.gz; paths are"):
        load_dataset("auto", other)
    absolute = rows("image,mask", f"{str(root).replace('N', '?')}/x/N_t1.nii.gz,{root}/y/N.nii.gz")
    assert_read(load_dataset("auto", table(tmp_path, *absolute)))
    assert_read(load_dataset("auto", table(tmp_path, "sep=,", *absolute)))


def test_other_tables_beside_images_change_nothing(root):
    table(root, "case,volume", "a,3", name="volumes.csv")
    (root / "x").rename(root / "images")
    (root / "y").rename(root / "masks")
    for path in (root / "images").glob("*_t2*"):
        path.unlink()
    assert detect_layout(root) == "folder"
    table(root, *rows("image,mask", "images/N_t1.nii.gz,masks/N.nii.gz"))
    assert detect_layout(root) == "csv"
    table(root, *rows("image,mask", "images/N_t1.nii.gz,masks/N.nii.gz"), name="again.csv")
    with pytest.raises(InputError, match=r"holds several tables .*\(again\.csv, cases\.csv\); give one as the data"):
        load_dataset("auto", root)
    with pytest.raises(InputError, match=r"has no columns image and mask: its first row, .*, is case, volume"):
        load_dataset("csv", root / "volumes.csv")


def test_a_table_tells_folds_and_patients(root):
    table(root, *rows("image,mask,patient,fold", "x/N_t1.nii.gz,y/N.nii.gz,pN,I"))
    dataset = load_dataset("auto", root)
    assert dataset.own_folds == OwnFolds("cases.csv", (("a",), ("b",), ("c",), ("d",)))
    assert dataset.patients == {}  # each patient has one scan
    assert "4 folds from cases.csv, which a study uses unless splits.from_data is false" in dataset.notes
    assert assigned_folds(StudyConfig(), dataset, {}) == [["a"], ["b"], ["c"], ["d"]]
    at_random = StudyConfig(splits=SplitsConfig(folds=2, from_data=False))
    assert sorted(map(len, assigned_folds(at_random, dataset, {}))) == [2, 2]
    table(root, "image,mask,patient,fold",
          "x/a_t1.nii.gz,y/a.nii.gz,p,3.0", "x/b_t1.nii.gz,y/b.nii.gz,p,3",
          "x/c_t1.nii.gz,y/c.nii.gz,q,1", "x/d_t1.nii.gz,y/d.nii.gz,r,1")  # fmt: skip
    dataset = load_dataset("auto", root, exclude=["d"])
    assert dataset.patients == {"a": "p", "b": "p", "c": "q"}
    assert known_patients(StudyConfig(), dataset) == dataset.patients
    assert dataset.notes[0] == "the folds 1, 3 of cases.csv are the folds 0 to 1 of a study, in this order"
    assert assigned_folds(StudyConfig(), dataset, dataset.patients) == [["c"], ["a", "b"]]
    assert dataset_from_json(json.loads(json.dumps(dataset_to_json(dataset)))) == dataset


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["image,mask", ",y/a.nii.gz"], r"row 2: the image is empty"),
        (["image,mask", "x/a_t1.nii.gz,y/a.nii.gz", "x/b_t1.nii.gz,y/a.nii.gz"], "row 3: the case a is in row 2"),
        (["case,image,mask", "s,x/a_t1.nii.gz,y/a.nii.gz", "s,x/b_t1.nii.gz,y/b.nii.gz"], "row 3: the case s is"),
        (["image,mask,fold", "x/a_t1.nii.gz,y/a.nii.gz,one"], "row 2: the fold should be a whole number, but is 'one'"),
        (["image,mask,fold", "x/a_t1.nii.gz,y/a.nii.gz,1.5"], "row 2: the fold should be a whole number, but is '1.5'"),
        (["image,mask,fold", "x/a_t1.nii.gz,y/a.nii.gz,0", "x/b_t1.nii.gz,y/b.nii.gz,"], "row 3: the fold is empty"),
        (["image,mask,patient", "x/a_t1.nii.gz,y/a.nii.gz,p", "x/b_t1.nii.gz,y/b.nii.gz,"], "the patient is empty"),
        (["image,mask", "x/a_t1.nii.gz,y/a.nii.gz,more"], "row 2: 3 cells for 2 columns; put a cell that holds ','"),
        (["image,image,mask", "x/a_t1.nii.gz,x/a_t2.nii.gz,y/a.nii.gz"], "has the column image more than once"),
        (["image,image_0,mask", "x/a_t1.nii.gz,x/a_t2.nii.gz,y/a.nii.gz"], "image and image_0 are both filled"),
        (["image_0,image_1,mask", "x/a_t1.nii.gz,,y/a.nii.gz"], "row 2: image_1 is empty"),
        (["case,image,mask", "..,x/a_t1.nii.gz,y/a.nii.gz"], r"row 2: '\.\.' cannot be a case's id"),
        (["image,mask"], "has no rows below its columns"),
        (["image,mask", "x/a_t1.nii.gz,"], "no case of .* is left: all 1 are dropped"),
        (["image,mask,region", "x/a_t1.nii.gz,y/a.nii.gz,y/a.nii.gz", "x/b_t1.nii.gz,y/b.nii.gz,"],
         "case b has no region"),
    ],
)  # fmt: skip
def test_a_table_at_fault_is_named_with_its_row(root, lines, told):
    table(root, *lines)
    with pytest.raises(InputError, match=told):
        load_dataset("auto", root)


def test_a_file_that_a_table_names_and_nobody_has_is_found_before_training(root):
    table(root, *rows("image,mask", "x/N_t1.nii.gz,y/N.nii.gz"))
    (root / "x" / "c_t1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"x/c_t1\.nii\.gz does not exist"):
        require_complete(load_dataset("auto", root))
    (root / "cases.csv").write_bytes(b"image,mask\n\xff\xfe\xfd,x")
    with pytest.raises(InputError, match="not readable as text"):
        load_dataset("csv", root / "cases.csv")


# Data lists


def data_list(root: Path, content: object, name: str = "list.json", encoding: str = "utf-8") -> Path:
    (root / name).write_text(json.dumps(content), encoding=encoding)
    return root / name


def entries(image: object = "x/N_t1.nii.gz", **more: object) -> list[dict[str, object]]:
    text = json.dumps({"image": image, "label": "y/N.nii.gz", **more})
    return [json.loads(text.replace("N", name)) for name in NAMES]


def test_a_data_list_is_read_with_its_folds(root, tmp_path):
    path = data_list(root, {"training": entries(["x/N_t1.nii.gz", "x/N_t2.nii.gz"])}, encoding="utf-8-sig")
    assert detect_layout(root) == detect_layout(path) == "monai"
    assert_read(load_dataset("auto", root), (0, 1))
    training = entries()
    for number, entry in enumerate(training):
        entry["fold"] = number % 2
    data_list(root, {"training": training, "testing": [{"image": "x/z.nii.gz"}]})
    dataset = load_dataset("auto", path)
    assert [case.case_id for case in dataset.cases] == [f"{name}_t1" for name in NAMES]
    assert dataset.own_folds == OwnFolds("list.json", (("a_t1", "c_t1"), ("b_t1", "d_t1")))
    other = data_list(tmp_path, {"training": entries(), "validation": []})
    assert len(load_dataset("auto", other, base=str(root)).cases) == 4


def test_a_data_list_names_its_classes(root):
    data_list(root, {"training": entries(), "labels": {"0": "background", "1": "spleen"}})
    assert load_dataset("auto", root).classes == ("background", "spleen")
    data_list(root, {"training": entries(), "labels": 3})
    with pytest.raises(InputError, match=r"list\.json should have an object as labels"):
        load_dataset("auto", root)


def test_a_validation_list_is_told(root):
    data_list(root, {"training": entries()[:3], "validation": entries()[3:]})
    dataset = load_dataset("auto", root)
    assert len(dataset.cases) == 4
    assert dataset.notes == ('1 entry of the list "validation" are cases like the others: a study has folds',)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"training": [*entries()[:1], {"image": 3}]}, "training, entry 1: image should be a path or a list"),
        ({"training": [*entries()[:1], 3]}, "training, entry 1: image should be"),
        ({"training": [*entries()[:1], {"image": []}]}, "training, entry 1: image should be"),
        ({"training": [{"image": "x/a_t1.nii.gz", "label": 3}]}, "entry 0: label should be a path, but is 3"),
        ({"training": entries(fold="1")}, "entry 0: fold should be a whole number, but is '1'"),
        ({"training": [*entries(fold=0)[:2], *entries()[2:]]}, "the case c_t1 has no fold, but others have"),
        ({"training": entries()[:1] * 2}, "training, entry 1: the case x_a_t1 is in training, entry 0 already"),
        ({"training": entries(), "validation": 3}, "validation"),
    ],
)
def test_a_data_list_at_fault_is_named(root, content, told):
    data_list(root, content)
    with pytest.raises(InputError, match=told):
        load_dataset("auto", root)


# Folds


def test_own_folds_are_those_of_the_study():
    own = OwnFolds("splits_final.json", (("a", "x"), ("b", "c")), (("c", "b"), ("a", "x")))
    assert own_assignment(own, ["a", "b", "c"], ["x"]) == [["a"], ["b", "c"]]
    assert own_assignment(own, ["c", "b", "a", "x"]) == [["a", "x"], ["b", "c"]]


@pytest.mark.parametrize(
    ("validation", "training", "told"),
    [
        ([["a"], ["b"]], None, "has the case c in no fold"),
        ([["a"], ["b", "c", "z"]], None, "names z in fold 1, but there is no such case"),
        ([["a", "b"], ["b", "c"]], None, "has the case b in fold 0 and again in 1"),
        ([["a", "a"], ["b", "c"]], None, "has the case a in fold 0 and again in 0"),
        ([["a", "b", "c"]], None, "has one fold, but a study needs at least two"),
        ([["a", "b", "c"], ["x"]], None, "has no case that is used in fold 1"),
        ([["a"], ["b", "c"]], [["a", "b", "c"], ["a"]], "has the case a in training and validation of fold 0"),
        ([["a"], ["b", "c"]], [["b", "c"], ["a", "z"]], "names z in fold 1, but there is no such case"),
        ([["a"], ["b", "c"]], [["b"], ["a"]], "does not train on the case c in fold 0"),
    ],
)
def test_own_folds_at_fault_are_refused_with_the_way_out(validation, training, told):
    own = OwnFolds("s.json", tuple(map(tuple, validation)), None if training is None else tuple(map(tuple, training)))
    with pytest.raises(InputError, match=rf"s\.json {told}.*splits\.from_data false"):
        own_assignment(own, ["a", "b", "c"], ["x"])


def test_a_patient_in_two_own_folds_is_refused():
    own = OwnFolds("cases.csv", (("a", "b"), ("c",)))
    with pytest.raises(
        InputError, match="has b in fold 0 and c in fold 1, but both are of the patient p, who would be"
    ):
        own_assignment(own, ["a", "b", "c"], patients={"a": "q", "b": "p", "c": "p"})


# nnU-Net's files of folds


def nnunet(root: Path, splits: object, name: str = "splits_final.json") -> Path:
    for case in NAMES:
        (root / "imagesTr").mkdir(exist_ok=True)
        (root / "x" / f"{case}_t1.nii.gz").rename(root / "imagesTr" / f"{case}_0000.nii.gz")
    (root / "y").rename(root / "labelsTr")
    (root / name).write_text(json.dumps(splits))
    return root


def test_splits_final_json_is_used(root):
    folds = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
    dataset = load_dataset("auto", nnunet(root, folds))
    assert assigned_folds(StudyConfig(), dataset, {}) == [["a", "b"], ["c", "d"]]
    assert "2 folds from splits_final.json, which a study uses unless splits.from_data is false" in dataset.notes
    assert assigned_folds(StudyConfig(), load_dataset("auto", root, exclude=["a"]), {}) == [["b"], ["c", "d"]]
    (root / "splits_final.json").rename(root / "mine.json")
    assert load_dataset("auto", root).own_folds is None
    assert load_dataset("auto", root, splits="mine.json").own_folds is not None
    for wrong, told in (("gone.json", "gone.json does not exist"), ("mine.pkl", "is a pickle, .* it is not read")):
        with pytest.raises(InputError, match=told):
            load_dataset("auto", root, splits=wrong)


@pytest.mark.parametrize("content", [{}, [], [3], [{"train": ["a"]}], [{"train": "ab", "val": ["c"]}], 3])
def test_a_file_of_folds_at_fault_is_named(root, content):
    with pytest.raises(InputError, match=r"splits_final\.json should list folds"):
        load_dataset("auto", nnunet(root, content))


def test_a_pickle_of_folds_is_never_read(root):
    nnunet(root, [], "other.json")
    (root / "splits_final.pkl").write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")
    dataset = load_dataset("auto", root)
    assert dataset.own_folds is None
    assert "splits_final.pkl is a pickle, which can run a program as it is read, so it is not read" in dataset.notes[0]
    assert not Path("pickled").exists()


def test_entries_of_one_name_are_named_by_their_folders(root):
    training = [
        {"image": f"cohort/{name}/ct.nii.gz", "label": f"cohort/{name}/seg.nii.gz", "fold": number % 2}
        for number, name in enumerate(("p1", "p2", "p3_b", "p4"))
    ]
    dataset = load_dataset("monai", data_list(root, {"training": training}), classes={"a": 1})
    assert [case.case_id for case in dataset.cases] == ["p1", "p2", "p3_b", "p4"]
    assert dataset.own_folds == OwnFolds("list.json", (("p1", "p3_b"), ("p2", "p4")))
    path = data_list(root, {"training": [training[0], training[1], training[0]]})
    with pytest.raises(InputError, match=r"training, entry 2: the case p1 is in training, entry 0 already"):
        load_dataset("monai", path, classes={"a": 1})


def test_masks_of_one_name_need_a_column_of_cases(root):
    (root / "cases.csv").write_text("image,mask\np1/ct.nii,p1/seg.nii\np2/ct.nii,p2/seg.nii\n")
    with pytest.raises(InputError, match="row 3: the case seg is in row 2 already; name the cases in a column case"):
        load_dataset("csv", root / "cases.csv")


def test_a_missing_image_is_named_with_the_ending_of_the_others(tmp_path):
    for name in ("imagesTr/a_0000.png", "labelsTr/a.png", "labelsTr/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "x": 1}, "file_ending": ".png"}')
    cases = {case.case_id: case.images for case in load_dataset("nnunet", tmp_path).cases}
    assert cases["b"] == (tmp_path / "imagesTr" / "b.png",)
