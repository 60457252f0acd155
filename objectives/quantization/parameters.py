"""The interface of quantisation parameters, and decoding codes of 2 to 8 bits with them.

A layer's entry is its codes, uint8 ``(rows, columns)``, and the parameters that decode them. Each quantiser chooses
parameters and codes in its own way; decoding, storing and training go through :class:`Parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

# Work buffers of 2 MB fit into a core's cache. For smaller ones, distributing the work to threads costs as much as the
# work itself.
_CHUNK_ELEMENTS = 1 << 19


class Parameters(Protocol):
    """What decodes a layer's codes of ``width`` bits; immutable."""

    @property
    def width(self) -> int:
        """The width of the codes, 2..8."""

    @property
    def scale(self) -> Tensor:
        """FP32 scales, one row for each row of the weight."""

    @property
    def shiftable(self) -> bool:
        """Whether ``adjusted`` can add a constant to all weights of a row."""

    def select_rows(self, rows: Tensor | slice) -> Self:
        """Return the parameters of the rows at these indices ``(n,)``."""

    def write(self, codes: Tensor, out: Tensor) -> None:
        """Decode codes ``(rows, columns)`` into ``out``, FP32 of the same shape."""

    def adjusted(self, gain: Tensor, shift: Tensor) -> Self:
        """Return parameters that add ``shift`` to each row, then multiply it by ``gain``; both ``(rows,)``.

        Shifts are rounded to storable values, and ignored if not ``shiftable``.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensor fields by name."""

    def stored(self) -> dict[str, Tensor]:
        """Return the tensors of a packed checkpoint, with the names and types of ``Scheme.parts``."""

    def fault(self) -> str:
        """Describe the first invalid value; return an empty string if all are valid."""


Entry = tuple[Tensor, Parameters]
"""A layer's codes, uint8 ``(rows, columns)``, and their parameters."""


def decode(codes: Tensor, parameters: Parameters, out: Tensor | None = None) -> Tensor:
    """Return the weights ``(rows, columns)`` that codes stand for, computed in FP32.

    They are written to ``out`` if it is given, rounded to its type.
    """
    out = torch.empty(codes.shape, dtype=torch.float32, device=codes.device) if out is None else out
    for chunk in row_chunks(codes):
        part = out[chunk] if out.dtype == torch.float32 else torch.empty(codes[chunk].shape, device=codes.device)
        parameters.select_rows(chunk).write(codes[chunk], part)
        if out.dtype != torch.float32:
            out[chunk] = part
    return out


def row_chunks(matrix: Tensor, elements: int = _CHUNK_ELEMENTS) -> Iterator[slice]:
    """Yield slices of rows with at most ``elements`` elements each; a GPU gets all rows at once."""
    rows, columns = matrix.shape
    step = max(1, elements // columns) if matrix.device.type == "cpu" else rows
    return (slice(start, start + step) for start in range(0, rows, step))
