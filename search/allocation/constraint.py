"""The size constraint, and the repair of proposed maps: each must meet it and be new."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor

import numpy as np

from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap
from objectives.packing.footprint import AXIS_NAMES, Footprint, SizeAxis
from search.allocation.knapsack import Sizes, layer_sizes, worth_taking


class NoMapLeftError(Exception):
    """Every map within the constraint has been seen."""


@dataclass(frozen=True)
class SizeConstraint:
    """Maps must be at least ``min_compression`` times smaller than FP32, counted on ``axis``, in exact arithmetic.

    Every layer must have one of ``widths``, which rise.

    Raises:
        InputError: the smallest map is larger.
    """

    footprint: Footprint
    axis: SizeAxis
    min_compression: float
    widths: tuple[int, ...] = WIDTHS

    def __post_init__(self) -> None:
        smallest = self.footprint.smallest(self.axis, self.widths)
        if self.excess_bits(smallest) > 0:
            # Rounded down, so that the compression in the message is reachable.
            highest = floor(1e4 * self.footprint.compression(smallest, self.axis)) / 1e4
            alike = f"every layer at {smallest[0]} bits" if len(set(smallest)) == 1 else "the smallest map"
            raise InputError(
                f"no map reaches a compression of {self.min_compression:g}x ({AXIS_NAMES[self.axis]}): {alike} is "
                f"{highest:.4f}x; ask for no more than that"
            )

    @property
    def _unit_bits(self) -> int:
        return 1 if self.axis == "nominal" else 8

    @property
    def fp32_bits(self) -> int:
        """The size of the FP32 model in bits, counted on the axis."""
        return self._unit_bits * self.footprint.fp32_size(self.axis)

    @property
    def largest_bits(self) -> int:
        """The largest size that meets the constraint, in bits."""
        return int(self.fp32_bits / Fraction(str(self.min_compression)))  # 5.5 as written, not as a binary fraction

    def size_bits(self, bit_map: BitMap) -> int:
        """Return the size of a map in bits, counted on the axis."""
        return self._unit_bits * self.footprint.size(bit_map, self.axis)

    def allows(self, bit_map: BitMap) -> bool:
        """Return whether every layer has one of the widths."""
        return set(bit_map) <= set(self.widths)

    def excess_bits(self, bit_map: BitMap) -> int:
        """Return by how many bits a map is too large; zero or less if it meets the constraint."""
        return self.size_bits(bit_map) - self.largest_bits

    def violation(self, bit_map: BitMap) -> float:
        """Return the excess as a share of the largest size allowed; zero or less if the constraint is met.

        A map of other widths is above zero: at least the share of its layers that have them.
        """
        excess = self.excess_bits(bit_map) / self.largest_bits
        others = sum(width not in self.widths for width in bit_map)
        return max(excess, others / len(bit_map)) if others else excess

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The widths that are worth taking in each layer: those for which no wider one takes as little room."""
        worth = worth_taking(layer_sizes(self.footprint, self.axis, self.widths)[0])
        return tuple(tuple(width for width, good in zip(self.widths, row, strict=True) if good) for row in worth)

    def saved_bits(self, layer: int, width: int, narrower: int) -> int:
        """Return about how many bits a map loses if a layer goes from a width to a narrower one."""
        if self.axis == "onnx":
            wide, narrow = self._layer_bits[layer, [WIDTHS.index(width), WIDTHS.index(narrower)]]
            return int(wide - narrow)
        return self.footprint.layers[layer].elements * (width - narrower)

    @cached_property
    def _layer_bits(self) -> Sizes:
        return layer_sizes(self.footprint, self.axis)[0]


def repair(bit_map: BitMap, constraint: SizeConstraint, seen: Container[BitMap], rng: np.random.Generator) -> BitMap:
    """Return the map itself if it meets the constraint and is new, else a map nearby.

    A width that is not allowed becomes the next narrower or wider one; one that takes as much room as a wider one
    becomes that. Too large a map loses one step of a width at a time in random layers until it fits. From a map seen
    before, a breadth-first search in random order, one step at a time, finds the nearest new map.

    Raises:
        NoMapLeftError: there is none; the search reaches every map that fits, through ever smaller ones.
    """
    choices = constraint.choices
    proposal = _shrink(_allowed(bit_map, constraint, rng), constraint, rng)
    if proposal not in seen:
        return proposal
    reached, centres = {proposal}, [proposal]
    for centre in centres:  # more are added on the way
        for move in rng.permutation(2 * len(centre)):
            index, wider = divmod(int(move), 2)
            step = choices[index].index(centre[index]) + (1 if wider else -1)
            if not 0 <= step < len(choices[index]):
                continue
            moved = (*centre[:index], choices[index][step], *centre[index + 1 :])
            if moved in reached or constraint.excess_bits(moved) > 0:
                continue
            if moved not in seen:
                return moved
            reached.add(moved)
            centres.append(moved)
    raise NoMapLeftError


def _allowed(bit_map: BitMap, constraint: SizeConstraint, rng: np.random.Generator) -> BitMap:
    """Return a map with each layer at one of its choices."""
    allowed = list(bit_map)
    for index, (width, widths) in enumerate(zip(bit_map, constraint.choices, strict=True)):
        if width in widths:
            continue
        wider = [choice for choice in widths if choice > width]
        narrower = [choice for choice in widths if choice < width]
        if not narrower or (wider and (width in constraint.widths or rng.random() < 0.5)):
            allowed[index] = wider[0]
        else:
            allowed[index] = narrower[-1]
    return tuple(allowed)


def _shrink(bit_map: BitMap, constraint: SizeConstraint, rng: np.random.Generator) -> BitMap:
    """Return a map, which has a choice at each layer, made small enough."""
    narrowest = [widths[0] for widths in constraint.choices]
    shrunk = list(bit_map)
    while (excess := constraint.excess_bits(tuple(shrunk))) > 0:
        # The exact size is slow to count, so it is counted only once the codes taken away should suffice. For a
        # codebook the codewords shrink too: the map may be the smallest before the codes alone suffice.
        while excess > 0 and shrunk != narrowest:
            wide = [at for at, (width, least) in enumerate(zip(shrunk, narrowest, strict=True)) if width > least]
            index = int(rng.choice(wide))
            widths, width = constraint.choices[index], shrunk[index]
            shrunk[index] = widths[widths.index(width) - 1]
            excess -= constraint.saved_bits(index, width, shrunk[index])
    return tuple(shrunk)
