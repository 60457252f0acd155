import os
import pwd
from pathlib import Path

import pytest

from objectives.cache import cache_directory, writable_cache
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
