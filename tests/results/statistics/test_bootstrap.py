"""The bootstrap against a sentence-by-sentence implementation, SciPy's BCa, exact distributions and known truth."""

from __future__ import annotations

import math
from itertools import product
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from objectives.scores import Labels, mcc, mcc_of_counts
from results.statistics.bootstrap import Interval, Resamples, strata_of
from tests.benchmarks.luck import covered
from tests.results.simulated import cola_like


def simulate(seed: int, count: int = 120) -> tuple[npt.NDArray[np.bool_], Labels, npt.NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    return random.random((3, count)) < np.where(labels == 1, 0.85, 0.4), labels, random.random(count) < 0.5


def slow_mcc(accepted: npt.NDArray[np.bool_], labels: Labels, drawn: npt.NDArray[np.int64]) -> float:
    """Score one draw from its sentences."""
    return mcc(accepted[drawn].astype(np.int8), labels[drawn])


@pytest.mark.parametrize("seed", range(2))
def test_each_draw_has_the_scores_of_its_sentences(seed: int) -> None:
    accepted, labels, inside = simulate(seed)
    before = accepted.copy()
    resamples = Resamples.draw(labels, inside, resamples=600, seed=seed)
    values = np.random.default_rng(seed).exponential(size=accepted.shape)
    scores, means = resamples.mcc(accepted), resamples.mean(values)
    for row in (0, 1, 511, 512, 599):
        drawn = np.repeat(np.arange(labels.size), resamples.counts[row])
        for at in range(len(accepted)):
            assert scores.replicates[row, at] == pytest.approx(slow_mcc(accepted[at], labels, drawn)), f"seed {seed}"
            assert means.replicates[row, at] == pytest.approx(values[at, drawn].mean()), f"seed {seed}"
    np.testing.assert_array_equal(accepted, before)


def test_every_draw_keeps_the_number_of_each_label_and_domain() -> None:
    _, labels, inside = simulate(3)
    strata = strata_of(labels, inside)
    counts = Resamples.draw(labels, inside, resamples=50).counts
    for stratum in range(4):
        assert set(counts[:, strata == stratum].sum(axis=1).tolist()) == {np.count_nonzero(strata == stratum)}
    again, other = Resamples.draw(labels, inside, resamples=50), Resamples.draw(labels, inside, resamples=50, seed=1)
    assert np.array_equal(counts, again.counts)
    assert not np.array_equal(counts, other.counts)


def test_the_jackknife_leaves_out_one_sentence_at_a_time() -> None:
    accepted, labels, inside = simulate(5, count=40)
    resamples = Resamples.draw(labels, inside, resamples=2)
    values = np.random.default_rng(0).normal(size=accepted.shape)
    scores, means = resamples.mcc(accepted), resamples.mean(values)
    for left_out in range(labels.size):
        others = np.delete(np.arange(labels.size), left_out)
        for at in range(len(accepted)):
            assert scores.jackknife[at, left_out] == pytest.approx(slow_mcc(accepted[at], labels, others))
            assert means.jackknife[at, left_out] == pytest.approx(values[at, others].mean())


@pytest.mark.parametrize("seed", range(3))
def test_bca_intervals_match_scipy_on_the_same_draws(seed: int) -> None:
    accepted, labels, inside = simulate(seed)
    resamples = Resamples.draw(labels, inside, seed=seed)
    strata = [np.flatnonzero(resamples.strata == stratum) for stratum in np.unique(resamples.strata)]

    def statistic(*parts: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
        # SciPy passes the indices of sentences, one array for each stratum.
        drawn = np.concatenate(parts, axis=axis).astype(int)
        accepts, positive = accepted[0][drawn], labels[drawn] == 1
        hits, alarms = (accepts & positive).sum(axis=-1), (accepts & ~positive).sum(axis=-1)
        return mcc_of_counts(hits, positive.sum(axis=-1) - hits, alarms, (~positive).sum(axis=-1) - alarms)

    mccs = resamples.mcc(accepted[:1])
    theirs = stats.bootstrap(
        strata,
        statistic,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=mccs.replicates[:, 0]),
        method="BCa",
        vectorized=True,
    ).confidence_interval
    [ours] = mccs.intervals()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12), f"seed {seed}"


def test_confidence_is_the_level_whose_bound_meets_the_threshold() -> None:
    values = np.random.default_rng(0).lognormal(size=(1, 300))
    means = Resamples.draw(np.zeros(300, dtype=np.int8)).mean(values)
    [interval] = means.intervals()
    assert means.confidence_above(interval.low)[0] == pytest.approx(0.975, abs=0.002)
    assert means.confidence_above(interval.high)[0] == pytest.approx(0.025, abs=0.002)
    assert means.confidence_above(-1.0)[0] > 0.999
    levels = [means.confidence_above(threshold)[0] for threshold in np.linspace(1.0, 3.0, 30)]
    assert levels == sorted(levels, reverse=True)


def test_many_sentences_have_the_normal_interval() -> None:
    values = np.random.default_rng(0).uniform(size=(1, 5000))
    means = Resamples.draw(np.zeros(5000, dtype=np.int8)).mean(values)
    [interval] = means.intervals()
    half_width = NormalDist().inv_cdf(0.975) * values.std() / math.sqrt(5000)
    assert means.standard_errors()[0] == pytest.approx(values.std() / math.sqrt(5000), rel=1e-3)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_draws_have_the_exact_distribution() -> None:
    # 7 of 9 acceptable and 3 of 6 unacceptable sentences are accepted: 70 outcomes with binomial weights.
    labels = np.array([1] * 9 + [0] * 6, dtype=np.int8)
    accepted = np.array([[True] * 7 + [False] * 2 + [True] * 3 + [False] * 3])
    weights: dict[float, float] = {}
    for hits, alarms in product(range(10), range(7)):
        weight = math.comb(9, hits) * (7 / 9) ** hits * (2 / 9) ** (9 - hits) * math.comb(6, alarms) / 2**6
        value = float(mcc_of_counts(*(np.array(count) for count in (hits, 9 - hits, alarms, 6 - alarms))))
        weights[value] = weights.get(value, 0.0) + weight
    drawn = Resamples.draw(labels, resamples=100_000, seed=5).mcc(accepted).replicates[:, 0]
    for value, weight in weights.items():
        assert np.mean(np.isclose(drawn, value)) == pytest.approx(weight, abs=0.005)


def test_a_score_without_spread_has_its_point_as_interval() -> None:
    labels = np.array([0, 1] * 20, dtype=np.int8)
    perfect, constant = labels == 1, np.ones(40, dtype=np.bool_)
    mccs = Resamples.draw(labels).mcc(np.stack([perfect, constant]))
    assert mccs.intervals() == [Interval(1.0, 1.0), Interval(0.0, 0.0)]
    difference = mccs[[0]] - mccs[[0]]
    assert difference.intervals() == [Interval(0.0, 0.0)]
    assert difference.confidence_above(-0.01).tolist() == [1.0]
    assert difference.confidence_above(0.01).tolist() == [0.0]
    only_one = Resamples.draw(np.ones(40, dtype=np.int8)).mcc(perfect[np.newaxis])
    assert only_one.intervals() == [Interval(0.0, 0.0)]  # undefined without the other label
    assert Resamples.draw(np.zeros(50, dtype=np.int8)).mean(np.zeros((1, 50))).intervals() == [Interval(0.0, 0.0)]


def test_wrong_shapes_are_refused() -> None:
    labels = np.zeros(5, dtype=np.int8)
    for wrong in (labels[:0], labels[np.newaxis]):
        with pytest.raises(ValueError, match="with at least one sentence"):
            Resamples.draw(wrong)
    with pytest.raises(ValueError, match="the same shape"):
        Resamples.draw(labels, np.zeros(4, dtype=np.bool_))
    with pytest.raises(ValueError, match=r"\(n_maps, 5\)"):
        Resamples.draw(labels).mean(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"\(n_maps, 5\)"):
        Resamples.draw(labels).mcc(np.zeros(5, dtype=np.bool_))


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0)])
def test_an_interval_is_checked(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Interval(*bounds)


@pytest.mark.end_to_end
def test_intervals_cover_the_truth_at_the_size_and_imbalance_of_cola() -> None:
    truth = cola_like()
    random = np.random.default_rng(1)
    maps = 3000
    resamples = Resamples.draw(truth.labels, truth.in_domain, resamples=1000)
    one = truth.draw(random, maps)
    # The other map redraws one sentence in ten with the same chances, so the true difference is 0.
    other = np.where(random.random(one.shape) < 0.1, truth.draw(random, maps), one)
    mccs = resamples.mcc(one)
    difference = resamples.mcc(other) - mccs
    assert 0.93 <= covered(mccs, truth.mcc) <= 0.97
    assert 0.93 <= covered(difference, 0.0) <= 0.97
    # With the truth at the threshold, the confidence exceeds a level as rarely as the level says.
    confidences = difference.confidence_above(0.0)
    for level in (0.5, 0.8, 0.95):
        assert np.mean(confidences > level) == pytest.approx(1 - level, abs=0.035)
    # A paired difference is far more precise than two separate intervals.
    assert difference.standard_errors().mean() < 0.5 * mccs.standard_errors().mean()
