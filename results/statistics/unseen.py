"""Damage on sentences that the search has not seen, and the sampler's gain over the knapsack there.

Notation, for the sizes s of the knapsack's maps:
    d(s): the mean damage of the knapsack's map of size s.
    e(s): the mean damage of the sampler's best map of that size or less, chosen and scored on different sentences.
    The gain is exp(mean over s of (log e(s) - log d(s))), and its interval is that of the mean, transformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from objectives.heads import Head
from results.outcome import Outcome, Unseen
from results.statistics.bootstrap import Bootstrapped, Interval, Resamples

_MIN_DAMAGE = 1e-12  # nats, so that a damage of 0 has a logarithm


@dataclass(frozen=True)
class UnseenDamage:
    """A map's mean damage on unseen sentences, nats a sentence, and its 95% interval over the sentences."""

    damage: float
    interval: Interval


@dataclass(frozen=True)
class Gain:
    """The sampler's damage over the knapsack's on unseen sentences; below 1 the sampler is better.

    Attributes:
        ratio: the geometric mean over sizes.
        interval: 95%, over the sentences.
        sizes: the number of sizes.
    """

    ratio: float
    interval: Interval
    sizes: int


def unseen_losses(unseen: Unseen | None, head: Head) -> dict[int, npt.NDArray[np.float64]]:
    """Return the divergence from FP32 on each unseen sentence, ``(n_sentences,)`` in nats, by trial number."""
    if unseen is None:
        return {}
    return {number: head.divergences(log_odds, unseen.fp32_log_odds) for number, log_odds in unseen.log_odds.items()}


def unseen_damages(unseen: Unseen | None, head: Head) -> dict[int, UnseenDamage]:
    """Return the damage on unseen sentences by trial number."""
    losses = unseen_losses(unseen, head)
    if unseen is None or not losses:
        return {}
    means = mean_losses(list(losses.values()))
    intervals = means.intervals(head.worst_divergence(unseen.fp32_log_odds))
    return {
        number: UnseenDamage(float(damage), interval)
        for number, damage, interval in zip(losses, means.point, intervals, strict=True)
    }


def gain_over_knapsack(outcome: Outcome) -> Gain | None:
    """Compare each of the knapsack's maps with the sampler's best map of that size or less.

    None without such a pair, or if a map does no damage at all: there is no ratio then.

    The even sentences choose the best map and the odd ones score it, and the other way round. So choosing among many
    maps is no advantage.
    """
    axis, losses = outcome.size_axis, unseen_losses(outcome.unseen, outcome.head)
    scored = [trial for trial in outcome.trials if trial.number in losses and trial.feasible]
    sampled = [trial for trial in scored if trial.origin == "sampler"]
    sampler_losses, knapsack_losses = [], []
    for knapsack in (trial for trial in scored if trial.origin == "plain"):
        rivals = [losses[trial.number] for trial in sampled if trial.compression(axis) >= knapsack.compression(axis)]
        if not rivals:
            continue
        rival_losses = np.array(rivals)
        even = np.arange(rival_losses.shape[1]) % 2 == 0
        for scoring in (even, ~even):
            best = rival_losses[np.argmin(rival_losses[:, ~scoring].mean(axis=1))]
            sampler_losses.append(best * scoring)
            knapsack_losses.append(losses[knapsack.number] * scoring)
    if not sampler_losses:
        return None
    ours, theirs = mean_losses(sampler_losses), mean_losses(knapsack_losses)
    if not (ours.point.all() and theirs.point.all()):
        return None
    difference = _mean_logarithm(ours) - _mean_logarithm(theirs)
    [interval] = difference.intervals()
    low, high = float(np.exp(interval.low)), float(np.exp(interval.high))
    return Gain(float(np.exp(difference.point[0])), Interval(low, high), len(sampler_losses) // 2)


def _mean_logarithm(means: Bootstrapped) -> Bootstrapped:
    """Return the mean of log(statistic) over maps, as the statistic of a single map."""
    point, replicates, jackknife = (
        np.log(np.maximum(values, _MIN_DAMAGE)) for values in (means.point, means.replicates, means.jackknife)
    )
    averages = (
        point.mean(keepdims=True),
        replicates.mean(axis=1, keepdims=True),
        jackknife.mean(axis=0, keepdims=True),
    )
    return Bootstrapped(*averages, means.strata)


def mean_losses(losses: Sequence[npt.NDArray[np.float64]]) -> Bootstrapped:
    """Return the means of losses, ``(n_sentences,)`` each, all on the same draws of the unseen sentences."""
    values = np.array(losses)
    return _draws(values.shape[1]).mean(values)


@lru_cache(maxsize=1)  # an analysis uses them several times
def _draws(n_sentences: int) -> Resamples:
    """Return draws in one stratum, since unseen sentences have no labels."""
    return Resamples.draw(np.zeros(n_sentences, dtype=np.int8))
