"""The weight bank: each layer quantised once at each width, kept as codes and decoded on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from objectives.layers import Layer
from objectives.loading.fingerprint import short_digest
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.dispatch import round_to_nearest
from objectives.quantization.parameters import Entry, decode

FP32_WIDTH = 32
"""The width, in a bit map, of a layer that keeps its FP32 weights."""


class WeightBank:
    """Quantised weights by layer and width.

    An entry depends on its layer and width alone and is computed at its first use. It takes about one byte a weight:
    all seven widths of bert-base-uncased take 0.8 GB, and FP32 copies would take 3.1 GB.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], scheme: Scheme = PER_ROW) -> None:
        """Keep a reference to the FP32 weights.

        Args:
            model: an FP32 model; not changed.
            layers: its searchable layers.
            scheme: which parameters decode the codes.
        """
        self.scheme = scheme
        self._layers = {layer.name: layer for layer in layers}
        self._weights = {layer.name: model.get_parameter(layer.parameter).detach() for layer in layers}
        self._entries: dict[tuple[str, int], Entry] = {}
        self._fingerprints: dict[str, str] = {}

    def entry(self, layer: Layer, width: int) -> Entry:
        """Return a layer's codes, uint8 ``(rows, columns)``, and their parameters at a width, 2..8."""
        key = (layer.name, width)
        if key not in self._entries:
            self._entries[key] = round_to_nearest(self.scheme, self._weights[layer.name], width)
        return self._entries[key]

    def fill(self, layer: Layer, entries: Mapping[int, Entry], fingerprint: str = "") -> None:
        """Set a layer's entries by width, and their fingerprint if they have one."""
        self._entries |= {(layer.name, width): entry for width, entry in entries.items()}
        if fingerprint:
            self._fingerprints[layer.name] = fingerprint

    @property
    def fingerprint(self) -> str:
        """Of all entries that have a fingerprint; empty if none has."""
        return short_digest(json.dumps(self._fingerprints, sort_keys=True)) if self._fingerprints else ""

    def write_weight(self, layer: Layer, width: int, out: Tensor, rows: Tensor | None = None) -> None:
        """Write a layer's weight at a width, 2..8 or ``FP32_WIDTH``, into ``out``, rounded to its type.

        ``out`` has shape ``(rows, columns)``, or ``(len(rows), columns)`` if only the rows ``rows`` are written.
        """
        with torch.no_grad():
            if width == FP32_WIDTH:
                weight = self._weights[layer.name]
                out.copy_(weight if rows is None else weight[rows])
                return
            codes, parameters = self.entry(layer, width)
            if rows is not None:
                codes, parameters = codes[rows], parameters.select_rows(rows)
            decode(codes, parameters, out=out)
