"""Sizes of ONNX files as runtimes store codes: linear layers in 2, 4 or 8 bits, embeddings in each width."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.layers import WIDTHS, Layer
from objectives.packing.onnx_size import OnnxSizes


def made_up_onnx_sizes(layers: Sequence[Layer]) -> OnnxSizes:
    """Return such sizes of these layers, with 100 bytes beside each layer's codes and 5,000 in the file."""

    def stored_bits(layer: Layer, width: int) -> int:
        return width if layer.kind == "embedding" else next(bits for bits in (2, 4, 8) if bits >= width)

    table = tuple(
        tuple(100 + -(-layer.elements * stored_bits(layer, width) // 8) for width in WIDTHS) for layer in layers
    )
    fp32 = 4 * sum(layer.elements for layer in layers) + 9_000
    return OnnxSizes(layer_bytes=table, graph_bytes=4_000, other_bytes=1_000, fp32_bytes=fp32)
