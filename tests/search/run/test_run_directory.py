import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from objectives.errors import InputError
from search.run.profile import Profile
from search.run.run_directory import RunDirectory

SETTINGS = (Profile("m", "d", trials=3).to_dict(), {"model": "abc"}, {"python": "3"})


def test_settings_round_trip(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "x" / "run")
    assert not run.exists()
    run.write_settings(*SETTINGS)
    assert run.exists()
    settings = run.read_settings()
    assert (settings["profile"], settings["fingerprint"], settings["versions"]) == SETTINGS
    assert run.name == "run"


def test_settings_that_a_run_does_not_name_are_the_defaults(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_settings({"model": "m", "data": "d"}, *SETTINGS[1:])
    assert run.read_settings()["profile"] == Profile("m", "d").to_dict()
    run.write_settings({"model": "m", "data": "d", "sampler": "cma"}, *SETTINGS[1:])
    with pytest.raises(InputError, match="sampler must be one of"):
        run.read_settings()


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is no run directory"):
        RunDirectory(tmp_path).exists()
    with pytest.raises(InputError, match="is no run directory"):
        RunDirectory(tmp_path / "thesis.tex").exists()
    assert not RunDirectory(tmp_path / "missing").exists()
    with pytest.raises(InputError, match="there is no run here"):
        RunDirectory(tmp_path / "missing").read_settings()


def test_a_run_that_ended_before_it_wrote_its_settings_is_new(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.locked():
        run.log.write_text("a line\n")
    assert run.log.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {".lock", "search.log"}
    (tmp_path / ".run-a1b2c3d4.toml").write_text("schema")  # killed while it wrote them
    assert not run.exists()
    with pytest.raises(InputError, match="there is no run here"):
        run.read_settings()
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is no run directory"):
        run.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("schema = ", "cannot be read"),
        ('schema = "other"', "schema 'other' is not"),
        ('schema = "bitfront-run-1"\nprofile = 3', "has no table profile, fingerprint, versions"),
        ("\x00", "cannot be read"),
    ],
)
def test_damaged_settings_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    run = RunDirectory(tmp_path)
    run.settings.write_text(content)
    with pytest.raises(InputError, match=complaint):
        run.read_settings()


def test_another_search_is_refused_with_what_differs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.check_same({"model": "a"}, {"model": "a", "sentences": "b"})
    with pytest.raises(
        InputError, match=r"(?s)2 faults.*model was 'a' and is now 'x'.*quantizer was None and is now 'y'"
    ):
        run.check_same({"model": "x", "sentences": "b", "quantizer": "y"}, {"model": "a", "sentences": "b"})


@pytest.mark.parametrize(
    ("recorded", "settings", "complaint"),
    [
        ("affine-1", {"quantizer": "affine"}, ""),
        ("affine-1", {}, "quantizer was 'affine' and is now 'calibrated'"),
        ("calibrated-2 in groups of 64 on 0a1b2c", {"group_size": 64}, ""),
        ("calibrated-2 in groups of 64 on 0a1b2c", {}, "group_size was 64 and is now 0"),
        ("calibrated-2 on 0a1b2c", {"min_compression": 8.0}, "min_compression was 5.5 and is now 8.0"),
        ("of another version", {}, ""),  # the fingerprint decides
    ],
)
def test_settings_of_another_search_are_refused_without_a_model(
    tmp_path: Path, recorded: str, settings: dict[str, Any], complaint: str
) -> None:
    run = RunDirectory(tmp_path / "run")
    profile = Profile("m", "d", **settings)
    run.check_settings(profile)  # a new run
    run.write_settings(Profile("m", "d").to_dict(), {"quantizer": recorded}, {"python": "3"})
    if not complaint:
        run.check_settings(profile)
        return
    with pytest.raises(InputError, match=f"is another search; .*{complaint}$"):
        run.check_settings(profile)


def test_a_live_process_holds_the_run_and_a_dead_one_does_not(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from search.run.run_directory import RunDirectory\n"
        f"with RunDirectory(pathlib.Path({str(tmp_path)!r})).locked(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is searching here"), RunDirectory(tmp_path).locked():
            pass
        holder.kill()
    with RunDirectory(tmp_path).locked():
        pass
