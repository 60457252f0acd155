"""What maps do on sentences that the search has not seen, and how the sampler's compare with plain allocation there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.scores import divergences
from results.bootstrap import CONFIDENCE, Interval
from results.outcome import Outcome, Trial, Unseen
from results.statistics import stacked

_RESAMPLES = 2000
_SEED = 0


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


def unseen_damages(unseen: Unseen | None) -> dict[int, UnseenDamage]:
    """Return the damage on unseen sentences by trial number, each with a percentile interval over the sentences."""
    if unseen is None:
        return {}
    losses, drawn = _losses(unseen, list(unseen.log_odds)), _draws(unseen.fp32_log_odds.size)
    means = losses @ drawn.T / drawn.sum(axis=1)
    return {
        number: UnseenDamage(float(own.mean()), _interval(draws))
        for number, own, draws in zip(unseen.log_odds, losses, means, strict=True)
    }


def gain_over_plain(outcome: Outcome) -> Gain | None:
    """Compare the sampler's best map of the size of each plain allocation, or less, with it; None without either.

    Which of the sampler's maps is best is chosen on every other sentence and judged on the rest, and the other way
    round, so that choosing among many maps is no advantage.
    """
    unseen = outcome.unseen
    if unseen is None:
        return None
    scored = [trial for trial in outcome.trials if trial.number in unseen.log_odds and trial.feasible]
    plain = [trial for trial in scored if trial.origin == "plain"]
    sampled = [trial for trial in scored if trial.origin == "sampler"]
    losses = dict(zip(unseen.log_odds, _losses(unseen, list(unseen.log_odds)), strict=True))
    halves = np.arange(unseen.fp32_log_odds.size) % 2 == 0
    pairs: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = []
    sizes = 0
    for rival in plain:
        within = _no_larger(outcome, sampled, rival)
        sizes += bool(within)
        for judged in (halves, ~halves):
            if within:
                best = min(within, key=lambda trial: losses[trial.number][~judged].mean())  # called here
                pairs.append((losses[best.number], losses[rival.number], judged))
    if not pairs:
        return None
    everything = np.ones((1, halves.size))
    drawn = _draws(halves.size)
    return Gain(float(np.exp(_log_ratio(pairs, everything)[0])), _interval(np.exp(_log_ratio(pairs, drawn))), sizes)


def _log_ratio(
    pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]],
    drawn: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the mean over pairs of the log of one map's damage over another's, for each draw of the sentences."""
    logs = [
        np.log(np.maximum(drawn[:, judged] @ own[judged], 1e-12))
        - np.log(np.maximum(drawn[:, judged] @ other[judged], 1e-12))
        for own, other, judged in pairs
    ]
    return np.asarray(np.mean(logs, axis=0))


def _no_larger(outcome: Outcome, trials: Sequence[Trial], rival: Trial) -> list[Trial]:
    compression = rival.compression(outcome.size_axis)
    return [trial for trial in trials if trial.compression(outcome.size_axis) >= compression]


def _losses(unseen: Unseen, numbers: Sequence[int]) -> npt.NDArray[np.float64]:
    log_odds = stacked([unseen.log_odds[number] for number in numbers], unseen.fp32_log_odds.size)
    return divergences(log_odds, unseen.fp32_log_odds)


def _draws(n_sentences: int) -> npt.NDArray[np.float64]:
    """Return how often each sentence is drawn, ``(n_resamples, n_sentences)``; the same draws for all maps."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(n_sentences, np.full(n_sentences, 1 / n_sentences), size=_RESAMPLES).astype(np.float64)


def _interval(draws: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
