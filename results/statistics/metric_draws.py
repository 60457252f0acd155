"""The task's metric on random weights of the sentences, for every head: intervals, comparisons and standard errors.

Metrics of classes depend on counts (:mod:`results.statistics.confusion`). For yes/no labels and numbers each sentence
gets a weight of its own, as in the Bayesian bootstrap (D. B. Rubin, Annals of Statistics 9 (1981)), and one more
sentence stands for what was not seen, as there.

Notation, for a map and another, on n sentences:
    w_i ~ Gamma(1): the weight of sentence i. e ~ Gamma(1): the weight of the sentence not seen.
    f_i: what the metric sums over sentences: the cells of a confusion matrix for each label, or the moments of a
        correlation for each number. The metric is a function of sum_i w_i f_i + e f.
    f: for labels a sentence of the worst kind, whose labels are all 1 or all 0: the map has all of them wrong and the
        other right. Numbers have no worst kind; theirs is one more like the sentence seen that lowers d most.
    d: the difference of the metrics; for a single map, its metric alone. The upper end is found likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from objectives.heads import TWO_CLASSES, Classes, Head
from objectives.metrics import (
    MetricName,
    correlation_moments,
    correlation_of_moments,
    metric_of_confusion,
    metric_values,
)
from objectives.scores import Labels
from results.statistics.bootstrap import Floats
from results.statistics.confusion import (
    DRAWS,
    Answers,
    Draws,
    counts_of,
    draws_of,
    limits,
    standard_error_of,
    unseen_weights,
)

_MANY_CLASSES_DRAWS = 4000  # of more than two classes, which have many kinds of sentences
_MOST_DRAWS = 2000  # with a weight for each sentence


@dataclass(frozen=True)
class TaskMetric:
    """A metric by its name, for the labels and answers of a head; answers are what ``head.predictions`` returns."""

    name: MetricName = "mcc"
    head: Head = TWO_CLASSES

    def draws(
        self,
        labels: Labels,
        answers: Answers,
        others: Answers | None = None,
        *,
        draws: int = DRAWS,
        factor: float = 1.0,
    ) -> Draws:
        """Return the metric of a map, or its difference to another's, on random weights of the sentences.

        For classes the draws depend on the counts alone: two maps of the same counts have the same interval.

        Args:
            labels: ``(n_sentences, *head.label_shape)``.
            answers: the map's, in the same shape.
            others: those of another map; None for the metric of the map itself.
            draws: their number, at most 4,000 for more than two classes, and 2,000 for labels and numbers.
            factor: as if there were so many times these sentences, with the same shares of each kind.

        Raises:
            ValueError: the shapes differ, or there is no sentence.
        """
        if isinstance(self.head, Classes):
            draws = min(draws, _MANY_CLASSES_DRAWS) if self.head.shape else draws
            counts = counts_of(labels, answers, others, self.head.n_classes)
            return draws_of(counts if factor == 1 else counts * np.float64(factor), draws, self.name)
        return self._weighted(labels, answers, others, min(draws, _MOST_DRAWS), factor)

    def standard_error(self, labels: Labels, answers: Answers, others: Answers | None = None) -> float:
        """Return the standard error of the metric of a map, or of its difference to another's.

        Args and errors: as of :meth:`draws`.
        """
        if isinstance(self.head, Classes):
            return standard_error_of(counts_of(labels, answers, others, self.head.n_classes), self.name)
        weights = _weights(len(labels), _MOST_DRAWS)[0]
        sides = [_Side.of(self, labels, given) for given in (answers, others) if given is not None]
        values = [side.value(weights @ side.features) for side in sides]
        return float(np.std(values[0] - values[1] if len(values) > 1 else values[0]))

    def values(self, labels: Labels, answers: Answers) -> Floats:
        """Return the metric of each map of answers ``(n_maps, n_sentences, *head.label_shape)``."""
        return metric_values(self.name, self.head, answers, labels)

    def _weighted(self, labels: Labels, answers: Answers, others: Answers | None, draws: int, factor: float) -> Draws:
        given = [answers] if others is None else [answers, others]
        for own in given:
            if own.shape != labels.shape or not len(labels):
                raise ValueError(f"answers must have the shape of the labels, {labels.shape}, not {own.shape}")
        values = self.values(labels, np.stack(given))
        point = float(values[0] if others is None else values[0] - values[1])
        sides = [_Side.of(self, labels, own) for own in given]
        worst, best = (_unseen_sentences(sides, wrong=wrong) for wrong in (True, False))
        if not worst:
            return Draws.unknown(point, self.name, paired=others is not None)
        weights, one_more = _weights(len(labels), draws, factor)
        sums = [weights @ side.features for side in sides]

        def with_one_more(kinds: list[list[Floats]]) -> Floats:
            values = []
            for kind in kinds:
                drawn = [total + one_more[:, np.newaxis] * added for total, added in zip(sums, kind, strict=True)]
                values.append(_difference(sides, drawn))
            return np.stack(values)

        return Draws(point, with_one_more(worst), with_one_more(best), *limits(self.name, paired=others is not None))


MCC = TaskMetric()
"""The MCC of two classes."""


@dataclass(frozen=True)
class _Side:
    """One map's answers: the features f of the sentences, ``(n_sentences, n_outputs * n_features)``."""

    metric: TaskMetric
    features: Floats
    is_constant: bool

    @classmethod
    def of(cls, metric: TaskMetric, labels: Labels, answers: Answers) -> _Side:
        count = len(labels)
        if metric.head.kind == "numbers":
            moments = correlation_moments(metric.name, answers, labels)
            constant = bool((np.ptp(labels, axis=0) == 0).any() or (np.ptp(answers, axis=0) == 0).any())
            return cls(metric, moments.reshape(count, -1), constant)
        cells = (2 * labels.astype(np.int64) + answers).reshape(count, -1)
        return cls(metric, np.eye(4)[cells].reshape(count, -1), bool((np.ptp(labels, axis=0) == 0).all()))

    def value(self, sums: Floats) -> Floats:
        """Return the metric of summed features ``(n, n_outputs * n_features)``."""
        if self.metric.head.kind == "numbers":
            return correlation_of_moments(sums.reshape(len(sums), -1, 6))
        return np.asarray(metric_of_confusion(self.metric.name, sums.reshape(len(sums), -1, 2, 2)).mean(axis=-1))


def _difference(sides: Sequence[_Side], sums: Sequence[Floats]) -> Floats:
    """Return d, ``(n,)``, of each side's summed features."""
    own, *other = (side.value(total) for side, total in zip(sides, sums, strict=True))
    return own - other[0] if other else own


def _unseen_sentences(sides: Sequence[_Side], *, wrong: bool) -> list[list[Floats]]:
    """Return the kinds of the sentence not seen, each as one f a side; none if nothing is known.

    ``wrong`` asks for the unfavourable ones.
    """
    if any(side.is_constant for side in sides):
        return []
    if sides[0].metric.head.kind == "numbers":
        moved = _difference(sides, [side.features.sum(axis=0) + side.features for side in sides])
        if np.ptp(moved) == 0:  # two maps that say the same of all sentences
            return []
        at = int(np.argmin(moved) if wrong else np.argmax(moved))
        return [[side.features[at] for side in sides]]
    n_labels = sides[0].features.shape[1] // 4
    answers = [1, 0] if wrong else [0, 1]  # how far each side's answer is off
    return [
        [np.tile(np.eye(4)[2 * label + (label ^ off)], n_labels) for off in answers[: len(sides)]] for label in (0, 1)
    ]


@lru_cache(maxsize=2)  # those of all sentences and of a fold
def _weights(n_sentences: int, draws: int, factor: float = 1.0) -> tuple[npt.NDArray[Any], Floats]:
    """Return the weights w, ``(draws, n_sentences)``, each of so many sentences, and e, ``(draws,)``."""
    random = np.random.default_rng(0)
    shape = (draws, n_sentences)
    weights = random.standard_exponential(shape) if factor == 1 else random.standard_gamma(factor, shape)
    return weights, unseen_weights(draws, random)
