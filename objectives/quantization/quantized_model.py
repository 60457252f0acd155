"""A quantised model: codes and parameters of each layer, and the tensors that stay in FP32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives.layers import BitMap, Layer
from objectives.loading.layer_discovery import footprint_of
from objectives.packing.footprint import Footprint
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.parameters import Entry, decode


@dataclass(frozen=True)
class QuantizedModel:
    """What a packed checkpoint holds.

    Attributes:
        layers: the searchable layers.
        bit_map: the width of each layer.
        entries: codes, uint8 ``(rows, columns)``, and parameters of each layer.
        kept: name and value of every other floating-point tensor of the state dict, FP32.
        scheme: which parameters decode the codes.
    """

    layers: tuple[Layer, ...]
    bit_map: BitMap
    entries: tuple[Entry, ...]
    kept: Mapping[str, Tensor]
    scheme: Scheme = PER_ROW

    @property
    def footprint(self) -> Footprint:
        """The sizes of the model's bit maps."""
        return Footprint(self.layers, {name: tuple(tensor.shape) for name, tensor in self.kept.items()}, self.scheme)

    @classmethod
    def of(cls, model: nn.Module, bank: WeightBank, bit_map: BitMap) -> QuantizedModel:
        """Quantise an FP32 model to a bit map, with the codes of its bank."""
        sizes, state = footprint_of(model, bank.scheme), model.state_dict()
        entries = tuple(bank.entry(layer, width) for layer, width in zip(sizes.layers, bit_map, strict=True))
        kept = {name: state[name].detach().float() for name in sizes.kept}
        return cls(sizes.layers, bit_map, entries, kept, bank.scheme)

    def decoded(self, model: nn.Module) -> nn.Module:
        """Return a copy of ``model`` with these weights, in FP32."""
        decoded = copy.deepcopy(model)
        state = decoded.state_dict()
        with torch.no_grad():
            for layer, (codes, parameters) in zip(self.layers, self.entries, strict=True):
                decode(codes, parameters, out=state[layer.parameter])
            for name, tensor in self.kept.items():
                state[name].copy_(tensor)
        return decoded
