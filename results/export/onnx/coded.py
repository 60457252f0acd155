"""What becomes nodes: a layer's place in the graph, and its codes and parameters as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.layers import Layer
from objectives.packing.scheme import Scheme
from objectives.quantization.parameters import Entry
from results.export.onnx.fragments import Values


@dataclass(frozen=True)
class Place:
    """Where a layer stands in the graph: its input and output by name, and its bias, if it has one.

    A linear layer's input is ``(tokens, columns)``; an embedding's is the index of each row, ``(tokens,)``.
    """

    layer: Layer
    input: str
    output: str
    bias: str = ""


@dataclass(frozen=True)
class Coded:
    """A layer's codes and parameters as arrays; ``n_groups`` scales a row, of ``group_size`` columns."""

    layer: Layer
    width: int
    scheme: Scheme
    entry: Entry | None

    @property
    def n_groups(self) -> int:
        return self.scheme.n_groups(self.layer)

    @property
    def group_size(self) -> int:
        """The columns of a group; of all but the last, which may be smaller."""
        return self.scheme.group_size if self.n_groups > 1 else self.layer.columns

    def codes(self) -> npt.NDArray[np.uint8]:
        """Return the codes, ``(rows, columns)``."""
        assert self.entry is not None
        codes: npt.NDArray[np.uint8] = self.entry[0].cpu().numpy()
        return codes

    def part(self, name: str) -> Values:
        """Return the scales or the bytes of the zero points, ``(rows, n_groups)``."""
        assert self.entry is not None
        part: Values = self.entry[1].stored()[name].cpu().numpy().reshape(self.layer.rows, self.n_groups)
        return part

    def zero_points(self) -> npt.NDArray[np.float32]:
        """Return the zero points, ``(rows, n_groups)``."""
        return self.part("zero_point").astype(np.float32) * np.float32(2.0 ** (self.width - 8))

    def whole_zero_points(self, stored: int) -> npt.NDArray[np.uint8]:
        """Return the zero points of MatMulNBits at so many stored bits, ``(rows, n_groups)``."""
        if stored == 8:
            byte: npt.NDArray[np.uint8] = self.part("zero_point")
            return byte
        nearest: npt.NDArray[np.uint8] = np.minimum(np.rint(self.zero_points()), 2**stored - 1).astype(np.uint8)
        return nearest
