"""The baselines: the documented configuration, uniform maps, and the exact knapsack on one-layer sensitivities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from objectives.bit_maps import documented_bit_map, documented_misfit
from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap, Layer, uniform
from results.outcome import Origin
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import BudgetTooSmallError, Damages, allocate_bit_map

_COMPRESSIONS = (6.4, 8.0, 9.2, 32 / 3, 11.6, 12.8, 14.2)


@dataclass(frozen=True)
class Baseline:
    """A map to evaluate before the sampler's, even if it misses the constraint."""

    origin: Origin
    label: str
    bit_map: BitMap


def first_baselines(layers: Sequence[Layer], widths: Sequence[int] = WIDTHS) -> tuple[list[Baseline], str]:
    """Return the baselines that need no sensitivities, and why the reference is missing, or "".

    The reference keeps its own widths.
    """
    baselines, reference_note = reference(layers)
    return baselines + uniform_maps(layers, widths), reference_note


def reference(layers: Sequence[Layer]) -> tuple[list[Baseline], str]:
    """Return the documented configuration, or an empty list and the reason why it does not fit the layers."""
    try:
        return [Baseline("reference", "documented", documented_bit_map(layers))], ""
    except InputError:
        return [], documented_misfit(len(layers))


def uniform_maps(layers: Sequence[Layer], widths: Sequence[int] = WIDTHS) -> list[Baseline]:
    """Return the uniform maps, from the narrowest width up."""
    return [Baseline("uniform", f"uniform {width}", uniform(layers, width)) for width in widths]


def knapsack_maps(damages: Damages, constraint: SizeConstraint) -> list[Baseline]:
    """Return the knapsack's maps, at the size constraint and at some smaller sizes.

    Args:
        damages: damage of each layer alone at the constraint's widths, ``(n_layers, n_widths)``.
        constraint: the size constraint, which the largest map just meets.
    """
    footprint, axis = constraint.footprint, constraint.axis
    maps: dict[BitMap, Baseline] = {}
    for budget in knapsack_budgets(constraint):
        try:
            bit_map = allocate_bit_map(damages, footprint, axis, budget, constraint.widths)
        except BudgetTooSmallError:
            continue
        compression = footprint.compression(bit_map, axis)
        maps.setdefault(bit_map, Baseline("plain", f"knapsack {compression:.2f}x", bit_map))
    return list(maps.values())


def knapsack_map(damages: Damages, constraint: SizeConstraint) -> BitMap:
    """Return the knapsack's map at the size constraint; the arguments are those of ``knapsack_maps``."""
    footprint, axis, widths = constraint.footprint, constraint.axis, constraint.widths
    try:
        return allocate_bit_map(damages, footprint, axis, constraint.largest_bits, widths)
    except BudgetTooSmallError:  # sums of sizes can be a few bytes too large: only the smallest map is small enough
        return footprint.smallest(axis, widths)


def knapsack_budgets(constraint: SizeConstraint) -> list[int]:
    """Return the knapsack's size limits in bits, from the constraint down.

    With fewer widths, or in ONNX files, the smallest map may be larger than most of the usual limits. They are then
    spread evenly, in logarithm, down to that map.
    """
    footprint, largest = constraint.footprint, constraint.largest_bits
    smallest = constraint.size_bits(footprint.smallest(constraint.axis, constraint.widths))
    usual = constraint.axis != "onnx" and constraint.widths == WIDTHS  # a run of an older version keeps its limits
    if not usual and constraint.fp32_bits / _COMPRESSIONS[-1] < smallest:
        return [int(size) for size in np.geomspace(largest, smallest, len(_COMPRESSIONS) + 1, endpoint=False)]
    budgets = [int(constraint.fp32_bits / compression) for compression in _COMPRESSIONS]
    return [largest, *(budget for budget in budgets if budget < largest)]
