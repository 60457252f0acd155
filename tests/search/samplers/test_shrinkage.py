import numpy as np

from search.samplers.shrinkage import SHRINKAGES, choose_shrinkage
from tests.search.synthetic_landscape import SyntheticNetwork


def trust_of(network: SyntheticNetwork) -> float:
    budgets = [network.size(np.full(20, width)) for width in (4, 2, 1)]
    return choose_shrinkage(network.sensitivities(), network.fp32_log_odds, network.sizes, budgets)


def test_directions_that_layers_share_are_trusted_and_chance_is_not() -> None:
    chance = [trust_of(SyntheticNetwork(seed, n_sentences=200, common=0.0)) for seed in range(3)]
    shared = [trust_of(SyntheticNetwork(seed, n_sentences=200, common=3.0)) for seed in range(3)]
    assert max(chance) <= 0.2
    assert min(shared) >= 0.4


def test_it_is_one_of_the_trusts_and_the_same_every_time() -> None:
    found = {trust_of(SyntheticNetwork(3)) for _ in range(2)}
    assert len(found) == 1
    assert found <= set(SHRINKAGES)


def test_too_few_sentences_tell_nothing() -> None:
    assert trust_of(SyntheticNetwork(4, n_sentences=30, common=3.0)) == 0.0
