"""Intervals against twins that resample sentences one by one, and against exact quantiles."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from objectives.scores import Labels, LogOdds, divergences, mcc, mcc_of_counts, predictions
from results.statistics import Interval, damage_interval, damage_intervals, mcc_interval, trial_intervals
from tests.results.synthetic import failed, made_up_outcome


def sentences(seed: int, count: int = 120) -> tuple[LogOdds, Labels]:
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    return (2.0 * (labels - 0.4) + random.normal(scale=1.5, size=count)).astype(np.float32), labels


def resampled_mcc(log_odds: LogOdds, labels: Labels, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Draw sentences with replacement within each label, and score each draw from the beginning."""
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(labels == label) for label in (0, 1)]
    scores = []
    for _ in range(resamples):
        drawn = np.concatenate([random.choice(stratum, size=stratum.size) for stratum in strata])
        scores.append(mcc(predictions(log_odds[drawn]), labels[drawn]))
    return np.array(scores)


@pytest.mark.parametrize("seed", range(3))
def test_mcc_interval_is_that_of_resampled_sentences(seed: int) -> None:
    log_odds, labels = sentences(seed)
    low, high = np.percentile(resampled_mcc(log_odds, labels, resamples=4000, seed=seed + 100), [2.5, 97.5])
    interval = mcc_interval(log_odds, labels, resamples=20_000)
    # The twin's percentiles have a Monte Carlo error of about 0.004 at a standard error of 0.09.
    assert interval.low == pytest.approx(low, abs=0.02), f"seed {seed}"
    assert interval.high == pytest.approx(high, abs=0.02), f"seed {seed}"
    assert interval.low < mcc(predictions(log_odds), labels) < interval.high


def test_mcc_interval_has_the_exact_quantiles() -> None:
    # 7 of 9 acceptable and 3 of 6 unacceptable sentences are accepted: 70 outcomes with binomial weights.
    labels = np.array([1] * 9 + [0] * 6, dtype=np.int8)
    log_odds = np.array([1.0] * 7 + [-1.0] * 2 + [1.0] * 3 + [-1.0] * 3, dtype=np.float32)
    weights: dict[float, float] = {}
    for hits, alarms in product(range(10), range(7)):
        weight = math.comb(9, hits) * (7 / 9) ** hits * (2 / 9) ** (9 - hits) * math.comb(6, alarms) / 2**6
        value = float(mcc_of_counts(*(np.array(count) for count in (hits, 9 - hits, alarms, 6 - alarms))))
        weights[value] = weights.get(value, 0.0) + weight
    values = np.array(sorted(weights))
    cumulative = np.cumsum([weights[value] for value in values])
    interval = mcc_interval(log_odds, labels, resamples=400_000, seed=5)
    for bound, level in ((interval.low, 0.025), (interval.high, 0.975)):
        at = int(np.searchsorted(cumulative, level))
        assert min(level - (cumulative[at - 1] if at else 0.0), cumulative[at] - level) > 0.001  # no knife's edge
        assert bound == pytest.approx(values[at])


def test_mcc_interval_of_a_perfect_and_of_a_constant_prediction() -> None:
    labels = np.array([0, 1] * 20, dtype=np.int8)
    perfect = np.where(labels == 1, 2.0, -2.0).astype(np.float32)
    assert mcc_interval(perfect, labels) == Interval(1.0, 1.0)
    assert mcc_interval(np.ones(40, dtype=np.float32), labels) == Interval(0.0, 0.0)
    assert mcc_interval(perfect, np.ones(40, dtype=np.int8)) == Interval(0.0, 0.0)  # one label only: undefined


def test_mcc_interval_is_seeded() -> None:
    log_odds, labels = sentences(0)
    assert mcc_interval(log_odds, labels, seed=1) == mcc_interval(log_odds, labels, seed=1)
    assert mcc_interval(log_odds, labels, seed=1) != mcc_interval(log_odds, labels, seed=2)


def test_mcc_interval_refuses_what_does_not_fit() -> None:
    log_odds, labels = sentences(0)
    with pytest.raises(ValueError, match="a log-odds for each sentence"):
        mcc_interval(log_odds, labels[:-1])
    with pytest.raises(ValueError, match="a log-odds for each sentence"):
        mcc_interval(log_odds[:0], labels[:0])


@pytest.mark.parametrize("seed", range(3))
def test_damage_interval_is_that_of_resampled_sentences(seed: int) -> None:
    random = np.random.default_rng(seed)
    losses = random.lognormal(sigma=1.5, size=150)
    means = [float(np.mean(random.choice(losses, size=losses.size))) for _ in range(4000)]
    low, high = np.percentile(means, [2.5, 97.5])
    interval = damage_interval(losses)
    standard_error = losses.std() / math.sqrt(losses.size)
    assert interval.low == pytest.approx(low, abs=0.25 * standard_error), f"seed {seed}"
    assert interval.high == pytest.approx(high, abs=0.25 * standard_error), f"seed {seed}"


def test_damage_interval_of_many_sentences_is_the_normal_one() -> None:
    losses = np.random.default_rng(0).uniform(size=5000)
    interval = damage_interval(losses)
    half_width = 1.96 / math.sqrt(12 * 5000)
    assert interval.low == pytest.approx(losses.mean() - half_width, abs=0.15 * half_width)
    assert interval.high == pytest.approx(losses.mean() + half_width, abs=0.15 * half_width)


def test_damage_intervals_are_those_of_one_map_each() -> None:
    losses = np.random.default_rng(0).exponential(size=(4, 90))
    before = losses.copy()
    together = damage_intervals(losses)
    for row, interval in zip(losses, together, strict=True):
        alone = damage_interval(row)
        assert (alone.low, alone.high) == pytest.approx((interval.low, interval.high))
    np.testing.assert_array_equal(losses, before)
    assert damage_intervals(np.empty((0, 90))) == []


def test_damage_interval_of_no_damage_is_zero() -> None:
    assert damage_interval(np.zeros(50)) == Interval(0.0, 0.0)


def test_damage_interval_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(n_sentences,\)"):
        damage_interval(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"\(n_maps, n_sentences\)"):
        damage_intervals(np.zeros((2, 0)))


def test_trial_intervals_hold_the_scores_and_leave_out_failed_trials() -> None:
    outcome = made_up_outcome(trials=3)
    trials = [failed(outcome.trials[0]), *outcome.trials[1:]]
    intervals = trial_intervals(trials, outcome.labels, outcome.fp32_log_odds)
    assert set(intervals) == {trial.number for trial in trials[1:]}
    for trial in trials[1:]:
        assert trial.scores is not None and trial.log_odds is not None
        found = intervals[trial.number]
        assert found.mcc == mcc_interval(trial.log_odds, outcome.labels)
        assert found.damage.low < trial.scores.damage < found.damage.high
        alone = damage_interval(divergences(trial.log_odds, outcome.fp32_log_odds))
        assert (found.damage.low, found.damage.high) == pytest.approx((alone.low, alone.high))
    assert trial_intervals([], outcome.labels, outcome.fp32_log_odds) == {}


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0)])
def test_an_interval_is_checked(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Interval(*bounds)
