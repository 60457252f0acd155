import itertools

import numpy as np
import pytest

from objectives.layers import WIDTHS, uniform
from objectives.packing.footprint import footprint
from objectives.packing.scheme import PER_ROW, Scheme
from search.allocation.knapsack import (
    Damages,
    Sizes,
    allocate,
    allocate_bit_map,
    layer_sizes,
    to_bit_map,
    to_choice,
)
from tests.objectives.example_layers import LAYERS
from tests.objectives.random_models import bert_base_layers


def total(table: Damages | Sizes, chosen: np.ndarray) -> float:
    return float(table[np.arange(len(table)), chosen].sum())


def enumerate_best(damages: Damages, sizes: Sizes, budget: int) -> float:
    """Return the least damage by trying every choice."""
    best = float("inf")
    for choice in itertools.product(range(damages.shape[1]), repeat=len(damages)):
        chosen = np.array(choice)
        if total(sizes, chosen) <= budget:
            best = min(best, total(damages, chosen))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_small_cases_agree_with_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_layers, n_widths = int(rng.integers(1, 6)), int(rng.integers(2, 6))
    sizes = np.cumsum(rng.integers(1, 9, size=(n_layers, n_widths)), axis=1)
    damages = rng.exponential(size=(n_layers, n_widths)) * 10.0 ** rng.integers(-6, 1, size=(n_layers, 1))
    if seed % 3:
        damages = -np.sort(-damages, axis=1)  # more bits, less damage; every third case has no order at all
    if seed % 5 == 0:
        damages = damages.round(1)  # many ties
    if seed % 7 == 0:
        damages -= 0.5  # negative damages are allowed
    for budget in {int(b) for b in np.linspace(sizes.min(axis=1).sum(), sizes.max(axis=1).sum(), 7)}:
        before = damages.copy()
        chosen = allocate(damages, sizes, budget)
        assert np.array_equal(damages, before)
        assert total(sizes, chosen) <= budget
        assert total(damages, chosen) == pytest.approx(enumerate_best(damages, sizes, budget), rel=1e-12, abs=1e-12)


def lower_bound(damages: Damages, sizes: Sizes, budget: int) -> float:
    """Return the Lagrangian dual's maximum over a grid of multipliers; no choice within the budget is below it."""
    multipliers = np.geomspace(1e-14, 1e-2, 2000) * np.ptp(damages)
    return max(float((damages + price * sizes).min(axis=1).sum() - price * budget) for price in multipliers)


def bert_base_damages(seed: int) -> tuple[Damages, Sizes]:
    """Return random damages that fall by about four with each bit, and bert-base's sizes."""
    rng = np.random.default_rng(seed)
    layers = bert_base_layers()
    sizes, _ = layer_sizes(footprint(layers, {}), "nominal")
    falling = 4.0 ** -(np.array(WIDTHS) + rng.normal(0, 0.3, (len(layers), len(WIDTHS))).cumsum(axis=1) * 0.1)
    return falling * rng.lognormal(0, 1.5, (len(layers), 1)), sizes


@pytest.mark.parametrize("seed", range(4))
def test_bert_base_is_within_a_hair_of_the_lower_bound(seed: int) -> None:
    damages, sizes = bert_base_damages(seed)
    for compression in (5.5, 8, 10.67, 12.8, 15.5):
        budget = int(sizes[:, -1].sum() * 4 / compression)
        chosen = allocate(damages, sizes, budget)
        damage, bound = total(damages, chosen), lower_bound(damages, sizes, budget)
        assert total(sizes, chosen) <= budget
        assert bound <= damage * (1 + 1e-9)
        assert damage <= bound * 1.02  # one layer of 76 is fractional in the relaxation, and the largest is a fifth


def test_a_budget_for_everything_and_for_nothing() -> None:
    damages, sizes = bert_base_damages(0)
    assert set(to_bit_map(allocate(damages, sizes, int(sizes[:, -1].sum())))) == {8}
    assert set(to_bit_map(allocate(damages, sizes, int(sizes[:, 0].sum())))) == {2}
    with pytest.raises(ValueError, match="the smallest is"):
        allocate(damages, sizes, int(sizes[:, 0].sum()) - 1)


@pytest.mark.parametrize("scheme", [PER_ROW, Scheme("codebook"), Scheme(group_size=64)], ids=str)
def test_packed_sums_never_understate_the_file(scheme: Scheme) -> None:
    sizes_of = footprint(bert_base_layers(), {"classifier.weight": (2, 768)}, scheme)
    sizes, overhead = layer_sizes(sizes_of, "packed")
    rng = np.random.default_rng(0)
    for _ in range(20):
        bit_map = tuple(int(width) for width in rng.choice(WIDTHS, size=76))
        summed = total(sizes, to_choice(bit_map)) + overhead
        exact = 8 * sizes_of.packed_bytes(bit_map)
        assert exact <= summed <= exact + 8 * 1000
    budget = 8 * sizes_of.fp32_packed_bytes // 8
    damages, _ = bert_base_damages(2)
    assert sizes_of.compression(allocate_bit_map(damages, sizes_of, "packed", budget), "packed") >= 8


def test_bits_and_choices_are_the_same_thing() -> None:
    assert to_bit_map(to_choice((2, 8, 5, 3))) == (2, 8, 5, 3)
    sizes, overhead = layer_sizes(footprint(LAYERS, {}), "nominal")
    assert overhead == 0
    assert total(sizes, to_choice(uniform(LAYERS, 4))) == footprint(LAYERS, {}).nominal_bits(uniform(LAYERS, 4))
