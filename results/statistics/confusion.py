"""Intervals of a metric of classes and of its paired differences, from counts; they hold for few flips and for none.

Where a map changes no prediction, or few, resampling the sentences finds no other outcome and seems certain. Here one
more sentence stands for what was not seen, and it is of the worst kind.

Notation, for a map and another, on n sentences:
    n_yab: the sentences of label y that the map answers with a and the other with b.
    w_yab ~ Gamma(n_yab): random weights of the sentences seen, as in the Bayesian bootstrap.
    e ~ Gamma(1): the weight of the sentence not seen. It is added to one kind yab.
    Within each label the weights are scaled to sum to the label's sentences.
    d = metric(sum of w over b) - metric(sum of w over a): the difference; for a single map, its metric alone.
    The lower end of an interval is the least quantile of d over the kinds in which the map is wrong and the other
    right; the upper end is the greatest over the kinds in which the map is right and the other wrong.

For a rate of errors this is the exact interval of Clopper and Pearson, in its limit of rare errors: without an error in
n sentences the rate is at most 3 / n with 95% confidence. For a mean it is the bound of N. Gaffke, "Three test
statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", Mathematical Methods of
Statistics 14 (2005). How often it is wrong on simulated sentences: `python -m tests.benchmarks luck`.

Of many classes only some kinds are tried: those whose one sentence moves d most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.metrics import MetricName, lowest, metric_of_confusion, metric_of_margins
from objectives.scores import Labels
from results.statistics.bootstrap import CONFIDENCE, Floats, Interval

DRAWS = 5000
_MOST_KINDS = 6  # all of those of three classes
_RARE_LABELS = 3  # of many classes, kinds are among so many of the rarest and of the most frequent labels

Answers = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """The metric of a map, or its difference to another's, on random weights of the sentences.

    Attributes:
        point: on the sentences themselves.
        low: ``(n_kinds, n_draws)``, with one more sentence of each unfavourable kind.
        high: ``(n_kinds, n_draws)``, with one more sentence of each favourable kind.
        smallest, largest: the smallest and the largest possible value.
    """

    point: float
    low: Floats
    high: Floats
    smallest: float
    largest: float

    @classmethod
    def unknown(cls, point: float, metric: MetricName, *, paired: bool) -> Draws:
        """Return what is known if the labels or the answers are all the same: nothing."""
        return cls(point, np.empty((0, 0)), np.empty((0, 0)), *limits(metric, paired=paired))

    def interval(self) -> Interval:
        """Return the 95% interval; all that is possible if nothing is known."""
        if not self.low.size:
            return Interval(self.smallest, self.largest)
        tail = (1 - CONFIDENCE) / 2
        low = float(np.quantile(self.low, tail, axis=1).min())
        high = float(np.quantile(self.high, 1 - tail, axis=1).max())
        return Interval(min(low, self.point), max(high, self.point))

    def confidence_above(self, threshold: float) -> float:
        """Return the confidence that the true value is at least a threshold, 0..1; 0 if nothing is known.

        It is lower by the standard error of the draws, so that their luck makes no claim.
        """
        if not self.low.size:
            return 0.0
        share = float((self.low >= threshold).mean(axis=1).min())
        return max(share - sqrt(share * (1 - share) / self.low.shape[1]), 0.0)


def limits(metric: MetricName, *, paired: bool) -> tuple[float, float]:
    """Return the smallest and the largest value of a metric, or of a difference."""
    return (lowest(metric) - 1, 1 - lowest(metric)) if paired else (lowest(metric), 1.0)


def unseen_weights(draws: int, random: np.random.Generator) -> Floats:
    """Return the weight e in each draw, ``(draws,)``: Gamma(1) at even levels, so exact without flips."""
    return np.asarray(-np.log1p(-(random.permutation(draws) + 0.5) / draws))


def draws_of(counts: Counts | Floats, draws: int = DRAWS, metric: MetricName = "mcc") -> Draws:
    """Return the draws for counts n_yab, ``(C, C, C)``, or ``(C, C, 1)`` for a map alone; they need not be whole."""
    return _draws_of(tuple(counts.ravel().tolist()), counts.shape, draws, metric)


@lru_cache(maxsize=256)  # folds and comparisons ask for the same counts again
def _draws_of(flat: tuple[float, ...], shape: tuple[int, ...], draws: int, metric: MetricName) -> Draws:
    counts = np.array(flat).reshape(shape)
    paired = counts.shape[-1] > 1
    point = float(difference(counts, metric))
    if np.count_nonzero(counts.any(axis=(1, 2))) < 2:  # the MCC is undefined for a single label
        return Draws.unknown(point, metric, paired=paired)
    wrong, right = (_worst_kinds(counts, metric, wrong=wrong) for wrong in (True, False))
    cells = _Cells.of(counts, [*wrong, *right], metric)
    random = np.random.default_rng(0)
    weights = np.stack([random.standard_gamma(count, draws) for count in cells.counts], axis=1)
    one_more = unseen_weights(draws, random)

    def with_one_more(kinds: list[Kind]) -> Floats:
        values = []
        for kind in kinds:
            drawn = weights.copy()
            drawn[:, cells.index(kind)] += one_more
            values.append(cells.difference(cells.scaled(drawn)))
        return np.stack(values)

    return Draws(point, with_one_more(wrong), with_one_more(right), *limits(metric, paired=paired))


def standard_error_of(counts: Counts, metric: MetricName = "mcc") -> float:
    """Return the standard error of the metric, or of the difference, of counts n_yab by the delta method.

    Notation: n_y is the number of sentences of label y, and u_yab is the derivative of d with respect to the share of
    kind yab within its label. The variance is the sum over labels of Var(u_y) / n_y.
    """
    step = 1e-4  # of a sentence's weight: far below 1, far above the rounding of d
    cells = _Cells.of(counts, [], metric)
    labels, totals = cells.kinds[:, 0], counts.sum(axis=(1, 2))[cells.kinds[:, 0]].astype(np.float64)
    changed = cells.counts + step * np.eye(len(cells.counts))
    changed *= np.where(labels == labels[:, np.newaxis], (totals / (totals + step))[:, np.newaxis], 1.0)
    slopes = (cells.difference(changed) - difference(counts, metric)) / step
    variance = 0.0
    for label in np.unique(labels[cells.counts > 0]):
        own = (labels == label) & (cells.counts > 0)
        total = cells.counts[own].sum()
        shares = cells.counts[own] / total
        variance += total * float(shares @ (slopes[own] - shares @ slopes[own]) ** 2)
    return sqrt(variance)


def counts_of(labels: Labels, answers: Answers, others: Answers | None, n_classes: int) -> Counts:
    """Return n_yab, ``(C, C, C)``, or ``(C, C, 1)`` without another map.

    Raises:
        ValueError: the shapes differ, or there is no sentence.
    """
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must have shape (n_sentences,) with at least one sentence, not {labels.shape}")
    for given in (answers, others):
        if given is not None and given.shape != labels.shape:
            raise ValueError(f"answers must have the shape of the labels, {labels.shape}, not {given.shape}")
    width = 1 if others is None else n_classes
    kinds = (labels.astype(np.int64) * n_classes + answers) * width + (0 if others is None else others)
    return np.bincount(kinds, minlength=n_classes**2 * width).reshape(n_classes, n_classes, width)


def difference(weights: npt.NDArray[Any], metric: MetricName = "mcc") -> Floats:
    """Return d of weights ``(..., C, C, C)``, or the metric of weights ``(..., C, C, 1)``."""
    own = metric_of_confusion(metric, weights.sum(axis=-1))
    return own if weights.shape[-1] == 1 else own - metric_of_confusion(metric, weights.sum(axis=-2))


Kind = tuple[int, int, int]


@dataclass(frozen=True)
class _Cells:
    """The kinds yab that occur or are to be tried, which are few of C^3.

    Attributes:
        kinds: ``(n_cells, 3)``, in ascending order.
        counts: n_yab of each, ``(n_cells,)``.
        n_classes: C.
        paired: whether there is another map.
        metric: its name.
    """

    kinds: npt.NDArray[np.int64]
    counts: Floats
    n_classes: int
    paired: bool
    metric: MetricName

    @classmethod
    def of(cls, counts: Counts | Floats, tried: list[Kind], metric: MetricName) -> _Cells:
        occupied = (counts > 0) | (len(counts) == 2)  # of two classes all: there are few
        for kind in tried:
            occupied[kind] = True
        kinds = np.argwhere(occupied)
        return cls(kinds, counts[occupied].astype(np.float64), len(counts), counts.shape[-1] > 1, metric)

    def index(self, kind: Kind) -> int:
        return int(np.flatnonzero((self.kinds == kind).all(axis=1))[0])

    def scaled(self, weights: Floats) -> Floats:
        """Return weights ``(n, n_cells)`` that sum to the label's sentences within each label."""
        of_label = np.eye(self.n_classes)[self.kinds[:, 0]]
        # Of two classes in the order of an earlier version, so that the last digits stay.
        of_two = weights.reshape(len(weights), 2, 2, -1).sum(axis=(2, 3)) if self.n_classes == 2 else None
        totals = weights @ of_label if of_two is None else of_two
        factors = (self.counts @ of_label) / np.where(totals > 0, totals, 1.0)
        return np.asarray(weights * (factors @ of_label.T))

    def difference(self, weights: Floats) -> Floats:
        """Return d of weights ``(n, n_cells)``."""
        own = self._value(weights, 1)
        return own - self._value(weights, 2) if self.paired else own

    def _value(self, weights: Floats, side: int) -> Floats:
        """Return the metric of one side's answers, which column ``side`` of the kinds has."""
        label, answer = self.kinds[:, 0], self.kinds[:, side]
        if self.n_classes == 2:
            confusion = weights @ np.eye(4)[2 * label + answer]
            return metric_of_confusion(self.metric, confusion.reshape(-1, 2, 2))
        classes = np.eye(self.n_classes)
        hits, answered = (classes[label] * (label == answer)[:, np.newaxis]).T, classes[answer].T
        labelled = (self.counts @ classes[label])[:, np.newaxis]  # scaled weights sum to them
        return metric_of_margins(self.metric, hits @ weights.T, answered @ weights.T, labelled)


def _worst_kinds(counts: Counts | Floats, metric: MetricName, *, wrong: bool) -> list[Kind]:
    """Return the kinds in which the map is wrong, or right, and the other is the opposite, that move d most."""
    paired = counts.shape[-1] > 1
    of_label = counts.sum(axis=(1, 2))
    labels = np.flatnonzero(of_label)
    by_frequency = labels[np.argsort(of_label[labels], kind="stable")].tolist()
    some = sorted({*by_frequency[:_RARE_LABELS], *by_frequency[-_RARE_LABELS:]})
    answers = some if len(some) > 2 else range(len(counts))
    kinds: list[Kind] = []
    for label in some:
        for mistake in answers:
            if mistake != label:
                answer, other = (mistake, label) if wrong else (label, mistake)
                kinds.append((label, answer, other if paired else 0))
    kinds = list(dict.fromkeys(kinds))  # without another map, right answers are of one kind for each label
    if len(kinds) <= _MOST_KINDS:
        return kinds
    cells = _Cells.of(counts, kinds, metric)
    weights = np.tile(cells.counts, (len(kinds), 1))
    weights[np.arange(len(kinds)), [cells.index(kind) for kind in kinds]] += 1.0
    moved = cells.difference(cells.scaled(weights))
    order = np.argsort(moved if wrong else -moved, kind="stable")[:_MOST_KINDS]
    return [kinds[at] for at in sorted(order.tolist())]
