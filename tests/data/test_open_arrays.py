"""Files of prepared arrays stay open, since patches are cut from them at every step; there are not too many of them."""

import multiprocessing
import os
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from voxloss.data.formats.geometry import Geometry
from voxloss.data.patches import Place, read_batch
from voxloss.data.prepare import case as module
from voxloss.data.prepare.case import PreparedCase
from voxloss.utilities import machine

SHAPE = (4, 5, 6)
GEOMETRY = Geometry(SHAPE, (1.0, 1.0, 1.0), ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)))


def written(folder: Path, number: int) -> PreparedCase:
    path = folder / f"case-{number}"
    path.mkdir()
    np.save(path / "image.npy", np.full((2, *SHAPE), number, np.float32))
    np.save(path / "label.npy", np.asfortranarray(np.full(SHAPE, number % 200, np.uint8)))
    return PreparedCase(f"case-{number}", path, SHAPE, GEOMETRY)


@pytest.fixture
def few_open(monkeypatch) -> None:
    monkeypatch.setattr(module, "_opened_array", lru_cache(maxsize=6)(module._OpenArray))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def patches_are_right(cases: list[PreparedCase]) -> bool:
    for number, _ in enumerate(cases):
        images, labels = read_batch(cases, [Place(number, (1, 1, 1))], (2, 2, 2))
        if not ((images == number).all() and (labels == number % 200).all()):
            return False
    return True


def test_a_file_is_opened_once_for_many_patches(tmp_path):
    cases, opened = [written(tmp_path, number) for number in range(3)], []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(tmp_path) in str(arguments[0]):
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(watch)
    for _ in range(5):
        assert patches_are_right(cases)
    watching = False
    assert sorted(opened) == ["image.npy"] * 3 + ["label.npy"] * 3


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list open files")
def test_the_number_of_open_files_is_bounded(tmp_path, few_open):
    cases = [written(tmp_path, number) for number in range(50)]
    before, maps = open_files(), [case.image for case in cases[:3]]
    for _ in range(2):
        assert patches_are_right(cases)
    assert open_files() <= before + 6 + len(maps)
    assert [float(image.mean()) for image in maps] == [0, 1, 2]  # of files that were closed meanwhile


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork")
def test_forked_processes_share_the_open_files(tmp_path, few_open):
    cases = [written(tmp_path, number) for number in range(8)]
    assert patches_are_right(cases)
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            os._exit(0 if all(patches_are_right(cases) for _ in range(20)) else 1)
        children.append(child)
    assert patches_are_right(cases)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_files_that_do_not_hold_numbers_are_refused(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        module._OpenArray(path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="magic"):
        module._OpenArray(path)


def test_the_limit_is_that_of_the_system():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, limits[1]))
        assert machine.most_open_files() == 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert 0 < machine.most_open_files() <= 8192
