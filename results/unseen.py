"""What maps do on sentences that the search has not seen, and how the sampler's compare with plain allocation there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import divergences
from results.bootstrap import Bootstrapped, Interval, Resamples
from results.outcome import Outcome, Trial, Unseen

_LEAST = 1e-12  # nats: a damage of nothing has a logarithm too


@dataclass(frozen=True)
class UnseenDamage:
    """A map's mean damage on unseen sentences, nats a sentence, and its 95% interval over the sentences."""

    damage: float
    interval: Interval


@dataclass(frozen=True)
class Gain:
    """The sampler's damage over plain allocation's on unseen sentences: below 1 the search was worth it.

    Attributes:
        ratio: the geometric mean over sizes.
        interval: 95%, over the sentences.
        sizes: how many sizes it was compared at.
    """

    ratio: float
    interval: Interval
    sizes: int


def unseen_losses(unseen: Unseen | None) -> dict[int, npt.NDArray[np.float64]]:
    """Return the divergence from FP32 on each unseen sentence, ``(n_sentences,)`` in nats, by trial number."""
    if unseen is None:
        return {}
    return {number: divergences(log_odds, unseen.fp32_log_odds) for number, log_odds in unseen.log_odds.items()}


def unseen_damages(unseen: Unseen | None) -> dict[int, UnseenDamage]:
    """Return the damage on unseen sentences by trial number, each with its interval over the sentences."""
    losses = unseen_losses(unseen)
    if not losses:
        return {}
    means = mean_losses(list(losses.values()))
    return {
        number: UnseenDamage(float(damage), interval)
        for number, damage, interval in zip(losses, means.point, means.intervals(), strict=True)
    }


def gain_over_plain(outcome: Outcome) -> Gain | None:
    """Compare the sampler's best map of the size of each plain allocation, or less, with it; None without either.

    Which of the sampler's maps is best is chosen on every other sentence and judged on the rest, and the other way
    round, so that choosing among many maps is no advantage.
    """
    losses = unseen_losses(outcome.unseen)
    scored = [trial for trial in outcome.trials if trial.number in losses and trial.feasible]
    sampled = [trial for trial in scored if trial.origin == "sampler"]
    own, plain = [], []
    for rival in scored:
        within = _no_larger(outcome, sampled, rival)
        if rival.origin != "plain" or not within:
            continue
        damages = np.array([losses[trial.number] for trial in within])
        even = np.arange(damages.shape[1]) % 2 == 0
        for judged in (even, ~even):
            best = damages[np.argmin(damages[:, ~judged].mean(axis=1))]
            own.append(best * judged)
            plain.append(losses[rival.number] * judged)
    if not own:
        return None
    difference = _mean_logarithm(mean_losses(own)) - _mean_logarithm(mean_losses(plain))
    [interval] = difference.intervals()
    low, high = float(np.exp(interval.low)), float(np.exp(interval.high))
    return Gain(float(np.exp(difference.point[0])), Interval(low, high), len(own) // 2)


def _mean_logarithm(means: Bootstrapped) -> Bootstrapped:
    """Return the mean over maps of the logarithms of a statistic, as a statistic of one map."""
    point, replicates, jackknife = (
        np.log(np.maximum(values, _LEAST)) for values in (means.point, means.replicates, means.jackknife)
    )
    averages = (
        point.mean(keepdims=True),
        replicates.mean(axis=1, keepdims=True),
        jackknife.mean(axis=0, keepdims=True),
    )
    return Bootstrapped(*averages, means.strata)


def _no_larger(outcome: Outcome, trials: Sequence[Trial], rival: Trial) -> list[Trial]:
    compression = rival.compression(outcome.size_axis)
    return [trial for trial in trials if trial.compression(outcome.size_axis) >= compression]


def mean_losses(losses: Sequence[npt.NDArray[np.float64]]) -> Bootstrapped:
    """Return the means of losses, ``(n_sentences,)`` each, on the same draws of the unseen sentences.

    These have no labels to be drawn within.
    """
    values = np.array(losses)
    return Resamples.draw(np.zeros(values.shape[1], dtype=np.int8)).mean(values)
