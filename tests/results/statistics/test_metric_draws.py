"""Intervals and comparisons of metrics of many classes, labels and numbers; test_confusion.py is of two classes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from objectives.heads import Array, Classes, Numbers, YesNoLabels
from objectives.metrics import MetricName, metric_value
from results.statistics.bootstrap import Interval
from results.statistics.metric_draws import TaskMetric

THREE_CLASSES = Classes(2)
NUMBER = Numbers(1, (1.0,))


def classes(n_classes: int, count: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, count).astype(np.int8)
    return labels, np.where(rng.random(count) < 0.7, labels, rng.integers(0, n_classes, count)).astype(np.int16)


def ratings(count: int, seed: int, correlation: float = 0.8) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels, noise = rng.normal(size=(2, count))
    return labels, correlation * labels + np.sqrt(1 - correlation**2) * noise


@pytest.mark.parametrize("n_classes", [3, 12])
@pytest.mark.parametrize("name", ["mcc", "accuracy", "f1"])
def test_intervals_of_classes_hold_their_point(name: MetricName, n_classes: int) -> None:
    task = TaskMetric(name, Classes(n_classes - 1))
    labels, answers = classes(n_classes, 300)
    others = np.where(np.random.default_rng(1).random(300) < 0.1, 0, answers)
    single, paired = task.draws(labels, answers, draws=500), task.draws(labels, answers, others, draws=500)
    own, other = (metric_value(name, task.head, given, labels) for given in (answers, others))
    assert (single.point, paired.point) == pytest.approx((own, own - other))
    for drawn, error in (
        (single, task.standard_error(labels, answers)),
        (paired, task.standard_error(labels, answers, others)),
    ):
        interval = drawn.interval()
        assert interval.low < drawn.point < interval.high
        assert 1.5 * error < (interval.high - interval.low) / 2 < 3.5 * error


def test_without_a_flip_accuracy_may_fall_as_one_unseen_sentence_says() -> None:
    labels = np.repeat([0, 1, 2], [20, 60, 120]).astype(np.int8)
    drawn = TaskMetric("accuracy", THREE_CLASSES).draws(labels, labels, labels)
    # Within its label the unseen sentence has the weight Beta(1, n_y); the largest label loses most.
    lost = (1 - 0.025 ** (1 / 120)) * 120 / 200
    assert drawn.interval().low == pytest.approx(-lost, rel=0.05)
    assert drawn.confidence_above(-lost) == pytest.approx(0.975, abs=0.01)


def test_the_accuracy_of_two_kinds_of_answers_has_the_binomial_error() -> None:
    labels, answers = classes(3, 900)
    rate = float(np.mean(labels == answers))
    error = TaskMetric("accuracy", THREE_CLASSES).standard_error(labels, answers)
    assert error == pytest.approx(np.sqrt(rate * (1 - rate) / 900), rel=0.02)


def test_intervals_of_a_correlation_cover_the_truth() -> None:
    task = TaskMetric("pearson", NUMBER)
    covered = []
    for seed in range(60):
        labels, predicted = ratings(120, seed)
        interval = task.draws(labels, predicted, draws=400).interval()
        assert interval.low < pearsonr(labels, predicted)[0] < interval.high
        covered.append(interval.low <= 0.8 <= interval.high)
    assert np.mean(covered) >= 0.93
    labels, predicted = ratings(1000, 0)
    assert task.standard_error(labels, predicted) == pytest.approx((1 - 0.8**2) / np.sqrt(1000), rel=0.15)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_better_number_is_known_to_be_better(name: MetricName) -> None:
    task = TaskMetric(name, NUMBER)
    labels, good = ratings(400, 0)
    poor = good + np.random.default_rng(1).normal(0, 2, 400)
    assert task.draws(labels, good, poor).interval().low > 0
    assert task.draws(labels, poor, good).confidence_above(-0.01) < 0.01
    slightly = good + np.random.default_rng(1).normal(0, 0.01, 400)
    assert task.draws(labels, slightly, good).confidence_above(-0.05) > 0.95
    # Nothing seen differs, so nothing is known of sentences that would.
    assert task.draws(labels, good, good).interval() == Interval(-2.0, 2.0)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_numbers_claim_nothing(name: MetricName) -> None:
    task = TaskMetric(name, NUMBER)
    labels, predicted = ratings(50, 0)
    constant = np.full(50, 2.0)
    for drawn in (task.draws(constant, predicted, predicted), task.draws(labels, constant, predicted)):
        assert drawn.interval() == Interval(-2.0, 2.0)
        assert drawn.confidence_above(-0.5) == 0.0
    assert task.draws(labels, constant).interval() == Interval(-1.0, 1.0)


def test_intervals_of_labels_hold_their_point_and_know_a_better_map() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < 0.4).astype(np.int8)
    good, poor = (np.where(rng.random(labels.shape) < wrong, 1 - labels, labels) for wrong in (0.05, 0.2))
    task = TaskMetric("f1", YesNoLabels(4))
    single, paired = task.draws(labels, good), task.draws(labels, good, poor)
    assert single.interval().low < single.point < single.interval().high <= 1
    assert paired.interval().low > 0
    same = task.draws(labels, good, good)
    assert same.interval().low < 0 < same.interval().high
    assert 0.5 < same.confidence_above(-0.01) < same.confidence_above(-0.05)


def test_shapes_must_fit() -> None:
    labels, answers = classes(3, 30)
    with pytest.raises(ValueError, match="shape of the labels"):
        TaskMetric("mcc", THREE_CLASSES).draws(labels, answers[:-1])
    with pytest.raises(ValueError, match="shape of the labels"):
        TaskMetric("pearson", NUMBER).draws(labels.astype(np.float64), answers[:-1])
