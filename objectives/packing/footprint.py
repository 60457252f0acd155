"""What a bit map weighs, nominal and packed, in exact integer arithmetic.

Nominal counts codes only, as the documented configuration does. Packed is the length in bytes of the safetensors file
that `export` writes: header, codes, what decodes them, and everything that stays in full precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from objectives.layers import WIDTHS, BitMap, Layer
from objectives.packing.bitstream import packed_length
from objectives.packing.safetensors_size import StoredTensor, safetensors_bytes
from objectives.packing.scheme import PER_ROW, Scheme

SizeAxis = Literal["nominal", "packed"]


@dataclass(frozen=True)
class Footprint:
    """The sizes of one model's bit maps.

    Attributes:
        layers: the searchable layers.
        kept: name and shape of every tensor of the state dict that stays in full precision.
        scheme: what codes are decoded with.
    """

    layers: tuple[Layer, ...]
    kept: Mapping[str, tuple[int, ...]]
    scheme: Scheme = PER_ROW

    @property
    def fp32_nominal_bits(self) -> int:
        """32 bits for every searchable weight."""
        return 32 * sum(layer.elements for layer in self.layers)

    @cached_property
    def fp32_packed_bytes(self) -> int:
        """The length in bytes of the FP32 checkpoint as one safetensors file."""
        weights = {layer.parameter: StoredTensor("F32", (layer.rows, layer.columns)) for layer in self.layers}
        return safetensors_bytes({**weights, **self._kept_tensors()}, {"format": "pt"})

    def nominal_bits(self, bit_map: BitMap) -> int:
        """Return the sum over layers of elements x bits."""
        return sum(layer.elements * width for layer, width in zip(self.layers, bit_map, strict=True))

    def packed_bytes(self, bit_map: BitMap) -> int:
        """Return the length in bytes of the packed checkpoint."""
        return safetensors_bytes(self.packed_tensors(bit_map), self.packed_metadata)

    @property
    def packed_metadata(self) -> dict[str, str]:
        """What the file of a packed checkpoint says of itself."""
        return {"format": self.scheme.format}

    def packed_tensors(self, bit_map: BitMap) -> dict[str, StoredTensor]:
        """Return every tensor of the packed checkpoint.

        For each layer: ``NAME.codes``, its rows x columns codes of ``width`` bits one after the other in
        ``ceil(rows * columns * width / 8)`` bytes, and ``NAME.PART`` for each part of the scheme.
        """
        tensors = self._kept_tensors()
        for layer, width in zip(self.layers, bit_map, strict=True):
            tensors[f"{layer.name}.codes"] = StoredTensor("U8", (packed_length(layer.elements, width),))
            tensors |= {f"{layer.name}.{part}": tensor for part, tensor in self.scheme.parts(layer, width).items()}
        return tensors

    def parameter_bytes(self, layer: Layer, width: int) -> int:
        """Return the bytes of data that the packed checkpoint has of a layer beside its codes."""
        return sum(tensor.size_bytes for tensor in self.scheme.parts(layer, width).values())

    def compression(self, bit_map: BitMap, axis: SizeAxis) -> float:
        """Return the FP32 size over the map's size, both counted as ``axis`` says; higher is smaller."""
        return float(self.exact_compression(bit_map, axis))

    def exact_compression(self, bit_map: BitMap, axis: SizeAxis) -> Fraction:
        """Return the compression as an exact fraction, for comparisons against a constraint."""
        if axis == "nominal":
            return Fraction(self.fp32_nominal_bits, self.nominal_bits(bit_map))
        return Fraction(self.fp32_packed_bytes, self.packed_bytes(bit_map))

    def figures(self, bit_map: BitMap) -> dict[str, int | float]:
        """Return both sizes of a map and both compressions, by the names that they have in files."""
        return {
            "nominal_compression": self.compression(bit_map, "nominal"),
            "packed_compression": self.compression(bit_map, "packed"),
            "nominal_bits": self.nominal_bits(bit_map),
            "packed_bytes": self.packed_bytes(bit_map),
        }

    def highest_compression(self, axis: SizeAxis) -> float:
        """Return the compression of the smallest map there is: every layer at the lowest width."""
        return self.compression((WIDTHS[0],) * len(self.layers), axis)

    def _kept_tensors(self) -> dict[str, StoredTensor]:
        return {name: StoredTensor("F32", shape) for name, shape in self.kept.items()}


def footprint(
    layers: Sequence[Layer], state_shapes: Mapping[str, Iterable[int]], scheme: Scheme = PER_ROW
) -> Footprint:
    """Return the footprint of a model from its layers and the shapes of its state dict's floating-point tensors."""
    searchable = {layer.parameter for layer in layers}
    kept = {name: tuple(shape) for name, shape in state_shapes.items() if name not in searchable}
    return Footprint(layers=tuple(layers), kept=kept, scheme=scheme)
