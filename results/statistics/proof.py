"""What labelled sentences prove of one map against FP32, and how many more would prove it.

Notation:
    margin: the accepted loss of the metric. proven: the confidence that no more is lost is at least 95%.
    k: as many sentences as there are, times k, with the same shares of each kind; their weights are Gamma(k) for each
        sentence (:mod:`results.statistics.metric_draws`).
    needed: the least k for which the loss is proven, times the sentences. About half of all fresh sets of that size
        prove it, because half of them look worse than the sentences at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from objectives.heads import Classes
from objectives.scores import Labels
from results.outcome import Trial
from results.statistics.analysis import Analysis
from results.statistics.bootstrap import CONFIDENCE
from results.statistics.confusion import Answers
from results.statistics.intervals import Comparison
from results.statistics.metric_draws import TaskMetric

_MOST_SENTENCES = 10_000_000  # beyond, no one labels them
_STEPS = 5  # of bisection within a factor of 2
_DRAWS = 1000  # each step draws again
_DRAWS_WITH_WEIGHTS = 500  # where each sentence has a weight of its own


@dataclass(frozen=True)
class Proof:
    """A map's metric on the most trusted labelled sentences.

    Attributes:
        source: these sentences: the holdout if the map was scored there, else the validation sentences.
        sentences: their number.
        metric: of the map.
        against_fp32: against FP32's on the same sentences.
        needed: about how many sentences would prove that at most the margin is lost, to two digits; None if no number
            would: the loss itself is the margin or more, or nothing is known because all labels are equal.
    """

    source: Literal["holdout", "validation"]
    sentences: int
    metric: float
    against_fp32: Comparison
    needed: int | None

    @property
    def proven(self) -> bool:
        """Whether the map is, with 95% confidence, at most the margin below FP32."""
        return self.against_fp32.no_worse >= CONFIDENCE


def proof_of(analysis: Analysis, trial: Trial) -> Proof:
    """Return what is proven of a pick, a baseline, the reference or a map of the front.

    Raises:
        KeyError: the trial is none of them, or has no scores.
    """
    outcome, task = analysis.outcome, analysis.candidates.task
    against, estimate = analysis.against_fp32[trial.number], analysis.holdout.get(trial.number)
    if estimate is not None and outcome.holdout is not None:
        labels, outputs, fp32 = (
            outcome.holdout.labels,
            outcome.holdout.log_odds[trial.number],
            outcome.holdout.fp32_log_odds,
        )
        against, metric = estimate.against_fp32, estimate.metric
    else:
        assert trial.scores is not None
        assert trial.log_odds is not None
        labels, outputs, fp32, metric = outcome.labels, trial.log_odds, outcome.fp32_log_odds, trial.scores.metric
    answers, others = (task.head.predictions(given) for given in (outputs, fp32))
    return Proof(
        source="validation" if estimate is None else "holdout",
        sentences=len(labels),
        metric=metric,
        against_fp32=against,
        needed=sentences_needed(task, labels, answers, others, against.margin),
    )


def sentences_needed(task: TaskMetric, labels: Labels, answers: Answers, others: Answers, margin: float) -> int | None:
    """Return about how many sentences like these prove that a map loses at most the margin with 95% confidence.

    Args:
        task: the metric.
        labels: ``(n_sentences, *head.label_shape)``.
        answers: the map's predictions, in the same shape.
        others: the FP32 model's.
        margin: the accepted loss, 0 or more.

    Returns:
        The number, rounded up to two digits; None if the loss on these sentences is the margin or more, if all labels
        are equal, or if it is beyond ten millions.
    """

    draws = _DRAWS if isinstance(task.head, Classes) else _DRAWS_WITH_WEIGHTS

    def proves(factor: float) -> bool:
        drawn = task.draws(labels, answers, others, draws=draws, factor=factor)
        return bool((drawn.low >= -margin).mean(axis=1).min() >= CONFIDENCE)  # few draws: their luck does not count

    drawn = task.draws(labels, answers, others)
    if drawn.point <= -margin or not drawn.low.size:
        return None
    enough = 1.0
    if drawn.confidence_above(-margin) >= CONFIDENCE:
        while len(labels) * enough > 1 and proves(enough / 2):
            enough /= 2
    else:
        while not proves(enough := 2 * enough):
            if len(labels) * enough > _MOST_SENTENCES:
                return None
    too_few = enough / 2
    for _ in range(_STEPS):
        middle = (too_few + enough) / 2
        too_few, enough = (too_few, middle) if proves(middle) else (middle, enough)
    return _rounded_up(len(labels) * enough)


def _rounded_up(number: float) -> int:
    """Return a number of 1 or more, rounded up to two digits."""
    unit: int = 10 ** max(floor(log10(max(number, 1.0))) - 1, 0)
    return ceil(number / unit) * unit
