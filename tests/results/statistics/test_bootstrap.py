"""The bootstrap of means against a sentence-by-sentence implementation, SciPy's BCa and known cases."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from objectives.scores import Labels
from results.statistics.bootstrap import Interval, Resamples, strata_of


def simulate(seed: int, count: int = 120) -> tuple[npt.NDArray[np.float64], Labels, npt.NDArray[np.bool_]]:
    """Return the losses of three maps, labels and domains."""
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.7).astype(np.int8)
    return random.exponential(size=(3, count)) * (1 + labels), labels, random.random(count) < 0.5


@pytest.mark.parametrize("seed", range(2))
def test_each_draw_has_the_means_of_its_sentences(seed: int) -> None:
    values, labels, inside = simulate(seed)
    resamples = Resamples.draw(labels, inside, resamples=600, seed=seed)
    means = resamples.mean(values)
    for row in (0, 1, 511, 512, 599):
        drawn = np.repeat(np.arange(labels.size), resamples.counts[row])
        for at in range(len(values)):
            assert means.replicates[row, at] == pytest.approx(values[at, drawn].mean()), f"seed {seed}"


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
    values, labels, inside = simulate(5, count=40)
    means = Resamples.draw(labels, inside, resamples=2).mean(values)
    for left_out in range(labels.size):
        others = np.delete(np.arange(labels.size), left_out)
        for at in range(len(values)):
            assert means.jackknife[at, left_out] == pytest.approx(values[at, others].mean())


@pytest.mark.parametrize("seed", range(3))
def test_bca_intervals_match_scipy_on_the_same_draws(seed: int) -> None:
    values, labels, inside = simulate(seed)
    resamples = Resamples.draw(labels, inside, seed=seed)
    strata = [values[0, resamples.strata == stratum] for stratum in np.unique(resamples.strata)]

    def statistic(*parts: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
        return np.asarray(np.concatenate(parts, axis=axis).mean(axis=axis))

    means = resamples.mean(values[:1])
    theirs = stats.bootstrap(
        strata,
        statistic,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=means.replicates[:, 0]),
        method="BCa",
        vectorized=True,
    ).confidence_interval
    [ours] = means.intervals()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12), f"seed {seed}"


def test_many_sentences_have_the_normal_interval() -> None:
    values = np.random.default_rng(0).uniform(size=(1, 5000))
    [interval] = Resamples.draw(np.zeros(5000, dtype=np.int8)).mean(values).intervals()
    half_width = NormalDist().inv_cdf(0.975) * values.std() / math.sqrt(5000)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_equal_losses_leave_room_for_a_sentence_not_seen() -> None:
    nothing = Resamples.draw(np.zeros(50, dtype=np.int8)).mean(np.zeros((1, 50)))
    # One error in 1 - 0.025 ** (1 / 50) = 7.1% of sentences would stay unseen in fifty with 2.5% chance.
    [interval] = nothing.intervals(worst=4.0)
    assert (interval.low, interval.high) == pytest.approx((0.0, 4.0 * 0.07112), rel=1e-3)
    [single] = Resamples.draw(np.zeros(1, dtype=np.int8)).mean(np.ones((1, 1))).intervals(worst=4.0)
    assert (single.low, single.high) == pytest.approx((0.025, 0.025 + 0.975 * 4.0))
    # A difference of a map to itself is exactly 0.
    assert (nothing - nothing).intervals() == [Interval(0.0, 0.0)]


def test_wrong_shapes_are_refused() -> None:
    labels = np.zeros(5, dtype=np.int8)
    with pytest.raises(ValueError, match="at least one sentence"):
        Resamples.draw(labels[:0])
    with pytest.raises(ValueError, match="the same shape"):
        Resamples.draw(labels, np.zeros(4, dtype=np.bool_))
    with pytest.raises(ValueError, match=r"\(n_maps, 5\)"):
        Resamples.draw(labels).mean(np.zeros((2, 4)))


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0)])
def test_an_interval_is_checked(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        Interval(*bounds)
