"""How many labelled sentences would prove that a map loses at most the margin."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES, Classes, Head, Numbers, YesNoLabels
from objectives.metrics import MetricName
from results.statistics.bootstrap import CONFIDENCE
from results.statistics.metric_draws import MCC, TaskMetric
from results.statistics.proof import sentences_needed
from tests.results.synthetic import predicted

ACCURACY = TaskMetric("accuracy", TWO_CLASSES)
LABELS = (np.arange(1000) % 10 < 7).astype(np.int8)
FP32 = np.where(np.arange(1000) % 8 == 0, 1 - LABELS, LABELS)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("count", [100, 1000])
def test_without_a_change_it_is_the_rule_of_three(margin: float, count: int) -> None:
    """None in n allows 3 / n with 95% confidence, so a margin m takes 3 / m sentences."""
    needed = sentences_needed(ACCURACY, LABELS[:count], FP32[:count], FP32[:count], margin)
    assert needed == pytest.approx(3 / margin, rel=0.1)


def test_that_many_copies_of_the_sentences_prove_it_and_far_fewer_do_not() -> None:
    answers = FP32.copy()
    answers[::20] ^= 1  # 50 changes, of which 25 mend an answer
    answers[1:400:40] ^= 1  # and 10 that spoil one
    harm = -MCC.draws(LABELS, answers, FP32).point
    assert harm > 0
    needed = sentences_needed(MCC, LABELS, answers, FP32, 1.2 * harm)
    assert needed is not None and needed > 1000

    def no_worse(copies: int) -> float:
        repeated = (np.tile(given, copies) for given in (LABELS, answers, FP32))
        return MCC.draws(*repeated).confidence_above(-1.2 * harm)

    assert no_worse(round(needed / 1000 * 1.1)) >= CONFIDENCE > no_worse(round(needed / 1000 * 0.8))


def test_no_number_proves_a_loss_as_large_as_the_margin_or_of_equal_labels() -> None:
    answers = FP32.copy()
    answers[:40] ^= LABELS[:40] == FP32[:40]  # right answers turn wrong
    loss = -ACCURACY.draws(LABELS, answers, FP32).point
    assert sentences_needed(ACCURACY, LABELS, answers, FP32, loss) is None
    assert sentences_needed(ACCURACY, LABELS, answers, FP32, loss + 0.02) is not None
    assert sentences_needed(ACCURACY, LABELS, FP32, FP32, 0.0) is None
    assert sentences_needed(MCC, np.ones_like(LABELS), FP32, FP32, 0.1) is None


@pytest.mark.parametrize(("head", "metric"), [(Classes(3), "mcc"), (YesNoLabels(2), "f1"), (Numbers(1), "pearson")])
def test_every_head_needs_more_than_it_has_if_and_only_if_nothing_is_proven(head: Head, metric: MetricName) -> None:
    labels, outputs = predicted(head, 150, 0)
    task = TaskMetric(metric, Numbers.of(outputs) if head.kind == "numbers" else head)
    noisy = outputs + np.random.default_rng(1).normal(scale=0.1, size=outputs.shape).astype(outputs.dtype)
    answers, others = task.head.predictions(noisy), task.head.predictions(outputs)
    drawn = task.draws(labels, answers, others)
    for margin in (0.01, 0.3):
        needed = sentences_needed(task, labels, answers, others, margin)
        if drawn.point <= -margin:
            assert needed is None
        else:
            assert needed is not None
            assert (needed <= 150) == (drawn.confidence_above(-margin) >= CONFIDENCE)
