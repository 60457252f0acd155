"""95% intervals of scores over the sentences, and paired comparisons.

Notation: d = MCC(map) - MCC(other), both on the same draws of the sentences. ``no_worse`` is the confidence that
d >= -margin, and the interval is that of d; both are of the BCa bootstrap (:mod:`results.statistics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, LogOdds, predictions
from results.statistics.bootstrap import Bootstrapped, Floats, Interval, Resamples


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


def compare(maps: Bootstrapped, others: Bootstrapped, margin: float) -> list[Comparison]:
    """Compare the MCC of each map with that of another, on the same draws.

    Args:
        maps: the MCC of ``n_maps`` maps.
        others: the MCC of one other map, or of one for each.
        margin: the accepted loss of MCC, 0 or more.
    """
    differences = maps - others
    return [
        Comparison(float(difference), interval, float(confidence), margin)
        for difference, interval, confidence in zip(
            differences.point, differences.intervals(), differences.confidence_above(-margin), strict=True
        )
    ]


def mcc_interval(log_odds: LogOdds, labels: Labels, in_domain: npt.NDArray[np.bool_] | None = None) -> Interval:
    """Return the 95% interval of the MCC, over sentences resampled within each label and domain.

    Args:
        log_odds: ``(n_sentences,)``.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    accepted = (predictions(log_odds) == 1)[np.newaxis]
    return Resamples.draw(labels, in_domain).mcc(accepted).intervals()[0]


def damage_interval(losses: Floats, labels: Labels, in_domain: npt.NDArray[np.bool_] | None = None) -> Interval:
    """Return the 95% interval of the damage, in nats a sentence, on the draws of :func:`mcc_interval`.

    Args:
        losses: divergences from FP32, ``(n_sentences,)``, nats.
        labels: ``(n_sentences,)`` of 0 and 1.
        in_domain: ``(n_sentences,)``, or None if the sentences do not say.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    return Resamples.draw(labels, in_domain).mean(losses[np.newaxis]).intervals()[0]


def score_intervals(
    resamples: Resamples, accepted: npt.NDArray[np.bool_], losses: Floats
) -> tuple[Bootstrapped, list[Intervals]]:
    """Return the MCC of maps on each draw, for comparisons, and the intervals of their MCC and damage.

    Args:
        resamples: the draws.
        accepted: the sentences that each map accepts, ``(n_maps, n_sentences)``.
        losses: their divergences from FP32, ``(n_maps, n_sentences)``, nats.
    """
    mccs = resamples.mcc(accepted)
    damages = resamples.mean(losses).intervals()
    return mccs, [Intervals(mcc, damage) for mcc, damage in zip(mccs.intervals(), damages, strict=True)]


def stack_log_odds(rows: Sequence[npt.NDArray[np.float32]], n_sentences: int) -> npt.NDArray[np.float32]:
    """Return the log-odds of maps as ``(n_maps, n_sentences)``; ``rows`` may be empty."""
    return np.stack(rows) if rows else np.empty((0, n_sentences), dtype=np.float32)
