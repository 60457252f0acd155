"""The quality of maps on the holdout."""

from __future__ import annotations

from objectives.scores import divergences, predictions, worst_divergence
from results.outcome import HoldoutScores
from results.statistics.bootstrap import Resamples
from results.statistics.confusion import mcc_draws
from results.statistics.intervals import Estimate, compare, stack_log_odds


def holdout_estimates(holdout: HoldoutScores | None, margin: float) -> dict[int, Estimate]:
    """Return the quality of maps on the holdout by trial number; empty if it is unscored or withdrawn."""
    if holdout is None or holdout.withdrawn:
        return {}
    log_odds = stack_log_odds(list(holdout.log_odds.values()), holdout.labels.size)
    losses = divergences(log_odds, holdout.fp32_log_odds)
    damages = Resamples.draw(holdout.labels, holdout.in_domain).mean(losses)
    intervals = damages.intervals(worst_divergence(holdout.fp32_log_odds))
    fp32_answers = predictions(holdout.fp32_log_odds) == 1
    estimates = {}
    for at, (number, answers) in enumerate(zip(holdout.log_odds, predictions(log_odds) == 1, strict=True)):
        drawn = mcc_draws(holdout.labels, answers)
        estimates[number] = Estimate(
            mcc=drawn.point,
            mcc_interval=drawn.interval(),
            damage=float(damages.point[at]),
            damage_interval=intervals[at],
            against_fp32=compare(holdout.labels, answers, fp32_answers, margin),
        )
    return estimates
