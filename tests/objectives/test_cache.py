import os
import time
from pathlib import Path

import pytest

from objectives.cache import DAY_S, cache_parts, mark_used, prune


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with parts that are 1, 3 and 10 days old, and with a file and a folder of somebody else's."""
    written = {
        "bank-0a1b/layer.safetensors": (700, 10.5),
        "bank-0a1b/.layer-abcd_123.safetensors": (50, 3.5),
        "bank-2c3d/layer.safetensors": (300, 1.5),
        "sensitivity-4e5f.npz": (40, 3.5),
        ".sensitivity-4e5f-abcd_123.npz": (20, 10.5),
        "bank-account/notes.txt": (9, 10.5),
        ".hidden-abcd_123.npz": (9, 10.5),
    }
    for name, (size, days) in written.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        for changed in {path, path.parent} - {tmp_path}:
            set_age(changed, days)
    set_age(tmp_path / "bank-0a1b", 10.5)
    return tmp_path


def set_age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY_S,) * 2)


def test_parts_have_kind_size_and_last_use(cache: Path) -> None:
    listed = {str(part.path.relative_to(cache)): (part.kind, part.size_bytes) for part in cache_parts(cache)}
    assert listed == {
        "bank-2c3d": ("codes", 300),
        "bank-0a1b/.layer-abcd_123.safetensors": ("leftover", 50),
        "sensitivity-4e5f.npz": ("sensitivities", 40),
        ".sensitivity-4e5f-abcd_123.npz": ("leftover", 20),
        "bank-0a1b": ("codes", 700),
    }
    ages = [(time.time() - part.used_s) / DAY_S for part in cache_parts(cache)]
    assert ages == pytest.approx([1.5, 3.5, 3.5, 10.5, 10.5], abs=0.01)


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert cache_parts(tmp_path / "none") == prune(tmp_path / "none", 1) == []


def test_pruning_removes_what_is_old_and_nothing_of_anybody_elses(cache: Path) -> None:
    assert {part.path.name for part in prune(cache, 5)} == {"bank-0a1b", ".sensitivity-4e5f-abcd_123.npz"}
    left = {path.name for path in cache.iterdir()}
    assert left == {"bank-2c3d", "sensitivity-4e5f.npz", "bank-account", ".hidden-abcd_123.npz"}


def test_pruning_removes_an_unfinished_file_before_its_bank(cache: Path) -> None:
    mark_used(cache / "bank-0a1b")
    assert {part.kind for part in prune(cache, 2)} == {"leftover", "sensitivities"}
    assert [path.name for path in (cache / "bank-0a1b").iterdir()] == ["layer.safetensors"]


def test_what_was_used_is_kept(cache: Path) -> None:
    mark_used(cache / "bank-0a1b")
    mark_used(cache / "never-made")
    prune(cache, 5)
    assert (cache / "bank-0a1b" / "layer.safetensors").exists()


def test_less_than_a_day_could_take_files_from_a_writer(cache: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        prune(cache, 0.5)
