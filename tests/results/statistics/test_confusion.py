"""Intervals of MCC against exact bounds, a sentence-by-sentence jackknife, and known truth."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta

from objectives.heads import TWO_CLASSES
from objectives.metrics import metric_value
from objectives.scores import Labels
from results.statistics.bootstrap import Interval
from results.statistics.confusion import difference, draws_of
from results.statistics.metric_draws import MCC
from tests.benchmarks.flips import bootstrap, claims, flipped, fp32_counts
from tests.results.simulated import cola_like

SIZES = (2, 20, 60, 160, 313, 527, 1043)


def sentences(seed: int, count: int = 120) -> tuple[Labels, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return labels and the answers of two maps, which differ on a tenth of the sentences."""
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    answers = random.random(count) < np.where(labels == 1, 0.85, 0.4)
    return labels, answers, answers ^ (random.random(count) < 0.1)


def test_points_are_those_of_the_sentences() -> None:
    labels, answers, others = sentences(0)
    own, other = (metric_value("mcc", TWO_CLASSES, given.astype(np.int8), labels) for given in (answers, others))
    assert MCC.draws(labels, answers).point == pytest.approx(own)
    assert MCC.draws(labels, answers, others).point == pytest.approx(own - other)


def test_without_a_flip_the_confidence_is_that_of_the_rule_of_three() -> None:
    # If a share of 3 / n of the sentences were harmed, a sample of n would show none with a chance of 5%.
    for size in (160, 1043):
        counts = fp32_counts(size)
        losses = [float(difference(flipped(counts, label, 3.0, 0.0))) for label in (0, 1)]
        assert draws_of(counts).confidence_above(min(losses)) == pytest.approx(0.95, abs=0.01)
    assert draws_of(fp32_counts(1043)).confidence_above(-0.01) >= 0.95
    assert draws_of(fp32_counts(160)).confidence_above(-0.0119) < 0.6


@pytest.mark.parametrize("harmful", [1, 5, 20])
def test_flips_of_one_kind_have_the_bound_of_clopper_and_pearson(harmful: int) -> None:
    counts = fp32_counts(4000)
    right = int(counts[0, 0, 0])
    most = beta.ppf(0.95, harmful + 1, right - harmful) * right
    bound = float(difference(flipped(counts, 0, most, 0.0)))
    found = draws_of(flipped(counts, 0, harmful, 0.0).astype(np.int64))
    assert found.confidence_above(bound) == pytest.approx(0.95, abs=0.01)


def test_no_certainty_comes_out_of_nothing() -> None:
    widths = []
    for size in SIZES:
        labels = (np.arange(size) % 2).astype(np.int8)
        right = labels == 1
        perfect, unchanged = MCC.draws(labels, right), MCC.draws(labels, right, right)
        interval = unchanged.interval()
        assert perfect.interval().low < 1.0 == perfect.interval().high
        assert interval.low < 0.0 == unchanged.point
        assert unchanged.confidence_above(-0.001) < 0.95
        constant = MCC.draws(labels, np.ones(size, dtype=np.bool_)).interval()
        assert constant.low < 0.0 < constant.high
        widths.append((interval.high - interval.low, constant.high - constant.low))
    assert widths == sorted(widths, reverse=True)
    both_constant = MCC.draws(labels, np.ones(size, dtype=np.bool_), np.ones(size, dtype=np.bool_))
    assert both_constant.interval().low < 0.0 < both_constant.interval().high


def test_without_one_of_the_labels_nothing_is_known() -> None:
    labels, answers = np.ones(40, dtype=np.int8), np.ones(40, dtype=np.bool_)
    assert MCC.draws(labels, answers).interval() == Interval(-1.0, 1.0)
    assert MCC.draws(labels, answers, answers).interval() == Interval(-2.0, 2.0)
    assert MCC.draws(labels, answers, answers).confidence_above(-0.01) == 0.0


def test_intervals_mirror_each_other_and_hold_their_point() -> None:
    labels, answers, others = sentences(1)
    one, other = MCC.draws(labels, answers, others), MCC.draws(labels, others, answers)
    assert one.interval().low < one.point < one.interval().high
    assert one.interval().low == pytest.approx(-other.interval().high, abs=0.01)
    levels = [one.confidence_above(threshold) for threshold in np.linspace(-0.3, 0.3, 30)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == 1.0


@pytest.mark.parametrize("paired", [False, True])
def test_the_standard_error_is_that_of_the_jackknife(paired: bool) -> None:
    labels, answers, others = sentences(2, count=600)

    def value(kept: npt.NDArray[np.int64]) -> float:
        own = metric_value("mcc", TWO_CLASSES, answers[kept].astype(np.int8), labels[kept])
        return own - metric_value("mcc", TWO_CLASSES, others[kept].astype(np.int8), labels[kept]) if paired else own

    variance = 0.0
    for label in (0, 1):
        (members,) = np.nonzero(labels == label)
        without = np.array([value(np.delete(np.arange(labels.size), at)) for at in members])
        variance += (members.size - 1) / members.size * float(((without - without.mean()) ** 2).sum())
    error = MCC.standard_error(labels, answers, others if paired else None)
    assert error == pytest.approx(math.sqrt(variance), rel=0.01)


def test_wrong_shapes_are_refused() -> None:
    labels, answers, _ = sentences(0)
    with pytest.raises(ValueError, match="the shape of the labels"):
        MCC.draws(labels[:-1], answers)
    with pytest.raises(ValueError, match="at least one sentence"):
        MCC.draws(labels[:0], answers[:0])


def test_claims_are_false_as_rarely_as_they_say() -> None:
    size = 60
    at_95, at_99, covered, _ = claims(size, 0, partial(draws_of, draws=2000))
    assert at_95.max() <= 0.05
    assert at_99.max() <= 0.01
    assert covered.min() >= 0.95
    assert bootstrap(fp32_counts(size)).confidence_above(-0.01) == 1.0  # the fault that these intervals do not have


@pytest.mark.end_to_end
def test_intervals_cover_the_truth_at_the_size_and_imbalance_of_cola() -> None:
    truth = cola_like()
    random = np.random.default_rng(1)
    one = truth.draw(random, 600)
    # The other map redraws one sentence in ten with the same chances, so the true difference is 0.
    other = np.where(random.random(one.shape) < 0.1, truth.draw(random, len(one)), one)
    single = [MCC.draws(truth.labels, own, draws=1000).interval() for own in one]
    paired = [MCC.draws(truth.labels, *both, draws=1000) for both in zip(other, one, strict=True)]
    assert 0.93 <= np.mean([interval.low <= truth.mcc <= interval.high for interval in single]) <= 0.98
    assert 0.93 <= np.mean([drawn.interval().low <= 0 <= drawn.interval().high for drawn in paired]) <= 0.99
    # A paired difference is far more precise than two separate intervals.
    errors = [
        (MCC.standard_error(truth.labels, *both), MCC.standard_error(truth.labels, both[0]))
        for both in zip(other[:20], one[:20], strict=True)
    ]
    assert np.mean([paired_error for paired_error, _ in errors]) < 0.5 * np.mean([alone for _, alone in errors])
