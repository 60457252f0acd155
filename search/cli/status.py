"""The status of a run: its search may be running elsewhere, or have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from optuna.trial import TrialState

from results.formatting import DAMAGE, duration, maps
from results.outcome import Outcome
from search.cli.terminal import status_line
from search.run.progress import DISTILLING, PREPARING, SEARCHING, Progress, read_phase, time_left
from search.run.reporting import front_line
from search.run.run_directory import RunDirectory
from search.study.reading import NoStudyError, load_study, outcome

_RATE_WINDOW_S = 600.0
_INTERRUPTED = "interrupted; start the same command again to continue"


def status_lines(run: RunDirectory) -> Iterator[str]:
    """Yield a run's state, the phase that it is in, its progress, its front, and the checks that are still missing.

    Raises:
        InputError: there is no run; or, after the first line, its study cannot be read.
    """
    settings = run.read_settings()
    profile, start = settings["profile"], settings.get("start", {})
    live = run.is_locked()
    started = start.get("at")
    elapsed_s = max(0.0, time.time() - started.timestamp()) if isinstance(started, datetime) else 0.0
    phase = read_phase(run)
    recorded = phase if live else None
    if not live:
        state = _last_end(start) if phase is None else _INTERRUPTED  # a search that ends removes its phase
    elif recorded is not None and "ended" in start and recorded[0].name == PREPARING:
        state, elapsed_s = "starting again", 0.0
    elif "ended" in start and (recorded is None or recorded[0].name == DISTILLING):
        # A search writes its start once it has loaded the model.
        state, elapsed_s = "starting again, or being distilled", 0.0
    else:
        state = "running" + (f" for {duration(elapsed_s)}, workers: {start.get('workers', 1)}" if elapsed_s else "")
    yield f"{run.path}: {state}"
    searching = live and (recorded is None or recorded[0].name == SEARCHING)
    if recorded is not None and not searching:
        yield recorded[0].line
    try:
        study = load_study(run.place())
    except NoStudyError:
        if not live:
            raise
        yield "no maps yet"
        return
    result = outcome(study, run.name)
    n_running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    rate = recent_rate(result)
    n_finished, limit = len(result.trials), profile["trials"]
    next_limit = limit if limit > n_finished else 0
    left_s = time_left(n_finished, next_limit, rate, profile["hours"], elapsed_s) if searching else None
    front = front_line(result).replace("damage", DAMAGE, 1)
    checks_s = recorded[1] if recorded is not None else 0.0
    progress = Progress(n_finished, limit, elapsed_s, left_s, rate, front, checks_s)
    yield status_line(progress) + (f"; {n_running} running" if n_running else "")
    yield front
    if result.unscored:
        yield f"{maps(result.unscored)} still to be scored on unseen sentences" + (
            "" if live else "; start the search again"
        )
    yield f"report: {run.path / 'report.html'}"


def _last_end(start: Mapping[str, Any]) -> str:
    """Return how the search last ended."""
    ended = start.get("ended")
    if not isinstance(ended, datetime):
        return _INTERRUPTED
    return f"ended by {start.get('by')}, {ended.astimezone():%Y-%m-%d %H:%M}"


def recent_rate(outcome: Outcome) -> float:
    """Return the maps finished a second, over the ten minutes before the last one."""
    ends = sorted(trial.finished_s for trial in outcome.trials)
    recent = [end for end in ends if end >= ends[-1] - _RATE_WINDOW_S]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
