"""Dominance and the front, against slow implementations of their definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.layers import BitMap
from objectives.packing.footprint import SizeAxis
from results.outcome import Outcome, Quality, Trial
from results.pareto import Costs, beaten_by, exact_sizes, front, non_dominated, quality_cost
from tests.results.synthetic import (
    bert_layers,
    empty_outcome,
    failed,
    made_up_outcome,
    made_up_trial,
    scored,
    with_trials,
)


def kept_by_definition(costs: Costs) -> list[bool]:
    """Return which points are kept, comparing every pair as the definition does."""
    kept = []
    for i, (a, b) in enumerate(costs):
        beaten = np.isnan(a) or np.isnan(b)
        for j, (c, d) in enumerate(costs):
            if np.isnan(c) or np.isnan(d):
                continue
            beaten |= c <= a and d <= b and (c < a or d < b)
            beaten |= j < i and c == a and d == b
        kept.append(not beaten)
    return kept


# Few distinct values make ties in one and both columns frequent.
_TIED = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, float("inf"), float("-inf"), float("nan")])
_VALUES = st.one_of(_TIED, st.floats(-10, 10))


@given(st.lists(st.tuples(_VALUES, _VALUES), max_size=40))
def test_non_dominated_follows_the_definition(points: list[tuple[float, float]]) -> None:
    costs = np.array(points, dtype=np.float64).reshape(-1, 2)
    before = costs.copy()
    assert non_dominated(costs).tolist() == kept_by_definition(costs)
    np.testing.assert_array_equal(costs, before)


def test_of_equal_points_the_first_is_kept() -> None:
    assert non_dominated(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0]])).tolist() == [True, True, False]


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 2, 2)])
def test_non_dominated_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        non_dominated(np.zeros(shape))


@pytest.mark.parametrize(
    ("quality", "better", "worse"),
    [
        ("damage", {"damage": 0.1}, {"damage": 0.2}),
        ("mcc", {"metric": 0.6}, {"metric": 0.5}),
        ("agreement", {"agreement": 0.9}, {"agreement": 0.8}),
    ],
)
def test_the_better_quality_costs_less(quality: Quality, better: dict[str, float], worse: dict[str, float]) -> None:
    trial = made_up_outcome(trials=0).trials[0]
    costs = [scored(trial, **scores).scores for scores in (better, worse)]
    assert costs[0] is not None and costs[1] is not None
    assert quality_cost(costs[0], quality) < quality_cost(costs[1], quality)


@pytest.mark.parametrize("axis", get_args(SizeAxis))
@pytest.mark.parametrize("hidden", [32, 768])
def test_exact_sizes_are_those_of_the_footprint(axis: SizeAxis, hidden: int) -> None:
    layers = bert_layers(hidden=hidden, vocabulary=30522)
    outcome = empty_outcome(layers=layers, sentences=10, size_axis=axis)
    random = np.random.default_rng(hidden)
    maps = [tuple(int(width) for width in random.integers(2, 9, size=76)) for _ in range(30)]
    trials = [made_up_trial(outcome, number, bit_map) for number, bit_map in enumerate(maps)]
    sizes = [size_of(outcome, bit_map) for bit_map in maps]
    assert exact_sizes(outcome.footprint, trials, axis).tolist() == sizes


def size_of(outcome: Outcome, bit_map: BitMap) -> int:
    """Return the size on the outcome's axis by the footprint's own methods."""
    sizes = outcome.footprint
    if outcome.size_axis == "onnx":
        assert sizes.onnx is not None
        return sizes.onnx.file_bytes(bit_map)
    return sizes.nominal_bits(bit_map) if outcome.size_axis == "nominal" else sizes.packed_bytes(bit_map)


def beats(one: tuple[float, int], other: tuple[float, int]) -> bool:
    """Return whether one pair of (cost, size) beats another."""
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def cost_and_size(outcome: Outcome, trial: Trial) -> tuple[float, int]:
    """Return both from the scores and the footprint alone."""
    assert trial.scores is not None
    assert trial.scores.agreement is not None
    costs = {"damage": trial.scores.damage, "mcc": 1 - trial.scores.metric, "agreement": 1 - trial.scores.agreement}
    return costs[outcome.quality], size_of(outcome, trial.bit_map)


@pytest.mark.parametrize("quality", get_args(Quality))
@pytest.mark.parametrize("axis", get_args(SizeAxis))
def test_front_holds_the_maps_that_no_feasible_map_dominates(quality: Quality, axis: SizeAxis) -> None:
    outcome = made_up_outcome(
        trials=80, quality=quality, size_axis=axis, min_compression=5.0 if axis == "nominal" else 4
    )
    trials = [failed(trial) if trial.number % 9 == 0 else trial for trial in outcome.trials]
    outcome = replace(outcome, trials=tuple(trials))
    taking_part = [trial for trial in trials if trial.scores is not None and trial.feasible]
    pairs = {trial.number: cost_and_size(outcome, trial) for trial in taking_part}
    expected = {number for number, own in pairs.items() if not any(beats(other, own) for other in pairs.values())}
    trials_on_front = front(outcome)
    assert len(taking_part) > len(expected) > 3
    assert {trial.number for trial in trials_on_front} == expected
    compressions = [trial.compression(axis) for trial in trials_on_front]
    assert compressions == sorted(compressions)


def test_front_holds_feasible_baselines_only() -> None:
    outcome = made_up_outcome(trials=0)
    assert [trial.label for trial in front(outcome)] == ["uniform 5", "uniform 4", "uniform 3", "uniform 2"]


def test_front_of_repeated_maps_keeps_the_first() -> None:
    outcome = empty_outcome()
    trial = made_up_trial(outcome, 3, (4,) * 76)
    again = replace(trial, number=5, label="trial 5")
    assert [kept.number for kept in front(with_trials(outcome, [trial, again]))] == [3]


def test_front_without_complete_trials_is_empty() -> None:
    assert front(empty_outcome()) == ()
    outcome = made_up_outcome(trials=5)
    assert front(replace(outcome, trials=tuple(failed(trial) for trial in outcome.trials))) == ()


def test_beaten_by_returns_the_dominating_map_of_best_quality() -> None:
    outcome = empty_outcome()
    worst, good, best = (
        scored(made_up_trial(outcome, number, (4,) * 76), damage=damage)
        for number, damage in enumerate([0.3, 0.2, 0.1])
    )
    small = scored(made_up_trial(outcome, 3, (3,) * 76), damage=0.3)
    assert beaten_by(outcome, [good, best, small], worst) is best
    assert beaten_by(outcome, [small], worst) is small
    assert beaten_by(outcome, [worst, small], good) is None
    assert beaten_by(outcome, [worst], worst) is None
