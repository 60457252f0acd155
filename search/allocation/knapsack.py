"""Allocation: given what each layer costs at each width, the exactly best map of a size.

With additive damages this is the multiple-choice knapsack problem (Kellerer, Pferschy and Pisinger, Knapsack Problems,
2004, chapter 11): one width a layer, the sum of sizes within a budget, the sum of damages least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from objectives.layers import WIDTHS, BitMap
from objectives.packing.footprint import Footprint, SizeAxis

Damages = npt.NDArray[np.float64]
"""Damage of each layer at each width, ``(n_layers, n_widths)``, nats a sentence; lower is better."""
Source = Literal["measured", "gradient"]
"""Where damages come from. ``gradient``: every width from one backward pass. ``measured``: the widths where that is too
coarse are evaluated."""
Sizes = npt.NDArray[np.int64]
"""Size of each layer at each width, ``(n_layers, n_widths)``, whole units."""
Choice = npt.NDArray[np.int64]
"""A bit map as the index of each layer's width, ``(n_layers,)``."""


def layer_sizes(footprint: Footprint, axis: SizeAxis) -> tuple[Sizes, int]:
    """Return what each layer adds to a map's size at each width, and what every map has besides; both in bits.

    Nominal sizes are exact. A packed size is exact but for the header of the file, whose offsets have a few digits more
    in a larger file: the longest header is taken, so that no map is larger than its sum says.
    """
    elements = np.array([layer.elements for layer in footprint.layers], dtype=np.int64)
    codes = elements[:, None] * np.array(WIDTHS, dtype=np.int64)
    if axis == "nominal":
        return codes, 0
    # What decodes the codes belongs to what every map has, but for what it takes more at larger widths: codewords do.
    beside = np.array(
        [[footprint.parameter_bytes(layer, width) for width in WIDTHS] for layer in footprint.layers], dtype=np.int64
    )
    packed = (codes + 7) // 8 * 8 + 8 * (beside - beside[:, :1])
    return packed, 8 * footprint.packed_bytes((WIDTHS[-1],) * len(elements)) - int(packed[:, -1].sum())


def allocate(damages: Damages, sizes: Sizes, budget: int) -> npt.NDArray[np.int64]:
    """Return the choice of least total damage whose total size is at most the budget.

    Exact up to rounding of the sums: partial choices are kept unless another is no larger and no worse, or their
    Lagrangian lower bound is above a choice already known. With the multiplier of the linear relaxation hardly any
    survive, and 76 layers of 7 widths take milliseconds.

    Args:
        damages: ``(n_layers, n_widths)``, finite; negative ones are allowed.
        sizes: ``(n_layers, n_widths)``, of any sign of slope.
        budget: in the units of ``sizes``.

    Returns:
        The index of each layer's width, ``(n_layers,)``.

    Raises:
        ValueError: no choice is that small.
    """
    if int(sizes.min(axis=1).sum()) > budget:
        raise ValueError(f"no choice of size {budget} or less; the smallest is {int(sizes.min(axis=1).sum())}")
    multiplier = _multiplier(damages, sizes, budget)
    known = _greedy(damages, sizes, budget, multiplier)
    rows = np.arange(len(damages))
    best = float(damages[rows, known].sum())

    reduced = damages + multiplier * sizes
    floor = reduced.min(axis=1)
    # The least that the layers from i on add to a bound, and to a size.
    floor_after = np.concatenate([np.cumsum(floor[::-1])[::-1][1:], [0.0]])
    size_after = np.concatenate([np.cumsum(sizes.min(axis=1)[::-1])[::-1][1:], [0]])
    tolerance = 1e-12 * (1.0 + np.abs(reduced).max() * len(damages))

    total_size, total_damage = np.zeros(1, dtype=np.int64), np.zeros(1)
    parents: list[npt.NDArray[np.int64]] = []
    choices: list[npt.NDArray[np.int64]] = []
    for layer in range(len(damages)):
        next_size = (total_size[:, None] + sizes[layer]).ravel()
        next_damage = (total_damage[:, None] + damages[layer]).ravel()
        bound = next_damage + multiplier * (next_size - budget) + floor_after[layer]
        kept = np.flatnonzero((next_size + size_after[layer] <= budget) & (bound <= best + tolerance))
        kept = kept[np.lexsort((next_damage[kept], next_size[kept]))]
        running = np.minimum.accumulate(next_damage[kept])
        kept = kept[np.concatenate([[True], running[1:] < running[:-1]])] if len(kept) else kept
        if not len(kept):
            return known  # nothing can beat it
        total_size, total_damage = next_size[kept], next_damage[kept]
        parents.append(kept // sizes.shape[1])
        choices.append(kept % sizes.shape[1])

    at = int(np.argmin(total_damage))
    if total_damage[at] >= best:
        return known
    chosen = np.empty(len(damages), dtype=np.int64)
    for layer in reversed(range(len(damages))):
        chosen[layer] = choices[layer][at]
        at = int(parents[layer][at])
    return chosen


def allocate_bits(damages: Damages, footprint: Footprint, axis: SizeAxis, budget_bits: int) -> BitMap:
    """Return the exactly best map of at most ``budget_bits``, counted on the axis."""
    sizes, overhead = layer_sizes(footprint, axis)
    return to_bit_map(allocate(damages, sizes, budget_bits - overhead))


def allocation_front(damages: Damages, sizes: Sizes, budgets: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Return the best choice for each budget that can be met, each choice once, from the largest budget down."""
    smallest = int(sizes.min(axis=1).sum())
    front: dict[bytes, npt.NDArray[np.int64]] = {}
    for budget in sorted(budgets, reverse=True):
        if budget >= smallest:
            chosen = allocate(damages, sizes, budget)
            front.setdefault(chosen.tobytes(), chosen)
    return list(front.values())


def lower_bound(damages: Damages, sizes: Sizes, budget: int) -> float:
    """Return a damage below which no choice within the budget can be: the Lagrangian dual, maximised."""
    multiplier = _multiplier(damages, sizes, budget)
    return float((damages + multiplier * sizes).min(axis=1).sum() - multiplier * budget)


def to_bit_map(chosen: npt.NDArray[np.int64]) -> BitMap:
    """Return a choice ``(n_layers,)`` as a bit map."""
    return tuple(WIDTHS[index] for index in chosen)


def to_choice(bit_map: BitMap) -> npt.NDArray[np.int64]:
    """Return a bit map as a choice ``(n_layers,)``."""
    return np.array(bit_map, dtype=np.int64) - WIDTHS[0]


def _multiplier(damages: Damages, sizes: Sizes, budget: int) -> float:
    """Return the price of size at which the cheapest choices just fit: the dual's optimum, by bisection."""

    def size_at(price: float) -> int:
        return int(np.take_along_axis(sizes, (damages + price * sizes).argmin(axis=1)[:, None], axis=1).sum())

    if size_at(0.0) <= budget:
        return 0.0
    spread = float(np.ptp(damages, axis=1).max()) + 1e-300
    high = spread / max(1, int(np.diff(np.sort(sizes, axis=1), axis=1).min(initial=1)))
    while size_at(high) > budget and np.isfinite(high):
        high *= 4.0
    low = 0.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if size_at(middle) <= budget:
            high = middle
        else:
            low = middle
        if high - low <= 1e-13 * high:
            break
    return high


def _greedy(damages: Damages, sizes: Sizes, budget: int, multiplier: float) -> npt.NDArray[np.int64]:
    """Return a good choice within the budget: the cheapest at the price, then whatever single change still helps."""
    rows = np.arange(len(damages))
    chosen: npt.NDArray[np.int64] = (damages + multiplier * sizes).argmin(axis=1)
    if sizes[rows, chosen].sum() > budget:  # a tie at the price broke the wrong way
        chosen = sizes.argmin(axis=1)
    while True:
        room = budget - int(sizes[rows, chosen].sum())
        gain = damages[rows, chosen][:, None] - damages
        gain[(sizes - sizes[rows, chosen][:, None]) > room] = 0.0
        best = int(gain.argmax())
        if gain.flat[best] <= 0.0:
            return chosen
        chosen[best // damages.shape[1]] = best % damages.shape[1]
