"""95% intervals of scores over the sentences, and paired comparisons.

Notation: d = MCC(map) - MCC(other) on the same sentences. ``no_worse`` is the confidence that d >= -margin. It and the
intervals of MCC come from counts (:mod:`results.statistics.confusion`), those of damage from the BCa bootstrap
(:mod:`results.statistics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, LogOdds, divergences, predictions, worst_divergence
from results.statistics.bootstrap import Interval, Resamples
from results.statistics.confusion import Answers, mcc_draws


@dataclass(frozen=True)
class Intervals:
    """The 95% intervals of a map's MCC and damage (nats a sentence)."""

    mcc: Interval
    damage: Interval


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two maps' MCC on the same sentences; above 0 the first is better.

    Attributes:
        difference: in MCC.
        interval: its 95% interval.
        no_worse: the confidence, 0..1, that the first is no worse by more than the margin.
        margin: in MCC, 0 or more.
    """

    difference: float
    interval: Interval
    no_worse: float
    margin: float


@dataclass(frozen=True)
class Estimate:
    """A quality on sentences that had no part in the choice of the map, with 95% intervals.

    Attributes:
        mcc: the MCC.
        mcc_interval: its interval.
        damage: nats a sentence.
        damage_interval: its interval.
        against_fp32: the MCC against FP32's on the same sentences.
    """

    mcc: float
    mcc_interval: Interval
    damage: float
    damage_interval: Interval
    against_fp32: Comparison


def compare(labels: Labels, answers: Answers, others: Answers, margin: float) -> Comparison:
    """Compare the MCC of a map with that of another on the same sentences.

    Args:
        labels: ``(n_sentences,)`` of 0 and 1.
        answers: whether the map accepts each sentence, ``(n_sentences,)``.
        others: the same of the other map.
        margin: the accepted loss of MCC, 0 or more.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    drawn = mcc_draws(labels, answers, others)
    return Comparison(drawn.point, drawn.interval(), drawn.confidence_above(-margin), margin)


def mcc_interval(labels: Labels, answers: Answers) -> Interval:
    """Return the 95% interval of the MCC of a map that accepts ``(n_sentences,)``; errors as of ``mcc_draws``."""
    return mcc_draws(labels, answers).interval()


def score_intervals(
    log_odds: LogOdds, fp32_log_odds: LogOdds, labels: Labels, in_domain: npt.NDArray[np.bool_] | None
) -> Intervals:
    """Return the intervals of one map.

    Args:
        log_odds: ``(n_sentences,)``.
        fp32_log_odds: ``(n_sentences,)`` of the FP32 model.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say; damage is resampled within each label and
            domain.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    losses = divergences(log_odds, fp32_log_odds)
    [damage] = Resamples.draw(labels, in_domain).mean(losses[np.newaxis]).intervals(worst_divergence(fp32_log_odds))
    return Intervals(mcc_interval(labels, predictions(log_odds) == 1), damage)


def stack_log_odds(rows: Sequence[npt.NDArray[np.float32]], n_sentences: int) -> npt.NDArray[np.float32]:
    """Return the log-odds of maps as ``(n_maps, n_sentences)``; ``rows`` may be empty."""
    return np.stack(rows) if rows else np.empty((0, n_sentences), dtype=np.float32)
