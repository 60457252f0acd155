"""How damage spreads over the sentences: its mean hides the few that change much."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from results.outcome import Trial
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import Floats


@dataclass(frozen=True)
class Spread:
    """The divergence from FP32 over the sentences, in nats.

    Attributes:
        standard_error: of its mean, the damage; NaN for a single sentence.
        of_99_percent: what 99% of the sentences stay within.
        largest: of any sentence.
    """

    standard_error: float
    of_99_percent: float
    largest: float

    @classmethod
    def of(cls, losses: Floats) -> Spread:
        """Return the spread of losses ``(n_sentences,)``."""
        count = len(losses)
        error = float(losses.std(ddof=1)) / sqrt(count) if count > 1 else float("nan")
        return cls(error, float(np.quantile(losses, 0.99, method="higher")), float(losses.max()))


def seen_spread(analysis: Analysis, trial: Trial) -> Spread | None:
    """Return the spread on the search's sentences; None for a failed trial."""
    if trial.scores is None:
        return None
    return Spread.of(analysis.candidates.losses[np.searchsorted(analysis.candidates.numbers, trial.number)])


def unseen_spread(analysis: Analysis, trial: Trial) -> Spread | None:
    """Return the spread on unseen sentences; None if the map was not scored there."""
    unseen = analysis.outcome.unseen
    if unseen is None or trial.number not in unseen.log_odds:
        return None
    return Spread.of(analysis.outcome.head.divergences(unseen.log_odds[trial.number], unseen.fp32_log_odds))
