from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from search.cli.app import app
from search.cli.options import SET_BY_PROFILES, expands_home
from search.run.profile import PROFILES, SETTINGS, flag_of, off_flag_of
from tests.search.conftest import Command
from tests.shared import ROOT


def sections(text: str) -> dict[str, str]:
    """Return what a help says under each heading, in one line."""
    _, *parts = re.split(r"╭─ (.+?) ─+╮", text)
    plain = (" ".join(re.sub("[│╰╯─]", " ", body).split()) for body in parts[1::2])
    return dict(zip(parts[::2], plain, strict=True))


def test_help_groups_the_settings_and_shows_what_the_model_says(
    bitfront: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = sections(bitfront("search", "--help").out)
    assert set(shown) == {"Options", *(schema["group"] for schema in SETTINGS.values())}
    for name, schema in SETTINGS.items():
        _, _, text = shown[schema["group"]].partition(f"{flag_of(name)} ")
        text = text.removeprefix(f"{off_flag_of(name)} ")  # of a setting that is on or off
        kinds = {"string": "<str>", "array": "<str>", "integer": "<int>", "number": "<float>", "boolean": "<bool>"}
        kind = "|".join(schema.get("enum", ())) or kinds[schema["type"]]
        default = "the profile's" if name in SET_BY_PROFILES else schema["default"]
        if isinstance(default, list):
            default = ",".join(map(str, default)) or "usual names"
        expected = f"{kind} {schema['description']}" + ("" if kind == "<bool>" else f" [default: {default}]")
        assert text.startswith(expected), name


def test_the_profiles_own_settings_are_theirs() -> None:
    for name in PROFILES:
        assert set(tomllib.loads((ROOT / "search" / "run" / f"{name}.toml").read_text("utf-8"))) <= set(SET_BY_PROFILES)


def test_every_path_may_begin_with_a_home_directory(
    bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests" / "assets" / "golden_run", tmp_path / "x")
    assert bitfront("status", "--run=~/x").status == 0
    assert bitfront("export", "--run=~/x", "--pick=best@8x", "--out=~/map.txt").status == 0
    assert bitfront("export", "--run=~/x", "--bitmap=~/map.txt", "--out=~/again.txt").status == 0
    assert (tmp_path / "again.txt").read_text() == (tmp_path / "map.txt").read_text()
    compared = bitfront("report", "--compare", "~/x", "~/x/../x/.", "--out=~/out")
    assert compared.err.startswith("error: --compare needs at least two different runs")
    (tmp_path / "p.toml").write_text("modle = 'm'")
    assert "unknown key 'modle'" in bitfront("search", "--run=~/new", "--profile=~/p.toml").err
    assert bitfront("status", "--run=~nobody-of-that-name/x").status == 2
    assert not (tmp_path / "~").exists()
    wrapped = expands_home(lambda: None).__code__
    for command in app.registered_commands:
        assert command.callback is not None and command.callback.__code__ is wrapped


def test_a_cache_without_a_place_is_an_error_before_the_slow_imports(
    bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("search.cli.options.console.status", None)  # shown while they are imported
    told = bitfront("search", "--run", tmp_path / "run")
    assert told.status == 2
    assert "file/cache: cannot be written (Not a directory); set BITFRONT_CACHE to a directory" in told.err
    assert not (tmp_path / "run").exists()


def test_the_help_names_the_environment(bitfront: Command) -> None:
    assert "BITFRONT_CACHE" in bitfront("--help").out


def test_help_and_version_import_nothing_slow() -> None:
    slow = "{'torch', 'optuna', 'transformers', 'huggingface_hub', 'pandas', 'matplotlib'}"
    for arguments, expected in (("['search', '--help']", "After the search"), ("['--version']", version("bitfront"))):
        code = (
            f"import sys, search.cli.app\nsys.argv[1:] = {arguments}\ntry: search.cli.app.main()\n"
            f"finally: assert not {slow} & set(sys.modules), 'slow imports'"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert expected in ended.stdout
