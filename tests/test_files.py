"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from voxloss.utilities.files import atomic_folder, atomic_path, write_json, write_text


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
