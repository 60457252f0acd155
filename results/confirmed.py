"""What the confirmation sentences tell, once they have been opened."""

from __future__ import annotations

import numpy as np

from objectives.scores import divergences, predictions
from results.bootstrap import Resamples
from results.outcome import Confirmation
from results.statistics import Estimate, compare, score_intervals, stacked


def confirmed_estimates(opened: Confirmation | None, margin: float) -> dict[int, Estimate]:
    """Return the confirmed quality of maps by trial number; of none where the sentences confirm nothing any more."""
    if opened is None or opened.withdrawn:
        return {}
    log_odds = stacked(list(opened.log_odds.values()), opened.labels.size)
    resamples = Resamples.draw(opened.labels, opened.in_domain)
    losses = divergences(log_odds, opened.fp32_log_odds)
    mccs, intervals = score_intervals(resamples, predictions(log_odds) == 1, losses)
    against = compare(mccs, resamples.mcc((predictions(opened.fp32_log_odds) == 1)[np.newaxis]), margin)
    return {
        number: Estimate(float(mcc), interval.mcc, float(loss.mean()), interval.damage, comparison)
        for number, mcc, interval, loss, comparison in zip(
            opened.log_odds, mccs.point, intervals, losses, against, strict=True
        )
    }
