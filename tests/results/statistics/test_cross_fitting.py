"""Cross-fitting: what is chosen never scores on a sentence it was chosen by, and winner's luck is gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from results.statistics.bootstrap import strata_of
from results.statistics.candidates import Candidates, least_damage_rule
from results.statistics.cross_fitting import corrected, cross_fitted
from tests.results.simulated import best_mcc, candidates_of, cola_like


def test_choices_never_see_the_sentences_that_score_them() -> None:
    truth = cola_like()
    accepted = truth.draw(np.random.default_rng(0), 12)
    # The losses of every map are the number of the sentence: what a rule sees tells which sentences it was given.
    numbers = np.arange(truth.labels.size, dtype=np.float64)
    candidates = candidates_of(truth, accepted, losses=np.tile(numbers, (12, 1)))
    seen: list[np.ndarray] = []

    def choose(given: Candidates) -> int:
        seen.append(given.losses[0].astype(int))
        return len(seen) % 12

    found, losses, whole = cross_fitted(candidates, [choose], folds=10, repeats=2)
    assert whole.tolist() == [True]
    assert len(seen) == 20
    assert losses[0].tolist() == [numbers.tolist()] * 2  # each sentence is scored once in each repeat
    for call, given in enumerate(seen):
        left_out = np.setdiff1d(np.arange(truth.labels.size), given)
        assert left_out.size in (104, 105)
        strata = strata_of(truth.labels, truth.in_domain)
        shares = [np.count_nonzero(strata[left_out] == stratum) for stratum in range(4)]
        assert all(abs(share - np.count_nonzero(strata == at) / 10) < 1 for at, share in enumerate(shares))
        assert np.array_equal(found[0, call // 10, left_out], accepted[(call + 1) % 12, left_out])
    assert {len(set(np.concatenate(seen[:10]))), len(set(np.concatenate(seen[10:])))} == {truth.labels.size}


def test_one_map_is_worth_what_it_scores() -> None:
    truth = cola_like()
    accepted = truth.draw(np.random.default_rng(0), 1)
    losses = np.random.default_rng(1).exponential(size=accepted.shape)
    candidates = candidates_of(truth, accepted, losses=losses)
    [found] = corrected(candidates, [least_damage_rule(candidates.feasible)], 0.01)
    assert found is not None
    assert found.mcc == pytest.approx(candidates.mccs[0])
    assert found.damage == pytest.approx(candidates.damages[0])
    [interval] = candidates.draws.mcc(accepted).intervals()
    assert (found.mcc_interval.low, found.mcc_interval.high) == pytest.approx((interval.low, interval.high))
    assert found.against_fp32.difference == pytest.approx(candidates.mccs[0] - 1.0)  # this FP32 is always right


def test_rules_that_find_nothing_on_some_sentences_are_not_corrected() -> None:
    truth = cola_like()
    candidates = candidates_of(truth, truth.draw(np.random.default_rng(0), 3))
    calls = iter([0, 1, 2, None, *[2] * 100])
    rules = [lambda _: next(calls), best_mcc, lambda _: None]
    found = corrected(candidates, rules, 0.01)
    assert [known is None for known in found] == [True, False, True]
    assert corrected(candidates, rules[2:], 0.01) == [None]


def test_the_winner_of_a_thousand_equal_maps_is_lucky_and_the_corrected_one_is_not() -> None:
    truth = cola_like()
    random = np.random.default_rng(0)
    naive, honest, covered = [], [], []
    for _ in range(80):
        candidates = replace(candidates_of(truth, truth.draw(random, 1000)), resamples=300)
        naive.append(candidates.mccs.max() - truth.mcc)
        [found] = corrected(candidates, [best_mcc], 0.01, repeats=2)
        assert found is not None
        honest.append(found.mcc - truth.mcc)
        covered.append(found.mcc_interval.low <= truth.mcc <= found.mcc_interval.high)
    standard_error = candidates.draws.mcc(candidates.accepted[:100]).standard_errors().mean()
    assert standard_error == pytest.approx(0.03, abs=0.003)
    assert np.mean(naive) > 2.5 * standard_error  # visibly optimistic: expected is 3.2 standard errors
    assert abs(np.mean(honest)) < standard_error / 5
    assert np.mean(covered) > 0.93
