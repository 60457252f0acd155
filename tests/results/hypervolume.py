"""The hypervolume, which benchmarks compare fronts by."""

from __future__ import annotations

import numpy as np

from results.pareto import Costs, non_dominated


def hypervolume_2d(costs: Costs, reference_point: tuple[float, float]) -> float:
    """Return the area that the points dominate below a reference point; higher is better.

    Args:
        costs: ``(n, 2)``; both columns lower is better. Points that are not below the reference point in both columns,
            and points with a NaN, add nothing.
        reference_point: the upper corner of the area.

    Raises:
        ValueError: ``costs`` is not of shape ``(n, 2)``.
        ValueError: the reference point is not finite.
    """
    corner = np.asarray(reference_point, dtype=np.float64)
    if corner.shape != (2,) or not np.isfinite(corner).all():
        raise ValueError(f"the reference point must be two finite numbers, not {reference_point}")
    points = costs[non_dominated(costs)]
    points = points[(points < corner).all(axis=1)]
    points = points[np.argsort(points[:, 0])]
    # From left to right the front falls: each point adds the rectangle from its left edge to the corner, between its
    # own height and that of the point before it.
    ceilings = np.concatenate([corner[1:], points[:-1, 1]])
    return float(np.sum((corner[0] - points[:, 0]) * (ceilings - points[:, 1])))
