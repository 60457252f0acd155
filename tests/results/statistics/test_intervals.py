"""Intervals of single maps, and paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from objectives.scores import Labels, LogOdds, mcc, predictions
from results.statistics.bootstrap import Interval, Resamples
from results.statistics.intervals import compare, damage_interval, mcc_interval, score_intervals, stack_log_odds


def sentences(seed: int, count: int = 120) -> tuple[LogOdds, Labels]:
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    return (2.0 * (labels - 0.4) + random.normal(scale=1.5, size=count)).astype(np.float32), labels


def test_a_map_has_the_same_interval_alone_and_among_others() -> None:
    log_odds, labels = sentences(0)
    inside = np.arange(120) < 60
    losses = np.random.default_rng(1).exponential(size=(2, 120))
    accepted = np.stack([predictions(log_odds) == 1, labels == 1])
    mccs, intervals = score_intervals(Resamples.draw(labels, inside), accepted, losses)
    assert mccs.point[0] == pytest.approx(mcc(predictions(log_odds), labels))
    assert intervals[0].mcc == mcc_interval(log_odds, labels, inside)
    alone = damage_interval(losses[1], labels, inside)
    assert (intervals[1].damage.low, intervals[1].damage.high) == pytest.approx((alone.low, alone.high))
    assert intervals[0].mcc.low < mccs.point[0] < intervals[0].mcc.high
    assert intervals[1].mcc == Interval(1.0, 1.0)


def test_intervals_depend_on_the_seed_alone() -> None:
    log_odds, labels = sentences(0)
    accepted = (predictions(log_odds) == 1)[np.newaxis]
    one, same, other = (Resamples.draw(labels, seed=seed).mcc(accepted).intervals() for seed in (0, 0, 1))
    assert one == same == [mcc_interval(log_odds, labels)]
    assert one != other


def test_wrong_shapes_are_refused() -> None:
    log_odds, labels = sentences(0)
    with pytest.raises(ValueError, match="values must have shape"):
        mcc_interval(log_odds, labels[:-1])
    with pytest.raises(ValueError, match="at least one sentence"):
        mcc_interval(log_odds[:0], labels[:0])
    with pytest.raises(ValueError, match="values must have shape"):
        damage_interval(np.zeros(5), labels)


def test_a_comparison_is_paired() -> None:
    log_odds, labels = sentences(2, count=600)
    accepted = np.stack([predictions(log_odds) == 1] * 3)
    # The second map is wrong on twelve acceptable sentences more, the third on one.
    accepted[1, np.flatnonzero((labels == 1) & accepted[0])[:12]] = False
    accepted[2, np.flatnonzero((labels == 1) & accepted[0])[:1]] = False
    mccs = Resamples.draw(labels).mcc(accepted)
    same, worse, close = compare(mccs, mccs[[0]], margin=0.01)
    assert (same.difference, same.interval, same.no_worse) == (0.0, Interval(0.0, 0.0), 1.0)
    assert worse.difference == mccs.point[1] - mccs.point[0] < 0
    assert worse.interval.low < worse.difference < worse.interval.high < 0
    assert worse.no_worse < 0.1
    assert 0.85 < close.no_worse < 0.95  # one observed error is consistent with several
    # Without pairing, the two intervals overlap widely.
    assert mccs.intervals()[0].low < mccs.point[1]


def test_log_odds_are_stacked_with_or_without_maps() -> None:
    assert stack_log_odds([], 7).shape == (0, 7)
    assert stack_log_odds([np.zeros(7, dtype=np.float32)] * 2, 7).shape == (2, 7)
