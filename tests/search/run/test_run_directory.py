import errno
import fcntl
import os
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
    older = Profile("m", "d", precision="fp32", max_eval_samples=0, early_stop=False)  # before there was a choice
    assert run.read_settings()["profile"] == older.to_dict()
    # Older runs had the usual metric of the head, whatever the task.
    for task, metric in (("none", "auto"), ("sst2", "mcc"), ("stsb", "pearson")):
        run.write_settings({"model": "m", "data": "d", "task": task, "metric": "auto"}, *SETTINGS[1:])
        assert run.read_settings()["profile"]["metric"] == metric
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
    "name",
    [
        *("slurm-123_4.out", "job.err", "nohup.out", "search.e4711", "search.o4711.2", "my.log", "my.log.3"),
        *("stdout", "stderr", "job.7.stdout", "job.stderr"),
        *("lost+found", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir"),
    ],
)
def test_logs_of_a_scheduler_and_hidden_files_are_nobodys_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert not RunDirectory(tmp_path).exists()
    (tmp_path / "outlook.of").write_text("x")
    with pytest.raises(InputError, match=r"it has no run.toml, but 'outlook.of'"):
        RunDirectory(tmp_path).exists()
    (tmp_path / "outlook.of").rename(tmp_path / ".shell-settings")  # named as what cleaning up removes
    with pytest.raises(InputError, match=r"it has no run.toml, but '.shell-settings'"):
        RunDirectory(tmp_path).exists()


def test_settings_that_an_editor_gave_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_settings(*SETTINGS)
    before = run.read_settings()
    run.settings.write_bytes(b"\xef\xbb\xbf" + run.settings.read_bytes())
    assert run.read_settings() == before


def test_damaged_settings_are_to_be_mended_not_given_up(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.settings.write_text("schema = ")
    with pytest.raises(InputError, match="correct it or put it back from a copy") as caught:
        run.read_settings()
    assert "start another run" not in str(caught.value)


def test_the_command_of_a_hint_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`bitfront search --run '\S+two words'`"):
        RunDirectory(tmp_path / "two words").read_settings()


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


@pytest.mark.filterwarnings("ignore:flock not supported")  # as objectives.files asks for
def test_a_run_that_was_left_locked_by_another_machine_says_which_file_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("search.run.run_directory._LOCK_TIMEOUT_S", 0.02)
    run = RunDirectory(tmp_path)
    (tmp_path / ".lock").write_text("4321\nnode17\n", encoding="utf-8")
    assert run.is_locked()
    with (
        pytest.raises(InputError, match=r"\.lock: another process \(4321 on node17\).*delete the file"),
        run.locked(),
    ):
        pass
