"""The progress of a search, and the protocol of what displays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

REFRESH_S = 30.0
"""Least number of seconds between two updates of the run's files."""
BY_SIGNAL = "a signal"
"""What run.toml gives as the end of a start that a signal stopped."""


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
    """

    trials: int
    trial_limit: int
    elapsed_s: float
    left_s: float | None
    rate_per_s: float
    front: str


def time_left(trials: int, trial_limit: int, rate_per_s: float, hours: float, elapsed_s: float) -> float | None:
    """Return the seconds left by the trial limit at this rate, or by the time limit; None if neither is known."""
    left = [(trial_limit - trials) / rate_per_s] if trial_limit and rate_per_s else []
    left += [3600 * hours - elapsed_s] if hours else []
    return max(0.0, min(left)) if left else None


class Display(Protocol):
    """Shows the progress of a search."""

    def sensitivities(self, done: int, total: int) -> None:
        """Show how many sensitivities are measured."""

    def trials(self, progress: Progress) -> None:
        """Show the progress after a trial."""

    def final_check(self, step: str, done: int, total: int) -> None:
        """Show how many maps one step of the final checks has scored."""
