"""The phases of a search: what they say, how long they take, and how another process learns of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from search.cli.status import status_lines
from search.run.profile import Profile
from search.run.progress import (
    PREPARING,
    Budget,
    Phase,
    PhaseRecord,
    Progress,
    checks_limit_s,
    paced,
    read_phase,
    with_share,
)
from search.run.run_directory import RunDirectory


@dataclass(frozen=True)
class Recorder:
    """Keeps what it is shown."""

    phases: list[Phase] = field(default_factory=list)

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)

    def trials(self, progress: Progress) -> None:
        """Keep nothing."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the product sees, in seconds; tests set it."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def test_a_phase_says_its_name_its_count_and_the_time_left() -> None:
    assert Phase("scoring on unseen sentences", 7, 48, 180.0).line == "scoring on unseen sentences: 7/48, 3 min left"
    assert Phase("measuring sensitivities", 0, 152).line == "measuring sensitivities: 0/152"
    assert Phase("preparing").line == "preparing"
    shared = Phase("measuring sensitivities", 49, 152, 720.0, "about 15% of the 8 hours")
    assert shared.line == "measuring sensitivities: 49/152, 12 min left, about 15% of the 8 hours"


def test_the_time_left_follows_the_pace_of_this_start(clock: list[float]) -> None:
    said: list[tuple[str, int, int, float | None]] = []
    report = paced(lambda *step: said.append(step), "checking")
    report(10, 50)  # done by an earlier start
    clock[0] += 8
    report(14, 50)
    assert said == [("checking", 10, 50, None), ("checking", 14, 50, 8 * 36 / 4)]


def test_the_final_checks_take_a_fifth_of_a_start_or_five_minutes() -> None:
    hour = 3600.0
    assert checks_limit_s(4 * hour) == pytest.approx(hour)
    assert checks_limit_s(60) == checks_limit_s(1200) == 300


@pytest.mark.parametrize(("passes", "checks_s"), [(20.0, 20 / 0.5), (float("inf"), 1000 / 4)])
def test_the_time_of_the_final_checks_follows_the_pace_up_to_their_limit(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, passes: float, checks_s: float
) -> None:
    monkeypatch.setattr("search.run.progress._LEAST_S", 1.0)
    budget = Budget(Profile("m", "d", trials=500), started=500.0, should_stop=lambda: False)
    progress = budget.progress(250, 0.5, "front", passes)
    assert (progress.elapsed_s, progress.left_s) == (500.0, 500.0)
    assert progress.checks_s == pytest.approx(checks_s)


@pytest.mark.parametrize(
    ("hours", "trials", "trial_s", "share"),
    [
        (8.0, 0, None, "about 15% of the 8 hours"),
        (1.0, 0, 9.0, "about 120% of the 1 hour"),  # there will be no time to search
        (100.0, 0, None, "about 1% of the 100 hours"),
        (1000.0, 0, None, "under 1% of the 1000 hours"),
        (0.0, 150, 10.0, "about 72% of the search"),  # 1000 s so far, 3600 s of the phase, 140 maps of 10 s
        (8.0, 150, 10.0, "about 72% of the search"),
        (8.0, 10**6, 10.0, "about 15% of the 8 hours"),
        (0.0, 150, None, ""),
        (0.0, 0, 10.0, ""),
    ],
)
def test_a_phase_is_a_share_of_the_time_that_the_limits_allow(
    clock: list[float], hours: float, trials: int, trial_s: float | None, share: str
) -> None:
    budget = Budget(Profile("m", "d", hours=hours, trials=trials), started=0.0, should_stop=lambda: False)
    assert budget.share(4320.0, 3600.0, 10, trial_s) == share


def test_a_share_counts_the_phase_since_it_began(tmp_path: Path, clock: list[float]) -> None:
    display = Recorder()
    budget = Budget(Profile("m", "d", hours=1.0), started=clock[0], should_stop=lambda: False)
    report = with_share(PhaseRecord(RunDirectory(tmp_path), display), budget, 0, None)
    report("gradients", 0, 2, None)
    clock[0] += 360
    report("gradients", 1, 2, 360.0)
    report("measuring", 0, 4, None)
    clock[0] += 36
    report("measuring", 1, 4, 3 * 36.0)
    assert [phase.share for phase in display.phases] == ["", "about 20% of the 1 hour", "", "about 4% of the 1 hour"]


def test_status_names_the_phase_that_another_process_is_in(finished_run: Path, clock: list[float]) -> None:
    run, display = RunDirectory(finished_run), Recorder()
    record = PhaseRecord(run, display)
    record("scoring on unseen sentences", 7, 48, 240.0)
    clock[0] += 60
    assert read_phase(run) == (Phase("scoring on unseen sentences", 7, 48, 180.0), 0.0)
    state, *others = status_lines(run)
    assert "interrupted; start the same command again" in state  # its process is dead, though its end was recorded
    assert not any("scoring on" in line for line in others)
    with run.locked():
        state, phase, trials, *_ = status_lines(run)
        assert state.endswith(": running")
        assert phase == "scoring on unseen sentences: 7/48, 3 min left"
        assert trials.startswith("20/20 trials") and "left" not in trials
        record(PREPARING)
        state, phase, *_ = status_lines(run)
        assert state.endswith(": starting again") and phase == PREPARING
        record.trials(Progress(20, 40, 60.0, 30.0, 0.3, "front", checks_s=240.0))
        trials = list(status_lines(run))[1]
        assert trials.startswith("20/20 trials")
    assert [phase.name for phase in display.phases] == ["scoring on unseen sentences", PREPARING]
    record.end()
    assert read_phase(run) is None and not run.phase.exists()


def test_a_phase_is_written_when_it_changes_and_every_few_seconds(finished_run: Path, clock: list[float]) -> None:
    run = RunDirectory(finished_run)
    record = PhaseRecord(run, Recorder())

    def done() -> int:
        recorded = read_phase(run)
        assert recorded is not None
        return recorded[0].done

    record("confirming in FP32", 1, 9)
    clock[0] += 1
    record("confirming in FP32", 2, 9)
    assert done() == 1
    clock[0] += 5
    record("confirming in FP32", 3, 9)
    assert done() == 3
    record("scoring on unseen sentences", 0, 9)
    assert done() == 0


def test_a_new_run_gets_no_phase_before_its_settings(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    PhaseRecord(run, Recorder())(PREPARING)
    assert not run.path.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 3}', "\x00"])
def test_a_record_of_another_version_is_no_phase(tmp_path: Path, content: str) -> None:
    run = RunDirectory(tmp_path)
    run.phase.write_text(content)
    assert read_phase(run) is None
    full = {"name": "x", "done": 1, "total": 2, "left_s": None, "share": "some", "checks_s": 0, "at": 0}
    run.phase.write_text(json.dumps(full))
    assert read_phase(run) == (Phase("x", 1, 2, None, "some"), 0.0)
    for key in full:
        run.phase.write_text(json.dumps({other: value for other, value in full.items() if other != key}))
        assert read_phase(run) is None
