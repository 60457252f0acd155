from pathlib import Path

import pytest

from objectives.files import replacing, replacing_directory, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("cut off")
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(RuntimeError), replacing_directory(path) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError("cut off")
    assert list(tmp_path.iterdir()) == []
    with replacing_directory(path) as temporary:
        (temporary / "whole").write_text("x")
    assert (path / "whole").read_text() == "x"
    with pytest.raises(FileExistsError), replacing_directory(path):
        pass
