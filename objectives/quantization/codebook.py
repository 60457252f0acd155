"""Codebook quantisation of a weight matrix: each code is an index into the layer's codewords.

Notation:
    w = s q[c] + e, and c = argmin_k |w / s - q[k]|

    w  weight
    c  code of b bits
    s  FP32 scale of the row
    q  2^b FP32 codewords of the layer, rising: k-means over w / rms(row)
    e  rounding error

Codewords need not be evenly spaced, so they follow the weights' density. GOBO (Zadeh et al., MICRO 2020) introduced
such codebooks and keeps outliers in FP32. Row scales replace that here, so that every weight takes the width of its
layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives.quantization.parameters import row_chunks

_SAMPLE = 1 << 18  # weights that k-means runs on
_BINS = 64  # of the density estimate: wide enough to hold some weights each, even in the tails
_ITERATIONS = 30
_FEW = 16  # codewords, at most, that start evenly filled


@dataclass(frozen=True)
class CodebookParameters:
    """Scales ``(rows, 1)``, zero or more, and codewords ``(2**width,)``, ascending; both FP32."""

    scale: Tensor
    codewords: Tensor
    width: int

    @property
    def shiftable(self) -> bool:
        """Whether ``adjusted`` can add a constant: no, all rows share their codewords."""
        return False

    def select_rows(self, rows: Tensor | slice) -> CodebookParameters:
        """Return the parameters of the rows at these indices ``(n,)``."""
        return replace(self, scale=self.scale[rows])

    def write(self, codes: Tensor, out: Tensor) -> None:
        """Decode codes ``(rows, columns)`` into ``out``, FP32 of the same shape."""
        # Three times as fast as codewords[codes.int()]; torch takes a uint8 index for a mask.
        chosen = self.codewords.index_select(0, codes.flatten().int()).view(codes.shape)
        torch.mul(chosen, self.scale, out=out)

    def adjusted(self, gain: Tensor, shift: Tensor) -> CodebookParameters:
        """Return parameters that multiply each row by its ``gain`` ``(rows,)``."""
        return replace(self, scale=self.scale * gain[:, None])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensor fields by name."""
        return {"scale": self.scale, "codewords": self.codewords}

    def stored(self) -> dict[str, Tensor]:
        """Return scales ``(rows, 1)`` and codewords ``(2**width,)`` for a packed checkpoint, both FP32."""
        return self.tensors()

    def fault(self) -> str:
        """Describe the first invalid value; return an empty string if all are valid."""
        if not (self.scale.isfinite().all() and (self.scale >= 0).all()):
            return "scales out of range"
        if not (self.codewords.isfinite().all() and (self.codewords.diff() >= 0).all()):
            return "codewords that are not finite and rising"
        return ""


def quantize_codebook(weight: Tensor, width: int) -> tuple[Tensor, CodebookParameters]:
    """Return codes, uint8 ``(rows, columns)``, and parameters: each weight rounded to the nearest codeword.

    k-means runs on rows scaled to a root mean square of 1. Each row's scale is then fitted to its codes by least
    squares, and the weights are rounded once more with the fitted scale.

    Args:
        weight: ``(rows, columns)``, finite.
        width: width of the codes, 2..8.
    """
    weight = weight.float()
    spread = weight.square().mean(dim=1, keepdim=True).sqrt()
    spread = torch.where(spread > torch.finfo(torch.float32).tiny, spread, torch.ones_like(spread))
    codewords = k_means((weight / spread).flatten(), 2**width)
    scale = torch.empty_like(spread)
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for chunk in row_chunks(weight):
        part = weight[chunk]
        nearest = codewords[_nearest_index(part / spread[chunk], codewords)]
        fitted = (nearest * part).sum(dim=1, keepdim=True) / nearest.square().sum(dim=1, keepdim=True)
        # No codeword need be zero: a scale of zero keeps a row of zeros exact.
        scale[chunk] = torch.where(fitted.isfinite() & (fitted >= 0), fitted, spread[chunk])
        divisor = torch.where(scale[chunk] > 0, scale[chunk], torch.ones_like(scale[chunk]))
        codes[chunk] = _nearest_index(part / divisor, codewords).to(torch.uint8)
    return codes, CodebookParameters(scale, codewords, width)


def _nearest_index(values: Tensor, codewords: Tensor) -> Tensor:
    """Return the index of the codeword nearest to each value, int32 of the values' shape."""
    return torch.bucketize(values, (codewords[1:] + codewords[:-1]) / 2, out_int32=True)


def k_means(values: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords, FP32 and ascending, of values ``(n,)``: Lloyd's algorithm on a sample of them.

    The start depends on ``count``. Few codewords start in evenly filled cells. From the other start some would settle
    on single outliers: the squared error would be lower, but the damage of a fine-tuned BERT at 4 bits doubles. Many
    codewords would not reach the tails from evenly filled cells. They start with a density proportional to the cube
    root of the weights' density, the optimum for many codewords (Panter and Dite, Proceedings of the IRE 39, 1951).
    """
    step = torch.linspace(0, len(values) - 1, min(len(values), _SAMPLE), dtype=torch.float64, device=values.device)
    ordered = values[step.round().long()].double().sort().values
    codewords = (_companded if count > _FEW else _evenly_filled)(ordered, count)
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(dim=0)])
    ends = torch.tensor([0, len(ordered)], device=values.device)
    for _ in range(_ITERATIONS):
        inner = torch.searchsorted(ordered, (codewords[1:] + codewords[:-1]) / 2)
        bounds = torch.cat([ends[:1], inner, ends[1:]])
        sizes = bounds.diff()
        codewords = torch.where(sizes > 0, sums[bounds].diff() / sizes, codewords)
    # Rounding errors of the sums can swap codewords that are nearly equal.
    return codewords.float().sort().values


def _evenly_filled(ordered: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords of ascending values ``(n,)``, in cells with equally many of them."""
    share = (torch.arange(count, device=ordered.device) + 0.5) / count
    return ordered[(share * len(ordered)).long()]


def _companded(ordered: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords of ascending values ``(n,)``, with the cube root of their density."""
    low, high = ordered[0], ordered[-1]
    if not high > low:
        return low.repeat(count)
    edges = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64, device=ordered.device) * (high - low) + low
    below = torch.searchsorted(ordered, edges)
    below[-1] = len(ordered)
    mass = torch.cat([ordered.new_zeros(1), below.diff().double().pow(1 / 3).cumsum(dim=0)])
    targets = (torch.arange(count, dtype=torch.float64, device=ordered.device) + 0.5) / count * mass[-1]
    after = torch.searchsorted(mass, targets)
    share = (targets - mass[after - 1]) / (mass[after] - mass[after - 1])
    return edges[after - 1] + share * (edges[after] - edges[after - 1])
