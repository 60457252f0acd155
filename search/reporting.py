"""What a run's study holds, told by the run's own settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import optuna

from objectives.errors import InputError
from results.evidence import Evidence
from results.outcome import Outcome
from results.pareto import front
from results.picks import pick
from results.words import nats
from search.profile import Profile, checked_profile
from search.reading import outcome
from search.run_directory import RunDirectory
from search.study import THEN

_SHOWN_PICKS = ("best@5.5x", "best@8x", "best@10.67x")


def outcome_of_run(study: optuna.Study, run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return all that a run's study has found so far, with the margin and the command of its settings.

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
    found = outcome(study, run.name)
    # No one command makes a run that went on with another sampler.
    continued = THEN in dict(found.provenance).get("sampler", "")
    return replace(found, margin=kept, command="" if continued else command_of(profile, run, len(found.trials)))


def front_line(outcome: Outcome) -> str:
    """Return the current front in one line: how many maps, and the damage of some picks."""
    evidence = Evidence.of(outcome)
    parts = [f"front of {len(front(outcome))} maps"]
    for request in _SHOWN_PICKS:
        try:
            trial = pick(outcome, request, evidence)
        except InputError:
            continue  # nothing that small yet
        if trial.scores is not None:
            parts.append(f"{request} damage {nats(trial.scores.damage)}")
    return "; ".join(parts)


def command_of(profile: Mapping[str, Any], run: RunDirectory, trials: int) -> str:
    """Return the command that makes a run of so many trials by these settings again; of none yet, by its limits."""
    words = ["bitfront", "search", "--run", str(run.path)]
    for field in fields(Profile):
        value = profile[field.name]
        if value == field.default or (trials and field.name in ("trials", "hours")):
            continue
        name = f"--{field.name.replace('_', '-')}"
        words += [name] if value is True else [name, f"{value:.10g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--trials", str(trials)] if trials else words)
