"""Codes of 2 to 8 bits and what they stand for: the one interface of all that turns weights into codes.

A layer's entry is its codes, uint8 ``(rows, columns)``, and the parameters that decode them. Choosing parameters and
codes is each quantiser's own business; decoding, storing and polishing go through :class:`Parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

# Work buffers of two megabytes, which cores have in their caches; to share out smaller ones among threads takes as long
# as to work on them.
_CHUNK_ELEMENTS = 1 << 19


class Parameters(Protocol):
    """What a layer's codes of ``width`` bits are decoded with; a value that never changes."""

    @property
    def width(self) -> int:
        """The width of the codes, 2..8."""

    @property
    def scale(self) -> Tensor:
        """FP32 scales, a row of them for each row of the weight."""

    @property
    def shiftable(self) -> bool:
        """Whether a constant can be added to all weights of a row (see ``adjusted``)."""

    def of_rows(self, rows: Tensor | slice) -> Self:
        """Return the parameters of some rows, by their indices ``(n,)``."""

    def write(self, codes: Tensor, out: Tensor) -> None:
        """Write the weights that codes ``(rows, columns)`` stand for into ``out``, FP32 of the same shape."""

    def adjusted(self, gain: Tensor, shift: Tensor) -> Self:
        """Return those of the weights with ``shift`` added to each row, then multiplied by ``gain``; both ``(rows,)``.

        Shifts are rounded to what can be stored, and ignored where nothing of the kind can.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that they are, by field."""

    def stored(self) -> dict[str, Tensor]:
        """Return what a packed checkpoint has of them, by part and of the types that ``Scheme.parts`` says."""

    def fault(self) -> str:
        """Return what is out of range in words, nothing where all is sound."""


Entry = tuple[Tensor, Parameters]
"""A layer's codes, uint8 ``(rows, columns)``, and their parameters."""


def decode(codes: Tensor, parameters: Parameters, out: Tensor | None = None) -> Tensor:
    """Return the weights ``(rows, columns)`` that the codes stand for, computed in FP32.

    Written to ``out`` where given, rounded to its type.
    """
    out = torch.empty(codes.shape, dtype=torch.float32, device=codes.device) if out is None else out
    for chunk in row_chunks(codes):
        part = out[chunk] if out.dtype == torch.float32 else torch.empty(codes[chunk].shape, device=codes.device)
        parameters.of_rows(chunk).write(codes[chunk], part)
        if out.dtype != torch.float32:
            out[chunk] = part
    return out


def row_chunks(matrix: Tensor, elements: int = _CHUNK_ELEMENTS) -> Iterator[slice]:
    """Yield slices of rows, of at most so many elements, that are small enough to be worked on in the cache."""
    rows, columns = matrix.shape
    step = max(1, elements // columns) if matrix.device.type == "cpu" else rows
    return (slice(start, start + step) for start in range(0, rows, step))
