import itertools

import numpy as np
import pytest

from search.allocation.knapsack import Choice, allocate
from search.samplers.common_mode import CommonModeShifts
from search.samplers.local_search import search_locally
from search.samplers.surrogate import Surrogate, specific_damages
from tests.search.synthetic_landscape import SyntheticNetwork


def surrogate_of(network: SyntheticNetwork, shrinkage: float = 1.0) -> Surrogate:
    """Return the surrogate whose shifts simply add up."""
    effects = network.effects.reshape(-1, network.effects.shape[-1])
    no_trend = np.zeros(len(network.fp32_log_odds), dtype=np.float32)
    no_penalty = np.zeros((len(effects), len(effects)), dtype=np.float32)
    common = CommonModeShifts(network.fp32_log_odds)
    specific = specific_damages(network.sensitivities(), network.fp32_log_odds, common).ravel()
    return Surrogate(
        network.fp32_log_odds, effects, 0.0, np.zeros_like(effects), no_trend, no_penalty, specific, common, shrinkage
    )


def is_no_better(surrogate: Surrogate, network: SyntheticNetwork, chosen: Choice, budget: int, damage: float) -> bool:
    return network.size(chosen) > budget or surrogate.damage(chosen) >= damage * 0.98


@pytest.mark.parametrize("seed", range(4))
def test_no_single_change_or_exchange_improves_the_result(seed: int) -> None:
    network = SyntheticNetwork(seed, n_layers=12)
    surrogate = surrogate_of(network)
    start = np.full(12, 1)
    budget = network.size(start)
    damage, chosen = search_locally(surrogate, network.sizes, start, budget)
    assert network.size(chosen) <= budget
    assert damage == pytest.approx(surrogate.damage(chosen))
    assert damage < 0.8 * surrogate.damage(start)
    single = [(layer, step) for layer in range(12) for step in (-2, -1, 1, 2) if 0 <= chosen[layer] + step <= 6]
    for changes in itertools.combinations(single, 2):
        changed = chosen.copy()
        for layer, step in changes:
            changed[layer] = np.clip(chosen[layer] + step, 0, 6)
        assert is_no_better(surrogate, network, changed, budget, damage)


@pytest.mark.parametrize("seed", range(6))
def test_it_comes_near_the_best_of_all_maps(seed: int) -> None:
    network = SyntheticNetwork(seed, n_layers=5)
    surrogate = surrogate_of(network)
    budget = network.size(np.full(5, 2))
    every = (np.array(choice) for choice in itertools.product(range(7), repeat=5))
    best = min(surrogate.damage(choice) for choice in every if network.size(choice) <= budget)
    least = min(
        search_locally(surrogate, network.sizes, np.full(5, width), budget)[0] for width in range(4)
    )  # from starts that fit and from starts that do not
    assert least <= 1.25 * best


def test_too_large_a_start_is_made_to_fit() -> None:
    network = SyntheticNetwork(7)
    smallest = network.size(np.zeros(20, dtype=np.int64))
    for budget in (smallest, int(1.3 * smallest)):
        _, chosen = search_locally(surrogate_of(network), network.sizes, np.full(20, 6), budget)
        assert network.size(chosen) <= budget


def test_a_start_that_cannot_be_improved_comes_back() -> None:
    network = SyntheticNetwork(8)
    network.effects[:] = 0
    start = np.full(20, 3)
    damage, chosen = search_locally(surrogate_of(network), network.sizes, start, network.size(start))
    assert damage == 0
    assert np.array_equal(chosen, start)


def test_with_shrinkage_0_the_result_is_the_knapsacks() -> None:
    """If the layers' shifts have no common part."""
    network = SyntheticNetwork(8)
    network.effects -= CommonModeShifts(network.fp32_log_odds).project(network.effects)
    surrogate = surrogate_of(network, shrinkage=0.0)
    budget = network.size(np.full(20, 2))
    knapsack = allocate(network.sensitivities().damages, network.sizes, budget)
    damage, _ = search_locally(surrogate, network.sizes, np.full(20, 2), budget)
    assert damage <= 1.05 * surrogate.damage_elsewhere(knapsack)
    assert search_locally(surrogate, network.sizes, knapsack, budget)[1].tolist() == knapsack.tolist()


def test_common_shifts_cancel_with_shrinkage_0() -> None:
    """Layers move all log-odds up or down: the best map has as much of one kind as of the other."""
    network = SyntheticNetwork(9, common=0.0)
    network.effects *= 0.3
    sign = np.where(np.arange(20) < 7, 1, -1)[:, None, None]
    network.effects += sign * np.abs(network.effects).mean(axis=-1, keepdims=True)
    surrogate = surrogate_of(network, shrinkage=0.0)
    budget = network.size(np.full(20, 2))
    knapsack = allocate(network.sensitivities().damages, network.sizes, budget)
    _, chosen = search_locally(surrogate, network.sizes, knapsack, budget)
    assert network.damage(chosen) < 0.7 * network.damage(knapsack)
