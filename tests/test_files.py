"""Files appear whole or not at all."""

import errno
import json
from pathlib import Path

import pytest

from voxloss.utilities import files
from voxloss.utilities.files import atomic_folder, atomic_path, read_whole, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_appears_only_at_the_end_and_is_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "a.nii.gz"
    with atomic_path(path) as partial:
        assert partial.name.endswith(".nii.gz")
        partial.write_bytes(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"
    assert path.stat().st_mode & 0o044


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "f"
    for content in ("first", "second"):
        with atomic_folder(folder) as partial:
            (partial / content).write_text(content)
    assert [file.name for file in folder.iterdir()] == ["second"]
    with pytest.raises(RuntimeError), atomic_folder(folder) as partial:
        (partial / "third").write_text("third")
        raise RuntimeError
    assert [file.name for file in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {"name": "Ç"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Ç"}


@pytest.mark.parametrize("writing", [atomic_path, atomic_folder])
def test_an_error_names_what_was_asked_for(tmp_path, writing):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught, writing(tmp_path / "file" / "x"):
        pass
    assert ".partial" not in str(caught.value)
    if Path("/proc").is_dir():
        with pytest.raises(OSError) as caught, writing(Path("/proc/x")):
            pass
        assert caught.value.filename == "/proc/x"


def test_a_file_that_was_just_replaced_is_read_again_where_its_length_is_remembered(tmp_path, monkeypatch):
    """As sshfs does: the new content is cut off at the length of the old one until that is forgotten."""
    path, looks = tmp_path / "status.json", []
    write_json(path, {"state": "running", "epoch": 10})

    def remembered(self: Path, **options: object) -> str:
        looks.append(self)
        text = read_text(self, **options)
        return text[:20] if len(looks) < 3 else text

    read_text = Path.read_text
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    monkeypatch.setattr(files, "file_system", lambda _: "fuse.sshfs")
    monkeypatch.setattr(Path, "read_text", remembered)
    assert read_whole(path, json.loads)["epoch"] == 10
    assert len(looks) == 3


def test_a_file_that_is_gone_from_the_server_is_opened_again(tmp_path, monkeypatch):
    path, read_text, answers = tmp_path / "status.json", Path.read_text, [True]
    write_json(path, {})

    def gone(self: Path, **options: object) -> str:
        if answers and answers.pop():
            raise OSError(errno.ESTALE, "Stale file handle")
        return read_text(self, **options)

    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    monkeypatch.setattr(Path, "read_text", gone)
    assert read_whole(path, json.loads) == {}


def test_a_damaged_file_is_read_once_on_a_disk_and_for_a_while_on_fuse(tmp_path, monkeypatch):
    path, slept, now = tmp_path / "status.json", [], [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    path.write_text("{")
    monkeypatch.setattr(files.time, "sleep", sleep)
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    for system, seconds in (("ext4", 0), ("nfs4", 0), ("fuse", 30)):
        slept.clear()
        monkeypatch.setattr(files, "file_system", lambda _, system=system: system)
        with pytest.raises(ValueError, match="Expecting"):
            read_whole(path, json.loads)
        assert sum(slept) == seconds
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none", json.loads)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").is_file(), reason="the system does not list its file systems")
def test_the_type_of_a_file_system():
    assert files.file_system(Path("/proc/self")) == "proc"
    assert files.file_system(Path("/none")) == ""
