from pathlib import Path

import pytest

from results.evidence import Evidence
from results.outcome import Outcome
from search.profile import Profile, resolve_profile
from search.progress import Progress
from search.reporting import command_of, front_line
from search.run_directory import RunDirectory
from search.runner import run_search
from tests.results.synthetic import empty_outcome, made_up_outcome
from tests.search.tiny_problem import TinyProblem


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What evidence has been gathered of: that takes all trials and sentences."""
    honest, outcomes = Evidence.of, list[Outcome]()

    def of(outcome: Outcome) -> Evidence:
        outcomes.append(outcome)
        return honest(outcome)

    monkeypatch.setattr(Evidence, "of", of)
    return outcomes


def test_the_front_line_names_the_picks_there_are(gathered: list[Outcome]) -> None:
    assert front_line(empty_outcome()) == "front of 0 maps"
    gathered.clear()
    line = front_line(made_up_outcome())
    assert line.startswith("front of ")
    assert "best@8x damage 0." in line
    assert len(gathered) == 1


def test_a_search_works_out_its_front_line_only_where_it_writes_its_files(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronts: list[str] = []
    worked_out: list[Outcome] = []

    def counted(outcome: Outcome) -> str:
        worked_out.append(outcome)
        return front_line(outcome)

    class Recorder:
        def sensitivities(self, done: int, wanted: int) -> None:
            raise AssertionError("none are asked for")

        def trials(self, progress: Progress) -> None:
            fronts.append(progress.front)

        def closing(self, what: str, done: int, wanted: int) -> None:
            """Show nothing."""

    monkeypatch.setattr("search.runner.front_line", counted)
    monkeypatch.setattr("search.runner.write_report", lambda *_: None)
    monkeypatch.setattr("search.runner.REFRESH_S", float("inf"))
    profile = Profile(
        str(tiny.model),
        str(tiny.data),
        trials=10,
        sampler="random",
        sensitivity="none",
        quantizer="affine",
        confirm="none",
        unseen=0,
    )
    run_search(profile, RunDirectory(tmp_path / "run"), Recorder())
    assert len(fronts) == 10
    assert set(fronts) == {fronts[0]}
    assert fronts[0].startswith("front of 1 maps; best@")  # after the first map
    assert len(worked_out) == 1


def test_the_command_that_makes_a_run_again_has_its_trials_or_of_a_run_without_any_its_limits(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    profile = resolve_profile("cola", {"seed": 3}).to_dict()
    assert profile["hours"]
    many, none = (command_of(profile, run, trials).split() for trials in (24, 0))
    assert many[-2:] == ["--trials", "24"] and "--hours" not in many
    assert none[none.index("--hours") + 1] == f"{profile['hours']:g}" and "--trials" not in none
    assert many[:-2] == [word for at, word in enumerate(none) if "--hours" not in none[max(0, at - 1) : at + 1]]
