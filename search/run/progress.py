"""The progress of a search: its limits and phases, what displays them, and the file for `bitfront status`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from objectives.files import write_text
from results.formatting import duration
from search.run.profile import Profile
from search.run.run_directory import RunDirectory

log = logging.getLogger("bitfront")

REFRESH_S = 30.0
"""Least number of seconds between two updates of the run's files."""

BY_SIGNAL, BY_BUDGET, BY_NO_MAP, BY_GAIN = (
    "a signal",
    "its budget",
    "running out of maps",
    "having hardly anything left to gain",
)
"""What run.toml gives as the end of a start."""

PREPARING, BASELINES, SEARCHING, IN_FP32, ON_UNSEEN, ON_HOLDOUT, REPORTING, DISTILLING = (
    "preparing",
    "scoring baselines",
    "searching",
    "confirming in FP32",
    "scoring on unseen sentences",
    "scoring on the holdout set",
    "writing the report",
    "distilling",
)
"""The phases of a search by name; those of the sensitivities are named where they are measured."""

ReportPhase = Callable[[str, int, int, float | None], object]
"""Takes a phase's name, how much of it is done, of how much (0 if unknown), and the seconds left (None if unknown)."""

_RECORD_EVERY_S = 5.0

CHECKS_SHARE = 0.2
"""The largest share of a start's time that the final checks may take."""
_LEAST_S = 300.0


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        trials: maps evaluated in the run so far, over all its starts.
        trial_limit: how many the run may have; 0 for no limit.
        elapsed_s: seconds since this start of the search.
        left_s: seconds left by the time limit or the rate; None if neither is known.
        rate_per_s: maps evaluated a second in this start.
        front: the front in one line, as of the last update of the files; empty before the first.
        checks_s: the most seconds that the final checks will take after that; 0 if unknown.
    """

    trials: int
    trial_limit: int
    elapsed_s: float
    left_s: float | None
    rate_per_s: float
    front: str
    checks_s: float = 0.0


@dataclass(frozen=True)
class Phase:
    """One phase of a search.

    Attributes:
        name: its name.
        done: how much of it is done.
        total: of how much; 0 if unknown.
        left_s: seconds left; None if unknown.
        share: what share of the run's time it takes, in words; empty if unknown.
    """

    name: str
    done: int = 0
    total: int = 0
    left_s: float | None = None
    share: str = ""

    @property
    def line(self) -> str:
        """The phase as ``measuring sensitivities: 49/152, 12 min left``."""
        count = f": {self.done:,}/{self.total:,}" if self.total else ""
        left = f", {duration(self.left_s)} left" if self.left_s is not None else ""
        return f"{self.name}{count}{left}" + (f", {self.share}" if self.share else "")


def time_left(trials: int, trial_limit: int, rate_per_s: float, hours: float, elapsed_s: float) -> float | None:
    """Return the seconds left by the trial limit at this rate, or by the time limit; None if neither is known."""
    left = [(trial_limit - trials) / rate_per_s] if trial_limit and rate_per_s else []
    left += [3600 * hours - elapsed_s] if hours else []
    return max(0.0, min(left)) if left else None


def checks_limit_s(searched_s: float) -> float:
    """Return the most seconds that the final checks may take after a start has searched for ``searched_s`` seconds."""
    return max(_LEAST_S, searched_s * CHECKS_SHARE / (1 - CHECKS_SHARE))


@dataclass(frozen=True)
class Budget:
    """The limits of this start of a search; a signal ends it too."""

    profile: Profile
    started: float
    should_stop: Callable[[], bool]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def is_over(self) -> bool:
        """Return whether the time is up or a signal has come."""
        limit_s = self.profile.hours * 3600
        return self.should_stop() or bool(limit_s and self.elapsed_s >= limit_s)

    def allows(self, trials: int) -> bool:
        """Return whether the search may go on after this many trials."""
        return not (self.is_over() or (self.profile.trials and trials >= self.profile.trials))

    def share(self, phase_s: float, left_s: float, trials: int, trial_s: float | None) -> str:
        """Return what share of this start's time a phase takes, as ``about 15% of the 8 hours``; empty if unknown.

        Args:
            phase_s: seconds that the whole phase takes.
            left_s: those that are left of it.
            trials: maps evaluated in the run so far.
            trial_s: seconds that a map takes; None if unknown.
        """
        limit_s, limit_trials = 3600 * self.profile.hours, self.profile.trials
        trials_s = float("inf")  # what the trial limit allows
        if limit_trials and trial_s is not None:
            trials_s = self.elapsed_s + left_s + max(0, limit_trials - trials) * trial_s
        run_s = min(limit_s or float("inf"), trials_s)
        if run_s == float("inf"):
            return ""
        percent = round(100 * phase_s / run_s)
        hours = self.profile.hours
        whole = f"the {hours:g} hour{'' if hours == 1 else 's'}" if run_s == limit_s else "the search"
        return f"about {percent}% of {whole}" if percent else f"under 1% of {whole}"

    def progress(self, trials: int, rate_per_s: float, front: str, check_passes: float) -> Progress:
        """Return how far the search is; ``check_passes`` is what the final checks score, in maps of the search."""
        profile, elapsed_s = self.profile, self.elapsed_s
        left_s = time_left(trials, profile.trials, rate_per_s, profile.hours, elapsed_s)
        limit_s = checks_limit_s(elapsed_s + (left_s or 0.0))
        checks_s = min(check_passes / rate_per_s, limit_s) if rate_per_s else limit_s
        return Progress(trials, profile.trials, elapsed_s, left_s, rate_per_s, front, checks_s)


def paced(report: ReportPhase, name: str) -> Callable[[int, int], None]:
    """Return a function that reports a phase by its counts, with the time left at the pace since its first call."""
    first: list[tuple[int, float]] = []

    def report_counts(done: int, total: int) -> None:
        now = time.monotonic()
        first.append((done, now))
        began_done, began = first[0]
        left_s = (now - began) * (total - done) / (done - began_done) if done > began_done else None
        report(name, done, total, left_s)

    return report_counts


def with_share(phases: PhaseRecord, budget: Budget, trials: int, trial_s: float | None) -> ReportPhase:
    """Return a function that reports phases with their shares of the run's time.

    Args:
        phases: gets the reports.
        budget: the limits of this start.
        trials: maps evaluated in the run so far.
        trial_s: seconds that a map takes; None if unknown.
    """
    began: dict[str, float] = {}

    def report(name: str, done: int, total: int, left_s: float | None) -> None:
        now = time.monotonic()
        phase_s = now - began.setdefault(name, now)
        share = "" if left_s is None else budget.share(phase_s + left_s, left_s, trials, trial_s)
        phases(name, done, total, left_s, share)

    return report


class Display(Protocol):
    """Shows the progress of a search."""

    def phase(self, phase: Phase) -> None:
        """Show a phase other than the search itself."""

    def trials(self, progress: Progress) -> None:
        """Show the progress after a trial."""


class PhaseRecord:
    """Shows the phases of a search, and writes the present one into the run's directory for ``bitfront status``.

    A new run has no directory before its model is loaded, and no phase is written before there is one.
    """

    def __init__(self, run: RunDirectory, display: Display) -> None:
        """Begin with no phase."""
        self._run, self._display = run, display
        self._recorded, self._recorded_at = "", float("-inf")

    def __call__(self, name: str, done: int = 0, total: int = 0, left_s: float | None = None, share: str = "") -> None:
        """Show and record a phase."""
        phase = Phase(name, done, total, left_s, share)
        self._display.phase(phase)
        self._record(phase)

    def trials(self, progress: Progress) -> None:
        """Show and record the search itself."""
        self._display.trials(progress)
        self._record(Phase(SEARCHING, progress.trials, progress.trial_limit, progress.left_s), progress.checks_s)

    def end(self) -> None:
        """Remove the record: the search has ended."""
        with suppress(OSError):  # the search's own error is the one to show; without a lock, nobody reads the record
            self._run.phase.unlink(missing_ok=True)

    def _record(self, phase: Phase, checks_s: float = 0.0) -> None:
        now = time.monotonic()
        due = phase.name != self._recorded or now - self._recorded_at >= _RECORD_EVERY_S
        if not due or not self._run.settings.is_file():
            return
        self._recorded, self._recorded_at = phase.name, now
        try:
            write_text(self._run.phase, json.dumps({**asdict(phase), "checks_s": checks_s, "at": time.time()}) + "\n")
        except OSError as error:  # only `bitfront status` misses it; what matters fails by itself on a full disk
            log.debug("cannot write %s: %s", self._run.phase, error)


def read_phase(run: RunDirectory) -> tuple[Phase, float] | None:
    """Return the phase that a running search has recorded, and the most seconds its final checks will take.

    The time left is counted down to now. None if there is no record, or another version wrote it.
    """
    try:
        record = json.loads(run.phase.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    number = int | float
    kinds = {"name": str, "done": int, "total": int, "left_s": number | None, "share": str}
    kinds |= {"checks_s": number, "at": number}
    if not isinstance(record, dict) or not all(key in record and isinstance(record[key], kinds[key]) for key in kinds):
        return None
    left_s = record["left_s"]
    if left_s is not None:
        left_s = max(0.0, left_s - max(0.0, time.time() - record["at"]))
    return Phase(record["name"], record["done"], record["total"], left_s, record["share"]), float(record["checks_s"])
