"""How a `search` ends: by a signal, by its budget, for want of maps."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from objectives.layers import WIDTHS
from objectives.problem import Problem
from search.allocation.phases import MEASURING
from search.cli.app import main
from search.run.run_directory import RunDirectory
from search.samplers.guided import JUDGED_EVERY, GuidedSampler
from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.conftest import Command
from tests.search.forks import fork
from tests.search.tiny_problem import TinyProblem
from tests.waiting import wait_until


@pytest.mark.end_to_end
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("undrawn")
def test_a_signal_ends_the_search_with_everything_written(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    run = tmp_path / "run"
    words = ("bitfront", "search", "--model", tiny.model, "--data", tiny.data, "--run", run)
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    search = fork(main)
    log = run / "search.log"
    wait_until(lambda: not search.is_alive() or (log.is_file() and "uniform 8" in log.read_text()), timeout_s=120)
    assert search.is_alive()
    assert search.pid is not None
    os.kill(search.pid, number)
    search.join(timeout=60)
    assert search.exitcode == 0
    recorded = outcome(load_study(run / "study.journal"), "x").trials
    assert len(rows(run / "trials.csv")) == len(recorded) >= 7
    assert "the search ended by a signal" in log.read_text()
    assert f"- **Not complete:** A signal stopped it after {len(recorded):,} " in (run / "report.md").read_text()
    assert capfd.readouterr().out.splitlines()[-1] == f"continue: bitfront search --run {run}"


def test_a_stop_before_the_sampler_begins_leaves_a_report_of_what_was_scored(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Baselines are scored before sensitivities are measured, and trials have the same order whenever it stops."""
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    run, uniform = tmp_path / "run", [f"uniform {width}" for width in WIDTHS]
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--quantizer", "affine")

    def stopped(*arguments: Any) -> None:
        report_progress = arguments[3]
        report_progress(MEASURING, 3, 9, None)
        assert [row["label"] for row in rows(run / "trials.csv")] == uniform
        assert rows(run / "front.csv") and "uniform 2" in (run / "report.html").read_text(encoding="utf-8")
        signal.raise_signal(signal.SIGTERM)

    result = bitfront("search", *where, "--hours", 1e-9)
    assert result.status == 0, result.err
    assert rows(run / "trials.csv") == []
    assert result.out.splitlines()[-1] == f"continue: bitfront search --run {run}"
    assert (run / "report.html").is_file()
    with monkeypatch.context() as patched:
        patched.setattr("search.run.loop.measure", stopped)
        result = bitfront("search", *where, "--trials", 17)
    assert result.status == 0, result.err
    # What an interruption keeps is said.
    kept = "A signal stopped it after 7 of 17 trials and 3 of 9 sensitivities (kept); the same command continues it."
    assert kept in " ".join(result.out.split()) and kept in (run / "report.md").read_text(encoding="utf-8")
    assert "scoring baselines: 0/7" in result.err and "measuring sensitivities: 3/9" in result.err
    assert [row["label"] for row in rows(run / "trials.csv")] == uniform
    assert "A signal stopped it after 7 of 17 trials" in (run / "report.html").read_text(encoding="utf-8")
    result = bitfront("search", *where, "--trials", 17)
    assert result.status == 0, result.err
    trials = outcome(load_study(run / "study.journal"), "run").trials
    assert [trial.label for trial in trials[:7]] == uniform
    origins = [trial.origin for trial in trials]
    assert origins == [*["uniform"] * 7, *["plain"] * origins.count("plain"), *["sampler"] * origins.count("sampler")]
    assert len(origins) == 17 and {"plain", "sampler"} < set(origins)


@pytest.mark.parametrize(
    ("compression", "asked"),
    [
        (16, ("--sensitivity", "gradient")),
        (15.5, ("--sensitivity", "none", "--sampler", "random")),
        pytest.param(15.5, ("--sensitivity", "none", "--sampler", "random", "--workers", 2), marks=pytest.mark.slow),
    ],
)
def test_a_search_ends_once_no_further_map_meets_the_constraint(
    tiny: TinyProblem,
    problem: Problem,
    bitfront: Command,
    tmp_path: Path,
    compression: float,
    asked: tuple[object, ...],
) -> None:
    sizes = Counter({0: 1})  # how many maps there are of each size
    for layer in problem.layers:
        wider: Counter[int] = Counter()
        for size, ways in sizes.items():
            for width in WIDTHS:
                wider[size + layer.elements * width] += ways
        sizes = wider
    within = sum(ways for size, ways in sizes.items() if size * compression <= problem.footprint.fp32_nominal_bits)
    run = tmp_path / "run"
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--quantizer", "affine")
    for _ in range(2):  # starting it again finds nothing either
        result = bitfront("search", *where, "--min-compression", compression, *asked, "--hours", 1, "--no-early-stop")
        assert result.status == 0, result.err
        assert result.err.count("the search ended by running out of maps") == 1
        assert ": ended by running out of maps, " in bitfront("status", "--run", run).out
        with RunDirectory(run).locked():  # another start, before it has told of itself
            assert ": starting again" in bitfront("status", "--run", run).out
        trials = rows(run / "trials.csv")
        assert len({row["bits"] for row in trials}) == len(trials)
        assert sum(row["feasible"] == "True" for row in trials) == within
        assert rows(run / "front.csv")
        assert (run / "report.html").is_file()


def test_a_search_ends_once_there_is_hardly_anything_left_to_gain(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting it again finds nothing to do; a limit of trials, or the option, asks for more."""
    monkeypatch.setattr(GuidedSampler, "_nothing_left", lambda sampler, trials: True)
    run, more = tmp_path / "run", JUDGED_EVERY + 3
    where = ("--model", tiny.model, "--data", tiny.data, "--run", run, "--quantizer", "affine")
    for asked, trials in (
        (("--hours", 1), JUDGED_EVERY),
        (("--hours", 1), JUDGED_EVERY),
        (("--trials", more), more),
        (("--hours", 1), more),
        (("--hours", 1e-9, "--no-early-stop"), more),
    ):
        result = bitfront("search", *where, *asked)
        assert result.status == 0, result.err
        assert len(rows(run / "trials.csv")) == trials
        is_done = asked == ("--hours", 1)
        assert ("--no-early-stop goes on" in result.err) == is_done, result.err
        end = "having hardly anything left to gain" if is_done else "its budget"
        assert f": ended by {end}, " in bitfront("status", "--run", run).out
