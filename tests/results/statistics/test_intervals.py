"""Intervals of single maps, and paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES
from objectives.scores import Labels, LogOdds
from results.statistics.intervals import compare, score_intervals, stack_log_odds
from results.statistics.metric_draws import MCC


def sentences(seed: int, count: int = 120) -> tuple[LogOdds, Labels]:
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    return (2.0 * (labels - 0.4) + random.normal(scale=1.5, size=count)).astype(np.float32), labels


def test_a_map_has_intervals_of_its_mcc_and_its_damage() -> None:
    fp32, labels = sentences(0)
    log_odds = fp32 + np.random.default_rng(1).normal(scale=0.3, size=120).astype(np.float32)
    found = score_intervals(log_odds, fp32, labels, np.arange(120) < 60)
    assert found.metric == MCC.draws(labels, TWO_CLASSES.predictions(log_odds) == 1).interval()
    assert 0 < found.damage.low < found.damage.high
    assert found == score_intervals(log_odds, fp32, labels, np.arange(120) < 60)


def test_a_map_that_changes_nothing_may_still_do_damage_elsewhere() -> None:
    fp32, labels = sentences(0)
    damage = score_intervals(fp32, fp32, labels, None).damage
    assert damage.low == 0.0
    assert damage.high == pytest.approx((1 - 0.025 ** (1 / 120)) * TWO_CLASSES.worst_divergence(fp32))


def test_wrong_shapes_are_refused() -> None:
    fp32, labels = sentences(0)
    with pytest.raises(ValueError, match="values must have shape"):
        score_intervals(fp32, fp32, labels[:-1], None)


def test_a_comparison_is_paired() -> None:
    log_odds, labels = sentences(2, count=600)
    answers = TWO_CLASSES.predictions(log_odds) == 1
    acceptable = np.flatnonzero((labels == 1) & answers)
    worse, close = answers.copy(), answers.copy()
    worse[acceptable[:12]] = False  # wrong on twelve acceptable sentences more
    close[acceptable[:1]] = False
    bad = compare(MCC, labels, worse, answers, margin=0.01)
    assert bad.interval.low < bad.difference < bad.interval.high < 0
    assert bad.no_worse < 0.1
    same, one = (compare(MCC, labels, own, answers, margin=0.01).no_worse for own in (answers, close))
    assert 0.8 < same < 0.95  # no observed error is consistent with a few
    assert 0.6 < one < same - 0.1
    # Without pairing, the two intervals overlap widely.
    assert MCC.draws(labels, answers).interval().low < MCC.draws(labels, worse).interval().high


def test_log_odds_are_stacked_with_or_without_maps() -> None:
    assert stack_log_odds([], np.zeros(7, dtype=np.float32)).shape == (0, 7)
    assert stack_log_odds([np.zeros(7, dtype=np.float32)] * 2, np.zeros(7, dtype=np.float32)).shape == (2, 7)
