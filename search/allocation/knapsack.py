"""The knapsack: the exact best allocation of a size if the damages of single layers simply added up.

This is the multiple-choice knapsack problem (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11):

    minimise sum_l d[l, c_l] over choices c, one width a layer, subject to sum_l z[l, c_l] <= budget

with ``d`` the damages and ``z`` the sizes, both ``(n_layers, n_widths)``. Its Lagrangian dual, ``sum_l min_c (d[l, c] +
lambda z[l, c]) - lambda budget``, is a lower bound for any multiplier ``lambda >= 0``.
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
"""Where damages come from. ``gradient``: one backward pass gives every width. ``measured``: the widths for which that
is too coarse are evaluated."""
Sizes = npt.NDArray[np.int64]
"""Size of each layer at each width, ``(n_layers, n_widths)``, in whole units such as bits."""
Choice = npt.NDArray[np.int64]
"""A bit map as the index of each layer's width, ``(n_layers,)``."""


class BudgetTooSmallError(ValueError):
    """No bit map is as small as the budget."""


def layer_sizes(footprint: Footprint, axis: SizeAxis, widths: Sequence[int] = WIDTHS) -> tuple[Sizes, int]:
    """Return what each layer adds to a map's size at each width, and the overhead of every map; both in bits.

    Nominal sizes are exact. Packed and ONNX sizes are upper bounds, a few bytes above the exact size: the offsets in a
    larger file's header have more digits, and the longest header is assumed.
    """
    if axis == "onnx":
        onnx = footprint.onnx_sizes
        table = np.array(onnx.layer_bytes, dtype=np.int64)[:, [WIDTHS.index(width) for width in widths]]
        return 8 * table, 8 * onnx.most_overhead_bytes()
    elements = np.array([layer.elements for layer in footprint.layers], dtype=np.int64)
    codes = elements[:, None] * np.array(widths, dtype=np.int64)
    if axis == "nominal":
        return codes, 0
    # Parameters belong to the overhead, except the bytes that they take more at larger widths, as codewords do.
    parameters = np.array(
        [[footprint.parameter_bytes(layer, width) for width in widths] for layer in footprint.layers], dtype=np.int64
    )
    packed = (codes + 7) // 8 * 8 + 8 * (parameters - parameters[:, :1])
    return packed, 8 * footprint.packed_bytes((widths[-1],) * len(elements)) - int(packed[:, -1].sum())


def allocate(damages: Damages, sizes: Sizes, budget: int) -> npt.NDArray[np.int64]:
    """Return the choice ``(n_layers,)`` of least total damage whose total size is at most the budget.

    Exact up to rounding of the sums. Dynamic programming, layer by layer: a partial choice is dropped if another is no
    larger and no worse, or if its Lagrangian lower bound is above the damage of a greedy choice. With the multiplier of
    the linear relaxation few survive, and 76 layers of 7 widths take milliseconds.

    Args:
        damages: ``(n_layers, n_widths)``, finite; may be negative.
        sizes: ``(n_layers, n_widths)``; need not grow with the width.
        budget: in the units of ``sizes``.

    Raises:
        ValueError: no choice is that small.
    """
    if int(sizes.min(axis=1).sum()) > budget:
        raise BudgetTooSmallError(f"no choice of size {budget} or less; the smallest is {int(sizes.min(axis=1).sum())}")
    multiplier = _multiplier(damages, sizes, budget)
    greedy = _greedy_choice(damages, sizes, budget, multiplier)
    rows = np.arange(len(damages))
    best = float(damages[rows, greedy].sum())

    reduced = damages + multiplier * sizes
    floor = reduced.min(axis=1)
    # The least that the layers after each layer add to a bound, and to a size.
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
            return greedy  # nothing can beat it
        total_size, total_damage = next_size[kept], next_damage[kept]
        parents.append(kept // sizes.shape[1])
        choices.append(kept % sizes.shape[1])

    survivor = int(np.argmin(total_damage))
    if total_damage[survivor] >= best:
        return greedy
    chosen = np.empty(len(damages), dtype=np.int64)
    for layer in reversed(range(len(damages))):
        chosen[layer] = choices[layer][survivor]
        survivor = int(parents[layer][survivor])
    return chosen


def allocate_bit_map(
    damages: Damages, footprint: Footprint, axis: SizeAxis, budget_bits: int, widths: Sequence[int] = WIDTHS
) -> BitMap:
    """Return the knapsack's map of at most ``budget_bits``, counted on the axis.

    Damages are those at ``widths``, ``(n_layers, n_widths)``, and never rise with the width. If two widths of a layer
    take the same room, it gets the wider one.

    Raises:
        ValueError: no map is that small.
    """
    sizes, overhead = layer_sizes(footprint, axis, widths)
    return to_bit_map(widest(allocate(damages, sizes, budget_bits - overhead), sizes), widths)


def widest(chosen: Choice, sizes: Sizes) -> Choice:
    """Return a choice ``(n_layers,)`` with each layer at the widest width that takes no more room."""
    rows = np.arange(len(sizes))
    no_larger = sizes <= sizes[rows, chosen][:, None]
    return np.asarray(sizes.shape[1] - 1 - no_larger[:, ::-1].argmax(axis=1), dtype=np.int64)


def worth_taking(sizes: Sizes) -> npt.NDArray[np.bool_]:
    """Return for which widths no wider one takes as little room, ``(n_layers, n_widths)``: sizes grow along them."""
    least_wider = np.minimum.accumulate(sizes[:, :0:-1], axis=1)[:, ::-1]
    return np.concatenate([sizes[:, :-1] < least_wider, np.ones((len(sizes), 1), dtype=np.bool_)], axis=1)


def to_bit_map(chosen: Choice, widths: Sequence[int] = WIDTHS) -> BitMap:
    """Return a choice ``(n_layers,)`` as a bit map."""
    return tuple(widths[index] for index in chosen)


def to_choice(bit_map: BitMap, widths: Sequence[int] = WIDTHS) -> Choice:
    """Return a bit map of these widths as a choice ``(n_layers,)``."""
    return np.searchsorted(np.array(widths), np.array(bit_map, dtype=np.int64))


def _multiplier(damages: Damages, sizes: Sizes, budget: int) -> float:
    """Return the multiplier at which the cheapest choices just fit: the dual's optimum, by bisection."""

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


def _greedy_choice(damages: Damages, sizes: Sizes, budget: int, multiplier: float) -> npt.NDArray[np.int64]:
    """Return a good choice within the budget: the cheapest at the multiplier, then the best single changes that fit."""
    rows = np.arange(len(damages))
    chosen: npt.NDArray[np.int64] = (damages + multiplier * sizes).argmin(axis=1)
    if sizes[rows, chosen].sum() > budget:  # a tie broke the wrong way
        chosen = sizes.argmin(axis=1)
    while True:
        slack = budget - int(sizes[rows, chosen].sum())
        gain = damages[rows, chosen][:, None] - damages
        gain[(sizes - sizes[rows, chosen][:, None]) > slack] = 0.0
        best = int(gain.argmax())
        if gain.flat[best] <= 0.0:
            return chosen
        chosen[best // damages.shape[1]] = best % damages.shape[1]
