"""Cross-fitting: no map is scored on a sentence that chose it, and the winner's curse is gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from results.statistics.bootstrap import strata_of
from results.statistics.candidates import Candidates, least_damage_rule
from results.statistics.cross_fitting import corrected, cross_fitted
from results.statistics.metric_draws import MCC
from tests.results.simulated import best_mcc, candidates_of, cola_like


def test_no_sentence_both_chooses_and_scores_a_map() -> None:
    truth = cola_like()
    accepted = truth.draw(np.random.default_rng(0), 12)
    # Every map's loss on a sentence is the sentence's number, which tells the rule's sentences apart.
    numbers = np.arange(truth.labels.size, dtype=np.float64)
    candidates = candidates_of(truth, accepted, losses=np.tile(numbers, (12, 1)))
    seen: list[np.ndarray] = []

    def choose(given: Candidates) -> int:
        seen.append(given.losses[0].astype(int))
        return len(seen) % 12

    accepted_once, losses, complete = cross_fitted(candidates, [choose], folds=10, repeats=2)
    assert complete.tolist() == [True]
    assert len(seen) == 20
    assert losses[0].tolist() == [numbers.tolist()] * 2  # each sentence is scored once in each repeat
    for call, given in enumerate(seen):
        left_out = np.setdiff1d(np.arange(truth.labels.size), given)
        assert left_out.size in (104, 105)
        strata = strata_of(truth.labels, truth.in_domain)
        shares = [np.count_nonzero(strata[left_out] == stratum) for stratum in range(4)]
        assert all(abs(share - np.count_nonzero(strata == at) / 10) < 1 for at, share in enumerate(shares))
        assert np.array_equal(accepted_once[0, call // 10, left_out], accepted[(call + 1) % 12, left_out])
    assert {len(set(np.concatenate(seen[:10]))), len(set(np.concatenate(seen[10:])))} == {truth.labels.size}


def test_the_estimate_of_a_single_map_is_its_score() -> None:
    truth = cola_like()
    accepted = truth.draw(np.random.default_rng(0), 1)
    losses = np.random.default_rng(1).exponential(size=accepted.shape)
    candidates = candidates_of(truth, accepted, losses=losses)
    [estimate] = corrected(candidates, [least_damage_rule(candidates.feasible)], 0.01)
    assert estimate is not None
    assert estimate.metric == pytest.approx(candidates.metrics[0])
    assert estimate.damage == pytest.approx(candidates.damages[0])
    interval = MCC.draws(truth.labels, accepted[0]).interval()
    assert (estimate.metric_interval.low, estimate.metric_interval.high) == pytest.approx((interval.low, interval.high))
    assert estimate.against_fp32.difference == pytest.approx(candidates.metrics[0] - 1.0)  # this FP32 is always right


def test_a_rule_that_finds_no_map_without_some_fold_has_no_estimate() -> None:
    truth = cola_like()
    candidates = candidates_of(truth, truth.draw(np.random.default_rng(0), 3))
    calls = iter([0, 1, 2, None, *[2] * 100])
    rules = [lambda _: next(calls), best_mcc, lambda _: None]
    estimates = corrected(candidates, rules, 0.01)
    assert [estimate is None for estimate in estimates] == [True, False, True]
    assert corrected(candidates, rules[2:], 0.01) == [None]


@pytest.mark.end_to_end
def test_cross_fitting_removes_the_luck_of_the_best_of_a_thousand_equal_maps() -> None:
    truth = cola_like()
    random = np.random.default_rng(0)
    naive, honest, covered = [], [], []
    for _ in range(80):
        candidates = replace(candidates_of(truth, truth.draw(random, 1000)), resamples=300)
        naive.append(candidates.metrics.max() - truth.mcc)
        [estimate] = corrected(candidates, [best_mcc], 0.01, repeats=2)
        assert estimate is not None
        honest.append(estimate.metric - truth.mcc)
        covered.append(estimate.metric_interval.low <= truth.mcc <= estimate.metric_interval.high)
    error = MCC.standard_error(truth.labels, candidates.answers[0])
    assert error == pytest.approx(0.03, abs=0.003)
    assert np.mean(naive) > 2.5 * error  # optimistic: 3.2 standard errors are expected
    assert abs(np.mean(honest)) < error / 5
    assert np.mean(covered) > 0.93
