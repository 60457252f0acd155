import errno
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from objectives.cache import DAY_S, cache_directory, cache_parts, mark_used, prune, writable_cache
from objectives.errors import InputError
from objectives.problem import load_problem


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BITFRONT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_where_the_variable_says_also_with_a_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BITFRONT_CACHE", "~/cache")
    assert cache_directory() == tmp_path / "cache"
    assert (tmp_path / "cache").is_dir()


def test_without_a_home_directory_there_is_one_error_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(InputError, match="there is no home directory; set BITFRONT_CACHE"):
        load_problem("./nothing", "./nothing", quantizer="calibrated")
    with pytest.raises(InputError, match="there is no such directory"):  # needs no cache
        load_problem("./nothing", "./nothing", quantizer="affine")


def test_a_home_directory_that_cannot_be_written_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nothing")  # as HOME=/ of a user without rights; tests may run as root
    with pytest.raises(InputError, match=r"/proc/nothing/\S+: cannot be written \(.+\); set BITFRONT_CACHE"):
        load_problem("./nothing", "./nothing", quantizer="calibrated")


def test_a_cache_that_was_filled_elsewhere_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_directory() == tmp_path
    with pytest.raises(InputError, match="Permission denied"):
        writable_cache(tmp_path)


def test_a_cache_below_a_folder_that_cannot_be_read_is_an_error_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below, stat, mkdir = tmp_path / "private" / "cache", os.stat, os.mkdir

    def refuse(path: object) -> None:
        if path in (below, str(below)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def refusing_stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        refuse(path)
        return stat(path, *arguments, **options)

    def refusing_mkdir(path: Any, *arguments: Any, **options: Any) -> None:
        refuse(path)
        mkdir(path, *arguments, **options)

    monkeypatch.setenv("BITFRONT_CACHE", str(below))
    monkeypatch.setattr(os, "stat", refusing_stat)  # tests may run as root, who may read all
    monkeypatch.setattr(os, "mkdir", refusing_mkdir)
    with pytest.raises(InputError, match=r"private/cache: cannot be written \(Permission denied\); set BITFRONT_CACHE"):
        cache_directory()


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
