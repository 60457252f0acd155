"""The outcome of a run, its front in one line, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import optuna

from objectives.errors import InputError, quoted
from results.formatting import maps, nats
from results.outcome import Outcome
from results.pareto import front
from results.statistics.candidates import Candidates
from results.statistics.picks import headline_limits, pick
from search.run.profile import Profile, checked_profile
from search.run.progress import BY_SIGNAL
from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from search.study.study import THEN


def read_outcome(run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return the outcome of a run, read from its files; see ``outcome_of_run``."""
    run.read_settings()  # raises first if there is no run
    return outcome_of_run(load_study(run.place()), run, margin)


def outcome_of_run(study: optuna.Study, run: RunDirectory, margin: float | None = None) -> Outcome:
    """Return the outcome of a run's study, with the run's margin and command.

    Args:
        study: the run's study.
        run: its directory.
        margin: overrides the run's margin.

    Raises:
        InputError: the run's settings cannot be read, or the margin is out of range.
    """
    settings = run.read_settings()
    profile = settings["profile"]
    margin = profile["margin"] if margin is None else checked_profile(profile | {"margin": margin}, run.name).margin
    result = outcome(study, run.name)
    # No single command repeats a run that was continued with another sampler.
    resampled = THEN in dict(result.provenance).get("sampler", "")
    command = "" if resampled else command_of(profile, run, len(result.trials))
    unfinished = unfinished_because(settings.get("start", {}), len(result.trials), profile["trials"])
    return replace(result, margin=margin, command=command, unfinished=unfinished)


def unfinished_because(start: Mapping[str, Any], trials: int, trial_limit: int) -> str:
    """Return why a run is not complete, without a full stop; empty if it is, or if run.toml does not say.

    Args:
        start: the table of run.toml with the facts of its last start.
        trials: how many maps have been evaluated.
        trial_limit: how many were wanted; 0 for no limit.
    """
    evaluated = f"{trials:,} of {trial_limit:,} trials" if trial_limit else f"{trials:,} trials"
    again = "the same command continues it"
    if not start:
        return ""
    if "ended" not in start:
        return f"after {evaluated} it was still running when this was written, or was interrupted; {again}"
    if start.get("by") == BY_SIGNAL:
        return f"a signal stopped it after {evaluated}; {again}"
    if waiting := start.get("waiting"):
        return (
            f"its final checks had no time for {maps(int(waiting))}, those that picks and verdict need least; "
            "the same command scores them"
        )
    return ""


def front_line(outcome: Outcome) -> str:
    """Return the front in one line: its number of maps, and the damage of the pick at each size in the report."""
    candidates = Candidates.of(outcome)
    damages = []
    for request, _ in headline_limits(outcome):
        with suppress(InputError):  # no map is that small yet
            trial = pick(outcome, request, candidates)
            if trial.scores is not None:
                damages.append(f"{request.removeprefix('best@')} {nats(trial.scores.damage)}")
    line = f"front of {maps(len(front(outcome)))}"
    return f"{line}; damage at {', '.join(damages)}" if damages else line


def command_of(profile: Mapping[str, Any], run: RunDirectory, trials: int) -> str:
    """Return the command that repeats a run: up to its number of trials, or its limits if it has none yet."""
    arguments = ["bitfront", "search", "--run", str(run.path)]
    for field in fields(Profile):
        value = profile[field.name]
        if value == field.default or (trials and field.name in ("trials", "hours")):
            continue
        name = f"--{field.name.replace('_', '-')}"
        arguments += [name] if value is True else [name, f"{value:.10g}" if isinstance(value, float) else str(value)]
    if trials:
        arguments += ["--trials", str(trials)]
    return " ".join(map(quoted, arguments))
