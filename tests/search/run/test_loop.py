"""The order of a search: baselines, then sensitivities, then what needs them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from search.allocation.sensitivity import Sensitivities, measure
from search.run.loop import run_search
from search.run.profile import Profile
from search.run.progress import BASELINES, Phase, Progress
from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from tests.search.commands import rows
from tests.search.tiny_problem import TinyProblem

UNIFORM = [f"uniform {width}" for width in range(2, 9)]
TRIALS = 17


class Recorder:
    """Keeps the phases that it is shown."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    def phase(self, phase: Phase) -> None:
        """Keep a phase."""
        self.phases.append(phase)

    def trials(self, progress: Progress) -> None:
        """Keep nothing."""


@pytest.fixture
def search(tiny: TinyProblem, tmp_path: Path, undrawn: None) -> Callable[[str], Recorder]:
    profile = Profile(
        str(tiny.model), str(tiny.data), trials=TRIALS, quantizer="affine", sensitivity="gradient", unseen=0
    )

    def run(name: str) -> Recorder:
        display = Recorder()
        run_search(profile, RunDirectory(tmp_path / name), display)
        return display

    return run


def test_baselines_are_scored_and_reported_before_sensitivities_are_measured(
    search: Callable[[str], Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[list[str]] = []

    def measured(*arguments: object) -> Sensitivities | None:
        assert (tmp_path / "run" / "report.html").is_file()
        assert rows(tmp_path / "run" / "front.csv")
        reported.append([row["label"] for row in rows(tmp_path / "run" / "trials.csv")])
        return measure(*arguments)  # type: ignore[arg-type]

    def stopped(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("search.run.loop.measure", measured)
    display = search("run")
    assert reported == [UNIFORM]
    scoring = [(phase.done, phase.total) for phase in display.phases if phase.name == BASELINES]
    assert scoring[:7] == [(done, 7) for done in range(7)]

    whole = outcome(load_study(tmp_path / "run" / "study.journal"), "run").trials
    labels = [trial.label for trial in whole]
    origins = [trial.origin for trial in whole]
    assert labels[:7] == UNIFORM and origins[7] == "plain"
    assert origins == sorted(origins, key=["uniform", "plain", "sampler"].index)
    assert origins[-1] == "sampler"

    # A search that is stopped while it measures has a report of its baselines, and continues as if nothing had been.
    monkeypatch.setattr("search.run.loop.measure", stopped)
    search("stopped")
    assert [row["label"] for row in rows(tmp_path / "stopped" / "trials.csv")] == UNIFORM
    assert "A signal stopped it after 7 of 17 trials" in (tmp_path / "stopped" / "report.html").read_text("utf-8")
    monkeypatch.setattr("search.run.loop.measure", measure)
    search("stopped")
    continued = outcome(load_study(tmp_path / "stopped" / "study.journal"), "stopped").trials
    assert [(trial.number, trial.label, trial.bit_map, trial.scores) for trial in continued] == [
        (trial.number, trial.label, trial.bit_map, trial.scores) for trial in whole
    ]
