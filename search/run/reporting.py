"""What a run's study holds, seen with the run's own settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import optuna

from objectives.errors import InputError
from results.formatting import maps, nats
from results.outcome import Outcome
from results.pareto import front
from results.statistics.candidates import Candidates
from results.statistics.picks import headline_limits, pick
from search.run.profile import Profile, checked_profile
from search.run.run_directory import RunDirectory
from search.study.reading import outcome
from search.study.study import THEN


def outcome_of_run(study: optuna.Study, run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return the state of a run's study, with the margin and the command of its settings.

    Args:
        study: the run's study.
        run: its directory.
        margin: another margin than the run's.

    Raises:
        InputError: the run's settings cannot be read, or the margin is no loss of MCC.
    """
    profile = run.read_settings()["profile"]
    kept = profile["margin"]
    if margin is not None:
        kept = checked_profile(profile | {"margin": margin}, run.name).margin
    state = outcome(study, run.name)
    # No single command makes a run that went on with another sampler.
    continued = THEN in dict(state.provenance).get("sampler", "")
    command = "" if continued else command_of(profile, run, len(state.trials))
    return replace(state, margin=kept, command=command)


def front_line(outcome: Outcome) -> str:
    """Return the current front in one line: how many maps, and the damage of the pick at each size asked of the run.

    The sizes are the run's constraint and what its report asks beyond it.
    """
    candidates = Candidates.of(outcome)
    damages = []
    for request, _ in headline_limits(outcome):
        with suppress(InputError):  # nothing that small yet
            trial = pick(outcome, request, candidates)
            if trial.scores is not None:
                damages.append(f"{request.removeprefix('best@')} {nats(trial.scores.damage)}")
    line = f"front of {maps(len(front(outcome)))}"
    return f"{line}; damage at {', '.join(damages)}" if damages else line


def command_of(profile: Mapping[str, Any], run: RunDirectory, trials: int) -> str:
    """Return the command that makes a run of so many trials again; of a run without trials, one with its limits."""
    words = ["bitfront", "search", "--run", str(run.path)]
    for field in fields(Profile):
        value = profile[field.name]
        if value == field.default or (trials and field.name in ("trials", "hours")):
            continue
        name = f"--{field.name.replace('_', '-')}"
        words += [name] if value is True else [name, f"{value:.10g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--trials", str(trials)] if trials else words)
