"""Scans of one patient stay together."""

import pytest

from voxloss.data.folds import assign_folds, split_of
from voxloss.data.patients import by_patient, read_patients
from voxloss.utilities.errors import InputError

PATIENTS = {f"c{number:02}": f"p{number // 3}" for number in range(24)}  # three scans each


def test_folds_keep_patients_together_and_are_even():
    folds = assign_folds(list(PATIENTS), 4, 0, PATIENTS)
    assert sorted(case for fold in folds for case in fold) == sorted(PATIENTS)
    assert [len(fold) for fold in folds] == [6] * 4
    assert all(len({number for number, fold in enumerate(folds) for case in fold if PATIENTS[case] == patient}) == 1
               for patient in PATIENTS.values())  # fmt: skip
    assert folds != assign_folds(list(PATIENTS), 4, 1, PATIENTS)
    with pytest.raises(InputError, match="9 folds need at least 9 patients; there are 8"):
        assign_folds(list(PATIENTS), 9, 0, PATIENTS)


def test_setting_cases_aside_keeps_patients_together():
    folds = assign_folds(list(PATIENTS), 4, 0, PATIENTS)
    split = split_of(folds, 1, 0, 0.2, PATIENTS)
    assert len(split.inner) == 6  # four asked for
    parts = [{PATIENTS[case] for case in part} for part in (split.training, split.inner, split.validation)]
    assert sum(map(len, parts)) == 8 == len(set.union(*parts))


def test_cases_without_a_patient_are_alone():
    assert by_patient(["b", "a", "c"], {"a": "x", "c": "x"}) == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("case,person\n", "needs the columns case and patient; it has case, person"),
        ("", "needs the columns case and patient"),
        ("case,patient\na,1\na,2\n", "row 3: case a has patient 2 here, but 1 above"),
        ("case,patient\na,\n", "row 2: the patient is empty"),
        ("case,patient\n,1\n", "row 2: the case is empty"),
        (None, "does not exist"),
        (b"\xff\xfe\x00", "not readable as CSV"),
    ],
)
def test_tables_that_are_refused(tmp_path, content, words):
    path = tmp_path / "patients.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        read_patients(path)


def test_a_table_is_read(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_bytes("\ufeffpatient,age,case\r\nP 1,60,a\r\nP 1,61, b \r\n".encode())
    assert read_patients(path) == {"a": "P 1", "b": "P 1"}
