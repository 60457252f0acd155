"""Intervals of MCC and of paired differences of MCC, from counts of sentences; they hold for few flips and for none.

Where a map changes no prediction, or few, resampling the sentences finds no other outcome and seems certain. Here one
more sentence stands for what was not seen, and it is of the worst kind.

Notation, for a map and another, on n sentences:
    n_yab: the sentences of label y that the map answers with a and the other with b.
    w_yab ~ Gamma(n_yab): random weights of the sentences seen, as in the Bayesian bootstrap.
    e ~ Gamma(1): the weight of the sentence not seen. It is added to one kind yab.
    Within each label the weights are scaled to sum to the label's sentences.
    d = MCC(sum of w over b) - MCC(sum of w over a): the difference; for a single map, its MCC alone.
    The lower end of an interval is the least quantile of d over the kinds in which the map is wrong and the other
    right; the upper end is the greatest over the kinds in which the map is right and the other wrong.

For a rate of errors this is the exact interval of Clopper and Pearson, in its limit of rare errors: without an error in
n sentences the rate is at most 3 / n with 95% confidence. For a mean it is the bound of N. Gaffke, "Three test
statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", Mathematical Methods of
Statistics 14 (2005). How often it is wrong on simulated sentences: `python -m tests.benchmarks luck`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.scores import Labels, mcc_of_counts
from results.statistics.bootstrap import CONFIDENCE, Floats, Interval

DRAWS = 5000

Answers = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MccDraws:
    """The MCC of a map, or its difference to another's, on random weights of the sentences.

    Attributes:
        point: on the sentences themselves.
        low: ``(n_kinds, n_draws)``, with one more sentence of each unfavourable kind.
        high: ``(n_kinds, n_draws)``, with one more sentence of each favourable kind.
        largest: the largest possible value; the smallest is its negative.
    """

    point: float
    low: Floats
    high: Floats
    largest: float

    def interval(self) -> Interval:
        """Return the 95% interval; without sentences of both labels, all that is possible."""
        if not self.low.size:
            return Interval(-self.largest, self.largest)
        tail = (1 - CONFIDENCE) / 2
        low = float(np.quantile(self.low, tail, axis=1).min())
        high = float(np.quantile(self.high, 1 - tail, axis=1).max())
        return Interval(min(low, self.point), max(high, self.point))

    def confidence_above(self, threshold: float) -> float:
        """Return the confidence that the true value is at least a threshold, 0..1; 0 without both labels.

        It is lower by the standard error of the draws, so that their luck makes no claim.
        """
        if not self.low.size:
            return 0.0
        share = float((self.low >= threshold).mean(axis=1).min())
        return max(share - sqrt(share * (1 - share) / self.low.shape[1]), 0.0)


def mcc_draws(labels: Labels, answers: Answers, others: Answers | None = None, *, draws: int = DRAWS) -> MccDraws:
    """Return the MCC of a map, or its difference to another's, on random weights of the sentences.

    The draws depend on the counts n_yab alone: two maps of the same counts have the same interval.

    Args:
        labels: ``(n_sentences,)`` of 0 and 1.
        answers: whether the map accepts each sentence, ``(n_sentences,)``.
        others: the same of another map; None for the MCC of the map itself.
        draws: their number.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    return draws_of(_counts(labels, answers, others), draws)


def draws_of(counts: Counts, draws: int = DRAWS) -> MccDraws:
    """Return the draws for counts n_yab, ``(2, 2, 2)``, or ``(2, 2, 1)`` for a map alone."""
    return _draws_of(tuple(counts.ravel().tolist()), draws)


@lru_cache(maxsize=256)  # folds and comparisons ask for the same counts again
def _draws_of(flat: tuple[int, ...], draws: int) -> MccDraws:
    counts = np.array(flat).reshape(2, 2, -1)
    paired = counts.shape[-1] == 2
    point, largest = float(difference(counts)), 2.0 if paired else 1.0
    if not counts.any(axis=(1, 2)).all():  # the MCC is undefined without one of the labels
        return MccDraws(point, np.empty((0, 0)), np.empty((0, 0)), largest)
    random = np.random.default_rng(0)
    weights = np.stack([random.standard_gamma(count, draws) for count in flat]).reshape(*counts.shape, draws)
    one_more = -np.log1p(-(random.permutation(draws) + 0.5) / draws)  # Gamma(1) at even levels: exact without flips
    totals = counts.sum(axis=(1, 2))

    def with_one_more(wrong: bool) -> Floats:
        values = []
        for kind in _kinds(wrong, paired=paired):
            drawn = weights.copy()
            drawn[kind] += one_more
            drawn *= (totals[:, np.newaxis] / drawn.sum(axis=(1, 2)))[:, np.newaxis, np.newaxis]
            values.append(difference(drawn))
        return np.stack(values)

    return MccDraws(point, with_one_more(wrong=True), with_one_more(wrong=False), largest)


def standard_error(labels: Labels, answers: Answers, others: Answers | None = None) -> float:
    """Return the standard error of the MCC of a map, or of its difference to another's, by the delta method.

    Notation: n_y is the number of sentences of label y, and u_yab is the derivative of d with respect to the share of
    kind yab within its label. The variance is the sum over labels of Var(u_y) / n_y.

    Args and errors: as of ``mcc_draws``.
    """
    counts = _counts(labels, answers, others)
    step = 1e-4  # of a sentence's weight: far below 1, far above the rounding of d
    variance = 0.0
    for label, own in enumerate(counts.astype(np.float64)):
        total = own.sum()
        if not total:
            continue
        seen = np.argwhere(own > 0)
        slopes = np.empty(len(seen))
        for at, kind in enumerate(seen):
            changed = counts.astype(np.float64)
            changed[label, *kind] += step
            changed[label] *= total / (total + step)
            slopes[at] = (difference(changed) - difference(counts)) / step
        shares = own[own > 0] / total
        variance += total * float(shares @ (slopes - shares @ slopes) ** 2)
    return sqrt(variance)


def _counts(labels: Labels, answers: Answers, others: Answers | None) -> Counts:
    """Return n_yab, ``(2, 2, 2)``, or ``(2, 2, 1)`` without another map."""
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must have shape (n_sentences,) with at least one sentence, not {labels.shape}")
    for given in (answers, others):
        if given is not None and given.shape != labels.shape:
            raise ValueError(f"answers must have the shape of the labels, {labels.shape}, not {given.shape}")
    width = 1 if others is None else 2
    kinds = (labels.astype(np.int64) * 2 + answers) * width + (0 if others is None else others)
    return np.bincount(kinds, minlength=4 * width).reshape(2, 2, width)


def _kinds(wrong: bool, *, paired: bool) -> Iterator[tuple[int, int, int]]:
    """Yield each kind in which the map is wrong, or right, and the other is the opposite."""
    for label in (0, 1):
        answer = 1 - label if wrong else label
        yield label, answer, (1 - answer if paired else 0)


def difference(weights: npt.NDArray[Any]) -> Floats:
    """Return d of weights ``(2, 2, 2, ...)``, or the MCC of weights ``(2, 2, 1, ...)``."""
    mcc = _mcc(weights.sum(axis=2))
    return mcc if weights.shape[2] == 1 else mcc - _mcc(weights.sum(axis=1))


def _mcc(confusion: npt.NDArray[Any]) -> Floats:
    """Return the MCC of confusion matrices ``(label, answer, ...)``."""
    return mcc_of_counts(
        hits=confusion[1, 1], misses=confusion[1, 0], false_alarms=confusion[0, 1], rejections=confusion[0, 0]
    )
