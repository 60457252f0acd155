"""The task's metric on random weights of the sentences, for every head: intervals, comparisons and standard errors.

Metrics of classes depend on counts (:mod:`results.statistics.confusion`). For yes/no labels and numbers each sentence
gets a weight of its own, as in the Bayesian bootstrap (D. B. Rubin, Annals of Statistics 9 (1981)), and one more
sentence of the worst kind stands for what was not seen, as there.

Notation, for a map and another, on n sentences:
    w_i ~ Gamma(1): the weight of sentence i. e ~ Gamma(1): the weight of the sentence not seen.
    f_i: what the metric sums over sentences: the cells of a confusion matrix for each label, or the moments of a
        correlation for each number. The metric is a function of sum_i w_i f_i + e f.
    f: a sentence whose labels are all 1 or all 0, or whose numbers are the largest or the smallest; an unfavourable
        one has the opposite answers of the map and the right ones of the other.
"""

from __future__ import annotations

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
    moments_of,
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

    def draws(self, labels: Labels, answers: Answers, others: Answers | None = None, *, draws: int = DRAWS) -> Draws:
        """Return the metric of a map, or its difference to another's, on random weights of the sentences.

        For classes the draws depend on the counts alone: two maps of the same counts have the same interval.

        Args:
            labels: ``(n_sentences, *head.label_shape)``.
            answers: the map's, in the same shape.
            others: those of another map; None for the metric of the map itself.
            draws: their number, at most 4,000 for more than two classes, and 2,000 for labels and numbers.

        Raises:
            ValueError: the shapes differ, or there is no sentence.
        """
        if isinstance(self.head, Classes):
            draws = min(draws, _MANY_CLASSES_DRAWS) if self.head.shape else draws
            return draws_of(counts_of(labels, answers, others, self.head.n_classes), draws, self.name)
        return self._weighted(labels, answers, others, min(draws, _MOST_DRAWS))

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

    def _weighted(self, labels: Labels, answers: Answers, others: Answers | None, draws: int) -> Draws:
        given = [answers] if others is None else [answers, others]
        for own in given:
            if own.shape != labels.shape or not len(labels):
                raise ValueError(f"answers must have the shape of the labels, {labels.shape}, not {own.shape}")
        values = self.values(labels, np.stack(given))
        point = float(values[0] if others is None else values[0] - values[1])
        # Of labels each may be constant; a correlation with a constant says nothing.
        constant = [np.ptp(part, axis=0) == 0 for part in (labels, *(given if self.head.kind == "numbers" else ()))]
        if any(part.any() if self.head.kind == "numbers" else part.all() for part in constant):
            return Draws.unknown(point, self.name, paired=others is not None)
        weights, one_more = _weights(len(labels), draws)
        sides = [_Side.of(self, labels, own) for own in given]
        sums = [weights @ side.features for side in sides]

        def with_one_more(wrong: bool) -> Floats:
            kinds = []
            for high in (False, True):
                signs = (not wrong, wrong)  # whether each side is right
                own, *other = (
                    side.value(total + one_more[:, np.newaxis] * side.extreme(high, right))
                    for side, total, right in zip(sides, sums, signs, strict=False)
                )
                kinds.append(own - other[0] if other else own)
            return np.stack(kinds)

        return Draws(point, with_one_more(True), with_one_more(False), *limits(self.name, paired=others is not None))


MCC = TaskMetric()
"""The MCC of two classes."""


@dataclass(frozen=True)
class _Side:
    """The features f of the sentences with one map's answers.

    Attributes:
        metric: the task's metric.
        features: ``(n_sentences, n_outputs * n_features)``.
        x_ends, y_ends: the smallest and the largest answer and label, ``(2, n_outputs)`` each; in units of moments.
    """

    metric: TaskMetric
    features: Floats
    x_ends: Floats
    y_ends: Floats

    @classmethod
    def of(cls, metric: TaskMetric, labels: Labels, answers: Answers) -> _Side:
        count = len(labels)
        if metric.head.kind == "numbers":
            moments = correlation_moments(metric.name, answers, labels)
            x, y = moments[..., 1], moments[..., 2]
            ends = [np.stack([values.min(axis=0), values.max(axis=0)]) for values in (x, y)]
            return cls(metric, moments.reshape(count, -1), *ends)
        cells = (2 * labels.astype(np.int64) + answers).reshape(count, -1)
        both = np.stack([np.zeros(cells.shape[1]), np.ones(cells.shape[1])])
        return cls(metric, np.eye(4)[cells].reshape(count, -1), both, both)

    def extreme(self, high: bool, right: bool) -> Floats:
        """Return f, ``(n_outputs * n_features,)``, of a sentence of the largest or the smallest labels."""
        x, y = self.x_ends[int(high == right)], self.y_ends[int(high)]
        if self.metric.head.kind == "numbers":
            return moments_of(x, y).ravel()
        return np.asarray(np.eye(4)[(2 * y + x).astype(np.int64)].ravel())

    def value(self, sums: Floats) -> Floats:
        """Return the metric of summed features ``(n_draws, n_outputs * n_features)``."""
        if self.metric.head.kind == "numbers":
            return correlation_of_moments(sums.reshape(len(sums), -1, 6))
        return np.asarray(metric_of_confusion(self.metric.name, sums.reshape(len(sums), -1, 2, 2)).mean(axis=-1))


@lru_cache(maxsize=2)  # those of all sentences and of a fold
def _weights(n_sentences: int, draws: int) -> tuple[npt.NDArray[Any], Floats]:
    """Return the weights w, ``(draws, n_sentences)``, and e, ``(draws,)``."""
    random = np.random.default_rng(0)
    return random.standard_exponential((draws, n_sentences)), unseen_weights(draws, random)
