import numpy as np

from search.samplers.shrinkage import SHRINKAGES, choose_shrinkage
from tests.search.synthetic_landscape import SyntheticNetwork


def shrinkage_of(network: SyntheticNetwork) -> float:
    budgets = [network.size(np.full(20, width)) for width in (4, 2, 1)]
    return choose_shrinkage(network.sensitivities(), network.fp32_log_odds, network.sizes, budgets)


def test_shared_directions_raise_the_weight_and_chance_does_not() -> None:
    chance = [shrinkage_of(SyntheticNetwork(seed, n_sentences=200, common=0.0)) for seed in range(3)]
    shared = [shrinkage_of(SyntheticNetwork(seed, n_sentences=200, common=3.0)) for seed in range(3)]
    assert max(chance) <= 0.2
    assert min(shared) >= 0.4


def test_the_weight_is_one_of_the_shrinkages_and_reproducible() -> None:
    weights = {shrinkage_of(SyntheticNetwork(3)) for _ in range(2)}
    assert len(weights) == 1
    assert weights <= set(SHRINKAGES)


def test_with_few_sentences_the_weight_is_0() -> None:
    assert shrinkage_of(SyntheticNetwork(4, n_sentences=30, common=3.0)) == 0.0
