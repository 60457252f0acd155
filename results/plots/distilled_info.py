"""What plots show of distilled maps, as values that need no plotting library."""

from __future__ import annotations

from dataclasses import dataclass

from results.outcome import Trial
from results.statistics.bootstrap import Interval


@dataclass(frozen=True)
class Change:
    """A figure of a map as searched and as distilled, on the same sentences.

    Attributes:
        before: as searched.
        after: as distilled.
        interval: the 95% interval of ``after``; None if it is unknown.
    """

    before: float
    after: float
    interval: Interval | None


@dataclass(frozen=True)
class DistilledPoint:
    """One distilled map; its size is that of the map as searched.

    Attributes:
        trial: the map as searched.
        trained: ``scales`` or ``weights``.
        damage: nats a sentence, on the sentences of the search.
        metric: the task's, there.
        unseen: damage on the run's unseen sentences; None unless the search scored the map on the same ones.
    """

    trial: Trial
    trained: str
    damage: Change
    metric: Change
    unseen: Change | None

    @property
    def legend(self) -> str:
        """The map's kind, as legends name it."""
        return f"distilled: {self.trained}"
