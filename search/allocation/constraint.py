"""The size constraint, and the repair of proposed maps: each must meet it and be new."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from objectives.errors import InputError
from objectives.layers import WIDTHS, BitMap
from objectives.packing.footprint import Footprint, SizeAxis


class NoMapLeftError(Exception):
    """Every map within the constraint has been seen."""


@dataclass(frozen=True)
class SizeConstraint:
    """Maps must be at least ``min_compression`` times smaller than FP32, counted on ``axis``, in exact arithmetic.

    Raises:
        InputError: the smallest map is larger.
    """

    footprint: Footprint
    axis: SizeAxis
    min_compression: float

    def __post_init__(self) -> None:
        smallest = (WIDTHS[0],) * len(self.footprint.layers)
        if self.excess_bits(smallest) > 0:
            # Rounded down, so that the compression in the message is reachable.
            highest = floor(1e4 * self.footprint.highest_compression(self.axis)) / 1e4
            raise InputError(
                f"no map reaches a {self.axis} compression of {self.min_compression:g}x: every layer at {WIDTHS[0]} "
                f"bits is {highest:.4f}x; give a lower --min-compression"
            )

    @property
    def largest_bits(self) -> int:
        """The largest size that meets the constraint, in bits."""
        nominal = self.axis == "nominal"
        fp32_bits = self.footprint.fp32_nominal_bits if nominal else 8 * self.footprint.fp32_packed_bytes
        return int(fp32_bits / Fraction(str(self.min_compression)))  # 5.5 as written, not as a binary fraction

    def size_bits(self, bit_map: BitMap) -> int:
        """Return the size of a map in bits, counted on the axis."""
        return (
            self.footprint.nominal_bits(bit_map) if self.axis == "nominal" else 8 * self.footprint.packed_bytes(bit_map)
        )

    def excess_bits(self, bit_map: BitMap) -> int:
        """Return by how many bits a map is too large; zero or less if it meets the constraint."""
        return self.size_bits(bit_map) - self.largest_bits

    def violation(self, bit_map: BitMap) -> float:
        """Return the excess as a share of the largest size allowed; zero or less if the constraint is met."""
        return self.excess_bits(bit_map) / self.largest_bits


def repair(bit_map: BitMap, constraint: SizeConstraint, seen: Container[BitMap], rng: np.random.Generator) -> BitMap:
    """Return the map itself if it meets the constraint and is new, else a map nearby.

    Too large a map loses one bit at a time in random layers until it fits. From a map seen before, a breadth-first
    search in random order, one bit a step, finds the nearest new map.

    Raises:
        NoMapLeftError: there is none; the search reaches every map that fits, through ever smaller ones.
    """
    proposal = _shrink(bit_map, constraint, rng)
    if proposal not in seen:
        return proposal
    reached, centres = {proposal}, [proposal]
    for centre in centres:  # more are added on the way
        for move in rng.permutation(2 * len(centre)):
            index, wider = divmod(int(move), 2)
            width = centre[index] + (1 if wider else -1)
            moved = (*centre[:index], width, *centre[index + 1 :])
            if width not in WIDTHS or moved in reached or constraint.excess_bits(moved) > 0:
                continue
            if moved not in seen:
                return moved
            reached.add(moved)
            centres.append(moved)
    raise NoMapLeftError


def _shrink(bit_map: BitMap, constraint: SizeConstraint, rng: np.random.Generator) -> BitMap:
    layers = constraint.footprint.layers
    shrunk = list(bit_map)
    while (excess := constraint.excess_bits(tuple(shrunk))) > 0:
        # The exact size is slow to count, so it is counted only once the codes taken away should suffice. For a
        # codebook the codewords shrink too: the map may be the smallest before the codes alone suffice.
        while excess > 0 and max(shrunk) > WIDTHS[0]:
            index = int(rng.choice([index for index, width in enumerate(shrunk) if width > WIDTHS[0]]))
            shrunk[index] -= 1
            excess -= layers[index].elements
    return tuple(shrunk)
