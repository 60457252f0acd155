"""Writes a map's weights from the bank to where a forward pass has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from objectives.evaluation.cuda_graphs import kernels_on
from objectives.evaluation.forward import WeightSlot
from objectives.layers import Layer
from objectives.quantization.affine import AffineParameters
from objectives.quantization.bank import FP32_WIDTH, WeightBank


class WeightWriter:
    """Writes weights of a bank to where a forward pass has them; on a GPU with its kernels, all by one launch."""

    def __init__(self, bank: WeightBank, layers: Sequence[Layer], slots: Sequence[WeightSlot]) -> None:
        """Take note of where each layer's weight goes."""
        self._bank = bank
        self._layers = layers
        self._slots = slots
        kernels = kernels_on(slots[0].out.device)
        self._decoder = None if kernels is None else kernels.Decoder(slots)

    def write(self, widths: Mapping[int, int]) -> None:
        """Write layers' weights, by index, at these widths."""
        together = {}
        for index, width in widths.items():
            if self._decodes(index, width):
                together[index] = width
            else:
                slot = self._slots[index]
                self._bank.write_weight(self._layers[index], width, slot.out, slot.rows)
        if self._decoder is not None and together:
            self._decoder.decode(together)

    def _decodes(self, index: int, width: int) -> bool:
        """Return whether the kernel decodes a layer's entry, which it is given where it was not before."""
        if self._decoder is None or width == FP32_WIDTH:
            return False
        if not self._decoder.knows(index, width):
            codes, parameters = self._bank.entry(self._layers[index], width)
            if not isinstance(parameters, AffineParameters) or parameters.groups is not None:
                return False
            self._decoder.add(index, width, codes, parameters.scale, parameters.zero_point)
        return True
