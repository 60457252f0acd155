import os
import time
from pathlib import Path

import pytest

from tests.search.conftest import Command


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path))
    for name in ("bank-0a1b", "bank-2c3d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layer.safetensors").write_bytes(bytes(1_500_000))
    ten_days_ago = time.time() - 10 * 86_400
    for path in (tmp_path / "bank-0a1b" / "layer.safetensors", tmp_path / "bank-0a1b"):
        os.utime(path, (ten_days_ago, ten_days_ago))
    return tmp_path


def test_cache_is_listed_with_sizes(bitfront: Command, cache: Path) -> None:
    spoken = bitfront("cache")
    assert spoken.status == 0
    newest, oldest, total = spoken.out.splitlines()
    assert newest.startswith("    1.5 MB  20")
    assert newest.endswith("  codes          bank-2c3d")
    assert oldest.endswith("bank-0a1b")
    assert total == f"{cache}: 3 MB in all"


def test_cache_is_pruned_by_age(bitfront: Command, cache: Path) -> None:
    spoken = bitfront("cache", "--prune", 7)
    assert [line.split()[-1] for line in spoken.out.splitlines()] == ["bank-0a1b", "removed"]
    assert [path.name for path in cache.iterdir()] == ["bank-2c3d"]


def test_cache_is_never_pruned_by_less_than_a_day(bitfront: Command, cache: Path) -> None:
    assert bitfront("cache", "--prune", 0).status == 2
    assert len(list(cache.iterdir())) == 2
