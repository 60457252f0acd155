"""The exact size of a bit map's ONNX file, as numbers: what each layer takes at each width, and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from objectives.layers import WIDTHS, BitMap


@dataclass(frozen=True)
class OnnxSizes:
    """Bytes of a model's ONNX files; ``results.export.onnx`` measures them once for a model.

    An ONNX file is one protocol buffer: the graph, with its length before it, among other fields. Layers add to the
    graph; the number of bytes of its length is all that is not a sum.

    Attributes:
        layer_bytes: what each layer adds to the graph at each width, ``(n_layers, n_widths)``.
        graph_bytes: all else in the graph.
        other_bytes: everything outside the graph and its length.
        fp32_bytes: the file of the FP32 model.
    """

    layer_bytes: tuple[tuple[int, ...], ...]
    graph_bytes: int
    other_bytes: int
    fp32_bytes: int

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> OnnxSizes:
        """Return the sizes from their fields as plain values."""
        return cls(**{**record, "layer_bytes": tuple(map(tuple, record["layer_bytes"]))})

    def file_bytes(self, bit_map: BitMap) -> int:
        """Return the length of the map's file in bytes."""
        graph = self.graph_bytes + sum(
            sizes[WIDTHS.index(width)] for sizes, width in zip(self.layer_bytes, bit_map, strict=True)
        )
        return self.other_bytes + varint_bytes(graph) + graph

    def most_overhead_bytes(self) -> int:
        """Return an upper bound of what any file has beyond its layers, in bytes."""
        largest: Sequence[int] = [max(sizes) for sizes in self.layer_bytes]
        return self.other_bytes + varint_bytes(self.graph_bytes + sum(largest)) + self.graph_bytes


def varint_bytes(number: int) -> int:
    """Return the length of a number in a protocol buffer: seven bits a byte."""
    return max(1, -(-number.bit_length() // 7))
