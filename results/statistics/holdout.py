"""The quality of maps on the holdout."""

from __future__ import annotations

from results.outcome import HoldoutScores
from results.statistics.bootstrap import Resamples
from results.statistics.intervals import Estimate, compare, stack_log_odds
from results.statistics.metric_draws import TaskMetric


def holdout_estimates(holdout: HoldoutScores | None, margin: float, task: TaskMetric) -> dict[int, Estimate]:
    """Return the quality of maps on the holdout by trial number; empty if it is unscored or withdrawn."""
    if holdout is None or holdout.withdrawn:
        return {}
    log_odds = stack_log_odds(list(holdout.log_odds.values()), holdout.fp32_log_odds)
    head = task.head
    losses = head.divergences(log_odds, holdout.fp32_log_odds)
    damages = Resamples.draw(holdout.labels, holdout.in_domain).mean(losses)
    intervals = damages.intervals(head.worst_divergence(holdout.fp32_log_odds))
    fp32_answers = head.predictions(holdout.fp32_log_odds)
    estimates = {}
    for at, (number, answers) in enumerate(zip(holdout.log_odds, head.predictions(log_odds), strict=True)):
        drawn = task.draws(holdout.labels, answers)
        estimates[number] = Estimate(
            metric=drawn.point,
            metric_interval=drawn.interval(),
            damage=float(damages.point[at]),
            damage_interval=intervals[at],
            against_fp32=compare(task, holdout.labels, answers, fp32_answers, margin),
        )
    return estimates
