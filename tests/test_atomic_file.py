from pathlib import Path

import pytest

from benchctl.atomic_file import replacing


def test_whole_or_absent(tmp_path: Path):
    target = tmp_path / "file"
    with replacing(target) as file:
        file.write(b"first")
    assert target.read_bytes() == b"first"
    with pytest.raises(TypeError), replacing(target) as file:
        file.write(b"sec" + None)
    assert target.read_bytes() == b"first"
    assert [p.name for p in target.parent.iterdir()] == ["file"], "no temporary file is left"


def test_what_cannot_be_replaced_stays_as_it_was(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "folder") as file:
        file.write(b"content")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "file") as file:
        file.write(b"content")
