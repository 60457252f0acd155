"""What a run's study holds, told by the run's own settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

import optuna

from results.outcome import DEFAULT_MARGIN, Outcome
from search.profile import Profile
from search.run_directory import RunDirectory
from search.study import outcome


def outcome_of_run(study: optuna.Study, run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return all that a run's study has found so far, with the margin and the command of its settings.

    Args:
        study: the run's study.
        run: its directory.
        margin: another margin than the run's.

    Raises:
        InputError: the run's settings cannot be read.
    """
    profile = run.read_settings()["profile"]
    found = outcome(study, run.name)
    kept = profile.get("margin", DEFAULT_MARGIN) if margin is None else margin
    return replace(found, margin=kept, command=command_of(profile, run, len(found.trials)))


def command_of(profile: Mapping[str, Any], run: RunDirectory, trials: int) -> str:
    """Return the command that makes a run of so many trials by these settings again."""
    words = ["bitfront", "search", "--run", str(run.path)]
    for field in fields(Profile):
        value = profile.get(field.name)
        known = None if field.default is MISSING else field.default
        if value is None or value == known or field.name in ("trials", "hours"):
            continue
        name = f"--{field.name.replace('_', '-')}"
        words += [name] if value is True else [name, f"{value:.10g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--trials", str(trials)])
