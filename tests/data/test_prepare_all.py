"""Cases prepared together: the same files, within the memory, and one sentence for a fault."""

import threading
import time

import pytest

from voxloss.data.layouts import load_dataset
from voxloss.data.phantom.write import write_phantom
from voxloss.data.prepare import cases as prepare_all
from voxloss.data.prepare.case import Preparation, prepare_case
from voxloss.utilities.errors import InputError

PREPARATION = Preparation((-79, 304), (8.0, 8.0, 8.0), "zscore")


@pytest.fixture
def data(tmp_path):
    write_phantom(tmp_path / "data", cases=5, seed=0, setting="small")
    return load_dataset("kits19", tmp_path / "data")


def test_together_they_are_what_each_is_alone(data, tmp_path):
    seen = []
    together = prepare_all.prepare_cases(
        data.cases, data, PREPARATION, tmp_path / "together", workers=3, progress=lambda *args: seen.append(args)
    )
    assert [case.case_id for case in together] == [case.case_id for case in data.cases]
    for case, prepared in zip(data.cases, together, strict=True):
        alone = prepare_case(case, data, PREPARATION, tmp_path / "alone")
        assert alone.folder.name == prepared.folder.name
        for file in sorted(alone.folder.glob("*.npy")):
            assert file.read_bytes() == (prepared.folder / file.name).read_bytes()
    assert [finished for finished, _, _ in seen] == [1, 2, 3, 4, 5]
    assert {what for _, _, what in seen} == {f"prepared {case.case_id}" for case in data.cases}


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "expected"), [(250, 2), (99, 1), (None, 4)])
def test_no_more_at_a_time_than_the_memory_holds(data, tmp_path, monkeypatch, limit, expected):
    """Cases of 100 bytes each; one that is larger than the limit goes alone."""
    at_work, most, lock = 0, 0, threading.Lock()

    def slow(case, *_):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.05)
        with lock:
            at_work -= 1

    monkeypatch.setattr(prepare_all, "prepare_case", slow)
    monkeypatch.setattr(prepare_all, "memory_needed", lambda *_: 100)
    prepare_all.prepare_cases(data.cases, data, PREPARATION, tmp_path, workers=4, memory=limit)
    assert most == expected


def test_the_first_fault_in_order_is_the_one_told(data, tmp_path):
    for number in (1, 3):
        data.cases[number].images[0].write_bytes(b"damaged")
    with pytest.raises(InputError, match="case_00001"):
        prepare_all.prepare_cases(data.cases, data, PREPARATION, tmp_path / "prepared", workers=2)
    assert not list((tmp_path / "prepared").glob(".partial-*"))
    assert not list((tmp_path / "prepared").glob("case_00001*"))


def test_memory_needed_grows_with_the_volume_and_is_none_for_a_damaged_file(data):
    case = data.cases[0]
    needed = prepare_all.memory_needed(case, PREPARATION)
    assert needed > prepare_all.FIXED_BYTES + 6 * 28 * 64 * 64
    case.images[0].write_bytes(b"damaged")
    assert prepare_all.memory_needed(case, PREPARATION) == 0
