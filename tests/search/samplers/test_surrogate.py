import numpy as np
import pytest

from objectives.heads import TWO_CLASSES
from search.samplers.surrogate import Surrogate, SurrogateModel
from tests.search.synthetic_landscape import SyntheticNetwork


def surrogate_of(
    network: SyntheticNetwork,
    n_maps: int,
    error: float = 0.4,
    temperature: float = 0.0,
    seed: int = 0,
    shrinkage: float = 1.0,
) -> Surrogate:
    seen = network.observe(network.random_maps(n_maps, seed=1))
    model = SurrogateModel(network.sensitivities(error), network.fp32_log_odds, shrinkage)
    posterior = model.posterior(seen, float(np.median(seen.sizes)))
    return posterior.draw(np.random.default_rng(seed), temperature)


def errors(network: SyntheticNetwork, surrogate: Surrogate) -> float:
    """Return the median error of predicted damages of new maps, in natural logarithms."""
    fresh = network.random_maps(100, seed=2)
    return float(np.median([abs(np.log(surrogate.damage(chosen) / network.damage(chosen))) for chosen in fresh]))


def test_observations_correct_wrong_sensitivities() -> None:
    network = SyntheticNetwork(0)
    few, many = (errors(network, surrogate_of(network, n_maps)) for n_maps in (3, 250))
    assert many < 0.5 * few
    assert many < 0.15


def test_layers_that_cancel_are_known_from_their_shifts_alone() -> None:
    """If damages added up, the surrogate would prefer the other map."""
    network = SyntheticNetwork(1)
    network.effects[1] = -network.effects[0]
    surrogate = surrogate_of(network, 30, error=0.0)
    finest = np.full(len(network.effects), 6)
    one, both = finest.copy(), finest.copy()
    one[0] = 0
    both[:2] = 0
    assert network.damage(both) < 0.1 * network.damage(one)
    assert surrogate.damage(both) < 0.5 * surrogate.damage(one)


def test_an_evaluated_map_is_predicted_as_it_was() -> None:
    network = SyntheticNetwork(2)
    surrogate = surrogate_of(network, 40)
    seen = network.random_maps(40, seed=1)
    errors_here = [abs(np.log(surrogate.damage(chosen) / network.damage(chosen))) for chosen in seen]
    assert np.median(errors_here) < 0.1


def test_a_surrogate_through_a_map_has_no_penalty_there_and_predicts_its_neighbours_better() -> None:
    network = SyntheticNetwork(2)
    plain = surrogate_of(network, 10)
    start = network.random_maps(1, seed=1)[0]
    moved = plain.passing_through(start, network.shift(start))
    assert moved.shift(start) == pytest.approx(network.shift(start), abs=1e-5)
    assert moved.damage(start) == pytest.approx(network.damage(start), rel=1e-4)
    assert moved.variance_penalty_slope(start) == pytest.approx(0.0, abs=1e-6)
    neighbours = []
    for layer in range(len(start)):
        neighbour = start.copy()
        neighbour[layer] = (start[layer] + 1) % 4
        neighbours.append(neighbour)
        predicted = TWO_CLASSES.divergences(moved.fp32_log_odds + moved.shift(neighbour), moved.fp32_log_odds).mean()
        assert moved.damage(neighbour) > predicted  # the change adds a penalty
    before, after = (
        np.median([np.sum((surrogate.shift(one) - network.shift(one)) ** 2) for one in neighbours])
        for surrogate in (plain, moved)
    )
    assert after < 0.7 * before


def test_draws_differ_by_the_random_numbers_and_means_do_not() -> None:
    network = SyntheticNetwork(3)
    means = [surrogate_of(network, 10, seed=seed) for seed in (0, 1)]
    draws = [surrogate_of(network, 10, temperature=1.0, seed=seed) for seed in (0, 1, 1)]
    assert np.array_equal(means[0].corrections, means[1].corrections)
    assert not np.array_equal(draws[0].corrections, draws[1].corrections)
    assert np.array_equal(draws[1].corrections, draws[2].corrections)
    assert (means[0].variance_penalty.diagonal() > 0).all()
    assert (draws[0].variance_penalty == 0).all()  # a draw has no penalty


def test_draws_spread_as_the_variance_penalty_says() -> None:
    """The damage that draws add on average is the mean's variance penalty."""
    network = SyntheticNetwork(4)
    mean = surrogate_of(network, 10)
    probability = 1 / (1 + np.exp(-network.fp32_log_odds))
    curvature = np.mean(probability * (1 - probability))
    chosen = network.random_maps(1, seed=9)[0]
    rows = mean.rows(chosen)
    draws = [surrogate_of(network, 10, temperature=1.0, seed=seed) for seed in range(60)]
    deviations = [(draw.corrections - mean.corrections)[rows].sum(axis=0) for draw in draws]
    added = 0.5 * curvature * np.mean(np.square(deviations))
    assert added == pytest.approx(0.5 * mean.variance_penalty[np.ix_(rows, rows)].sum(), rel=0.25)


def test_observed_effects_have_a_smaller_penalty() -> None:
    network = SyntheticNetwork(5)
    few, many = surrogate_of(network, 3), surrogate_of(network, 200)
    tried = network.random_maps(200, seed=1)
    rows = np.unique([many.rows(chosen) for chosen in tried])
    ratios = many.variance_penalty[rows, rows] / few.variance_penalty[rows, rows]
    assert (ratios <= 1 + 1e-4).all()
    assert np.median(ratios) < 0.9


def test_expected_damage_on_unseen_sentences_is_linear_in_the_shrinkage() -> None:
    network = SyntheticNetwork(4)
    chosen = network.random_maps(1, seed=3)[0]
    none, half, full = (surrogate_of(network, 10, shrinkage=shrinkage) for shrinkage in (0.0, 0.5, 1.0))
    assert full.damage_elsewhere(chosen) == pytest.approx(full.damage(chosen))
    middle = (none.damage_elsewhere(chosen) + full.damage_elsewhere(chosen)) / 2
    assert half.damage_elsewhere(chosen) == pytest.approx(middle)
    assert none.damage(chosen) == full.damage(chosen)


def test_observations_change_the_specific_damages() -> None:
    """To second order; without observations a layer's specific damage is exact."""
    network = SyntheticNetwork(5)
    network.effects *= 0.1  # small shifts, of which the second order is nearly all
    learned = surrogate_of(network, 40, error=0.8, shrinkage=0.0)
    rows = learned.sums + learned.corrections
    whole, common_part = (
        TWO_CLASSES.divergences(learned.fp32_log_odds + shifts, learned.fp32_log_odds).mean(axis=-1)
        for shifts in (rows, learned.common.project(rows))
    )
    exact = whole - common_part
    large = exact > 0.1 * exact.max()
    assert learned.specific[large] == pytest.approx(exact[large], rel=0.15)
