"""How far a search is, and what displays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

REFRESH_S = 30.0
"""Seconds between two rewrites of the run's files, at least."""
BY_SIGNAL = "a signal"
"""How run.toml names a signal that ended a start."""


@dataclass(frozen=True)
class Progress:
    """Where a search stands.

    Attributes:
        trials: maps evaluated in the run so far.
        trials_wanted: how many there shall be; 0 for no limit.
        elapsed_s: seconds since this start.
        left_s: seconds left, by the time limit or the rate of this start; None if neither says.
        rate_per_s: maps evaluated a second in this start.
        front: the front in one line, as of the last refresh of the files; empty before the first.
    """

    trials: int
    trials_wanted: int
    elapsed_s: float
    left_s: float | None
    rate_per_s: float
    front: str


class Display(Protocol):
    """Where a search shows how far it is."""

    def sensitivities(self, done: int, wanted: int) -> None:
        """Show how many sensitivities are measured."""

    def trials(self, progress: Progress) -> None:
        """Show where the search stands after a trial."""

    def closing(self, what: str, done: int, wanted: int) -> None:
        """Show how far a check after the search is, in maps."""
