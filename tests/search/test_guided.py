import numpy as np
import pytest

from objectives.layers import WIDTHS
from objectives.sizes import footprint
from search.allocation import allocate, layer_sizes, to_bits
from search.contenders import plain_allocations, uniform_maps
from search.feasible import SizeConstraint
from search.landscape import Observations, landscape_at
from tests.objectives.random_models import bert_base_layers

LAYERS = bert_base_layers()[:40]
SIZES, _ = layer_sizes(footprint(LAYERS, {}), "nominal")
ROWS = np.arange(len(LAYERS))


def truth(seed: int) -> np.ndarray:
    """Return effects that fall by about four with each bit."""
    rng = np.random.default_rng(seed)
    return 4.0 ** -np.arange(len(WIDTHS)) * rng.lognormal(-5, 1, (len(LAYERS), 1))


def observe(effects: np.ndarray, rng: np.random.Generator, n_maps: int) -> Observations:
    choices = rng.integers(0, 3, size=(n_maps, len(LAYERS)))
    sizes = SIZES[ROWS, choices].sum(axis=1).astype(np.float64)
    return Observations(choices, effects[ROWS, choices].sum(axis=1), sizes)


def test_the_posterior_learns_what_the_sensitivities_got_wrong() -> None:
    rng = np.random.default_rng(0)
    effects = truth(0)
    wrong = effects * rng.lognormal(0, 0.4, (len(LAYERS), 1))
    seen = observe(effects, rng, 300)
    landscape = landscape_at(float(np.median(seen.sizes)), wrong, seen)
    learned = landscape.draw(rng, temperature=0.0)
    fresh = observe(effects, rng, 100)
    predicted = learned[ROWS, fresh.choices].sum(axis=1)
    before = wrong[ROWS, fresh.choices].sum(axis=1)
    before *= np.median(fresh.damages / before)
    error, error_before = (np.abs(np.log(guess / fresh.damages)).mean() for guess in (predicted, before))
    assert error < 0.5 * error_before


def test_draws_fall_with_the_width_stay_positive_and_differ() -> None:
    rng = np.random.default_rng(1)
    seen = observe(truth(1), rng, 30)
    landscape = landscape_at(float(seen.sizes[0]), truth(1), seen)
    first, second = (landscape.draw(rng, temperature=1.0) for _ in range(2))
    for drawn in (first, second):
        assert (np.diff(drawn, axis=1) <= 0).all()
        assert (drawn > 0).all()
    assert not np.array_equal(first, second)
    assert np.array_equal(landscape.draw(rng, 0.0), landscape.draw(rng, 0.0))


def test_damage_beyond_the_sums_is_taken_into_the_prior() -> None:
    rng = np.random.default_rng(2)
    effects = truth(2)
    seen = observe(effects, rng, 20)
    doubled = Observations(seen.choices, 2 * seen.damages, seen.sizes)
    assert landscape_at(float(seen.sizes[0]), effects, doubled).mean == pytest.approx(2 * effects)


def test_plain_allocations_are_exact_and_within_the_constraint() -> None:
    sizes = footprint(LAYERS, {})
    constraint = SizeConstraint(sizes, "nominal", 5.5)
    damages = truth(3)
    plain = plain_allocations(damages, constraint)
    assert len(plain) == 8
    assert len({contender.bits for contender in plain}) == 8
    for contender in plain:
        assert contender.origin == "plain"
        assert constraint.excess_bits(contender.bits) <= 0
        assert contender.label == f"plain {sizes.compression(contender.bits, 'nominal'):.2f}x"
    assert plain[0].bits == to_bits(allocate(damages, SIZES, constraint.largest_bits))
    for contender in plain:
        budget = sizes.nominal_bits(contender.bits)
        for uniform in uniform_maps(LAYERS):
            if sizes.nominal_bits(uniform.bits) <= budget:
                harm, plain_harm = (damages[ROWS, np.array(bits) - 2].sum() for bits in (uniform.bits, contender.bits))
                assert plain_harm <= harm
