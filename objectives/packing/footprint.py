"""Nominal, packed and ONNX size of bit maps, in exact integer arithmetic.

The nominal size counts codes only, as the documented configuration does. The packed size is the length in bytes of the
safetensors file that ``export`` writes: header, codes, their parameters, and every tensor in full precision. The ONNX
size is the length in bytes of the ONNX file (:mod:`objectives.packing.onnx_size`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Literal

from objectives.layers import WIDTHS, BitMap, Layer
from objectives.packing.bitstream import packed_length
from objectives.packing.onnx_size import OnnxSizes
from objectives.packing.safetensors_size import StoredTensor, safetensors_bytes
from objectives.packing.scheme import PER_ROW, Scheme

SizeAxis = Literal["nominal", "packed", "onnx"]
AXIS_NAMES: Mapping[SizeAxis, str] = {"nominal": "nominal", "packed": "packed", "onnx": "ONNX"}
"""What people read."""

_UNSEARCHED_SHARE = 0.01  # of the FP32 bytes; the head of a base model has less
_MOST_NAMES = 2


@dataclass(frozen=True)
class Footprint:
    """The sizes of one model's bit maps.

    Attributes:
        layers: the searchable layers.
        kept: name and shape of every tensor that stays in full precision.
        scheme: how codes are stored and decoded.
        onnx: the sizes of ONNX files; None if nobody has measured them.
    """

    layers: tuple[Layer, ...]
    kept: Mapping[str, tuple[int, ...]]
    scheme: Scheme = PER_ROW
    onnx: OnnxSizes | None = None

    @property
    def fp32_nominal_bits(self) -> int:
        """The nominal size of the FP32 model: 32 bits for every searchable weight."""
        return 32 * sum(layer.elements for layer in self.layers)

    @cached_property
    def fp32_packed_bytes(self) -> int:
        """The length in bytes of the FP32 checkpoint as one safetensors file."""
        weights = {layer.parameter: StoredTensor("F32", (layer.rows, layer.columns)) for layer in self.layers}
        return safetensors_bytes({**weights, **self._kept_tensors()}, {"format": "pt"})

    def nominal_bits(self, bit_map: BitMap) -> int:
        """Return the sum over layers of elements x width."""
        return sum(layer.elements * width for layer, width in zip(self.layers, bit_map, strict=True))

    def packed_bytes(self, bit_map: BitMap) -> int:
        """Return the length in bytes of the packed checkpoint."""
        return safetensors_bytes(self.packed_tensors(bit_map), self.packed_metadata)

    @property
    def packed_metadata(self) -> dict[str, str]:
        """The metadata in the file of a packed checkpoint."""
        return {"format": self.scheme.format}

    def packed_tensors(self, bit_map: BitMap) -> dict[str, StoredTensor]:
        """Return every tensor of the packed checkpoint, by name.

        Each layer has ``NAME.codes``, a bit stream of ``ceil(rows * columns * width / 8)`` bytes, and ``NAME.PART`` for
        each part of the scheme.
        """
        tensors = self._kept_tensors()
        for layer, width in zip(self.layers, bit_map, strict=True):
            tensors[f"{layer.name}.codes"] = StoredTensor("U8", (packed_length(layer.elements, width),))
            tensors |= {f"{layer.name}.{part}": tensor for part, tensor in self.scheme.parts(layer, width).items()}
        return tensors

    def parameter_bytes(self, layer: Layer, width: int) -> int:
        """Return the size in bytes of a layer's parameters in the packed checkpoint."""
        return sum(tensor.size_bytes for tensor in self.scheme.parts(layer, width).values())

    def fp32_size(self, axis: SizeAxis) -> int:
        """Return the size of the FP32 model: nominal in bits, else in bytes.

        Raises:
            ValueError: no sizes of ONNX files are known.
        """
        if axis == "onnx":
            return self.onnx_sizes.fp32_bytes
        return self.fp32_nominal_bits if axis == "nominal" else self.fp32_packed_bytes

    def size(self, bit_map: BitMap, axis: SizeAxis) -> int:
        """Return the size of a map, in the units of ``fp32_size``."""
        if axis == "onnx":
            return self.onnx_sizes.file_bytes(bit_map)
        return self.nominal_bits(bit_map) if axis == "nominal" else self.packed_bytes(bit_map)

    @property
    def onnx_sizes(self) -> OnnxSizes:
        """The sizes of ONNX files.

        Raises:
            ValueError: nobody has measured them.
        """
        if self.onnx is None:
            raise ValueError("the sizes of ONNX files have not been measured")
        return self.onnx

    def compression(self, bit_map: BitMap, axis: SizeAxis) -> float:
        """Return FP32 size / size of the map, both on the given axis; higher is smaller."""
        return float(self.exact_compression(bit_map, axis))

    def exact_compression(self, bit_map: BitMap, axis: SizeAxis) -> Fraction:
        """Return the compression as an exact fraction, for comparisons against a constraint."""
        return Fraction(self.fp32_size(axis), self.size(bit_map, axis))

    def figures(self, bit_map: BitMap) -> dict[str, int | float]:
        """Return all sizes and compressions of a map that are known, by their names in files."""
        axes: tuple[SizeAxis, ...] = ("nominal", "packed", *(() if self.onnx is None else ("onnx",)))
        return {
            **{f"{axis}_compression": self.compression(bit_map, axis) for axis in axes},
            **{f"{axis}_{'bits' if axis == 'nominal' else 'bytes'}": self.size(bit_map, axis) for axis in axes},
        }

    def smallest(self, axis: SizeAxis, widths: Sequence[int] = WIDTHS) -> BitMap:
        """Return the smallest map of these widths; if two of a layer take as little room, the wider one."""
        if axis == "onnx":
            table = self.onnx_sizes.layer_bytes
            return tuple(min(widths, key=lambda width: (sizes[WIDTHS.index(width)], -width)) for sizes in table)
        return (widths[0],) * len(self.layers)

    def highest_compression(self, axis: SizeAxis, widths: Sequence[int] = WIDTHS) -> float:
        """Return the compression of the smallest map of these widths."""
        return self.compression(self.smallest(axis, widths), axis)

    @cached_property
    def unsearched(self) -> str:
        """The weights that no map quantises and their share of the FP32 bytes, in words; empty below one percent.

        Biases and normalisations, which are vectors, do not count.
        """
        sizes = {name: prod(shape) for name, shape in self.kept.items() if len(shape) > 1}
        share = sum(sizes.values()) / (
            sum(map(prod, self.kept.values())) + sum(layer.elements for layer in self.layers)
        )
        if share < _UNSEARCHED_SHARE:
            return ""
        names: dict[str, int] = {}
        for name, size in sizes.items():
            pattern = re.sub(r"\.\d+(?=\.)", ".*", name)
            names[pattern] = names.get(pattern, 0) + size
        largest = sorted(names, key=lambda name: -names[name])
        examples = ", ".join(largest[:_MOST_NAMES]) + (", ..." if len(largest) > _MOST_NAMES else "")
        return (
            f"{len(sizes)} weights with {share:.0%} of the FP32 bytes stay as they are ({examples}); no nominal size "
            "counts them"
        )

    def _kept_tensors(self) -> dict[str, StoredTensor]:
        return {name: StoredTensor("F32", shape) for name, shape in self.kept.items()}


def footprint(
    layers: Sequence[Layer], state_shapes: Mapping[str, Iterable[int]], scheme: Scheme = PER_ROW
) -> Footprint:
    """Return the footprint of a model from its layers and the shapes of its state dict's floating-point tensors."""
    searchable = {layer.parameter for layer in layers}
    kept = {name: tuple(shape) for name, shape in state_shapes.items() if name not in searchable}
    return Footprint(layers=tuple(layers), kept=kept, scheme=scheme)
