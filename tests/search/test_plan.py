"""The plan of a search: `search --dry-run`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from results.formatting import duration, maps
from search import plan as planning
from search.plan import plan, plan_lines
from search.run.distilling import EPOCHS
from search.run.profile import Profile, checked_profile
from search.run.run_directory import RunDirectory
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem

TRIAL_S, CODES_S, EPOCH_S = 10.0, 1200.0, 240.0


@pytest.fixture
def profile(roomy: TinyProblem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Profile:
    """A search of two hours whose measurements have given durations, with nothing in its cache."""
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planning, "_evaluation_seconds", lambda *_: TRIAL_S)
    monkeypatch.setattr(planning, "calibration_seconds", lambda *_: CODES_S)
    monkeypatch.setattr(planning, "seconds_per_epoch", lambda *_: EPOCH_S)
    settings = {"model": str(roomy.model), "data": str(roomy.data), "hours": 2, "distill": "weights", "unseen": 10}
    return checked_profile(settings | {"sensitivity": "gradient"}, "test")


def test_the_hours_are_shared_out_as_the_search_does(profile: Profile, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    phases = plan(profile, run)
    assert [phase.name for phase in phases] == [
        *("calibrating codes", "scoring baselines", "measuring sensitivities", "searching", "final checks"),
        "distilling",
    ]
    codes, baselines, sensitivities, searching, checks, distilling = (phase.seconds or 0.0 for phase in phases)
    assert (codes, baselines, sensitivities) == (CODES_S, 7 * TRIAL_S, 12 * TRIAL_S)
    assert codes + baselines + sensitivities + searching == 3600  # half of the hours
    assert f"at most {int(searching / TRIAL_S)} maps, 10 s each" in phases[3].what
    assert checks == 64 * 10 / 80 * TRIAL_S  # 64 maps on an eighth as many sentences
    assert distilling == 7200 - 3600 - checks
    judged_s = TRIAL_S * (2 + 3 * 10 / 80)
    map_s = EPOCHS["weights"] * EPOCH_S + judged_s
    each = f"{duration(map_s)} each: {EPOCHS['weights']} epochs on "
    assert phases[-1].what.startswith(f"about {maps(int(distilling / map_s))}, {each}")
    assert "(best@12.8x, best@10.67x, best@8x, best@5.5x and others)" in phases[-1].what
    assert not run.exists() and not any((tmp_path / "cache").iterdir())

    short = plan(replace(profile, hours=0.5), run)
    for at, wanted in ((3, "no time for a map; "), (-1, f"no time for a whole map, {each}")):
        assert short[at].what.startswith(wanted)  # the codes take more than half of the time
        hours = float(short[at].what.split("--hours ")[1].split()[0])
        assert not plan(replace(profile, hours=hours), run)[at].what.startswith("no time")
    by_trials = plan(replace(profile, hours=0.0, trials=100), run)
    assert (by_trials[3].seconds, by_trials[-1].seconds) == (93 * TRIAL_S, 4 * map_s)
    endless = plan(replace(profile, hours=0.0, distill="none"), run)
    assert endless[3].seconds is None and endless[-1].name == "final checks"
    assert any(line.startswith("scoring baselines") and line.split()[2] == "1" for line in plan_lines(profile, phases))


def test_a_dry_run_measures_and_writes_nothing(roomy: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("--model", roomy.model, "--data", roomy.data, "--hours", 1, "--unseen", 10, "--distill", "weights")
    result = bitfront("search", *settings, "--run", run, "--confirm", 0.3, "--dry-run")
    assert result.status == 0, result.err
    assert result.out.startswith("What this search would do, with 1 hour; estimates")
    assert "on unseen sentences, on the holdout set" in " ".join(result.out.split())
    assert not run.exists()


def test_a_dry_run_is_refused_as_the_search_would_be(tiny: TinyProblem, bitfront: Command, tmp_path: Path) -> None:
    settings = ("--model", tiny.model, "--data", tiny.data, "--run", tmp_path / "run", "--dry-run")
    result = bitfront("search", *settings, "--hours", 1, "--distill", "scales")  # all sentences are searched with
    assert result.status == 2
    assert "distillation needs 2 training sentences" in " ".join(result.err.split())
    result = bitfront("search", *settings, "--min-compression", 99)
    assert result.status == 2 and "99" in result.err
