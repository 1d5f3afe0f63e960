"""Read which cases are scans of one patient from a table."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from voxloss.utilities.errors import InputError


def read_patients(path: Path) -> dict[str, str]:
    """Read a CSV file with the columns `case` and `patient`: case id -> patient.

    Raises:
        InputError: No such file, no such columns, or a case that is listed with two patients.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"case", "patient"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{path} needs the columns case and patient; it has {', '.join(reader.fieldnames or ())}"
                )
            rows = [((row["case"] or "").strip(), (row["patient"] or "").strip()) for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not readable as CSV ({error})") from error
    patients: dict[str, str] = {}
    for number, (case, patient) in enumerate(rows, start=2):
        if not case or not patient:
            raise InputError(f"{path}, row {number}: the {'patient' if case else 'case'} is empty")
        if patients.setdefault(case, patient) != patient:
            raise InputError(
                f"{path}, row {number}: case {case} has patient {patient} here, but {patients[case]} above"
            )
    return patients


def require_known(patients: Mapping[str, str], cases: Iterable[str]) -> None:
    """Raise InputError naming the first case without a patient, unless `patients` is empty."""
    missing = [case for case in cases if case not in patients]
    if patients and missing:
        raise InputError(f"case {missing[0]} has no patient in the table of patients ({len(missing)} such cases)")


def by_patient(ids: Iterable[str], patients: Mapping[str, str]) -> list[list[str]]:
    """Return sorted ids in groups of one patient, ordered by the first id; a case without a patient is a group."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case_id in sorted(ids):
        groups[("patient", patients[case_id]) if case_id in patients else ("case", case_id)].append(case_id)
    return list(groups.values())
