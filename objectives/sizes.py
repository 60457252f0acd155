"""What a bit map weighs, nominal and packed, in exact integer arithmetic.

Nominal counts codes only, as the documented configuration does. Packed is the length in bytes of the safetensors file
that `export` writes: header, codes, scales, zero points and everything that stays in full precision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Literal

from torch import nn

from objectives.layers import WIDTHS, Bits, Layer, find_layers
from objectives.packing import packed_length

SizeAxis = Literal["nominal", "packed"]

_ITEM_BYTES = {"F32": 4, "U8": 1}
PACKED_METADATA = {"format": "bitfront-packed-2"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file: its dtype (``F32`` or ``U8``) and shape."""

    dtype: Literal["F32", "U8"]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of its data."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Footprint:
    """The sizes of one model's bit maps.

    Attributes:
        layers: the searchable layers.
        kept: name and shape of every tensor of the state dict that stays in full precision.
    """

    layers: tuple[Layer, ...]
    kept: Mapping[str, tuple[int, ...]]

    @property
    def fp32_nominal_bits(self) -> int:
        """32 bits for every searchable weight."""
        return 32 * sum(layer.elements for layer in self.layers)

    @property
    def fp32_packed_bytes(self) -> int:
        """The length in bytes of the FP32 checkpoint as one safetensors file."""
        weights = {layer.parameter: StoredTensor("F32", (layer.rows, layer.columns)) for layer in self.layers}
        return safetensors_bytes({**weights, **self._kept_tensors()}, {"format": "pt"})

    def nominal_bits(self, bits: Bits) -> int:
        """Return the sum over layers of elements x bits."""
        return sum(layer.elements * width for layer, width in zip(self.layers, bits, strict=True))

    def packed_bytes(self, bits: Bits) -> int:
        """Return the length in bytes of the packed checkpoint."""
        return safetensors_bytes(self.packed_tensors(bits), PACKED_METADATA)

    def packed_tensors(self, bits: Bits) -> dict[str, StoredTensor]:
        """Return every tensor of the packed checkpoint.

        For each layer: ``NAME.codes``, its rows x columns codes of ``bits`` bits one after the other in
        ``ceil(rows * columns * bits / 8)`` bytes; ``NAME.scale``, FP32 a row; ``NAME.zero_point``, a byte a row, in
        steps of ``2**(bits - 8)``.
        """
        tensors = self._kept_tensors()
        for layer, width in zip(self.layers, bits, strict=True):
            tensors[f"{layer.name}.codes"] = StoredTensor("U8", (packed_length(layer.elements, width),))
            tensors[f"{layer.name}.scale"] = StoredTensor("F32", (layer.rows,))
            tensors[f"{layer.name}.zero_point"] = StoredTensor("U8", (layer.rows,))
        return tensors

    def compression(self, bits: Bits, axis: SizeAxis) -> float:
        """Return the FP32 size over the map's size, both counted as ``axis`` says; higher is smaller."""
        return float(self.exact_compression(bits, axis))

    def exact_compression(self, bits: Bits, axis: SizeAxis) -> Fraction:
        """Return the compression as an exact fraction, for comparisons against a constraint."""
        if axis == "nominal":
            return Fraction(self.fp32_nominal_bits, self.nominal_bits(bits))
        return Fraction(self.fp32_packed_bytes, self.packed_bytes(bits))

    def figures(self, bits: Bits) -> dict[str, int | float]:
        """Return both sizes of a map and both compressions, by the names that they have in files."""
        return {
            "nominal_compression": self.compression(bits, "nominal"),
            "packed_compression": self.compression(bits, "packed"),
            "nominal_bits": self.nominal_bits(bits),
            "packed_bytes": self.packed_bytes(bits),
        }

    def highest_compression(self, axis: SizeAxis) -> float:
        """Return the compression of the smallest map there is: every layer at the lowest width."""
        return self.compression((WIDTHS[0],) * len(self.layers), axis)

    def _kept_tensors(self) -> dict[str, StoredTensor]:
        return {name: StoredTensor("F32", shape) for name, shape in self.kept.items()}


def footprint(layers: Sequence[Layer], state_shapes: Mapping[str, Iterable[int]]) -> Footprint:
    """Return the footprint of a model from its layers and the shapes of its state dict's floating-point tensors."""
    searchable = {layer.parameter for layer in layers}
    kept = {name: tuple(shape) for name, shape in state_shapes.items() if name not in searchable}
    return Footprint(layers=tuple(layers), kept=kept)


def footprint_of(model: nn.Module) -> Footprint:
    """Return the footprint of a ``transformers`` model."""
    state = model.state_dict()
    return footprint(find_layers(model), {name: t.shape for name, t in state.items() if t.is_floating_point()})


def safetensors_bytes(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> int:
    """Return the length in bytes of a safetensors file with these tensors, without making it.

    Follows the serialiser of the safetensors library: eight bytes of header length, the header as compact JSON padded
    with spaces to a multiple of eight, then the data; tensors by falling item size, then by name.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_ITEM_BYTES[item[1].dtype], item[0])):
        end = offset + tensor.size_bytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return 8 + (len(encoded) + 7) // 8 * 8 + offset
