from dataclasses import replace

import numpy as np
import pytest

from objectives.layers import WIDTHS
from objectives.packing.footprint import SizeAxis, footprint
from search.allocation.baselines import knapsack_budgets, knapsack_maps, uniform_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import allocate, layer_sizes, to_bit_map
from tests.objectives.onnx_sizes import made_up_onnx_sizes
from tests.objectives.random_models import bert_base_layers

LAYERS = bert_base_layers()[:40]
SIZES, _ = layer_sizes(footprint(LAYERS, {}), "nominal")
ROWS = np.arange(len(LAYERS))


def test_knapsack_maps_are_exact_and_within_the_constraint() -> None:
    sizes = footprint(LAYERS, {})
    constraint = SizeConstraint(sizes, "nominal", 5.5)
    falling = 4.0 ** -np.arange(len(WIDTHS))
    damages = falling * np.random.default_rng(3).lognormal(-5, 1, (len(LAYERS), 1))
    knapsacks = knapsack_maps(damages, constraint)
    assert len(knapsacks) == 8
    assert len({baseline.bit_map for baseline in knapsacks}) == 8
    for baseline in knapsacks:
        assert baseline.origin == "plain"
        assert constraint.excess_bits(baseline.bit_map) <= 0
        assert baseline.label == f"knapsack {sizes.compression(baseline.bit_map, 'nominal'):.2f}x"
    assert knapsacks[0].bit_map == to_bit_map(allocate(damages, SIZES, constraint.largest_bits))
    for baseline in knapsacks:
        budget = sizes.nominal_bits(baseline.bit_map)
        for uniform in uniform_maps(LAYERS):
            if sizes.nominal_bits(uniform.bit_map) <= budget:
                damage, knapsack_damage = (
                    damages[ROWS, np.array(bit_map) - 2].sum() for bit_map in (uniform.bit_map, baseline.bit_map)
                )
                assert knapsack_damage <= damage


@pytest.mark.parametrize(
    ("axis", "widths", "least"), [("nominal", (4, 8), 5.5), ("nominal", (3, 4), 8.5), ("onnx", WIDTHS, 3.0)]
)
def test_limits_are_spread_down_to_the_smallest_map(axis: SizeAxis, widths: tuple[int, ...], least: float) -> None:
    sizes = replace(footprint(LAYERS, {}), onnx=replace(made_up_onnx_sizes(LAYERS), graph_bytes=30_000_000))
    constraint = SizeConstraint(sizes, axis, least, widths)
    smallest = constraint.size_bits(sizes.smallest(axis, widths))
    limits = [*knapsack_budgets(constraint), smallest]
    assert limits[0] == constraint.largest_bits
    ratios = np.array(limits[:-1]) / np.array(limits[1:])
    assert len(ratios) == 8
    assert ratios == pytest.approx(ratios[0], rel=1e-6) and ratios[0] > 1


def test_limits_are_the_usual_ones_if_they_can_be_met() -> None:
    usual, some = (SizeConstraint(footprint(LAYERS, {}), "nominal", 5.5, widths) for widths in (WIDTHS, (2, 4, 8)))
    assert knapsack_budgets(usual) == knapsack_budgets(some)
