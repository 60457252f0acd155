"""95% intervals of scores over the sentences, and paired comparisons.

Notation: d = metric(map) - metric(other) on the same sentences. ``no_worse`` is the confidence that d >= -margin. It
and the intervals of the metric come from random weights (:mod:`results.statistics.metric_draws`), those of damage from
the BCa bootstrap (:mod:`results.statistics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, LogOdds
from results.statistics.bootstrap import Interval, Resamples
from results.statistics.confusion import Answers
from results.statistics.metric_draws import MCC, TaskMetric


@dataclass(frozen=True)
class Intervals:
    """The 95% intervals of a map's metric and damage (nats a sentence)."""

    metric: Interval
    damage: Interval


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two maps' metric on the same sentences; above 0 the first is better.

    Attributes:
        difference: in units of the metric.
        interval: its 95% interval.
        no_worse: the confidence, 0..1, that the first is no worse by more than the margin.
        margin: in units of the metric, 0 or more.
    """

    difference: float
    interval: Interval
    no_worse: float
    margin: float


@dataclass(frozen=True)
class Estimate:
    """A quality on sentences that had no part in the choice of the map, with 95% intervals.

    Attributes:
        metric: the task's metric.
        metric_interval: its interval.
        damage: nats a sentence.
        damage_interval: its interval.
        against_fp32: the metric against FP32's on the same sentences.
    """

    metric: float
    metric_interval: Interval
    damage: float
    damage_interval: Interval
    against_fp32: Comparison


def compare(task: TaskMetric, labels: Labels, answers: Answers, others: Answers, margin: float) -> Comparison:
    """Compare the metric of a map with that of another on the same sentences.

    Args:
        task: the metric.
        labels: ``(n_sentences, *head.label_shape)``.
        answers: the map's predictions, in the same shape.
        others: those of the other map.
        margin: the accepted loss of the metric, 0 or more.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    drawn = task.draws(labels, answers, others)
    return Comparison(drawn.point, drawn.interval(), drawn.confidence_above(-margin), margin)


def score_intervals(
    log_odds: LogOdds,
    fp32_log_odds: LogOdds,
    labels: Labels,
    in_domain: npt.NDArray[np.bool_] | None,
    task: TaskMetric = MCC,
) -> Intervals:
    """Return the intervals of one map.

    Args:
        log_odds: the outputs, ``(n_sentences, *head.shape)``.
        fp32_log_odds: those of the FP32 model.
        labels: ``(n_sentences, *head.label_shape)``.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say; damage is resampled within each label and
            domain.
        task: the metric.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    head = task.head
    losses = head.divergences(log_odds, fp32_log_odds)
    worst = head.worst_divergence(fp32_log_odds)
    [damage] = Resamples.draw(labels, in_domain).mean(losses[np.newaxis]).intervals(worst)
    return Intervals(task.draws(labels, head.predictions(log_odds)).interval(), damage)


def stack_log_odds(rows: Sequence[LogOdds], like: LogOdds) -> LogOdds:
    """Return the outputs of maps as ``(n_maps, *like.shape)``; ``rows`` may be empty."""
    return np.stack(rows) if rows else np.empty((0, *like.shape), dtype=np.float32)
