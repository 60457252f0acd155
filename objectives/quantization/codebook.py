"""Codebook quantisation of a weight matrix: each code names one of a layer's own codewords.

``w ~ scale * codewords[code]``, with ``2**width`` FP32 codewords a layer, found by k-means over its weights, and an
FP32 scale for each row. Codewords need not be evenly spaced, so they lie where the weights do; each takes four bytes,
and there are no zero points. Weights in few groups with an FP32 value each are GOBO's (Zadeh et al., MICRO 2020), which
keeps outliers aside in FP32; row scales are here instead, so that every weight takes the bits that its map says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives.quantization.parameters import row_chunks

_SAMPLE = 1 << 18  # weights that the codewords are found on
_BINS = 64  # wide enough to hold some weights each, also far out
_ITERATIONS = 30
_FEW = 16  # codewords


@dataclass(frozen=True)
class CodebookParameters:
    """Scales ``(rows, 1)``, zero or more, and codewords ``(2**width,)``, none below the one before; both in FP32."""

    scale: Tensor
    codewords: Tensor
    width: int

    @property
    def shiftable(self) -> bool:
        """No: all rows share their codewords."""
        return False

    def of_rows(self, rows: Tensor | slice) -> CodebookParameters:
        """Return the parameters of some rows, by their indices ``(n,)``."""
        return replace(self, scale=self.scale[rows])

    def write(self, codes: Tensor, out: Tensor) -> None:
        """Write the weights that codes ``(rows, columns)`` stand for into ``out``, FP32 of the same shape."""
        torch.mul(self.codewords[codes.int()], self.scale, out=out)  # uint8 would be taken for a mask

    def adjusted(self, gain: Tensor, shift: Tensor) -> CodebookParameters:
        """Return those of the same weights with each row multiplied by its ``gain`` ``(rows,)``."""
        return replace(self, scale=self.scale * gain[:, None])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that they are, by field."""
        return {"scale": self.scale, "codewords": self.codewords}

    def stored(self) -> dict[str, Tensor]:
        """Return scales ``(rows, 1)`` and codewords ``(2**width,)`` for a packed checkpoint, both FP32."""
        return self.tensors()

    def fault(self) -> str:
        """Return what is out of range in words, nothing where all is sound."""
        if not (self.scale.isfinite().all() and (self.scale >= 0).all()):
            return "scales out of range"
        if not (self.codewords.isfinite().all() and (self.codewords.diff() >= 0).all()):
            return "codewords that are not finite and rising"
        return ""


def quantize_codebook(weight: Tensor, width: int) -> tuple[Tensor, CodebookParameters]:
    """Return codes, uint8 ``(rows, columns)``, and parameters: each weight rounded to the nearest codeword.

    Rows are brought to a root mean square of 1 before the codewords are found. Then each row's scale is fitted to its
    codes by least squares, and the codes are rounded to it once more.

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
        nearest = codewords[_nearest(part / spread[chunk], codewords)]
        fitted = (nearest * part).sum(dim=1, keepdim=True) / nearest.square().sum(dim=1, keepdim=True)
        # A row of zeros has no codeword of its own: a scale of zero keeps it.
        scale[chunk] = torch.where(fitted.isfinite() & (fitted >= 0), fitted, spread[chunk])
        divisor = torch.where(scale[chunk] > 0, scale[chunk], torch.ones_like(scale[chunk]))
        codes[chunk] = _nearest(part / divisor, codewords).to(torch.uint8)
    return codes, CodebookParameters(scale, codewords, width)


def _nearest(values: Tensor, codewords: Tensor) -> Tensor:
    """Return the index of the codeword nearest to each value, int32 of the values' shape."""
    return torch.bucketize(values, (codewords[1:] + codewords[:-1]) / 2, out_int32=True)


def k_means(values: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords, FP32 and rising, of values ``(n,)``: Lloyd's algorithm on a sample of them.

    Few codewords begin in evenly filled cells, or some would be spent on single weights far out and stay there: the
    squared error would be less, and the damage of a fine-tuned BERT at 4 bits twice as much. Many would not find the
    tails from there; they begin as dense as the cube root of the weights' density, which is where many codewords belong
    (Panter and Dite, Proceedings of the IRE 39, 1951).
    """
    step = torch.linspace(0, len(values) - 1, min(len(values), _SAMPLE), dtype=torch.float64, device=values.device)
    ordered = values[step.round().long()].double().sort().values
    codewords = (_companded if count > _FEW else _evenly_filled)(ordered, count)
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(dim=0)])
    ends = torch.tensor([0, len(ordered)], device=values.device)
    for _ in range(_ITERATIONS):
        inner = torch.searchsorted(ordered, (codewords[1:] + codewords[:-1]) / 2)
        bounds = torch.cat([ends[:1], inner, ends[1:]])
        members = bounds.diff()
        codewords = torch.where(members > 0, sums[bounds].diff() / members, codewords)
    # Sums of cells have rounding errors: codewords that are as good as equal could be the wrong way round.
    return codewords.float().sort().values


def _evenly_filled(ordered: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords of rising values ``(n,)``, each with as many of them around it."""
    share = (torch.arange(count, device=ordered.device) + 0.5) / count
    return ordered[(share * len(ordered)).long()]


def _companded(ordered: Tensor, count: int) -> Tensor:
    """Return ``count`` codewords of rising values ``(n,)``, as dense as the cube root of their density."""
    low, high = ordered[0], ordered[-1]
    if not high > low:
        return low.repeat(count)
    edges = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64, device=ordered.device) * (high - low) + low
    below = torch.searchsorted(ordered, edges)
    below[-1] = len(ordered)
    mass = torch.cat([ordered.new_zeros(1), below.diff().double().pow(1 / 3).cumsum(dim=0)])
    wanted = (torch.arange(count, dtype=torch.float64, device=ordered.device) + 0.5) / count * mass[-1]
    after = torch.searchsorted(mass, wanted)
    share = (wanted - mass[after - 1]) / (mass[after] - mass[after - 1])
    return edges[after - 1] + share * (edges[after] - edges[after - 1])
