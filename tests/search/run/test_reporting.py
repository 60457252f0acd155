from pathlib import Path

import pytest

from results.outcome import Outcome
from results.statistics.candidates import Candidates
from results.statistics.picks import pick
from search.run.loop import run_search
from search.run.profile import Profile, resolve_profile
from search.run.progress import Phase, Progress
from search.run.reporting import command_of, front_line, unfinished_because
from search.run.run_directory import RunDirectory
from tests.results.synthetic import empty_outcome, made_up_outcome, with_trials
from tests.search.tiny_problem import TinyProblem


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What evidence has been gathered of: that takes all trials and sentences."""
    honest, outcomes = Candidates.of, list[Outcome]()

    def of(outcome: Outcome) -> Candidates:
        outcomes.append(outcome)
        return honest(outcome)

    monkeypatch.setattr(Candidates, "of", of)
    return outcomes


def test_the_front_line_names_the_picks_there_are(gathered: list[Outcome]) -> None:
    assert front_line(empty_outcome()) == "front of 0 maps"
    gathered.clear()
    line = front_line(made_up_outcome())
    assert line.startswith("front of ")
    assert "; damage at 5.5x 0." in line and ", 8x 0." in line
    assert len(gathered) == 1


@pytest.mark.parametrize("least", [3.0, 9.0, 9.25])
def test_the_front_line_shows_the_sizes_of_this_run(least: float) -> None:
    """The constraint and what lies beyond it: a map that misses the constraint answers nothing."""
    outcome = made_up_outcome(min_compression=least)
    damages = {}
    for size in (least, *(size for size in (8.0, 10.67, 12.8) if size > least)):
        picked = pick(outcome, f"best@{size:g}x")
        assert picked.feasible and picked.scores is not None
        damages[f"{size:g}x"] = f"{picked.scores.damage:.3g}"
    shown = front_line(outcome).partition("; damage at ")[2].split(", ")
    assert dict(size.split(" ") for size in shown) == damages
    assert "5.5x" not in damages and ("8x" in damages) == (least == 3.0)


def test_the_front_line_leaves_out_sizes_that_no_map_has() -> None:
    outcome = made_up_outcome(trials=0)
    large = [trial for trial in outcome.trials if trial.nominal_compression < 8.5]
    assert front_line(with_trials(outcome, large)).count("x ") == 2  # 5.5x and 8x


def test_a_search_works_out_its_front_line_only_where_it_writes_its_files(
    tiny: TinyProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronts: list[str] = []
    worked_out: list[Outcome] = []
    running: list[str] = []

    def counted(outcome: Outcome) -> str:
        worked_out.append(outcome)
        return front_line(outcome)

    class Recorder:
        def phase(self, phase: Phase) -> None:
            """Show nothing."""

        def trials(self, progress: Progress) -> None:
            fronts.append(progress.front)

    monkeypatch.setattr("search.run.reporting.front_line", counted)
    monkeypatch.setattr("results.report.report.write_report", lambda *given: running.append(given[2]))
    monkeypatch.setattr("search.run.reporting.REFRESH_S", float("inf"))
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
    assert fronts[0].startswith("front of 1 map; damage at ")  # after the first map
    assert len(worked_out) == 1
    assert running == ["searching: 1/10", ""]  # pages refresh themselves until the last


def test_the_command_that_makes_a_run_again_has_its_trials_or_of_a_run_without_any_its_limits(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    profile = resolve_profile("cola", {"seed": 3}).to_dict()
    assert profile["hours"]
    many, none = (command_of(profile, run, trials).split() for trials in (24, 0))
    assert many[-2:] == ["--trials", "24"] and "--hours" not in many
    assert none[none.index("--hours") + 1] == f"{profile['hours']:g}" and "--trials" not in none
    pairs = command_of({**profile, "text_column": ["a", "b c"]}, run, 24)
    assert "--text-column a --text-column 'b c'" in pairs
    columns = resolve_profile("cola", {"label_column": ["mild", "hot"], "text_column": ["a"]}).to_dict()
    assert "--text-column a --label-column mild --label-column hot" in command_of(columns, run, 24)
    assert many[:-2] == [word for at, word in enumerate(none) if "--hours" not in none[max(0, at - 1) : at + 1]]


@pytest.mark.parametrize(
    ("start", "limit", "reason"),
    [
        ({}, 60, ""),  # older runs do not say
        ({"ended": 1, "by": "its budget"}, 60, ""),
        ({"ended": 1, "by": "its budget", "waiting": 0}, 60, ""),
        ({"at": 1}, 60, "after 24 of 60 trials it was still running when this was written, or was interrupted; "),
        ({"ended": 1, "by": "a signal", "waiting": 0}, 0, "a signal stopped it after 24 trials; "),
        (
            {"at": 1, "sensitivities": "49 of 152"},
            60,
            "after 24 of 60 trials and 49 of 152 sensitivities (kept) ",
        ),
        (
            {"ended": 1, "by": "a signal", "sensitivities": "49 of 152"},
            0,
            "a signal stopped it after 24 trials and 49 of 152 sensitivities (kept); ",
        ),
        (
            {"ended": 1, "by": "its budget", "sensitivities": "49 of 152"},
            0,
            "its time was over after 24 trials and 49 ",
        ),
        ({"ended": 1, "by": "its budget", "waiting": 7}, 60, "its final checks had no time for 7 maps, "),
    ],
)
def test_a_run_says_why_it_is_not_complete(start: dict[str, object], limit: int, reason: str) -> None:
    said = unfinished_because(start, 24, limit)
    assert said.startswith(reason) and bool(said) == bool(reason)
