from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap, uniform
from objectives.packing.footprint import Footprint, SizeAxis, footprint
from objectives.packing.scheme import Scheme
from search.allocation.constraint import NoMapLeftError, SizeConstraint, repair
from tests.objectives.example_layers import LAYERS
from tests.objectives.onnx_sizes import made_up_onnx_sizes

SIZES = footprint(LAYERS, {"classifier.weight": (2, 3)})


def big() -> Footprint:
    """Layers large enough that a header weighs little, so that a packed constraint can be met."""
    from objectives.layers import Layer

    return footprint(tuple(Layer(f"bert.layer.{n}", "linear", 64 + n, 128) for n in range(12)), {})


@pytest.mark.parametrize("axis", ["nominal", "packed"])
def test_repaired_maps_meet_the_constraint_and_are_new(axis: SizeAxis) -> None:
    sizes = big()
    constraint = SizeConstraint(sizes, axis, 5.5)
    rng = np.random.default_rng(0)
    seen: set[tuple[int, ...]] = set()
    for _ in range(300):
        bit_map = tuple(int(width) for width in rng.choice(WIDTHS, size=len(sizes.layers)))
        repaired = repair(bit_map, constraint, seen, rng)
        assert sizes.exact_compression(repaired, axis) >= Fraction(11, 2)
        assert repaired not in seen
        assert set(repaired) <= set(WIDTHS)
        seen.add(repaired)


def test_a_feasible_new_map_is_returned_unchanged() -> None:
    constraint = SizeConstraint(SIZES, "nominal", 5.5)
    assert repair((5, 5, 5, 5), constraint, set(), np.random.default_rng(0)) == (5, 5, 5, 5)


def test_repair_takes_no_more_than_one_step_too_many() -> None:
    constraint = SizeConstraint(SIZES, "nominal", 5.5)
    largest_layer = max(layer.elements for layer in LAYERS)
    for seed in range(50):
        repaired = repair(uniform(LAYERS, 8), constraint, set(), np.random.default_rng(seed))
        assert -largest_layer < constraint.excess_bits(repaired) <= 0


def test_repair_is_reproduced_by_its_generator() -> None:
    constraint = SizeConstraint(SIZES, "nominal", 5.5)
    first, second = (repair(uniform(LAYERS, 8), constraint, set(), np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_repair_raises_if_every_map_has_been_seen() -> None:
    class Counted(set[BitMap]):
        looked_up = 0

        def __contains__(self, bit_map: object) -> bool:
            self.looked_up += 1
            assert self.looked_up < 100 * len(self)
            return super().__contains__(bit_map)

    tight = SizeConstraint(SIZES, "nominal", 14)  # room for few bits more
    maps = {bit_map for bit_map in product(WIDTHS, repeat=len(LAYERS)) if tight.excess_bits(bit_map) <= 0}
    assert len(maps) > 1
    for constraint, known in ((SizeConstraint(SIZES, "nominal", 16), {uniform(LAYERS, 2)}), (tight, maps)):
        with pytest.raises(NoMapLeftError):
            repair(uniform(LAYERS, 4), constraint, Counted(known), np.random.default_rng(0))
    for left in maps:
        assert repair(uniform(LAYERS, 4), tight, Counted(maps - {left}), np.random.default_rng(0)) == left


def test_a_codebooks_maps_are_repaired_down_to_the_smallest() -> None:
    sizes = footprint(LAYERS, {}, Scheme("codebook"))
    smallest = uniform(LAYERS, 2)
    constraint = SizeConstraint(sizes, "packed", 0.999 * sizes.highest_compression("packed"))
    for seed in range(20):
        assert repair(uniform(LAYERS, 8), constraint, set(), np.random.default_rng(seed)) == smallest


def test_the_constraint_is_exact() -> None:
    # 16/3 of compression is six bits for every weight: exactly feasible, and a hair more is not.
    six = uniform(LAYERS, 6)
    assert SizeConstraint(SIZES, "nominal", 5.333).excess_bits(six) <= 0
    assert SizeConstraint(SIZES, "nominal", 5.334).excess_bits(six) > 0
    assert SizeConstraint(SIZES, "nominal", 4.0).violation(uniform(LAYERS, 8)) == 0
    assert SizeConstraint(SIZES, "nominal", 16.0).violation(uniform(LAYERS, 2)) == 0
    assert SizeConstraint(SIZES, "nominal", 8.0).violation(uniform(LAYERS, 8)) == 1.0


def test_an_infeasible_constraint_says_the_highest_reachable() -> None:
    with pytest.raises(InputError, match=r"every layer at 2 bits is 16\.0000x"):
        SizeConstraint(SIZES, "nominal", 16.1)
    for asked in (15, SIZES.highest_compression("packed") + 1e-9):
        with pytest.raises(InputError, match="every layer at 2 bits is") as refused:
            SizeConstraint(SIZES, "packed", asked)
        named = str(refused.value).partition("2 bits is ")[2].partition("x")[0]
        SizeConstraint(SIZES, "packed", float(named))
        assert float(named) == pytest.approx(SIZES.highest_compression("packed"), abs=1e-4)


def test_a_width_that_is_not_allowed_becomes_one_of_its_neighbours() -> None:
    constraint = SizeConstraint(SIZES, "nominal", 4.0, (3, 4, 8))
    reached = {repair((2, 3, 6, 8), constraint, set(), np.random.default_rng(seed)) for seed in range(20)}
    assert reached == {(3, 3, 4, 8), (3, 3, 8, 8)}
    maps = {bit_map for bit_map in product((3, 4, 8), repeat=4) if constraint.excess_bits(bit_map) <= 0}
    for left in sorted(maps)[::9]:
        assert repair(uniform(LAYERS, 5), constraint, maps - {left}, np.random.default_rng(0)) == left


def test_a_map_of_other_widths_violates_the_constraint() -> None:
    constraint = SizeConstraint(SIZES, "nominal", 5.5, (2, 4, 8))
    assert constraint.violation((2, 2, 2, 3)) == 0.25
    assert constraint.violation((2, 2, 2, 4)) < 0
    assert not constraint.allows((2, 2, 2, 3))


def test_what_is_the_smallest_depends_on_the_widths_and_the_axis() -> None:
    with pytest.raises(InputError, match=r"every layer at 3 bits is 10\.6666x"):
        SizeConstraint(SIZES, "nominal", 11, (3, 4))
    sizes = made_up_onnx_sizes(LAYERS)
    onnx = replace(SIZES, onnx=sizes)
    narrowest = uniform(LAYERS, 2)
    assert onnx.figures(narrowest)["onnx_bytes"] == sizes.file_bytes(narrowest)
    assert onnx.compression(narrowest, "onnx") == sizes.fp32_bytes / sizes.file_bytes(narrowest)
    smallest = tuple(5 if layer.kind == "embedding" else 8 for layer in LAYERS)
    assert onnx.smallest("onnx", (5, 6, 8)) == smallest
    highest = floor(1e4 * sizes.fp32_bytes / sizes.file_bytes(smallest)) / 1e4
    with pytest.raises(InputError, match=rf"of 9x \(ONNX\): the smallest map is {highest}"):
        SizeConstraint(onnx, "onnx", 9, (5, 6, 8))
    SizeConstraint(onnx, "onnx", highest, (5, 6, 8))


def test_an_onnx_file_is_repaired_by_its_own_sizes() -> None:
    onnx = replace(big(), onnx=made_up_onnx_sizes(big().layers))
    constraint = SizeConstraint(onnx, "onnx", 2.5)
    rng = np.random.default_rng(0)
    seen: set[BitMap] = set()
    for _ in range(100):
        repaired = repair(tuple(int(width) for width in rng.choice(WIDTHS, size=12)), constraint, seen, rng)
        assert onnx.exact_compression(repaired, "onnx") >= Fraction(5, 2)
        assert set(repaired) <= {2, 4, 8}
        seen.add(repaired)
