"""What goes wrong on a machine at night: each fault is one clear line, and nothing that was finished is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import optuna
import pandas as pd
import pytest

from objectives.errors import InputError
from objectives.layers import WIDTHS
from objectives.problem import Evaluation, Problem
from results.columns import write_csv
from results.report.report import write_report
from results.statistics.analysis import Analysis
from search.cli.notify import notifying
from search.cli.status import status_lines
from search.run.profile import Profile
from search.run.run_directory import RunDirectory
from search.storage.stores import JournalStore, Place
from search.study.reading import load_study, outcome
from search.study.study import tell as tell_study
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.forks import Search
from tests.search.run_checks import check, recorded
from tests.search.tiny_problem import TinyProblem


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def search_on(tiny: TinyProblem, run: Path, trials: int) -> tuple[object, ...]:
    where = ("--model", tiny.model, "--data", tiny.data, "--sampler", "random", "--sensitivity", "none")
    return ("search", *where, "--quantizer", "affine", "--run", run, "--trials", trials)


def one_line(text: str, words: str) -> bool:
    """Return whether a message has no traceback, and these words in a line that names an error."""
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    return "Traceback" not in text and len(errors) == 1 and words in errors[0]


def test_a_full_disk_loses_nothing_that_was_finished(
    tiny: TinyProblem, bitfront: Command, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, filler = small_disk / "run", small_disk / "filler"
    honest = tell_study
    told = 0

    def tell(*arguments: object) -> None:
        nonlocal told
        told += 1
        if told == 12:
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    os.fsync(file.fileno())
        honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("search.run.worker.tell", tell)
    result = bitfront(*search_on(tiny, run, 400))
    assert result.status == 1
    assert one_line(result.err, "No space left on device"), result.err
    assert "all finished maps are recorded" in " ".join(result.err.split())
    finished = recorded(RunDirectory(run))
    assert len(finished) >= 11
    filler.unlink()
    result = bitfront(*search_on(tiny, run, len(finished) + 3))
    assert result.status == 0, result.err
    check(RunDirectory(run), len(finished) + 3)
    assert finished.items() <= recorded(RunDirectory(run)).items()


def test_a_read_only_run_can_be_looked_at_and_not_continued(
    tiny: TinyProblem, bitfront: Command, small_disk: Path
) -> None:
    run = small_disk / "run"
    assert bitfront(*search_on(tiny, run, 8)).status == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for arguments in (search_on(tiny, run, 9), search_on(tiny, small_disk / "new", 9), ("report", "--run", run)):
        result = bitfront(*arguments)
        assert result.status == 1
        assert one_line(result.err, "Read-only file system"), result.err
    assert bitfront("status", "--run", run).status == 0
    assert bitfront("export", "--run", run, "--trial", 0).status == 0


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_run_that_is_moved_and_damaged_evaluates_again_what_is_lost(
    share: float, tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    assert bitfront(*search_on(tiny, tmp_path / "run", 14)).status == 0
    finished = recorded(RunDirectory(tmp_path / "run"))
    run = RunDirectory((tmp_path / "run").rename(tmp_path / "elsewhere"))
    content = run.journal.read_bytes()
    at = int(share * len(content))
    run.journal.write_bytes(content[:at] + bytes(400) + content[at + 400 :])
    result = bitfront("status", "--run", run.path)
    assert result.status == 2
    assert one_line(result.err, "is damaged); start the search again"), result.err
    result = bitfront("search", "--run", run.path, "--trials", 14)
    assert result.status == 0, result.err
    said = " ".join(result.err.split())
    assert "was damaged; kept the first" in said
    assert "kept as study.journal.damaged-1" in said
    assert run.journal.with_name("study.journal.damaged-1").stat().st_size == len(content)
    check(run, 14)
    again = recorded(run)
    assert dict(again.values()) == dict(finished.values())  # the same maps and scores in the end
    kept = [number for number, trial in again.items() if finished.get(number) == trial]
    assert len(kept) >= 14 * share - 2
    if not share:
        assert again == finished


def test_a_run_whose_journal_is_gone_is_not_begun_anew(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    assert bitfront(*search_on(tiny, tmp_path, 4)).status == 0
    run = RunDirectory(tmp_path)
    table, content = (tmp_path / "trials.csv").read_bytes(), run.journal.read_bytes()
    for gone in (run.journal.unlink, run.journal.touch):
        gone()
        result = bitfront("search", "--run", tmp_path, "--trials", 5)
        assert result.status == 2
        assert "put it back from a copy" in " ".join(result.err.split())
        assert (tmp_path / "trials.csv").read_bytes() == table
    run.journal.write_bytes(content)
    assert bitfront("search", "--run", tmp_path, "--trials", 5).status == 0
    check(run, 5)
    # A search that was killed right after it put aside a journal without a sound line goes on.
    run.journal.rename(tmp_path / "study.journal.damaged-1")
    run.journal.touch()
    assert bitfront("search", "--run", tmp_path, "--trials", 5).status == 0
    check(run, 5)


def test_who_leaves_while_the_files_are_written_finds_them_whole(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def impatient(table: pd.DataFrame, path: Path) -> None:
        nonlocal calls
        calls += path.name == "front.csv"
        if path.name == "front.csv" and calls == 2:  # the first time, one map is there
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        write_csv(table, path)

    monkeypatch.setattr("results.report.report.write_csv", impatient)
    result = bitfront(*search_on(tiny, tmp_path / "run", 10))
    assert result.status == 130
    assert "interrupted; start the same command again to continue" in result.err
    assert calls == 3
    check(RunDirectory(tmp_path / "run"), 10)


def test_a_lack_of_memory_is_told_and_the_map_tried_again(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:

        def starved(self: Problem, bit_map: tuple[int, ...]) -> Evaluation:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

        patched.setattr(Problem, "evaluate", starved)
        result = bitfront(*search_on(tiny, run, 8))
    assert result.status == 1
    assert one_line(result.err, "out of memory"), result.err
    assert bitfront(*search_on(tiny, run, 8)).status == 0
    assert [row["label"] for row in rows(run / "trials.csv")][:1] == ["uniform 3"]
    assert "uniform 2" in {row["label"] for row in rows(run / "trials.csv")}


def test_a_search_that_ended_before_it_wrote_its_settings_is_started_again(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise OSError("No space left on device")

        patched.setattr(RunDirectory, "write_settings", full)
        assert bitfront(*search_on(tiny, run.path, 8)).status == 1
    assert run.log.exists()
    assert bitfront(*search_on(tiny, run.path, 8)).status == 0
    check(run, 8)


def test_a_run_that_another_process_began_meanwhile_is_not_written_over(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, honest = RunDirectory(tmp_path / "run"), RunDirectory.locked

    def locked(self: RunDirectory) -> AbstractContextManager[None]:
        self.write_settings(Profile("m", "d", quality="mcc").to_dict(), {}, {})
        return honest(self)

    monkeypatch.setattr(RunDirectory, "locked", locked)
    result = bitfront(*search_on(tiny, run.path, 8))
    assert result.status == 2
    assert one_line(result.err, "is another search"), result.err
    assert run.read_settings()["profile"]["quality"] == "mcc"


@pytest.mark.parametrize("error", [OSError("no space"), InputError("distilled: cannot be read")])
def test_a_report_that_fails_is_tried_again_later_and_ends_no_search(
    error: Exception, tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tries = tmp_path / "run", 0

    def fails_once(found: Analysis, directory: Path, running: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        write_report(found, directory, running)

    monkeypatch.setattr("results.report.report.write_report", fails_once)
    monkeypatch.setattr("search.run.reporting.REFRESH_S", float("inf"))
    result = bitfront(*search_on(tiny, run, 10))
    assert result.status == 0, result.err
    assert "cannot write the report for now" in " ".join(result.err.split())
    assert tries == 2  # after the first map and at the end
    check(RunDirectory(run), 10)


def test_what_ended_a_search_is_told_where_its_report_fails_too(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise InputError("distilled: cannot be read")

    def starved(self: Problem, bit_map: tuple[int, ...]) -> Evaluation:
        raise MemoryError

    monkeypatch.setattr("results.report.report.write_report", damaged)
    monkeypatch.setattr(Problem, "evaluate", starved)
    result = bitfront(*search_on(tiny, tmp_path / "run", 8))
    assert result.status == 1
    assert one_line(result.err, "out of memory"), result.err


def test_a_clock_that_is_set_back_makes_no_time_negative(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards(datetime):
        steps = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            cls.steps += 1
            return datetime.now(tz) - cls.steps * timedelta(hours=1)

    monkeypatch.setattr("optuna.storages.journal._storage.datetime", Backwards)
    tried = Search(Place(tmp_path / "j"), problem, len(WIDTHS))
    tried.open()
    tried.work()
    assert Backwards.steps > len(WIDTHS)
    trials = outcome(load_study(tmp_path / "j"), "x").trials
    assert len(trials) == len(WIDTHS)
    assert min(trial.finished_s for trial in trials) == 0


def test_status_says_how_far_a_run_is(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert bitfront("status", "--run", run.path).status == 2
    note = tmp_path / "note"
    told = ("--notify", f"echo $BITFRONT_STATE at $BITFRONT_RUN > {note}")
    assert bitfront(*search_on(tiny, run.path, 9), *told).status == 0
    assert note.read_text() == f"ended at {run.path}\n"
    said = bitfront("status", "--run", run.path).out.splitlines()
    assert said[0].startswith(f"{run.path}: ended by its budget, 20")
    assert said[1].startswith("9/9 trials, ")
    assert said[2].startswith("front of ")
    with run.locked():
        assert next(status_lines(run)) == f"{run.path}: starting again, or being distilled"
    optuna.load_study(study_name="bitfront", storage=JournalStore(run.journal).backend).ask()
    assert list(status_lines(run))[1].endswith("; 1 running")
    settings = run.settings.read_text(encoding="utf-8").splitlines()
    run.settings.write_text("\n".join(line for line in settings if not line.startswith("ended")), encoding="utf-8")
    assert next(status_lines(run)).endswith("interrupted; start the same command again to continue")
    with run.locked():
        assert re.search(r": running for \S+.*, workers: 1$", next(status_lines(run)))


def test_status_of_a_live_run_tells_a_damaged_study_from_one_not_made_yet(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    assert bitfront(*search_on(tiny, run.path, 8)).status == 0
    content = run.journal.read_bytes()
    with run.locked():
        run.journal.write_bytes(content[:500] + bytes(100) + content[600:])
        result = bitfront("status", "--run", run.path)
        assert result.status == 2
        assert result.out.startswith(f"{run.path}: starting again")
        assert "no maps yet" not in result.out
        assert one_line(result.err, "cannot be read as a study"), result.err
        for not_yet in (run.journal.unlink, run.journal.touch):
            not_yet()
            result = bitfront("status", "--run", run.path)
            assert (result.status, result.err) == (0, "")
            assert result.out.splitlines()[1:] == ["no maps yet"]


def test_a_notification_is_given_however_a_search_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note = tmp_path / "note"
    with pytest.raises(InputError), notifying(f'echo "$BITFRONT_STATE" > {note}', tmp_path):
        raise InputError("no such model")
    assert note.read_text() == "failed: no such model\n"
    with pytest.raises(KeyboardInterrupt), notifying(f'echo "$BITFRONT_STATE" > {note}', tmp_path):
        raise KeyboardInterrupt
    assert note.read_text() == "stopped\n"
    with notifying(f'echo "$BITFRONT_STATE" > {note}', tmp_path, stopped=lambda: True):
        pass
    assert note.read_text(encoding="utf-8") == "stopped\n"
    with notifying("exit 3", tmp_path):
        pass
    assert "--notify: Command 'exit 3' returned non-zero exit status 3" in caplog.text
