"""Affine quantisation of a weight matrix as pure tensor functions: choose parameters and encode.

Each row (an output channel, or a row of an embedding) has one FP32 scale and one zero point, or one pair for each group
of columns.

Notation:
    w = s (c - z) + e, and c = clip(round(w / s) + z, 0, 2^b - 1) for a whole z

    w  weight
    c  code of b bits
    s  scale, positive
    z  zero point, 0 <= z < 2^b
    e  rounding error

A zero point is stored as one byte, round(z 2^(8 - b)): b whole bits and 8 - b fractional ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives.quantization.parameters import row_chunks

# Shares of a row's full range that the clipping search tries. Small widths need much clipping: the best range for
# Gaussian weights falls from about 4 standard deviations at 8 bits to 1.5 at 2 bits, and a row of a few hundred weights
# reaches 3 to 4.
_SHARES = tuple(1.0 - 0.025 * step for step in range(33))


@dataclass(frozen=True)
class AffineParameters:
    """Scales, positive, and zero points, 0 to below 2**width; both FP32 ``(rows, n_groups)``.

    ``groups`` ``(columns,)`` is the group of each column; None if all columns are one group.
    """

    scale: Tensor
    zero_point: Tensor
    width: int
    groups: Tensor | None = None

    @property
    def shiftable(self) -> bool:
        """Whether ``adjusted`` can add a constant: yes, by the zero points."""
        return True

    def select_rows(self, rows: Tensor | slice) -> AffineParameters:
        """Return the parameters of the rows at these indices ``(n,)``."""
        return replace(self, scale=self.scale[rows], zero_point=self.zero_point[rows])

    def per_column(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the scale and the zero point at each of these columns, both ``(rows, stop - start)``."""
        if self.groups is None:
            return self.scale.expand(-1, stop - start), self.zero_point.expand(-1, stop - start)
        return self.scale[:, self.groups[start:stop]], self.zero_point[:, self.groups[start:stop]]

    def write(self, codes: Tensor, out: Tensor) -> None:
        """Decode codes ``(rows, columns)`` into ``out``, FP32 of the same shape."""
        scale, zero_point = self.per_column(0, codes.shape[1])
        out.copy_(codes).sub_(zero_point).mul_(scale)

    def adjusted(self, gain: Tensor, shift: Tensor) -> AffineParameters:
        """Return parameters that add ``shift`` to each row, then multiply it by ``gain``; both ``(rows,)``.

        Zero points are rounded to storable ones.
        """
        zero_point = storable_zero_point(self.zero_point - shift[:, None] / self.scale, self.width)
        return replace(self, scale=self.scale * gain[:, None], zero_point=zero_point)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensor fields by name."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    def stored(self) -> dict[str, Tensor]:
        """Return scales, FP32, and zero points, uint8, for a packed checkpoint, both ``(rows, n_groups)``."""
        byte = self.zero_point.mul(2.0 ** (8 - self.width)).to(torch.uint8)
        return {"scale": self.scale, "zero_point": byte}

    def fault(self) -> str:
        """Describe the first invalid value; return an empty string if all are valid."""
        return "" if self.scale.isfinite().all() and (self.scale > 0).all() else "scales out of range"


def storable_zero_point(zero_point: Tensor, width: int) -> Tensor:
    """Return the nearest storable zero points."""
    return zero_point_of_byte(zero_point.mul(2.0 ** (8 - width)).round_().clamp_(0.0, 255.0), width)


def zero_point_of_byte(byte: Tensor, width: int) -> Tensor:
    """Return the zero points, FP32, that stored bytes stand for."""
    return byte.float() * 2.0 ** (width - 8)


def column_groups(columns: int, group_size: int, device: torch.device | None = None) -> Tensor | None:
    """Return the group ``(columns,)`` of each column, in runs of ``group_size``; the last group may be smaller.

    None if all columns are one group, or ``group_size`` is 0.
    """
    if not 0 < group_size < columns:
        return None
    return torch.arange(columns, device=device) // group_size


def columns_by_group(groups: Tensor | None) -> Sequence[Tensor | slice]:
    """Return an index of the columns of each group."""
    if groups is None:
        return [slice(None)]
    return [torch.nonzero(groups == group)[:, 0] for group in range(int(groups.max()) + 1)]


def choose_affine(weight: Tensor, width: int, groups: Tensor | None = None) -> AffineParameters:
    """Choose each row's scale and whole zero point by a clipping search for the least squared error.

    Each row's range [min(w, 0), max(w, 0)] is shrunk by several shares, and the share of least squared error is kept
    (the clipping of Banner et al., NeurIPS 2019, found by search for each row).

    Args:
        weight: ``(rows, columns)``, finite.
        width: width of the codes, 2..8.
        groups: the group of each column, as ``column_groups`` returns it.
    """
    group_columns = columns_by_group(groups)
    scale, zero_point = (torch.empty(len(weight), len(group_columns), device=weight.device) for _ in range(2))
    for group, columns in enumerate(group_columns):
        part = weight[:, columns]
        for chunk in row_chunks(part):
            best = _search_clipping(part[chunk].float(), width)
            scale[chunk, group : group + 1], zero_point[chunk, group : group + 1] = best
    return AffineParameters(scale, zero_point, width, groups)


def encode(weight: Tensor, parameters: AffineParameters) -> Tensor:
    """Return the codes of ``weight`` ``(rows, columns)``: uint8 of the same shape, 0..2**width - 1.

    Zero points must be whole, as ``choose_affine`` returns them.
    """
    top = float(2**parameters.width - 1)
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for chunk in row_chunks(weight):
        scale, zero_point = parameters.select_rows(chunk).per_column(0, weight.shape[1])
        codes[chunk] = (weight[chunk] / scale).round_().add_(zero_point).clamp_(0.0, top)
    return codes


def _search_clipping(weight: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point of each row, both ``(rows, 1)``."""
    top = float(2**width - 1)
    low = weight.amin(dim=1, keepdim=True).clamp_(max=0.0)
    high = weight.amax(dim=1, keepdim=True).clamp_(min=0.0)
    full_scale = (high - low) / top
    # A row of zeros, or so small that its scale underflows, is exact with any scale.
    full_scale = torch.where(full_scale > torch.finfo(torch.float32).tiny, full_scale, torch.ones_like(full_scale))
    zero_point = (-low / full_scale).round_().clamp_(0.0, top)  # the same for every share

    best_error = torch.full_like(full_scale, torch.inf)
    best_scale = full_scale.clone()
    rounded = torch.empty_like(weight)
    for share in _SHARES:
        scale = full_scale * share
        torch.div(weight, scale, out=rounded)
        rounded.round_().add_(zero_point).clamp_(0.0, top).sub_(zero_point).mul_(scale).sub_(weight)
        error = torch.linalg.vector_norm(rounded, dim=1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    return best_scale, zero_point
