"""The rules of choosing, on maps of given sizes, losses and acceptances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from objectives.heads import TWO_CLASSES
from objectives.metrics import metric_value
from results.statistics.candidates import Candidates, knee_rule, least_damage_rule, smallest_rule
from tests.results.simulated import candidates_of, cola_like
from tests.results.synthetic import failed, made_up_outcome, with_trials

TRUTH = cola_like()


def accepted_with_errors(sentences: int, *, seed: int = 0) -> np.ndarray:
    """Return acceptances that are wrong on so many random sentences."""
    wrong = np.random.default_rng(seed).permutation(TRUTH.labels.size)[:sentences]
    accepted: np.ndarray = TRUTH.labels == 1
    accepted[wrong] = ~accepted[wrong]
    return accepted


def made_up_candidates(errors: list[int], damages: list[float], sizes: list[int]) -> Candidates:
    losses = np.tile(np.array(damages)[:, None], (1, TRUTH.labels.size))
    accepted = np.stack([accepted_with_errors(count) for count in errors])
    return candidates_of(TRUTH, accepted, losses=losses, sizes=np.array(sizes))


def test_candidates_hold_the_results_of_complete_trials() -> None:
    outcome = made_up_outcome(trials=10)
    outcome = with_trials(outcome, [failed(outcome.trials[3]) if t.number == 3 else t for t in outcome.trials])
    candidates = Candidates.of(outcome)
    complete = [trial for trial in outcome.trials if trial.scores is not None]
    assert candidates.numbers.tolist() == [trial.number for trial in complete]
    assert candidates.feasible.tolist() == [trial.feasible for trial in complete]
    for damage, own_mcc, trial in zip(candidates.damages, candidates.metrics, complete, strict=True):
        assert trial.scores is not None
        assert (damage, own_mcc) == pytest.approx((trial.scores.damage, trial.scores.metric))
    some = np.arange(outcome.labels.size) % 3 > 0
    part = candidates.on(some)
    for at in range(3):
        assert part.metrics[at] == pytest.approx(
            metric_value("mcc", TWO_CLASSES, candidates.answers[at, some].astype(np.int8), outcome.labels[some])
        )
        assert part.damages[at] == pytest.approx(candidates.losses[at, some].mean())


def test_the_least_damage_is_chosen_if_the_best_mcc_is_only_luck() -> None:
    # Two maps that err on different sentences: the second has six fewer errors, a fraction of the standard error.
    candidates = made_up_candidates([200, 194], [0.1, 0.2], [4, 4])
    candidates.answers[1] = accepted_with_errors(194, seed=1)
    assert candidates.metrics.argmax() == 1
    assert least_damage_rule(candidates.feasible)(candidates) == 0


def test_a_map_of_significantly_worse_mcc_is_not_chosen_for_its_little_damage() -> None:
    candidates = made_up_candidates([300, 201, 200], [0.1, 0.2, 0.3], [4, 4, 4])
    assert least_damage_rule(candidates.feasible)(candidates) == 1
    assert least_damage_rule(np.array([True, False, False]))(candidates) == 0
    assert least_damage_rule(np.zeros(3, dtype=np.bool_))(candidates) is None


def test_more_comparisons_need_a_larger_difference() -> None:
    candidates = made_up_candidates([125, 100], [0.1, 0.2], [4, 4])
    assert candidates.is_worse(0, 1, comparisons=1)
    assert not candidates.is_worse(0, 1, comparisons=10**9)
    assert not candidates.is_worse(1, 0, comparisons=1)
    assert not candidates.is_worse(0, 0, comparisons=1)


def test_the_luckiest_of_a_thousand_equal_maps_does_not_exclude_the_least_damage() -> None:
    accepted = TRUTH.draw(np.random.default_rng(0), 1000)
    damages = np.random.default_rng(1).random(1000)
    candidates = candidates_of(TRUTH, accepted, losses=np.tile(damages[:, None], (1, TRUTH.labels.size)))
    assert least_damage_rule(candidates.feasible)(candidates) == damages.argmin()


def test_the_smallest_map_is_the_last_before_the_first_failure() -> None:
    # FP32 is always right here. The third map fails at this margin, so the fourth, though better, is not tested.
    candidates = made_up_candidates([0, 2, 60, 1, 400], [0.1, 0.2, 0.3, 0.4, 0.5], [9, 8, 7, 6, 5])
    limits = [5, 6, 7, 8, 9, 4]  # in any order; no map is as small as 4
    assert smallest_rule(0.02, limits)(candidates) == 1
    assert smallest_rule(0.2, limits)(candidates) == 3
    assert smallest_rule(0.9, limits)(candidates) == 4
    assert smallest_rule(0.02, limits)(replace(candidates, feasible=np.array([False] * 4 + [True]))) is None
    # Between two limits only the map of least damage is tested, and a map that answers two limits is tested once.
    assert smallest_rule(0.02, [9, 6])(candidates) == 3
    assert smallest_rule(0.02, [9, 4])(candidates) == 0
    other = made_up_candidates([0, 60, 2], [0.1, 0.9, 0.2], [9, 8, 8])
    assert smallest_rule(0.02, [9, 8])(other) == 2


def test_the_maps_that_are_tested_are_chosen_by_their_damage_on_unseen_sentences() -> None:
    candidates = made_up_candidates([0, 60, 2], [0.1, 0.2, 0.3], [9, 8, 7])
    assert smallest_rule(0.02, [9, 8])(candidates) == 0
    assert smallest_rule(0.02, [9, 8])(replace(candidates, unseen=np.array([0.1, 0.3, 0.2]))) == 2


def test_the_knee_is_furthest_below_the_line_between_the_ends() -> None:
    sizes, damages = [10, 8, 5, 4, 2], [0.0, 0.01, 0.02, 0.5, 1.0]
    candidates = made_up_candidates([1] * 5, damages, sizes)
    below = [(1 - (size - 2) / 8) - damage for size, damage in zip(sizes, damages, strict=True)]
    assert knee_rule()(candidates) == int(np.argmax(below)) == 2
    assert knee_rule()(made_up_candidates([1, 1], [0.1, 0.2], [5, 4])) is None


def test_the_knee_uses_the_damage_on_unseen_sentences_if_known() -> None:
    candidates = made_up_candidates([1] * 5, [0.0, 0.1, 0.2, 0.01, 1.0], [10, 8, 6, 4, 2])
    unseen = np.array([0.0, 0.01, 0.02, 0.6, 1.0])
    assert knee_rule()(candidates) == 3  # lucky on the search's sentences
    assert knee_rule()(replace(candidates, unseen=unseen)) == 2
