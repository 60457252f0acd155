"""Writes a map's weights from the bank to the slots of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from objectives.evaluation.cuda_graphs import kernels_on
from objectives.evaluation.forward import WeightSlot
from objectives.layers import Layer
from objectives.quantization.affine import AffineParameters
from objectives.quantization.bank import FP32_WIDTH, WeightBank


class WeightWriter:
    """Writes weights of a bank to the slots of a forward pass; on a GPU with Triton kernels, in one launch."""

    def __init__(self, bank: WeightBank, layers: Sequence[Layer], slots: Sequence[WeightSlot]) -> None:
        """Set the slot of each layer."""
        self._bank = bank
        self._layers = layers
        self._slots = slots
        kernels = kernels_on(slots[0].out.device)
        self._decoder = None if kernels is None else kernels.Decoder(slots)

    def write(self, widths: Mapping[int, int]) -> None:
        """Write layers' weights, by index, at these widths."""
        decodable = {}
        for index, width in widths.items():
            if self._can_decode(index, width):
                decodable[index] = width
            else:
                slot = self._slots[index]
                self._bank.write_weight(self._layers[index], width, slot.out, slot.rows)
        if self._decoder is not None and decodable:
            self._decoder.decode(decodable)

    def _can_decode(self, index: int, width: int) -> bool:
        """Return whether the kernel can decode a layer's entry; add the entry to it on first use."""
        if self._decoder is None or width == FP32_WIDTH:
            return False
        if not self._decoder.has_entry(index, width):
            codes, parameters = self._bank.entry(self._layers[index], width)
            if not isinstance(parameters, AffineParameters) or parameters.groups is not None:
                return False
            self._decoder.add(index, width, codes, parameters.scale, parameters.zero_point)
        return True
