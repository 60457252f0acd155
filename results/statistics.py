"""How sure a score is: 95% intervals over the sentences that it was measured on. Pure and seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, LogOdds, divergences, mcc_of_counts, predictions
from results.outcome import Trial

CONFIDENCE = 0.95
MCC_RESAMPLES = 5000
DAMAGE_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A closed interval in the units of its score.

    Raises:
        ValueError: ``low`` is above ``high``, or one is NaN.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, not {self.low} and {self.high}")


@dataclass(frozen=True)
class Intervals:
    """The 95% intervals of one map: its MCC, and its damage in nats a sentence."""

    mcc: Interval
    damage: Interval


def mcc_interval(log_odds: LogOdds, labels: Labels, *, resamples: int = MCC_RESAMPLES, seed: int = 0) -> Interval:
    """Return the 95% percentile bootstrap interval of the MCC, over sentences resampled within each label.

    The MCC depends on the confusion counts alone, and a sentence drawn with replacement from those of one label is
    predicted right with the share of that label that is right. So the resampled counts are binomial: drawing them is
    exactly the stratified bootstrap over sentences, without touching a sentence.

    Args:
        log_odds: ``(n_sentences,)``.
        labels: ``(n_sentences,)`` of 0 and 1.
        resamples: how often to draw.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    if log_odds.shape != labels.shape or not labels.size:
        raise ValueError(f"an interval needs a log-odds for each sentence: {log_odds.shape} against {labels.shape}")
    accepted = predictions(log_odds) == 1
    positives, negatives = int(np.count_nonzero(labels == 1)), int(np.count_nonzero(labels == 0))
    hit_share = np.count_nonzero(accepted & (labels == 1)) / max(positives, 1)
    alarm_share = np.count_nonzero(accepted & (labels == 0)) / max(negatives, 1)
    random = np.random.default_rng(seed)
    hits = random.binomial(positives, hit_share, size=resamples)
    alarms = random.binomial(negatives, alarm_share, size=resamples)
    low, high = np.percentile(mcc_of_counts(hits, positives - hits, alarms, negatives - alarms), _percentiles())
    return Interval(float(low), float(high))


def damage_interval(
    sentence_divergences: npt.NDArray[np.float64], *, resamples: int = DAMAGE_RESAMPLES, seed: int = 0
) -> Interval:
    """Return the 95% percentile bootstrap interval of the damage, in nats a sentence; never below 0.

    Args:
        sentence_divergences: ``(n_sentences,)``, nats.
        resamples: how often to draw all sentences with replacement.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: not of shape ``(n_sentences,)``, or there is no sentence.
    """
    if sentence_divergences.ndim != 1:
        raise ValueError(f"divergences of one map have shape (n_sentences,), not {sentence_divergences.shape}")
    return damage_intervals(sentence_divergences[np.newaxis], resamples=resamples, seed=seed)[0]


def damage_intervals(
    sentence_divergences: npt.NDArray[np.float64], *, resamples: int = DAMAGE_RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Return :func:`damage_interval` for many maps at once, ``(n_maps, n_sentences)``; all see the same resamples.

    Raises:
        ValueError: not of shape ``(n_maps, n_sentences)``, or there is no sentence.
    """
    if sentence_divergences.ndim != 2 or not sentence_divergences.shape[1]:
        raise ValueError(f"divergences must have shape (n_maps, n_sentences), not {sentence_divergences.shape}")
    n_maps, n_sentences = sentence_divergences.shape
    random = np.random.default_rng(seed)
    means = np.empty((resamples, n_maps))
    for start in range(0, resamples, _CHUNK):
        stop = min(start + _CHUNK, resamples)
        means[start:stop] = _resample_counts(random, stop - start, n_sentences) @ sentence_divergences.T / n_sentences
    lows, highs = np.percentile(means, _percentiles(), axis=0)
    return [Interval(max(float(low), 0.0), max(float(high), 0.0)) for low, high in zip(lows, highs, strict=True)]


def trial_intervals(trials: Sequence[Trial], labels: Labels, fp32_log_odds: LogOdds) -> dict[int, Intervals]:
    """Return the intervals of those trials that have log-odds, by trial number.

    Args:
        trials: whose intervals are wanted.
        labels: ``(n_sentences,)`` of 0 and 1.
        fp32_log_odds: ``(n_sentences,)`` of the FP32 model.
    """
    measured = [(trial.number, trial.log_odds) for trial in trials if trial.log_odds is not None]
    if not measured:
        return {}
    damages = damage_intervals(np.stack([divergences(log_odds, fp32_log_odds) for _, log_odds in measured]))
    return {
        number: Intervals(mcc=mcc_interval(log_odds, labels), damage=damage)
        for (number, log_odds), damage in zip(measured, damages, strict=True)
    }


_CHUNK = 256  # resamples at a time: bounds the memory at tens of MB for 10,000 sentences


def _resample_counts(random: np.random.Generator, resamples: int, n_sentences: int) -> npt.NDArray[np.float64]:
    """Return how often each sentence was drawn, ``(resamples, n_sentences)``: a multinomial, a quarter of its time."""
    drawn = random.integers(n_sentences, size=(resamples, n_sentences))
    drawn += np.arange(resamples)[:, np.newaxis] * n_sentences
    counts = np.bincount(drawn.ravel(), minlength=resamples * n_sentences)
    return counts.reshape(resamples, n_sentences).astype(np.float64)


def _percentiles() -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    return tail, 100 - tail
