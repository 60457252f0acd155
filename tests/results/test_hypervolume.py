"""Hypervolume against a count of grid cells."""

from __future__ import annotations

import numpy as np
import pytest

from tests.results.hypervolume import hypervolume_2d


def test_hypervolume_of_a_staircase() -> None:
    # The leftmost point covers 3 x 1; the others add 2 x 1 and 1 x 1.
    assert hypervolume_2d(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), (4.0, 4.0)) == pytest.approx(6.0)


@pytest.mark.parametrize("seed", range(20))
def test_hypervolume_is_the_number_of_dominated_grid_cells(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = 12
    costs = random.integers(0, size + 3, size=(random.integers(0, 15), 2)).astype(np.float64)
    cells = sum(
        any(a <= i and b <= j for a, b in costs) for i in range(size) for j in range(size)
    )  # a unit cell is dominated if its lower corner is
    assert hypervolume_2d(costs, (float(size), float(size))) == cells, f"seed {seed}"


def test_hypervolume_ignores_points_not_below_the_reference_point() -> None:
    inside = np.array([[1.0, 1.0]])
    outside = np.array([[0.0, 5.0], [5.0, 0.0], [0.5, 2.0], [np.nan, 0.0]])
    assert hypervolume_2d(np.vstack([inside, outside]), (2.0, 2.0)) == hypervolume_2d(inside, (2.0, 2.0)) == 1.0
    assert hypervolume_2d(np.empty((0, 2)), (2.0, 2.0)) == 0.0
    with pytest.raises(ValueError, match="two finite numbers"):
        hypervolume_2d(inside, (2.0, float("inf")))
