from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from objectives.files import replacing, replacing_directory, write_text
from objectives.tensor_files import save_tensors


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


def test_tensors_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def full(tensors: object, where: object, metadata: object) -> None:
        Path(str(where)).write_bytes(before[:20])
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("objectives.tensor_files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
