"""The quality of maps on the holdout."""

from __future__ import annotations

import numpy as np

from objectives.scores import divergences, predictions
from results.outcome import HoldoutScores
from results.statistics.bootstrap import Resamples
from results.statistics.intervals import Estimate, compare, score_intervals, stack_log_odds


def holdout_estimates(holdout: HoldoutScores | None, margin: float) -> dict[int, Estimate]:
    """Return the quality of maps on the holdout by trial number; empty if it is unscored or withdrawn."""
    if holdout is None or holdout.withdrawn:
        return {}
    log_odds = stack_log_odds(list(holdout.log_odds.values()), holdout.labels.size)
    resamples = Resamples.draw(holdout.labels, holdout.in_domain)
    losses = divergences(log_odds, holdout.fp32_log_odds)
    mccs, intervals = score_intervals(resamples, predictions(log_odds) == 1, losses)
    against = compare(mccs, resamples.mcc((predictions(holdout.fp32_log_odds) == 1)[np.newaxis]), margin)
    return {
        number: Estimate(float(mcc), interval.mcc, float(loss.mean()), interval.damage, comparison)
        for number, mcc, interval, loss, comparison in zip(
            holdout.log_odds, mccs.point, intervals, losses, against, strict=True
        )
    }
